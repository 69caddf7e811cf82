"""The result of a study of autoencoders as the page reads it: frozen, with every number finite or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazyrich.report.node import Node
from lazyrich.report.result import pairs

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class AutoencoderCell:
    """One combination of start, scheme, optimizer, width and code; metrics are by name, one number a seed."""

    start: str
    scheme: str
    optimizer: str
    width: int
    code: str
    lr: float | None
    edge: bool
    diverged: int
    seeds: tuple[Mapping[str, float | None], ...]
    curve: tuple[Numbers, ...]
    inputs: tuple[Numbers, ...]
    outputs: tuple[Numbers, ...]
    scatter: tuple[Numbers, ...]
    labels: tuple[str, ...]

    def known(self, metric: str) -> list[float]:
        """The metric's numbers over seeds."""
        return [v for seed in self.seeds if (v := seed.get(metric)) is not None]

    def mean(self, metric: str) -> float | None:
        """Its mean; None where no seed has it."""
        known = self.known(metric)
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Movement:
    """Slope of the encoder's movement in the width, and theory's for a network without a bottleneck.

    ``told`` is false where the interval is too wide to say anything.
    """

    start: str
    scheme: str
    optimizer: str
    value: float | None
    low: float | None
    high: float | None
    theory: float | None
    told: bool = True


@dataclass(frozen=True)
class AutoencoderPage:
    """Everything that the page shows of one study; cells come best first."""

    title: str
    sentence: str
    cells: tuple[AutoencoderCell, ...]
    linear: Mapping[str, float | None]
    movements: tuple[Movement, ...]
    causes: tuple[tuple[str, float | None, float | None, int], ...]
    settings: tuple[tuple[str, str], ...]
    command: str
    versions: tuple[tuple[str, str], ...]
    date: str
    notes: tuple[str, ...]


def read_autoencoder(value: Mapping[str, Any], path: str = "result") -> AutoencoderPage:
    """Read one mapping of kind ``autoencoder``.

    Raises:
        ReportError: a key is missing, or holds something of another kind; the message names its path.

    Example:
        >>> read_autoencoder({"kind": "autoencoder", "title": "mlp"})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: result: got no key 'sentence', expected one; ...
    """
    node = Node(value, path)
    title, sentence, reproduce, linear = node.text("title"), node.text("sentence"), node.node("reproduce"), node.node("linear")
    return AutoencoderPage(
        title=title,
        sentence=sentence,
        cells=tuple(_cell(n) for n in node.nodes("cells")),
        linear={code: linear.number(code) for code in linear.value},
        movements=tuple(_movement(n) for n in node.nodes("movements")),
        causes=tuple(
            (n.text("name"), n.number("rank"), n.number("p_value"), int(n.number("networks") or 0))
            for n in node.nodes("causes")
        ),
        settings=tuple((name, text) for name, text in pairs(node.node("settings")) if text not in ("{}", "[]")),
        command=reproduce.text("command"),
        versions=pairs(reproduce.node("versions")),
        date=reproduce.text("date", ""),
        notes=reproduce.texts("notes"),
    )


def _cell(node: Node) -> AutoencoderCell:
    return AutoencoderCell(
        node.text("start"), node.text("scheme"), node.text("optimizer"), int(node.number("width") or 0), node.text("code", ""),
        node.number("lr"), bool(node.truth("edge")), int(node.number("diverged") or 0),
        tuple({name: n.number(name) for name in n.value} for n in node.nodes("seeds")),
        _rows(node, "curve"), _rows(node, "inputs"), _rows(node, "outputs"), _rows(node, "scatter"), node.texts("labels"),
    )  # fmt: skip


def _rows(node: Node, key: str) -> tuple[Numbers, ...]:
    rows = node.value.get(key) or []
    return tuple(Node({"row": row}, f"{node.path}.{key}[{i}]").numbers("row") for i, row in enumerate(rows))


def _movement(node: Node) -> Movement:
    return Movement(
        node.text("start"),
        node.text("scheme"),
        node.text("optimizer"),
        *(node.number(k) for k in ("value", "low", "high", "theory")),
        told=node.truth("told") is not False,
    )
