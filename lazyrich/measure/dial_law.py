"""How a dial's movements scale with the width, beside the richness scale, and whether they are in the regime of its laws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lazyrich.measure.dial_curve import Curve
from lazyrich.measure.slope import Slope, fit_slope
from lazyrich.measure.verdict import TOLERANCE

NEAR = 0.3  # distance from the linearised network up to which movements have not saturated
# movement -> its exponent in the width along the richness scale
LAWS: Mapping[str, Callable[[float], float]] = {
    "features": lambda r: r - 0.5,
    "feature_kernel": lambda r: 2 * r - 1,
    "kernel": lambda r: 2 * r - 1,
    "kernel_distance": lambda r: 4 * r - 2,
}
POWERS = {"features": 1, "feature_kernel": 2, "kernel": 2, "kernel_distance": 4}  # of gamma_0 that these laws are of


@dataclass(frozen=True)
class Law:
    """How a movement scales with the width at one r and richness: measured, and along the richness scale.

    A kernel moves by terms of odd order in the features' movement, whose mean is zero (of size gamma_0 / sqrt(width)), and by the
    quadratic ones that the law is of; at a small richness the odd ones are larger and fall faster with the width where r > 0. Then
    the kernel still grows as gamma_0, which tells it from the law's regime.

    Attributes:
        quantity: the movement.
        r: exponent of the richness scale.
        richness: gamma_0 at which it was measured.
        measured: its exponent in the width.
        expected: along the richness scale.
        power: of gamma_0, with which the movement grew from the next smaller richness; NaN where there is none.
    """

    quantity: str
    r: float
    richness: float
    measured: Slope
    expected: float
    power: float = math.nan

    @property
    def determined(self) -> bool:
        """Whether the interval is not wider than twice the way from the lazy end of the scale to the rich one."""
        law = LAWS[self.quantity]
        return self.measured.high - self.measured.low <= 2 * abs(law(0.5) - law(0.0))

    @property
    def in_regime(self) -> bool:
        """Whether quadratic terms are most of what moves, or nothing depends on that: features, and at r = 0 kernels too."""
        full = POWERS[self.quantity]
        return full == 1 or self.r == 0 or self.power >= 0.75 * full

    @property
    def verdict(self) -> str:
        """agrees, disagrees, undetermined or not in its regime.

        It agrees where the interval holds the law's exponent, or the slope is within the coordinate check's tolerance of it.
        """
        if not self.in_regime:
            return "not in its regime"
        if not self.determined:
            return "undetermined"
        inside = self.measured.low <= self.expected <= self.measured.high
        return "agrees" if inside or abs(self.measured.value - self.expected) <= TOLERANCE else "disagrees"

    def __str__(self) -> str:
        at = f"at r = {self.r:g}, gamma_0 = {self.richness:g}"
        if not self.in_regime:
            return f"{self.quantity}: not in the regime of the law {at} ({self._why()}); expected {self.expected:+.2f}"
        if not self.determined:
            return f"{self.quantity}: exponent undetermined {at}; expected {self.expected:+.2f}; add seeds or widths"
        return f"{self.quantity} ~ n^({self.measured}) {at}; expected {self.expected:+.2f}: {self.verdict}"

    def _why(self) -> str:
        if math.isnan(self.power):
            return "no smaller richness shows how it grows: needs a smaller gamma_0 beside it"
        return f"it grows as gamma_0^{self.power:.1f}, not as gamma_0^{POWERS[self.quantity]}: needs a larger gamma_0"


def laws_of(curves: Sequence[Curve]) -> list[Law]:
    """Exponents at the largest richness at which every width is still near its linearisation; none where there is no such.

    Example:
        >>> laws_of([Curve(0.5, n, (0.1, 1.0), {"linearisation": np.array([[0.5, 1.0]])}, 0.0) for n in (64, 128)])
        []
    """
    near = [i for i in range(len(curves[0].richness)) if max(c.mean("linearisation")[i] for c in curves) < NEAR]
    if not near:
        return []
    at, r, widths = near[-1], curves[0].r, [c.width for c in curves]
    found = []
    for name, law in LAWS.items():
        moved = np.stack([c.values[name] for c in curves], 1)  # (seeds, widths, richnesses)
        slope = fit_slope(widths, moved[:, :, at].tolist())
        found.append(Law(name, r, curves[0].richness[at], slope, law(r), _power(curves[0].richness, moved, at)))
    return found


def _power(richness: Sequence[float], moved: np.ndarray, at: int) -> float:
    """Mean power of the richness with which a movement grew up to there."""
    if at == 0:
        return math.nan
    before, after = moved[:, :, at - 1], moved[:, :, at]
    there = np.isfinite(before) & np.isfinite(after) & (before > 0) & (after > 0)
    if not there.any():
        return math.nan
    return float(np.log(after[there] / before[there]).mean() / math.log(richness[at] / richness[at - 1]))
