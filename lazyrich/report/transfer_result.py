"""The result of a transfer study as the page reads it: frozen, with every number finite or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazyrich.errors import ReportError
from lazyrich.report.node import Node
from lazyrich.report.result import pairs


@dataclass(frozen=True)
class WidthCurve:
    """Loss after training against learning rate at one width, with the smoothed optimum and the transferred rate's regret."""

    width: int
    lrs: tuple[float, ...]
    mean: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    best: float | None
    loss: float | None
    edge: bool
    regret: float | None
    regret_error: float | None = None


@dataclass(frozen=True)
class SchemePart:
    """One scheme of a study."""

    name: str
    sentence: str
    transfers: bool | None
    shift: tuple[float | None, float | None, float | None]
    wider_is_better: bool | None
    curves: tuple[WidthCurve, ...]
    hidden: bool = False  # the grid's step alone keeps from telling whether wider is better


@dataclass(frozen=True)
class DepthPart:
    """How the best learning rate of one scheme moves with the depth."""

    name: str
    sentence: str
    width: int
    depths: tuple[float | None, ...]
    best: tuple[float | None, ...]
    shift: tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class TransferPage:
    """Everything that the page shows of one study."""

    title: str
    sentence: str
    schemes: tuple[SchemePart, ...]
    settings: tuple[tuple[str, str], ...]
    command: str
    versions: tuple[tuple[str, str], ...]
    date: str
    notes: tuple[str, ...] = ()
    depths: tuple[DepthPart, ...] = ()
    sentences: tuple[str, ...] = ()
    use: tuple[str, ...] = ()


def read_transfer(value: Mapping[str, Any], path: str = "result") -> TransferPage:
    """Read one mapping of kind ``transfer``.

    Raises:
        ReportError: a key is missing, or holds something of another kind; the message names its path.

    Example:
        >>> read_transfer({"kind": "transfer", "title": "mlp"})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: result: got no key 'sentence', expected one; ...
    """
    node = Node(value, path)
    title, sentence, reproduce = node.text("title"), node.text("sentence"), node.node("reproduce")
    return TransferPage(
        title=title,
        sentence=sentence,
        schemes=tuple(_scheme(n) for n in node.nodes("schemes")),
        settings=pairs(node.node("settings")),
        command=reproduce.text("command"),
        versions=pairs(reproduce.node("versions")),
        date=reproduce.text("date", ""),
        notes=reproduce.texts("notes"),
        depths=tuple(_depth(n) for n in node.nodes("depths", required=False)),
        sentences=node.texts("sentences"),
        use=reproduce.texts("use"),
    )


def _depth(node: Node) -> DepthPart:
    return DepthPart(
        node.text("name"), node.text("sentence"), int(node.number("width") or 0), node.numbers("depths"), node.numbers("best"),
        _shift(node),
    )  # fmt: skip


def _shift(node: Node) -> tuple[float | None, float | None, float | None]:
    shift = node.node("shift")
    return shift.number("value"), shift.number("low"), shift.number("high")


def _scheme(node: Node) -> SchemePart:
    return SchemePart(
        name=node.text("name"),
        sentence=node.text("sentence"),
        transfers=node.truth("transfers"),
        shift=_shift(node),
        wider_is_better=node.truth("wider is better"),
        curves=tuple(_curve(n) for n in node.nodes("curves")),
        hidden=bool(node.truth("hidden by the grid")),
    )


def _curve(node: Node) -> WidthCurve:
    lrs = tuple(lr for lr in node.numbers("lrs") if lr is not None and lr > 0)
    mean, low, high = (node.numbers(key) for key in ("mean", "low", "high"))
    if not len(lrs) == len(mean) == len(low) == len(high):
        raise ReportError(
            f"{node.path}: got {len(lrs)} learning rates, {len(mean)} losses and {len(low)} and {len(high)} ends, expected as "
            "many of each"
        )
    width = node.number("width")
    if width is None or width < 1:
        raise ReportError(f"{node.path}.width: got {width}, expected a positive number")
    return WidthCurve(
        int(width), lrs, mean, low, high, node.number("best"), node.number("loss"), bool(node.truth("edge")),
        node.number("regret"), node.number("regret error", required=False),
    )  # fmt: skip
