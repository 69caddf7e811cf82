"""Outputs: features whose number no width of the network changes, so what is done to all of them keeps its fluctuations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from lazyrich.family import Role
from lazyrich.lazy.field import Curve, Field, Mix, Sources
from lazyrich.lazy.rule.table import Call

FEW = 64  # outputs, below which a statistic over them is off by more than about two per cent
MEAN = "mean over outputs"


def fixed(call: Call, sources: Sources) -> bool:
    """Whether features are drawn by readouts alone: no later weight sums over them, or a plan does not let them grow."""
    run, roles = call.run, call.run.weights.roles
    matrices = [source.name for source in sources if "matrix" in run.ways.get(source.name, "")]
    narrow = [roles[n] in (Role.OUTPUT, Role.FIXED) if n in roles else n in run.readouts for n in matrices]
    return bool(narrow) and all(narrow)


def number_of_features(value: Any) -> int:
    """How many features a branch has; one where it lost their axis."""
    return math.prod(atom.size for atom in value.layout.features)


def widest(call: Call, a: Field, b: Field) -> tuple[Field, Field]:
    """Two branches, the one with more features first: what all of its features share with the other makes them dependent."""
    if number_of_features(a) == number_of_features(b):
        return a, b
    wide, lone = (a, b) if number_of_features(a) > number_of_features(b) else (b, a)
    if fixed(call, a.sources) and fixed(call, b.sources):
        return replace(wide, gaussian=False, shared=True), lone
    raise call.refuse(
        f"{number_of_features(lone)} feature(s) meet {number_of_features(wide)}, which grow with the width: what all of them share "
        "stays random at infinite width, and no kernel is known",
        "give either branch as many features, nn.Linear(n, n) for nn.Linear(n, 1), or let it depend on the inputs alone",
    )


def refuse_few(call: Call, value: Any, groups: int = 1) -> None:
    """A statistic over outputs, or over features that share a part: it fluctuates at every width."""
    parts = [part for _, part in value.parts] if isinstance(value, Mix) else [value]
    fields = [part.base if isinstance(part, Curve) else part for part in parts]
    if any(field.shared for field in fields):
        raise call.refuse("it is a statistic over outputs that share a part, so it fluctuates", "take it before they share it")
    number = number_of_features(value) // groups
    if number < FEW and all(fixed(call, field.sources) for field in fields):
        raise call.refuse(
            f"it is a statistic over {number} outputs, which fluctuates at every width; expected {FEW} or more of them, or the "
            "features of an inner layer",
            "normalise before the readout",
        )


def tell_random(call: Call, outputs: Field, factor: str, curve: Curve | None = None) -> None:
    """Note that outputs themselves stay in the tangent kernel, which a network of any width then draws anew."""
    run, few = call.run, number_of_features(outputs) < FEW or bool(call.run.weights.roles)
    if not run.tangent or run.averaged or run.random or outputs.ntk is None or not few or not fixed(call, outputs.sources):
        return
    if (curve is not None and _is_straight(curve)) or not bool(outputs.ntk.any()):
        return
    run.random = call.refuse(
        f"behind the readout {factor} stays in the tangent kernel, and outputs are random at every width, so the kernel is",
        "take this into the loss and end the network in a linear layer; the nngp kernel alone is known, k.nngp(x)",
    )


def _is_straight(curve: Curve) -> bool:
    """Whether it is a x + b."""
    below, b, above, far = curve.curve(torch.tensor([-1.3, 0.0, 1.3, 7.8], dtype=torch.float64)).tolist()
    size = 1e-9 * (abs(above - b) + 1e-30)
    return abs(above + below - 2 * b) <= size and abs(far - b - 6 * (above - b)) <= 10 * size


def is_linear(call: Call, value: Any) -> bool:
    """Whether the sum over all features of a branch is known by itself: of outputs that are independent and of mean zero."""
    if isinstance(value, Mix):
        return False
    base, odd = (value.base, value.odd) if isinstance(value, Curve) else (value, True)
    return base.gaussian and base.centred and odd and fixed(call, base.sources)


def summed(call: Call, field: Field) -> Field:
    """The mean (or sum) over independent outputs, one feature: K / k (or k K), Theta alike."""
    number = number_of_features(field)
    factor = 1.0 / number if call.node.op == "mean" else float(number)
    features = field.layout.features
    one = tuple(tuple(replace(a, size=1) if a in features else a for a in axis) for axis in field.layout.axes)
    origin = (MEAN, call.node.inputs[0]) if call.node.op == "mean" else None
    return field.mapped(lambda k: k * factor, lambda m: m, layout=type(field.layout)(one), origin=origin)


def is_centring(call: Call, first: Any, second: Any, alpha: float) -> bool:
    """Whether the mean over outputs is taken off them, or off a sum of them with others."""
    if alpha != -1 or not (isinstance(second, Field) and second.origin and second.origin[0] == MEAN):
        return False
    name, of = call.node.inputs[0], second.origin[1]
    above = call.run.graph[name]
    apart = (
        isinstance(first, Field) and above.op == "add" and not above.kwargs and above.inputs.count(of) == 1 < len(above.inputs)
    )
    return name == of or apart


def centred(outputs: Field, mean: Field) -> Field:
    """K - K / k: the mean is of covariance K / k with every output, and with itself."""
    ntk = None if outputs.ntk is None else outputs.ntk - mean.ntk  # type: ignore[operator]
    return replace(outputs, nngp=outputs.nngp - mean.nngp, ntk=ntk, gaussian=False, origin=None)
