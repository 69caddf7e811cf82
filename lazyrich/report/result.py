"""The result of a check as the page reads it: frozen, with every number finite or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazyrich.errors import ReportError
from lazyrich.layer import shown
from lazyrich.report.node import Node

VERDICTS = ("well-behaved", "lazy", "exploding", "vanishing", "frozen", "inconclusive")


@dataclass(frozen=True)
class Line:
    """One measured slope: of one quantity of one layer at one step, beside the predicted one."""

    layer: str
    tensors: tuple[str, ...]
    role: str
    quantity: str
    step: int
    slope: float | None
    low: float | None
    high: float | None
    predicted: float | None
    agrees: bool | None
    verdict: str
    mend: str

    @property
    def half(self) -> float | None:
        """Half the width of the interval, or None without one."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def distance(self) -> float | None:
        """How far the slope is from the predicted one, or None where either is missing."""
        return None if self.slope is None or self.predicted is None else abs(self.slope - self.predicted)


@dataclass(frozen=True)
class Curve:
    """One quantity of one layer against width: geometric means over seeds, with their range."""

    layer: str
    quantity: str
    step: int
    widths: tuple[float, ...]
    mean: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclass(frozen=True)
class Loss:
    """The loss of one width at each step."""

    width: int
    mean: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    @property
    def diverged(self) -> bool:
        """Whether the run ended without a number."""
        return not self.mean or self.mean[-1] is None


@dataclass(frozen=True)
class Theory:
    """What the scheme predicts, and the inequality that decides it."""

    scheme: str
    optimizer: str
    regime: str
    r: float | None
    stable: bool | None
    nontrivial: bool | None
    why: str


@dataclass(frozen=True)
class Obligation:
    """Something that a plan cannot put into plain learning rates, and whether it was done."""

    kind: str
    where: str
    why: str
    factor: float | None
    met: bool


@dataclass(frozen=True)
class Plan:
    """The plan's table at one width."""

    width: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class CheckResult:
    """Everything that the page shows of one check."""

    title: str
    word: str
    sentence: str
    mends: tuple[str, ...]
    theory: Theory
    settings: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    curves: tuple[Curve, ...]
    losses: tuple[Loss, ...]
    plan: Plan | None
    obligations: tuple[Obligation, ...]
    command: str
    versions: tuple[tuple[str, str], ...]
    date: str

    def last(self, quantity: str) -> tuple[Line, ...]:
        """The lines of a quantity, each layer at its last step, in the network's order."""
        kept: dict[str, Line] = {}
        for line in self.lines:
            if line.quantity == quantity and (line.layer not in kept or line.step >= kept[line.layer].step):
                kept[line.layer] = line
        return tuple(kept.values())

    def curves_of(self, layer: str, quantity: str) -> tuple[Curve, ...]:
        """The curves of one layer and quantity, by step."""
        found = [c for c in self.curves if c.layer == layer and c.quantity == quantity]
        return tuple(sorted(found, key=lambda c: c.step))

    @property
    def worst(self) -> Line | None:
        """The update line farthest from theory; a diverged one is farther than any other."""
        lines = self.last("update")
        diverged = [line for line in lines if line.slope is None]
        if diverged:
            return diverged[0]
        known = [line for line in lines if line.distance is not None]
        return max(known, key=lambda line: line.distance or 0.0, default=None)


def read_result(value: Mapping[str, Any], path: str = "result") -> CheckResult:
    """Read one result's mapping, refusing what the page could not show truly.

    Args:
        value: a mapping of kind ``check``.
        path: what errors call it, such as ``result[2]``.

    Raises:
        ReportError: a key is missing, or holds something of another kind; the message names its path.

    Example:
        >>> read_result({"kind": "dial"})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: result.kind: got 'dial', expected 'check'; ...
    """
    node = Node(value, path)
    if node.text("kind") != "check":
        got = node.text("kind")
        raise ReportError(f"{path}.kind: got {got!r}, expected 'check'; this page shows the results of lazyrich check")
    verdict, reproduce = node.node("verdict"), node.node("reproduce")
    if verdict.text("word") not in VERDICTS:
        raise ReportError(
            f"{path}.verdict.word: got {verdict.text('word')!r}, expected one of {', '.join(VERDICTS)}; "
            "write the result again with this version of lazyrich"
        )
    return CheckResult(
        title=node.text("title"),
        word=verdict.text("word"),
        sentence=verdict.text("sentence"),
        mends=verdict.texts("mends"),
        theory=_theory(node.node("theory")),
        settings=pairs(node.node("settings")),
        lines=tuple(_line(n) for n in node.nodes("lines")),
        curves=tuple(_curve(n) for n in node.nodes("curves")),
        losses=tuple(_loss(n) for n in node.nodes("losses")),
        plan=_plan(node),
        obligations=tuple(_obligation(n) for n in node.nodes("obligations", required=False)),
        command=reproduce.text("command"),
        versions=pairs(reproduce.node("versions")),
        date=reproduce.text("date", ""),
    )


