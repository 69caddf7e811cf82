"""The page: results in, one self-contained HTML file out, written whole or not at all."""

from __future__ import annotations

import functools
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyrich.errors import ReportError
from lazyrich.report.number import MINUS
from lazyrich.report.source import read_source
from lazyrich.report.style import share_styles

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from lazyrich.report.source import Result

_POWER = re.compile(r"(?<=\w)\^(?:\(([^()]+)\)|([+-]?\d+(?:\.\d+)?))")
_MINUS = re.compile(r"(\w\([^()]*\))|(?<![^\s(])-(?=\.?\d)")  # of a number, but not in a call
_GAMMA = re.compile(r"\bgamma_0(?![A-Za-z0-9_])")
_TEMPLATES = Path(__file__).parent / "templates"


def render(result: Any, path: str | os.PathLike[str], refresh: int | None = None) -> Path:
    """Write the page that a person looks at.

    The page is one file: no script, no font, no picture and no style is fetched from elsewhere. The same
    result gives the same bytes. The file is written beside its place and then moved there, so that a page is
    never half a page.

    Args:
        result: one result, a list of results, or the path of a run folder with ``result.json``. A result is
            what `lazyrich.check` or `lazyrich.tangents` returns, or its dictionary, or that of ``lazyrich kernel``.
        path: the HTML file to write; its folder is made where it is missing.
        refresh: seconds after which a browser loads the page again, for results that still grow.

    Returns:
        The path of the page.

    Raises:
        ReportError: the result cannot be read (the message names the key or the path), or the page cannot be
            written.

    Example:
        >>> render([], "page.html")
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: got an empty list, expected at least one result; run lazyrich check first
    """
    page = compose(read_source(result), refresh)
    return _write(page, Path(path))


def compose(results: tuple[Result, ...], refresh: int | None = None) -> str:
    """The page's text for results that have been read; one of checks alone has an overview of their verdicts."""
    from lazyrich.report.autoencoder_chapter import autoencoder_chapter
    from lazyrich.report.autoencoder_result import AutoencoderPage
    from lazyrich.report.chapter import PANELS, chapter
    from lazyrich.report.depth_chapter import depth_chapter
    from lazyrich.report.depth_result import DepthPage
    from lazyrich.report.dial_chapter import dial_chapter
    from lazyrich.report.dial_result import DialPage
    from lazyrich.report.kernel_chapter import kernel_chapter
    from lazyrich.report.kernel_result import KernelResult
    from lazyrich.report.limit_chapter import limit_chapter
    from lazyrich.report.limit_result import LimitPage
    from lazyrich.report.result import CheckResult
    from lazyrich.report.signal_chapter import signal_chapter
    from lazyrich.report.signal_result import SignalPage
    from lazyrich.report.sweep_chapter import sweep_chapter
    from lazyrich.report.sweep_result import SweepPage
    from lazyrich.report.tangent_chapter import tangent_chapter
    from lazyrich.report.transfer_chapter import transfer_chapter
    from lazyrich.report.transfer_result import TransferPage

    panels = max(6, PANELS // len(results))

    def made(result: Result, key: str) -> dict[str, Any]:
        if isinstance(result, CheckResult):
            return chapter(result, key, panels)
        if isinstance(result, DepthPage):
            return depth_chapter(result, key)
        if isinstance(result, DialPage):
            return dial_chapter(result, key)
        if isinstance(result, TransferPage):
            return transfer_chapter(result, key)
        if isinstance(result, AutoencoderPage):
            return autoencoder_chapter(result, key)
        if isinstance(result, LimitPage):
            return limit_chapter(result, key)
        if isinstance(result, SignalPage):
            return signal_chapter(result, key)
        if isinstance(result, SweepPage):
            return sweep_chapter(result, key)
        return kernel_chapter(result, key) if isinstance(result, KernelResult) else tangent_chapter(result, key)

    chapters = [made(result, f"r{i}") for i, result in enumerate(results, start=1)]
    checks = all(isinstance(result, CheckResult) for result in results)
    many = f"{len(results)} checks of how training scales with width" if checks else f"{len(results)} results"
    title = results[0].title if len(results) == 1 else many
    template = _environment().get_template("page.html.j2" if checks else "kernel_page.html.j2")
    return share_styles(template.render(title=title, chapters=chapters, refresh=refresh))


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["typeset"] = typeset
    return environment


def typeset(text: str) -> Markup:
    """A sentence as the tables of its page set it: powers raised, true minus signs, γ₀ for gamma_0; all else is escaped.

    Results say it in letters that every terminal has. What stands in a call, as in the name of a scheme, stays to be copied.

    Example:
        >>> typeset("<b> as width^-0.5 or width^(-1/2)")
        Markup('&lt;b&gt; as width<sup>−0.5</sup> or width<sup>−1/2</sup>')
        >>> print(typeset("-0.38 at gamma_0 = 1e-05 (-0.08 to 0.2), abc(-1, -0.5)"))
        −0.38 at γ₀ = 1e-05 (−0.08 to 0.2), abc(-1, -0.5)
    """
    from markupsafe import Markup, escape

    signed = _MINUS.sub(lambda hit: hit[1] or MINUS, str(escape(text)))
    raised = _POWER.sub(lambda hit: f"<sup>{(hit[1] or hit[2]).replace('-', MINUS)}</sup>", signed)
    return Markup(_GAMMA.sub("γ₀", raised))  # noqa: S704


def _write(text: str, path: Path) -> Path:
    """Write a file whole or leave what was there."""
    if path.is_dir():
        raise ReportError(f"got the folder {path}, expected a file to write; pass {path / 'report.html'}")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(text, encoding="utf-8", newline="\n")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReportError(
            f"got {path}, which cannot be written ({reason}), expected a place for the page; "
            "choose a folder that you may write to"
        ) from error
    return path
