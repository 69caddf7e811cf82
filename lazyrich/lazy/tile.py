"""The tiles of a matrix."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def squares(rows: int, columns: int, size: int, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    """Tiles of a matrix in rows; of a symmetric one those on and above the diagonal.

    Example:
        >>> [(r.start, c.start) for r, c in squares(4, 4, 2, symmetric=True)]
        [(0, 0), (0, 2), (2, 2)]
    """
    for i in range(0, rows, size):
        for j in range(i if symmetric else 0, columns, size):
            yield slice(i, min(i + size, rows)), slice(j, min(j + size, columns))


def keep_freed_memory() -> None:
    """Let the C allocator keep what tiles free, instead of giving it back and paging it in afresh for every array.

    glibc keeps up to twice the largest block that it has seen freed, and learns from blocks of at most 32 MiB. This one is
    never touched, so it costs no memory. Worth a third of the time of convolutional kernels.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
