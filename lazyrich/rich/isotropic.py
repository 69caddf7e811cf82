"""Two isotropic Gaussians of one centre and different widths: the mean-field example that closes on radii."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from lazyrich.amount import counted
from lazyrich.errors import RichError
from lazyrich.rich.closure import Closure


@dataclass(frozen=True)
class IsotropicGaussians:
    """x given y = +-1 is N(0, (1 +- delta)^2 I); a neuron is s(w . x), linear between two thresholds and constant outside.

    Mei, Montanari & Nguyen 2018 (arXiv:1804.06561). As d grows, particles matter by their length r = |w| alone: f at y = +-1
    is <q(tau r)>, q(t) = E s(t G), tau = 1 +- delta.

    Attributes:
        dimension: d.
        delta: how far the widths of the classes are from 1.
        low, high: values of s below and above its thresholds ``knees``.

    Example:
        >>> problem = IsotropicGaussians(dimension=40)
        >>> x, y = problem.draw(torch.Generator().manual_seed(0), 1000)
        >>> bool(x[y == 1].std() > 5 * x[y == -1].std()), problem.neuron(problem.start(7, seed=0), x).shape
        (True, torch.Size([1000, 7]))
    """

    dimension: int = 40
    delta: float = 0.8
    low: float = -2.5
    high: float = 7.5
    knees: tuple[float, float] = (0.5, 1.5)

    def __post_init__(self) -> None:
        counted("dimension", self.dimension, refusal=RichError)
        if not (
            all(isinstance(v, Real) and math.isfinite(v) for v in (self.delta, self.low, self.high)) and abs(self.delta) <= 1
        ):
            raise RichError(
                f"got delta = {self.delta!r}, low = {self.low!r} and high = {self.high!r}, expected finite numbers, and delta "
                "from -1 to 1"
            )
        if not (isinstance(self.knees, (tuple, list)) and len(self.knees) == 2 and _rises(*self.knees)):
            raise RichError(f"got knees = {self.knees!r}, expected two thresholds that increase, such as (0.5, 1.5)")

    def draw(self, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Fresh samples: x (count, d) and y (count,)."""
        y = torch.randint(0, 2, (count,), generator=generator).double() * 2 - 1
        x = torch.randn(count, self.dimension, dtype=torch.float64, generator=generator)
        return (1 + self.delta * y)[:, None] * x, y

    def neuron(self, theta: Tensor, x: Tensor) -> Tensor:
        """s(w . x), (B, M)."""
        lower, upper = self.knees
        share = ((x @ theta.T - lower) / (upper - lower)).clamp(0, 1)
        return self.low + (self.high - self.low) * share

    def start(self, particles: int, seed: int, size: float = 0.8) -> Tensor:
        """Particles w ~ N(0, size^2 / d I), (M, d)."""
        generator = torch.Generator().manual_seed(seed)
        return (
            size / math.sqrt(self.dimension) * torch.randn(particles, self.dimension, dtype=torch.float64, generator=generator)
        )

    def closure(self) -> Closure:
        """The flow of radii (M, 1), exact as d grows."""
        tau = torch.tensor([1 + self.delta, 1 - self.delta], dtype=torch.float64)
        return Closure(
            lambda r: self._mean(r * tau),
            lambda m: ((1 - m[0]) ** 2 + (1 + m[1]) ** 2) / 2,
        )

    def _mean(self, t: Tensor) -> Tensor:
        """q(t) = E s(t G): s is a constant and two ramps, and E (tG - c)_+ = t pdf(c/t) - c (1 - cdf(c/t))."""
        normal = torch.distributions.Normal(torch.zeros((), dtype=t.dtype), 1.0)

        def ramp(c: float) -> Tensor:
            return t * normal.log_prob(c / t).exp() - c * (1 - normal.cdf(c / t))

        lower, upper = self.knees
        return self.low + (self.high - self.low) / (upper - lower) * (ramp(lower) - ramp(upper))


def _rises(lower: Any, upper: Any) -> bool:
    return isinstance(lower, Real) and isinstance(upper, Real) and -math.inf < float(lower) < float(upper) < math.inf
