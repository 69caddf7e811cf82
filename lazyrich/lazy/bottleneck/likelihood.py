"""How likely targets are under the deep-GP prior: a mean over latents, with its error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.lazy.bottleneck.gauss import normal

ENOUGH = 10.0  # effective draws: below it, log p is a statement about a handful of them


@dataclass(frozen=True)
class LogLikelihood:
    """log p(y) in nats, estimated over draws of the latents.

    Attributes:
        value: the estimate; its exponential is unbiased, so it is low on average, by about error^2 / 2.
        error: its Monte-Carlo standard error (delta method); no measure of anything when ``reliable`` is False.
        effective: effective number of draws, (sum w)^2 / sum w^2.
        draws: how many there were.
    """

    value: float
    error: float
    effective: float
    draws: int

    @property
    def reliable(self) -> bool:
        """Whether more than a handful of draws carry the estimate (``effective`` at least 10)."""
        return self.effective >= ENOUGH

    @property
    def warning(self) -> str:
        """What is wrong with the estimate, and the mend; empty when it is reliable."""
        if self.reliable:
            return ""
        return (
            f"got {self.effective:.1f} effective draws of {self.draws}, expected at least {ENOUGH:.0f}: the estimate rests on the "
            "largest weight and is too low; take steps= (annealing), more draws, more noise or fewer samples"
        )


@dataclass(frozen=True)
class Posterior:
    """Latents given targets: prior N(0, R R^T) a latent, likelihood N(y; 0, K_dec(u) + s^2 I).

    Attributes:
        given: u -> K_dec(u, u').
        half: R, (N, N).
        latents: k.
        y: targets, (N, d).
        noise: s^2.
    """

    given: Callable[[Tensor], Tensor]
    half: Tensor
    latents: int
    y: Tensor
    noise: float

    def draw(self, rng: torch.Generator) -> Tensor:
        """Latents of the prior, (N, k)."""
        return self.half @ normal(rng, len(self.half), self.latents)

    def density(self, u: Tensor) -> Tensor:
        """log N(y; 0, K_dec(u) + s^2 I), summed over outputs."""
        n, d = self.y.shape
        lower, info = torch.linalg.cholesky_ex(self.given(u) + self.noise * torch.eye(n, dtype=torch.float64))
        if int(info):
            raise KernelError(f"got a Gram matrix that noise={self.noise:.3g} does not make positive definite; give more noise")
        white = torch.linalg.solve_triangular(lower, self.y, upper=False)
        return -0.5 * white.square().sum() - d * lower.diagonal().log().sum() - 0.5 * n * d * math.log(2 * math.pi)

    def anneal(self, steps: int, rng: torch.Generator) -> Tensor:
        """log weight of one annealed draw, sum_t (beta_t - beta_(t-1)) log p(y | u_(t-1)), beta_t = (t/T)^4."""
        u, weight, before = self.draw(rng), torch.zeros((), dtype=torch.float64), 0.0
        level = self.density(u)
        for t in range(1, steps + 1):
            beta = (t / steps) ** 4
            weight = weight + (beta - before) * level
            if t < steps:
                u, level = self.slice(u, level, beta, rng)
            before = beta
        return weight

    def slice(self, u: Tensor, level: Tensor, beta: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A move on the ellipse through u and a fresh prior draw that leaves prior times likelihood^beta as it is."""
        other, floor = self.draw(rng), beta * level + math.log(_uniform(rng))
        angle = 2 * math.pi * _uniform(rng)
        low, high = angle - 2 * math.pi, angle
        while high - low > 1e-12:
            moved = math.cos(angle) * u + math.sin(angle) * other
            found = self.density(moved)
            if beta * found > floor:
                return moved, found
            low, high = (angle, high) if angle < 0 else (low, angle)
            angle = low + (high - low) * _uniform(rng)
        return u, level  # the ellipse has shrunk to where it began


def mean_weight(log_weights: Tensor) -> LogLikelihood:
    """The log of the mean weight, (S,) log weights, with the delta method's error: var(w) / (S mean(w)^2)."""
    s = len(log_weights)
    effective = 1 / float(torch.softmax(log_weights, 0).square().sum())
    value = float(torch.logsumexp(log_weights, 0)) - math.log(s)
    error = math.sqrt(max(s / effective - 1, 0.0) / (s - 1)) if s > 1 else math.inf
    return LogLikelihood(value, error, effective, s)


def targets_of(y: Tensor, n: int) -> Tensor:
    """Targets as (N, d) float64.

    Raises:
        KernelError: for another number of them, or values that are not finite.
    """
    if y.dim() not in (1, 2) or len(y) != n or not bool(torch.isfinite(y).all()):
        raise KernelError(f"got targets of shape {tuple(y.shape)} for {n} inputs, expected ({n},) or ({n}, d), finite")
    return y.double().reshape(n, -1)


def _uniform(rng: torch.Generator) -> float:
    return 1 - float(torch.rand((), generator=rng, dtype=torch.float64))  # never zero
