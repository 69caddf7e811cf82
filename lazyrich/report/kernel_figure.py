"""The figures of a kernel run: accuracy against training size, spectra with the targets' power, the matrix by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lazyrich.report.canvas import drawing, inline, sheet, tone
from lazyrich.report.kernel_result import Matrix, Modes, Row
from lazyrich.report.number import MINUS, brief
from lazyrich.report.scale import labels, positive, spans, thin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# colour, marker and dash of a kernel or of the finite network
STYLES: dict[str, tuple[str, str, tuple[float, tuple[float, ...] | None]]] = {
    "nngp": ("update", "o", (0, None)),
    "ntk": ("passthrough", "^", (0, (5, 2))),
    "network": ("interaction", "D", (0, (1.2, 1.8))),
    "before": ("passthrough", "^", (0, (5, 2))),
    "after": ("update", "o", (0, None)),
}
NAMES = {"nngp": "NNGP", "ntk": "NTK"}


def percent(value: float | None, absent: str = "—") -> str:
    """A part in percent.

    Example:
        >>> percent(0.9253), percent(None)
        ('92.5%', '—')
    """
    return absent if value is None else f"{100 * value:.1f}%"


def accuracy(rows: Sequence[Row], kernels: Sequence[str], width: str, key: str) -> str:
    """Test accuracy against training size on a logarithmic axis, one curve a kernel and one for finite networks.

    Example:
        >>> row = Row(64, (0.8,), 0.75, 0.7, 0.8)
        >>> "NNGP 80.0% at 64; width 256 75.0% at 64" in accuracy([row], ["nngp"], "256", "f1")
        True
    """
    series = [(name, NAMES.get(name, name), [row.kernels[i] for row in rows]) for i, name in enumerate(kernels)]
    if any(row.mean is not None for row in rows):
        series.append(("network", f"width {width}", [row.mean for row in rows]))
    sizes = [row.train for row in rows]
    with drawing():
        figure, axes = sheet(400, 255, left=54, right=16, top=12, bottom=40)
        log_x(axes, sizes)
        for name, _, values in series:
            color, mark, dash = STYLES.get(name, ("ink", "o", (0, None)))
            if name == "network":
                ends = [r.low for r in rows], [r.high for r in rows]
                low, high = ([math.nan if v is None else 100 * v for v in end] for end in ends)
                axes.fill_between(sizes, low, high, color=tone(color), alpha=0.16, linewidth=0)
            shown = [math.nan if v is None else 100 * v for v in values]
            axes.plot(sizes, shown, color=tone(color), marker=mark, markersize=6, linewidth=1.8, linestyle=dash)
        axes.set_xlabel("training samples", color=tone("muted"), labelpad=1)
        axes.set_ylabel("test accuracy (%)", color=tone("muted"))
        words = [
            ", ".join(f"{label} {percent(v)} at {n}" for n, v in zip(sizes, values, strict=True)) for _, label, values in series
        ]
        return inline(figure, key, "Accuracy against training size", "; ".join(words) + ".")


def spectrum(spectra: Sequence[Modes], key: str) -> str:
    """Eigenvalues as parts of the trace, against their rank.

    Example:
        >>> modes = Modes("ntk", 2, (1, 2), (0.75, 0.25), (0.5, 1.0), 0.75, 1.75, 0.5)
        >>> "NTK: the first mode holds 75.0% of the trace" in spectrum([modes], "f1")
        True
    """
    with drawing():
        figure, axes = sheet(400, 255, left=54, right=16, top=12, bottom=40)
        log_x(axes, [m for s in spectra for m in s.modes])
        values = positive(v for s in spectra for v in s.eigenvalues if v is not None and v > 1e-12)
        log_y(axes, values)
        for s in spectra:
            color, _, dash = STYLES.get(s.kernel, ("ink", "o", (0, None)))
            shown = [math.nan if v is None or v <= 1e-12 else v for v in s.eigenvalues]
            axes.plot(s.modes, shown, color=tone(color), linewidth=1.9, linestyle=dash)
        axes.set_xlabel("mode", color=tone("muted"), labelpad=1)
        axes.set_ylabel("eigenvalue / trace", color=tone("muted"))
        words = [
            f"{NAMES.get(s.kernel, s.kernel)}: the first mode holds {percent(s.top)} of the trace, "
            f"effective rank {brief(s.effective_rank)}"
            for s in spectra
        ]
        return inline(figure, key, "Spectrum of the kernel", "; ".join(words) + ".")


def power(spectra: Sequence[Modes], key: str) -> str:
    """The part of the targets' square on the first modes.

    Example:
        >>> modes = Modes("ntk", 2, (1, 2), (0.75, 0.25), (0.5, 1.0), 0.75, 1.75, 0.5)
        >>> "NTK: half of the targets lie on the first 1 modes, nine tenths on the first 2" in power([modes], "f1")
        True
    """
    with drawing():
        figure, axes = sheet(400, 255, left=54, right=16, top=12, bottom=40)
        log_x(axes, [m for s in spectra for m in s.modes])
        for s in spectra:
            color, _, dash = STYLES.get(s.kernel, ("ink", "o", (0, None)))
            shown = [math.nan if v is None else 100 * v for v in s.cumulative]
            axes.plot(s.modes, shown, color=tone(color), linewidth=1.9, linestyle=dash)
        axes.set_ylim(0, 104)
        axes.set_xlabel("first modes", color=tone("muted"), labelpad=1)
        axes.set_ylabel("of the targets (%)", color=tone("muted"))
        words = [
            f"{NAMES.get(s.kernel, s.kernel)}: half of the targets lie on the first {reach(s, 0.5)} modes, "
            f"nine tenths on the first {reach(s, 0.9)}"
            for s in spectra
        ]
        return inline(figure, key, "Power of the targets on the modes", "; ".join(words) + ".")


def reach(s: Modes, part: float) -> str:
    """How many of the first modes hold that part of the targets."""
    return next((f"{m:.0f}" for m, v in zip(s.modes, s.cumulative, strict=True) if v is not None and v >= part - 1e-9), "—")


def matrix(shown: Matrix, key: str) -> str:
    """Correlations sorted by class as an image; a light line where a class ends, and the scale beside it.

    Example:
        >>> "correlations from 0.1 to 0.9" in matrix(Matrix("ntk", ((0.9, 0.1), (0.1, 0.9)), (0, 0.5, 1)), "f1")
        True
        >>> "correlations from 0.1 to 0.1" in matrix(Matrix("ntk", ((None, 0.1), (0.1, None)), (0, 0.5, 1)), "f1")
        True
    """
    values = [v for row in shown.cells for v in row if v is not None]
    least, most = (min(values), max(values)) if values else (0.0, 1.0)
    low, high = (least, most) if most - least > 1e-6 else (least - 0.01, most + 0.01)  # of two samples there is one correlation
    cells = [[math.nan if v is None else v for v in row] for row in shown.cells]
    with drawing():
        figure, axes = sheet(380, 330, left=26, right=74, top=10, bottom=34)
        axes.imshow(
            cells, cmap="cividis", vmin=low, vmax=high, extent=(0, 1, 1, 0), interpolation="none",
            aspect="auto",
        )  # fmt: skip
        for bound in shown.bounds[1:-1]:
            axes.axhline(bound, color="white", linewidth=0.5, alpha=0.6)
            axes.axvline(bound, color="white", linewidth=0.5, alpha=0.6)
        middles = [(a + b) / 2 for a, b in zip(shown.bounds[:-1], shown.bounds[1:], strict=True) if b > a]
        classes = [str(i) for i, (a, b) in enumerate(zip(shown.bounds[:-1], shown.bounds[1:], strict=True)) if b > a]
        step = max(1, math.ceil(len(classes) / 20))
        axes.set_xticks(middles[::step], classes[::step])
        axes.set_yticks(middles[::step], classes[::step])
        axes.tick_params(length=0)
        axes.grid(False)
        axes.set_xlabel("class", color=tone("muted"), labelpad=1)
        bar = figure.add_axes((318 / 380, 34 / 330, 14 / 380, 286 / 330))
        bar.imshow([[1 - i / 63] for i in range(64)], cmap="cividis", aspect="auto", extent=(0, 1, low, high))
        bar.set_xticks([])
        bar.yaxis.tick_right()
        bar.tick_params(color=tone("grid"), labelcolor=tone("muted"), labelsize=11, length=3)
        bar.set_yticks([low, (low + high) / 2, high], [f"{v:.2f}".replace("-", MINUS) for v in (low, (low + high) / 2, high)])
        for spine in bar.spines.values():
            spine.set_visible(False)
        name = NAMES.get(shown.kernel, shown.kernel)
        return inline(
            figure, key, f"The {name} between training samples, sorted by class",
            f"{len(shown.bounds) - 1} classes, correlations from {brief(round(least, 3))} to {brief(round(most, 3))}.",
        )  # fmt: skip


def log_x(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis of counts: a few values, the first among them, as ticks, else powers of ten."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    low, high = min(values), max(values)
    room = (high / low) ** 0.06 if high > low else 2.0
    axes.set_xlim(low / room, high * room)
    axes.xaxis.set_minor_locator(NullLocator())
    distinct = sorted(set(values))
    powers = [10.0**p for p in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]
    shown = sorted({low, *thin(distinct, 6)}) if len(distinct) <= 12 else powers
    axes.set_xticks(shown, [f"{v:g}" for v in shown])


def log_y(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis that holds the values."""
    from matplotlib.ticker import NullLocator

    span = spans([values])[0]
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(*span.limits)
    axes.set_yticks(span.ticks(), labels(span.ticks()))
