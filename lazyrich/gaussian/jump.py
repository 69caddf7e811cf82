"""Where a function of one number jumps, found by halving: a smooth function's steps shrink with the intervals, a jump's do not."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.gaussian.quadrature import Map

GRID = 4097
HALVINGS = 32
LEAST = 1e-6  # smallest jump that counts, in parts of the function's size there


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
