"""Made-up results of a check, as real ones would look: one for each kind of ending."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

WIDTHS = (64, 128, 256, 512, 1024)
NASTY = "<script>alert('fc2')</script> & $x_1$ \"q\""
_ROLES = {"fc1": "input", "fc2": "hidden", "fc3": "hidden", "readout": "output"}
_PARTS = {"update": 1.0, "layer": 0.8, "passthrough": 0.5, "interaction": 0.12}
_BASE = {"fc1": 0.042, "fc2": 0.071, "fc3": 0.09, "readout": 0.21}


def sample(kind: str = "well-behaved", seed: int = 0, names: dict[str, str] | None = None, layers: int = 0) -> dict[str, Any]:
    """One result.

    Args:
        kind: well-behaved, exploding, lazy or inconclusive.
        seed: of the noise on slopes and curves.
        names: other names for the layers fc1, fc2, fc3 and readout.
        layers: so many more hidden layers, for a page of a deep network.
    """
    rng = np.random.default_rng(seed)
    roles = dict(_ROLES)
    for i in range(layers):
        roles[f"transformer.h.{i}.attn.c_proj"] = "hidden"
    told, found = _slopes(kind, roles)
    lines: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for layer, role in roles.items():
        name = (names or {}).get(layer, layer)
        for quantity in ("update", "layer", "passthrough", "interaction", "level", "uuc", "max"):
            for step in (1, 5) if quantity == "update" else (5,):
                lines.append(_line(kind, name, layer, role, quantity, step, told, found, rng))
            if quantity in _PARTS:
                curves.append(_curve(kind, name, layer, quantity, found[layer], rng))
    return {
        "kind": "check",
        "title": _TITLES[kind],
        "verdict": copy.deepcopy(_VERDICTS[kind]),
        "theory": dict(_THEORIES[kind]),
        "settings": _settings(),
        "lines": lines,
        "curves": curves,
        "losses": _losses(kind, rng),
        "plan": _plan(),
        "obligations": copy.deepcopy(_OBLIGATIONS) if kind in ("well-behaved", "inconclusive") else [],
        "reproduce": {
            "command": "lazyrich check examples/mlp.py:mlp --data digits "
            f"--scheme {_THEORIES[kind]['scheme'][:-2]} --widths 64 128 256 512 1024",
            "versions": {"lazyrich": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
            "date": "2026-11-23",
        },
    }


def samples() -> list[dict[str, Any]]:
    """Four results, the last with runs that diverged and a name that is no friend of HTML."""
    return [
        sample("well-behaved", 0),
        sample("exploding", 1),
        sample("lazy", 2),
        sample(
            "inconclusive",
            3,
            names={"fc2": NASTY, "fc3": "encoder.blocks.11.attention.output.dense_projection"},
        ),
    ]


def _slopes(kind: str, roles: dict[str, str]) -> tuple[dict[str, float | None], dict[str, float]]:
    """What theory predicts and what is found, by layer."""
    told: dict[str, float | None] = dict.fromkeys(roles, 0.0)
    found = dict.fromkeys(roles, 0.01)
    if kind == "exploding":
        told = {layer: {"input": 0.0, "hidden": 0.5, "output": 1.0}[role] for layer, role in roles.items()}
        found = {layer: (value or 0.0) - 0.06 for layer, value in told.items()}
    if kind == "lazy":
        told = {layer: 0.0 if role == "output" else -0.5 for layer, role in roles.items()}
        found = {layer: (value or 0.0) + 0.01 for layer, value in told.items()}
    if kind == "inconclusive":
        told["fc3"] = None
        found = dict.fromkeys(roles, 0.35)
    return told, found


def _line(kind, name, layer, role, quantity, step, told, found, rng) -> dict[str, Any]:
    predicted = told[layer] if quantity in ("update", "layer", "level") else 0.0
    slope = float((found[layer] if quantity in ("update", "layer") else 0.0) + 0.02 * rng.standard_normal())
    half = float((0.4 if kind == "inconclusive" else 0.05) * (0.6 + rng.random()))
    lost = kind == "inconclusive" and layer == "readout"
    agrees = None if lost or predicted is None or kind == "inconclusive" else abs(slope - predicted) <= half + 0.02
    word = ""
    if quantity == "update" and step == 5:
        word = {"lazy": "lazy" if role != "output" else "well-behaved"}.get(kind, kind)
        word = "well-behaved" if kind == "exploding" and role == "input" else word
    return {
        "layer": name,
        "tensors": [f"{name}.weight", f"{name}.bias"],
        "role": role,
        "quantity": quantity,
        "step": step,
        "slope": float("nan") if lost else slope,
        "low": None if lost else slope - half,
        "high": None if lost else slope + half,
        "predicted": predicted,
        "agrees": agrees,
        "verdict": word,
        "mend": f"divide its learning rate by width/64 ({name}.weight)" if word == "exploding" else "",
    }


def _curve(kind, name, layer, quantity, slope, rng) -> dict[str, Any]:
    base = _BASE.get(layer, 0.06) * _PARTS[quantity]
    mean: list[float | None] = []
    for width in WIDTHS:
        mean.append(float(base * (width / WIDTHS[0]) ** slope * np.exp(0.04 * rng.standard_normal())))
    if quantity in ("passthrough", "interaction") and layer == "fc1":
        mean = [0.0] * len(WIDTHS)
    if kind == "inconclusive":
        mean[-1], mean[-2] = float("nan"), None if layer == "readout" else mean[-2]
    return {
        "layer": name,
        "quantity": quantity,
        "step": 5,
        "widths": list(WIDTHS),
        "mean": mean,
        "low": [None if m is None else m * 0.88 for m in mean],
        "high": [None if m is None else m * 1.13 for m in mean],
    }


def _losses(kind: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    runs = []
    for i, width in enumerate(WIDTHS):
        rate = {"exploding": 0.1 + 0.12 * i, "lazy": 0.10}.get(kind, 0.16 + 0.01 * i)
        mean = [float(2.303 * np.exp(-rate * step) + 0.01 * rng.random()) for step in range(6)]
        if kind == "exploding" and i >= 3:
            mean = [float(2.303 + 0.15 * (i - 2) * step**1.6) for step in range(6)]
        if kind == "inconclusive" and i >= 3:
            mean = [*mean[: 5 - i + 1], *[float("nan")] * (i)]
        runs.append({"width": width, "mean": mean, "low": [m * 0.97 for m in mean], "high": [m * 1.03 for m in mean]})
    return runs


def _settings() -> dict[str, Any]:
    return {
        "factory": "examples/mlp.py:mlp", "base": 64, "widths": list(WIDTHS), "steps": 5, "seeds": 3,
        "lr": 0.01, "batch": 64, "loss": "cross_entropy", "data": "digits", "device": "cpu",
        "compiled": False, "weight_decay": None,
    }  # fmt: skip


def _plan() -> dict[str, Any]:
    columns = ["tensor", "role", "shape", "init std", "lr x", "weight decay x", "eps x", "multiplier"]
    rows = [
        ["fc1.weight", "input", "(512, 64)", "0.125", "1", "1", "1", "1"],
        ["fc1.bias", "vector", "(512,)", "0", "1", "0", "1", "1"],
        ["fc2.weight", "hidden", "(512, 512)", "0.0442", "0.125", "8", "0.125", "1"],
        ["fc2.bias", "vector", "(512,)", "0", "1", "0", "1", "1"],
        ["fc3.weight", "hidden", "(512, 512)", "0.0442", "0.125", "8", "0.125", "1"],
        ["fc3.bias", "vector", "(512,)", "0", "1", "0", "1", "1"],
        ["readout.weight", "output", "(10, 512)", "0.00195", "0.125", "8", "1", "1"],
        ["readout.bias", "fixed", "(10,)", "0", "1", "0", "1", "1"],
    ]
    return {"width": 512, "columns": columns, "rows": rows}


_TITLES = {
    "well-behaved": "mlp · mup · adamw",
    "exploding": "mlp · standard · adamw",
    "lazy": "mlp · ntk · sgd",
    "inconclusive": "transformer · mup · adamw",
}
_VERDICTS: dict[str, dict[str, Any]] = {
    "well-behaved": {
        "word": "well-behaved",
        "sentence": "Every layer moves by the same amount at every width: what you tune at width 64 holds at 1024.",
        "mends": [],
    },
    "exploding": {
        "word": "exploding",
        "sentence": "The readout's update grows like width to the power 0.94: a learning rate tuned at "
        "width 64 is about fourteen times too large at 1024.",
        "mends": [
            "Use the muP plan below: lazyrich plan examples/mlp.py:mlp --scheme mup.",
            "Or divide the learning rate of fc2.weight, fc3.weight and readout.weight by width/64.",
        ],
    },
    "lazy": {
        "word": "lazy",
        "sentence": "The output learns at every width, but the hidden features move less and less: by half "
        "a power of the width.",
        "mends": ["Use mup(), or richness(0.5), if features should be learned at large width."],
    },
    "inconclusive": {
        "word": "inconclusive",
        "sentence": "Runs at widths 512 and 1024 diverged, so the intervals are too wide to tell.",
        "mends": ["Lower --lr to 0.003 and run again.", "Or add seeds: --seeds 8."],
    },
}
_MUP = {
    "scheme": "mup()", "optimizer": "adamw", "regime": "feature learning", "r": 0.0, "stable": True,
    "nontrivial": True, "why": "r = min(a + b, 2a + c) over the hidden layers is 0, "
    "and the output moves by Θ(1).",
}  # fmt: skip
_THEORIES: dict[str, dict[str, Any]] = {
    "well-behaved": _MUP,
    "exploding": {
        "scheme": "standard()", "optimizer": "adamw", "regime": "unstable", "r": -1.0, "stable": False,
        "nontrivial": True, "why": "a_out + c < 1: the readout's update grows with width, since 0 + 0 < 1.",
    },
    "lazy": {
        "scheme": "ntk()", "optimizer": "sgd", "regime": "kernel", "r": 0.5, "stable": True,
        "nontrivial": True, "why": "r = 1/2 > 0: features move like n^(−1/2), "
        "while the output moves by Θ(1).",
    },
    "inconclusive": _MUP,
}  # fmt: skip
_OBLIGATIONS = [
    {"kind": "tied readout", "where": "lm_head", "why": "the weight is shared with the embedding, "
     "so the output multiplier cannot move into its initialisation", "factor": 0.125, "met": True},
    {"kind": "attention scale", "where": "blocks.0.attn", 
     "why": "scores are divided by sqrt(d), muP asks for d", "factor": None, "met": False},
]  # fmt: skip
