"""E[f(u) g(v)] as a power series in the correlation (Mehler): sum_k a_k(q1) b_k(q2) rho^k, a_k(q) = E[f(sqrt(q) z) he_k(z)].

he_k are normalised Hermite polynomials, so sum_k a_k^2 = E f^2, and what M terms leave out is at most
|rho|^M sqrt(tail(q1) tail(q2)), tail being what E f^2 has left: each entry knows whether it is done.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.gaussian.quadrature import Integrand, deviation, gaussian_nodes, hermite, shared_basis, shared_panels

LADDER = (48, 160, 512)
CHUNK = 1 << 16


def coefficients(f: Integrand, q: Tensor, terms: int) -> tuple[Tensor, Tensor, Tensor]:
    """a_k of a vector of variances, shape (terms, len(q)); with what each leaves of E f^2, and E f^2 itself.

    Example:
        >>> a, left, whole = coefficients(Integrand(lambda x: x**2), torch.tensor([1.0]), 4)
        >>> a[:, 0].round(decimals=6).abs(), bool(left < 1e-12), round(float(whole), 6)  # x^2 = 1 + sqrt(2) he_2
        (tensor([1.0000, 0.0000, 1.4142, 0.0000], dtype=torch.float64), True, 3.0)
    """
    found, whole = [], []
    for root in deviation(q).split(4096 if shared_panels(deviation(q), f) else max(1, (1 << 22) // (1024 * terms))):
        z, w = gaussian_nodes(root, f)
        y = f(root[:, None] * z)
        if count := shared_panels(root, f):
            found.append((y * w) @ shared_basis(count, f.nodes, terms, root.device))
        else:
            found.append(torch.einsum("qn,qnk->qk", y * w, hermite(z, terms)))
        whole.append((y * y * w).sum(1))
    a, total = torch.cat(found), torch.cat(whole)
    return a.T.contiguous(), (total - (a * a).sum(1)).clamp(min=0), total


def expand(f: Integrand, g: Integrand, rho: Tensor, q1: Tensor, q2: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """The series at every entry of ``rho``, and where it is not within the tolerance, relative to sqrt(E f^2 E g^2).

    q1 and q2 broadcast against rho, which has the full shape. Of f = g with itself the rest of the series is counted as its
    first term: exactly E f^2 on the diagonal, and smooth near it.

    Example:
        >>> f, rho, q = Integrand(torch.tanh), torch.tensor([0.5, 1.0], dtype=torch.float64), torch.tensor(1.0)
        >>> expand(f, f, rho, q, q, 1e-10)
        (tensor([0.1863, 0.3943], dtype=torch.float64), tensor([False, False]))
    """
    total, far = torch.empty_like(rho), torch.zeros(rho.shape, dtype=torch.bool, device=rho.device)
    if not rho.numel():
        return total, far
    (p1, at1), (p2, at2) = _distinct(q1), _distinct(q2)
    same = f == g and torch.equal(p1, p2)
    size = float(rho.abs().max())
    for terms in LADDER:
        a, ta, wa = coefficients(f, p1, terms)
        b, tb, wb = (a, ta, wa) if same else coefficients(g, p2, terms)
        if size**terms * float((_share(ta, wa) * _share(tb, wb)).sqrt()) <= tolerance:
            break
    (ta, wa), (tb, wb) = (ta.sqrt(), wa.sqrt()), (tb.sqrt(), wb.sqrt())
    at1, at2 = at1.expand(rho.shape), at2.expand(rho.shape)
    rows = max(1, CHUNK * len(rho) // rho.numel()) if rho.dim() else 1
    for i in range(0, len(rho) if rho.dim() else 1, rows):
        part = slice(i, i + rows) if rho.dim() else ()
        _horner(a, b, _narrow(at1[part]), _narrow(at2[part]), rho[part], total[part])
        left = rho[part].abs() ** terms * (ta[at1[part]] * tb[at2[part]])
        far[part] = left > tolerance * (wa[at1[part]] * wb[at2[part]])
        if f == g:
            total[part] += torch.where(rho[part] > 0, left, 0.0)
    return total, far


def _share(left: Tensor, whole: Tensor) -> Tensor:
    """The largest part of E f^2 that is left; none of a function that is zero."""
    return (left / torch.where(whole == 0, 1.0, whole)).max()


def _horner(a: Tensor, b: Tensor, at1: Tensor, at2: Tensor, rho: Tensor, out: Tensor) -> None:
    out.zero_()
    for ak, bk in zip(a.flip(0), b.flip(0), strict=True):
        out.mul_(rho).add_(ak[at1] * bk[at2])


def _narrow(index: Tensor) -> Tensor:
    """Without the axes that only repeat."""
    for axis, stride in enumerate(index.stride()):
        if stride == 0 and index.shape[axis] > 1:
            index = index.narrow(axis, 0, 1)
    return index


def _distinct(q: Tensor) -> tuple[Tensor, Tensor]:
    return torch.unique(q.double(), return_inverse=True)
