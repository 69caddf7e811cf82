"""Initialisations whose higher tangent kernels start at a wanted size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.optimize import root_scalar
from torch import Tensor

from lazyrich.amount import counted, real
from lazyrich.errors import TangentError
from lazyrich.family import Family
from lazyrich.scaling import Plan, plan, richness
from lazyrich.tangent.onset import Onset, onset

LAYERS = ("Linear", "Conv1d", "Conv2d", "Conv3d")


@dataclass(frozen=True)
class Candidate:
    """One initialisation and richness, with what its tangent hierarchy starts with.

    Attributes:
        sigma_w: weights' standard deviation times sqrt(fan-in); None is the factory's own.
        sigma_b: biases' standard deviation; None is the factory's own.
        r: richness exponent.
        gamma: richness constant that gives the wanted size.
        onsets: one a seed, at that gamma.
        plan: of the family, to build and train with.

    Example:
        >>> import torch
        >>> from lazyrich.family.zoo import MLP
        >>> family = Family(lambda n: MLP(n, 1, inputs=4, outputs=1), base=16)
        >>> found = design(family, torch.eye(4), torch.tensor([1.0, -1.0, 1.0, -1.0]), size=0.1, seeds=1).candidates[0]
        >>> round(found.size, 6), found.r, found.gamma > 0
        (0.1, 0.0, True)
    """

    sigma_w: float | None
    sigma_b: float | None
    r: float
    gamma: float
    onsets: tuple[Onset, ...]
    plan: Plan

    @property
    def size(self) -> float:
        """Root mean square over seeds of the predicted movement of the tangent kernel."""
        return _size(self.onsets)

    def features(self, path: str) -> float:
        """Root mean square over seeds of a module's predicted movement."""
        return math.sqrt(sum(o.features[path] ** 2 for o in self.onsets) / len(self.onsets))


