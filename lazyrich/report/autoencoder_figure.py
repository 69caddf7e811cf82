"""The figures of a study of autoencoders: a metric against width, losses, latent scatters, and reconstructions as pictures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from lazyrich.report.autoencoder_result import AutoencoderCell
from lazyrich.report.canvas import WIDTH_TONES, drawing, inline, sheet, tone
from lazyrich.report.number import brief
from lazyrich.report.scale import thin
from lazyrich.report.transfer_figure import scheme_style

BRIGHT = 3.0  # standardised grey levels are shown from minus half of this to this


def against_width(
    cells: Sequence[AutoencoderCell], metric: str, axis: str, starts: Sequence[str], level: float | None, key: str
) -> str:
    """A metric's mean over seeds against width, one curve a start, with the seeds' range; a dotted line where theory has one."""
    with drawing():
        figure, axes = sheet(430, 270, left=54, right=16, top=12, bottom=40)
        words = []
        for i, start in enumerate(starts):
            own = sorted((c for c in cells if c.start == start and c.known(metric)), key=lambda c: c.width)
            if not own:
                continue
            color, mark, dash = scheme_style(i)
            widths, mean = [c.width for c in own], [c.mean(metric) or 0.0 for c in own]
            low, high = ([end(c.known(metric)) for c in own] for end in (min, max))
            axes.fill_between(widths, low, high, color=tone(color), alpha=0.13, linewidth=0)
            axes.plot(widths, mean, color=tone(color), marker=mark, markersize=5, linewidth=1.7, linestyle=dash)
            words.append(f"{start}: " + ", ".join(f"{brief(m)} at {w}" for w, m in zip(widths, mean, strict=True)))
        if level is not None:
            axes.axhline(level, color=tone("theory"), linestyle=(0, (1, 2)), linewidth=1.3)
            words.append(f"best linear autoencoder: {brief(level)}")
        _widths(axes, sorted({c.width for c in cells}))
        axes.set_ylabel(axis, color=tone("muted"))
        return inline(figure, key, f"{axis} against width", "; ".join(words) + ".")


def losses(cells: Sequence[AutoencoderCell], starts: Sequence[str], key: str) -> str:
    """Training loss against step, one curve a start."""
    with drawing():
        figure, axes = sheet(430, 270, left=54, right=16, top=12, bottom=40)
        words = []
        for i, start in enumerate(starts):
            own = [c for c in cells if c.start == start and c.curve]
            if own:
                color, _, dash = scheme_style(i)
                steps, values = zip(*[(p[0] or 0, p[1] if p[1] is not None else math.nan) for p in own[0].curve], strict=True)
                mark = "o" if len(steps) == 1 else ""  # a line through one point is nothing to see
                axes.plot([s + 1 for s in steps], values, color=tone(color), linewidth=1.7, linestyle=dash, marker=mark)
                words.append(f"{start}: from {brief(values[0])} to {brief(values[-1])}")
        ends = [p[0] or 0 for c in cells for p in c.curve]
        _log(axes, [10.0**k for k in range(1 + int(math.log10(max(ends, default=0) + 1)))])
        axes.set_xlabel("step", color=tone("muted"), labelpad=1)
        axes.set_ylabel("loss", color=tone("muted"))
        return inline(figure, key, "Loss against step", "; ".join(words) + ".")


def scatter(cell: AutoencoderCell, key: str) -> str:
    """Codes of held-out samples along their two widest directions, each drawn as its class."""
    with drawing():
        figure, axes = sheet(300, 270, left=30, right=10, top=10, bottom=26)
        points = np.array([[v or 0.0 for v in (*row, 0.0)[:2]] for row in cell.scatter])
        labels = cell.labels or ("",) * len(points)
        for i, label in enumerate(sorted(set(labels))):
            color = tone(f"w{1 + i % WIDTH_TONES}")
            own = points[[other == label for other in labels]]
            for x, y in own if label and len(label) < 3 else ():
                axes.text(x, y, label, color=color, ha="center", va="center", fontsize=9)
            marker = "" if label and len(label) < 3 else "o"
            axes.plot(own[:, 0], own[:, 1], linestyle="", marker=marker, markersize=4, color=color)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("widest direction of the codes", color=tone("muted"), labelpad=4)
        axes.set_ylabel("second direction", color=tone("muted"))
        return inline(figure, key, f"Codes, {cell.start}", f"{len(points)} held-out samples in {len(set(labels))} classes.")


def picture(rows: Sequence[Sequence[float | None]]) -> str:
    """Samples side by side as a PNG to stand in a page; empty where they are no square images."""
    side = math.isqrt(len(rows[0])) if rows else 0
    if side < 4 or side * side != len(rows[0]):
        return ""
    from matplotlib.image import imsave

    tiles = [np.pad(np.array([v or 0.0 for v in row]).reshape(side, side), 1, constant_values=-BRIGHT) for row in rows]
    strip = np.kron(np.concatenate(tiles, 1), np.ones((max(1, 56 // side),) * 2))
    buffer = io.BytesIO()
    imsave(buffer, strip, cmap="gray", vmin=-BRIGHT / 2, vmax=BRIGHT, format="png", metadata={"Software": "lazyrich"})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _widths(axes: Axes, widths: Sequence[int]) -> None:
    _log(axes, thin(list(widths), 6))
    axes.set_xlabel("width", color=tone("muted"), labelpad=1)


def _log(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [brief(tick) for tick in ticks])
