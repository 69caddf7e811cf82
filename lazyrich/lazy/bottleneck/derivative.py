"""A Gaussian function together with its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.lazy.bottleneck.side import Side, gram


def derivative_covariance(decoder: Side, u: Tensor) -> Tensor:
    """Covariance of (g, dg/du_1, ..., dg/du_k) for g ~ GP(0, K), at the rows of u.

    Differentiation is linear, so Cov(g(u), d_j g(u')) = dK/du'_j and Cov(d_i g(u), d_j g(u')) = d^2 K/du_i du'_j
    (Rasmussen & Williams 2006, eq. 9.1). They are taken by autograd: K_ab depends on row a of u and row b of u' alone, so the
    derivatives of all pairs come from sums weighted by a w_ab, differentiated in w.

    Args:
        decoder: its ``nngp``, twice differentiable by autograd also at u = u' (a rectifier's is: the angle's gradient counts
            as zero there, where it has no weight).
        u: points, (N, k) float64.

    Returns:
        (1 + k, N, 1 + k, N): entry 0 is g itself, entry 1 + i the derivative along u_i.

    Raises:
        KernelError: for a kernel that cannot be differentiated twice.

    Example:
        >>> class Linear:
        ...     def nngp(self, x1, x2=None):
        ...         return x1 @ (x1 if x2 is None else x2).T
        ...     ntk = nngp
        >>> derivative_covariance(Linear(), torch.tensor([[2.0]], dtype=torch.float64)).reshape(2, 2).tolist()
        [[4.0, 2.0], [2.0, 1.0]]
    """
    n, k = u.shape
    with torch.enable_grad():
        first, second = u.detach().clone().requires_grad_(), u.detach().clone().requires_grad_()
        w = torch.ones(n, n, dtype=u.dtype, requires_grad=True)
        values = gram(decoder.nngp(first, second), (n, n), "the decoder's nngp")
        if not values.requires_grad:
            raise KernelError(
                "got a decoder kernel without gradients, expected one that autograd can differentiate in its inputs"
            )
        left = _grad((w * values).sum(), first)  # (N, k): sum_b w_ab dK_ab/du_a
        right = _grad((w * values).sum(), second)
        both = [_grad(left[:, i].sum(), second) for i in range(k)]  # (N, k): sum_a w_ab d^2 K_ab / du_ai du'_b
    found = torch.empty(1 + k, n, 1 + k, n, dtype=u.dtype)
    found[0, :, 0] = values.detach()
    for i in range(k):
        found[1 + i, :, 0] = _coefficients(left[:, i], w)
        found[0, :, 1 + i] = _coefficients(right[:, i], w)
        for j in range(k):
            found[1 + i, :, 1 + j] = _coefficients(both[i][:, j], w)
    if not bool(torch.isfinite(found).all()):
        raise KernelError("got second derivatives of the decoder's nngp that are not finite (at equal latents, as a rule), "
                          "expected a function with a gradient; take an activation without jumps")  # fmt: skip
    return found


def _grad(value: Tensor, of: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(of)
    found = torch.autograd.grad(value, of, create_graph=True, allow_unused=True)[0]
    return torch.zeros_like(of) if found is None else found


def _coefficients(rows: Tensor, w: Tensor) -> Tensor:
    """What multiplies each w_ab, for rows linear in w."""
    if not rows.requires_grad:
        return torch.zeros_like(w)
    found = torch.autograd.grad(rows.sum(), w, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(w) if found is None else found.detach()
