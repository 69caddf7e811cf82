"""The slopes that a plan predicts for every unit, from its tensors' exponents and the order of the units.

A chain of units is walked backwards for the size of the gradient and forwards for the size of the update, at the first
step and to leading order in the width: the power counting of Yang & Hu 2021 (arXiv:2011.14522) and, for entrywise
optimizers, of Yang & Littwin 2023 (arXiv:2308.01814), tensor by tensor. It covers finite bottlenecks, whose two sides are
walked like two networks. Where branches run in parallel it takes them in the order in which they are called; a bottleneck beside
a trunk adds to what the trunk carries, so the larger exponent stays. Under gradient descent nothing is predicted from there on:
what such a bottleneck learns hangs on its level and on matrices that start at zero, which leading orders leave out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lazyrich.amount import counted
from lazyrich.errors import UsageError
from lazyrich.family import Role
from lazyrich.family.parametrized import place
from lazyrich.scaling import Plan, as_plan
from lazyrich.scaling.optimizer import is_entrywise

NEVER = -math.inf


@dataclass(frozen=True)
class UnitExponents:
    """Exponents in the width of one unit.

    Its main tensor's role, std n^-init and learning rate n^-rate (effective ones, multipliers counted in), for every
    tensor its rate and the growth of what it sums over, and of how many features it reads n^fan_in and gives n^fan_out.
    ``zero`` where the main tensor starts at zero: it is then as large as its first updates.
    """

    tensor: str
    role: Role
    init: float
    rate: float
    rates: tuple[tuple[float, float], ...]
    owed: bool = False
    fan_in: float = 1.0
    fan_out: float = 1.0
    zero: bool = False

    @property
    def wide(self) -> bool:
        """Whether the unit's output grows with the width."""
        return self.role in _WIDE


@dataclass(frozen=True)
class Prediction:
    """Predicted slopes of one unit, powers of the width; NaN where nothing is predicted.

    Attributes:
        update: of its output's movement, root mean square an entry.
        layer: of the part that its own weights did.
        passthrough: of the part that came from below.
        uuc: of |delta . Delta h|, the update's use to the loss.

    Example:
        >>> Prediction(update=0.0, layer=-0.5, passthrough=0.0, uuc=0.0).max  # moved from below
        -0.5
    """

    update: float
    layer: float
    passthrough: float
    uuc: float

    @property
    def max(self) -> float:
        """Slope of the layer's own share of its update."""
        return self.layer - self.update


def predict(
    plan: Plan, order: Sequence[str], widths: Sequence[int], met: bool = False, beside: Collection[str] = ()
) -> dict[str, Prediction]:
    """Predicted slopes of every unit, in the order of their calls.

    Args:
        plan: whose numbers at the smallest and largest width give the exponents.
        order: unit paths as ``UpdateProbe.order`` has them; loose tensors by name.
        widths: the widths that are compared.
        met: whether the plan's obligations are met.
        beside: layers of the order that narrow to a fixed size while wide features go past them (``bottlenecks_beside``).

    Raises:
        UsageError: for a path that is no unit of the plan, and widths of which none differ.

    Example:
        >>> import lazyrich as lzr
        >>> plan = lzr.plan(lzr.Family(lzr.zoo.mlp), lzr.ntk(), "sgd")
        >>> predict(plan, ["hidden.0", "hidden.1", "readout"], [64, 256])["hidden.1"].update
        -0.5
    """
    if not isinstance(order, Sequence) or isinstance(order, str):
        raise UsageError(f"got order {order!r}, expected paths of layers in the order of their calls")
    exponents = unit_exponents(as_plan(plan), order, _widths(widths), met)
    chain = {key: unit for key, unit in exponents.items() if key not in plan.tensors}
    entrywise = is_entrywise(plan.optimizer_name)
    back, chain = _backward(chain, entrywise, beside)
    found = _forward(chain, back, entrywise, beside)
    if not entrywise and (first := next((i for i, key in enumerate(found) if key in beside), None)) is not None:
        found |= dict.fromkeys(list(found)[first:], Prediction(*[math.nan] * 4))
    near = next((size for key, size in back.items() if chain[key].wide), 0.0)
    for key in exponents.keys() - chain.keys():  # a tensor that no unit owns has no place in the chain, only its own change
        own = _own(exponents[key], near, entrywise)
        found[key] = Prediction(own, own, NEVER, near + own + 1.0)
    return found


def _widths(widths: Any) -> list[int]:
    """At least two: a slope between equal ones is none."""
    several = list(widths) if isinstance(widths, Iterable) and not isinstance(widths, str) else [widths]
    found = [counted("a width", width) for width in several]
    if len(set(found)) < 2:
        raise UsageError(f"got widths {found}, expected at least two different ones, such as [64, 256]")
    return found


def unit_exponents(plan: Plan, order: Sequence[str], widths: Sequence[int], met: bool = False) -> dict[str, UnitExponents]:
    """What the plan's numbers at the smallest and the largest width say of every unit."""
    entrywise, ends = is_entrywise(plan.optimizer_name), (min(widths), max(widths))
    return {key: _unit(plan, key.split("#")[0], ends, entrywise, met) for key in order}


