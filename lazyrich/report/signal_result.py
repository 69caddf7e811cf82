"""What an initialisation does to signals, as the page reads it: frozen, with every number finite or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazyrich.errors import ReportError
from lazyrich.layer import shown
from lazyrich.report.node import Node
from lazyrich.report.result import pairs

Number = float | None
Drawn = tuple[Number, Number, Number]  # mean, its spread over draws, prediction


@dataclass(frozen=True)
class SignalRow:
    """One layer."""

    layer: str
    level: Drawn
    correlation: Drawn
    gradient: Drawn


@dataclass(frozen=True)
class PhasePlane:
    """Where the hidden layers stand in the plane of their activation."""

    activation: str
    word: str
    sentence: str
    points: tuple[tuple[str, Number, Number, Number, Number], ...]  # layer, sigma_w^2, sigma_b^2, chi_perp, chi_parallel
    edge: tuple[tuple[Number, Number], ...]
    beyond: str = "chaotic"
    border: tuple[tuple[Number, Number], ...] = ()


@dataclass(frozen=True)
class SignalPage:
    """Everything that the page shows of one study of an initialisation."""

    title: str
    sentence: str
    reason: str
    inputs: tuple[Number, Number]
    rows: tuple[SignalRow, ...]
    phase: PhasePlane | None
    no_phase: str
    settings: tuple[tuple[str, str], ...]
    command: str
    date: str
    versions: tuple[tuple[str, str], ...] = ()


def read_signals(value: Mapping[str, Any], path: str = "result") -> SignalPage:
    """Read one mapping of kind ``signals``.

    Raises:
        ReportError: a key is missing, or holds something of another kind; the message names its path.

    Example:
        >>> read_signals({"kind": "signals", "title": "mlp"})
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: result: got no key 'lines', expected one; ...
    """
    node = Node(value, path)
    rows = tuple(
        SignalRow(shown(n.text("layer")), *(_drawn(n, what) for what in ("level", "correlation", "gradient")))
        for n in node.nodes("lines")
    )
    if not rows:
        raise ReportError(f"{path}.lines: got none, expected at least one layer; run lazyrich init again")
    inputs = node.numbers("inputs")
    if len(inputs) != 2:
        raise ReportError(f"{path}.inputs: got {len(inputs)} numbers, expected 2; run lazyrich init again")
    return SignalPage(
        node.text("title"), node.text("sentence"), node.text("reason", ""), (inputs[0], inputs[1]), rows,
        _phase(node), node.text("no_phase", ""),
        pairs(node.node("settings")), node.text("command", ""), node.text("date", ""),
        pairs(node.node("versions")) if "versions" in node.value else (),
    )  # fmt: skip


def _phase(node: Node) -> PhasePlane | None:
    if node.value.get("phase") is None:
        return None
    n = node.node("phase")
    points = tuple(
        (shown(p.text("layer")), p.number("weight"), p.number("bias"), p.number("chi_perp"), p.number("chi_parallel"))
        for p in n.nodes("points")
    )
    edge, border = (_line(n, key) for key in ("edge", "border"))
    beyond = n.text("beyond", "chaotic")
    return PhasePlane(n.text("activation"), n.text("word"), n.text("sentence"), points, edge, beyond, border)


def _line(n: Node, key: str) -> tuple[tuple[Number, Number], ...]:
    rows = [Node({"row": row}, f"{n.path}.{key}[{i}]").numbers("row") for i, row in enumerate(n.value.get(key) or [])]
    if any(len(row) != 2 for row in rows):
        raise ReportError(f"{n.path}.{key}: expected pairs of numbers; run lazyrich init again")
    return tuple((row[0], row[1]) for row in rows)


def _drawn(node: Node, what: str) -> Drawn:
    return node.number(what), node.number(f"{what}_spread"), node.number(f"{what}_predicted", False)
