"""A check over depth as the page reads it: frozen, with every number finite or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazyrich.errors import ReportError
from lazyrich.layer import shown
from lazyrich.report.node import Node
from lazyrich.report.result import VERDICTS, pairs

Number = float | None


@dataclass(frozen=True)
class DepthRow:
    """One quantity of one layer; ``values`` by seed and depth."""

    layer: str
    quantity: str
    slope: Number
    low: Number
    high: Number
    predicted: Number
    verdict: str
    values: tuple[tuple[Number, ...], ...]


@dataclass(frozen=True)
class DepthPage:
    """Everything that the page shows of one check over depth."""

    title: str
    word: str
    sentence: str
    depths: tuple[int, ...]
    rows: tuple[DepthRow, ...]
    settings: tuple[tuple[str, str], ...]
    command: str
    date: str

    def of(self, quantity: str) -> dict[str, DepthRow]:
        """Rows of one quantity, by layer."""
        return {row.layer: row for row in self.rows if row.quantity == quantity}


def read_depth(value: Mapping[str, Any], path: str = "result") -> DepthPage:
    """Read one mapping of kind ``depth``.

    Raises:
        ReportError: a key is missing, or holds something of another kind; the message names its path.

    Example:
        >>> read_depth({"kind": "depth", "title": "net"})
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: result: got no key 'word', expected one; ...
    """
    node = Node(value, path)
    word = node.text("word")
    if word not in VERDICTS:
        raise ReportError(f"{path}.word: got '{word}', expected one of {', '.join(VERDICTS)}; run lazyrich depth again")
    depths = tuple(int(v or 0) for v in node.numbers("depths"))
    rows = tuple(_row(n, len(depths)) for n in node.nodes("lines"))
    found = node.node("settings")
    first = next(iter(found.value), None)
    settings = pairs(found.node(first)) if first is not None else ()
    return DepthPage(
        node.text("title"), word, node.text("sentence"), depths, rows, settings, node.text("command", ""), node.text("date", "")
    )


def _row(node: Node, depths: int) -> DepthRow:
    values = [
        Node({"row": row}, f"{node.path}.values[{i}]").numbers("row") for i, row in enumerate(node.value.get("values") or [])
    ]
    if any(len(row) != depths for row in values):
        raise ReportError(f"{node.path}.values: expected {depths} numbers a seed, one a depth; run lazyrich depth again")
    slope, low, high, predicted = (node.number(k) for k in ("slope", "low", "high", "predicted"))
    return DepthRow(
        shown(node.text("layer")), node.text("quantity"), slope, low, high, predicted, node.text("verdict", ""), tuple(values)
    )
