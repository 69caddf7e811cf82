"""Where a plan's numbers grow otherwise with the width than those of its own scheme."""

from __future__ import annotations

from dataclasses import dataclass

from lazyrich.family import Role
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
    aligned: bool = True

    def __str__(self) -> str:
        said = f"{self.tensor}: the plan has its {self.what} go as width^{self.plan:g}, {self.name} as width^{self.scheme:g}"
        return said if self.aligned else f"{said}; {UNALIGNED}"


UNALIGNED = (
    "so asks alignment='none' or readout_alignment=, right only where updates do not align with features; theory here takes it "
    "that they do"
)
ALIGNING = (Role.HIDDEN, Role.OUTPUT)


def departures(plan: Plan) -> list[Departure]:
    """Initial sizes and learning rates whose exponents are not the scheme's, multipliers counted in.

    ``aligned`` is False of rates that are larger by the power of the fan-in that a plan's assumption on alignment gives.

    Example:
        >>> import lazyrich as lzr
        >>> family = lzr.Family(lzr.zoo.mlp, base=32)
        >>> departures(lzr.plan(family, lzr.mup()))
        []
        >>> [(d.tensor, d.plan, d.scheme) for d in departures(lzr.plan(family, lzr.mup(), readout_alignment=0.5))]
        [('readout.weight', -0.5, -1.0)]
    """
    entrywise, found = is_entrywise(plan.optimizer_name), []
    for name, tensor in plan.tensors.items():
        if tensor.norm_of:  # gains follow the directions that they multiply
            continue
        scheme = rule_for(plan.scheme, tensor.role, entrywise)
        own, right = (_exponents(rule, tensor, entrywise) for rule in (tensor.rule, scheme))
        for what, a, b in zip(("initial size", "learning rate"), own, right, strict=True):
            if a is not None and b is not None and abs(a - b) > 1e-6:
                assumed = entrywise and what == "learning rate" and tensor.role in ALIGNING and 0 < a - b <= 0.5
                found.append(Departure(name, what, round(a, 6), round(b, 6), plan.scheme.name, not assumed))
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
