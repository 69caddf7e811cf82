"""Where a plan's numbers grow otherwise with the width than those of its own scheme."""

from __future__ import annotations

from dataclasses import dataclass

from lazyrich.scaling import Plan
from lazyrich.scaling.optimizer import is_entrywise
from lazyrich.scaling.power import Power
from lazyrich.scaling.rule import Rule, rule_for
from lazyrich.scaling.tensor import TensorPlan


@dataclass(frozen=True)
class Departure:
    """One number of one tensor: the power of the width that the plan gives it, and the one that the scheme does."""

    tensor: str
    what: str
    plan: float
    scheme: float
    name: str

    def __str__(self) -> str:
        return f"{self.tensor}: the plan has its {self.what} go as width^{self.plan:g}, {self.name} as width^{self.scheme:g}"


def departures(plan: Plan) -> list[Departure]:
    """Initial sizes and learning rates whose exponents are not the scheme's, multipliers counted in.

    Example:
        >>> import lazyrich as lzr
        >>> family = lzr.Family(lzr.zoo.mlp, base=32)
        >>> departures(lzr.plan(family, lzr.mup())), str(departures(lzr.plan(family, lzr.mup(), alignment="none"))[0])
        ([], 'hidden.1.weight: the plan has its learning rate go as width^-0.5, mup() as width^-1')
    """
    entrywise, found = is_entrywise(plan.optimizer_name), []
    for name, tensor in plan.tensors.items():
        own = _exponents(tensor.rule, tensor, entrywise)
        right = _exponents(rule_for(plan.scheme, tensor.role, entrywise), tensor, entrywise)
        for what, a, b in zip(("initial size", "learning rate"), own, right, strict=True):
            if a is not None and b is not None and abs(a - b) > 1e-6:
                found.append(Departure(name, what, round(a, 6), round(b, 6), plan.scheme.name))
    return found


def _exponents(rule: Rule, tensor: TensorPlan, entrywise: bool) -> tuple[float | None, float]:
    """Of the initial size, None where it is the factory's own, and of the learning rate."""
    forward = _power(rule.multiplier, tensor)
    std = None if rule.std is None else _power(rule.std, tensor) + forward
    return std, _power(rule.lr, tensor) + (1 if entrywise else 2) * forward


def _power(power: Power, tensor: TensorPlan) -> float:
    """The power of the width, by how many axes of either side grow."""
    fan_in, fan_out = (len(set(axes) & set(tensor.grows)) for axes in (tensor.contracted, tensor.produced))
    return power.fan_in * fan_in + power.fan_out * fan_out + power.width
