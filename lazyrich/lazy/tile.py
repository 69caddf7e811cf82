"""The tiles of a matrix."""

from __future__ import annotations

from collections.abc import Iterator


def squares(rows: int, columns: int, size: int, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    """Tiles of a matrix in rows; of a symmetric one those on and above the diagonal.

    Example:
        >>> [(r.start, c.start) for r, c in squares(4, 4, 2, symmetric=True)]
        [(0, 0), (0, 2), (2, 2)]
    """
    for i in range(0, rows, size):
        for j in range(i if symmetric else 0, columns, size):
            yield slice(i, min(i + size, rows)), slice(j, min(j + size, columns))
