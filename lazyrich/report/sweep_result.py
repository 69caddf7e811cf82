"""The result of a sweep as the page reads it: frozen, with every number finite or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazyrich.errors import ReportError
from lazyrich.report.node import Node

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class SweepCurve:
    """Mean over seeds of one value along an axis, and the seeds' range."""

    label: str
    x: tuple[float, ...]
    mean: Numbers
    low: Numbers
    high: Numbers


@dataclass(frozen=True)
class SweepFigure:
    """One value along the axis with most points; ``left_out`` curves are in the table alone."""

    value: str
    along: str
    curves: tuple[SweepCurve, ...]
    left_out: int


@dataclass(frozen=True)
class SweepRow:
    """One combination of the axes: its settings in words, how many seeds, and the mean of every value.

    ``odd`` has the word for a mean that is no finite number ("nan"), with how many of the trials are not finite.
    """

    settings: tuple[str, ...]
    count: int
    means: Numbers
    odd: tuple[str, ...]


@dataclass(frozen=True)
class SweepPage:
    """Everything that the page shows of one sweep."""

    title: str
    sentence: str
    counts: tuple[tuple[str, int], ...]
    axes: tuple[str, ...]
    values: tuple[str, ...]
    rows: tuple[SweepRow, ...]
    rows_in_all: int
    figures: tuple[SweepFigure, ...]
    failures: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    store: str
    command: str
    date: str = ""


def read_sweep(value: Mapping[str, Any], path: str = "result") -> SweepPage:
    """Read one mapping of kind ``sweep``.

    Raises:
        ReportError: a key is missing, or holds something of another kind; the message names its path.

    Example:
        >>> read_sweep({"kind": "sweep", "title": "train"})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: result: got no key 'sentence', expected one; ...
    """
    node = Node(value, path)
    title, sentence, counts = node.text("title"), node.text("sentence"), node.node("counts")
    axes, values = node.texts("axes"), node.texts("values")
    return SweepPage(
        title=title,
        sentence=sentence,
        counts=tuple((name, int(counts.number(name) or 0)) for name in counts.value),
        axes=axes,
        values=values,
        rows=tuple(_row(n, axes, values) for n in node.nodes("rows")),
        rows_in_all=int(node.number("rows_in_all") or 0),
        figures=tuple(_figure(n) for n in node.nodes("figures")),
        failures=tuple((n.text("settings"), n.text("status"), n.text("error")) for n in node.nodes("failures")),
        notes=node.texts("notes"),
        store=node.text("store"),
        command=node.text("command"),
    )


def _row(node: Node, axes: tuple[str, ...], values: tuple[str, ...]) -> SweepRow:
    settings = node.node("settings")
    known = [node.node(value) if value in node.value else None for value in values]
    means = tuple(n.number("mean") if n else None for n in known)
    odd = tuple(_odd(n) if n and mean is None else "" for n, mean in zip(known, means, strict=True))
    return SweepRow(tuple(str(settings.get(axis)) for axis in axes), int(node.number("count") or 0), means, odd)


def _odd(node: Node) -> str:
    some = node.text("odd", "")
    return node.text("mean") + (f" ({some})" if some else "")


def _figure(node: Node) -> SweepFigure:
    return SweepFigure(
        node.text("value"),
        node.text("along", ""),
        tuple(_curve(n) for n in node.nodes("curves")),
        int(node.number("left_out") or 0),
    )


def _curve(node: Node) -> SweepCurve:
    x = tuple(v for v in node.numbers("x") if v is not None)
    ends = [node.numbers(end) for end in ("mean", "low", "high")]
    if any(len(end) != len(x) for end in ends):
        raise ReportError(f"{node.path}: got {len(ends[0])} values at {len(x)} places, expected as many of each")
    return SweepCurve(node.text("label"), x, *ends)
