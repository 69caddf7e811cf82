"""One dial's part of the page: what the template prints, with every word, number and figure ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazyrich.report.chapter import swatch_of
from lazyrich.report.dial_figure import against_richness
from lazyrich.report.dial_result import DialCurve, DialLaw, DialPage
from lazyrich.report.figure import width_style
from lazyrich.report.number import DASH, brief, margin, signed

NAMES = {
    "features": "features",
    "feature_kernel": "feature kernel",
    "kernel": "tangent kernel",
    "kernel_distance": "Fort distance",
}
OUTSIDE = "not in its regime"


def dial_chapter(result: DialPage, key: str) -> dict[str, Any]:
    """Everything that the template prints of one dial; ``key`` is what all of its ids begin with."""
    exponents = sorted({c.r for c in result.curves})
    parts = [_part(result, [c for c in result.curves if c.r == r], f"{key}-r{i}") for i, r in enumerate(exponents)]
    return {
        "key": key,
        "template": "dial.html.j2",
        "verb": "dial",
        "result": result,
        "parts": parts,
        "laws": [_law(law) for law in result.laws],
        "plain": brief(result.plain),
        "rates": _rates(dict(result.settings).get("optimizer", "")),
    }


def _rates(optimizer: str) -> str:
    """What the plan multiplies the rates by, which the table leaves out."""
    return "the plan multiplies it by " + ("A²" if optimizer in ("sgd", "momentum") else "A")


def _part(result: DialPage, curves: Sequence[DialCurve], key: str) -> dict[str, Any]:
    classes = any(v is not None for c in curves for v in c.values["test_error"].mean)
    quantity = "test_error" if classes else "test_loss"
    word = "test error" if classes else "test loss"
    asked = [
        ("loss", "loss on the training samples", "loss", "linear_loss"),
        (quantity, word, word, f"linear_{quantity}"),
        ("linearisation", "distance from the linearised network", "relative distance", None),
        ("features", "movement of the last hidden features", "relative movement", None),
        ("kernel", "movement of the tangent kernel", "relative movement", None),
        ("alignment", "alignment of the tangent kernel with the targets", "alignment", "alignment_before"),
    ]
    return {
        "r": brief(curves[0].r),
        "swatches": [swatch_of(f"width {c.width}", *width_style(i, len(curves))) for i, c in enumerate(curves)],
        "figures": [
            {"name": name, "svg": against_richness(curves, q, axis, result.plain, f"{key}-{q}", beside)}
            for q, name, axis, beside in asked
        ],
        "rows": [row for c in curves for row in _rows(c, quantity)],
        "quantity": word,
    }


def _rows(curve: DialCurve, quantity: str) -> list[dict[str, str]]:
    names = {"loss": "loss", "test": quantity, "linear": f"linear_{quantity}", "distance": "linearisation",
             "features": "features", "kernel": "kernel", "lr": "lr"}  # fmt: skip
    return [
        {"width": str(curve.width), "richness": brief(g)}
        | {k: brief(curve.values[q].mean[i]) for k, q in names.items()}
        | {"end": " (end of grid)" if _at_an_end(curve, i) else ""}
        for i, g in enumerate(curve.richness)
    ]


def _at_an_end(curve: DialCurve, at: int) -> bool:
    """Whether a seed's best learning rate is an end of those that were tried; results of older versions do not say."""
    edge = curve.values.get("edge")
    return edge is not None and any((edge.low[at], edge.high[at]))


def _law(law: DialLaw) -> dict[str, str]:
    half = None if law.low is None or law.high is None else (law.high - law.low) / 2
    shown = law.determined and law.verdict != OUTSIDE
    return {
        "name": NAMES.get(law.quantity, law.quantity),
        "r": brief(law.r),
        "richness": brief(law.richness),
        "value": signed(law.value) if shown else DASH,
        "margin": margin(half) if shown else "",
        "expected": signed(law.expected),
        "verdict": law.verdict or ("" if shown else "undetermined"),
    }
