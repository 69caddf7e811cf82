"""One study of an initialisation as a part of the page: what the template prints, with every word and figure ready."""

from __future__ import annotations

from typing import Any

from lazyrich.report import signal_figure as figure
from lazyrich.report.chapter import swatch_of
from lazyrich.report.number import DASH, digits, signed
from lazyrich.report.signal_result import SignalPage


def signal_chapter(result: SignalPage, key: str) -> dict[str, Any]:
    """Everything that the template prints; ``key`` is what all of its ids begin with."""
    swatches = [swatch_of("drawn", *figure.DRAWN)]
    if not result.reason:
        swatches.append(swatch_of("predicted at infinite width", *figure.PREDICTED))
    return {
        "key": key,
        "template": "signals.html.j2",
        "verb": "init",
        "result": result,
        "swatches": swatches,
        "levels": figure.levels(result, f"{key}-levels"),
        "correlations": figure.correlations(result, f"{key}-correlations"),
        "gradients": figure.gradients(result, f"{key}-gradients"),
        "plane": figure.plane(result, f"{key}-plane"),
        "chis": {
            name: (digits(perp), digits(along)) for name, _, _, perp, along in (result.phase.points if result.phase else ())
        },
        "inputs": (digits(result.inputs[0]), signed(result.inputs[1])),
        "rows": [
            {
                "name": row.layer,
                "level": (digits(row.level[0]), digits(row.level[2], DASH)),
                "correlation": (signed(row.correlation[0]), signed(row.correlation[2])),
                "gradient": (digits(row.gradient[0]), digits(row.gradient[2], DASH)),
            }
            for row in result.rows
        ],
    }
