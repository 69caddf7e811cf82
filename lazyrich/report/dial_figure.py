"""The figures of a dial: losses, errors and movements against richness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from lazyrich.report.canvas import drawing, inline, sheet, tone
from lazyrich.report.dial_result import DialCurve
from lazyrich.report.figure import width_style
from lazyrich.report.number import brief
from lazyrich.report.scale import FLAT, labels, positive, spans, thin


def against_richness(
    curves: Sequence[DialCurve], quantity: str, name: str, plain: float, key: str, beside: str | None = None
) -> str:
    """One quantity against gamma_0, a curve a width with the range over seeds; dotted: ``beside``.

    Both axes are logarithms, but the alignment, a cosine, stands on a plain axis from 0. The vertical line is the plain network.

    Example:
        >>> from lazyrich.report.dial_result import Band
        >>> band = Band((0.1, 0.2), (0.1, 0.2), (0.1, 0.3))
        >>> curve = DialCurve(0.5, 64, "", None, (0.01, 1.0), {"loss": band})
        >>> "width 64, r = 0.5: 0.1 at 0.01, 0.2 at 1" in against_richness([curve], "loss", "loss", 0.1, "f1")
        True
    """
    with drawing():
        figure, axes = sheet(430, 260, left=54, right=16, top=12, bottom=40)
        shown = [quantity, beside] if beside else [quantity]
        _axis(axes, [g for c in curves for g in c.richness])
        low, high = _heights(axes, curves, shown)
        axes.axvline(plain, color=tone("muted"), linewidth=1, linestyle=(0, (1, 2)))
        for i, c in enumerate(curves):
            color, mark, dash = width_style(i, len(curves))
            band = c.values[quantity]
            under, over = _within(band.low, low, high), _within(band.high, low, high)
            axes.fill_between(c.richness, under, over, color=tone(color), alpha=0.13, linewidth=0)
            axes.plot(
                c.richness, _line(band.mean, low), color=tone(color), marker=mark, markersize=4.5, linewidth=1.7, linestyle=dash
            )
            if beside:
                axes.plot(
                    c.richness, _line(c.values[beside].mean, low), color=tone(color), linewidth=1.2, linestyle=(0, (1, 1.5))
                )
        axes.set_ylim(low, high)
        axes.set_xlabel("richness γ₀ at the base width", color=tone("muted"), labelpad=1)
        axes.set_ylabel(name, color=tone("muted"))
        return inline(figure, key, f"{name} against richness", "; ".join(_words(c, quantity) for c in curves) + ".")


def _axis(axes: Axes, places: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = min(places), max(places)
    room = (high / low) ** 0.05 if high > low else 2.0
    axes.set_xlim(low / room, high * room)
    ticks = thin(sorted(set(places)), 6)
    axes.set_xticks(ticks, [brief(v) for v in ticks])


def _heights(axes: Axes, curves: Sequence[DialCurve], shown: Sequence[str]) -> tuple[float, float]:
    """Scale and ticks of what is shown, and the two ends."""
    quantity, bands = shown[0], [c.values[q] for c in curves for q in shown]
    if quantity == "alignment":
        high = 1.05 * max((v for band in bands for v in (*band.mean, *band.high) if v is not None and v > 0), default=0.95)
        ticks = [float(t) for t in MaxNLocator(5).tick_values(0, high) if 0 <= t <= min(high, 1)]
        axes.set_yticks(ticks, labels(ticks))
        return 0.0, high
    span = spans(
        [positive(v for b in bands for v in b.mean)], least=FLAT if "loss" in quantity or "error" in quantity else 1.0
    )[0]
    if "error" in quantity:
        span = replace(span, high=min(span.high, 0.02))  # no more than all are wrong
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticks(span.ticks(), labels(span.ticks()))
    return span.limits


def _line(values: Sequence[float | None], low: float) -> list[float]:
    """A zero is shown on a plain axis only."""
    return [v if v is not None and (v > 0 or v == low) else math.nan for v in values]


def _within(values: Sequence[float | None], low: float, high: float) -> list[float]:
    return [math.nan if v is None else min(max(v, low), high) for v in values]


def _words(curve: DialCurve, quantity: str) -> str:
    points = ", ".join(
        f"{brief(v)} at {brief(g)}" for g, v in zip(curve.richness, curve.values[quantity].mean, strict=True) if v is not None
    )
    return f"width {curve.width}, r = {brief(curve.r)}: {points}"
