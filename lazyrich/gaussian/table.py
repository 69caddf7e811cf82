"""E[f(u) g(v)] at very many entries: Chebyshev interpolation in the angle and in the logarithms of the variances.

What is interpolated is E[f g] / sqrt(E f^2 E g^2), so that small values keep their digits next to large ones. In the angle
arccos(rho) the expectation is analytic up to rho = +-1, even for functions with a kink at zero. Other kinks leave layers near 0
and pi whose width is unknown: there the angle is cut into halves of halves, and every pair of variances has a table of its own.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lazyrich.gaussian.plane import integrate
from lazyrich.gaussian.quadrature import Integrand, expectation

ANGLES = 24
MOST = 24  # nodes a variance
STRIP = 1.2  # how far from real logarithms the expectation is trusted to be smooth
SAMPLE = 24
FEW = 400  # entries not worth a table
CHUNK = 1 << 12


def tabulate(f: Integrand, g: Integrand, rho: Tensor, q1: Tensor, q2: Tensor, tolerance: float) -> Tensor:
    """E[f(u) g(v)] for vectors of entries; integrated one by one where they are few or a table misses the tolerance.

    The tolerance is relative to sqrt(E f^2 E g^2).

    Example:
        >>> f = Integrand(torch.relu, (0.0,))
        >>> rho = torch.linspace(0.99, 1, 1000, dtype=torch.float64)
        >>> float((tabulate(f, f, rho, torch.ones(1000), torch.ones(1000), 1e-9)[-1] - 0.5).abs()) < 1e-12
        True
    """
    q1, q2 = q1.double().expand(rho.shape), q2.double().expand(rho.shape)
    result = torch.empty_like(rho)
    easy = (rho.abs() == 1) | (q1 == 0) | (q2 == 0)
    if easy.any():
        result[easy] = _each(f, g, rho[easy], q1[easy], q2[easy])
    pairs, group = _groups(f, g, q1, q2)
    for side in (1, -1):
        for i in range(pairs):
            at = (~easy & (group == i) & ((rho >= 0) if side > 0 else (rho < 0))).nonzero(as_tuple=True)[0]
            if len(at):
                result[at] = _one(f, g, rho[at], q1[at], q2[at], side, tolerance)
    return result


def _groups(f: Integrand, g: Integrand, q1: Tensor, q2: Tensor) -> tuple[int, Tensor]:
    """One for all where the variances can be interpolated, one a pair where they cannot and are few."""
    if all(k == 0 for k in (*f.kinks, *g.kinks)):
        return 1, torch.zeros(len(q1), dtype=torch.long, device=q1.device)
    pairs, group = torch.unique(torch.stack([q1, q2], 1), dim=0, return_inverse=True)
    if len(pairs) * FEW > len(q1):
        return 1, torch.zeros(len(q1), dtype=torch.long, device=q1.device)
    return len(pairs), group


def _each(f: Integrand, g: Integrand, rho: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    entries, back = torch.unique(torch.stack([rho, q1, q2], 1), dim=0, return_inverse=True)
    return integrate(f, g, *entries.unbind(1))[back]


def _one(f: Integrand, g: Integrand, rho: Tensor, q1: Tensor, q2: Tensor, side: int, tolerance: float) -> Tensor:
    """The entries of one sign of rho; the angle is counted from that end."""
    angle = torch.atan2(((1 - rho) * (1 + rho)).sqrt(), rho.abs())
    logs = (q1.log(), q2.log())
    sizes = [_nodes_for(x) for x in logs]
    if any(k for k in (*f.kinks, *g.kinks)):
        edges = _halves(float(angle.min()), float(angle.max())) if sizes == [1, 1] else None
    else:
        low, high = float(angle.min()), float(angle.max())
        edges = list(np.linspace(low, high, 1 + max(1, math.ceil((high - low) / 0.6))))
    if edges is None or max(sizes) > MOST or math.prod(sizes) * ANGLES * (len(edges) - 1) * 2 > len(rho):
        return _each(f, g, rho, q1, q2)
    result = torch.empty_like(rho)
    for low, high in zip(edges, edges[1:], strict=False):
        at = ((angle >= low) & (angle <= high)).nonzero(as_tuple=True)[0]
        if len(at):
            result[at] = _interpolate(f, g, angle[at], [x[at] for x in logs], sizes, (low, high), side)
    size = _norm(f, q1) * _norm(g, q2)
    sample = torch.linspace(0, len(rho) - 1, SAMPLE, device=rho.device).long()
    exact = integrate(f, g, rho[sample], q1[sample], q2[sample])
    good = bool(((result[sample] * size[sample] - exact).abs() <= tolerance * size[sample]).all())
    return result * size if good else _each(f, g, rho, q1, q2)


def _norm(f: Integrand, q: Tensor) -> Tensor:
    """Sqrt(E f^2)."""
    return expectation(Integrand(lambda x: f(x) ** 2, f.kinks, f.nodes), q).sqrt()


def _interpolate(
    f: Integrand, g: Integrand, angle: Tensor, logs: list[Tensor], sizes: list[int], span: tuple, side: int
) -> Tensor:
    spans = [span, *((float(x.min()), float(x.max())) for x in logs)]
    counts = [ANGLES, *sizes]
    points = [_chebyshev(n, low, high).to(angle.device) for n, (low, high) in zip(counts, spans, strict=True)]
    grid = torch.meshgrid(*points, indexing="ij")
    q1, q2 = grid[1].exp().flatten(), grid[2].exp().flatten()
    values = integrate(f, g, side * torch.cos(grid[0].flatten()), q1, q2) / (_norm(f, q1) * _norm(g, q2))
    table = values.reshape(counts[0] * counts[1], counts[2])
    found = []
    for parts in zip(angle.split(CHUNK), *(x.split(CHUNK) for x in logs), strict=True):
        t, x, y = (_barycentric(p, v) for p, v in zip(points, parts, strict=True))
        found.append(torch.einsum("nab,na,nb->n", (y @ table.T).reshape(len(y), counts[0], counts[1]), t, x))
    return torch.cat(found)


def _nodes_for(logs: Tensor) -> int:
    half = float(logs.max() - logs.min()) / 2
    return 1 if half == 0 else 2 + math.ceil(23 / math.asinh(STRIP / half))


def _halves(low: float, high: float) -> list[float]:
    edges = [high]
    while edges[-1] > max(low, 1e-9):
        edges.append(edges[-1] / 2)
    return sorted([*edges[:-1], low])


def _chebyshev(size: int, low: float, high: float) -> Tensor:
    nodes = -np.cos(np.pi * (np.arange(size) + 0.5) / size)
    return torch.from_numpy((low + high) / 2 + (high - low) / 2 * nodes)


def _barycentric(nodes: Tensor, x: Tensor) -> Tensor:
    """Interpolation weights (len(x), nodes), rows that sum to one (Berrut & Trefethen 2004, Eq. (4.2))."""
    size = len(nodes)
    k = torch.arange(size, dtype=torch.float64, device=x.device)
    weights = torch.sin(math.pi * (k + 0.5) / size) * (1 - 2 * (k % 2))
    gap = x[:, None] - nodes
    hit = gap == 0
    ratio = weights / torch.where(hit, 1.0, gap)
    ratio = torch.where(hit.any(1, keepdim=True), hit.double(), ratio)
    return ratio / ratio.sum(1, keepdim=True)
