"""Parameters before they meet a branch: times and plus numbers, and what else would be made of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from lazyrich.lazy.field import Data, Weight, number_of
from lazyrich.lazy.rule.table import Call


def changed(call: Call) -> Weight | Data:
    """A sum or product of one parameter and numbers: its law is scaled and shifted. One of a single entry may meet the data."""
    if any(isinstance(value, Data) and number_of(value) is None for value in call.args):
        args = tuple(_number(call, value) if isinstance(value, Weight) else value for value in call.args)
        return call.run.computed(call.node, args, call.kwargs, args)
    weights = [(i, value) for i, value in enumerate(call.args[:2]) if isinstance(value, Weight)]
    numbers = [number_of(value) for value in call.args[:2] if not isinstance(value, Weight)]
    if len(weights) != 1 or None in numbers or call.kwargs.get("rounding_mode") is not None:
        raise call.computed()
    (at, weight), number, op = weights[0], float((numbers or [0.0])[0] or 0.0), call.node.op
    if tuple(call.node.shape or ()) != tuple(weight.shape) or (op == "div" and at == 1):
        raise call.computed()
    alpha = float(call.get(2, "alpha", 1))
    if op == "rsub":  # the second minus alpha times the first
        factor, added = (-alpha, number) if at == 0 else (1.0, -alpha * number)
    elif op in ("mul", "div", "neg"):
        factor, added = -1.0 if op == "neg" else (number if op == "mul" else 1 / number), 0.0
    else:
        sign = alpha if op == "add" else -alpha
        factor, added = (1.0, sign * number) if at == 0 else (sign, number)
    return replace(weight, scale=weight.scale * factor, shift=weight.shift * factor + added)


def _number(call: Call, weight: Weight) -> Data:
    number = scalar(call, weight)
    if number is None:
        raise call.computed()
    return Data((call.run.inputs[0].new_tensor(number),), constant=True, shape=())


def scalar(call: Call, value: Any) -> float | None:
    """A number, also one that a parameter of one entry holds and that no training moves; None for anything else."""
    if not isinstance(value, Weight):
        return number_of(value)
    spread = value.spread or (False,) * len(value.shape)
    if math.prod(1 if one else size for size, one in zip(value.shape, spread, strict=True)) != 1:
        return None
    drawn = call.run.entry(value)
    if drawn.variance:
        raise call.refuse(
            f"'{value.name}' is one number for all features, drawn at random, so the kernel stays random at infinite width",
            "give it one number a feature, or start it at a fixed one",
        )
    if drawn.rate and call.run.tangent:
        raise call.refuse(
            f"'{value.name}' is one number for all features, so its part of the tangent kernel stays random at infinite width",
            "freeze it (requires_grad_(False)), or give it one number a feature; the nngp kernel alone is known, k.nngp(x)",
        )
    return drawn.mean
