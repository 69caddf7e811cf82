"""Dual activations of any function, by Hermite series away from |rho| = 1 and by direct integration near it.

With a_k(q) = E[phi(sqrt(q) z) he_k(z)], he_k normalised Hermite polynomials, E[phi(u) phi(v)] = sum_k a_k(q1) a_k(q2) rho^k,
rho = c / sqrt(q1 q2). What a series of M terms leaves out is at most |rho|^(M+1) sqrt(tail(q1) tail(q2)), tail being what is
left of E phi^2, so every entry is known to be within the tolerance, or is integrated directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from lazyrich.gaussian.dual import Dual

TERMS = 64
TOLERANCE = 1e-9
REACH = 12.0  # standard deviations that are integrated over
PANEL = 16  # Gauss-Legendre nodes a panel


@dataclass(frozen=True)
class Integrated(Dual):
    """The dual of ``function``, which is smooth but for its ``kinks``; its derivative is taken by autograd."""

    function: Callable[[Tensor], Tensor]
    kinks: tuple[float, ...] = ()

    def kernel(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """By series or directly, entry by entry."""
        return self._expand(c, q1, q2, (False,))[0]

    def slope(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """By series or directly, entry by entry."""
        return self._expand(c, q1, q2, (True,))[0]

    def both(self, c: Tensor, q1: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel and slope."""
        kernel, slope = self._expand(c, q1, q2, (False, True))
        return kernel, slope

    def variance(self, q: Tensor) -> Tensor:
        """E phi^2."""
        return self._moment(q, lambda x: self.function(x) ** 2)

    def slope_variance(self, q: Tensor) -> Tensor:
        """E phi'^2."""
        return self._moment(q, lambda x: self.derivative(x) ** 2)

    def mean(self, q: Tensor) -> Tensor:
        """E phi."""
        return self._moment(q, self.function)

    def derivative(self, x: Tensor) -> Tensor:
        """Phi'."""
        tracked = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            y = x if tracked else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.function(y).sum(), y, create_graph=tracked)
        return slope

    def _moment(self, q: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        flat = q.detach().double().flatten() if not q.requires_grad else q.double().flatten()
        values, back = (flat, None) if flat.requires_grad else torch.unique(flat, return_inverse=True)
        z, w = nodes(values.clamp(min=0).sqrt(), self.kinks)
        result = (of(values.clamp(min=0).sqrt()[:, None] * z) * w).sum(1)
        return (result if back is None else result[back]).reshape(q.shape).to(q.dtype)

    def coefficients(self, q: Tensor, of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """a_k of every variance, q.shape + (TERMS,), and the tails that the series leaves out."""
        flat = q.double().flatten()
        values, back = (flat, None) if flat.requires_grad else torch.unique(flat, return_inverse=True)
        root = values.clamp(min=0).sqrt()
        found, tails = [], []
        for part in root.split(4096):
            z, w = nodes(part, self.kinks)
            f = of(part[:, None] * z)
            a = torch.einsum("qn,qnk->qk", f * w, hermite(z)) if len(z) > 1 else (f * w) @ hermite(z[0])
            found.append(a)
            tails.append(((f * f * w).sum(1) - (a * a).sum(1)).clamp(min=0))
        a, tail = torch.cat(found), torch.cat(tails)
        if back is not None:
            a, tail = a[back], tail[back]
        return a.reshape(*q.shape, TERMS), tail.reshape(q.shape)

    def _expand(self, c: Tensor, q1: Tensor, q2: Tensor, slopes: tuple[bool, ...]) -> list[Tensor]:
        dtype = torch.promote_types(c.dtype, q1.dtype)
        c64, p1, p2 = c.double(), q1.double(), q2.double()
        s = (p1.clamp(min=0).sqrt() * p2.clamp(min=0).sqrt()).expand(torch.broadcast_shapes(c.shape, q1.shape, q2.shape))
        rho = torch.where(s > 0, c64 / s.clamp(min=1e-300), torch.zeros_like(s)).clamp(-1, 1)
        results = []
        for is_slope in slopes:
            of = self.derivative if is_slope else self.function
            a1, t1 = self.coefficients(p1, of)
            a2, t2 = (a1, t1) if p1 is p2 else self.coefficients(p2, of)
            size = rho.detach().abs()
            left = size ** (TERMS + 1) * (t1 * t2).detach().sqrt()
            terms = TERMS
            total = a1[..., terms - 1] * a2[..., terms - 1] * torch.ones_like(rho)
            for k in range(terms - 2, -1, -1):
                total = torch.addcmul(a1[..., k] * a2[..., k], total, rho)
            far = left > TOLERANCE
            if bool(far.any()):
                at = far.nonzero(as_tuple=True)
                wide = [t.expand(rho.shape)[at] for t in (p1, p2)]
                total = total.index_put(at, self._near(rho[at], wide[0], wide[1], of))
            results.append(total.to(dtype))
        return results

    def _near(self, rho: Tensor, q1: Tensor, q2: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        """Entries near |rho| = 1: where it is 1 up to rounding, v is a multiple of u and one integral is left."""
        line = 1 - rho.detach().abs() < 4e-16
        found = torch.empty_like(rho)
        if bool(line.any()):
            found = found.index_put((line.nonzero(as_tuple=True)[0],), self._line(rho[line].sign(), q1[line], q2[line], of))
        if not bool(line.all()):
            rest = ~line
            found = found.index_put((rest.nonzero(as_tuple=True)[0],), self._direct(rho[rest], q1[rest], q2[rest], of))
        return found

    def _line(self, sign: Tensor, q1: Tensor, q2: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        """E[f(sqrt(q1) z) f(+-sqrt(q2) z)]."""
        a, b = q1.clamp(min=0).sqrt(), sign * q2.clamp(min=0).sqrt()
        splits = [k / root.abs().clamp(min=1e-150) * root.sign() for k in self.kinks for root in (a, b)]
        found = []
        for rows in torch.arange(len(a)).split(2048):
            z, w = _panels(torch.stack([s[rows] for s in splits], 1) if splits else a.new_zeros(1, 0), 32)
            found.append((of(a[rows, None] * z) * of(b[rows, None] * z) * w).sum(1))
        return torch.cat(found)

    def _direct(self, rho: Tensor, q1: Tensor, q2: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        """E[f(u) f(v)] by panels in u, and for each u in v given u; panels are split where f has a kink."""
        found = []
        for r, a, b in zip(rho.split(64), q1.sqrt().split(64), q2.sqrt().split(64), strict=True):
            found.append(_double(r, a, b, self.kinks, of))
        return torch.cat(found)


def _double(rho: Tensor, a: Tensor, b: Tensor, kinks: tuple[float, ...], of: Callable[[Tensor], Tensor]) -> Tensor:
    rest = ((1 - rho) * (1 + rho)).clamp(min=0).sqrt()
    # where the inner integral, as a function of z1, bends: within a few rest / |rho| of the kink of v
    bends = [torch.full_like(rho, k) / a.clamp(min=1e-150) for k in kinks]
    for k in kinks:
        centre = k / (rho * b).where(rho.abs() > 1e-3, torch.full_like(rho, 1e300))
        bends += [centre + step * rest / rho.abs().clamp(min=1e-3) for step in (-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0)]
    z, w = _panels(torch.stack(bends, 1) if bends else rho.new_zeros(1, 0), 12 if kinks else 8)
    first = of(a[:, None] * z)
    shift, scale = rho[:, None] * b[:, None] * z, b[:, None] * rest[:, None]
    inner_kinks = [(k - shift) / scale.clamp(min=1e-150) for k in kinks]
    n, m = len(rho), z.shape[1]
    splits = torch.stack(inner_kinks, -1).reshape(n * m, -1) if kinks else z.new_zeros(1, 0)
    y, v = _panels(splits, 8)
    second = of(shift.reshape(-1, 1) + scale.expand(n, m).reshape(-1, 1) * y)
    return (w * first * (second * v).sum(1).reshape(n, m)).sum(1)


def nodes(root: Tensor, kinks: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Nodes and Gaussian weights for integrals over z of functions of root * z; one row for all where no kink moves."""
    if not any(kinks):
        splits = root.new_zeros(1, 1 if kinks else 0)
    else:
        splits = torch.stack([k / root.clamp(min=1e-150) for k in kinks], 1)
    return _panels(splits, 32)


def _panels(splits: Tensor, panels: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes on panels of [-REACH, REACH], also split at the given points (rows, points)."""
    grid = torch.linspace(-REACH, REACH, panels + 1, dtype=torch.float64, device=splits.device)
    edges = torch.cat([grid.expand(len(splits), -1), splits.double().nan_to_num(0.0).clamp(-REACH, REACH)], 1).sort(1).values
    x, w = _legendre()
    half = (edges[:, 1:] - edges[:, :-1]) / 2
    z = (edges[:, 1:] + edges[:, :-1])[..., None] / 2 + half[..., None] * x.to(edges)
    weights = half[..., None] * w.to(edges) * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return z.flatten(1), weights.flatten(1)


@cache
def _legendre() -> tuple[Tensor, Tensor]:
    x, w = np.polynomial.legendre.leggauss(PANEL)
    return torch.from_numpy(x), torch.from_numpy(w)


def hermite(z: Tensor) -> Tensor:
    """Normalised Hermite polynomials, z.shape + (TERMS,)."""
    values = [torch.ones_like(z), z]
    for k in range(1, TERMS - 1):
        values.append((z * values[k] - math.sqrt(k) * values[k - 1]) / math.sqrt(k + 1))
    return torch.stack(values, -1)


def estimate(made: Integrated) -> float:
    """Largest difference between the two ways of integrating, over a few variances and correlations."""
    worst = 0.0
    for q in (0.1, 1.0, 4.0):
        one = torch.tensor([q], dtype=torch.float64)
        for rho in (0.3, -0.6):
            series = made.kernel(rho * one, one, one)
            direct = made._direct(torch.tensor([rho], dtype=torch.float64), one, one, made.function)
            worst = max(worst, float((series - direct).abs().max()))
    return worst
