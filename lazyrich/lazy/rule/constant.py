"""Numbers in the shape of a branch: where states start, and what is joined before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyrich.graph.node import Batch
from lazyrich.lazy.field import Data, Field
from lazyrich.lazy.layout import Atom, Axis, Kind, Layout
from lazyrich.lazy.rule.table import Call, register


@register("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", says="a number")
def constant_like(call: Call) -> Data:
    """The same number everywhere."""
    op, shape = call.node.op, call.node.shape or ()
    given = call.get(2 if op == "new_full" else 1, "fill_value", 0.0) if "full" in op else 0.0
    number = float(1.0 if "ones" in op else given)
    return Data(tuple(_filled(x, number, shape) for x in call.run.inputs), shape=shape, number=number)


def _filled(x: Tensor, number: float, shape: tuple[Any, ...]) -> Tensor:
    sizes = [size.times * len(x) if isinstance(size, Batch) else size for size in shape]
    dtype = x.dtype if x.is_floating_point() else torch.float64  # tokens have no precision of their own
    return torch.full((), number, dtype=dtype, device=x.device).expand(sizes)


def are_zero(data: Data) -> bool:
    """Whether all numbers are zero."""
    return not any(bool(tensor.any()) for tensor in data.tensors)


def zeros(data: Data, like: Field) -> Field:
    """Zeros as a branch, with the axes of another one."""

    def axis(size: Any, other: Axis) -> Axis:
        kind = next((a.kind for a in other if a.kind is not Kind.POSITION), Kind.POSITION)
        return other if kind is Kind.BATCH else (Atom(kind, size),) if size > 1 or kind is Kind.FEATURE else ()

    layout = Layout(tuple(axis(size, other) for size, other in zip(data.shape, like.layout.axes, strict=True)))
    sizes = [a.size for a in layout.positions] * (2 if like.full else 1)
    nngp = like.nngp.new_zeros(()).expand(*like.nngp.shape[: like.lead], *sizes)
    ntk = None if like.ntk is None else nngp
    return Field(layout, layout.positions, nngp, ntk, like.full, frozenset(), gaussian=True, centred=True)
