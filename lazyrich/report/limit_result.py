"""The result of a limit study as the page reads it: frozen, with every number finite or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazyrich.errors import ReportError
from lazyrich.layer import spoken
from lazyrich.report.node import Node
from lazyrich.report.result import pairs

Number = float | None
Cells = tuple[tuple[Number, ...], ...]


@dataclass(frozen=True)
class LimitLayer:
    """One hidden layer at infinite width: feature kernels and densities before and after, and those of the widest networks."""

    name: str
    start: Cells
    kernel: Cells
    kernel_error: Number
    movement: Number
    start_alignment: Number
    alignment: Number
    edges: tuple[Number, ...]
    before: tuple[Number, ...]
    after: tuple[Number, ...]
    network: Cells
    network_before: tuple[Number, ...]
    network_after: tuple[Number, ...]


@dataclass(frozen=True)
class LimitWidth:
    """The finite networks of one width; without ``loss`` where all diverged."""

    width: int
    networks: int
    diverged: int
    loss: tuple[Number, ...]
    off: Number
    offs: tuple[Number, ...]
    mean_off: Number
    test_loss: Number
    kernels: tuple[tuple[str, Number], ...]
    alignment: tuple[tuple[str, tuple[Number, ...]], ...]


@dataclass(frozen=True)
class LimitPage:
    """Everything that the page shows of one limit study."""

    title: str
    sentence: str
    loss: tuple[Number, ...]
    loss_error: tuple[Number, ...]
    fixed_loss: tuple[Number, ...]
    fixed_off: Number
    test_loss: Number
    fixed_test_loss: Number
    accuracy: Number
    gamma0: Number
    targets: tuple[Number, ...]
    layers: tuple[LimitLayer, ...]
    widths: tuple[LimitWidth, ...]
    widest: Number
    slope: tuple[Number, Number, Number]
    settings: tuple[tuple[str, str], ...]
    command: str
    versions: tuple[tuple[str, str], ...]
    date: str


def read_limit(value: Mapping[str, Any], path: str = "result") -> LimitPage:
    """Read one mapping of kind ``limit``.

    Raises:
        ReportError: a key is missing, or holds something of another kind; the message names its path.

    Example:
        >>> read_limit({"kind": "limit", "title": "mlp"})
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: result: got no key 'reproduce', expected one; ...
    """
    node = Node(value, path)
    reproduce, theory, widest, slope = (node.node(key) for key in ("reproduce", "theory", "widest", "slope"))
    losses = [theory.numbers(key) for key in ("loss", "loss_error", "fixed_loss")]
    if len({len(row) for row in losses}) != 1 or len(losses[0]) < 2:
        raise ReportError(f"{path}.theory: got losses of different lengths, or of no step; run lazyrich limit again")
    seen = {n.text("layer"): n for n in widest.nodes("layers")}
    layers = tuple(_layer(n, seen.get(n.text("layer"))) for n in theory.nodes("layers"))
    widths = tuple(_width(n) for n in node.nodes("widths"))
    if not layers or not widths:
        raise ReportError(f"{path}: got no layers or no widths, expected at least one of each; run lazyrich limit again")
    return LimitPage(
        title=node.text("title"),
        sentence=node.text("sentence"),
        loss=losses[0],
        loss_error=losses[1],
        fixed_loss=losses[2],
        fixed_off=theory.number("fixed_off"),
        test_loss=theory.number("test_loss", False),
        fixed_test_loss=theory.number("fixed_test_loss", False),
        accuracy=theory.number("accuracy"),
        gamma0=theory.number("gamma0"),
        targets=theory.numbers("targets"),
        layers=layers,
        widths=widths,
        widest=widest.number("width", False),
        slope=(slope.number("value", False), slope.number("low", False), slope.number("high", False)),
        settings=pairs(node.node("settings")),
        command=reproduce.text("command"),
        versions=pairs(reproduce.node("versions")),
        date=reproduce.text("date", ""),
    )


def _layer(node: Node, seen: Node | None) -> LimitLayer:
    edges = node.numbers("edges")
    densities = [node.numbers(key) for key in ("before", "after")]
    densities += [seen.numbers(key) if seen else () for key in ("before", "after")]
    if any(len(row) not in (len(edges) - 1, 0) for row in densities):
        raise ReportError(f"{node.path}: got densities that do not fit their {len(edges)} edges; run lazyrich limit again")
    return LimitLayer(
        name=spoken(node.text("layer")),
        start=_cells(node, "start"),
        kernel=_cells(node, "kernel"),
        kernel_error=node.number("kernel_error"),
        movement=node.number("movement"),
        start_alignment=node.number("start_alignment"),
        alignment=node.number("alignment"),
        edges=edges,
        before=densities[0],
        after=densities[1],
        network=_cells(seen, "kernel") if seen else (),
        network_before=densities[2],
        network_after=densities[3],
    )


def _width(node: Node) -> LimitWidth:
    kernels, alignment = node.node("kernels"), node.node("alignment")
    counts = [node.number(key) for key in ("width", "networks", "diverged")]
    width, networks, diverged = (int(count or 0) for count in counts)
    return LimitWidth(
        width, networks, diverged, node.numbers("loss"), node.number("off", False), node.numbers("offs"),
        node.number("mean_off", False), node.number("test_loss", False),
        tuple((spoken(name), kernels.number(name)) for name in kernels.value),
        tuple((spoken(name), alignment.numbers(name)) for name in alignment.value),
    )  # fmt: skip


def _cells(node: Node, key: str) -> Cells:
    rows = tuple(Node({"row": row}, f"{node.path}.{key}[{i}]").numbers("row") for i, row in enumerate(node.get(key)))
    if any(len(row) != len(rows) for row in rows):
        raise ReportError(f"{node.path}.{key}: got rows of different lengths, expected a square; run lazyrich limit again")
    return rows
