"""What a dial found: where the network stops being lazy, how movements scale with width, and what richness does to the losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazyrich.measure.slope import Slope, fit_slope

LAZY = 0.1  # relative distance from the linearised network up to which a network is called lazy
NEAR = 0.5  # and up to which its movements have not saturated
# movement -> its exponent in the width along the richness scale
LAWS = {
    "features": lambda r: r - 0.5,
    "feature_kernel": lambda r: 2 * r - 1,
    "kernel": lambda r: 2 * r - 1,
    "kernel_distance": lambda r: 4 * r - 2,
}
QUANTITIES = ("loss", "test_loss", "test_error", "linear_loss", "linear_test_loss", "linear_test_error", "linearisation",
              "features", "feature_kernel", "kernel", "kernel_distance", "alignment", "alignment_before", "lr",
              "start", "edge")  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """One exponent r and width of a dial.

    Attributes:
        r: exponent of the richness scale.
        width: of the network.
        richness: gamma_0 at the base width, one a column.
        values: by quantity, (seeds, columns); NaN where training diverged.
        leaves: gamma_0 from which on the network is more than 10 % away from its linearisation; 0 if it is so everywhere,
            infinity if nowhere.
    """

    r: float
    width: int
    richness: tuple[float, ...]
    values: Mapping[str, np.ndarray]
    leaves: float

    def mean(self, quantity: str) -> np.ndarray:
        """Mean over the seeds that did not diverge, NaN where none is left."""
        table = self.values[quantity]
        there = np.isfinite(table)
        return np.where(there.any(0), np.where(there, table, 0).sum(0) / np.maximum(there.sum(0), 1), math.nan)

    def ends(self, side: int) -> tuple[float, ...]:
        """Richnesses where a seed's best learning rate is the smallest (-1) or the largest (1) that was tried."""
        there = (self.values["edge"] == side).any(0)
        return tuple(g for g, end in zip(self.richness, there, strict=True) if end)


@dataclass(frozen=True)
class Law:
    """How a movement scales with the width at one r and richness: measured, and along the richness scale."""

    quantity: str
    r: float
    richness: float
    measured: Slope
    expected: float


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
        """What every curve means."""
        return tuple(_sentence(c, self.plain) for c in self.curves)

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
            "plain": self.plain,
            "curves": [_curve(c, s) for c, s in zip(self.curves, self.sentences, strict=True)],
            "laws": [
                {"quantity": law.quantity, "r": law.r, "richness": law.richness, "expected": law.expected}
                | {k: _plain(getattr(law.measured, k)) for k in ("value", "low", "high")}
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
        header[3:3] = ["lr"] if tuned else []
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
        laws = [
            f"{law.quantity} ~ n^({law.measured}) at r = {law.r:g}, gamma_0 = {law.richness:g}; expected {law.expected:+.2f}"
            for law in self.laws
        ]
        return "\n".join([self.title, *self.sentences, rule, *table, rule, *laws])


def summarise(
    name: str, points: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], reproduce: Mapping[str, Any]
) -> DialResult:
    """From finished trainings to curves, thresholds, exponents and sentences."""
    exponents, widths, richness = settings["r"], settings["widths"], tuple(settings["richness"])
    curves = tuple(_gathered(points, r, width, richness) for r in exponents for width in widths)
    plain = 1 / math.sqrt(settings["base"])
    laws = [law for r in exponents for law in _laws([c for c in curves if c.r == r])] if len(widths) > 1 else []
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


def _laws(curves: Sequence[Curve]) -> list[Law]:
    """Exponents at the largest richness at which every width is still near its linearisation; none where there is no such.

    Beyond it movements saturate; far below it terms of odd order in A, whose mean is zero, hide the law.
    """
    near = [i for i in range(len(curves[0].richness)) if max(c.mean("linearisation")[i] for c in curves) < NEAR]
    if not near:
        return []
    at = near[-1]
    richness = curves[0].richness[at]
    widths = [c.width for c in curves]
    return [
        Law(
            name,
            curves[0].r,
            richness,
            fit_slope(widths, np.stack([c.values[name][:, at] for c in curves], 1).tolist()),
            law(curves[0].r),
        )
        for name, law in LAWS.items()
    ]


