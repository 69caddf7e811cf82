"""Where a function of one number jumps, found by halving: a smooth function's steps shrink with the intervals, a jump's do not.

What jumps J_i at z_i add to d/dc E[f(u) f(v)] = E[f'(u) f'(v)], as f' = g + sum_i J_i delta(x - z_i) with g as autograd has it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.gaussian.dual import correlation
from lazyrich.gaussian.quadrature import FEATURES, Integrand, Map, deviation, panels

GRID = 4097
HALVINGS = 32
LEAST = 1e-6  # smallest jump that counts, in parts of the function's size there
STEP = 1e-6  # to either side of a jump, from where its size is extrapolated
CHUNK = 1 << 11


def jumps(f: Map, reach: float) -> tuple[float, ...]:
    """Places in [-reach, reach] where f jumps; two of them are told apart if a grid of 4096 intervals does.

    Example:
        >>> [round(place, 6) for place in jumps(lambda x: x.clamp(-1, 1) + (x > 2.5), 12.0)]
        [2.5]
        >>> jumps(torch.tanh, 12.0)
        ()
    """
    edges = torch.linspace(-reach, reach, GRID, dtype=torch.float64)
    edges = edges + 1e-7 * reach / GRID  # off round numbers, so that a jump has values of f on both sides
    low, high = edges[:-1], edges[1:]
    at_low, at_high = f(low), f(high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        value = f(middle)
        left = (value - at_low).abs() >= (at_high - value).abs()
        low, at_low = torch.where(left, low, middle), torch.where(left, at_low, value)
        high, at_high = torch.where(left, middle, high), torch.where(left, value, at_high)
    sure = (at_high - at_low).abs() > LEAST * (at_low.abs() + at_high.abs()) / 2 + 1e-9 * _size(at_low)
    places = ((low + high) / 2)[sure].tolist()
    return tuple(0.0 if abs(place) < 1e-8 * reach else place for place in places)


def _size(values: Tensor) -> float:
    """The largest finite absolute value."""
    finite = values[values.isfinite()].abs()
    return float(finite.max()) if len(finite) else 0.0


def sizes(f: Map, places: tuple[float, ...]) -> Tensor:
    """What f jumps by at these places, upwards positive.

    Example:
        >>> sizes(lambda x: x + 3 * (x > 2), (1.0, 2.0)).round(decimals=6).abs()
        tensor([0., 3.], dtype=torch.float64)
    """
    at = torch.tensor(places, dtype=torch.float64)
    near, far = (f(at + step) - f(at - step) for step in (STEP, 2 * STEP))
    return 2 * near - far


def added(f: Integrand, places: tuple[float, ...], c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    """What jumps at ``places`` add to d/dc E[f(u) f(v)], in float64; infinite where u and v jump as one.

    Example:
        >>> one = torch.ones((), dtype=torch.float64)  # of sign (2/pi) / sqrt(1 - c^2)
        >>> round(float(added(Integrand(torch.sign, (0.0,)), (0.0,), 0.6 * one, one, one)) * math.pi / 2, 6)
        1.25
    """
    rho = correlation(c, q1, q2)
    rho, a, b = (t.flatten() for t in torch.broadcast_tensors(rho, deviation(q1), deviation(q2)))
    slope = Integrand(f.derivative.function, tuple(sorted({*f.kinks, *places})), f.nodes)
    total, heights = torch.zeros_like(rho), sizes(f.function, places).tolist()
    for place, height in zip(places, heights, strict=True):
        total = total + height * (_seen(slope, place, rho, a, b) + _seen(slope, place, rho, b, a))
        for other, partner in zip(places, heights, strict=True):
            total = total + height * partner * _density(place, other, rho, a, b)
    return total.reshape(torch.broadcast_shapes(c.shape, q1.shape, q2.shape))


def _seen(g: Integrand, place: float, rho: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The density of u at a place times E[g(v)] given u there; u and v with deviations a and b."""
    found = []
    for r, x, y in zip(rho.split(CHUNK), a.split(CHUNK), b.split(CHUNK), strict=True):
        at = place / x.clamp(min=1e-150)
        mean, blur = r * y * at, y * ((1 - r) * (1 + r)).sqrt()
        bends = (*g.kinks, *FEATURES, *(-bend for bend in FEATURES))
        z, w = panels(torch.stack([(bend - mean) / blur.clamp(min=1e-150) for bend in bends], 1), 32, g.nodes)
        found.append(_bell(at) / x * (g(mean[:, None] + blur[:, None] * z) * w).sum(1))
    return torch.cat(found).nan_to_num(0.0, posinf=math.inf, neginf=-math.inf)


def _density(place: float, other: float, rho: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """That of (u, v) at a pair of places, by way of u + v and u - v: no digits are lost near rho = +-1."""
    x, y = place / a.clamp(min=1e-150), other / b.clamp(min=1e-150)
    apart, together = (x - y) ** 2 / (2 * (1 - rho)), (x + y) ** 2 / (2 * (1 + rho))
    exponent = apart.nan_to_num(0.0, posinf=math.inf) + together.nan_to_num(0.0, posinf=math.inf)
    height = torch.exp(-exponent / 2)
    return torch.where(height == 0, 0.0, height / (2 * math.pi * a * b * ((1 - rho) * (1 + rho)).sqrt()))


def _bell(x: Tensor) -> Tensor:
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
