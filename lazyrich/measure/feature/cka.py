"""Linear centred kernel alignment of two sets of features, unbiased or plug-in, from terms that may be averaged over batches."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.errors import MetricError
from lazyrich.measure.feature.rows import pair
from lazyrich.tangent.alignment import centre, hsic


def cka(h: Tensor, g: Tensor, unbiased: bool = True) -> float:
    """<H K H, H L H> / (||H K H|| ||H L H||), K = h h^T, L = g g^T (Kornblith et al. 2019, arXiv:1905.00414).

    Unbiased: HSIC_1 in the numerator and in both denominators, so that independent features have mean about 0; it can be
    slightly negative. Plug-in: in [0, 1], near 1 for any features with many more units than samples.

    Args:
        h: (samples, units).
        g: (samples, other units).
        unbiased: whether.

    Raises:
        MetricError: for fewer than four samples (two if biased), or features without variance.

    Example:
        >>> h = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
        >>> round(cka(h, 3 * h), 6)
        1.0
    """
    if unbiased:
        return cka_of(cka_terms(h, g))
    k, other = (f @ f.T for f in pair(h, g))
    a, b = centre(k), centre(other)
    scale = float(a.norm() * b.norm())
    if scale <= 1e-14 * float(k.norm() * other.norm()):
        raise MetricError("all samples have the same features")
    return float((a * b).sum()) / scale


def cka_terms(h: Tensor, g: Tensor) -> Tensor:
    """HSIC_1 of both, of the first and of the second with themselves: unbiased, so means over batches are (Nguyen et al. 2021).

    Raises:
        MetricError: for fewer than four samples.

    Example:
        >>> cka_terms(torch.eye(5), torch.eye(5)).tolist()
        [0.0, 0.0, 0.0]
    """
    x, z = (f - f.mean(0) for f in pair(h, g, least=4))  # HSIC_1 does not see the mean, rounding does
    k, other = x @ x.T, z @ z.T
    return torch.stack([hsic(k, other), hsic(k, k), hsic(other, other)])


def cka_of(terms: Tensor) -> float:
    """Unbiased CKA from (mean) terms.

    Example:
        >>> cka_of(torch.tensor([1.0, 4.0, 1.0]))
        0.5
    """
    both, own, others = terms.tolist()
    if own <= 0 or others <= 0:
        raise MetricError("one set of features has no variance that so few samples could tell from none")
    return both / (own * others) ** 0.5