def _theory(node: Node) -> Theory:
    return Theory(
        scheme=node.text("scheme"),
        optimizer=node.text("optimizer", ""),
        regime=node.text("regime"),
        r=node.number("r", required=False),
        stable=node.truth("stable"),
        nontrivial=node.truth("nontrivial"),
        why=node.text("why", ""),
    )


def _line(node: Node) -> Line:
    return Line(
        layer=shown(node.text("layer")),
        tensors=node.texts("tensors"),
        role=node.text("role", ""),
        quantity=node.text("quantity"),
        step=int(node.number("step", required=False) or 0),
        slope=node.number("slope"),
        low=node.number("low", required=False),
        high=node.number("high", required=False),
        predicted=node.number("predicted", required=False),
        agrees=node.truth("agrees"),
        verdict=node.text("verdict", ""),
        mend=node.text("mend", ""),
    )


def _curve(node: Node) -> Curve:
    widths, mean = node.numbers("widths"), node.numbers("mean")
    known = tuple(w for w in widths if w is not None and w > 0)
    if len(known) != len(widths):
        raise ReportError(f"{node.path}.widths: got {list(widths)}, expected positive numbers; give the true widths")
    low, high = _band(node, len(mean))
    if len(mean) != len(widths):
        raise ReportError(
            f"{node.path}.mean: got {len(mean)} numbers, expected {len(widths)}, one a width; use null where diverged"
        )
    return Curve(
        shown(node.text("layer")),
        node.text("quantity"),
        int(node.number("step", required=False) or 0),
        known,
        mean,
        low,
        high,
    )


def _loss(node: Node) -> Loss:
    width, mean = node.number("width"), node.numbers("mean")
    if width is None or width <= 0:
        raise ReportError(f"{node.path}.width: got {width}, expected a positive number; give the true width")
    return Loss(int(width), mean, *_band(node, len(mean)))


def _band(node: Node, count: int) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """The low and high ends; no ends at all where the result holds none."""
    ends = []
    for key in ("low", "high"):
        values = node.numbers(key, required=False) or (None,) * count
        if len(values) != count:
            raise ReportError(
                f"{node.path}.{key}: got {len(values)} numbers, expected {count} as in mean; use null where diverged"
            )
        ends.append(values)
    return ends[0], ends[1]


def _plan(node: Node) -> Plan | None:
    if not node.value.get("plan"):
        return None
    plan = node.node("plan")
    columns = plan.texts("columns")
    rows = []
    for i, row in enumerate(plan.get("rows") or ()):
        if isinstance(row, (str, Mapping)) or len(row) != len(columns):
            raise ReportError(f"{plan.path}.rows[{i}]: got {row!r}, expected {len(columns)} cells; give one for each column")
        rows.append(tuple(_words(cell) for cell in row))
    return Plan(plan.text("width", ""), columns, tuple(rows))


def _obligation(node: Node) -> Obligation:
    return Obligation(
        kind=node.text("kind"),
        where=node.text("where", ""),
        why=node.text("why", ""),
        factor=node.number("factor", required=False),
        met=bool(node.truth("met")),
    )


def pairs(node: Node) -> tuple[tuple[str, str], ...]:
    """A mapping's keys with their values in words, as settings are shown."""
    return tuple((str(key), _words(value)) for key, value in node.value.items())


def _words(value: Any) -> str:
    """A setting's value in words: lists with commas, nothing as a dash."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(item) for item in value)
    return str(value)
