"""One check over depth as a part of the page: what the template prints, with every word, number and figure ready."""

from __future__ import annotations

import math
from typing import Any

from lazyrich.report import figure
from lazyrich.report.depth_result import DepthPage, DepthRow
from lazyrich.report.number import margin, signed
from lazyrich.report.result import Curve, Line

AXIS = "number of branches"


def depth_chapter(result: DepthPage, key: str) -> dict[str, Any]:
    """Everything that the template prints; ``key`` is what all of its ids begin with."""
    updates, own, levels = (result.of(quantity) for quantity in ("update", "own", "level"))
    lines = [_line(row) for row in updates.values()]
    return {
        "key": key,
        "template": "depth.html.j2",
        "verb": "depth",
        "result": result,
        "forest": figure.forest(lines, f"{key}-forest", against=AXIS) if lines else "",
        "forest_narrow": figure.forest(lines, f"{key}-forest-n", narrow=True, against=AXIS) if lines else "",
        "panels": _panels(result, updates, key),
        "rows": [
            {
                "layer": layer,
                "moved": _slope(row),
                "word": row.verdict,
                "own": _slope(own.get(layer)),
                "predicted": signed(own[layer].predicted) if layer in own else "",
                "level": _slope(levels.get(layer)),
            }
            for layer, row in updates.items()
        ],
    }


def _line(row: DepthRow) -> Line:
    """A layer's update as the forest draws it: agreeing where its verdict is well-behaved, open where nothing can be told."""
    agrees = {"well-behaved": True, "inconclusive": None}.get(row.verdict, False)
    return Line(row.layer, (), "", "update", 0, row.slope, row.low, row.high, row.predicted, agrees, row.verdict, "")


def _panels(result: DepthPage, updates: dict[str, DepthRow], key: str) -> list[dict[str, str]]:
    """Each layer's update against depth."""
    curves = [_curve(result, row) for row in updates.values()]
    spans = figure.panel_spans([[curve] for curve in curves])
    return [
        {
            "layer": curve.layer,
            "svg": figure.panel([curve], span, f"{key}-u{i}", f"Update of {curve.layer} against {AXIS}", row.predicted, AXIS),
        }
        for i, (curve, span, row) in enumerate(zip(curves, spans, updates.values(), strict=True))
    ]


def _curve(result: DepthPage, row: DepthRow) -> Curve:
    """Geometric means over seeds, with their range."""
    columns = [[v for v in column if v is not None and v > 0] for column in zip(*row.values, strict=True)]
    mean = tuple(math.exp(sum(map(math.log, c)) / len(c)) if c else None for c in columns)
    low, high = (tuple(end(c) if c else None for c in columns) for end in (min, max))
    return Curve(row.layer, "update", 0, tuple(map(float, result.depths)), mean, low, high)


def _slope(row: DepthRow | None) -> str:
    if row is None or row.slope is None:
        return ""
    half = None if row.low is None or row.high is None else (row.high - row.low) / 2
    return f"{signed(row.slope)} {margin(half)}".strip()
