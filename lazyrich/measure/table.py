"""Rows of text as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> list[str]:
    r"""Lines with columns under each other and a rule below the header; numbers flush right, all but the first column.

    Example:
        >>> print(*table(["width", "loss"], [["64", "0.5"], ["128", "0.25"]]), sep="\n")
        width  loss
        -----------
        64      0.5
        128    0.25
    """
    sizes = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [cell.rjust(n) if numbers and i else cell.ljust(n) for i, (cell, n) in enumerate(zip(row, sizes, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
