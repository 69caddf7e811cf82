"""Where two functions of one number cross, found by halving: there their minimum has a kink, and a choice between them jumps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.gaussian.quadrature import Map

GRID = 8193
NEAR, FAR = 1e-2, 1e3  # the grid is even within the one, of even ratios beyond, and ends at the other
HALVINGS = 64
MOST = 6  # the nearest to zero: every kink costs panels
ALIKE, TINY = 1e-11, 1e-14  # differences that count as none, in parts of the functions and by themselves


def crossings(f: Map, g: Map) -> tuple[float, ...]:
    """Places where f - g changes its sign, or begins or ceases to be zero; two are told apart if the grid does.

    Example:
        >>> [round(place, 9) for place in crossings(torch.square, torch.ones_like)]
        [-1.0, 1.0]
        >>> crossings(torch.exp, torch.zeros_like), len(crossings(torch.sin, torch.zeros_like))
        ((), 6)
    """
    step = torch.linspace(-1, 1, GRID, dtype=torch.float64) * math.asinh(FAR / NEAR)
    grid = NEAR * step.sinh() + 1.2345e-9  # off round numbers
    with torch.no_grad():
        gap, sign = _sides(f, g, grid)
        changes = sign[:-1].ne(sign[1:]) & ~(sign[:-1].isnan() | sign[1:].isnan())
        sharp = (sign[:-1] * sign[1:] < 0)[changes]  # between two numbers, else at the end of a stretch of zeros
        low, high, before, zone = grid[:-1][changes], grid[1:][changes], gap[:-1][changes].sign(), sign[:-1][changes]
        for _ in range(HALVINGS if len(low) else 0):
            middle = (low + high) / 2
            gap, sign = _sides(f, g, middle)
            same = torch.where(sharp, gap.sign() == before, sign == zone)
            low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        aside = high + 1e-3 * (1 + high.abs()) * torch.where(zone == 0, 1.0, -1.0)
        sure = sharp | (_sides(f, g, aside, 100.0)[1] != 0)  # not where they only come near, as a sigmoid to one
    found: list[float] = []
    places: list[float] = high[sure].tolist()
    for place in sorted(places, key=abs):
        if len(found) < MOST and all(abs(place - other) > 1e-9 * (1 + abs(place)) for other in found):
            found.append(place if abs(place) > 1e-12 else 0.0)
    return tuple(sorted(found))


def _sides(f: Map, g: Map, x: Tensor, times: float = 1.0) -> tuple[Tensor, Tensor]:
    """The difference, and its sign: zero where it is rounding, not a number where one of them has none."""
    one, other = f(x).double(), g(x).double()
    gap = one - other
    rounding = gap.isfinite() & (gap.abs() <= times * (ALIKE * (one.abs() + other.abs()) + TINY))
    return gap, torch.where(gap.isnan(), gap, torch.where(rounding, 0.0, gap.sign()))
