"""The result of a tangent study as the page reads it: frozen, with every number finite or None."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazyrich.errors import ReportError
from lazyrich.layer import shown
from lazyrich.report.kernel_result import Modes, read_modes
from lazyrich.report.node import Node
from lazyrich.report.result import pairs

Number = float | None


@dataclass(frozen=True)
class Aligned:
    """One layer's tangent kernel against the targets."""

    layer: str
    centred: Number
    uncentred: Number
    unbiased: Number
    share: Number


@dataclass(frozen=True)
class Moment:
    """One look at the training network and its linearisation."""

    step: float
    loss: Number
    linear_loss: Number
    test_loss: Number
    linear_test_loss: Number
    accuracy: Number
    linear_accuracy: Number
    error: Number
    test_error: Number
    movement: Number
    distance: Number
    features: tuple[tuple[str, Number], ...]
    alignment: tuple[Aligned, ...]

    @property
    def turned(self) -> Number:
        """Relative movement of the kernel that no scale takes away, min over c of ||c Theta_t - Theta_0|| / ||Theta_0||.

        It is the sine of the angle between both, sqrt(2 S - S^2) with S = 1 - cos of Fort et al., which is second order.
        """
        return None if self.distance is None else math.sqrt(max(0.0, self.distance * (2 - self.distance)))

    @property
    def layers(self) -> tuple[Aligned, ...]:
        """Alignment without the whole network's."""
        return tuple(line for line in self.alignment if line.layer != "(whole)")


@dataclass(frozen=True)
class Few:
    """Predictions of the truncated hierarchy on a few samples, an order a row."""

    what: str
    samples: int
    orders: tuple[int, ...]
    times: tuple[Number, ...]
    losses: tuple[Number, ...]
    predicted: tuple[tuple[Number, ...], ...]
    errors: tuple[tuple[Number, ...], ...]
    half: Number
    at_half: tuple[Number, ...]


@dataclass(frozen=True)
class Limit:
    """The network at infinite width; the reason where it has no kernel there."""

    reason: str
    distance: Number
    test_loss: Number
    accuracy: Number


@dataclass(frozen=True)
class TangentPage:
    """Everything that the page shows of one tangent study."""

    title: str
    sentence: str
    peak: str
    moments: tuple[Moment, ...]
    spectra: tuple[Modes, ...]
    few: Few
    limit: Limit
    settings: tuple[tuple[str, str], ...]
    command: str
    versions: tuple[tuple[str, str], ...]
    date: str


def read_tangent(value: Mapping[str, Any], path: str = "result") -> TangentPage:
    """Read one mapping of kind ``tangent``.

    Raises:
        ReportError: a key is missing, or holds something of another kind; the message names its path.

    Example:
        >>> read_tangent({"kind": "tangent", "title": "mlp"})
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: result: got no key 'reproduce', expected one; ...
    """
    node = Node(value, path)
    reproduce, limit = node.node("reproduce"), node.node("limit")
    moments = tuple(_moment(n) for n in node.nodes("moments"))
    if not moments:
        raise ReportError(f"{path}.moments: got none, expected at least one look; run lazyrich tangent again")
    return TangentPage(
        title=node.text("title"),
        sentence=node.text("sentence"),
        peak=shown(node.text("peak")),
        moments=moments,
        spectra=tuple(read_modes(n) for n in node.nodes("spectra")),
        few=_few(node.node("few")),
        limit=Limit(limit.text("reason", ""), *(limit.number(key, False) for key in ("distance", "test_loss", "accuracy"))),
        settings=pairs(node.node("settings")),
        command=reproduce.text("command"),
        versions=pairs(reproduce.node("versions")),
        date=reproduce.text("date", ""),
    )


def _moment(node: Node) -> Moment:
    step = node.number("step")
    if step is None or step < 0:
        raise ReportError(f"{node.path}.step: got {step}, expected a number of steps; run lazyrich tangent again")
    keys = ("loss", "linear_loss", "test_loss", "linear_test_loss", "accuracy", "linear_accuracy", "error", "test_error")
    features = node.node("features")
    return Moment(
        step,
        *(node.number(key) for key in (*keys, "ntk_movement", "ntk_distance")),
        features=tuple((shown(name), features.number(name)) for name in features.value),
        alignment=tuple(
            Aligned(shown(n.text("layer")), *(n.number(key) for key in ("centred", "uncentred", "unbiased", "share")))
            for n in node.nodes("alignment")
        ),
    )


def _few(node: Node) -> Few:
    times, orders = node.numbers("times"), tuple(int(p) for p in node.numbers("orders") if p is not None)
    grids = {key: _grid(node, key, len(orders), len(times)) for key in ("predicted", "errors")}
    return Few(
        node.text("what"), int(node.number("samples") or 0), orders, times, node.numbers("losses"), grids["predicted"],
        grids["errors"], node.number("half"), node.numbers("at_half"),
    )  # fmt: skip


def _grid(node: Node, key: str, rows: int, columns: int) -> tuple[tuple[Number, ...], ...]:
    found = tuple(Node({"row": row}, f"{node.path}.{key}[{i}]").numbers("row") for i, row in enumerate(node.get(key)))
    if len(found) != rows or any(len(row) != columns for row in found):
        raise ReportError(f"{node.path}.{key}: got rows that do not fit, expected {rows} of {columns} numbers")
    return found
