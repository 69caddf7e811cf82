"""Self-attention in the limit of many head dimensions with logits scaled by 1/d: weights that do not fluctuate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.graph import Node
from lazyrich.lazy.field import Data, Field
from lazyrich.lazy.layout import Atom, Kind, size_of
from lazyrich.lazy.rule.table import Call, Need, register


def _reads(node: Node, need: Need) -> Need:
    return Need.ALL if need else Need.NONE


@register("scaled_dot_product_attention", reads=_reads, moments=True,
          says="K -> Z K_v Z' with Z = softmax of the logits' limit (uniform for independent queries and keys)")  # fmt: skip
def attend(call: Call) -> Field:
    """softmax(q k / d) v. Independent queries and keys have logits of order d^(-1/2): the weights become uniform."""
    query, key, value = (call.run.field(call.args[i], call) for i in range(3))
    _refuse_scale(call, query)
    if query.sources != key.sources and any(s.meets(t) for s in query.sources for t in key.sources):
        raise call.refuse("queries and keys share a part of their weights", "share all or none")
    value = value.merged()
    if len(value.order) != 1:
        raise call.refuse("it attends over one axis of several", "flatten the positions to one axis")
    at = value.layout.axis(-2)
    if any(a.kind is not Kind.POSITION for a in value.layout.axes[at]):
        raise call.refuse("it attends over an axis that is no position", "give (batch, heads, positions, dim)")
    keys = size_of(value.layout.axes[at])
    queries = size_of(query.layout.axes[query.layout.axis(-2)])
    allowed = _allowed(call, queries, keys, value.nngp)
    if query.sources == key.sources:
        first, second = _tied(call, query.merged(), allowed)
    else:
        uniform = allowed / allowed.sum(-1, keepdim=True)
        first = second = uniform.expand(1, queries, keys)
    return _mixed(value, at, first, second, queries)


def _refuse_scale(call: Call, query: Field) -> None:
    dim = size_of(query.layout.axes[-1])
    scale = call.kwargs.get("scale")
    scale = 1 / math.sqrt(dim) if scale is None else float(scale)
    if dim > 1 and abs(math.log(scale * dim)) > abs(math.log(scale * math.sqrt(dim))):
        raise call.refuse(
            f"its logits are scaled by {scale:.3g} = {scale * math.sqrt(dim):.3g}/sqrt(d), so they stay random at infinite "
            "width and no kernel in closed form is known",
            "scale them by 1/d (scaled_dot_product_attention(..., scale=1/d), the 1/d attention of muP)",
        )


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


def _tied(call: Call, query: Field, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Queries equal to keys: the logits converge to their own covariances."""
    run = call.run
    dim = size_of(query.layout.axes[-1])
    scale = float(call.kwargs["scale"]) * dim
    if run.alone:
        logits = (scale * query.nngp).masked_fill(allowed == 0, float("-inf"))
        weights = logits.softmax(-1)
        run.first[call.node.name] = (weights, weights)
    first = run.first[call.node.name][0]
    second = first if run.alone else run.second[call.node.name][0]
    return first, second


def _mixed(value: Field, at: int, first: Tensor, second: Tensor, queries: int) -> Field:
    """Z K Z' over the attended axis; Z is (1 or N, queries, keys)."""
    lead = value.lead
    z1 = first if lead == 1 else first.unsqueeze(1)
    z2 = second if lead == 1 else second.unsqueeze(0)
    if not value.full:  # nobody reads it
        return value

    def mix(k: Tensor) -> Tensor:
        return z1 @ k @ z2.transpose(-1, -2)

    new = Atom(Kind.POSITION, queries)
    mean = None if value.mean is None else (lambda m: (first @ m.unsqueeze(-1)).squeeze(-1))
    return value.mapped(mix, mean, layout=value.layout.replaced(at, (new,)), order=(new,))
