"""Self-attention in the limit of many head dimensions with logits scaled by 1/d: weights that do not fluctuate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.lazy.field import Data, Field, Overlap
from lazyrich.lazy.layout import size_of
from lazyrich.lazy.rule.product import covariances, weighed
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
    allowed = _allowed(call, queries, keys, value.nngp)
    if found is None:
        uniform = (allowed / allowed.sum(-1, keepdim=True)).expand(1, queries, keys)
        return weighed(call, value, -2, uniform, uniform)
    first, second = (t.reshape(-1, queries, keys).masked_fill(allowed == 0, float("-inf")).softmax(-1) for t in _both(logits))
    return weighed(call, value, -2, first, second)


def _both(logits: Overlap) -> tuple[Tensor, Tensor]:
    tensors = logits.data().tensors
    return tensors[0], tensors[-1]


def _allowed(call: Call, queries: int, keys: int, like: Tensor) -> Tensor:
    """One where a query may look at a key."""
    mask, causal = call.get(3, "attn_mask"), bool(call.get(5, "is_causal", False))
    allowed = torch.ones(queries, keys, dtype=like.dtype, device=like.device)
    if causal:
        allowed = allowed.tril()
    if mask is not None:
        if not isinstance(mask, Data) or not mask.constant:
            raise call.refuse("its mask depends on the data", "use a constant mask")
        given = mask.tensors[0]
        given = given if given.dtype == torch.bool else given > -1e4
        allowed = allowed * given.reshape(given.shape[-2:]).to(allowed)
    return allowed
