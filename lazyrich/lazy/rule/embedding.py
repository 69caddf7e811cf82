"""Embeddings: a table row for every token."""

from __future__ import annotations

import torch

from lazyrich.lazy.field import Data, Field, Source, Weight
from lazyrich.lazy.layout import Atom, Kind, Layout, plain
from lazyrich.lazy.rule.table import Call, Need, register


@register("embedding", says="K(p,p') = variance where the tokens are equal; Theta = rate where they are equal")
def embedding(call: Call) -> Field:
    """Fresh independent features for every token."""
    weight, tokens = call.args[0], call.args[1]
    if not isinstance(weight, Weight) or not isinstance(tokens, Data):
        raise call.refuse("it looks up random rows or a computed table", "look up plain parameters by integer tokens")
    if call.get(2, "padding_idx", -1) >= 0:
        raise call.refuse("its padding_idx row is zero and never trained", "multiply by a position mask instead")
    run, size = call.run, weight.shape[0]
    for t in tokens.tensors:
        if t.numel() and not (int(t.min()) >= 0 and int(t.max()) < size):
            raise call.refuse(f"got tokens from {int(t.min())} to {int(t.max())}", f"give tokens from 0 to {size - 1}")
    run.one_way(call, weight.name, "a table")
    drawn = run.entry(weight)
    if drawn.mean:
        raise call.refuse(f"'{weight.name}' has the mean {drawn.mean:g}", "draw it with mean zero")
    full = run.needs.get(call.node.name, Need.EQUAL) is Need.ALL
    base = plain(tokens.shape, None)
    rows = [t.reshape(len(t), -1) if not tokens.constant else t.reshape(1, -1) for t in tokens.tensors]
    first, second = rows[0], rows[-1]
    if run.alone:
        same = first[:, :, None] == first[:, None, :] if full else torch.ones_like(first, dtype=torch.bool)
    else:
        same = first[:, None, :, None] == second[None, :, None, :] if full else first[:, None, :] == second[None, :, :]
    sizes = [a.size for a in base.positions]
    lead = [len(x) for x in run.inputs]
    equal = (
        same.to(torch.float64)  # tokens have no precision of their own
        .expand(*lead, *same.shape[len(lead) :])
        .reshape(*lead, *sizes, *(sizes if full else ()))
    )
    layout = Layout((*base.axes, (Atom(Kind.FEATURE, int(weight.shape[-1])),)))
    ntk = equal * drawn.rate if run.tangent else None
    return Field(layout, layout.positions, equal * drawn.variance, ntk, full, frozenset({Source(weight.name)}), True, True)
