"""The figures of a limit study: losses, the approach, kernels before and after, alignment over widths, densities."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lazyrich.report.canvas import WIDTH_TONES, drawing, inline, sheet, tone
from lazyrich.report.kernel_figure import log_x, log_y, percent
from lazyrich.report.limit_result import LimitLayer, LimitPage
from lazyrich.report.number import brief
from lazyrich.report.scale import positive

Dash = tuple[float, tuple[float, ...] | None]
Style = tuple[str, str, Dash]
SOLID: Dash = (0, None)
DOTTED: Dash = (0, (1.2, 1.8))
LIMIT: Style = ("ink", "D", SOLID)
FIXED: Style = ("passthrough", "^", (0, (5, 2)))
MARKS = ("o", "s", "^", "v", "P", "D")
SIZE = {"width": 400, "height": 255, "left": 60, "right": 16, "top": 12, "bottom": 40}


def width_style(i: int, count: int) -> Style:
    """Tone, marker and dash of the i-th width of some: the widest has the last tone."""
    place = WIDTH_TONES if count == 1 else 1 + round(i * (WIDTH_TONES - 1) / (count - 1))
    return f"w{place}", MARKS[i % len(MARKS)], (0, (1.2, 1.8))


def layer_style(i: int) -> Style:
    """Tone, marker and dash of the i-th layer."""
    return ("update", "interaction", "theory", "w1", "w2", "w6")[i % 6], MARKS[i % len(MARKS)], SOLID


def losses(result: LimitPage, key: str) -> str:
    """Training loss against steps: the limit, a kernel that stays, and the mean of each width."""
    series = [("infinite width", LIMIT, result.loss), ("kernel that stays", FIXED, result.fixed_loss)]
    series += [
        (f"width {line.width}", width_style(i, len(result.widths)), line.loss)
        for i, line in enumerate(result.widths)
        if line.loss
    ]
    steps = list(range(len(result.loss)))
    with drawing():
        figure, axes = sheet(**SIZE)
        log_y(axes, positive(v for _, _, values in series for v in values))
        for i, (_, (color, mark, dash), values) in enumerate(series):
            every = (i % 5, max(1, len(steps) // 6))
            wide = 2.4 if i == 0 else 1.6
            axes.plot(
                steps, [_shown(v) for v in values], color=tone(color), marker=mark, markersize=5, markevery=every,
                linewidth=wide, linestyle=dash, zorder=3 - 0.1 * i,
            )  # fmt: skip
        axes.set_xlim(0, steps[-1])
        axes.set_xlabel("steps", color=tone("muted"), labelpad=1)
        axes.set_ylabel("training loss", color=tone("muted"))
        words = ", ".join(f"{name} {brief(values[-1])}" for name, _, values in series)
        return inline(
            figure, key, "Training loss at infinite width and at several widths", f"After {steps[-1]} steps: {words}."
        )


def approach(result: LimitPage, key: str) -> str:
    """Distance of single networks' outputs from the limit against width, with that of the kernel that stays."""
    means = [(line.width, line.off) for line in result.widths if line.off]
    marks = [(line.width, v) for line in result.widths for v in line.offs if v]
    with drawing():
        figure, axes = sheet(**SIZE)
        log_x(axes, [line.width for line in result.widths])
        guide = [(width, means[0][1] * (width / means[0][0]) ** -0.5) for width, _ in means]
        levels = [result.fixed_off, result.accuracy]
        log_y(axes, positive([*(v for _, v in marks), *(v for _, v in guide), *levels]))
        axes.plot(*_columns(guide), color=tone("muted"), linewidth=1.2, linestyle=DOTTED)
        axes.plot(*_columns(marks), "o", color=tone("update"), markersize=5, alpha=0.75)
        axes.plot(*_columns(means), color=tone("update"), linewidth=1.8)
        ends = axes.get_xlim()
        for value, (color, _, dash) in zip(levels, (FIXED, ("ink", "D", (0, (7, 2, 1.5, 2)))), strict=True):
            if value:
                axes.plot(ends, [value, value], color=tone(color), linewidth=1.6, linestyle=dash)
        axes.set_xlabel("width", color=tone("muted"), labelpad=1)
        axes.set_ylabel("off the limit", color=tone("muted"))
        words = ", ".join(f"width {width} {percent(off)}" for width, off in means)
        said = f"{words}; kernel that stays {percent(result.fixed_off)}; sampling error {percent(result.accuracy)}."
        return inline(figure, key, "Distance of the outputs from the limit", said)


def kernels(layer: LimitLayer, order: Sequence[int], bounds: Sequence[float], key: str) -> list[tuple[str, str]]:
    """A layer's feature kernel before training, after it, and in the widest networks after it, each with what it is.

    Samples stand in the given order; colours mean the same in all three.
    """
    named = [
        ("before", layer.start),
        ("after, at infinite width", layer.kernel),
        ("after, in the widest networks", layer.network),
    ]
    panels = [(name, [[cells[i][j] for j in order] for i in order]) for name, cells in named if cells]
    low, high = extent(layer, order)
    return [
        (name, _image(cells, bounds, (low, high), f"{key}-{i}", f"Feature kernel of {layer.name}, {name}"))
        for i, (name, cells) in enumerate(panels)
    ]


