"""What depth does to variances and correlations (Poole et al. 2016; Schoenholz et al. 2017, arXiv:1611.01232).

A layer with weight variance sigma_w^2 / fan_in and bias variance sigma_b^2 sends q to V(q) = sigma_b^2 + sigma_w^2 E phi^2.
Perturbations of q grow by chi_parallel = dV/dq a layer, those of directions and gradients by chi_perp = sigma_w^2 E phi'^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from lazyrich.amount import real
from lazyrich.errors import KernelError
from lazyrich.gaussian.activation import dual
from lazyrich.gaussian.dual import Dual

LARGEST, SMALLEST, STEP = 1e8, 1e-14, 1.25
TINY = 1e-30  # stands for 0, where a slope with a kink has no value of its own
EVEN = 1e-7  # how near to one chi_perp counts as one
SAME = 1e-10  # relative spread of ratios that a function without a scale keeps, by integrals of its own kinks


def growth(phi: Dual, q: Tensor) -> Tensor:
    """d/dq E[phi(sqrt(q) z)^2].

    Example:
        >>> growth(dual("relu"), torch.tensor([1.0, 2.0]))
        tensor([0.5000, 0.5000])
    """
    with torch.enable_grad():
        at = q.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(phi.variance(at).sum(), at, allow_unused=True)
    return torch.zeros_like(q) if slope is None else slope


def scale_free(phi: Dual) -> bool:
    """Whether phi scales variances alike at all levels, as ReLU does: told by its degree, or by E phi^2 / q and E phi'^2.

    Example:
        >>> scale_free(dual("relu")), scale_free(dual(lambda u: u.clamp(min=0))), scale_free(dual("tanh"))
        (True, True, False)
    """
    if phi.homogeneous is not None:
        return phi.homogeneous == 1
    q = torch.logspace(-6, 4, 6, dtype=torch.float64)
    return all(
        bool((r > 0).all()) and float(r.max()) <= (1 + SAME) * float(r.min())
        for r in (phi.variance(q) / q, phi.slope_variance(q))
    )


@dataclass(frozen=True)
class Signal:
    """Propagation through layers of one kind.

    Attributes:
        phi: the dual of the activation.
        weight: sigma_w^2.
        bias: sigma_b^2.
        start: the variance that layers start from, of which ``variance`` is the limit.

    Example:
        >>> net = signal("tanh", weight=1.7610, bias=0.05)
        >>> round(net.variance, 3), net.phase(tolerance=1e-4)
        (0.57, 'critical')
    """

    phi: Dual
    weight: float
    bias: float
    start: float = 1.0

    def variance_map(self, q: Tensor) -> Tensor:
        """V(q) = sigma_b^2 + sigma_w^2 E phi^2."""
        return self.bias + self.weight * self.phi.variance(q)

    def covariance_map(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """sigma_b^2 + sigma_w^2 E[phi(u) phi(v)]."""
        return self.bias + self.weight * self.phi.kernel(c, q1, q2)

    def correlation_map(self, rho: Tensor, q: Tensor) -> Tensor:
        """The correlation after a layer of two inputs of variance q and correlation rho."""
        return self.covariance_map(rho * q, q, q) / self.variance_map(q)

    def chi_parallel(self, q: Tensor) -> Tensor:
        """dV/dq = sigma_w^2 E[phi'^2 + phi phi'']; from above at 0."""
        return self.weight * growth(self.phi, q.clamp(min=TINY))

    def chi_perp(self, q: Tensor) -> Tensor:
        """chi_1 = sigma_w^2 E phi'^2: squared gradients and small angles grow by it, layer by layer; from above at 0.

        Infinite where phi jumps, as angles grow there, whatever autograd makes of gradients.
        """
        return self.weight * self.phi.derivative_variance(q.clamp(min=TINY))

    def curvature(self, q: Tensor) -> Tensor:
        """f''(1) = sigma_w^2 q E phi''^2 of the correlation map at a fixed point q; infinite where phi or phi' jumps.

        At criticality 1 - c_l ~ 2 / (f''(1) l).
        """
        bend = self.phi.bend_variance(q)
        return torch.where(bend.isinf(), bend, self.weight * q * bend)

    def fixed_variance(self, start: float | None = None) -> float:
        """The fixed point q* that variances flow to from ``start`` (its own); 0 or infinity if there is none on the way."""
        start = self.start if start is None else start
        if not 0 <= start < math.inf:
            raise KernelError(f"got start = {start} for the variances of {self.phi.name}, expected a number of 0 or more")

        def drift(q: float) -> float:
            return float(self.variance_map(_number(q))) - q

        first, low = drift(start), start
        if abs(first) <= 1e-12 * start:
            return start
        # there is none below the bias's variance, and none to be told from zero below the smallest
        smallest, largest = min(SMALLEST, self.bias / 2 or SMALLEST), LARGEST * max(1.0, self.bias, start)
        while low < largest if first > 0 else low > smallest:
            high = max(low, smallest) * STEP if first > 0 else low / STEP
            if drift(high) * first <= 0:
                return crossing(drift, min(low, high), max(low, high))
            low = high
        return math.inf if first > 0 else 0.0

    @property
    def variance(self) -> float:
        """q* from ``start``."""
        return self.fixed_variance()

    @property
    def correlation(self) -> float:
        """c* at q*: 1 unless chaotic; the correlation map is convex on [0, 1], so there is at most one other fixed point."""
        q = _number(self._finite())
        if float(self.chi_perp(q)) <= 1 + EVEN:
            return 1.0

        def drift(rho: float) -> float:
            return float(self.correlation_map(_number(rho), q)) - rho

        if drift(0.0) <= 1e-15:
            return 0.0
        gap = 0.5
        while drift(1 - gap) >= 0 and gap > 1e-12:
            gap /= 2
        return crossing(drift, 0.0, 1 - gap) if gap > 1e-12 else 1.0

    def depth_scales(self) -> tuple[float, float]:
        """xi_q and xi_c in layers: 1/xi_q = -ln |chi_parallel(q*)|, 1/xi_c = -ln |sigma_w^2 dE[phi(u) phi(v)]/dc| at c*."""
        q, rho = _number(self._finite()), self.correlation
        along = float(self.chi_parallel(q))
        across = float(self.chi_perp(q) if rho == 1 else self.weight * self.phi.derivative(rho * q, q, q))
        return _scale(along), _scale(across)

    def phase(self, tolerance: float = EVEN) -> str:
        """Ordered (gradients vanish, c* = 1), critical, or chaotic (gradients explode, c* < 1), by chi_perp at q*."""
        chi = float(self.chi_perp(_number(self._finite())))
        if abs(chi - 1) <= tolerance:
            return "critical"
        return "ordered" if chi < 1 else "chaotic"

    def trajectory(self, depth: int, q: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
        """Variances and correlations of pairs of equal variance, layers 0 to ``depth`` along a new first axis.

        Example:
            >>> net, one = signal("relu", 2.0, 0.0), torch.ones((), dtype=torch.float64)
            >>> variances, correlations = net.trajectory(2, one, 0 * one)
            >>> [round(float(v), 4) for v in correlations]
            [0.0, 0.3183, 0.4937]
        """
        variances, correlations = [q], [rho]
        for _ in range(depth):
            rho = self.correlation_map(rho, q)
            q = self.variance_map(q)
            variances.append(q)
            correlations.append(rho)
        return torch.stack(variances), torch.stack(correlations)

    def _finite(self) -> float:
        q = self.variance
        if not math.isfinite(q):
            raise KernelError(
                f"variances of {self.phi.name} grow without bound at sigma_w^2 = {self.weight}, sigma_b^2 = {self.bias}; "
                "expected a fixed point: lower sigma_w^2"
            )
        return q


def signal(activation: str | Callable[[Tensor], Tensor] | Dual, weight: float, bias: float = 0.0) -> Signal:
    """Propagation through layers of an activation with sigma_w^2 = ``weight`` and sigma_b^2 = ``bias``.

    Poole et al. 2016 (arXiv:1606.05340); Schoenholz et al. 2017 (arXiv:1611.01232).

    Raises:
        KernelError: for variances that are no finite numbers, or negative.

    Example:
        >>> signal("relu", 2.0).phase(), signal("tanh", 3.0).phase(), signal("tanh", 0.5, 0.1).phase()
        ('critical', 'chaotic', 'ordered')
    """
    if not (0 <= real(weight) < math.inf and 0 <= real(bias) < math.inf):
        raise KernelError(f"got sigma_w^2 = {weight!r} and sigma_b^2 = {bias!r}, expected finite variances of 0 or more")
    return Signal(activation if isinstance(activation, Dual) else dual(activation), float(weight), float(bias))


def crossing(f: Callable[[float], float], low: float, high: float) -> float:
    """Where f changes sign between two numbers.

    Example:
        >>> round(crossing(lambda x: x * x - 2, 0.0, 2.0), 6)
        1.414214
    """
    from scipy.optimize import brentq  # slow to import, and kernels need none of it

    return cast(float, brentq(f, low, high, xtol=1e-15 * max(abs(low), abs(high)), rtol=1e-14))


def _scale(chi: float) -> float:
    if abs(abs(chi) - 1) <= EVEN:
        return math.inf
    return -1 / math.log(abs(chi)) if chi else 0.0


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
