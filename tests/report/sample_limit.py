"""A result of ``lazyrich limit`` made up by hand, for the page alone."""

from __future__ import annotations

from typing import Any


def sample_limit(layers: int = 2, widths: tuple[int, ...] = (64, 256, 1024), **changes: Any) -> dict[str, Any]:
    """Three samples, two steps; networks of every width but, with ``changes``, what one likes."""
    names = [f"hidden.{i}" for i in range(layers)]
    kernel = [[1.0, 0.2, 0.3], [0.2, 1.0, 0.1], [0.3, 0.1, 1.0]]
    moved = [[1.2, 0.9, -0.3], [0.9, 1.1, -0.2], [-0.3, -0.2, 1.0]]
    density = {"before": [0.2, 0.8], "after": [0.5, 0.5]}
    theory = {
        "lr": 0.1, "gamma0": 2.0, "loss": [0.5, 0.2, 0.05], "loss_error": [0.0, 0.001, 0.001], "fixed_loss": [0.5, 0.3, 0.2],
        "fixed_off": 0.36, "test_loss": 0.07, "fixed_test_loss": 0.15, "accuracy": 0.002, "targets": [1.0, 1.0, -1.0],
        "layers": [
            {
                "layer": name, "start": kernel, "kernel": moved, "kernel_error": 0.01, "movement": 0.95, "start_alignment": 0.4,
                "alignment": 0.9, "edges": [-1.0, 0.0, 1.0], **density,
            }
            for name in names
        ],
    }  # fmt: skip
    lines = [
        {
            "width": n, "networks": 2, "diverged": 0, "loss": [0.5, 0.21, 0.06], "off": 0.8 * n**-0.5,
            "offs": [0.7 * n**-0.5, 0.9 * n**-0.5], "mean_off": 0.3 * n**-0.5, "test_loss": 0.08,
            "kernels": dict.fromkeys(names, 1.2 * n**-0.5), "alignment": {name: [0.88, 0.02] for name in names},
        }
        for n in widths
    ]  # fmt: skip
    return {
        "kind": "limit", "title": "mlp · mup() · digits 3 8", "word": "rich", "sentence": "At infinite width features move.",
        "theory": theory, "widths": lines, "slope": {"value": -0.5, "low": -0.6, "high": -0.4, "points": 6},
        "widest": {"width": max(widths), "layers": [{"layer": name, "kernel": moved, **density} for name in names]},
        "settings": {"steps": 2}, "reproduce": {"command": "lazyrich limit x", "versions": {"torch": "2"}, "date": "2026-11-27"},
    } | changes  # fmt: skip
