"""How the terms above the tangent kernel start at initialisation: how far kernel and features are about to move."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import torch
from scipy.optimize import root_scalar
from torch import Tensor, nn

from lazyrich.errors import TangentError
from lazyrich.tangent.contraction import ntk_derivatives
from lazyrich.tangent.features import first_of
from lazyrich.tangent.outputs import Outputs, Point, along


@dataclass(frozen=True)
class Onset:
    """Relative movements to expect while the loss is learnt, from the network at initialisation alone.

    Free of learning rate and loss normalisation.

    Attributes:
        third: ||K3 R|| / ||Theta||, the kernel's movement at first order.
        fourth: ||K4 R R|| / (2 ||Theta||), at second order.
        cosine: between the two.
        features: ||Dh[delta]|| / ||h|| by module path, the features' movement at first order.
        time: when the linearised network has learnt that share, in steps times learning rate times the scale of the loss.

    Example:
        >>> round(Onset(third=0.3, fourth=0.4, cosine=0.0).size, 12)
        0.5
    """

    third: float
    fourth: float
    cosine: float
    features: Mapping[str, float] = field(default_factory=dict)
    time: float = math.nan

    @property
    def size(self) -> float:
        """||-K3 R + K4 R R / 2|| / ||Theta||: the predicted relative movement of the tangent kernel."""
        return math.sqrt(max(0.0, self.third**2 + 2 * self.cosine * self.third * self.fourth + self.fourth**2))

    def enriched(self, gamma: float) -> Onset:
        """The same centred network with its output divided by gamma and its rates multiplied by gamma^2, exactly.

        Every further order brings one more gamma: K3's term is multiplied by it, K4's by its square.

        Example:
            >>> Onset(third=0.1, fourth=0.2, cosine=0.0).enriched(2.0)
            Onset(third=0.2, fourth=0.8, cosine=0.0, features={}, time=nan)
        """
        moved = {path: gamma * value for path, value in self.features.items()}
        return replace(self, third=gamma * self.third, fourth=gamma**2 * self.fourth, features=moved)


def onset(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    rates: Mapping[str, float] | None = None,
    learnt: float = 0.5,
    centred: bool = False,
    features: Sequence[str] = (),
) -> Onset:
    """How large the dNTK and its successor are at initialisation, in units that training sets itself.

    The kernels are those of the neural tangent hierarchy (Huang & Yau 2019, arXiv:1909.08156) and of Dyer & Gur-Ari 2019
    (arXiv:1909.11304); the units are ours.

    The linearised network reaches the share ``learnt`` of its loss at a time tau; by then its residual has added up to
    R = int_0^tau r dt = Theta^{-1} (1 - e^{-Theta tau}) r_0 and its parameters have moved by delta = -sum_b R_b grad f_b.
    Along that displacement the hierarchy moves the kernel by -K3 R + K4 R R / 2 (exact for a residual of constant
    direction) and features by Dh[delta]. All are measured against the kernel and the features themselves.

    Under the richness scale A = gamma n^r, third ~ A/n and fourth ~ A^2/n, features ~ A/sqrt(n).
    A rectifier's kernel also moves as units switch, which no derivative at a point sees: its ``size`` is too small (two or three
    times for narrow movements), its ``features`` are right.

    Args:
        model: treats samples one by one; computed on a float64 copy.
        x: a few inputs (N, ...).
        y: targets, (N, K), or (N,) for one output.
        rates: learning-rate factor by tensor name, 1 where not given; a plan's are
            ``{name: s.lr for name, s in plan.settings(width).items()}``.
        learnt: share of the loss, in (0, 1).
        centred: for training f - f_0 instead of f.
        features: module paths whose outputs' movement is wanted.

    Raises:
        TangentError: for inputs that do not fit, a path that is no module, or targets that the kernel cannot learn.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
        >>> found = onset(net, torch.eye(4), torch.tensor([1.0, 1.0, -1.0, -1.0]), features=["1"])
        >>> found.size > 0, sorted(found.features)
        (True, ['1'])
    """
    if isinstance(features, str):
        raise TangentError(f"got features='{features}', expected a list of paths: ['{features}']")
    if not isinstance(learnt, Real) or not 0 < learnt < 1:
        raise TangentError(f"got learnt = {learnt!r}, expected a share of the loss between 0 and 1")
    outputs = Outputs(model, x, rates, exact=True)
    targets = outputs.cotangent(y, "y")
    start = -targets if centred else outputs.start - targets
    theta = ntk_derivatives(outputs, start, 0)[0]
    time, total = _summed(theta, start, learnt)
    _, first, second = ntk_derivatives(outputs, total, 2)
    third, fourth = -first, second / 2
    lengths = third.norm() * fourth.norm()
    delta = outputs.pull(outputs.point, -total)
    return Onset(
        third=float(third.norm() / theta.norm()),
        fourth=float(fourth.norm() / theta.norm()),
        cosine=float((third * fourth).sum() / lengths) if lengths > 0 else 0.0,
        features={path: _movement(_hidden(outputs, path), outputs.point, delta) for path in features},
        time=time,
    )


def _summed(theta: Tensor, start: Tensor, learnt: float) -> tuple[float, Tensor]:
    """The time tau at which the linearised network has learnt a share of its loss, and its residual summed until then."""
    values, vectors = torch.linalg.eigh(theta)
    values, parts = values.clamp_min(0), vectors.T @ start
    weights = parts.square() / parts.square().sum()
    if not bool(parts.square().sum() > 0):
        raise TangentError("the residual is zero at initialisation, so nothing will be learnt; give other targets")
    floor = float(weights[values <= values[-1] * 1e-12 * len(values)].sum())
    if floor >= 1 - learnt:
        raise TangentError(
            f"the tangent kernel learns at most {1 - floor:.3g} of this loss, expected at least learnt = {learnt:g}; "
            "give a smaller share, distinct inputs, or a wider network"
        )

    def excess(log_time: float) -> float:
        return float((weights * torch.exp(-2 * values * math.exp(log_time))).sum()) - (1 - learnt)

    slow, fast = float(values[values > values[-1] * 1e-12 * len(values)].min()), float(values[-1])
    share = -math.log(1 - learnt)
    bracket = math.log(share / fast) - 5, math.log((share + 50) / slow) + 5
    time = math.exp(root_scalar(excess, bracket=bracket, xtol=1e-12).root)
    shares = torch.where(values > 0, -torch.expm1(-values * time) / values.clamp_min(1e-300), torch.full_like(values, time))
    return time, vectors @ (shares * parts)


def _hidden(outputs: Outputs, path: str) -> Callable[[Point], Tensor]:
    """The output of a module inside the network, as a function of the point."""
    modules = dict(outputs.function.model.named_modules())
    if path not in modules:
        raise TangentError(f"got features '{path}', expected a module of the network: {', '.join(p for p in modules if p)}")

    def feature(point: Point) -> Tensor:
        seen: list[Any] = []
        handle = modules[path].register_forward_hook(lambda _module, _args, out: seen.append(first_of(out)))
        try:
            outputs(point)
        finally:
            handle.remove()
        if len(seen) != 1 or not isinstance(seen[0], Tensor):
            got = f"{len(seen)} outputs" if len(seen) != 1 else f"a {type(seen[0]).__name__}"
            raise TangentError(f"module '{path}' gave {got} in one pass, expected one tensor; name another module")
        return seen[0]

    return feature


def _movement(feature: Callable[[Point], Tensor], point: Point, delta: Point) -> float:
    change = along(feature, point, delta)
    return float(change.norm() / feature(point).norm()) if bool(change.any()) else 0.0  # also where the features are zero
