"""Initialisations at which signals and gradients neither explode nor vanish: the edge of chaos, and half-stable points.

On the edge of chaos chi_perp(q*) = 1 (Schoenholz et al. 2017; Hayou et al. 2019, arXiv:1902.06853). A half-stable point has
chi_parallel = chi_perp = 1 (Roberts, Yaida & Hanin 2022, section 5.3.4): what there is for GELU and SWISH at finite variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.gaussian.activation import dual
from lazyrich.gaussian.dual import Dual
from lazyrich.gaussian.signal import TINY, Signal, crossing, growth, scale_free

GRID = torch.logspace(-6, 4, 401, dtype=torch.float64)
SMALL = 1e-3  # a variance that tells whether signals stay near zero
GROWS = 1e-6  # above one, chi_parallel says that variances leave
ROUNDING = 1e-8  # of chi_parallel where its integrals are numerical


@dataclass(frozen=True)
class Critical:
    """sigma_w^2, sigma_b^2 and the variance q* that stays.

    Example:
        >>> point = critical("relu")
        >>> point.weight, point.bias, point.variance
        (2.0, 0.0, 1.0)
    """

    phi: Dual
    weight: float
    bias: float
    variance: float

    @property
    def signal(self) -> Signal:
        """Propagation at this initialisation, from its own variance."""
        return Signal(self.phi, self.weight, self.bias, self.variance)


def critical(
    activation: str | Callable[[Tensor], Tensor] | Dual,
    bias: float | None = None,
    variance: float | None = None,
    stable: bool = True,
) -> Critical:
    """The edge of chaos, chi_perp(q*) = 1, for a given sigma_b^2 or a given q* (Schoenholz et al. 2017, arXiv:1611.01232).

    sigma_w^2 = 1 / E phi'^2 and sigma_b^2 = q* - E phi^2 / E phi'^2; given sigma_b^2, the smallest q* that has it. Where
    chi_parallel(q*) > 1, variances leave q* layer by layer, as those of GELU and SWISH do below their half-stable point.

    Args:
        activation: a name, a function or a dual.
        bias: sigma_b^2; 0 if neither is given.
        variance: q*, instead.
        stable: refuse points that variances leave; False takes them.

    Raises:
        KernelError: if both are given, or no critical initialisation has that value, or none that is stable.

    Example:
        >>> point = critical("tanh", bias=0.05)
        >>> round(point.weight, 4), round(point.variance, 3)
        (1.761, 0.57)
        >>> round(critical("erf").weight, 6)  # pi / 4
        0.785398
    """
    phi = activation if isinstance(activation, Dual) else dual(activation)
    if bias is not None and variance is not None:
        raise KernelError(f"got bias = {bias} and variance = {variance}, expected one of them: each fixes the other")
    if variance is not None:
        found = [_at(phi, variance)]
    elif bias is not None and not bias >= 0:
        raise KernelError(f"got bias = {bias}, expected sigma_b^2 of 0 or more")
    else:
        found = _with_bias(phi, bias or 0.0)
    steady = [point for point in found if _steady(point)] if stable else found
    if steady:
        return steady[0]
    if not found:
        raise KernelError(f"{phi.name} has no critical initialisation with sigma_b^2 = {bias or 0.0:g}{_range(phi, stable)}")
    point = found[-1]
    raise KernelError(
        f"{phi.name} is critical at q* = {point.variance:.6g} (sigma_b^2 = {point.bias:.6g}), but chi_parallel = "
        f"{float(_chi(phi, _number(max(point.variance, SMALL)))):.6g} > 1 there: variances grow away from it layer by "
        f"layer{_range(phi, stable)}"
    )


def half_stable(activation: str | Callable[[Tensor], Tensor] | Dual) -> Critical:
    """The point with chi_parallel = chi_perp = 1 at q* > 0, of activations that are not scale invariant.

    Roberts, Yaida & Hanin 2022, "The Principles of Deep Learning Theory", section 5.3.4.

    Raises:
        KernelError: if there is none.

    Example:
        >>> point = half_stable("gelu")  # q* = (3 + sqrt 17) / 2
        >>> round(point.variance, 5), round(point.weight, 5), round(point.bias, 5)
        (3.56155, 1.98306, 0.17292)
    """
    phi = activation if isinstance(activation, Dual) else dual(activation)
    roots = _half(phi)
    if phi.homogeneous is not None or scale_free(phi) or not roots:
        raise KernelError(f"{phi.name} has no half-stable point; expected an activation such as gelu or swish: use critical()")
    return _at(phi, roots[0])


def _with_bias(phi: Dual, bias: float) -> list[Critical]:
    """Every critical initialisation with this sigma_b^2, smallest q* first; of scale-invariant activations that at one."""
    if bias == 0 and scale_free(phi):
        return [_at(phi, 1.0)]
    roots = [q for q in _roots(lambda q: _bias(phi, q) - bias, 1e-11 * GRID) if 0 < _slope(phi, q) < math.inf]
    found = [Critical(phi, 1 / _slope(phi, q), bias, q) for q in roots]
    if bias == 0 and float(phi.variance(_number(0.0))) == 0 and 1e-12 < _slope(phi, TINY) < math.inf:
        found.insert(0, Critical(phi, 1 / _slope(phi, TINY), 0.0, 0.0))
    return found


def _at(phi: Dual, variance: float) -> Critical:
    q = _number(variance)
    slope, bias = float(phi.derivative_variance(q)), float(_bias(phi, q))
    if not variance >= 0 or not 0 < slope < float("inf"):
        raise KernelError(
            f"got variance = {variance} for {phi.name}, where E phi'^2 = {slope}; expected a positive, finite one"
        )
    if bias < -1e-12 * max(variance, 1.0):
        raise KernelError(
            f"{phi.name} is critical at q* = {variance} only with sigma_b^2 = {bias:.6g} < 0; expected another variance"
        )
    return Critical(phi, 1 / slope, max(bias, 0.0), float(variance))


def _steady(point: Critical) -> bool:
    """Whether variances near q* do not grow away from it; at 0 a little above it tells, where chi_parallel itself is 1."""
    return float(_chi(point.phi, _number(max(point.variance, SMALL)))) <= 1 + GROWS


def _range(phi: Dual, stable: bool) -> str:
    """Which sigma_b^2 have a critical initialisation, and a word on the half-stable point."""
    biases = _bias(phi, GRID)
    held = biases.isfinite() & (biases >= 0) & phi.derivative_variance(GRID).isfinite() & (GRID > SMALL)
    held = held & (_chi(phi, GRID) <= 1 + GROWS) if stable else held
    if scale_free(phi):
        return "; expected 0, the only one of a scale-invariant activation"
    if not bool(held.any()):
        return "; no other sigma_b^2 has a stable one" if stable else "; no other sigma_b^2 has one"
    low, high = float(biases[held].min()), float(biases[held].max())
    kind = "a stable one has" if stable else "one has"
    near = ", of which lazyrich.gaussian.half_stable() gives the lowest" if stable and _half(phi) else ""
    return f"; expected another sigma_b^2: {kind} about {low:.3g} to {high:.3g} (for q* up to {float(GRID[-1]):g}){near}"


def _half(phi: Dual) -> list[float]:
    """Variances with chi_parallel = 1; straight stretches have that at all small ones, up to the rounding of the integrals."""
    return _roots(lambda q: _chi(phi, q) - 1, ROUNDING, lambda q: _bias(phi, q) >= 0)


def _chi(phi: Dual, q: Tensor) -> Tensor:
    """chi_parallel where chi_perp is one."""
    return growth(phi, q) / phi.derivative_variance(q)


def _slope(phi: Dual, variance: float) -> float:
    return float(phi.derivative_variance(_number(variance)))


def _bias(phi: Dual, q: Tensor) -> Tensor:
    return q - phi.variance(q) / phi.derivative_variance(q)


def _roots(
    f: Callable[[Tensor], Tensor], least: Tensor | float, where: Callable[[Tensor], Tensor] | None = None
) -> list[float]:
    """The variances at which f changes sign by more than ``least``, its rounding (and ``where`` holds), smallest first.

    One point of the grid may lie on a root; stretches where f is zero up to rounding have none.
    """
    values = f(GRID)
    allowed = where(GRID) if where else torch.ones_like(GRID, dtype=torch.bool)
    sure = (~(values.abs() <= least)).nonzero().flatten()
    low, high = sure[:-1], sure[1:]
    changes = (values[low].sign() * values[high].sign() < 0) & (high - low <= 2) & (allowed[low] | allowed[high])
    pairs = zip(GRID[low[changes]].tolist(), GRID[high[changes]].tolist(), strict=True)
    return [crossing(lambda q: float(f(_number(q))), *ends) for ends in pairs]


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
