"""A result of ``lazyrich tangent`` made up by hand, for the page alone."""

from __future__ import annotations

from typing import Any


def sample_tangent(layers: int = 3, **changes: Any) -> dict[str, Any]:
    """As ``TangentResult.to_dict`` writes it; ``layers`` hidden layers with long names when there are many."""
    names = [f"blocks.{i}.attention.projection" if layers > 6 else f"hidden.{i}" for i in range(layers)]

    def moment(step: int) -> dict[str, Any]:
        part = step / 100
        rows = [
            {"layer": n, "centred": 0.4 + 0.3 * part, "uncentred": 0.5, "unbiased": 0.3, "share": 1 / layers, "speed": None}
            for n in names
        ]
        return {
            "step": step, "loss": 0.5 * 0.1**part, "linear_loss": 0.5 * 0.2**part, "test_loss": 0.3, "linear_test_loss": 0.3,
            "accuracy": 0.9, "linear_accuracy": 0.85, "error": 0.2 * part, "test_error": 0.25 * part, "ntk_movement": 0.4 * part,
            "ntk_distance": 0.05 * part, "features": dict.fromkeys(names, 0.3 * part),
            "alignment": [*rows, {**rows[0], "layer": "(whole)", "share": 1.0}],
        }  # fmt: skip

    def spectrum(when: str) -> dict[str, Any]:
        values = {"modes": [1, 2, 4], "eigenvalues": [0.6, 0.3, 0.1], "cumulative": [0.4, 0.8, 1.0], "top": 0.6}
        return {"kernel": when, "samples": 4, **values, "effective_rank": 2.4, "alignment": 0.5}

    times = [0.0, 0.5, 1.0]
    result = {
        "kind": "tangent", "title": "mlp at width 64 · ntk() · digits", "word": "between", "sentence": "This network moves.",
        "peak": names[-1], "moments": [moment(step) for step in (0, 1, 10, 100)],
        "spectra": [spectrum("before"), spectrum("after")],
        "few": {
            "what": "class 1 against class 2", "samples": 8, "orders": [2, 3, 4], "times": times, "losses": [0.5, 0.2, 0.1],
            "predicted": [[0.5, 0.22, 0.13], [0.5, 0.21, None], [0.5, 0.2, 0.101]],
            "errors": [[None, 0.05, 0.1], [None, 0.03, None], [None, 0.002, 0.01]], "half": 0.5, "at_half": [0.05, 0.03, 0.002],
        },
        "limit": {"reason": "", "distance": 0.1, "test_loss": 0.2, "accuracy": 0.91},
        "settings": {"width": 64, "data": "digits"},
        "reproduce": {"command": "lazyrich tangent lazyrich.zoo:mlp", "versions": {"torch": "2"}, "date": "2026-11-23"},
    }  # fmt: skip
    return {**result, **changes}
