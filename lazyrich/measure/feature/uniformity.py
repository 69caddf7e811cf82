"""Alignment and uniformity of features on the sphere (Wang & Isola 2020, arXiv:2005.10242)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lazyrich.measure.feature.rows import pair, rows


def alignment(h: Tensor, positive: Tensor) -> float:
    """E |z - z'|^2 over pairs that belong together, z = h / |h|.

    Args:
        h: (samples, units).
        positive: of the same samples, such as disturbed or reconstructed ones.

    Raises:
        MetricError: for other samples or units.

    Example:
        >>> alignment(torch.eye(2), 2 * torch.eye(2)), round(alignment(torch.eye(2), torch.eye(2).flip(0)), 6)
        (0.0, 2.0)
    """
    z, other = (F.normalize(f, dim=1) for f in pair(h, positive, least=1, same_units=True))
    return float((z - other).square().sum(1).mean())


def uniformity(h: Tensor, t: float = 2.0) -> float:
    """Log E exp(-t |z - z'|^2) over distinct pairs; -2 t at least for many units, 0 where all fall together.

    Raises:
        MetricError: for fewer than two samples.

    Example:
        >>> round(uniformity(torch.cat([torch.eye(2), -torch.eye(2)])), 4)  # four pairs at |z - z'|^2 = 2, two at 4
        -4.3963
    """
    z = F.normalize(rows(h), dim=1)
    return float(torch.logsumexp(-t * torch.pdist(z).square(), 0)) - math.log(len(z) * (len(z) - 1) / 2)
