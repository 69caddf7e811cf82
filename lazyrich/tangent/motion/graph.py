"""Reading autograd's graph of a forward pass as operations whose derivatives are all known, where it has no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lazyrich.tangent.motion.curve import CURVES
from lazyrich.tangent.motion.linear import LINEAR
from lazyrich.tangent.motion.node import Node, Read, UnknownOperation
from lazyrich.tangent.motion.norm import NORMS, written_out
from lazyrich.tangent.motion.operation import Operation, Place
from lazyrich.tangent.motion.product import MULTIPLIED

READ: Mapping[str, Read] = {**LINEAR, **MULTIPLIED, **CURVES}


@torch.no_grad()
def known_operations(out: Tensor, names: Mapping[int, Place]) -> list[Operation] | None:
    """The operations between parameters and outputs, each behind what it reads; None where one is not known.

    Args:
        out: the outputs, in the graph.
        names: of the parameters, by id, or other places of what the graph starts from; other leaves are not known.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
        >>> names = {id(p): name for name, p in net.named_parameters()}
        >>> [type(operation).__name__ for operation in known_operations(net(torch.ones(5, 3)), names)]
        ['Map', 'Map', 'Product', 'Curve', 'Product']
    """
    found: dict[Place, tuple[Operation, ...]] = {}
    ahead: list[tuple[Any, int, bool]] = [] if out.grad_fn is None else [(out.grad_fn, out.output_nr, False)]
    try:
        while ahead:
            node, output, ready = ahead.pop()
            if Node(node, output, ()).place in found:
                continue
            before = [(earlier, at) for earlier, at in node.next_functions if earlier is not None and earlier.next_functions]
            if not ready:
                ahead += [(node, output, True), *((earlier, at, False) for earlier, at in before)]
                continue
            this = Node(node, output, tuple(_place(earlier, at, names) for earlier, at in node.next_functions))
            found[this.place] = _operations(this, out)
    except (UnknownOperation, RuntimeError):  # or what it keeps was changed behind it
        return None
    return [operation for several in found.values() for operation in several] or None


def _place(node: Any, output: int, names: Mapping[int, Place]) -> Place | None:
    if node is None or node.next_functions:
        return None if node is None else Node(node, output, ()).place
    name = names.get(id(getattr(node, "variable", None)))
    if name is None:
        raise UnknownOperation
    return name


def _operations(node: Node, out: Tensor) -> tuple[Operation, ...]:
    """What a node does; it may be several operations."""
    name, made = node.node.name(), node.node._input_metadata[node.output]
    if node.casts or made.dtype != out.dtype or made.device != out.device:
        raise UnknownOperation
    if name in NORMS:
        if (found := known_operations(*written_out(node))) is None:
            raise UnknownOperation
        return (*found[:-1], replace(found[-1], place=node.place))
    read = READ.get(name)
    if read is None:
        raise UnknownOperation
    one = read(node)
    return one if isinstance(one, tuple) else (one,)
