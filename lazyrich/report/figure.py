"""The figures of a check: slopes against theory, updates against width, their parts, and losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lazyrich.report.canvas import WIDTH_TONES, drawing, inline, sheet, tone
from lazyrich.report.number import brief, shorten, signed
from lazyrich.report.result import Curve, Line, Loss
from lazyrich.report.scale import Span, labels, positive, spans, thin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = ("layer", "passthrough", "interaction")
MARKS = {"update": "o", "layer": "s", "passthrough": "^", "interaction": "D"}
DASHES: dict[str, tuple[float, tuple[float, ...] | None]] = {
    "update": (0, None),
    "layer": (0, None),
    "passthrough": (0, (5, 2)),
    "interaction": (0, (1.2, 1.8)),
}
WIDTH_MARKS = ("o", "s", "^", "D", "v", "P")
_PANEL = (270, 190)
_DESCRIBED = 20


def forest(lines: Sequence[Line], key: str, narrow: bool = False, against: str = "width") -> str:
    """Each layer's slope with its interval, and the slope that theory predicts: one row a layer.

    Args:
        lines: the lines to show, from top to bottom.
        key: what the drawing's ids begin with.
        narrow: a drawing for a phone: names above the rows instead of beside them.
        against: what slopes are in.

    Example:
        >>> line = Line("fc1", (), "input", "update", 5, 0.02, -0.05, 0.09, 0.0, True, "", "")
        >>> "fc1: +0.02, from −0.05 to +0.09, theory 0.00" in forest([line], "f1")
        True
    """
    step, width = (38, 340) if narrow else (28, 720)
    longest = max((len(shorten(line.layer, 28)) for line in lines), default=0)
    left = 10 if narrow else 20 + 6.8 * longest
    with drawing():
        figure, axes = sheet(width, 44 + step * len(lines), left=left, right=14, top=4, bottom=40)
        low, high = _forest_limits(lines)
        axes.set_xlim(low, high)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.axvline(0, color=tone("muted"), linewidth=0.8)
        for row, line in enumerate(lines):
            _forest_row(axes, row, line, low, high)
            if narrow:
                place = (low, row - 0.2)
                axes.annotate(
                    shorten(line.layer, 44),
                    place,
                    (2, 0),
                    textcoords="offset points",
                    va="bottom",
                    color=tone("ink"),
                    bbox={"facecolor": tone("bg"), "edgecolor": "none", "pad": 1, "alpha": 0.85},
                )
        axes.set_yticks([] if narrow else range(len(lines)))
        if not narrow:
            axes.set_yticklabels([shorten(line.layer, 28) for line in lines], color=tone("ink"))
        axes.tick_params(axis="y", length=0)
        ticks = [t for t in axes.get_xticks() if low <= t <= high]
        axes.set_xticks(ticks, [_tick(t) for t in ticks])
        axes.spines["left"].set_visible(False)
        axes.grid(True, axis="y", linewidth=0)
        axes.set_xlabel(f"slope of update against {against} (log–log)", color=tone("muted"))
        return inline(figure, key, "Slopes against theory", _forest_words(lines))


def _forest_limits(lines: Sequence[Line]) -> tuple[float, float]:
    """Limits that hold every slope and prediction; an interval much wider than those is cut."""
    points = [v for line in lines for v in (line.slope, line.predicted) if v is not None]
    ends = [v for line in lines for v in (line.low, line.high) if v is not None]
    low, high = min([-0.5, *points]), max([0.5, *points])
    room = high - low
    low, high = max(min([low, *ends]), low - room), min(max([high, *ends]), high + room)
    pad = 0.06 * (high - low)
    return low - pad, high + pad


def _tick(value: float) -> str:
    return "0" if abs(value) < 1e-9 else signed(value)


def _forest_row(axes: Axes, row: float, line: Line, low: float, high: float) -> None:
    if line.predicted is not None:
        axes.plot(
            [line.predicted], [row], marker="D", markersize=9.5, markerfacecolor="none",
            markeredgecolor=tone("theory"), markeredgewidth=1.6, linestyle="none",
        )  # fmt: skip
    if line.slope is None:
        at = line.predicted if line.predicted is not None else 0.0
        left = at < (low + high) / 2
        axes.annotate(
            "× diverged" if left else "diverged ×", (at, row), (10 if left else -10, 0),
            textcoords="offset points", va="center", ha="left" if left else "right", color=tone("bad"),
        )  # fmt: skip
        return
    color = tone("ink") if line.agrees is None else tone("update" if line.agrees else "bad")
    if line.low is not None and line.high is not None:
        axes.plot([max(line.low, low), min(line.high, high)], [row, row], color=color, linewidth=2.4, alpha=0.75)
        for end, cut, mark in ((line.low, line.low < low, "<"), (line.high, line.high > high, ">")):
            place = min(max(end, low), high)
            axes.plot([place], [row], marker=mark if cut else "|", markersize=7, color=color, clip_on=False)
    mark, size = ("s", 6.5) if line.agrees is False else ("o", 7)
    face = "none" if line.agrees is None else color
    axes.plot([line.slope], [row], marker=mark, markersize=size, color=color, markerfacecolor=face, linestyle="none")


def _forest_words(lines: Sequence[Line]) -> str:
    words = []
    for line in lines[:_DESCRIBED]:
        interval = "" if line.half is None else f", from {signed(line.low)} to {signed(line.high)}"
        theory = "" if line.predicted is None else f", theory {signed(line.predicted)}"
        words.append(f"{line.layer}: {signed(line.slope, 'diverged')}{interval}{theory}")
    more = len(lines) - _DESCRIBED
    return "; ".join(words) + (f"; and {more} more layers in the table below" if more > 0 else "") + "."


def panel_spans(panels: Sequence[Sequence[Curve]]) -> list[Span]:
    """The vertical interval of each panel: of the same length in all, so that steepness can be compared."""
    return spans([positive(v for c in curves for v in (*c.mean, *c.low, *c.high)) for curves in panels], least=1.2)


def panel(
    curves: Sequence[Curve], span: Span, key: str, title: str, predicted: float | None = None, against: str = "width"
) -> str:
    """One layer's curves against width on logarithmic axes, with a guide of the predicted slope.

    Args:
        curves: one curve a quantity, all of the same layer and widths.
        span: the vertical interval, from `panel_spans`.
        key: what the drawing's ids begin with.
        title: the drawing's name.
        predicted: the slope of the dashed guide through the first curve's middle; no guide without one.
        against: the horizontal axis.

    Example:
        >>> curve = Curve("fc1", "update", 5, (64, 128), (0.1, None), (None, None), (None, None))
        >>> svg = panel([curve], panel_spans([[curve]])[0], "f1", "fc1")
        >>> "update 0.1 at width 64, diverged at width 128" in svg
        True
    """
    with drawing():
        figure, axes = sheet(*_PANEL, left=46, right=14, top=12, bottom=36)
        widths = sorted({w for c in curves for w in c.widths})
        _log_axes(axes, widths, span)
        if predicted is not None and curves:
            _guide(axes, curves[0], predicted)
        for curve in curves:
            _series(axes, curve)
        axes.set_xlabel(against, color=tone("muted"), labelpad=1)
        return inline(figure, key, title, "; ".join(_curve_words(c, against) for c in curves) + ".")


def _log_axes(axes: Axes, widths: Sequence[float], span: Span) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(*span.limits)
    ends = (widths[0], widths[-1]) if widths else (1.0, 10.0)
    room = (ends[1] / ends[0]) ** 0.06 if ends[1] > ends[0] else 2.0
    axes.set_xlim(ends[0] / room, ends[1] * room)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    shown = thin(widths, 5)
    axes.set_xticks(shown, [f"{w:g}" for w in shown])
    ticks = span.ticks()
    axes.set_yticks(ticks, labels(ticks))


def _series(axes: Axes, curve: Curve) -> None:
    color = tone(curve.quantity if curve.quantity in MARKS else "ink")
    nan = float("nan")
    mean = [m if m is not None and m > 0 else nan for m in curve.mean]
    low = [v if v is not None and v > 0 else nan for v in curve.low]
    high = [v if v is not None and v > 0 else nan for v in curve.high]
    if positive(curve.low):
        axes.fill_between(list(curve.widths), low, high, color=color, alpha=0.16, linewidth=0)
    axes.plot(
        list(curve.widths), mean, color=color, linewidth=1.7,
        marker=MARKS.get(curve.quantity, "o"), markersize=5,
        linestyle=DASHES.get(curve.quantity, (0, None)), dash_capstyle="butt",
    )  # fmt: skip
    lost = [w for w, m in zip(curve.widths, curve.mean, strict=True) if m is None]
    if lost:
        top = axes.get_xaxis_transform()
        axes.plot(
            lost, [0.95] * len(lost), transform=top, clip_on=False, linestyle="none",
            marker="x", markersize=7, markeredgewidth=1.8, color=tone("bad"),
        )  # fmt: skip


def _guide(axes: Axes, curve: Curve, predicted: float) -> None:
    """A straight line of the predicted slope through the middle of the measured points."""
    known = [(w, m) for w, m in zip(curve.widths, curve.mean, strict=True) if m is not None and m > 0]
    if not known:
        return
    middle_w = sum(math.log(w) for w, _ in known) / len(known)
    middle_m = sum(math.log(m) for _, m in known) / len(known)
    ends = axes.get_xlim()
    heights = [math.exp(middle_m + predicted * (math.log(w) - middle_w)) for w in ends]
    axes.plot(ends, heights, color=tone("theory"), linewidth=1.5, linestyle=(0, (6, 3)), scalex=False, scaley=False)


def _curve_words(curve: Curve, against: str) -> str:
    points = [f"{brief(m, 'diverged')} at {against} {w:g}" for w, m in zip(curve.widths, curve.mean, strict=True)]
    return f"{curve.quantity} " + ", ".join(points)


def width_style(index: int, count: int) -> tuple[str, str, tuple[float, tuple[float, ...] | None]]:
    """A width's colour name, marker and dash: the tone grows with width, the marker tells neighbours apart.

    Example:
        >>> width_style(0, 4)[0], width_style(3, 4)[0]
        ('w1', 'w6')
    """
    place = round(index * (WIDTH_TONES - 1) / (count - 1)) if count > 1 else WIDTH_TONES // 2
    dashes: tuple[tuple[float, tuple[float, ...] | None], ...] = ((0, None), (0, (6, 2)), (0, (2, 1.5)))
    return f"w{place + 1}", WIDTH_MARKS[index % len(WIDTH_MARKS)], dashes[index % len(dashes)]


def losses(runs: Sequence[Loss], key: str) -> str:
    """The loss at each step, one curve a width; a cross ends a run that diverged.

    Example:
        >>> "width 64 from 2.3 to 1.9" in losses([Loss(64, (2.3, 1.9), (None, None), (None, None))], "f1")
        True
    """
    with drawing():
        figure, axes = sheet(380, 250, left=50, right=14, top=12, bottom=38)
        values = positive(v for run in runs for v in run.mean)
        if values and len(values) == sum(v is not None for run in runs for v in run.mean) and max(values) > 30 * min(values):
            from matplotlib.ticker import NullLocator

            span = spans([values])[0]
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_ylim(*span.limits)
            axes.set_yticks(span.ticks(), labels(span.ticks()))
        for i, run in enumerate(runs):
            _loss_curve(axes, run, i, len(runs))
        longest = max([2, *(len(run.mean) for run in runs)])
        steps = thin(range(longest), 7)
        axes.set_xticks(steps, [f"{s:g}" for s in steps])
        axes.set_xlabel("step", color=tone("muted"), labelpad=1)
        axes.set_ylabel("loss", color=tone("muted"))
        return inline(figure, key, "Loss by width", "; ".join(_loss_words(run) for run in runs) + ".")


def _loss_curve(axes: Axes, run: Loss, index: int, count: int) -> None:
    name, mark, dash = width_style(index, count)
    nan = float("nan")
    mean = [nan if m is None else m for m in run.mean]
    steps = list(range(len(mean)))
    if any(v is not None for v in run.low):
        low, high = ([nan if v is None else v for v in end] for end in (run.low, run.high))
        axes.fill_between(steps, low, high, color=tone(name), alpha=0.10, linewidth=0)
    axes.plot(steps, mean, color=tone(name), linewidth=1.7, linestyle=dash, marker=mark, markersize=4.5)
    known = [(s, m) for s, m in enumerate(run.mean) if m is not None]
    if run.diverged and known:
        axes.plot(*known[-1], marker="x", markersize=10, markeredgewidth=2.2, color=tone("bad"))


def _loss_words(run: Loss) -> str:
    known = [m for m in run.mean if m is not None]
    if not known:
        return f"width {run.width} diverged at once"
    if run.diverged:
        return f"width {run.width} from {brief(known[0])}, diverged"
    return f"width {run.width} from {brief(known[0])} to {brief(known[-1])}"
