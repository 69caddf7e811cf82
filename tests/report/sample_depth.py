"""A result of ``lazyrich depth`` made up by hand, for the page alone."""

from __future__ import annotations

from typing import Any


def sample_depth(**changes: Any) -> dict[str, Any]:
    """A layer outside and three places inside of branches; one update was not seen."""
    layers = [
        "embed",
        *(f"{place} body.blocks.*: attention.projection" for place in ("first of", "1/2 through", "3/4 through")),
        "readout",
    ]
    lines = []
    for i, layer in enumerate(layers):
        for quantity, slope in (("update", 0.1 * (i - 2)), ("own", -0.4), ("level", 0.0)):
            lines.append({
                "layer": layer, "quantity": quantity, "slope": slope, "low": slope - 0.1, "high": slope + 0.1,
                "predicted": None if quantity == "level" else 0.0,
                "verdict": ("well-behaved" if i != 4 else "exploding") if quantity == "update" else "",
                "values": [[0.5 * d**slope for d in (4, 16, 64)], [0.55 * d**slope for d in (4, 16, 64)]],
            })  # fmt: skip
    lines[0] |= {"slope": None, "low": None, "high": None, "values": [[0.0, 0.0, 0.0]] * 2}
    return {
        "kind": "depth", "title": "net · mup() · adamw · exponent 1", "word": "exploding", "sentence": "Exploding from 4 to 64.",
        "depths": [4, 16, 64], "lines": lines, "diverged": [], "settings": {"4": {"width": 64, "seeds": 2}},
        "command": "lazyrich depth net.py:net", "date": "2026-11-27",
    } | changes  # fmt: skip
