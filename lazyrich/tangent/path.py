"""Ways in autograd's graph from the outputs to a parameter, and those that lead past the operations that were recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

Owner = tuple[Any, frozenset[str]]  # the node of a recorded operation's output, and the parameters that it reads


def inside(out: Tensor, given: Iterable[Any]) -> set[Any]:
    """The nodes of one operation, from its output to what it was given.

    Example:
        >>> import torch
        >>> weight, a = torch.ones(3, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True).tanh()
        >>> sorted(node.name() for node in inside(torch.nn.functional.linear(a, weight), (a, weight)))
        ['MmBackward0', 'TBackward0']
    """
    ends = {t.grad_fn for t in given if isinstance(t, Tensor)}
    found: set[Any] = {out.grad_fn}
    ahead: list[Any] = [out.grad_fn]
    while ahead:
        for after, _ in ahead.pop().next_functions:
            if after is not None and after.next_functions and after not in ends and after not in found:
                found.add(after)
                ahead.append(after)
    return found


def past(out: Tensor, names: Mapping[int, str], owners: Mapping[Any, Owner]) -> set[str]:
    """Parameters on which outputs depend otherwise than by the output of a recorded operation.

    Such are those that an autograd.Function reads inside of its forward, and those that the derivative of a recorded operation
    reads, where a network's outputs are derivatives.

    Args:
        out: the outputs.
        names: of the parameters, by id.
        owners: of the nodes inside of recorded operations.

    Example:
        >>> import torch
        >>> weight = torch.ones(3, requires_grad=True)
        >>> past(torch.ones(2, 3) * weight, {id(weight): "weight"}, {})
        {'weight'}
    """
    found: set[str] = set()
    ahead: list[Any] = [] if out.grad_fn is None else [out.grad_fn]
    seen = set(ahead)
    while ahead:
        node = ahead.pop()
        top, own = owners.get(node, (node, frozenset()))
        for after, _ in node.next_functions:
            if after is None:
                continue
            name = names.get(id(after.variable)) if type(after).__name__ == "AccumulateGrad" else None
            if name is not None and name not in own:
                found.add(name)
            root, read = owners.get(after, (after, frozenset()))
            if after is not root and root is not top:  # into the middle of an operation
                found |= read
            if after not in seen:
                seen.add(after)
                ahead.append(after)
    return found
