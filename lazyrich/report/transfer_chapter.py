"""One transfer study's part of the page: what the template prints, with every word, number and figure ready."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from lazyrich.report import transfer_figure as figure
from lazyrich.report.chapter import swatch_of
from lazyrich.report.figure import width_style
from lazyrich.report.number import brief, margin, signed
from lazyrich.report.transfer_result import DepthPart, SchemePart, TransferPage, WidthCurve


def transfer_chapter(result: TransferPage, key: str) -> dict[str, Any]:
    """Everything that the template prints of one study; ``key`` is what all of its ids begin with."""
    span = figure.loss_span(result.schemes)
    widths = [c.width for c in result.schemes[0].curves] if result.schemes else []
    octaves = _octaves([lr for s in result.schemes for c in s.curves for lr in c.lrs])
    return {
        "key": key,
        "template": "transfer.html.j2",
        "verb": "transfer",
        "result": result,
        "on": on if " " in (on := dict(result.settings).get("evaluated on", "")) else "fixed samples",  # once a bare number
        "widths": [swatch_of(f"width {w}", *width_style(i, len(widths))) for i, w in enumerate(widths)],
        "sentences": result.sentences or [part.sentence for part in (*result.schemes, *result.depths)],
        "schemes": [_scheme(s, figure.curves(s, span, f"{key}-curves{i}"), octaves) for i, s in enumerate(result.schemes)],
        "swatches": [swatch_of(s.name, *figure.scheme_style(i)) for i, s in enumerate(result.schemes)],
        "depths": [_depth(d, octaves) for d in result.depths],
        "short": all(len(s.name) < 20 for s in result.schemes),  # their table fits beside the figure
        "shifts": figure.shifts(result.schemes, f"{key}-shifts"),
    }


def _octaves(lrs: Sequence[float]) -> float:
    return math.log2(max(lrs) / min(lrs)) if lrs else math.inf


def _depth(part: DepthPart, octaves: float) -> dict[str, Any]:
    best = [brief(lr) for lr in part.best]
    depths = [brief(depth) for depth in part.depths]
    return {
        "name": part.name,
        "width": part.width,
        "rows": list(zip(depths, best, strict=True)),
    } | _slope(part, [depth for depth in part.depths if depth], octaves)


def _slope(part: SchemePart | DepthPart, places: Sequence[float], octaves: float) -> dict[str, str]:
    """A shift with its interval, which is not told where there is none and where it is wider than the grid."""
    value, low, high = part.shift
    if value is None:
        return {"shift": signed(value), "margin": ""}
    if low is None or high is None:
        return {"shift": signed(value), "margin": "no interval"}
    half, doublings = (high - low) / 2, math.log2(max(places) / min(places))
    return {"shift": signed(value), "margin": margin(half) if half * doublings <= octaves else "interval wider than the grid"}


def _scheme(scheme: SchemePart, svg: str, octaves: float) -> dict[str, Any]:
    return {
        "name": scheme.name,
        "svg": svg,
        **_slope(scheme, [c.width for c in scheme.curves], octaves),
        "wider": _wider(scheme),
        "rows": [_row(c) for c in scheme.curves],
    }


def _wider(scheme: SchemePart) -> str:
    """No width may be worse beyond the seeds' scatter, and yet a wider one have the larger loss: seeds do not tell them apart."""
    losses = [c.loss for c in scheme.curves if c.loss is not None]
    if scheme.wider_is_better and any(b > a for a, b in itertools.pairwise(losses)):
        return "within the scatter"
    unknown = "hidden by the grid's step" if scheme.hidden else "not measured"
    return {True: "yes", False: "no", None: unknown}[scheme.wider_is_better]


def _row(curve: WidthCurve) -> dict[str, str]:
    error = "" if curve.regret_error is None else f" ± {100 * curve.regret_error:.2f}" if curve.regret_error <= 1 else " ± >100"
    cost = "—" if curve.regret is None else f"{100 * curve.regret:.2f}{error}%"
    best = brief(curve.best) + (" (end of grid)" if curve.edge else "")
    return {"width": str(curve.width), "best": best, "loss": brief(curve.loss), "regret": cost}
