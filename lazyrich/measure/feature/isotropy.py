"""How evenly features fill their space: IsoScore, mean cosine, and the ratio of partition functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lazyrich.errors import MetricError
from lazyrich.measure.feature.rows import centred, rows


def iso_score(h: Tensor) -> float:
    """IsoScore in [0, 1] (Rudman, Gillman, Rayne & Eickhoff 2022): 1 for equal variances along all principal directions.

    With v their variances, u = sqrt(p) v / |v|, delta = |u - 1| / sqrt(2 (p - sqrt p)), the score is
    ((p - delta^2 (p - sqrt p))^2 - p) / (p (p - 1)). Wants many more samples than units.

    Raises:
        MetricError: for fewer samples than units, a single unit, or features that are all the same.

    Example:
        >>> round(iso_score(torch.cat([torch.eye(3), -torch.eye(3)])), 6)
        1.0
    """
    x = rows(h)
    n, p = x.shape
    if p < 2 or n <= p:
        raise MetricError(f"got {n} samples of {p} units, expected more samples than units, and at least two of these")
    v = torch.linalg.svdvals(centred(x)).square()
    delta = float((math.sqrt(p) * v / v.norm() - 1).norm()) / math.sqrt(2 * (p - math.sqrt(p)))
    return ((p - delta**2 * (p - math.sqrt(p))) ** 2 - p) / (p * (p - 1))


def mean_cosine(h: Tensor) -> float:
    """Mean cosine of distinct samples (Ethayarajh 2019): 0 where directions are even, 1 where all agree.

    Raises:
        MetricError: for fewer than two samples.

    Example:
        >>> round(mean_cosine(torch.eye(3)), 6), round(mean_cosine(torch.ones(3, 2)), 6)
        (0.0, 1.0)
    """
    x = rows(h)
    z, n = F.normalize(x, dim=1), len(x)
    return float((z.sum(0).square().sum() - z.square().sum()) / (n * (n - 1)))


def partition_ratio(h: Tensor) -> float:
    """min_c Z(c) / max_c Z(c), Z(c) = sum_i exp(c . h_i), over the eigenvectors c of h^T h and their negatives.

    Mu & Viswanath 2018 (arXiv:1702.01417); 1 for isotropic features.

    Example:
        >>> round(partition_ratio(torch.cat([torch.eye(3), -torch.eye(3)])), 6)
        1.0
    """
    x = rows(h)
    directions = torch.linalg.eigh(x.T @ x).eigenvectors
    logs = torch.logsumexp(x @ torch.cat([directions, -directions], 1), 0)
    return float(torch.exp(logs.min() - logs.max()))
