"""Means and sums over positions: average pooling, global pooling, resampling by constant weights."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.lazy.field import Data, Field
from lazyrich.lazy.layout import Kind
from lazyrich.lazy.rule import output
from lazyrich.lazy.rule.linear import along
from lazyrich.lazy.rule.statistic import averaged, over_features
from lazyrich.lazy.rule.table import Call, pairs, register


@register("mean", "sum", says="mean (sum) over positions of K and Theta, all pairs of positions; a mean over features is a number",
          reads=pairs, moments=True)  # fmt: skip
def reduce(call: Call) -> Field | Data:
    """Mean or sum over whole axes of positions, or the mean over all features."""
    layout, dims = call.args[0].layout, call.get(1, "dim")
    keep = bool(call.get(2, "keepdim", False))
    dims = range(len(layout.axes)) if dims is None else ([dims] if isinstance(dims, int) else dims)
    axes = sorted((layout.axis(d) for d in dims), reverse=True)
    outputs = over_features(layout, set(axes)) and output.is_linear(call, call.args[0])
    if call.node.op == "mean" and over_features(layout, set(axes)) and not outputs:
        return averaged(call, set(axes), keep)
    field = call.field().merged()
    field = output.summed(call, field) if outputs else field
    known = [set(), {Kind.POSITION}, *([{Kind.FEATURE}] if outputs else [])]
    for at in axes:
        if {a.kind for a in field.layout.axes[at]} not in known:
            raise call.refuse(
                "it reduces over samples or features",
                "reduce over positions; take the mean over all features, or sum over features with a linear layer; norms of single "
                "heads, for queries and keys, are known as torch's rms_norm and layer_norm",
            )
    places = [at for at in axes if field.layout.axes[at] and field.layout.axes[at][0].kind is Kind.POSITION]
    field = _collapsed(field, places, mean=call.node.op == "mean")
    for at in axes:
        field = field.laid(field.layout.replaced(at, *((field.layout.axes[at],) if keep else ())))
    return field


def _collapsed(field: Field, axes: list[int], mean: bool) -> Field:
    """Whole axes of positions reduced at once."""
    gone = [field.layout.axes[at][0] for at in axes]
    if not gone:
        return field
    places, n, lead = [field.order.index(a) for a in gone], len(field.order), field.lead
    whole = [lead + p for p in places] + [lead + n + p for p in places if field.full]

    def one(k: Tensor, at: list[int]) -> Tensor:
        return k.mean(at) if mean else k.sum(at)

    layout = field.layout
    for at in axes:
        layout = layout.replaced(at, ())
    order = tuple(a for a in field.order if a not in gone)
    return field.mapped(lambda k: one(k, whole), lambda m: one(m, [1 + p for p in places]), layout=layout, order=order)


def _windowed(call: Call, dims: int) -> Field:
    """A pooling or resampling that acts on each axis alone: its matrix is read off from what it does to unit vectors."""
    field = call.field().merged()
    sizes = list(call.node.shape[-dims:])  # type: ignore[index]
    for i, matrix in enumerate(_matrices(call, dims)):
        at = field.layout.axis(-dims + i)
        field = field.with_position(at)
        if matrix.shape != (sizes[i], field.layout.axes[at][0].size):
            raise call.refuse("its windows do not act on each axis alone", "use plain average pooling")
        field = along(field, at, lambda k, matrix=matrix: matrix.to(k) @ k, matrix.shape[0])
    return field


def _matrices(call: Call, dims: int) -> list[Tensor]:
    """What the operation does along each axis, checked on random numbers.

    Along one axis it is read with the others constant, at their middle, so each matrix holds the shares of the other middles as
    well (less than one where windows reach over borders), and the product of all has the middle's share ``dims`` - 1 times too
    often.
    """
    whole = list(call.run.graph[call.node.inputs[0]].shape[-dims:])  # type: ignore[index]

    def apply(x: Tensor) -> Tensor:
        return call.node.target(x, *call.args[1:], **dict(call.kwargs))

    ones = apply(torch.ones(1, 1, *whole, dtype=torch.float64))[0, 0]
    middle = tuple(size // 2 for size in ones.shape)
    found = []
    for i, size in enumerate(whole):
        shape = [size if d == i else 1 for d in range(dims)]
        unit = torch.eye(size, dtype=torch.float64).reshape(size, 1, *shape).expand(size, 1, *whole)
        line = tuple(slice(None) if d == i else middle[d] for d in range(dims))
        found.append(apply(unit)[(slice(None), 0, *line)].T)
    found[0] = found[0] / ones[middle] ** (dims - 1)
    x = torch.randn(1, 1, *whole, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alone = x
    for i, matrix in enumerate(found):
        alone = (matrix @ alone.movedim(2 + i, -2)).movedim(-2, 2 + i) if dims > 1 else (alone @ matrix.T)
    if not torch.allclose(alone, apply(x)):
        raise call.refuse("its windows do not act on each axis alone", "use plain average pooling")
    return found


for _dims in (1, 2, 3):
    _ops = (f"avg_pool{_dims}d", f"adaptive_avg_pool{_dims}d", f"_adaptive_avg_pool{_dims}d")
    register(*_ops, says="K -> A K A' with the windows' matrix A; Theta alike", reads=pairs)(
        lambda call, dims=_dims: _windowed(call, dims)
    )
_RESAMPLED = (
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
)  # fmt: skip
for _op in _RESAMPLED:
    _dims = int(_op.removesuffix("_aa")[-2])
    register(_op, says="K -> A K A' with the resampling's matrix A; Theta alike", reads=pairs)(
        lambda call, dims=_dims: _windowed(call, dims)
    )


@register(
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_pool2d_with_indices",
    "amax",
    "amin",
    says="refused: no closed form",
    reads=pairs,
)
def extreme(call: Call) -> Field:
    """The largest of correlated Gaussians has no closed covariance."""
    raise call.refuse("the maximum over correlated positions has no known kernel", "use average pooling or strides")
