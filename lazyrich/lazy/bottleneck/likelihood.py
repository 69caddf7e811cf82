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
            f"got {self.effective:.1f} effective draws of {self.draws}, expected at least {ENOUGH:.0f}: the estimate rests "
            "on the largest weight and is too low; take steps= (annealing), more draws, more noise or fewer samples"
        )


@dataclass(frozen=True)
class Posterior:
    """Draws of latents under a likelihood N(y; 0, K_dec(u) + s^2 I), all draws at once.

    Attributes:
        given: u (S, N, k) -> K_dec(u, u') (S, N, N).
        y: targets, (N, d).
        noise: s^2.
    """

    given: Callable[[Tensor], Tensor]
    y: Tensor
    noise: float

    def density(self, u: Tensor) -> Tensor:
        """Log N(y; 0, K_dec(u) + s^2 I), summed over outputs: (S,)."""
        n, d = self.y.shape
        lower, info = torch.linalg.cholesky_ex(self.given(u) + self.noise * torch.eye(n, dtype=torch.float64))
        if bool(info.any()):
            raise KernelError(f"got a Gram matrix that noise={self.noise:.3g} does not make positive definite; give more noise")
        white = torch.linalg.solve_triangular(lower, self.y.expand(len(u), n, d), upper=False)
        log_roots = lower.diagonal(dim1=1, dim2=2).log().sum(1)
        return -0.5 * white.square().sum((1, 2)) - d * log_roots - 0.5 * n * d * math.log(2 * math.pi)

    def anneal(self, u: Tensor, half: Tensor, steps: int, rng: torch.Generator) -> Tensor:
        """Log weights of annealed draws, sum_t (beta_t - beta_(t-1)) log p(y | u_(t-1)) with beta_t = (t/T)^4: (S,).

        Args:
            u: latents drawn from the prior, (S, N, k).
            half: R with K_enc = R R^T.
            steps: T.
            rng: of the moves.
        """
        level, before = self.density(u), 0.0
        weight = torch.zeros_like(level)
        for t in range(1, steps + 1):
            beta = (t / steps) ** 4
            weight = weight + (beta - before) * level
            if t < steps:
                u, level = self.slice(u, level, half @ normal(rng, *u.shape), beta, rng)
            before = beta
        return weight

    def slice(self, u: Tensor, level: Tensor, other: Tensor, beta: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A move on the ellipse through u and a fresh prior draw that leaves prior times likelihood^beta as it is."""
        floor = beta * level + _uniform(rng, len(u)).log()
        angle = 2 * math.pi * _uniform(rng, len(u))
        low, high = angle - 2 * math.pi, angle
        new, new_level, left = u.clone(), level.clone(), torch.arange(len(u))
        while len(left):
            turn = angle[left, None, None]
            moved = turn.cos() * u[left] + turn.sin() * other[left]
            found = self.density(moved)
            stays = (beta * found > floor[left]) | ((high - low)[left] < 1e-12)
            new[left[stays]], new_level[left[stays]] = moved[stays], found[stays]
            left = left[~stays]
            low, high = torch.where(angle < 0, angle, low), torch.where(angle < 0, high, angle)
            angle = low + (high - low) * _uniform(rng, len(u))
        return new, new_level


def mean_weight(log_weights: Tensor) -> LogLikelihood:
    """The log of the mean weight, (S,) log weights, with the delta method's error: var(w) / (S mean(w)^2)."""
    s = len(log_weights)
    share = torch.softmax(log_weights, 0)
    value = float(torch.logsumexp(log_weights, 0)) - math.log(s)
    error = s * float(share.std()) / math.sqrt(s) if s > 1 else math.inf
    effective = 1 / float(share.square().sum())
    return LogLikelihood(value, error, effective, s)


def targets_of(y: Tensor, n: int) -> Tensor:
    """Targets as (N, d) float64.

    Raises:
        KernelError: for no tensor, another number of them, or values that are not finite.
    """
    if not isinstance(y, Tensor):
        raise KernelError(f"got targets of type {type(y).__name__}, expected a tensor ({n}, d); pass torch.as_tensor(y)")
    if y.dim() not in (1, 2) or len(y) != n or not bool(torch.isfinite(y).all()):
        raise KernelError(f"got targets of shape {tuple(y.shape)} for {n} inputs, expected ({n},) or ({n}, d), finite")
    return y.double().reshape(n, -1)


def _uniform(rng: torch.Generator, count: int) -> Tensor:
    return 1 - torch.rand(count, generator=rng, dtype=torch.float64)  # never zero
