"""Bottlenecks that run beside a trunk, as the two thin matrices of a low-rank adapter do: what no list of layers tells."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from lazyrich.family import Role
from lazyrich.measure.predict import UnitExponents
from lazyrich.measure.watch import State, capture, first_float, state_of
from lazyrich.scaling import Plan


def bottlenecks_beside(plan: Plan, exponents: dict[str, UnitExponents], x: Any, width: int) -> frozenset[str]:
    """Layers that narrow to a fixed size while wide features go past them, found by one run of a small network for each.

    Args:
        plan: with its family.
        exponents: of the layers, in the order of their calls.
        x: a batch of inputs.
        width: of the network that is run.
    """
    wide = [key for key, unit in exponents.items() if unit.wide]
    asked = [key for key, unit in exponents.items() if unit.role is Role.OUTPUT and wide and _before(exponents, key, wide[-1])]
    if not asked or plan.family is None:
        return frozenset()
    model = plan.build(width)
    state = {k: v.requires_grad_(v.is_floating_point()) for k, v in state_of(model).items()}
    return frozenset(key for key in asked if _passed(model, state, x, key, wide))


def _before(exponents: dict[str, UnitExponents], one: str, other: str) -> bool:
    order = list(exponents)
    return order.index(one) < order.index(other)


def _passed(model: nn.Module, state: State, x: Any, key: str, wide: Sequence[str]) -> bool:
    """Whether wide features from before a layer reach one behind it that also reads its own output, which is cut off."""
    with suppress(Exception):  # what does not run so has been refused, or is taken in the order of its calls
        layer = model.get_submodule(key.split("#")[0])
        cut = layer.register_forward_hook(lambda module, args, out: first_float(out).detach().requires_grad_())
        try:
            _, calls = capture(model, state, x, grad=True)
        finally:
            cut.remove()
        at = list(calls).index(key)
        above = [call.output for k, call in list(calls.items())[:at] if k in wide and call.output.requires_grad]
        below = [call.output.sum() for call in list(calls.values())[at + 1 :] if call.output.requires_grad]
        own, *past = torch.autograd.grad(torch.stack(below).sum(), [calls[key].output, *above], allow_unused=True)
        return own is not None and any(grad is not None for grad in past)  # else it is a readout of its own
    return False
