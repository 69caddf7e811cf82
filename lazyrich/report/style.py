"""One CSS class for each style that the drawings of a page repeat: a third of the page's size."""

from __future__ import annotations

import re

MARK = "/* drawings */"
_TAG = re.compile(r"<[^>]*>")
_STYLE = re.compile(r'\sstyle="([^"]*)"')


def share_styles(page: str) -> str:
    """The page with every ``style`` attribute as a class, and the classes where `MARK` stands.

    Args:
        page: HTML in which text holds no bare ``<``, as the template and the drawings write it.

    Example:
        >>> share_styles('<style>/* drawings */</style><b style="fill: red">style="x"</b>')
        '<style>.s1{fill: red}</style><b class="s1">style="x"</b>'
    """
    names: dict[str, str] = {}

    def named(hit: re.Match[str]) -> str:
        return f' class="{names.setdefault(hit[1], f"s{len(names) + 1}")}"'

    shared = _TAG.sub(lambda tag: _STYLE.sub(named, tag.group()), page)
    rules = "\n".join(f".{name}{{{style}}}" for style, name in names.items())
    return shared.replace(MARK, rules, 1)
