"""Linear centred kernel alignment of two sets of features, unbiased or plug-in, whole or in batches."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.errors import MetricError


def hsic(k: Tensor, other: Tensor) -> Tensor:
    """HSIC_1, the unbiased estimate of tr(K H L H) / (N - 1)^2 from Grams (..., N, N) (Song et al. 2012, JMLR 13).

    Raises:
        MetricError: for fewer than four samples.

    Example:
        >>> hsic(torch.eye(5), torch.eye(5)).item()
        0.0
    """
    n = k.shape[-1]
    if n < 4:
        raise MetricError(f"got {n} samples, expected at least four")
    a, b = (m - torch.diag_embed(m.diagonal(dim1=-2, dim2=-1)) for m in (k, other))
    ones = (a.sum((-2, -1)) * b.sum((-2, -1))) / ((n - 1) * (n - 2))
    cross = 2 / (n - 2) * (a.sum(-2) * b.sum(-2)).sum(-1)
    return ((a * b).sum((-2, -1)) + ones - cross) / (n * (n - 3))


def cka(h: Tensor, g: Tensor, unbiased: bool = True) -> float:
    """<H K H, H L H> / (||H K H|| ||H L H||), K = h h^T, L = g g^T (Kornblith et al. 2019, arXiv:1905.00414).

    Unbiased: HSIC_1 in the numerator and in both denominators, so that independent features have mean about 0; it can be
    slightly negative. Plug-in: in [0, 1], near 1 for any features with many more units than samples.

    Args:
        h: (samples, units).
        g: (samples, other units).
        unbiased: whether.

    Raises:
        MetricError: for fewer than four samples (two if biased).

    Example:
        >>> h = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
        >>> round(cka(h, 3 * h), 6)
        1.0
    """
    k, other = (f.double() @ f.double().T for f in (h, g))
    if unbiased:
        both, own, others = (float(hsic(a, b)) for a, b in ((k, other), (k, k), (other, other)))
        return both / (own * others) ** 0.5 if own > 0 and others > 0 else float("nan")
    a, b = ((m - m.mean(0) - m.mean(1, keepdim=True) + m.mean()) for m in (k, other))
    return float((a * b).sum() / (a.norm() * b.norm()))


class BatchedCka:
    """Unbiased linear CKA from batches: HSIC_1 terms are averaged, then divided (Nguyen, Raghu & Kornblith 2021).

    Example:
        >>> draw, total = torch.Generator().manual_seed(0), BatchedCka()
        >>> for _ in range(10):
        ...     h = torch.randn(16, 4, generator=draw)
        ...     total.add(h, h @ torch.eye(4).flip(0))
        >>> round(total.value, 6)
        1.0
    """

    def __init__(self) -> None:
        self._terms = [0.0, 0.0, 0.0]

    def add(self, h: Tensor, g: Tensor) -> None:
        """Take in one batch of the same samples, (samples, units) each."""
        k, other = (f.double() @ f.double().T for f in (h, g))
        for i, (a, b) in enumerate(((k, other), (k, k), (other, other))):
            self._terms[i] += float(hsic(a, b))

    @property
    def value(self) -> float:
        """CKA of all batches so far; NaN before the first."""
        both, own, others = self._terms
        return both / (own * others) ** 0.5 if own > 0 and others > 0 else float("nan")