@dataclass(frozen=True)
class Designs:
    """Candidates of equal size, in the order of the grid; a table when printed.

    Attributes:
        wanted: relative movement of the tangent kernel that they share.
        width: at which.
        candidates: one a point of the grid.

    Example:
        >>> found = Designs(0.1, 64, ())
        >>> found.wanted, found.rows()
        (0.1, [])
    """

    wanted: float
    width: int
    candidates: tuple[Candidate, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One record a candidate."""
        return [
            {
                "sigma_w": c.sigma_w,
                "sigma_b": c.sigma_b,
                "r": c.r,
                "gamma": c.gamma,
                "third": math.sqrt(sum(o.third**2 for o in c.onsets) / len(c.onsets)),
                "fourth": math.sqrt(sum(o.fourth**2 for o in c.onsets) / len(c.onsets)),
                "size": c.size,
                **{path: c.features(path) for path in c.onsets[0].features},
            }
            for c in self.candidates
        ]

    def __str__(self) -> str:
        lines = [f"tangent kernel to move by {self.wanted:g} at width {self.width}"]
        for row in self.rows():
            cells = (f"{name} {'own' if value is None else f'{value:.4g}'}" for name, value in row.items())
            lines.append("  ".join(f"{cell:<16}" for cell in cells).rstrip())
        return "\n".join(lines)


def design(
    family: Family,
    x: Tensor,
    y: Tensor,
    size: float,
    *,
    width: int | None = None,
    sigma_w: Sequence[float | None] = (None,),
    sigma_b: Sequence[float | None] = (None,),
    r: Sequence[float] = (0.0,),
    learnt: float = 0.5,
    features: Sequence[str] = (),
    seeds: int = 4,
) -> Designs:
    """Find the richness, for every (sigma_w, sigma_b, r) of a grid, at which the higher kernels start at a wanted size.

    Hierarchy and kernels are those of Huang & Yau 2019 (arXiv:1909.08156), the richness scale of Karkada 2024 (arXiv:2404.19719).

    The size is ``Onset.size``: by how much, relative to itself, the tangent kernel is about to move while the network learns
    a share of its loss, from K3 and K4 at initialisation. For a centred network it is a known polynomial of gamma, so one
    look at gamma = 1 finds the gamma, and the candidates are the level set of that size.

    Args:
        family: the network with its width open.
        x: a few inputs (N, ...).
        y: targets, (N, K), or (N,) for one output, to be learnt by f - f_0 (the centred network).
        size: the wanted relative movement, for instance 0.1 for a lazy network or 1 for a rich one.
        width: at which it is wanted; the family's base by default.
        sigma_w: weights of linear and convolutional layers get the standard deviation sigma_w / sqrt(fan-in) at the base
            width; None keeps the factory's own.
        sigma_b: their biases' standard deviation at the base width; None keeps the factory's own.
        r: richness exponents.
        learnt: share of the loss.
        features: module paths whose movement is predicted as well.
        seeds: draws over which sizes are averaged (root mean square).

    Returns:
        One candidate a point of the grid, each with a plan for SGD that builds it.

    Raises:
        TangentError: for a size that is not positive, or a network whose tangent kernel cannot move (a linear model).
        PlanError: for sigma_b of biases that the factory starts at a constant.

    Example:
        >>> import torch
        >>> from lazyrich.family.zoo import MLP
        >>> family = Family(lambda n: MLP(n, 1, inputs=4, outputs=1), base=16)
        >>> found = design(family, torch.eye(4), torch.tensor([1.0, -1.0, 1.0, -1.0]), size=0.1, sigma_w=[1.0, 1.5], seeds=1)
        >>> [round(c.size, 6) for c in found.candidates]
        [0.1, 0.1]
    """
    if not isinstance(family, Family):
        raise TangentError(
            f"got family of type {type(family).__name__}, expected a network with its width open; pass lzr.Family(factory, base=64)"
        )
    if not 0 < real(size) < math.inf:
        raise TangentError(f"got size {size!r}, expected a relative movement: positive and finite, for instance 0.1")
    size, seeds = real(size), counted("seeds", seeds, 1, TangentError)
    width = family.base if width is None else counted("width", width, 1, TangentError)
    _refuse_grid(family, sigma_w, sigma_b, r)
    candidates = []
    for w, b, exponent in itertools.product(sigma_w, sigma_b, r):
        init = initialisation(family, w, b)
        plain = plan(family, richness(exponent), "sgd", init=init)
        rates = {name: setting.lr for name, setting in plain.settings(width).items()}
        found = [
            onset(plain.build(width, seed), x, y, rates=rates, learnt=learnt, centred=True, features=features)
            for seed in range(seeds)
        ]
        gamma = _gamma(found, size)
        rich = plan(family, richness(exponent, gamma), "sgd", init=init)
        candidates.append(Candidate(w, b, exponent, gamma, tuple(o.enriched(gamma) for o in found), rich))
    return Designs(size, width, tuple(candidates))


def _refuse_grid(family: Family, sigma_w: Any, sigma_b: Any, r: Any) -> None:
    for name, values in (("sigma_w", sigma_w), ("sigma_b", sigma_b), ("r", r)):
        row = hasattr(values, "__len__") and not isinstance(values, str) and getattr(values, "ndim", 1) == 1
        if not row or not len(values):
            raise TangentError(f"got {name}={values!r}, expected a list of at least one value, for example {name}=[0.5]")
        if name != "r" and any(v is not None and not 0 <= real(v) < math.inf for v in values):
            raise TangentError(f"got {name}={list(values)}, expected standard deviations: finite and not negative, or None")
    biases = any(info.kind in LAYERS and not info.axes.summed for info in family.tensors.values())
    if not biases and any(b is not None for b in sigma_b):
        raise TangentError(f"got sigma_b={list(sigma_b)} for a network whose layers have no biases; leave sigma_b out")


def initialisation(family: Family, sigma_w: float | None, sigma_b: float | None) -> dict[str, float]:
    """Standard deviations by tensor for ``plan(init=)``: sigma_w / sqrt(fan-in) for weights, sigma_b for biases.

    Example:
        >>> from lazyrich.family.zoo import MLP
        >>> initialisation(Family(lambda n: MLP(n, 1, inputs=4), base=16), 2.0, None)
        {'hidden.0.weight': 1.0, 'readout.weight': 0.5}
    """
    found = {}
    for name, info in family.tensors.items():
        if info.kind not in LAYERS:
            continue
        if info.axes.summed and sigma_w is not None:
            found[name] = sigma_w / math.sqrt(info.axes.fans(info.shape)[0])
        if not info.axes.summed and sigma_b is not None:
            found[name] = sigma_b
    return found


def _size(onsets: Sequence[Onset]) -> float:
    return math.sqrt(sum(o.size**2 for o in onsets) / len(onsets))


def _gamma(onsets: Sequence[Onset], size: float) -> float:
    """The richness constant at which the size is reached for the first time."""
    if not _size(onsets) > 1e-12:
        raise TangentError("the tangent kernel of this network does not move at first or second order, so no richness moves it")

    def excess(log_gamma: float) -> float:
        return math.log(_size([o.enriched(math.exp(log_gamma)) for o in onsets]) / size)

    low, high = -30.0, 30.0
    grid = [low + (high - low) * i / 600 for i in range(601)]
    first = next((g for g in grid if excess(g) >= 0), None)
    if first is None or first == low:
        raise TangentError(f"size {size:g} is out of reach of any richness constant from 1e-13 to 1e13")
    return math.exp(root_scalar(excess, bracket=(first - (high - low) / 600, first), xtol=1e-13).root)
