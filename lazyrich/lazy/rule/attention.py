"""Self-attention in the limit of many head dimensions with logits scaled by 1/d: weights that do not fluctuate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.graph.node import Batch
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
        return weighed(call, value, -2, *map(_softmax, added))
    looked = [t.reshape(-1, queries, keys) + more for t, more in zip(_both(logits), added, strict=True)]
    return weighed(call, value, -2, *map(_softmax, looked))


def _softmax(logits: Tensor) -> Tensor:
    """Of a query that may look at no key torch makes zeros."""
    return logits.softmax(-1).nan_to_num(0.0)


def _both(logits: Overlap) -> tuple[Tensor, Tensor]:
    tensors = logits.data().tensors
    return tensors[0], tensors[-1]


def _added(call: Call, queries: int, keys: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """What masks add to the logits of both batches, (N or 1, queries, keys): minus infinity where a query may not look."""
    mask, causal = call.get(3, "attn_mask"), bool(call.get(5, "is_causal", False))
    added = torch.zeros(1, queries, keys, dtype=like.dtype, device=like.device)
    if causal:
        added = added.masked_fill(torch.ones_like(added, dtype=torch.bool).triu(1), float("-inf"))
    if mask is None:
        return added, added
    if not isinstance(mask, Data):
        raise call.refuse("its mask is made by weights", "make it of the inputs, or of constants")
    lead = len(call.args[0].layout.axes) - len(mask.shape)  # axes are matched from the right
    if any(isinstance(size, Batch) and (lead + i or size.times > 1) for i, size in enumerate(mask.shape)):
        raise call.refuse("its mask has its samples beside other axes", "give a mask (batch, 1, queries, keys)")
    pair = [added + _of_samples(call, t.reshape(*[1] * lead, *t.shape), queries, keys, added) for t in mask.tensors]
    return pair[0], pair[-1]


def _of_samples(call: Call, mask: Tensor, queries: int, keys: int, like: Tensor) -> Tensor:
    """What a mask (N or 1, heads, queries, keys) adds, the same for every head: a bias of positions as it is."""
    given = torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else mask
    given = given.to(like).expand(*given.shape[:-2], queries, keys).reshape(len(given), -1, queries, keys)
    if not torch.equal(given, given[:, :1].expand_as(given)):
        raise call.refuse("its mask differs from head to head, so the heads are no copies of each other", "use the same mask")
    return given[:, 0]
