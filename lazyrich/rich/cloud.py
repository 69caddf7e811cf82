"""Entropy of a cloud of particles, from the distances to their nearest neighbours."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.amount import counted
from lazyrich.errors import RichError


def entropy(points: Tensor, neighbour: int = 4) -> float:
    """Differential entropy of the density that points are drawn from (Kozachenko & Leonenko 1987; k-th neighbour).

        H = psi(M) - psi(k) + log V_D + (D/M) sum_i log r_i,

    r_i the distance to the k-th neighbour and V_D the volume of the unit ball. The bias falls as M^(-2/D) for smooth densities,
    so it is of use in a few dimensions; it costs O(M log M).

    Args:
        points: (M, D).
        neighbour: k.

    Raises:
        RichError: for what is no table of numbers, fewer points than neighbours, or points that coincide, which have no density.

    Example:
        >>> normal = torch.randn(4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> abs(entropy(normal) - 0.5 * math.log(2 * math.pi * math.e)) < 0.05
        True
    """
    from scipy.spatial import KDTree  # slow to import, and nothing else in the room needs it

    counted("neighbour", neighbour, refusal=RichError)
    if not isinstance(points, Tensor) or points.dim() != 2 or not bool(points.isfinite().all()):
        got = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
        raise RichError(
            f"got points {got}, expected a tensor (points, dimensions) of finite numbers; one dimension is points[:, None]"
        )
    count, dimension = points.shape
    if count <= neighbour:
        raise RichError(f"got {count} points, expected more than {neighbour} for distances to the neighbour of that number")
    cloud = points.detach().cpu().double().numpy()
    distances = torch.from_numpy(KDTree(cloud).query(cloud, k=neighbour + 1)[0][:, neighbour])
    if not (distances > 0).all():
        raise RichError(f"more than {neighbour} particles coincide: they have no density, and no entropy")
    ball = dimension / 2 * math.log(math.pi) - math.lgamma(dimension / 2 + 1)
    psi = torch.special.digamma(torch.tensor([float(count), float(neighbour)], dtype=torch.float64))
    return float(psi[0] - psi[1] + ball + dimension * distances.log().mean())
