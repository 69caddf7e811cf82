"""Canonical correlations of two sets of features: SVCCA, PWCCA, with the limit that makes them say nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.errors import MetricError
from lazyrich.measure.feature.rows import centred, pair


def mean_correlation(h: Tensor, g: Tensor, kept: float = 0.99, weighted: bool = False) -> float:
    """Mean canonical correlation after each set is cut to the directions with ``kept`` of its variance.

    SVCCA (Raghu et al. 2017, arXiv:1706.05806); weighted by how much of h each canonical direction carries: PWCCA (Morcos et al.
    2018, arXiv:1806.05759). With as many directions as samples every correlation is one, so that is refused.

    Args:
        h: (samples, units).
        g: (samples, other units).
        kept: part of the variance.
        weighted: PWCCA.

    Raises:
        MetricError: where the directions that are kept are half of the samples or more, and for features without variance.

    Example:
        >>> h = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        >>> round(mean_correlation(h, h @ torch.randn(4, 4, generator=torch.Generator().manual_seed(1))), 6)
        1.0
    """
    if not 0 < kept <= 1:
        raise MetricError(f"got kept = {kept}, expected a part of the variance, above 0 and at most 1")
    first, second = pair(h, g)
    a, b = _directions(first, kept), _directions(second, kept)
    u, values, _ = torch.linalg.svd(a.T @ b, full_matrices=False)
    values = values.clamp(max=1.0)
    if not weighted:
        return float(values.mean())
    x = first - first.mean(0)
    weights = (a @ u).T.matmul(x).abs().sum(1)
    return float((weights * values).sum() / weights.sum())


def _directions(f: Tensor, kept: float) -> Tensor:
    """Orthonormal columns that span the widest directions over samples."""
    u, values, _ = torch.linalg.svd(centred(f), full_matrices=False)
    share = values.square().cumsum(0) / values.square().sum()
    size = int((share < kept).sum()) + 1
    if 2 * size >= len(f):
        raise MetricError(
            f"{size} directions hold {100 * kept:g} % of the variance of {len(f)} samples; canonical correlations of half as many "
            "directions as samples say nothing, give more samples or keep less"
        )
    return u[:, :size]
