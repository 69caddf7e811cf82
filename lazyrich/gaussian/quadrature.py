"""Gauss-Legendre panels under the Gaussian weight, and what they integrate: E[f(sqrt(q) z)] for any f."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]
REACH = 12.0  # standard deviations that are integrated over
PANELS = 32
NODES = 16  # Gauss-Legendre nodes a panel
FEATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # where activations of order-one scale bend, at any variance
WIDE = 4.0  # standard deviations beyond which those places need panels of their own


@dataclass(frozen=True)
class Integrand:
    """A function of one variable, with the places where it or its derivatives jump.

    Example:
        >>> cube = Integrand(lambda x: x**3)
        >>> cube.derivative(torch.tensor([2.0])), cube.derivative.derivative(torch.tensor([2.0]))
        (tensor([12.]), tensor([12.]))
    """

    function: Map
    kinks: tuple[float, ...] = ()
    nodes: int = NODES

    def __call__(self, x: Tensor) -> Tensor:
        """The value."""
        return self.function(x)

    @property
    def derivative(self) -> Integrand:
        """Its derivative away from the kinks, by autograd."""
        return replace(self, function=_Derivative(self.function))

    @property
    def radial(self) -> Integrand:
        """X f'(x)."""
        slope = self.derivative
        return replace(self, function=lambda x: x * slope(x))

    def within(self, q: Tensor) -> Integrand:
        """The same, without the kinks that no variable of a variance up to the largest of q reaches: fewer panels.

        Example:
            >>> Integrand(lambda x: x.clamp(0, 6), (0.0, 6.0)).within(torch.tensor([1e-3, 1e-2])).kinks
            (0.0,)
        """
        reach = REACH * float(q.detach().max()) ** 0.5 if q.numel() else 0.0
        return replace(self, kinks=tuple(k for k in self.kinks if abs(k) <= reach or k == 0))

    @property
    def finer(self) -> Integrand:
        """The same, with half as many nodes again: a second opinion."""
        return replace(self, nodes=self.nodes * 3 // 2)


@dataclass(frozen=True)
class _Derivative:
    function: Map

    def __call__(self, x: Tensor) -> Tensor:
        tracked = torch.is_grad_enabled() and x.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            at = x if tracked else (x.clone() if x.is_inference() else x.detach()).requires_grad_()
            value = self.function(at)
            if not value.requires_grad:  # constant pieces only
                return torch.zeros_like(x)
            (slope,) = torch.autograd.grad(value.sum(), at, create_graph=tracked, allow_unused=True)
        return torch.zeros_like(x) if slope is None else slope


def expectation(f: Integrand, q: Tensor) -> Tensor:
    """E[f(sqrt(q) z)], z standard normal, for every entry of q; float64, shape of q.

    Example:
        >>> expectation(Integrand(torch.square), torch.tensor([0.0, 3.0], dtype=torch.float64))
        tensor([0., 3.], dtype=torch.float64)
    """
    flat = q.double().flatten()
    back = None
    if not (torch.is_grad_enabled() and q.requires_grad):
        flat, back = torch.unique(flat, return_inverse=True)
    found = []
    for root in deviation(flat).split(2048):
        z, w = gaussian_nodes(root, f)
        found.append((f(root[:, None] * z) * w).sum(1))
    result = torch.cat(found) if found else flat
    return (result if back is None else result[back]).reshape(q.shape)


def deviation(q: Tensor) -> Tensor:
    """Sqrt(q) in float64, with gradient 0 where q is 0.

    Example:
        >>> deviation(torch.tensor([0.0, 4.0]))
        tensor([0., 2.], dtype=torch.float64)
    """
    q = q.double()
    return torch.where(q > 0, torch.where(q > 0, q, 1.0).sqrt(), 0.0)


def gaussian_nodes(root: Tensor, f: Integrand) -> tuple[Tensor, Tensor]:
    """Nodes and Gaussian weights for E[f(root z)]: one row a root, or one for all where no panel needs to move."""
    if count := shared_panels(root, f):
        return shared_nodes(count, f.nodes, root.device)
    largest = float(root.detach().max())
    places = [k for k in f.kinks if k] + [s * x for x in (FEATURES if largest > WIDE else ()) for s in (-1, 1)]
    splits = [torch.zeros_like(root), *(k / root.clamp(min=1e-150) for k in places)]
    return panels(torch.stack(splits, 1), PANELS, f.nodes)


def shared_panels(root: Tensor, f: Integrand) -> int:
    """How many panels serve all roots; 0 where some must be split at places of their own."""
    largest = float(root.detach().max()) if root.numel() else 0.0
    return 0 if any(f.kinks) or largest > 10 * WIDE else PANELS * max(1, math.ceil(largest / WIDE))


@lru_cache(16)
@torch.inference_mode(False)  # what is kept must serve callers that differentiate
def shared_nodes(count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and Gaussian weights (1, nodes), made once."""
    return panels(torch.zeros(1, 1, dtype=torch.float64, device=device), count, size)


@lru_cache(16)
@torch.inference_mode(False)
def shared_basis(count: int, size: int, terms: int, device: torch.device) -> Tensor:
    """Hermite polynomials at these nodes (nodes, terms), made once: training at infinite width asks a thousand times."""
    return hermite(shared_nodes(count, size, device)[0][0], terms)


def panels(splits: Tensor, count: int, size: int) -> tuple[Tensor, Tensor]:
    """Nodes and Gaussian weights (rows, nodes) on ``count`` panels of [-REACH, REACH], split at ``splits`` (rows, points)."""
    grid = torch.linspace(-REACH, REACH, count + 1, dtype=torch.float64, device=splits.device)
    edges = torch.cat([grid.expand(len(splits), -1), splits.nan_to_num(0.0).clamp(-REACH, REACH)], 1).sort(1).values
    z, w = between(edges, size)
    return z, w * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def between(edges: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights (rows, nodes) on the panels between ``edges`` (rows, points).

    Example:
        >>> z, w = between(torch.tensor([[0.0, 1.0, 3.0]], dtype=torch.float64), 4)
        >>> round(float((z**7 * w).sum()), 6)  # 3^8 / 8
        820.125
    """
    x, w = legendre(size)
    half = (edges[:, 1:] - edges[:, :-1]) / 2
    z = (edges[:, 1:] + edges[:, :-1])[..., None] / 2 + half[..., None] * x.to(edges)
    return z.flatten(1), (half[..., None] * w.to(edges)).flatten(1)


@cache
@torch.inference_mode(False)
def legendre(size: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [-1, 1]."""
    x, w = np.polynomial.legendre.leggauss(size)
    return torch.from_numpy(x), torch.from_numpy(w)


def hermite(z: Tensor, terms: int) -> Tensor:
    """Normalised Hermite polynomials He_k(z) / sqrt(k!) for k < terms, orthonormal under the Gaussian; z.shape + (terms,).

    Example:
        >>> hermite(torch.tensor(2.0, dtype=torch.float64), 3)  # 1, z, (z^2 - 1)/sqrt(2)
        tensor([1.0000, 2.0000, 2.1213], dtype=torch.float64)
    """
    values = torch.empty(terms, *z.shape, dtype=z.dtype, device=z.device)
    values[0], values[1] = 1.0, z
    for k in range(1, terms - 1):
        values[k + 1] = (z * values[k] - math.sqrt(k) * values[k - 1]) / math.sqrt(k + 1)
    return values.movedim(0, -1)


def sampled(q: Sequence[float]) -> Tensor:
    """Variances as a float64 tensor.

    Example:
        >>> sampled([1.0, 2.0]).dtype
        torch.float64
    """
    return torch.tensor(list(q), dtype=torch.float64)
