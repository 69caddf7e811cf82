"""The tiles of a matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor


def squares(rows: int, columns: int, size: int, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    """Tiles of a matrix in rows; of a symmetric one those on and above the diagonal.

    Example:
        >>> [(r.start, c.start) for r, c in squares(4, 4, 2, symmetric=True)]
        [(0, 0), (0, 2), (2, 2)]
    """
    for i in range(0, rows, size):
        for j in range(i if symmetric else 0, columns, size):
            yield slice(i, min(i + size, rows)), slice(j, min(j + size, columns))


def strips(n: int, area: int) -> Iterator[tuple[slice, slice]]:
    """The upper half of a symmetric matrix in tiles of at most ``area`` entries, rows of them from the diagonal to the border.

    Low strips hold less below the diagonal, high ones are fewer: a tile costs as much as a quarter of ``area`` besides its entries.

    Example:
        >>> [(r.start, r.stop, c.start, c.stop) for r, c in strips(5, 8)]
        [(0, 1, 0, 5), (1, 2, 1, 5), (2, 3, 2, 5), (3, 4, 3, 5), (4, 5, 4, 5)]
    """
    least = math.ceil(n / math.isqrt(area))
    heights = {math.ceil(n / parts) for parts in (least, least + 1, 3 * least // 2 + 1, 2 * least, 3 * least, 4 * least)}

    def parts(i: int, height: int) -> int:
        return math.ceil((n - i) / (area // height))

    def cost(height: int) -> float:
        return sum(min(height, n - i) * (n - i) + parts(i, height) * area / 4 for i in range(0, n, height))

    height = min(sorted(heights), key=cost)
    for i in range(0, n, height):
        width = max(math.ceil((n - i) / parts(i, height)), height)  # the first tile holds all of the diagonal
        for j in range(i, n, width):
            yield slice(i, min(i + height, n)), slice(j, min(j + width, n))


def place(whole: Tensor, rows: slice, columns: slice, values: Tensor, symmetric: bool) -> None:
    """Put a tile into its matrix; of a symmetric one into both halves.

    Example:
        >>> whole = torch.zeros(2, 2)
        >>> place(whole, slice(0, 1), slice(0, 2), torch.tensor([[1.0, 2.0]]), symmetric=True)
        >>> whole.tolist()
        [[1.0, 2.0], [2.0, 0.0]]
    """
    whole[rows, columns] = values
    if symmetric:
        at = slice(rows.stop if rows.start == columns.start else columns.start, columns.stop)
        whole[at, rows] = values[:, at.start - columns.start :].transpose(0, 1)
        if rows.start == columns.start and values.dim() == 2 and not values.requires_grad:
            _mirror(whole[rows, rows])  # products round differently on either side of the diagonal


def _mirror(square: Tensor) -> None:
    """The half below the diagonal from the half above it, quarter by quarter."""
    half = len(square) // 2
    if half < 64:
        square.triu_().add_(square.triu(1).T)
        return
    square[half:, :half] = square[:half, half:].T
    _mirror(square[:half, :half])
    _mirror(square[half:, half:])


def gram(first: Tensor, second: Tensor, alone: bool, full: bool) -> Tensor:
    """Mean products over the last axis of (N, P, C) tensors.

    Example:
        >>> gram(torch.eye(2)[None], torch.ones(1, 2, 2), alone=False, full=False).tolist()
        [[[0.5, 0.5]]]
    """
    n, p, c = first.shape
    if alone:
        return torch.einsum("npc,nqc->npq", first, second) / c if full else (first * second).mean(-1)
    if p == 1:
        return _over(first[:, 0] @ second[:, 0].T, c).reshape(n, len(second), 1, *((1,) if full else ()))
    if full:
        k = _over(first.reshape(n * p, c) @ second.reshape(-1, c).T, c)
        return k.reshape(n, p, len(second), p).transpose(1, 2)
    return _over(torch.einsum("npc,mpc->nmp", first, second), c)


def _over(k: Tensor, c: int) -> Tensor:
    """Fresh sums over c features as means: divided, as those of samples with themselves are, to the same last digit."""
    return k / c if k.requires_grad or not k.is_floating_point() else k.div_(c)
