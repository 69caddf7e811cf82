"""The result of a kernel run as the page reads it: frozen, with every number finite or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazyrich.errors import ReportError
from lazyrich.report.node import Node
from lazyrich.report.result import pairs


@dataclass(frozen=True)
class Row:
    """Accuracies at one number of training samples: of every kernel, and of finite networks with their range."""

    train: int
    kernels: tuple[float | None, ...]
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Modes:
    """A spectrum: parts of the trace, and of the targets up to a mode, at chosen modes."""

    kernel: str
    samples: int
    modes: tuple[float, ...]
    eigenvalues: tuple[float | None, ...]
    cumulative: tuple[float | None, ...]
    top: float | None
    effective_rank: float | None
    alignment: float | None


@dataclass(frozen=True)
class Matrix:
    """Correlations of a Gram sorted by class, in square cells, and where classes begin and end, as parts of the side.

    A cell of one sample with itself, of which nothing is left without the diagonal, is None.
    """

    kernel: str
    cells: tuple[tuple[float | None, ...], ...]
    bounds: tuple[float, ...]


@dataclass(frozen=True)
class KernelResult:
    """Everything that the page shows of one kernel run."""

    title: str
    sentence: str
    kernels: tuple[str, ...]
    width: str
    rows: tuple[Row, ...]
    spectra: tuple[Modes, ...]
    matrices: tuple[Matrix, ...]
    settings: tuple[tuple[str, str], ...]
    command: str
    versions: tuple[tuple[str, str], ...]
    date: str


def read_kernel(value: Mapping[str, Any], path: str = "result") -> KernelResult:
    """Read one mapping of kind ``kernel``.

    Raises:
        ReportError: a key is missing, or holds something of another kind; the message names its path.

    Example:
        >>> read_kernel({"kind": "kernel", "title": "mlp"})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: result: got no key 'settings', expected one; ...
    """
    node = Node(value, path)
    settings, title = node.node("settings"), node.text("title")
    kernels, reproduce = settings.texts("kernels"), node.node("reproduce")
    width = settings.number("finite width", required=False)
    return KernelResult(
        title=title,
        sentence=node.text("sentence"),
        kernels=kernels,
        width="" if width is None else f"{width:.0f}",
        rows=tuple(_row(n, kernels) for n in node.nodes("rows")),
        spectra=tuple(read_modes(n) for n in node.nodes("spectra")),
        matrices=tuple(_matrix(n) for n in node.nodes("matrices")),
        settings=pairs(settings),
        command=reproduce.text("command"),
        versions=pairs(reproduce.node("versions")),
        date=reproduce.text("date", ""),
    )


def _row(node: Node, kernels: tuple[str, ...]) -> Row:
    train = node.number("train")
    if train is None or train < 1:
        raise ReportError(f"{node.path}.train: got {train}, expected a positive number; give the number of samples")
    network = node.node("network") if node.value.get("network") else None
    ends = (None, None, None) if network is None else tuple(network.number(key) for key in ("mean", "low", "high"))
    return Row(int(train), tuple(node.number(name) for name in kernels), *ends)


def read_modes(node: Node) -> Modes:
    """A spectrum of a result."""
    modes = tuple(m for m in node.numbers("modes") if m is not None and m > 0)
    values, cumulative = node.numbers("eigenvalues"), node.numbers("cumulative")
    if not len(modes) == len(values) == len(cumulative):
        raise ReportError(
            f"{node.path}: got {len(modes)} modes, {len(values)} eigenvalues and {len(cumulative)} parts of the targets, "
            "expected equally many; write the result again with this version of lazyrich"
        )
    return Modes(
        node.text("kernel"), int(node.number("samples") or 0), modes, values, cumulative,
        node.number("top"), node.number("effective_rank"), node.number("alignment", required=False),
    )  # fmt: skip


def _matrix(node: Node) -> Matrix:
    rows = node.get("cells")
    cells = [Node({"row": row}, f"{node.path}.cells[{i}]").numbers("row") for i, row in enumerate(rows)]
    apart = [v for i, row in enumerate(cells) for j, v in enumerate(row) if i != j]
    if any(len(row) != len(cells) for row in cells) or None in apart:
        raise ReportError(f"{node.path}.cells: got rows that make no square of numbers, expected {len(cells)} in each")
    return Matrix(
        node.text("kernel"),
        tuple(cells),
        tuple(v for v in node.numbers("bounds") if v is not None),
    )
