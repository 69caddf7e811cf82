"""E[f(u) g(v)] by integration over the plane, entry by entry: slow, but good at any correlation.

In polar coordinates u = sqrt(q1) r cos(t), v = sqrt(q2) r cos(t - theta) a kink at zero is a ray, so that four sectors leave
nothing but smooth pieces, whatever the correlation. Other kinks, and variances so large that the function is sharp, are
integrated over v given u, with panels that follow the kinks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.gaussian.quadrature import FEATURES, WIDE, Integrand, between, deviation, panels

RADII = (0.0, 0.2, 0.5, 1.0, 1.75, 2.5, 3.5, 5.0, 7.5, 12.0)
SHARP = 12.0  # standard deviations beyond which the sectors would need more nodes
BATCH = 1 << 21  # evaluations at a time
LAYER = (-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0)  # around a kink of v seen from u, in units of its blur


def integrate(f: Integrand, g: Integrand, rho: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    """E[f(u) g(v)] for vectors of correlations and variances, in float64; exact one-dimensional integrals at rho = +-1.

    Example:
        >>> rho, q = torch.tensor([0.5, 1.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        >>> integrate(Integrand(torch.relu, (0.0,)), Integrand(torch.relu, (0.0,)), rho, q, q)
        tensor([0.3045, 0.5000], dtype=torch.float64)
    """
    result = torch.zeros_like(rho)
    line = rho.detach().abs() == 1
    sharp = torch.maximum(q1, q2).detach() > SHARP**2
    flat = all(k == 0 for k in (*f.kinks, *g.kinks))
    polar = ~line & ~sharp & flat
    for which, method in ((line, _line), (polar, _polar), (~line & ~polar, _nested)):
        at = which.nonzero(as_tuple=True)[0]
        if len(at):
            result = result.index_put((at,), method(f, g, rho[at], q1[at], q2[at]))
    return result


def _line(f: Integrand, g: Integrand, rho: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    """Both are multiples of one variable."""
    found = []
    for r, a, b in zip(rho.split(2048), deviation(q1).split(2048), deviation(q2).split(2048), strict=True):
        at = [(f, a), (g, r * b)]
        places = [
            k / root.abs().clamp(min=1e-150) * root.sign()
            for h, root in at
            for k in (*h.kinks, *FEATURES, *(-x for x in FEATURES))
        ]
        z, w = panels(torch.stack([torch.zeros_like(a), *places], 1), 32, f.nodes)
        found.append((f(a[:, None] * z) * g((r * b)[:, None] * z) * w).sum(1))
    return torch.cat(found)


def _polar(f: Integrand, g: Integrand, rho: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    a, b = deviation(q1), deviation(q2)
    theta = torch.atan2(((1 - rho) * (1 + rho)).clamp(min=1e-300).sqrt(), rho)
    size = f.nodes + 8 * math.ceil(float(torch.maximum(a, b).detach().max()))
    r, wr = between(torch.tensor([RADII], dtype=torch.float64, device=rho.device), f.nodes * 3 // 4)
    wr = wr * r * torch.exp(-r * r / 2) / (2 * math.pi)
    found = []
    each = max(1, BATCH // (r.numel() * 4 * size))
    for t, x, y in zip(theta.split(each), a.split(each), b.split(each), strict=True):
        start = torch.full_like(t, math.pi / 2)
        edges = torch.stack([start, start + t, start + math.pi, start + math.pi + t, start + 2 * math.pi], 1)
        angle, wt = between(edges, size)
        u = (x[:, None] * torch.cos(angle))[:, None] * r[0, :, None]
        v = (y[:, None] * torch.cos(angle - t[:, None]))[:, None] * r[0, :, None]
        found.append(torch.einsum("erk,ek,r->e", f(u) * g(v), wt, wr[0]))
    return torch.cat(found)


def _nested(f: Integrand, g: Integrand, rho: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    found = []
    for r, a, b in zip(rho.split(8), deviation(q1).split(8), deviation(q2).split(8), strict=True):
        found.append(_outer(f, g, r, a, b))
    return torch.cat(found)


def _outer(f: Integrand, g: Integrand, rho: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Given u, v is N(rho b z, b^2 (1 - rho^2)); panels of z follow the kinks of f, and those of g through that blur."""
    rest = ((1 - rho) * (1 + rho)).clamp(min=0).sqrt()
    first, second = (_places(h, root) for h, root in ((f, a), (g, b)))
    steep = rho.abs().clamp(min=1e-3)
    splits = [k / a.clamp(min=1e-150) for k in first]
    for k in second:
        centre = k / b.clamp(min=1e-150) * rho.sign() / steep
        splits += [centre + step * rest / steep for step in (LAYER if k in g.kinks else (0.0,))]
    z, w = panels(torch.stack([torch.zeros_like(rho), *splits], 1), 16, f.nodes)
    outer, found = w * f(a[:, None] * z), []
    for i in range(len(rho)):
        some = (outer[i] != 0) | outer.requires_grad  # a rectifier is zero at half of its nodes
        shift, scale = (rho[i] * b[i] * z[i, some])[:, None], b[i] * rest[i]
        kinks = [(k - shift) / scale.clamp(min=1e-150) for k in second]
        y, v = panels(torch.cat(kinks, 1) if kinks else torch.zeros_like(shift), 12, f.nodes)
        found.append((outer[i, some] * (g(shift + scale * y) * v).sum(1)).sum())
    return torch.stack(found)


def _places(h: Integrand, root: Tensor) -> tuple[float, ...]:
    wide = float(root.detach().max()) > WIDE / 2  # half of it: these panels are half as many
    return tuple(dict.fromkeys((*h.kinks, *((0.0, *FEATURES, *(-x for x in FEATURES)) if wide else ()))))
