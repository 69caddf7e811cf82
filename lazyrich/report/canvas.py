"""From a matplotlib figure to an inline SVG that takes its colours from the page.

Figures are drawn with stand-in colours, one for each CSS variable; once they are text, each stand-in
becomes ``var(--name)``, so that one drawing is right on a light and on a dark page and in print. Texts stay
texts. Ids are renamed under a prefix, since a page holds many drawings and an id must be its only one.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_TONES = 6
UPRIGHT = 3  # letters that fit under a tick without slanting
_NAMES = (
    *("bg", "ink", "muted", "grid", "good", "bad", "theory"),
    *("layer", "passthrough", "interaction", "update"),
    *(f"w{i}" for i in range(1, WIDTH_TONES + 1)),
)
_STAND_IN = {name: f"#0101{i:02x}" for i, name in enumerate(_NAMES, start=1)}
_VARIABLE = {stand_in: f"var(--{name})" for name, stand_in in _STAND_IN.items()}
_TAG = re.compile(r"<[^>]*>")
_FAMILY = re.compile(r"font-family: [^;\"]*;? ?")
_LENGTHY = re.compile(r"\d+\.\d{3,}")


def tone(name: str) -> str:
    """The colour to draw with where the page's CSS variable of this name is meant.

    Example:
        >>> tone("ink")
        '#010102'
    """
    return _STAND_IN[name]


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib's defaults with this page's settings, whatever the user's own are; those come back after.

    Example:
        >>> with drawing():
        ...     figure, axes = sheet(300, 200)
    """
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "lazyrich",
                "text.parse_math": False,
                "font.size": 11,
                "path.simplify": False,
            }
        )
        yield


def sheet(
    width: float, height: float, left: float = 44, right: float = 10, top: float = 10, bottom: float = 34
) -> tuple[Figure, Axes]:
    """A quiet pair of axes on a figure of this size; lengths are CSS pixels at the drawing's natural size.

    Example:
        >>> with drawing():
        ...     figure, axes = sheet(300, 200)
        >>> axes.spines["top"].get_visible()
        False
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_visible(False)
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = figure.add_axes(box)
    axes.patch.set_visible(False)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(side in ("left", "bottom"))
        axes.spines[side].set_color(tone("grid"))
    axes.tick_params(which="both", color=tone("grid"), labelcolor=tone("muted"), labelsize=11, length=3, width=0.8)
    axes.grid(True, color=tone("grid"), linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def named(axes: Axes, names: Sequence[str]) -> None:
    """A tick for each name, at 1, 2, ...; long names are slanted, and the axes end where the longest leaves room for itself.

    Example:
        >>> with drawing():
        ...     _, axes = sheet(400, 290, bottom=84)
        ...     named(axes, ["0", "2", "4"])
        >>> round(axes.get_position().y0 * 290)
        26
    """
    longest, at = max(map(len, names)), range(1, len(names) + 1)
    if longest <= UPRIGHT:
        axes.set_xticks(at, names)
    else:
        axes.set_xticks(at, names, rotation=35, ha="right")
    room = 26 if longest <= UPRIGHT else 16 + 4 * longest
    box, height = axes.get_position(), 72 * axes.figure.bbox.height / axes.figure.dpi
    axes.set_position((box.x0, room / height, box.width, box.y1 - room / height))


def inline(figure: Figure, key: str, title: str, description: str) -> str:
    """The figure as an ``<svg>`` to stand in a page: named, described, scalable, the same bytes each time.

    Args:
        figure: a figure made inside `drawing`, in colours from `tone`.
        key: what its ids begin with; a page must use each key once.
        title: the figure's name for those who do not see it.
        description: what it shows, with the numbers.

    Example:
        >>> with drawing():
        ...     svg = inline(sheet(300, 200)[0], "f1", "Nothing", "An empty sheet.")
        >>> svg.startswith('<svg class="figure" role="img"'), 'viewBox="0 0 300 200"' in svg
        (True, True)
    """
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    body = re.sub(r"<!--.*?-->", "", buffer.getvalue(), flags=re.S)
    body = body[body.index(">", body.index("<svg")) + 1 : body.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.S)
    body = _TAG.sub(lambda tag: _paint(tag.group()), body)
    body = re.sub(r">\s*\n\s*<", "><", re.sub(r"<metadata.*?</metadata>", "", body, flags=re.S))
    body = _unwrap(_rename(body, key))
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    return (
        f'<svg class="figure" role="img" aria-labelledby="{key}-title {key}-desc"'
        f' viewBox="0 0 {width} {height}"><title id="{key}-title">{html.escape(title)}</title>'
        f'<desc id="{key}-desc">{html.escape(description)}</desc>'
        f"{body.strip()}</svg>"
    )


def _paint(tag: str) -> str:
    """One tag in the page's colours and letters, on one line, with coordinates to a hundredth of a pixel."""
    tag = re.sub(r"#0101[0-9a-f]{2}", lambda hit: _VARIABLE.get(hit.group(), hit.group()), tag)
    tag = _LENGTHY.sub(lambda hit: f"{float(hit.group()):.2f}".rstrip("0").rstrip("."), _FAMILY.sub("", tag))
    return re.sub(r"\s+", " ", re.sub(r'\stransform="rotate\(-?0 [^)]*\)"', "", tag)).replace(' "', '"')


def _unwrap(body: str) -> str:
    """The drawing without groups that say nothing and definitions that define nothing."""
    kept: list[bool] = []

    def unwrapped(hit: re.Match[str]) -> str:
        tag = hit.group()
        if tag == "</g>":
            return tag if kept.pop() else ""
        if tag.startswith(("<g>", "<g ")) and not tag.endswith("/>"):
            kept.append(tag != "<g>")
            return tag if kept[-1] else ""
        return "" if tag == "<g/>" else tag

    return re.sub(r"<defs/>|<defs>\s*</defs>", "", _TAG.sub(unwrapped, body))


def _rename(body: str, key: str) -> str:
    """Keep only the ids that something refers to, each under the key's prefix."""
    tags = "".join(_TAG.findall(body))
    used = re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", tags)
    new = {old: f"{key}-{i}" for i, old in enumerate(dict.fromkeys(used), start=1)}

    def renamed(hit: re.Match[str]) -> str:
        tag = hit.group().replace("xlink:href=", "href=")
        tag = re.sub(r'\sid="([^"]*)"', lambda m: f' id="{new[m[1]]}"' if m[1] in new else "", tag)
        return re.sub(r"(url\(#|href=\"#)([^)\"]+)", lambda m: m[1] + new[m[2]], tag)

    return _TAG.sub(renamed, body)
