"""The table of rules, and what a rule is handed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import torch

from lazyrich.errors import KernelError, LazyrichError
from lazyrich.graph import Node
from lazyrich.lazy.field import Curve, Data, Field, Mix, Overlap, Weight

if TYPE_CHECKING:
    from lazyrich.lazy.run import Run

Value = Any  # Field | Curve | Mix | Data | Weight | number | list of these
RETURNED = (int, float, Field, Curve, Mix, Data, Weight, Overlap)


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
        return KernelError(f"{self.node.op} at {self.node.place}: {why}; {mend}", node=self.node.name)

    def no_field(self, value: Value) -> KernelError:
        """The error to raise where a random field is wanted and data, a constant or a parameter is given."""
        if isinstance(value, Weight):
            got, mend = f"the parameter '{value.name}' by itself", "add it to a branch before, or take it out"
        else:
            got = "the inputs or a constant" if isinstance(value, Data) else type(value).__name__
            mend = "put a linear layer before it, or do it to the data before the network"
        return self.refuse(f"it needs a random field here, got {got}", mend)

    def computed(self) -> KernelError:
        """The error to raise where something is computed from a parameter, before it meets a branch."""
        name = next((value.name for value in self.args if isinstance(value, Weight)), "weight")
        if any(isinstance(value, Data) and not value.constant for value in self.args):
            return self.refuse(
                f"it joins the parameter '{name}' with numbers that hold no weights (inputs, attention), where it has no known law",
                "join it behind a linear layer, or take a constant (register_buffer)",
            )
        why = (
            f"it computes a weight from others ('{name}'), and only plain parameters, times and plus numbers, have a known law"
        )
        return self.refuse(why, _plain_parameter(self.node, name))

    def no_rule(self) -> KernelError:
        """The error to raise for an operation that nobody taught."""
        if _of_weights(self):
            return self.computed()
        return KernelError(
            f"no rule for the operation '{self.node.op}' at {self.node.place}; teach one with "
            f"@lazyrich.lazy.register('{self.node.op}'), or take it out of the network",
            node=self.node.name,
        )


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
TORCHS = ("", "aten", "prims")  # libraries of torch's own operations
_OWN = __name__.rpartition(".")[0]  # where this package's own rules are written


def rule_of(node: Node) -> Rule | None:
    """The rule of an operation: under its full name, else under its plain one, which is not taken for torch's own namesake."""
    if node.library in TORCHS:
        return RULES.get(node.op)
    rule = RULES.get(f"{node.library}::{node.op}") or RULES.get(node.op)
    return None if rule and (rule.function.__module__ or "").startswith(_OWN) else rule


def _key(name: str) -> str:
    """The name that a rule is found by: without overload and in-place mark, with the library if it is not torch's own."""
    library, _, op = name.rpartition("::")
    if not library and op.count(".") == 2:  # as torch.ops prints itself
        library, op, _ = op.split(".")
    op = op.partition(".")[0]
    op = op if op.startswith("__") else op.removesuffix("_")
    return op if library in TORCHS else f"{library}::{op}"


def keeps(node: Node, need: Need) -> Need:
    """Reads as much as is read of the output."""
    return need


def pairs(node: Node, need: Need) -> Need:
    """Mixes positions, so all pairs are read."""
    return Need.ALL if need else Need.NONE


def register(
    *ops: str, says: str = "", reads: Demand = keeps, moments: bool = False, overlaps: bool = False
) -> Callable[[Function], Function]:
    """Give one or several operations a rule.

    Args:
        ops: names as ``explain`` lists them (``relu``), or in full (``mylib::squeaky``, ``aten::add.Tensor``).
        says: what it does, for ``explain``.
        reads: of its inputs' position covariances, given what is read of its output: as much, or ``pairs`` for all.
        moments: whether it looks at the variances of its input (a curve, a norm).
        overlaps: whether it multiplies its inputs over one axis.

    Example:
        >>> @register("my_identity", says="passes through")
        ... def rule(call):
        ...     return call.args[0]
        >>> RULES.pop("my_identity").says
        'passes through'
    """

    def keep(function: Function) -> Function:
        for op in ops:
            RULES[_key(op)] = Rule(function, says or (function.__doc__ or "").strip().split("\n")[0], reads, moments, overlaps)
        return function

    return keep


STATISTICS = ("mean", "sum", "var", "std", "var_mean", "std_mean", "linalg_vector_norm", "norm")
TURNED_INTO = {
    "_weight_norm": "weight_norm",
    "_weight_norm_interface": "weight_norm",
    "mv": "spectral_norm",
}  # by torch's old hooks


def _called(path: str) -> str:
    return f"model.get_submodule('{path}')" if path else "model"


def _plain_parameter(node: Node, name: str) -> str:
    """How to come to a plain parameter again."""
    layer, found, rest = node.path.partition(".parametrizations.")
    if found:
        return f"torch.nn.utils.parametrize.remove_parametrizations({_called(layer)}, '{rest.split('.')[0]}') takes that off"
    if node.op in TURNED_INTO:
        return f"torch.nn.utils.remove_{TURNED_INTO[node.op]}({_called(node.path)}) takes that off"
    if node.op in STATISTICS:
        return (
            "take the parameter itself: centred or normalised over its inputs it has the limit of a plain one with "
            f"init={{'{name}': lzr.init.variance(w)}}, w its variance times its fan-in"
        )
    return "take the parameter itself, or hold what is computed as a parameter of its own"


def _of_weights(call: Call) -> bool:
    """Whether it reads parameters and no branch."""
    return any(isinstance(value, Weight) for value in call.args) and not call.random()


def checked(rule: Rule) -> Function:
    """A rule that tells with its place what goes wrong within it, and whose results are what can go on."""

    def applied(call: Call) -> Value:
        try:
            value = rule.function(call)
        except (LazyrichError, Warning, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # rules are also users' own code
            if isinstance(error, AttributeError) and _of_weights(call) and rule.function.__module__.startswith(_OWN):
                raise call.computed() from error
            first = (str(error).splitlines() or [""])[0]
            raise call.refuse(
                f"its rule '{rule.function.__name__}' failed with {type(error).__name__}: {first}",
                "mend the rule, or take it out",
            ) from error
        several = isinstance(value, (list, tuple))  # of which None is what nobody can read, as a mask
        for one in [v for v in value if v is not None] if several else [value]:
            if not isinstance(one, RETURNED):
                raise call.refuse(
                    f"its rule '{rule.function.__name__}' returned {type(one).__name__}, expected a number or one of "
                    f"{', '.join(kind.__name__ for kind in RETURNED[2:])}",
                    "return call.args[0], through(call, ...) or what another rule returns",
                )
        return value

    return applied


__all__ = ["RULES", "Call", "Data", "Need", "Rule", "Weight", "checked", "keeps", "pairs", "register", "rule_of"]
