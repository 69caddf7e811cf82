"""One limit study's part of the page: what the template prints, with every word, number and figure ready."""

from __future__ import annotations

from typing import Any

from lazyrich.report import limit_figure as figure
from lazyrich.report.chapter import swatch_of
from lazyrich.report.kernel_figure import percent
from lazyrich.report.limit_result import LimitLayer, LimitPage
from lazyrich.report.number import DASH, brief, digits, signed

SHOWN = 4  # layers with figures of their own
WIDEST = 0.5  # half an interval of a slope that tells theory's −1/2 from none


def limit_chapter(result: LimitPage, key: str) -> dict[str, Any]:
    """Everything that the template prints of one limit study; ``key`` is what all of its ids begin with.

    Returns:
        Plain text, numbers in words, and figures as SVG (the only values that are markup already).
    """
    order, bounds = _sorted(result)
    count, layers = len(result.widths), result.layers[:SHOWN]
    return {
        "key": key,
        "template": "limit.html.j2",
        "verb": "limit",
        "result": result,
        "losses": figure.losses(result, f"{key}-losses"),
        "loss_swatches": [
            swatch_of("infinite width", *figure.LIMIT),
            swatch_of("kernel that stays", *figure.FIXED),
            *(
                swatch_of(f"width {line.width}", *figure.width_style(i, count))
                for i, line in enumerate(result.widths)
                if line.loss
            ),
        ],
        "approach": figure.approach(result, f"{key}-approach"),
        "approach_swatches": [
            swatch_of("networks", "update", "o", figure.SOLID),
            swatch_of("width^(−1/2)", "muted", "", figure.DOTTED),
            swatch_of("kernel that stays", "passthrough", "^", figure.FIXED[2]),
            swatch_of("sampling error of the limit", "ink", "D", (0, (7, 2, 1.5, 2))),
        ],
        "slope": _slope(result),
        "predictors": _predictors(result),
        "tested": result.test_loss is not None,
        "names": [layer.name for layer in result.layers],
        "kernels": [_kernels(layer, order, bounds, f"{key}-kernel{i}") for i, layer in enumerate(layers)],
        "alignment": figure.alignment(result, f"{key}-alignment"),
        "alignment_swatches": [swatch_of(layer.name, *figure.layer_style(i)) for i, layer in enumerate(result.layers)],
        "aligned": [
            {
                "name": layer.name,
                "before": digits(layer.start_alignment),
                "limit": digits(layer.alignment),
                "widths": [digits(dict(w.alignment)[layer.name][0]) if w.alignment else DASH for w in result.widths],
            }
            for layer in result.layers
        ],
        "densities": [
            {"name": layer.name, "svg": figure.density(layer, f"{key}-density{i}")} for i, layer in enumerate(layers)
        ],
        "density_swatches": [
            swatch_of("before", "passthrough", "^", (0, (5, 2))),
            swatch_of("after", "update", "o", figure.SOLID),
        ],
        "unseen": len(result.layers) - len(layers),
    }


def _kernels(layer: LimitLayer, order: list[int], bounds: list[float], key: str) -> dict[str, Any]:
    low, high = figure.extent(layer, order)
    return {
        "name": layer.name,
        "moved": percent(layer.movement),
        "low": brief(round(low, 3)),
        "high": brief(round(high, 3)),
        "panels": [{"name": name, "svg": svg} for name, svg in figure.kernels(layer, order, bounds, key)],
    }


def _sorted(result: LimitPage) -> tuple[list[int], list[float]]:
    """Training samples by target, and where a target ends, as parts of the whole."""
    targets = [v or 0.0 for v in result.targets]
    order = sorted(range(len(targets)), key=lambda i: targets[i])
    values = [targets[i] for i in order]
    ends = [i for i in range(1, len(values)) if values[i] != values[i - 1]]
    return order, [end / len(values) for end in ends] if len(ends) <= 12 else []


def _slope(result: LimitPage) -> str:
    value, low, high = result.slope
    if value is None:
        return ""
    if low is None or high is None or high - low > 2 * WIDEST:
        return "undetermined"
    return signed(value) + (f" ± {(high - low) / 2:.2f}" if low is not None and high is not None else "")


def _predictors(result: LimitPage) -> list[dict[str, Any]]:
    errors = {layer.name: percent(layer.kernel_error) for layer in result.layers}
    rows = [
        {
            "name": "infinite width",
            "train": digits(result.loss[-1]),
            "test": digits(result.test_loss),
            "off": f"± {percent(result.accuracy)}",
            "kernels": [f"± {error}" for error in errors.values()],
        },
        {
            "name": "kernel that stays",
            "train": digits(result.fixed_loss[-1]),
            "test": digits(result.fixed_test_loss),
            "off": percent(result.fixed_off),
            "kernels": [percent(_away(layer, len(result.targets))) for layer in result.layers],
        },
    ]
    for line in result.widths:
        known = dict(line.kernels)
        rows.append(
            {
                "name": f"width {line.width}",
                "train": digits(line.loss[-1], "diverged") if line.loss else "diverged",
                "test": digits(line.test_loss),
                "off": percent(line.off),
                "kernels": [percent(known.get(name)) for name in errors],
            }
        )
    return rows


def _away(layer: Any, count: int) -> float | None:
    """||Phi_0 - Phi|| / ||Phi|| on the training samples, from the movement, which is relative to Phi_0."""
    sizes = [sum((v or 0.0) ** 2 for row in cells[:count] for v in row[:count]) ** 0.5 for cells in (layer.start, layer.kernel)]
    return None if layer.movement is None or not sizes[1] else layer.movement * sizes[0] / sizes[1]
