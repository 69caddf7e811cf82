"""One transfer study's part of the page: what the template prints, with every word, number and figure ready."""

from __future__ import annotations

import itertools
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
    return {
        "key": key,
        "template": "transfer.html.j2",
        "verb": "transfer",
        "result": result,
        "on": dict(result.settings).get("evaluated on", "fixed samples"),
        "widths": [swatch_of(f"width {w}", *width_style(i, len(widths))) for i, w in enumerate(widths)],
        "schemes": [_scheme(s, figure.curves(s, span, f"{key}-curves{i}")) for i, s in enumerate(result.schemes)],
        "swatches": [swatch_of(s.name, *figure.scheme_style(i)) for i, s in enumerate(result.schemes)],
        "depths": [_depth(d) for d in result.depths],
        "short": all(len(s.name) < 20 for s in result.schemes),  # their table fits beside the figure
        "shifts": figure.shifts(result.schemes, f"{key}-shifts"),
    }


def _depth(part: DepthPart) -> dict[str, Any]:
    best = [brief(lr) for lr in part.best]
    depths = [brief(depth) for depth in part.depths]
    return {
        "name": part.name,
        "sentence": part.sentence,
        "width": part.width,
        "rows": list(zip(depths, best, strict=True)),
    } | _slope(part)


def _slope(part: SchemePart | DepthPart) -> dict[str, str]:
    value, low, high = part.shift
    return {"shift": signed(value), "margin": margin(None if low is None or high is None else (high - low) / 2)}


def _scheme(scheme: SchemePart, svg: str) -> dict[str, Any]:
    return {
        "name": scheme.name,
        "sentence": scheme.sentence,
        "svg": svg,
        **_slope(scheme),
        "wider": _wider(scheme),
        "rows": [_row(c) for c in scheme.curves],
    }


def _wider(scheme: SchemePart) -> str:
    """No width may be worse beyond the seeds' errors, and yet a wider one have the larger loss."""
    losses = [c.loss for c in scheme.curves if c.loss is not None]
    if scheme.wider_is_better and any(b > a for a, b in itertools.pairwise(losses)):
        return "as good"
    return {True: "yes", False: "no", None: "not measured"}[scheme.wider_is_better]


def _row(curve: WidthCurve) -> dict[str, str]:
    error = "" if curve.regret_error is None else f" ± {100 * curve.regret_error:.2f}"
    cost = "—" if curve.regret is None else f"{100 * curve.regret:.2f}{error}%"
    best = brief(curve.best) + (" (end of grid)" if curve.edge else "")
    return {"width": str(curve.width), "best": best, "loss": brief(curve.loss), "regret": cost}
