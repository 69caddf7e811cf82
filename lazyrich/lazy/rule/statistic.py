"""Means and variances over all features: numbers for every sample and position, which do not fluctuate in the limit.

They are what norms written by hand are made of. Their derivatives along any weight are of order 1/n in the features of each,
so tangent kernels do not see them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lazyrich.lazy.field import SQUARE, Curve, Data, Mix
from lazyrich.lazy.layout import Kind, size_of
from lazyrich.lazy.rule import output
from lazyrich.lazy.rule.table import Call, register

Statistic = Callable[[Tensor, Tensor], Tensor]  # of the second moments and the means


@register("var", "std", says="a number: q - m^2 over the features", moments=True)
def deviation(call: Call) -> Data:
    """The variance over the features, or its root; at infinite width there is nothing to correct in it."""
    axes, keep = _reduced(call)
    return _numbers(call, axes, keep, _variance if call.node.op == "var" else lambda q, m: _variance(q, m).sqrt(), 0)


@register("var_mean", "std_mean", says="numbers: q - m^2 and m over the features", moments=True)
def both(call: Call) -> list[Data]:
    """The variance or its root, and the mean."""
    axes, keep = _reduced(call)
    first = _variance if call.node.op == "var_mean" else lambda q, m: _variance(q, m).sqrt()
    return [_numbers(call, axes, keep, first, 0), _numbers(call, axes, keep, lambda q, m: m, 1)]


@register("linalg_vector_norm", "norm", says="a number: sqrt(n q) over n features", moments=True)
def length(call: Call) -> Data:
    """The Euclidean norm over the features."""
    order = call.get(1, "ord" if call.node.op == "linalg_vector_norm" else "p", 2)
    if order not in (2, "fro", None):
        raise call.refuse(f"its norm is of order {order}", "take the Euclidean norm")
    axes, keep = _reduced(call, 2)
    many = math.prod(size_of(call.args[0].layout.axes[i]) for i in axes)
    return _numbers(call, axes, keep, lambda q, m: (q * many).clamp(min=0).sqrt(), 0)


def averaged(call: Call, axes: set[int], keep: bool) -> Data:
    """The mean over the features, of squares also where they are none of Gaussian features."""
    output.refuse_few(call, call.args[0])
    if _is_centred(call.args[0]):  # whatever the data: so that what it is taken from stays as it is
        shape = (1,) * (len(call.args[0].layout.axes) - (0 if keep else len(axes)))
        return Data((call.run.inputs[0].new_zeros(shape),), constant=True, shape=shape)
    return _numbers(call, axes, keep, lambda q, m: m, 0)


def over_features(layout: Any, axes: set[int]) -> bool:
    """Whether axes hold all features, and otherwise positions alone."""
    feature = {i for i, axis in enumerate(layout.axes) if any(a.kind is Kind.FEATURE for a in axis)}
    return bool(feature) and feature <= axes and not any(a.kind is Kind.BATCH for i in axes for a in layout.axes[i])


def _reduced(call: Call, at: int = 1) -> tuple[set[int], bool]:
    dims, layout = call.get(at, "dim"), call.args[0].layout
    if isinstance(dims, bool) or dims is None:
        raise call.refuse("it reduces over samples as well", "name the axis of the features")
    axes = {layout.axis(d) for d in ([dims] if isinstance(dims, int) else dims)}
    if not over_features(layout, axes):
        raise call.refuse("it is no statistic over all features, so it fluctuates", "reduce over all features")
    output.refuse_few(call, call.args[0])
    return axes, bool(call.kwargs.get("keepdim", call.args[3] if len(call.args) > 3 else False))


def _variance(q: Tensor, m: Tensor) -> Tensor:
    return (q - m * m).clamp(min=0)


def _numbers(call: Call, axes: set[int], keep: bool, statistic: Statistic, at: int) -> Data:
    """A statistic in the traced shape, its moments averaged over the positions that are reduced too."""
    value = call.args[0]
    layout = value.layout
    places = [i for i, axis in enumerate(layout.axes) if any(a.kind is Kind.POSITION for a in axis)]
    batch = [i for i, axis in enumerate(layout.axes) if any(a.kind is Kind.BATCH for a in axis)]
    gone = [1 + places.index(i) for i in axes if i in places]
    found = []
    for q, m in _moments(call, value):
        number = statistic(*(t.mean(gone, keepdim=True) if gone else t for t in (q, m)))
        sizes = [number.shape[1 + places.index(i)] if i in places else 1 for i in range(len(layout.axes)) if i not in batch]
        number = number.reshape(len(number), *sizes).movedim(0, batch[0])
        found.append(number if keep else number.squeeze(sorted(axes)))
    return Data(tuple(found), shape=(call.node.shapes or [call.node.shape])[at] or ())


def _moments(call: Call, value: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Second moments and means (N, positions) of each batch, found where one batch is alone."""
    run, key = call.run, call.node.name
    if run.alone:
        if call.node.op == "mean" and isinstance(value, Curve) and value.spec == SQUARE and not value.base.gaussian:
            m = q = value.scale * value.inner**2 * value.base.merged().own_diagonal()  # of other squares q is not known
        else:
            field = run.field(value, call).merged()
            q = field.own_diagonal()
            m = torch.zeros_like(q) if field.mean is None else field.mean
        run.first[key] = (q, m)
        return iter([(q, m)])
    return ((q, m) for q, m, *_ in (run.first[key], run.second[key]))


def _is_centred(value: Any) -> bool:
    """Whether the features' mean is zero whatever the data."""
    if isinstance(value, Mix):
        return all(_is_centred(part) for _, part in value.parts)
    return value.base.centred and value.odd if isinstance(value, Curve) else value.centred