def _unit(plan: Plan, path: str, widths: tuple[int, int], entrywise: bool, met: bool) -> UnitExponents:
    names = [name for name in plan.tensors if name == path or place(name)[0] == path]
    names = names or [name for name in plan.tensors if name.startswith(path + ".")] or [_alias(plan, path)]
    small, large = (plan.settings(width) for width in widths)
    log_width = math.log(widths[1] / widths[0])
    tied = next((o for o in plan.obligations if o.kind == "tied readout" and o.where == path), None)

    def slope(a: float, b: float) -> float:
        return math.log(b / a) / log_width if a > 0 and b > 0 else 0.0

    forward = tied.exponent if tied and met else 0.0
    rates, roles, multipliers, given = [], [], [], []
    for name in names:
        s, t = small[name], large[name]
        multipliers.append(slope(s.multiplier, t.multiplier) + forward)
        rate = -slope(s.step, t.step) - (1 if entrywise else 2) * multipliers[-1]
        ins, outs = slope(s.growth.fan_in, t.growth.fan_in), slope(s.growth.fan_out, t.growth.fan_out)
        rates.append((rate, outs if tied else ins))
        given.append(ins if tied else outs)
        roles.append(Role.OUTPUT if tied else plan.tensors[name].role)
    main = max(range(len(names)), key=lambda i: _RANK.index(roles[i]))
    name, rate = names[main], rates[main][0]
    drawn = -slope(small[name].std, large[name].std) - multipliers[main]
    zero = plan.tensors[name].std == 0
    init = rate if zero else drawn
    return UnitExponents(name, roles[main], init, rate, tuple(rates), bool(tied and not met), rates[main][1], given[main], zero)


_RANK = (Role.FIXED, Role.VECTOR, Role.INPUT, Role.OUTPUT, Role.HIDDEN)


def _alias(plan: Plan, path: str) -> str:
    """The tensor of a unit that owns none under its own name, because it is tied."""
    family = plan.family
    infos = family.tensors.values() if family else ()
    found = next((info.name for info in infos if any(alias.rpartition(".")[0] == path for alias in info.aliases)), None)
    if found is None:
        known = dict.fromkeys(name.rpartition(".")[0] or name for name in plan.tensors)
        raise UsageError(f"got '{path}', expected layers that own tensors of the plan: {', '.join(known)}")
    return found


def _backward(
    exponents: dict[str, UnitExponents], entrywise: bool, beside: Collection[str]
) -> tuple[dict[str, float], dict[str, UnitExponents]]:
    """Exponent of the loss gradient at every unit's output; and the units, zero tensors at the size of their first updates.

    A gradient step is as large as the gradient, and a matrix made of gradients takes them down coherently.
    """
    last = list(exponents.values())[-1] if exponents else None
    wide, narrow, sizes, grown = (-1.0 if last and last.role in _WIDE else NEVER), 0.0, {}, dict(exponents)
    for key, unit in reversed(exponents.items()):
        sizes[key] = wide if unit.role in _WIDE and wide > NEVER else narrow
        if unit.zero and not entrywise:
            unit = grown[key] = replace(unit, init=unit.rate - sizes[key])
        down = unit.fan_out * (1.0 if unit.zero and not entrywise else 0.5) - unit.init
        if unit.role is Role.OUTPUT:
            wide = max(narrow - unit.init, wide if key in beside else NEVER)
        elif unit.role is Role.INPUT and not _is_first(exponents, key):
            narrow = wide + down
        elif unit.role is Role.HIDDEN:
            wide = wide + down
    return sizes, grown


_WIDE = (Role.HIDDEN, Role.INPUT, Role.VECTOR)


def _is_first(exponents: dict[str, UnitExponents], key: str) -> bool:
    """Whether nothing that trains comes before: then no gradient is needed below this unit."""
    before = list(exponents)[: list(exponents).index(key)]
    return not any(exponents[k].role is Role.OUTPUT for k in before)


def _forward(
    exponents: dict[str, UnitExponents], back: dict[str, float], entrywise: bool, beside: Collection[str]
) -> dict[str, Prediction]:
    """Exponents of the updates.

    ``driven`` features moved along their own gradient, ``carried`` ones only because a bottleneck below moved: a sum over
    driven features adds up, one over carried features cancels like a random walk. ``aligned`` is delta.Delta h of driven
    features below: weights take gradients down as they take features up, so it passes every layer unchanged.
    """
    found, driven, carried, narrow, aligned = {}, NEVER, NEVER, NEVER, NEVER
    joins = False  # whether what narrowed last has a trunk beside it
    for key, unit in exponents.items():
        own = _own(unit, back[key], entrywise)
        if unit.role is Role.INPUT and joins:
            through = narrow - unit.init
            driven, carried = max(driven, own), max(carried, through)
        elif unit.role is Role.INPUT:
            driven, carried = (own, narrow - unit.init) if narrow > NEVER else (max(driven, own), carried)
            through, aligned = narrow - unit.init, NEVER if narrow > NEVER else aligned
        elif unit.role is Role.HIDDEN:
            through = max(driven, carried) + unit.fan_in / 2 - unit.init
            driven, carried = max(driven, own), carried + unit.fan_in / 2 - unit.init
        elif unit.role is Role.VECTOR:
            through = max(driven, carried)
            driven = max(driven, own)
        elif unit.role is Role.OUTPUT:
            through = max(driven + unit.fan_in, carried + unit.fan_in / 2) - unit.init
            joins = key in beside
        else:
            through = narrow
        update = max(own, through)
        if unit.role in _WIDE:
            moved = max(driven + unit.fan_out, carried + unit.fan_out / 2, through + unit.fan_out / 2)
            aligned = max(aligned, back[key] + own + unit.fan_out)
            uuc = max(back[key] + moved, aligned)
        else:
            narrow, uuc = max(narrow, update), back[key] + update
        found[key] = Prediction(update, own, through, uuc)
    return found


def _own(unit: UnitExponents, gradient: float, entrywise: bool) -> float:
    """Exponent of what a unit's own tensors do to its output in one step."""
    return max(summed - rate + (0.0 if entrywise else gradient) for rate, summed in unit.rates)
