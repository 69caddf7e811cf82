"""One sweep's part of the page: what the template prints, with every word, number and figure ready."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from lazyrich.report.canvas import drawing, inline, sheet, tone
from lazyrich.report.chapter import swatch_of
from lazyrich.report.figure import width_style
from lazyrich.report.number import brief
from lazyrich.report.scale import thin
from lazyrich.report.sweep_result import SweepCurve, SweepFigure, SweepPage, SweepRow

WIDE = 20.0  # ratio of ends from which an axis of positive numbers is logarithmic


def sweep_chapter(result: SweepPage, key: str) -> dict[str, Any]:
    """Everything that the template prints of one sweep; ``key`` is what all of its ids begin with."""
    drawn = [f for f in result.figures if f.along and f.curves]
    return {
        "key": key,
        "template": "sweep.html.j2",
        "verb": "sweep",
        "result": result,
        "figures": [_part(f, f"{key}-f{i}") for i, f in enumerate(drawn)],
        "rows": [{"settings": r.settings, "count": r.count, "means": _means(r)} for r in result.rows],
        "gaps": any(mean is None for f in drawn for curve in f.curves for mean in curve.mean),
    }


def _means(row: SweepRow) -> list[str]:
    """With as many digits as the terminal shows."""
    return [odd or brief(mean, figures=4) for mean, odd in zip(row.means, row.odd, strict=True)]


def _part(figure: SweepFigure, key: str) -> dict[str, Any]:
    styles = [width_style(i, len(figure.curves)) for i in range(len(figure.curves))]
    named = len(figure.curves) > 1
    swatches = [swatch_of(c.label, *style) for c, style in zip(figure.curves, styles, strict=True)] if named else []
    return {
        "name": f"{figure.value} against {figure.along}",
        "svg": along(figure, key),
        "swatches": swatches,
        "left_out": figure.left_out,
    }


def along(figure: SweepFigure, key: str) -> str:
    """One value along an axis: means over seeds, their range as a band.

    Example:
        >>> from lazyrich.report.sweep_result import SweepCurve
        >>> curve = SweepCurve("", (1.0, 2.0), (0.5, 0.25), (0.4, 0.2), (0.6, 0.3))
        >>> "0.5 at 1, 0.25 at 2" in along(SweepFigure("loss", "lr", (curve,), 0), "f1")
        True
    """
    with drawing():
        sheet_, axes = sheet(430, 290, left=54, right=16, top=12, bottom=40)
        words = []
        for i, curve in enumerate(figure.curves):
            color, mark, dash = width_style(i, len(figure.curves))
            low, high, mean = ([math.nan if v is None else v for v in end] for end in (curve.low, curve.high, curve.mean))
            axes.fill_between(curve.x, low, high, color=tone(color), alpha=0.13, linewidth=0)
            axes.plot(curve.x, mean, color=tone(color), marker=mark, markersize=4.5, linewidth=1.7, linestyle=dash)
            _lost(axes, curve, tone(color))
            label = f"{curve.label}: " if curve.label else ""
            told = (f"{brief(m, 'not finite')} at {brief(x)}" for x, m in zip(curve.x, curve.mean, strict=True))
            words.append(label + ", ".join(told))
        _scale(axes, [x for c in figure.curves for x in c.x], [v for c in figure.curves for v in c.mean if v is not None])
        axes.set_xlabel(figure.along, color=tone("muted"), labelpad=1)
        axes.set_ylabel(figure.value, color=tone("muted"))
        return inline(sheet_, key, f"{figure.value} against {figure.along}", "; ".join(words) + ".")


def _lost(axes: Axes, curve: SweepCurve, color: str) -> None:
    """A cross at the upper edge, in the curve's colour, where the mean is not finite; the curve has a gap there."""
    lost = [x for x, mean in zip(curve.x, curve.mean, strict=True) if mean is None]
    if lost:
        axes.plot(
            lost, [0.95] * len(lost), transform=axes.get_xaxis_transform(), clip_on=False, linestyle="none",
            marker="x", markersize=7, markeredgewidth=1.8, color=color,
        )  # fmt: skip


def _scale(axes: Axes, places: Sequence[float], values: Sequence[float]) -> None:
    """Logarithmic axes where numbers are positive and far apart; ticks along the axis at the trials themselves."""
    from matplotlib.ticker import NullLocator

    if _wide(values):
        axes.set_yscale("log")
    if _wide(places):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    shown = thin(sorted(set(places)), 6)
    axes.set_xticks(shown, [brief(v) for v in shown])


def _wide(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) > WIDE * min(values)