def _sentence(curve: Curve, plain: float) -> str:
    place = f"Width {curve.width}, r = {curve.r:g}"
    if not np.isfinite(curve.values["loss"]).any():
        return f"{place}: every training diverged; give a smaller lr."
    if _grew(curve):
        return f"{place}: every training ended with a larger loss than without any output; give a smaller lr."
    if curve.leaves == 0:
        where = f"is never lazy down to gamma_0 = {curve.richness[0]:g}"
    elif math.isinf(curve.leaves):
        where = f"is lazy up to gamma_0 = {curve.richness[-1]:g}"
    else:
        where = f"is lazy up to gamma_0 = {curve.leaves:.2g}"
    side = "lazy" if plain < curve.leaves else "not lazy"
    return f"{place}: the network {where}; the plain one, at {plain:.2g}, is {side}. {_best(curve)}{_ends(curve)}"


def _ends(curve: Curve) -> str:
    """What to do where tuned rates are no optimum."""
    said = ""
    for side, end, mend in ((-1, "smallest", "smaller"), (1, "largest", "larger")):
        if curve.ends(side):
            at = ", ".join(f"{g:g}" for g in curve.ends(side))
            said += (
                f" At gamma_0 = {at} the best learning rate is the {end} of its octaves (end of grid); a {mend} lr (--lr) shows "
                "the optimum."
            )
    return said


def _rate(curve: Curve, at: int) -> str:
    end = curve.richness[at] in (*curve.ends(-1), *curve.ends(1))
    return _brief(curve.mean("lr")[at]) + (" (end of grid)" if end else "")


def _grew(curve: Curve) -> bool:
    """Whether no richness gained anything over the centred network's start."""
    start, after = curve.mean("start"), curve.mean("loss")
    return bool((np.isfinite(start) & ~(after < start)).all())


def _best(curve: Curve) -> str:
    classes = np.isfinite(curve.values["test_error"]).any()
    name, word = ("test_error", "test error") if classes else ("test_loss", "test loss")
    mean = curve.mean(name)
    at = int(np.nanargmin(mean))
    kernel = curve.mean("linear_" + name)[0]
    show = (lambda v: f"{100 * v:.3g} %") if classes else (lambda v: f"{v:.3g}")
    beside = f"; its tangent kernel at initialisation reaches {show(kernel)}" if math.isfinite(kernel) else ""
    there = [i for i in range(len(mean)) if math.isfinite(mean[i])]
    error = {i: _standard_error(curve.values[name][:, i]) for i in there}
    if len(there) == len(mean) and all(mean[i] <= mean[at] + 2 * math.hypot(error[i], error[at]) for i in there):
        return f"It generalises alike at every richness that was tried ({word} {show(mean[at])}){beside}."
    end = {0: ", the smallest that was tried", len(mean) - 1: ", the largest that was tried"}.get(at, "")
    return f"It generalises best at gamma_0 = {curve.richness[at]:g}{end} ({word} {show(mean[at])}){beside}."


def _standard_error(values: np.ndarray) -> float:
    """Of the mean over the seeds that did not diverge."""
    known = values[np.isfinite(values)]
    return float(known.std()) / math.sqrt(len(known))


def _curve(c: Curve, sentence: str) -> dict[str, Any]:
    values = {
        name: {
            "mean": [_plain(v) for v in c.mean(name)],
            "low": [_plain(v) for v in _end(table, np.fmin)],
            "high": [_plain(v) for v in _end(table, np.fmax)],
        }
        for name, table in c.values.items()
    }
    return {
        "r": c.r, "width": c.width, "richness": list(c.richness), "leaves": _plain(c.leaves), "sentence": sentence, "values": values
    }  # fmt: skip


def _end(table: np.ndarray, choose: Any) -> np.ndarray:
    return choose.reduce(table, axis=0)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _brief(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:.3g}"
