"""Norms in autograd's graph, by their formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lazyrich.tangent.motion.node import Node, UnknownOperation

Formula = Callable[[Node, Tensor, Any, Any], Tensor]


def _group_norm(node: Node, x: Tensor, weight: Any, bias: Any) -> Tensor:
    groups = x.reshape(len(x), node.saved("group"), -1)
    centred = groups - groups.mean(2, keepdim=True)
    out = centred * (centred.square().mean(2, keepdim=True) + node.saved("eps")).rsqrt()
    return _scaled(out.reshape(x.shape), weight, bias)


def _batch_norm(node: Node, x: Tensor, weight: Any, bias: Any) -> Tensor:
    """With fixed statistics."""
    if node.saved("training"):
        raise UnknownOperation
    centre, scale = node.saved("running_mean"), (node.saved("running_var") + node.saved("eps")).rsqrt()
    return _scaled((x - _wide(centre, x)) * _wide(scale, x), weight, bias)


def _scaled(x: Tensor, weight: Any, bias: Any) -> Tensor:
    x = x if weight is None else x * _wide(weight, x)
    return x if bias is None else x + _wide(bias, x)


def _wide(t: Tensor, x: Tensor) -> Tensor:
    """One number a channel."""
    return t.reshape(-1, *(1 for _ in x.shape[2:]))


NORMS: Mapping[str, Formula] = {"NativeGroupNormBackward0": _group_norm, "NativeBatchNormBackward0": _batch_norm}


def written_out(node: Node) -> tuple[Tensor, dict[int, Any]]:
    """A norm's value by its formula, in a graph of its own, and the places of what it starts from, by id."""
    x, weight = node.saved("input"), node.saved("weight")
    bias = None if node.reads[2] is None else x.new_zeros(node.given(2))  # it is added, so no derivative needs its value
    start: list[Any] = [x, weight, bias]
    places = {i: at for i, at in enumerate(node.reads) if at is not None}
    for i in places:
        start[i] = start[i].detach().requires_grad_()
    with torch.enable_grad():
        made = NORMS[node.node.name()](node, start[0], start[1], start[2])
    return made, {id(start[i]): at for i, at in places.items()}
