"""Self-attention in the limit of many head dimensions with logits scaled by 1/d: weights that do not fluctuate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.lazy.field import Data, Field, Overlap
from lazyrich.lazy.layout import size_of
from lazyrich.lazy.rule.product import covariances, several_axes, weighed
from lazyrich.lazy.rule.shape import copied
from lazyrich.lazy.rule.table import Call, pairs, register


@register("scaled_dot_product_attention", reads=pairs, overlaps=True,
          says="K -> Z K_v Z' with Z = softmax of the logits' limit (uniform for independent queries and keys)")  # fmt: skip
def attend(call: Call) -> Field:
    """softmax(q k / d) v. Independent queries and keys have logits of order d^(-1/2): the weights become uniform."""
    query, key = call.args[:2]
    value = call.field(2).merged()
    found, inner = covariances(call, query, key)
    dim = size_of(query.layout.axes[-1])
    scale = call.kwargs.get("scale")
    logits = Overlap(found or (), dim, inner, 1 / math.sqrt(dim) if scale is None else float(scale))
    call.run.refuse_unsteady(call, logits)
    keys = size_of(value.layout.axes[value.layout.axis(-2)])
    queries = size_of(query.layout.axes[query.layout.axis(-2)])
    if float(call.get(4, "dropout_p", 0.0) or 0.0) > 0:
        raise call.refuse("its dropout of attention weights has no rule", "call model.eval(), or give dropout_p=0 in training")
    added = _added(call, queries, keys, value.nngp)
    if call.kwargs.get("enable_gqa"):
        value = copied(value, value.layout.axis(-3), size_of(query.layout.axes[-3]) // size_of(value.layout.axes[-3]))
    if found is not None and len(value.order) > 1:
        raise several_axes(call)
    if found is None:
        shared = _softmax(added).expand(1, queries, keys)
        return weighed(call, value, -2, shared, shared)
    first, second = (_softmax(t.reshape(-1, queries, keys) + added) for t in _both(logits))
    return weighed(call, value, -2, first, second)


def _softmax(logits: Tensor) -> Tensor:
    """Of a query that may look at no key torch makes zeros."""
    return logits.softmax(-1).nan_to_num(0.0)


def _both(logits: Overlap) -> tuple[Tensor, Tensor]:
    tensors = logits.data().tensors
    return tensors[0], tensors[-1]


def _added(call: Call, queries: int, keys: int, like: Tensor) -> Tensor:
    """What masks add to the logits: minus infinity where a query may not look, a bias of positions as it is."""
    mask, causal = call.get(3, "attn_mask"), bool(call.get(5, "is_causal", False))
    added = torch.zeros(queries, keys, dtype=like.dtype, device=like.device)
    if causal:
        added = added.masked_fill(torch.ones_like(added, dtype=torch.bool).triu(1), float("-inf"))
    if mask is None:
        return added
    if not isinstance(mask, Data) or not mask.constant:
        raise call.refuse("its mask depends on the data", "use a constant mask")
    given = mask.tensors[0]
    given = torch.zeros_like(given, dtype=like.dtype).masked_fill(~given, float("-inf")) if given.dtype == torch.bool else given
    given = given.to(added).expand(*given.shape[:-2], queries, keys).reshape(-1, queries, keys)
    if not torch.equal(given, given[:1].expand_as(given)):
        raise call.refuse("its mask differs from head to head, so the heads are no copies of each other", "use the same mask")
    return added + given[0]
