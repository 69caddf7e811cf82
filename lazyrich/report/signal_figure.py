"""The figures of an initialisation: levels, correlations and gradients along the layers, drawn and predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lazyrich.report.canvas import drawing, inline, named, sheet, tone
from lazyrich.report.kernel_figure import log_y
from lazyrich.report.number import brief, shorten
from lazyrich.report.scale import positive, thin
from lazyrich.report.signal_result import Drawn, SignalPage

DRAWN = ("update", "o", (0, (1.2, 1.8)))
PREDICTED = ("ink", "D", (0, None))


def levels(result: SignalPage, key: str) -> str:
    """Mean square of every layer's output."""
    return _along(result, [row.level for row in result.rows], key, "Mean square of the layers' outputs", "mean square", True)


def correlations(result: SignalPage, key: str) -> str:
    """Mean correlation of different inputs after every layer."""
    values = [row.correlation for row in result.rows]
    return _along(result, values, key, "Correlation of different inputs after every layer", "correlation", False)


def gradients(result: SignalPage, key: str) -> str:
    """Mean square norm of one output's gradient with respect to every layer's tensors."""
    values = [row.gradient for row in result.rows]
    return _along(result, values, key, "Squared gradients by layer", "squared gradient", True)


def plane(result: SignalPage, key: str) -> str:
    """The edge of chaos of the network's activation, and its hidden layers on either side; empty where it has no place."""
    phase = result.phase
    if phase is None or not phase.edge or not phase.points:
        return ""
    edge, border = (_pairs(line) for line in (phase.edge, phase.border))
    weights, biases = zip(*border, *edge, strict=True)
    own = [(float(p[1] or 0.0), float(p[2] or 0.0)) for p in phase.points]
    right = 1.25 * max(*weights, *(w for w, _ in own))
    top = max(max(biases), 1.15 * max(b for _, b in own))
    with drawing():
        figure, axes = sheet(400, 290, left=60, right=16, top=12, bottom=44)
        axes.fill_betweenx(biases, 0, weights, color=tone("ink"), alpha=0.05, linewidth=0)
        axes.plot(*zip(*edge, strict=True), color=tone("ink"), linewidth=1.8)
        if border:
            axes.plot(*zip(*border, edge[0], strict=True), color=tone("ink"), linewidth=1.4, linestyle=(0, (4, 2)))
        axes.plot(*zip(*own, strict=True), color=tone("update"), marker="o", markersize=6, linestyle="none")
        axes.set_xlim(0, right)
        axes.set_ylim(-0.03 * top, top)
        for at, word in ((0.03, "ordered"), (0.97, phase.beyond)):
            axes.text(
                at, 0.95, word, color=tone("muted"), transform=axes.transAxes, ha="left" if at < 0.5 else "right", va="top"
            )
        axes.set_xlabel("weight variance × fan-in, σ_w²", color=tone("muted"), labelpad=1)
        axes.set_ylabel("bias variance, σ_b²", color=tone("muted"))
        ends = ", and below it where variances begin to grow without bound" if border else ""
        words = f"The edge of chaos of {phase.activation}{ends}; the hidden layers are {phase.word}: " + ", ".join(
            f"{name} at {brief(w)}, {brief(b)}" for (name, *_), (w, b) in zip(phase.points, own, strict=True)
        )
        return inline(figure, key, f"Phase diagram of {phase.activation}", words + ".")


def _along(result: SignalPage, values: Sequence[Drawn], key: str, title: str, label: str, logarithmic: bool) -> str:
    names, at = [row.layer for row in result.rows], list(range(1, len(values) + 1))
    few = len(names) <= 12
    with drawing():
        figure, axes = sheet(400, 290, left=60, right=16, top=12, bottom=40)
        if logarithmic:
            log_y(axes, positive(v for value in values for v in (value[0], value[2])))
        drawn, wanted = ([_shown(value[i], logarithmic) for value in values] for i in (0, 2))
        color, mark, dash = PREDICTED
        axes.plot(at, wanted, color=tone(color), marker=mark, markersize=4, linewidth=1.6, linestyle=dash)
        color, mark, _ = DRAWN
        spread = [value[1] or 0.0 for value in values]
        axes.errorbar(at, drawn, yerr=spread, color=tone(color), marker=mark, markersize=6, linestyle="none", capsize=3)
        axes.set_xlim(0.6, len(names) + 0.4)
        if few:
            named(axes, [shorten(name, 14) for name in names])
        else:
            ticks = [int(i) for i in thin(at, 8)]
            axes.set_xticks(ticks, [str(i) for i in ticks])
            axes.set_xlabel("layer, in the table's order", color=tone("muted"), labelpad=1)
        axes.set_ylabel(label, color=tone("muted"))
        words = "; ".join(
            f"{name}: drawn {brief(value[0])}, predicted {brief(value[2])}" for name, value in zip(names, values, strict=True)
        )
        return inline(figure, key, title, words + ".")


def _pairs(line: Sequence[tuple[float | None, float | None]]) -> list[tuple[float, float]]:
    return [(float(w or 0.0), float(b or 0.0)) for w, b in line]


def _shown(value: float | None, logarithmic: bool) -> float:
    return math.nan if value is None or (logarithmic and value <= 0) else value
