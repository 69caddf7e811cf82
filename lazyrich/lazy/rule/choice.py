"""One of two values, place by place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lazyrich.lazy.field import Data, Random, number_of
from lazyrich.lazy.rule.pointwise import joined
from lazyrich.lazy.rule.sums import masked, sum_of
from lazyrich.lazy.rule.table import Call, register


@register("where", "masked_fill", says="of functions of one field a function; masks choose positions", moments=True)
def choose(call: Call) -> Any:
    """One of two values, by a condition on the field itself, or by a mask over positions that may depend on the sample."""
    condition, first, second = call.args if call.node.op == "where" else (call.args[1], call.args[2], call.args[0])
    whole = joined(call, (condition, first, second), lambda c, a, b: torch.where(c != 0, a, b))
    if whole is not None:
        return whole
    if not isinstance(condition, Data):
        raise call.refuse(
            "its condition and its values are not functions of one field", "choose by the field itself, or by a mask"
        )
    masks = (condition, replace(condition, tensors=tuple(~t.bool() for t in condition.tensors)))
    values = [(value, mask) for value, mask in zip((first, second), masks, strict=True) if number_of(value) != 0]
    if any(not isinstance(value, Random) for value, _ in values):
        raise call.refuse("it fills positions with something that is neither zero nor a branch", "fill with zero")
    parts = [masked(call, call.run.field(value, call), mask) for value, mask in values]
    return parts[0] if len(parts) == 1 else sum_of(call, *parts)
