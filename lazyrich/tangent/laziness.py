"""How lazy training is about to be: the criterion of Chizat, Oyallon and Bach, from the network at initialisation alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lazyrich.amount import counted
from lazyrich.errors import TangentError
from lazyrich.tangent.contraction import ntk_derivatives
from lazyrich.tangent.outputs import Outputs, Point, along
from lazyrich.tangent.truncated import refuse_still

CLOSE = 1e-4  # relative growth of a norm in one sweep below which a search has ended


@dataclass(frozen=True)
class Laziness:
    """kappa = ||f_0 - y|| ||D^2 f|| / ||Df||^2: far below 1 the network follows its linearisation until the loss is learnt.

    Attributes:
        residual: ||f_0 - y||, Euclidean, over samples and outputs.
        curvature: ||D^2 f||, the largest ||D^2 f[u, v]|| of unit steps u and v, as far as found (from below).
        slope: ||Df||, the root of the tangent kernel's largest eigenvalue.
    """

    residual: float
    curvature: float
    slope: float

    @property
    def kappa(self) -> float:
        """The relative change of Df while the loss is learnt, at most; the same for any normalisation of the loss."""
        return self.residual * self.curvature / self.slope**2

    def __str__(self) -> str:
        place = "lazy" if self.kappa < 0.1 else "no longer lazy" if self.kappa < 1 else "not lazy"
        norms = f"|f0 - y| = {self.residual:.3g}, |D2f| = {self.curvature:.3g}, |Df| = {self.slope:.3g}"
        return f"kappa = {self.kappa:.3g}, {place}: {norms}"


def laziness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    rates: Mapping[str, float] | None = None,
    centred: bool = False,
    tries: int = 1,
    sweeps: int = 200,
    seed: int = 0,
) -> Laziness:
    """Whether training starts in the lazy regime (Chizat, Oyallon & Bach 2019, arXiv:1812.07956, Section 1).

    Operator norms are found by alternating maximisation, u <- H_r v, v <- H_r u, r <- D^2 f[u, v] with H_r = sum_b r_b D^2 f_b,
    each to length one, from the loss's gradient and from random steps: every sweep costs three derivatives of the network, no
    Hessian is formed, and what is found is a lower bound. For outputs divided by gamma (centred, rates times gamma^2) kappa is
    multiplied by gamma; in the NTK parameterisation it falls as n^(-1/2), under muP it stays. Second derivatives do not see the
    kinks of a rectifier, whose kappa is too small.

    Args:
        model: treats samples one by one; computed on a float64 copy.
        x: a few inputs (N, ...).
        y: targets, (N, K), or (N,) for one output.
        rates: learning-rate factor by tensor name, 1 where not given; a plan's are
            ``{name: s.lr for name, s in plan.settings(width).items()}``.
        centred: for training f - f_0 instead of f.
        tries: random starts of the search, beside the gradient.
        sweeps: at most, a start.
        seed: of the random starts.

    Raises:
        TangentError: for inputs or targets that do not fit, and outputs that no parameter moves.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 256), nn.Tanh(), nn.Linear(256, 1, bias=False))
        >>> x, y = torch.eye(4), torch.tensor([1.0, 1.0, -1.0, -1.0])
        >>> found = laziness(net, x, y, centred=True)
        >>> net[2].weight.data *= 100  # outputs, and their derivatives, as large
        >>> laziness(net, x, y, centred=True).kappa < found.kappa
        True
    """
    counted("tries", tries, 0, TangentError)
    counted("sweeps", sweeps, refusal=TangentError)
    outputs = Outputs(model, x, rates, exact=True)
    targets = outputs.cotangent(y, "y")
    residual = -targets if centred else outputs.start - targets
    values, vectors = torch.linalg.eigh(ntk_derivatives(outputs, residual, 0)[0])
    refuse_still(values.clamp_min(0))
    draw = torch.Generator().manual_seed(seed)
    starts = [outputs.pull(outputs.point, r) for r in (residual, vectors[:, -1])]
    starts += [_random(outputs.point, draw) for _ in range(tries)]
    curvature = max(_curvature(outputs, start, sweeps) for start in starts)
    return Laziness(float(residual.norm()), curvature, float(values[-1].sqrt()))


def _curvature(outputs: Outputs, start: Point, sweeps: int) -> float:
    """A stationary value of r . D^2 f[u, v] over unit r, u and v; no sweep lowers it."""
    u = v = _unit(start)
    size = 0.0
    for _ in range(sweeps):
        bent = along(outputs, outputs.point, u, v)
        found = float(bent.norm())
        if found <= size * (1 + CLOSE):
            return max(found, size)
        size, r = found, bent / found
        u = _unit(along(lambda point, r=r: outputs.pull(point, r), outputs.point, v))
        v = _unit(along(lambda point, r=r: outputs.pull(point, r), outputs.point, u))
    return size


def _unit(step: Point) -> Point:
    length = torch.stack([part.norm() for part in step.values()]).norm()
    return {name: part / length for name, part in step.items()} if length > 0 else step


def _random(like: Point, draw: torch.Generator) -> Point:
    return {name: torch.randn(part.shape, generator=draw, dtype=part.dtype).to(part.device) for name, part in like.items()}
