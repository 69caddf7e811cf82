"""What a dial found: where the network stops being lazy, how movements scale with width, and what richness does to the losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazyrich.files import finite
from lazyrich.measure.dial_curve import Curve
from lazyrich.measure.dial_law import Law, laws_of
from lazyrich.measure.dial_sentence import sentence, sentences

LAZY = 0.1  # relative distance from the linearised network up to which a network is called lazy
QUANTITIES = ("loss", "test_loss", "test_error", "linear_loss", "linear_test_loss", "linear_test_error", "linearisation",
              "features", "feature_kernel", "kernel", "kernel_distance", "alignment", "alignment_before", "lr",
              "start", "edge")  # fmt: skip


@dataclass(frozen=True)
class DialResult:
    """The result of ``lazyrich.dial``: a small table when printed, records by ``points``, a page by ``lazyrich.render``."""

    title: str
    points: tuple[Mapping[str, Any], ...]
    curves: tuple[Curve, ...]
    laws: tuple[Law, ...]
    plain: float
    settings: Mapping[str, Any]
    reproduce: Mapping[str, Any]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the curves mean; what is true of several is said once."""
        return sentences(self.curves, self.plain)

    @property
    def sentence(self) -> str:
        """All of them."""
        return " ".join(self.sentences)

    def rows(self) -> list[dict[str, Any]]:
        """Every training as a flat record."""
        return [{k: v for k, v in point.items() if k != "layers"} for point in self.points]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; what ``lazyrich.render`` reads."""
        return {
            "kind": "dial",
            "title": self.title,
            "sentence": self.sentence,
            "sentences": list(self.sentences),
            "plain": self.plain,
            "curves": [_curve(c, sentence(c, self.plain)) for c in self.curves],
            "laws": [
                {"quantity": law.quantity, "r": law.r, "richness": law.richness, "expected": law.expected}
                | {k: finite(getattr(law.measured, k)) for k in ("value", "low", "high")}
                | {"determined": law.determined, "power": finite(law.power), "verdict": law.verdict}
                for law in self.laws
            ],
            "points": self.rows(),
            "settings": dict(self.settings),
            "reproduce": dict(self.reproduce),
        }

    def __str__(self) -> str:
        header = [
            "r",
            "width",
            "gamma_0",
            "loss",
            "test loss",
            "test error",
            "linearised test error",
            "distance",
            "features",
            "kernel",
        ]
        names = ("loss", "test_loss", "test_error", "linear_test_error", "linearisation", "features", "kernel")
        if all(p.get("test_error") is None for p in self.points):
            header[5:7] = ["linearised test loss"]
            names = ("loss", "test_loss", "linear_test_loss", "linearisation", "features", "kernel")
        tuned = self.settings.get("rates") == "tuned"
        header[3:3] = ["lr at A = 1"] if tuned else []
        rows = [
            [
                f"{c.r:g}",
                str(c.width),
                f"{g:g}",
                *([_rate(c, i)] if tuned else []),
                *(_brief(c.mean(name)[i]) for name in names),
            ]
            for c in self.curves
            for i, g in enumerate(c.richness)
        ]
        sizes = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        table = ["  ".join(c.ljust(n) for c, n in zip(row, sizes, strict=True)).rstrip() for row in [header, *rows]]
        rule = "-" * max(map(len, table))
        return "\n".join(
            [self.title, *self.sentences, rule, *table, rule, *map(str, self.laws), *self.reproduce.get("notes", ())]
        )


def summarise(
    name: str, points: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], reproduce: Mapping[str, Any]
) -> DialResult:
    """From finished trainings to curves, thresholds, exponents and sentences."""
    exponents, widths, richness = settings["r"], settings["widths"], tuple(settings["richness"])
    curves = tuple(_gathered(points, r, width, richness) for r in exponents for width in widths)
    plain = 1 / math.sqrt(settings["base"])
    laws = [law for r in exponents for law in laws_of([c for c in curves if c.r == r])] if len(widths) > 1 else []
    title = f"{name} · from lazy to rich · {settings['data']}"
    return DialResult(title, tuple(points), curves, tuple(laws), plain, settings, reproduce)


def _gathered(points: Sequence[Mapping[str, Any]], r: float, width: int, richness: tuple[float, ...]) -> Curve:
    own = [p for p in points if p["r"] == r and p["width"] == width]
    seeds = sorted({p["seed"] for p in own})
    at = {(p["seed"], p["richness"]): p for p in own}
    values = {q: np.array([[_number(at[s, g].get(q)) for g in richness] for s in seeds]) for q in QUANTITIES}
    curve = Curve(r, width, richness, values, math.nan)
    return Curve(r, width, richness, values, _crossing(richness, curve.mean("linearisation")))


def _crossing(richness: Sequence[float], distance: np.ndarray) -> float:
    """The first gamma_0 at which the distance from the linearised network passes LAZY, interpolated in logarithms."""
    there = [(math.log(g), math.log(max(d, 1e-300))) for g, d in zip(richness, distance, strict=True) if math.isfinite(d)]
    if not there:
        return math.nan
    if there[0][1] >= math.log(LAZY):
        return 0.0
    for (x0, y0), (x1, y1) in zip(there[:-1], there[1:], strict=True):
        if y1 >= math.log(LAZY):
            return math.exp(x0 + (math.log(LAZY) - y0) / (y1 - y0) * (x1 - x0))
    return math.inf


def _rate(curve: Curve, at: int) -> str:
    end = curve.richness[at] in (*curve.ends(-1), *curve.ends(1))
    return _brief(curve.mean("lr")[at]) + (" (end of grid)" if end else "")


def _curve(c: Curve, sentence: str) -> dict[str, Any]:
    values = {
        name: {
            "mean": [finite(v) for v in c.mean(name)],
            "low": [finite(v) for v in _end(table, np.fmin)],
            "high": [finite(v) for v in _end(table, np.fmax)],
        }
        for name, table in c.values.items()
    }
    return {
        "r": c.r, "width": c.width, "richness": list(c.richness), "leaves": finite(c.leaves), "sentence": sentence, "values": values
    }  # fmt: skip


def _end(table: np.ndarray, choose: Any) -> np.ndarray:
    return choose.reduce(table, axis=0)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _brief(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:.3g}"
