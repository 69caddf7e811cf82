"""Forward multipliers that a plan asks for and a study's networks do without."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from lazyrich.scaling import Plan
from lazyrich.scaling.obligation import Obligation

SHOWN = 4  # places of one debt


def debts(plans: Sequence[Plan], widths: Sequence[int], meet: bool) -> tuple[str, ...]:
    """A line a kind of obligation that is not met and whose factor is not 1 at all of these widths, with the mend.

    Example:
        >>> import lazyrich as lzr
        >>> debts([lzr.plan(lzr.Family(lzr.zoo.mlp, base=8), lzr.mup(), "adam")], [8, 16], meet=False)
        ()
    """
    found: dict[tuple[str, str, str], dict[str, dict[str, None]]] = {}
    for plan in plans:
        for owed in _unmet(plan, widths, meet):
            places = found.setdefault((owed.kind, owed.why, _mend(owed)), {})
            places.setdefault(owed.where or "the whole network", {})[_name(plan)] = None
    lines = []
    for (kind, why, mend), places in found.items():
        names = dict.fromkeys(name for own in places.values() for name in own)
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        whose = f" in {', '.join(names)}" if len(names) < len({_name(plan) for plan in plans}) else ""
        lines.append(f"unmet{whose}: {kind} at {', '.join([*places][:SHOWN])}{more}: {why}{mend}")
    return tuple(lines)


def met(plans: Sequence[Plan], widths: Sequence[int], meet: bool) -> str:
    """Whether obligations are met, in a word: yes, no, or none where no plan has one that is other than 1.

    Example:
        >>> import lazyrich as lzr
        >>> met([lzr.plan(lzr.Family(lzr.zoo.mlp, base=8), lzr.mup(), "adam")], [8, 16], meet=False)
        'none'
    """
    if not any(_unmet(plan, widths, False) for plan in plans):
        return "none"
    return "no" if any(_unmet(plan, widths, meet) for plan in plans) else "yes"


def _unmet(plan: Plan, widths: Sequence[int], meet: bool) -> list[Obligation]:
    if plan.family is None or not plan.obligations:
        return []
    sketches = [plan.family.sketch(width) for width in widths]
    return [owed for owed in plan.obligations if not (meet and not owed.unclear) and _counts(owed, sketches)]


def _counts(owed: Obligation, sketches: Sequence[nn.Module]) -> bool:
    """Whether it changes anything at these widths: branches of a network as deep as the tuned one are scaled by 1."""
    return owed.unclear or any(not math.isclose(owed.factor(sketch), 1.0) for sketch in sketches)


def _mend(owed: Obligation) -> str:
    return "; meet it with meet=True, or --meet" if owed.hooked else ""  # else the reason says what to do


def _name(plan: Plan) -> str:
    depth = plan.family.depth if plan.family else None
    return f"{plan.scheme.name} · {plan.optimizer_name}" + (f" · depth {depth}" if depth is not None else "")
