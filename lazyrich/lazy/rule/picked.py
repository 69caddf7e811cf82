"""Positions picked by indices: the same ones of every sample, or of each sample its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyrich.graph import Node
from lazyrich.lazy.field import Data, Field, Weight
from lazyrich.lazy.layout import Atom, Axis, Kind, Layout, size_of
from lazyrich.lazy.rule.convolution import chosen
from lazyrich.lazy.rule.product import weighed
from lazyrich.lazy.rule.shape import dropped, over
from lazyrich.lazy.rule.table import Call, Need, pairs, register


def _reads(node: Node, need: Need) -> Need:
    """All pairs of positions where samples pick their own."""
    return pairs(node, need) if node.args[1] and node.args[1][0] is not None else need


@register("index", reads=_reads, says="positions picked by constant indices, or by one index a sample")
def index(call: Call) -> Any:
    """``x[:, [0, 2]]``, along one axis of positions or several side by side; ``x[arange(N), at]`` for one of each sample."""
    given = call.args[1]
    at = [i for i, one in enumerate(given) if one is not None]
    if at != list(range(at[0], at[-1] + 1)):
        raise call.refuse(
            "it picks along axes that are apart", "pick along one axis after the other, or move them side by side"
        )
    if at[0] == 0:
        return _of_each(call, [given[i] for i in at])
    return _picked(call, at, [given[i] for i in at])


@register("index_select", says="positions picked by constant indices")
def index_select(call: Call) -> Any:
    """Along one axis."""
    return _picked(call, [call.get(1, "dim")], [call.get(2, "index")])


@register("gather", reads=pairs, says="positions picked by constant indices, or by some of each sample's own")
def gather(call: Call) -> Field:
    """Along one axis of positions, the same of all features."""
    _refuse_parameter(call)
    field, dim, index = call.field().merged(), call.get(1, "dim"), call.get(2, "index")
    at = field.layout.axis(dim)
    _refuse_others(call, field.layout.axes[at])
    rows = [_rows(call, tensor, field.layout, at) for tensor in index.tensors]
    return _each_its_own(call, field, at, rows[0], rows[-1])


def _picked(call: Call, at: list[int], given: list[Any]) -> Any:
    """The same positions of every sample."""
    _refuse_parameter(call)
    if any(not isinstance(one, Data) or not one.constant for one in given):
        raise call.refuse(
            "it picks by the data along all samples",
            "pick by constant indices, or one position a sample: h[torch.arange(h.shape[0]), index]",
        )
    indices = torch.broadcast_tensors(*(one.tensors[0] for one in given))
    return over(call, call.args[0], lambda field, layout: _at(call, field, layout, at, indices))


def _at(call: Call, field: Field, layout: Layout | None, at: list[int], indices: Any) -> Any:
    old = layout or field.layout
    at = [old.axis(i) for i in at]
    first, last, shape = at[0], at[-1] + 1, indices[0].shape
    for i in at:
        _refuse_others(call, old.axes[i])
    atoms = [(Atom(Kind.POSITION, size),) if size > 1 else () for size in shape]
    if layout:
        return Layout((*layout.axes[:first], *atoms, *layout.axes[last:]))
    picked = chosen(_flat(field, first, last), first, _ravelled(call, indices, [size_of(old.axes[i]) for i in at]).flatten())
    axes = picked.layout.axes
    new = Layout((*axes[:first], *atoms, *axes[first + 1 :]))
    return picked.laid(new, {axes[first][0]: tuple(atom for axis in atoms for atom in axis)})


def _flat(field: Field, first: int, last: int) -> Field:
    """Axes of positions made into one of one atom."""
    axes = field.layout.axes
    joined = tuple(atom for axis in axes[first:last] for atom in axis)
    return field.laid(Layout((*axes[:first], joined, *axes[last:]))).merged().with_position(first)


def _ravelled(call: Call, indices: Any, sizes: list[int]) -> Tensor:
    """Places on the one axis into which several are flattened."""
    flat = torch.zeros_like(indices[0], dtype=torch.long)
    for one, size in zip(indices, sizes, strict=True):
        if one.numel() and not -size <= int(one.min()) <= int(one.max()) < size:
            raise call.refuse(
                f"got indices from {int(one.min())} to {int(one.max())}", f"give indices from {-size} to {size - 1}"
            )
        flat = flat * size + one % size
    return flat


def _of_each(call: Call, given: list[Any]) -> Any:
    """Of each sample its own position: the first index counts the samples."""
    _refuse_parameter(call)
    samples, *rest = given
    counted = [torch.arange(len(x), device=x.device) for x in call.run.inputs]
    whole = isinstance(samples, Data) and not samples.constant and len(samples.tensors) == len(counted)
    if not whole or not all(torch.equal(a, b) for a, b in zip(samples.tensors, counted, strict=True)):
        raise call.refuse("it picks samples out of the batch", "treat all samples alike, h[torch.arange(h.shape[0]), index]")
    if not rest:
        return call.args[0]
    field = call.field()
    sizes = [size_of(axis) for axis in field.layout.axes[1 : len(given)]]
    for axis in field.layout.axes[1 : len(given)]:
        _refuse_others(call, axis)
    found = []
    for i, count in enumerate(counted):
        own = [one.tensors[0 if one.constant else i] for one in rest]
        found.append(_ravelled(call, torch.broadcast_tensors(*own, count)[:-1], sizes)[:, None])
    return dropped(_each_its_own(call, _flat(field, 1, len(given)), 1, found[0], found[-1]), 1)


def _each_its_own(call: Call, field: Field, at: int, first: Tensor, second: Tensor) -> Field:
    """Positions (N, picked) of each sample of both batches."""
    field = field.with_position(at)
    if not field.full:  # nobody reads more than its shape
        return chosen(field, at, torch.zeros(first.shape[1], dtype=torch.long))
    size = field.layout.axes[at][0].size
    return weighed(call, field, at, *(torch.nn.functional.one_hot(t % size, size).to(field.nngp) for t in (first, second)))


def _rows(call: Call, tensor: Tensor, layout: Layout, at: int) -> Tensor:
    """Indices (N, picked) that are the same along all other axes."""
    batch = next(i for i, axis in enumerate(layout.axes) if any(a.kind is Kind.BATCH for a in axis))
    others = [i for i in range(len(layout.axes)) if i not in (batch, at)]
    tensor = tensor.permute(batch, at, *others)
    whole = [int(tensor.shape[2 + i]) == size_of(layout.axes[other]) for i, other in enumerate(others)]
    rows = tensor.flatten(2)
    if not all(whole) or not torch.equal(rows, rows[..., :1].expand_as(rows)):
        raise call.refuse("it picks other positions of one feature than of another", "pick the same of all features")
    return rows[..., 0]


def _refuse_parameter(call: Call) -> None:
    if isinstance(call.args[0], Weight):
        raise call.refuse(f"it takes a part of the parameter '{call.args[0].name}'", "use whole parameters")


def _refuse_others(call: Call, axis: Axis) -> None:
    if any(a.kind is Kind.BATCH for a in axis):
        raise call.refuse("it picks samples out of the batch", "treat all samples alike")
    if any(a.kind is Kind.FEATURE for a in axis):
        raise call.refuse("it picks single features", "take stretches of them (a slice, chunk), or pick positions only")
