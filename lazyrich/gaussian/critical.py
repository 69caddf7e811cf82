"""Initialisations at which signals and gradients neither explode nor vanish: the edge of chaos, and half-stable points.

On the edge of chaos chi_perp(q*) = 1 (Schoenholz et al. 2017; Hayou et al. 2019, arXiv:1902.06853). A half-stable point has
chi_parallel = chi_perp = 1 (Roberts, Yaida & Hanin 2022, section 5.3.4): what there is for GELU and SWISH at finite variance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.gaussian.activation import dual
from lazyrich.gaussian.dual import Dual
from lazyrich.gaussian.signal import Signal, crossing, growth

GRID = torch.logspace(-6, 4, 401, dtype=torch.float64)


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
        """Propagation at this initialisation."""
        return Signal(self.phi, self.weight, self.bias)


def critical(
    activation: str | Callable[[Tensor], Tensor] | Dual, bias: float | None = None, variance: float | None = None
) -> Critical:
    """The edge of chaos, chi_perp(q*) = 1, for a given sigma_b^2 or a given q*.

    sigma_w^2 = 1 / E phi'^2 and sigma_b^2 = q* - E phi^2 / E phi'^2; given sigma_b^2, the smallest q* that has it.

    Args:
        activation: a name, a function or a dual.
        bias: sigma_b^2; 0 if neither is given.
        variance: q*, instead.

    Raises:
        KernelError: if both are given, or no critical initialisation has that value.

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
        return _at(phi, variance)
    bias = 0.0 if bias is None else float(bias)
    if bias < 0:
        raise KernelError(f"got bias = {bias}, expected sigma_b^2 of 0 or more")
    if bias == 0 and phi.homogeneous == 1:
        return _at(phi, 1.0)
    if bias == 0 and float(phi.variance(_number(0.0))) == 0 and float(phi.slope_variance(_number(0.0))) > 0:
        return Critical(phi, 1 / float(phi.slope_variance(_number(0.0))), 0.0, 0.0)
    root = _root(lambda q: _bias(phi, q) - bias)
    if root is None:
        top = float(_bias(phi, GRID).nan_to_num(-1.0).max())
        raise KernelError(
            f"{phi.name} has no critical initialisation with sigma_b^2 = {bias}; expected one up to {max(top, 0):.6g}"
        )
    return Critical(phi, 1 / float(phi.slope_variance(_number(root))), bias, root)


def half_stable(activation: str | Callable[[Tensor], Tensor] | Dual) -> Critical:
    """The point with chi_parallel = chi_perp = 1 at q* > 0, of activations that are not scale invariant.

    Raises:
        KernelError: if there is none.

    Example:
        >>> point = half_stable("gelu")  # q* = (3 + sqrt 17) / 2
        >>> round(point.variance, 5), round(point.weight, 5), round(point.bias, 5)
        (3.56155, 1.98306, 0.17292)
    """
    phi = activation if isinstance(activation, Dual) else dual(activation)
    root = _root(lambda q: growth(phi, q) - phi.slope_variance(q), lambda q: _bias(phi, q) >= 0)
    if phi.homogeneous is not None or root is None:
        raise KernelError(f"{phi.name} has no half-stable point; expected an activation such as gelu or swish: use critical()")
    return _at(phi, root)


def _at(phi: Dual, variance: float) -> Critical:
    q = _number(variance)
    slope, bias = float(phi.slope_variance(q)), float(_bias(phi, q))
    if not variance >= 0 or not 0 < slope < float("inf"):
        raise KernelError(
            f"got variance = {variance} for {phi.name}, where E phi'^2 = {slope}; expected a positive, finite one"
        )
    if bias < -1e-12 * max(variance, 1.0):
        raise KernelError(
            f"{phi.name} is critical at q* = {variance} only with sigma_b^2 = {bias:.6g} < 0; expected another variance"
        )
    return Critical(phi, 1 / slope, max(bias, 0.0), float(variance))


def _bias(phi: Dual, q: Tensor) -> Tensor:
    return q - phi.variance(q) / phi.slope_variance(q)


def _root(f: Callable[[Tensor], Tensor], where: Callable[[Tensor], Tensor] | None = None) -> float | None:
    """The smallest variance at which f changes sign by more than rounding (and ``where`` holds)."""
    values = f(GRID)
    sure = values.abs() > 1e-11 * GRID
    allowed = where(GRID) if where else torch.ones_like(sure)
    for i in np.flatnonzero((values[:-1] * values[1:] < 0) & (sure[:-1] | sure[1:]) & (allowed[:-1] | allowed[1:])):
        return crossing(lambda q: float(f(_number(q))), float(GRID[i]), float(GRID[i + 1]))
    return None


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
