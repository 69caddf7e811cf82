"""How many directions features use: effective rank, stable rank, participation ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.errors import MetricError
from lazyrich.measure.feature.rows import centred, rows


def effective_rank(h: Tensor) -> float:
    """exp(-sum p log p), p the eigenvalues of the covariance over their sum (Roy & Vetterli 2007, on eigenvalues).

    Example:
        >>> round(effective_rank(torch.cat([torch.eye(4), -torch.eye(4)])), 6)
        4.0
    """
    values = _spectrum(h)
    p = values[values > 0] / values.sum()
    return float(torch.exp(-(p * p.log()).sum()))


def stable_rank(h: Tensor) -> float:
    """||h||_F^2 / ||h||_2^2 of centred features.

    The samples' largest eigenvalue is above the covariance's: isotropic features of p units in N samples read p / (1 + sqrt(p /
    N))^2, a quarter of p at N = p and four fifths only at N = 70 p; a direction that stands out is read with less bias.

    Example:
        >>> round(stable_rank(torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 6)
        1.25
    """
    values = _spectrum(h)
    return float(values.sum() / values.max())


def participation_ratio(h: Tensor, unbiased: bool = True) -> float:
    """(tr C)^2 / tr C^2 of the covariance C.

    Plug-in it reads 1/(1/N + 1/p) for isotropic features of p units. Unbiased: with a = h_i - h_j over pairs of distinct samples,
    (1/2) a a^T has mean C, so (tr C)^2 and tr C^2 are means of |a|^2 |b|^2 / 4 and (a . b)^2 / 4 over two pairs that share no
    sample: U-statistics of order four, computed from the Gram in N^2 time.

    Args:
        h: (samples, units).
        unbiased: whether; wants four samples.

    Raises:
        MetricError: for fewer than four samples.

    Example:
        >>> h = torch.randn(100, 1000, generator=torch.Generator().manual_seed(0))
        >>> 900 < participation_ratio(h) < 1100, 85 < participation_ratio(h, unbiased=False) < 95
        (True, True)
    """
    if unbiased:
        return ratio_of(trace_terms(h))
    values = _spectrum(h)
    return float(values.sum() ** 2 / values.square().sum())


def trace_terms(h: Tensor) -> Tensor:
    """Unbiased (tr C)^2 and tr C^2 of the covariance, whose means over batches are unbiased too.

    With d_i = G_ii, T = sum d_i, S = sum G_ij^2, D = sum d_i^2 and C the sample covariance with 1/(N-1), the sample moments
    T^2, S and D are linear in tr(C)^2, tr C^2 and the fourth cumulant of the features; solving the three equations takes the
    cumulant out (Himeno & Yamada 2014).

    Raises:
        MetricError: for fewer than four samples.

    Example:
        >>> trace, square = trace_terms(torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))).tolist()
        >>> round(trace), round(square)
        (25, 5)
    """
    f = rows(h, least=4)
    x, n = f - f.mean(0), len(f)
    gram = x @ x.T
    t, s, d = float(gram.trace()), float(gram.square().sum()), float(gram.diagonal().square().sum())
    a, b, q = (t / (n - 1)) ** 2, s / (n - 1) ** 2, d / (n - 1)
    shared = (n - 1) / (n * (n - 2) * (n - 3))
    square = shared * ((n - 1) * (n - 2) * b + a - n * q)
    trace = shared * (2 * b + (n * n - 3 * n + 1) * a - n * q)
    return torch.tensor([trace, square], dtype=torch.float64)


def ratio_of(terms: Tensor) -> float:
    """The participation ratio from (mean) terms.

    Example:
        >>> ratio_of(torch.tensor([25.0, 5.0]))
        5.0
    """
    trace, square = terms.tolist()
    if square <= 0:
        raise MetricError("the features have no variance that so few samples could tell from none")
    return trace / square


def _spectrum(h: Tensor) -> Tensor:
    """Eigenvalues of the covariance, up to a factor."""
    return torch.linalg.svdvals(centred(rows(h))).square()