def extent(layer: LimitLayer, order: Sequence[int]) -> tuple[float, float]:
    """Smallest and largest entry of a layer's kernels among those samples."""
    values = [cells[i][j] or 0.0 for cells in (layer.start, layer.kernel, layer.network) if cells for i in order for j in order]
    return min(values), max(values)


def _image(cells: list[list[float | None]], bounds: Sequence[float], ends: tuple[float, float], key: str, title: str) -> str:
    with drawing():
        figure, axes = sheet(240, 240, left=2, right=2, top=2, bottom=2)
        axes.imshow(
            [[_shown(v, -math.inf) for v in row] for row in cells], cmap="cividis", vmin=ends[0],
            vmax=max(ends[1], ends[0] + 1e-9), interpolation="none", aspect="auto", extent=(0, 1, 1, 0),
        )  # fmt: skip
        for bound in bounds:
            axes.axhline(bound, color="white", linewidth=0.6, alpha=0.7)
            axes.axvline(bound, color="white", linewidth=0.6, alpha=0.7)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        values = [v for row in cells for v in row if v is not None]
        words = f"Entries from {brief(round(min(values), 3))} to {brief(round(max(values), 3))}."
        return inline(figure, key, f"{title}, samples sorted by target", words)


def alignment(result: LimitPage, key: str) -> str:
    """Centred alignment of feature kernels with the targets after training: widths, and the limit as a line."""
    widths = [line for line in result.widths if line.alignment]
    names = [layer.name for layer in result.layers]
    with drawing():
        figure, axes = sheet(**SIZE)
        log_x(axes, [line.width for line in result.widths])
        ends, tops = axes.get_xlim(), [0.1]
        for i, layer in enumerate(result.layers):
            color, mark, _ = layer_style(i)
            points = [(line.width, *dict(line.alignment)[layer.name]) for line in widths]
            mean, spread = ([p[k] or 0.0 for p in points] for k in (1, 2))
            axes.errorbar(
                [p[0] for p in points], mean, yerr=spread, color=tone(color), marker=mark, markersize=6, linestyle="none",
                elinewidth=1.4, capsize=3,
            )  # fmt: skip
            axes.plot(ends, [layer.alignment or 0] * 2, color=tone(color), linewidth=1.9)
            dash = _in_turns(i, len(result.layers))
            axes.plot(ends, [layer.start_alignment or 0] * 2, color=tone(color), linewidth=1.4, linestyle=dash)
            tops += [layer.alignment or 0, layer.start_alignment or 0, *(m + s for m, s in zip(mean, spread, strict=True))]
        axes.set_ylim(0, min(1.02, 1.12 * max(tops)))
        axes.set_xlabel("width", color=tone("muted"), labelpad=1)
        axes.set_ylabel("alignment with targets", color=tone("muted"))
        words = "; ".join(
            f"{name}: limit {brief(layer.alignment)}, before {brief(layer.start_alignment)}, "
            + ", ".join(f"width {line.width} {brief(dict(line.alignment)[name][0])}" for line in widths)
            for name, layer in zip(names, result.layers, strict=True)
        )
        return inline(figure, key, "Alignment of feature kernels with the targets after training", words + ".")


def density(layer: LimitLayer, key: str) -> str:
    """Density of one sample's pre-activations before and after: the limit as lines, the widest networks as steps."""
    edges = [v or 0.0 for v in layer.edges]
    middles = [(a + b) / 2 for a, b in zip(edges[:-1], edges[1:], strict=True)]
    with drawing():
        figure, axes = sheet(**{**SIZE, "left": 44})
        drawn = (
            ("before", "passthrough", layer.before, layer.network_before),
            ("after", "update", layer.after, layer.network_after),
        )
        for name, color, limit, network in drawn:
            if network:
                axes.stairs([v or 0.0 for v in network], edges, fill=True, color=tone(color), alpha=0.22)
            dash = (0, (5, 2)) if name == "before" else "-"
            axes.plot(middles, [v or 0.0 for v in limit], color=tone(color), linewidth=1.8, linestyle=dash)
        top = max(
            [0.1, *(v or 0.0 for row in (layer.before, layer.after, layer.network_before, layer.network_after) for v in row)]
        )
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, 1.08 * top)
        axes.set_xlabel(f"pre-activation of {layer.name}", color=tone("muted"), labelpad=1)
        axes.set_ylabel("density", color=tone("muted"))
        said = ", ".join(f"{name} has standard deviation {brief(_deviation(middles, row))}" for name, _, row, _ in drawn)
        return inline(figure, key, f"Pre-activations of {layer.name}", f"At infinite width: {said}.")


def _in_turns(i: int, count: int) -> Dash:
    """Dots of the i-th of several lines, placed so that all are seen where they coincide."""
    return (-6.0 * (i % 4), (4.0, 6.0 * min(count, 4) - 4.0)) if count > 1 else DOTTED


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _deviation(middles: Sequence[float], density: Sequence[float | None]) -> float:
    mass = [v or 0.0 for v in density]
    total = sum(mass) or 1.0
    mean = sum(m * v for m, v in zip(middles, mass, strict=True)) / total
    return (sum((m - mean) ** 2 * v for m, v in zip(middles, mass, strict=True)) / total) ** 0.5


def _shown(value: float | None, above: float = 0.0) -> float:
    return math.nan if value is None or value <= above else value
