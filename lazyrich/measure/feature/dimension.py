"""The dimension of the surface that features lie on, from distances to nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.amount import counted
from lazyrich.errors import MetricError
from lazyrich.measure.feature.rows import rows


def two_nn(h: Tensor) -> float:
    """TwoNN, N / sum log(r2 / r1), r1, r2 the distances to the two nearest neighbours (Facco et al. 2017).

    The largest tenth of the ratios mu is left out, as they advise: the maximum likelihood of Pareto ratios that are cut off is
    d = M / (sum log mu_i + (N - M) log mu_M).

    Raises:
        MetricError: for fewer than ten different samples.

    Example:
        >>> h = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> 1.8 < two_nn(h @ torch.randn(2, 10, generator=torch.Generator().manual_seed(1))) < 2.2
        True
    """
    ratios = (near := _nearest(h, 2))[:, 1] / near[:, 0]
    logs = ratios.log().sort().values
    cut = int(0.9 * len(logs))
    return float(cut / (logs[:cut].sum() + (len(logs) - cut) * logs[cut - 1]))


def levina_bickel(h: Tensor, neighbours: int = 10) -> float:
    """Maximum likelihood from k neighbours, inverses averaged over samples (Levina & Bickel 2004; MacKay & Ghahramani 2005).

    Raises:
        MetricError: for fewer than ten different samples, fewer than two neighbours, or more of them than samples.

    Example:
        >>> h = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> 1.8 < levina_bickel(h @ torch.randn(2, 10, generator=torch.Generator().manual_seed(1))) < 2.2
        True
    """
    neighbours = counted("neighbours", neighbours, 2, MetricError)
    near = _nearest(h, neighbours)
    inverse = (near[:, -1:] / near[:, :-1]).log().sum(1) / (neighbours - 1)
    return float(1 / inverse.mean())


def _nearest(h: Tensor, k: int) -> Tensor:
    """Distances to the k nearest other samples, of those without a twin."""
    x = torch.unique(rows(h), dim=0)
    if len(x) < max(10, k + 1):
        raise MetricError(f"got {len(x)} different samples, expected at least {max(10, k + 1)}")
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(float("inf")).topk(k, dim=1, largest=False).values
