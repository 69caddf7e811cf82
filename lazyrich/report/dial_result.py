"""The result of a dial as the page reads it: frozen, with every number finite or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazyrich.errors import ReportError
from lazyrich.report.node import Node
from lazyrich.report.result import pairs

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class Band:
    """Mean over seeds of one quantity along the richness, and the seeds' range."""

    mean: Numbers
    low: Numbers
    high: Numbers


@dataclass(frozen=True)
class DialCurve:
    """One exponent r and width; ``leaves`` is the richness at which it stops being lazy."""

    r: float
    width: int
    sentence: str
    leaves: float | None
    richness: tuple[float, ...]
    values: Mapping[str, Band]


@dataclass(frozen=True)
class DialLaw:
    """An exponent in the width, measured with its interval, and expected; no verdict in results of older versions."""

    quantity: str
    r: float
    richness: float
    value: float | None
    low: float | None
    high: float | None
    expected: float
    determined: bool = True
    verdict: str = ""


@dataclass(frozen=True)
class DialPage:
    """Everything that the page shows of one dial."""

    title: str
    sentences: tuple[str, ...]
    plain: float
    curves: tuple[DialCurve, ...]
    laws: tuple[DialLaw, ...]
    settings: tuple[tuple[str, str], ...]
    command: str
    versions: tuple[tuple[str, str], ...]
    date: str
    notes: tuple[str, ...] = ()


def read_dial(value: Mapping[str, Any], path: str = "result") -> DialPage:
    """Read one mapping of kind ``dial``.

    Raises:
        ReportError: a key is missing, or holds something of another kind; the message names its path.

    Example:
        >>> read_dial({"kind": "dial", "title": "mlp"})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: result: got no key 'sentence', expected one; ...
    """
    node = Node(value, path)
    title, sentence, reproduce = node.text("title"), node.text("sentence"), node.node("reproduce")
    sentences = node.texts("sentences") or (sentence,)  # results of older versions have one text
    return DialPage(
        title=title,
        sentences=sentences,
        plain=_needed(node, "plain"),
        curves=tuple(_curve(n) for n in node.nodes("curves")),
        laws=tuple(_law(n) for n in node.nodes("laws")),
        settings=pairs(node.node("settings")),
        command=reproduce.text("command"),
        versions=pairs(reproduce.node("versions")),
        date=reproduce.text("date", ""),
        notes=reproduce.texts("notes"),
    )


def _curve(node: Node) -> DialCurve:
    richness = tuple(g for g in node.numbers("richness") if g is not None and g > 0)
    values = node.node("values")
    bands = {}
    for name in values.value:
        inner = values.node(name)
        band = Band(*(inner.numbers(key) for key in ("mean", "low", "high")))
        if not len(richness) == len(band.mean) == len(band.low) == len(band.high):
            raise ReportError(
                f"{inner.path}: got {len(band.mean)} values at {len(richness)} richnesses, expected as many of each"
            )
        bands[name] = band
    return DialCurve(
        _needed(node, "r"), int(_needed(node, "width")), node.text("sentence"), node.number("leaves"), richness, bands
    )  # fmt: skip


def _law(node: Node) -> DialLaw:
    value, low, high = (node.number(key) for key in ("value", "low", "high"))
    richness, expected, said = _needed(node, "richness"), _needed(node, "expected"), node.truth("determined")
    return DialLaw(
        node.text("quantity"), _needed(node, "r"), richness, value, low, high, expected, said is not False, node.text("verdict", "")
    )  # fmt: skip


def _needed(node: Node, key: str) -> float:
    value = node.number(key)
    if value is None:
        raise ReportError(f"{node.path}.{key}: got no finite number, expected one")
    return value
