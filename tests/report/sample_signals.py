"""A result of ``lazyrich init`` made up by hand, for the page alone."""

from __future__ import annotations

from typing import Any


def sample_signals(layers: int = 4, **changes: Any) -> dict[str, Any]:
    """Levels that halve from layer to layer, drawn a tenth above their prediction."""
    lines = []
    for i in range(layers):
        line: dict[str, Any] = {"layer": f"body.blocks.{i}.linear"}
        for what, value in (("level", 0.5**i), ("correlation", 0.1 * i), ("gradient", 2.0**i)):
            line |= {what: 1.1 * value, f"{what}_spread": 0.02, f"{what}_predicted": value}
        lines.append(line)
    return {
        "kind": "signals", "title": "net at width 64 · mup() · digits", "word": "steady", "sentence": "Signals keep their size.",
        "lines": lines,
        "phase": None, "no_phase": "it has no hidden layer that reads another one",
        "inputs": [0.95, 0.435], "reason": "", "settings": {"width": 64}, "command": "lazyrich init net.py:net",
        "date": "2026-11-27",
    } | changes  # fmt: skip
