"""The table of rules, and what a rule is handed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from lazyrich.errors import KernelError
from lazyrich.graph import Node
from lazyrich.lazy.field import Curve, Data, Field, Mix, Weight

if TYPE_CHECKING:
    from lazyrich.lazy.run import Run

Value = Any  # Field | Curve | Mix | Data | Weight | number | list of these


class Need(IntEnum):
    """How much of a field's position covariances somebody reads: none, equal positions, or all pairs."""

    NONE = 0
    EQUAL = 1
    ALL = 2


@dataclass(frozen=True)
class Call:
    """One operation with the values of its inputs."""

    node: Node
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    run: Run

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """An argument by place or by name."""
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)

    def field(self, index: int = 0) -> Field:
        """An argument as a field, with curves and mixtures evaluated."""
        return self.run.field(self.args[index], self)

    def random(self) -> list[Any]:
        """Random arguments."""
        return [a for a in self.args if isinstance(a, (Field, Curve, Mix))]

    def refuse(self, why: str, mend: str) -> KernelError:
        """The error to raise: what, where, why, and what to do."""
        return KernelError(f"{self.node.op} at {self.node.place}: {why}; {mend}")


Function = Callable[[Call], Value]
Demand = Callable[[Node, Need], Need]


@dataclass(frozen=True)
class Rule:
    """What an operation does to fields, and which position covariances it reads of them.

    ``reads``: of its inputs, given what is read of its output. ``moments``: whether it looks at the variances of its input
    (a norm, a curve). ``overlaps``: whether it multiplies its inputs over one axis: of two random ones it looks at all pairs of
    positions, of one and a weight only at what is read of it.
    """

    function: Function
    says: str
    reads: Demand
    moments: bool = False
    overlaps: bool = False


RULES: dict[str, Rule] = {}


def keeps(node: Node, need: Need) -> Need:
    """Reads as much as is read of the output."""
    return need


def pairs(node: Node, need: Need) -> Need:
    """Mixes positions, so all pairs are read."""
    return Need.ALL if need else Need.NONE


def register(
    *ops: str, says: str = "", reads: Demand = keeps, moments: bool = False, overlaps: bool = False
) -> Callable[[Function], Function]:
    """Give one or several operations (torch's names, without overload) a rule.

    Example:
        >>> @register("my_identity", says="passes through")
        ... def rule(call):
        ...     return call.args[0]
        >>> RULES.pop("my_identity").says
        'passes through'
    """

    def keep(function: Function) -> Function:
        for op in ops:
            RULES[op] = Rule(function, says or (function.__doc__ or "").strip().split("\n")[0], reads, moments, overlaps)
        return function

    return keep


__all__ = ["RULES", "Call", "Data", "Need", "Rule", "Weight", "keeps", "pairs", "register"]
