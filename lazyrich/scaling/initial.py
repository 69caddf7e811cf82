"""The ``init=`` of a plan: which of its tensors start by which rule."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

from lazyrich.errors import PlanError
from lazyrich.family import Family, Role
from lazyrich.family.parametrized import place
from lazyrich.family.semantics import read_axes
from lazyrich.init import Initialiser, parse
from lazyrich.scaling.power import Power
from lazyrich.scaling.tensor import TensorPlan

CHANNELWISE = ("normal", "uniform", "orthogonal")  # forms that a kernel of single channels can have
LOOKUPS = ("Embedding", "EmbeddingBag")  # their rows are read, not summed over


def initialised(
    tensors: dict[str, TensorPlan], family: Family, init: Mapping[str, float | str | Initialiser]
) -> dict[str, TensorPlan]:
    """The tensors with their starts; of patterns that overlap the last counts.

    Raises:
        PlanError: for a pattern that matches nothing, or only tensors of which its rule says nothing.
    """
    if not isinstance(init, Mapping):
        raise PlanError(f"got init = {init!r}, expected {{tensor pattern: rule}}, such as {{'*': lazyrich.init.lecun()}}")
    rules = {pattern: _rule(pattern, rule) for pattern, rule in init.items()}
    given = {name: (pattern, rules[pattern]) for pattern in rules for name in matching(tensors, pattern, "init")}
    owners = {place(name)[0] for name, tensor in tensors.items() if _is_weight(tensor, family)}
    made, met = dict(tensors), set()
    for name, (pattern, rule) in given.items():
        started = _started(tensors[name], rule, family, owners)
        if started is not None:
            made[name] = started
            met.add(pattern)
    for pattern in rules:
        own = [name for name, (other, _) in given.items() if other == pattern]
        if own and pattern not in met:
            raise PlanError(
                f"init= gives '{pattern}' a rule that says nothing of {', '.join(own)}: they are no weights or biases of layers "
                "that it speaks of, but tables, gains or the like. Give their standard deviation at the base width, such as "
                f"init={{'{pattern}': 0.02}}"
            )
    _refuse_couplings(made)
    return made


def matching(tensors: Mapping[str, TensorPlan], pattern: str, argument: str) -> list[str]:
    """Names that a pattern matches.

    Raises:
        PlanError: if there are none.
    """
    found = [name for name in tensors if fnmatch.fnmatch(name, pattern)]
    if not found:
        raise PlanError(f"{argument}= pattern '{pattern}' matches no tensor; the tensors are {', '.join(tensors)}")
    return found


def resized(tensor: TensorPlan, factor: float) -> TensorPlan:
    """A tensor whose standard deviation is multiplied by a number.

    Raises:
        PlanError: for a tensor that starts constant.
    """
    rule, start = tensor.rule, tensor.start
    if tensor.asked_std(tensor.shape) is not None and start is not None:
        w, b = (None if v is None else v * factor**2 for v in (start.w, start.b))
        return replace(tensor, start=replace(start, w=w, b=b))
    if tensor.std == 0:
        raise PlanError(
            f"tensor '{tensor.name}' is constant at initialisation, so its std cannot be scaled; give a rule that draws it: "
            f"init={{'{tensor.name}': lazyrich.init.lecun()}}"
        )
    std = rule.std if rule.std is not None else Power(width=-(tensor.own or 0.0))
    return replace(tensor, rule=replace(rule, std=std * Power(factor)))


def _rule(pattern: str, rule: Any) -> float | Initialiser:
    """A rule, one by its name as on the command line, or a standard deviation."""
    rule = parse(rule) if isinstance(rule, str) else rule
    if isinstance(rule, Initialiser):
        return rule
    if not isinstance(rule, Real) or isinstance(rule, bool) or not 0 <= float(rule) < math.inf:
        raise PlanError(
            f"got init= {rule!r} for '{pattern}', expected a rule such as lazyrich.init.lecun(), or a standard deviation: finite "
            "and not negative"
        )
    return float(rule)


def _started(tensor: TensorPlan, rule: float | Initialiser, family: Family, owners: set[str]) -> TensorPlan | None:
    """The tensor with its rule; None where the rule says nothing of it."""
    if not isinstance(rule, Initialiser):
        silent = tensor.std == 0 and rule == 0
        return tensor if silent else resized(tensor, rule / tensor.std if tensor.std else 0.0)
    if tensor.contracted and tensor.produced:
        _refuse_unread(tensor, rule, family)
    if tensor.taps and rule.form and rule.form.name not in CHANNELWISE:
        raise PlanError(
            f"init= gives '{tensor.name}', {_narrow(tensor)}, the form {rule.form.name}, which relates channels; give it a size "
            f"of its own behind the pattern: init={{..., '{tensor.name}': lazyrich.init.he('relu')}}"
        )
    bias = not tensor.axes.summed and tensor.mean == 0 and place(tensor.name)[0] in owners and not tensor.norm_of
    return replace(tensor, start=rule) if _is_weight(tensor, family) or (bias and rule.b is not None) else None


def _refuse_unread(tensor: TensorPlan, rule: Initialiser, family: Family) -> None:
    """A plain parameter of two unequal growing sides does not tell which is summed over, and the rule asks."""
    owner, leaf = place(tensor.name)
    module = family.sketch(family.base).get_submodule(owner)
    if tensor.role is not Role.HIDDEN or read_axes(module, leaf, tensor.shape).known:
        return
    given = replace(tensor, start=rule)
    turned = replace(given, produced=tensor.contracted, contracted=tensor.produced)
    one, other = given.asked_std(tensor.shape), turned.asked_std(tensor.shape)
    if one is not None and other is not None and not math.isclose(one, other, rel_tol=1e-6):
        first, second = (", ".join(map(str, axes)) for axes in (tensor.produced, tensor.contracted))
        reader = (
            f"lazyrich.family.Axes(produced={tensor.contracted}, contracted={tensor.produced}) if name == '{leaf}' else None"
        )
        raise PlanError(
            f"init= gives '{tensor.name}' a rule that asks for its fan, but only its shape {tensor.shape} is known: it may sum "
            f"over axis {first} (as x @ w does) or {second} (as a Linear's weight), which gives {other:.4g} or "
            f"{one:.4g} at the base width. Say which before the family is made, for x @ w by "
            f"lazyrich.family.register({type(module).__name__}, "
            f"lambda module, name, shape: {reader}); or give its standard deviation at the base width: "
            f"init={{'{tensor.name}': {other:.4g}}}"
        )


def _narrow(tensor: TensorPlan) -> str:
    """What a kernel that does not see all channels is."""
    return "a transposed kernel whose groups grow" if tensor.block > 1 else "a depthwise kernel"


def _is_weight(tensor: TensorPlan, family: Family) -> bool:
    return bool(tensor.axes.summed) and family.tensors[tensor.name].kind not in LOOKUPS


def _refuse_couplings(tensors: Mapping[str, TensorPlan]) -> None:
    for name, tensor in tensors.items():
        form = tensor.start.form if tensor.start else None
        if form is None or not form.of:
            continue
        if form.of not in tensors:
            raise PlanError(
                f"'{name}' is coupled to '{form.of}', which is no tensor of it; the tensors are {', '.join(tensors)}"
            )
        if tensors[form.of].taps:
            raise PlanError(
                f"'{name}' is coupled to '{form.of}', {_narrow(tensors[form.of])}, which has no transpose over channels; give a "
                "size"
            )
        other = tensors[form.of].start
        if form.of == name or (other is not None and other.form is not None and other.form.of):
            raise PlanError(f"'{name}' is coupled to '{form.of}', which is coupled itself; couple both to the first of them")
