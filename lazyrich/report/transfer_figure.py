"""The figures of a transfer study: loss against learning rate by width, and the best rate against width."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from lazyrich.report.canvas import drawing, inline, sheet, tone
from lazyrich.report.figure import width_style
from lazyrich.report.number import brief
from lazyrich.report.scale import FLAT, Span, labels, positive, spans, thin
from lazyrich.report.transfer_result import SchemePart


def loss_span(schemes: Sequence[SchemePart]) -> Span:
    """One interval of losses for all panels; what exceeds a hundred times the best is cut off.

    Example:
        >>> from lazyrich.report.transfer_result import SchemePart, WidthCurve
        >>> curve = WidthCurve(64, (0.1,), (1.0,), (0.9,), (1.1,), 0.1, 1.0, False, 0.0)
        >>> loss_span([SchemePart("s", "", True, (0.0, 0.0, 0.0), True, (curve,))]).low < 0
        True
    """
    values = positive(v for s in schemes for c in s.curves for v in (*c.mean, c.loss))
    best = min(values, default=1.0)
    return spans([[v for v in values if v < 100 * best]], least=FLAT)[0]


def curves(scheme: SchemePart, span: Span, key: str) -> str:
    """Loss after training against learning rate, a curve a width with the range over seeds; rings mark the optima.

    Example:
        >>> from lazyrich.report.transfer_result import SchemePart, WidthCurve
        >>> curve = WidthCurve(64, (0.1, 0.2), (1.0, None), (0.9, None), (1.1, None), 0.1, 1.0, False, 0.0)
        >>> scheme = SchemePart("s", "", True, (0.0, 0.0, 0.0), True, (curve,))
        >>> "width 64: best at 0.1" in curves(scheme, loss_span([scheme]), "f1")
        True
    """
    with drawing():
        figure, axes = sheet(430, 290, left=54, right=16, top=12, bottom=40)
        _log(axes, [lr for c in scheme.curves for lr in c.lrs], span)
        low, high = span.limits
        for i, c in enumerate(scheme.curves):
            color, mark, dash = width_style(i, len(scheme.curves))
            under, over = ([min(max(v, low), high) if v is not None else math.nan for v in end] for end in (c.low, c.high))
            axes.fill_between(c.lrs, under, over, color=tone(color), alpha=0.13, linewidth=0)
            shown = [math.nan if v is None else min(v, high) for v in c.mean]
            axes.plot(c.lrs, shown, color=tone(color), marker=mark, markersize=4.5, linewidth=1.7, linestyle=dash)
            if c.best is not None and c.loss is not None:
                axes.plot([c.best], [c.loss], "o", markersize=11, markerfacecolor="none", markeredgecolor=tone(color))
        axes.set_xlabel("learning rate at the base width", color=tone("muted"), labelpad=1)
        axes.set_ylabel("loss after training", color=tone("muted"))
        words = [f"width {c.width}: best at {brief(c.best)}, loss {brief(c.loss)}" for c in scheme.curves]
        return inline(figure, key, f"Loss against learning rate, {scheme.name}", "; ".join(words) + ".")


def shifts(schemes: Sequence[SchemePart], key: str) -> str:
    """The best learning rate against width, one curve a scheme; level where it transfers.

    Example:
        >>> from lazyrich.report.transfer_result import SchemePart, WidthCurve
        >>> curve = WidthCurve(64, (0.1, 0.2), (1.0, 2.0), (0.9, 2.0), (1.1, 2.0), 0.1, 1.0, False, 0.0)
        >>> "s: 0.1 at 64" in shifts([SchemePart("s", "", True, (0.0, 0.0, 0.0), True, (curve,))], "f1")
        True
    """
    with drawing():
        figure, axes = sheet(430, 290, left=54, right=16, top=12, bottom=40)
        values = positive(c.best for s in schemes for c in s.curves)
        span = spans([values])[0]
        _log(axes, [c.width for s in schemes for c in s.curves], span)
        words = []
        for i, s in enumerate(schemes):
            color, mark, dash = scheme_style(i)
            widths = [c.width for c in s.curves]
            best = [math.nan if c.best is None else c.best for c in s.curves]
            above = sum(_alike(s, other) for other in schemes[i + 1 :])  # drawn over it: it shows around them
            axes.plot(
                widths, best, color=tone(color), marker=mark, markersize=6 + 4 * above, linewidth=1.8 + 2.2 * above,
                linestyle="-" if above else dash, alpha=0.55 if above else 1,
            )  # fmt: skip
            words.append(f"{s.name}: " + ", ".join(f"{brief(c.best)} at {c.width}" for c in s.curves))
        axes.set_xlabel("width", color=tone("muted"), labelpad=1)
        axes.set_ylabel("best learning rate", color=tone("muted"))
        return inline(figure, key, "Best learning rate against width", "; ".join(words) + ".")


def _alike(one: SchemePart, other: SchemePart) -> bool:
    """Whether two curves of best rates lie on one another, as far as a drawing shows."""
    pairs = list(zip((c.best for c in one.curves), (c.best for c in other.curves), strict=False))
    return all(a and b and abs(math.log(a / b)) < 0.03 for a, b in pairs)


def scheme_style(index: int) -> tuple[str, str, tuple[float, tuple[float, ...] | None]]:
    """Colour, marker and dash of a scheme.

    Example:
        >>> scheme_style(0)[0]
        'update'
    """
    colors = ("update", "passthrough", "interaction", "w6", "w2")  # "layer" looks like "update"
    marks = ("o", "^", "D", "s", "v", "P", "X", "<")
    dashes: tuple[tuple[float, tuple[float, ...] | None], ...] = ((0, None), (0, (5, 2)), (0, (1.2, 1.8)), (0, (6, 2, 1, 2)))
    return (
        colors[index % 5],
        marks[index % 8],
        dashes[(index + index // 5) % 4],
    )  # twenty before one comes again in another mark


def _log(axes: Axes, places: Sequence[float], span: Span) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    low, high = min(places), max(places)
    room = (high / low) ** 0.05 if high > low else 2.0
    axes.set_xlim(low / room, high * room)
    distinct = sorted(set(places))
    shown = thin(distinct, 6)
    axes.set_xticks(shown, [brief(v) for v in shown])
    axes.set_ylim(*span.limits)
    axes.set_yticks(span.ticks(), labels(span.ticks()))
