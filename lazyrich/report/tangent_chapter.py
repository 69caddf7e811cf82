"""One tangent study's part of the page: what the template prints, with every word, number and figure ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazyrich.report import kernel_figure
from lazyrich.report import tangent_figure as figure
from lazyrich.report.chapter import swatch_of
from lazyrich.report.kernel_figure import percent
from lazyrich.report.number import brief, digits
from lazyrich.report.tangent_result import TangentPage


def tangent_chapter(result: TangentPage, key: str) -> dict[str, Any]:
    """Everything that the template prints of one tangent study; ``key`` is what all of its ids begin with.

    Returns:
        Plain text, numbers in words, and figures as SVG (the only values that are markup already).
    """
    moments, few = result.moments, result.few
    looks = figure.looks(moments)
    hierarchy = [f"p = {p}" for p in few.orders]
    return {
        "key": key,
        "template": "tangent.html.j2",
        "verb": "tangent",
        "result": result,
        "losses": figure.losses(moments, f"{key}-losses"),
        "loss_swatches": _swatches(["network", "linearised"]),
        "errors": figure.errors(moments, f"{key}-errors"),
        "error_swatches": _swatches(["on training samples", "on test samples"]),
        "predictors": _predictors(result),
        "classes": moments[-1].accuracy is not None,
        "movement": figure.movement(moments, f"{key}-movement"),
        "movement_swatches": [swatch_of(name, *style) for name, style in figure.styles(moments).items()],
        "moved": _moved(result),
        "alignment": figure.alignment(moments, f"{key}-alignment"),
        "alignment_swatches": _swatches([name for name, _ in looks]),
        "halfway": len(looks) > 2,
        "layers": _layers(result),
        "spectrum": kernel_figure.spectrum(result.spectra, f"{key}-spectrum") if result.spectra else "",
        "power": kernel_figure.power(result.spectra, f"{key}-power") if result.spectra else "",
        "spectrum_swatches": [{**swatch, "mark": "none"} for swatch in _swatches([s.kernel for s in result.spectra])],
        "spectra": [
            {
                "name": s.kernel,
                "top": percent(s.top),
                "rank": brief(s.effective_rank),
                "half": f"{kernel_figure.reach(s, 0.5)} modes",
                "most": f"{kernel_figure.reach(s, 0.9)} modes",
            }
            for s in result.spectra  # fmt: skip
        ],
        "few_losses": figure.few_losses(few, f"{key}-few"),
        "few_errors": figure.few_errors(few, f"{key}-few-errors"),
        "few_swatches": _swatches(["network", *hierarchy]),
        "few_rows": [
            {"order": name, "half": percent(half, "has ended"), "end": percent(row[-1], "has ended")}
            for name, half, row in zip(hierarchy, few.at_half, few.errors, strict=True)
        ],
        "headline": _headline(result),
        "distance": percent(result.limit.distance),
    }


def _headline(result: TangentPage) -> str:
    """How the headline's training differs from that of the few samples, since the two need not leave the linearisation alike."""
    first, last = result.moments[0], result.moments[-1]
    left = last.loss / first.loss if first.loss and last.loss is not None else None
    rest = "" if left is None else f", which left {percent(left) if left >= 5e-4 else 'less than 0.1%'} of the loss"
    return (
        "on these samples and one output until nearly all is learnt, while the headline is about all samples and outputs for "
        f"{last.step:g} steps{rest}"
    )


def _swatches(names: Sequence[str]) -> list[dict[str, str]]:
    return [swatch_of(name, *figure.STYLES[name]) for name in names]


def _predictors(result: TangentPage) -> list[dict[str, str]]:
    """The network, its linearisation and its limit on the test samples after training."""
    last, limit = result.moments[-1], result.limit
    rows = [
        ("network", last.loss, last.test_loss, last.accuracy),
        ("linearised", last.linear_loss, last.linear_test_loss, last.linear_accuracy),
    ]
    if not limit.reason:
        rows.append(("infinite width", None, limit.test_loss, limit.accuracy))
    return [
        {"name": name, "train": digits(train), "test": digits(test), "accuracy": percent(accuracy)}
        for name, train, test, accuracy in rows
    ]


def _moved(result: TangentPage) -> list[dict[str, str]]:
    last = result.moments[-1]
    rows = [("tangent kernel", last.movement), ("tangent kernel, scale apart", last.turned), *last.features]
    return [{"name": name, "value": percent(value), "code": "yes" if i > 1 else ""} for i, (name, value) in enumerate(rows)]


def _layers(result: TangentPage) -> list[dict[str, str]]:
    first, last = ({line.layer: line for line in m.alignment} for m in (result.moments[0], result.moments[-1]))
    return [
        {
            "name": "whole network" if name == "(whole)" else name,
            "code": "" if name == "(whole)" else "yes",
            "before": digits(first[name].centred if name in first else None),
            "after": digits(line.centred),
            "unbiased": digits(line.unbiased),
            "share": percent(line.share),
            "peak": "yes" if name == result.peak else "",
        }
        for name, line in last.items()
    ]
