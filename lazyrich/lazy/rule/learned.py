"""Parameters as fields: tables of positions that a branch is added to, and learned vectors that every sample meets."""

from __future__ import annotations

import math

import torch

from lazyrich.graph.node import Batch
from lazyrich.lazy.field import Field, Source, Weight
from lazyrich.lazy.layout import Atom, Kind, Layout, plain, size_of
from lazyrich.lazy.rule.table import Call


def table(call: Call, weight: Weight, like: Field) -> Field:
    """A parameter as a field: drawn afresh at every position that it has, the same at every sample."""
    layout = like.layout
    spread = weight.spread or (False,) * len(weight.shape)
    own_shape = tuple(s if isinstance(s, int) and not one else 1 for s, one in zip(weight.shape, spread, strict=True))
    shape = (1,) * (len(layout.axes) - len(weight.shape)) + own_shape
    feature = feature_axis(call, layout)
    call.run.one_way(call, weight.name, "a table")
    drawn = call.run.entry(weight)
    if shape[feature] == 1 and size_of(layout.axes[feature]) > 1:
        raise call.refuse(f"'{weight.name}' is one number for all features, which stays random", "give it one number a feature")
    if shape[feature] != size_of(layout.axes[feature]):
        raise call.refuse(f"'{weight.name}' has another number of features than its branch", "give it one number a feature")
    if drawn.mean:
        raise call.refuse(f"'{weight.name}' has the mean {drawn.mean:g}", "draw it with mean zero")
    axes = [layout.axes[i] if any(a.kind is not Kind.POSITION for a in layout.axes[i]) else
            ((Atom(Kind.POSITION, size),) if size > 1 else ()) for i, size in enumerate(shape)]  # fmt: skip
    own = Layout(tuple(axes))
    sizes = [a.size for a in own.positions]
    pattern = torch.eye(math.prod(sizes)).reshape((*sizes, *sizes)) if like.full else torch.ones(sizes)
    lead = like.nngp.shape[: like.lead]
    pattern = pattern.to(like.nngp).expand(*lead, *pattern.shape)
    ntk = None if like.ntk is None else pattern * drawn.rate
    sources = frozenset({Source(weight.name)})
    return Field(own, own.positions, pattern * drawn.variance, ntk, like.full, sources, True, True)


def vectors(call: Call, learned: Weight, weight: Weight, axis: int, full: bool) -> Field:
    """Learned queries or latents that a layer sums over: one vector at each position, the same at every sample."""
    shape = learned.shape
    if [size for size in shape if isinstance(size, Batch)] != [Batch()] or isinstance(shape[axis], Batch):
        raise call.refuse(
            f"it multiplies two parameters, '{learned.name}' and '{weight.name}', and no sample",
            f"multiply a branch by one after the other, or, of learned vectors, repeat '{learned.name}' for every sample before, "
            "as by .expand(x.shape[0], -1, -1)",
        )
    layout = plain(shape, axis % len(shape))
    sizes, inputs = [a.size for a in layout.positions], call.run.inputs
    lead = [len(x) for x in (inputs[:1] if call.run.alone else inputs)]
    like = inputs[0] if inputs[0].is_floating_point() else torch.zeros((), dtype=torch.float64, device=inputs[0].device)
    zero = like.new_zeros(()).expand(*lead, *sizes, *(sizes if full else ()))
    return table(call, learned, Field(layout, layout.positions, zero, zero if call.run.tangent else None, full, frozenset()))


def feature_axis(call: Call, layout: Layout) -> int:
    """The place of the features among the axes."""
    for i, axis in enumerate(layout.axes):
        if any(a.kind is Kind.FEATURE for a in axis):
            return i
    raise call.refuse("its branch has no feature axis any more", "keep the feature axis until the output")
