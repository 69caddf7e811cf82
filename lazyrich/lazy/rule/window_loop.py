"""Sums over windows of positions in one pass over the arrays, compiled (``lazyrich.compiled``)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lazyrich import compiled

Shift = tuple[int, Tensor]  # by how much on the flat axis, and one where it stays inside, else zero


@dataclass(frozen=True)
class Slide:
    """Shifts along one axis of positions after the other, two by two: their number an axis, by how much each, and masks of ones."""

    counts: tuple[int, ...]
    by: tuple[int, ...]
    masks: Tensor

    @classmethod
    def of(cls, axes: Sequence[Sequence[Shift]]) -> Slide:
        """From the shifts of each axis."""
        even = [[*shifts, (0, torch.zeros_like(shifts[0][1]))] if len(shifts) % 2 else list(shifts) for shifts in axes]
        masks = torch.stack([mask for shifts in even for _, mask in shifts])
        return cls(tuple(map(len, even)), tuple(by for shifts in even for by, _ in shifts), masks)


def slide(rows: Tensor, shifts: Slide) -> Tensor:
    """Of every row of (rows, positions) the sum with its shifts, mask_j row_{j + by}, along one axis after the other.

    Example:
        >>> rows, after = torch.tensor([[1.0, 2.0, 3.0]]), (1, torch.tensor([1.0, 1.0, 0.0]))
        >>> slide(rows, Slide.of([[after]])) if compiled.start() else torch.tensor([[3.0, 5.0, 3.0]])  # loops are Linux's
        tensor([[3., 5., 3.]])
    """
    rows = rows.contiguous()
    total = torch.empty_like(rows)
    walk = np.array([*rows.shape, len(shifts.counts), len(shifts.by), *shifts.counts, *shifts.by], dtype=np.int64)
    loop(rows.dtype)((rows, total, shifts.masks, walk), rows.numel())
    return total


@functools.cache
def loop(dtype: torch.dtype) -> Callable[[Sequence[Tensor | np.ndarray], int], None]:
    """For one precision: a row stays in the cache for all of its axes and shifts, which go two by two."""
    from numba import carray, njit

    real, share = compiled.real(dtype), compiled.share()

    @njit(inline="always")
    def border(out, below, row, by1, mask1, by2, mask2, low, high):
        for j in range(low, high):
            out[j] = below[j]
            if 0 <= j + by1 < len(row):
                out[j] += mask1[j] * row[j + by1]
            if 0 <= j + by2 < len(row):
                out[j] += mask2[j] * row[j + by2]

    @njit(fastmath={"contract"})
    def inside(out, below, mask1, row1, mask2, row2):
        for j in range(len(out)):
            out[j] = below[j] + mask1[j] * row1[j] + mask2[j] * row2[j]

    @njit
    def pair(out, below, row, by1, mask1, by2, mask2):
        n = len(row)
        low, high = max(0, -by1, -by2), n - max(0, by1, by2)
        border(out, below, row, by1, mask1, by2, mask2, 0, low)
        here = slice(low, high)
        first, second = row[low + by1 : high + by1], row[low + by2 : high + by2]
        inside(out[here], below[here], mask1[here], first, mask2[here], second)
        border(out, below, row, by1, mask1, by2, mask2, high, n)

    def walk(data):
        sizes = carray(data[3], 4, np.int64)
        rows, n, axes, shifts = sizes[0], sizes[1], sizes[2], sizes[3]
        by = carray(data[3], 4 + axes + shifts, np.int64)
        given, total = carray(data[0], rows * n, real), carray(data[1], rows * n, real)
        masks, kept = carray(data[2], shifts * n, real), np.empty(n, real)
        start, stop = share(rows)
        for i in range(start, stop):
            row, k = given[i * n : (i + 1) * n], 4 + axes
            for axis in range(axes):
                out = total[i * n : (i + 1) * n] if (axes - axis) % 2 else kept
                below = row
                for _ in range(by[4 + axis] // 2):
                    at = (k - 4 - axes) * n
                    pair(out, below, row, by[k], masks[at : at + n], by[k + 1], masks[at + n : at + 2 * n])
                    below, k = out, k + 2
                row = out

    return compiled.loop(walk)
