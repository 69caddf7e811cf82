"""The field that a network returns, or why it has no kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.graph import Node
from lazyrich.lazy.field import Field, Mix, Random, Source, Turned
from lazyrich.lazy.rule.table import Call

if TYPE_CHECKING:
    from lazyrich.lazy.run import Run


def returned(run: Run, node: Node, values: Mapping[str, Any]) -> Field:
    """The one random value that the output node reads, at equal positions.

    Raises:
        KernelError: for several, none, or one whose features have no kernel in common.
    """
    found = [values[name] for name in node.inputs]
    if len(found) != 1:
        raise KernelError(f"the network returns {len(found)} tensors, expected one; wrap it so that it returns the one")
    if not isinstance(found[0], Random):
        what = "is a number that does not fluctuate" if node.inputs[0] in run.graph.weighed else "holds no random weight"
        raise KernelError(f"the network's output {what}, so it has no kernel; end it in a linear layer")
    call = Call(node, (found[0],), {}, run)
    field = call.field().merged().reduced()
    if isinstance(field, Turned):
        raise field.reason
    if field.mixed and not _alike(found[0], call):
        raise KernelError(
            "the outputs join branches of different laws or training, or of the same weights, which have no kernel in common; "
            "return one branch"
        )
    return field


def _alike(value: Any, call: Call) -> bool:
    """Whether joined branches are independent copies of one another, as the heads of one trunk."""
    parts = [call.run.field(part, call).merged().reduced() for _, part in value.parts] if isinstance(value, Mix) else []
    return bool(parts) and copies(parts)


def copies(fields: Sequence[Field]) -> bool:
    """Whether fields of disjoint weights have the same covariances, up to rounding.

    Example:
        >>> import torch
        >>> from lazyrich.lazy.layout import Layout
        >>> one, other = (Field(Layout(()), (), torch.ones(1, 1), None, False, frozenset({Source(name)})) for name in "ab")
        >>> copies([one, other]), copies([one, one])
        (True, False)
    """
    first, seen = fields[0], list[Source]()
    for field in fields:
        if any(s.meets(t) for s in field.sources for t in seen) or (field.mean is None) != (first.mean is None):
            return False
        seen += field.sources
        pairs = ((field.nngp, first.nngp), (field.ntk, first.ntk), (field.mean, first.mean))
        if not all(a is None or b is None or _same(a, b) for a, b in pairs):
            return False
    return True


def _same(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) <= 1e-6 * float(b.abs().max())
