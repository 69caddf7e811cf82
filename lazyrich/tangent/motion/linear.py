"""Linear maps in autograd's graph: what moves entries, sums them, or looks them up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyrich.tangent.motion.node import Node, Read, UnknownOperation, place_of, signed
from lazyrich.tangent.motion.operation import Map, same

NO_ROW = 2**64 - 1  # torch's word for the row of an embedding without padding


def _moved(ahead: Callable[[Tensor, Node], Tensor], back: Callable[[Tensor, Node], Tensor]) -> Read:
    """A map of one value, by itself and its adjoint."""

    def read(node: Node) -> Map:
        return Map(node.place, node.reads, node.shape, lambda t: ahead(t, node), (lambda d: back(d, node),))

    return read


def _swapped(t: Tensor, node: Node) -> Tensor:
    return t.transpose(node.axis("dim0", t.dim()), node.axis("dim1", t.dim()))


def _axes(node: Node) -> list[int]:
    return [place_of(axis, len(node.given(0))) for axis in node.saved("dim") or range(len(node.given(0)))]


def _permuted(t: Tensor, node: Node) -> Tensor:
    return t.permute([place_of(axis, t.dim()) for axis in node.saved("dims")])


def _permuted_back(d: Tensor, node: Node) -> Tensor:
    axes = [place_of(axis, d.dim()) for axis in node.saved("dims")]
    return d.permute([axes.index(axis) for axis in range(d.dim())])


def _spread(d: Tensor, node: Node) -> Tensor:
    """The gradient of a sum over axes."""
    for axis in () if node.saved("keepdim") or not node.given(0) else sorted(_axes(node)):
        d = d.unsqueeze(axis)
    return d.expand(node.given(0))


def _count(node: Node) -> int:
    return math.prod(node.given(0)[axis] for axis in _axes(node) if node.given(0))


def _selected_back(d: Tensor, node: Node) -> Tensor:
    return torch.ops.aten.select_backward(d, node.given(0), *_picked(node))


def _picked(node: Node) -> tuple[int, int]:
    sizes = node.given(0)
    axis = node.axis("dim", len(sizes))
    return axis, place_of(node.saved("index"), sizes[axis])


def _cut(node: Node) -> tuple[int, int, int, int]:
    start, end = (signed(node.saved(name)) for name in ("start", "end"))
    return node.axis("dim", len(node.given(0))), start, end, node.saved("step")


def _sliced_back(d: Tensor, node: Node) -> Tensor:
    return torch.ops.aten.slice_backward(d, node.given(0), *_cut(node))


def _piece(node: Node) -> tuple[int, int, int, int]:
    """Of a tensor that is split: axis, start, end and step."""
    sizes = node.given(0)
    axis = node.axis("dim", len(sizes))
    if node.node.name() == "SplitBackward0":
        start, size = node.output * node.saved("split_size"), node.saved("split_size")
    else:
        start, size = sum(node.saved("split_sizes")[: node.output]), node.saved("split_sizes")[node.output]
    return axis, start, min(start + size, sizes[axis]), 1


def _split_back(d: Tensor, node: Node) -> Tensor:
    return torch.ops.aten.slice_backward(d, node.given(0), *_piece(node))


def _bound(node: Node) -> tuple[int, int]:
    """Of a tensor that is taken apart: axis and place."""
    return node.axis("dim", len(node.given(0))), node.output


def _unbound_back(d: Tensor, node: Node) -> Tensor:
    return torch.ops.aten.select_backward(d, node.given(0), *_bound(node))


def _highest(t: Tensor, node: Node) -> Tensor:
    """At the places where the highest entries of windows are."""
    return t.flatten(-2).gather(-1, node.saved("result1").flatten(-2)).view(node.shape)


def _highest_back(d: Tensor, node: Node) -> Tensor:
    how = (node.saved(name) for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "result1"))
    return torch.ops.aten.max_pool2d_with_indices_backward(d, node.saved("self"), *how)


def _adapted_back(d: Tensor, node: Node) -> Tensor:
    return torch.ops.aten._adaptive_avg_pool2d_backward(d, node.saved("self"))


def _pooling(node: Node) -> tuple[Any, ...]:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    return tuple(node.saved(name) for name in names)


def _pooled_back(d: Tensor, node: Node) -> Tensor:
    return torch.ops.aten.avg_pool2d_backward(d, node.saved("self"), *_pooling(node))


def _looked_up(node: Node) -> Map:
    """Rows of a table; the row of padding gets no gradient, though it has a derivative."""
    if node.saved("padding_idx") != NO_ROW or node.saved("scale_grad_by_freq") or node.saved("sparse"):
        raise UnknownOperation
    at, rows = node.saved("indices"), node.given(0)[0]

    def back(d: Tensor) -> Tensor:
        return torch.ops.aten.embedding_dense_backward(d, at, rows, -1, False)

    return Map(node.place, node.reads, node.shape, lambda t: F.embedding(at, t), (back,))


def _sum(sign: int) -> Read:
    """A + alpha b or a - alpha b; one of them may be constant."""

    def read(node: Node) -> Map:
        times = sign * node.saved("alpha")

        def ahead(a: Tensor | None, b: Tensor | None) -> Tensor:
            parts = [t for t in (a, b if b is None or times == 1 else b * times) if t is not None]
            return (parts[0] + parts[1] if len(parts) == 2 else parts[0]).expand(node.shape)

        return Map(node.place, node.reads, node.shape, ahead, (_onto(node, 0, 1), _onto(node, 1, times)))

    return read


def _onto(node: Node, i: int, times: float) -> Callable[[Tensor], Tensor]:
    """The gradient of what was spread over more axes, and multiplied."""
    if node.reads[i] is None or (node.given(i) == node.shape and times == 1):
        return same
    shape = node.given(i)
    return lambda d: (d if times == 1 else d * times).sum_to_size(shape)


def _shifted(node: Node) -> Map:
    """By a number."""
    return Map(node.place, node.reads, node.shape, same, (same,))


def _chosen(node: Node) -> Map:
    """Entries of one or of the other."""
    mask = node.saved("condition")

    def ahead(a: Tensor | None, b: Tensor | None) -> Tensor:
        return torch.where(mask, 0 if a is None else a, 0 if b is None else b).expand(node.shape)

    def back(i: int) -> Callable[[Tensor], Tensor]:
        return lambda d: d.masked_fill(mask if i else ~mask, 0).sum_to_size(node.given(i))

    return Map(node.place, node.reads, node.shape, ahead, (back(0), back(1)))


def _joined(node: Node) -> Map:
    sizes = [node.given(i) for i in range(len(node.reads))]  # of constants nobody knows them
    if any(len(size) != len(node.shape) for size in sizes):  # torch passes over empty vectors
        raise UnknownOperation
    axis = node.axis("dim", len(node.shape))
    ends = [sum(size[axis] for size in sizes[: i + 1]) for i in range(len(sizes))]

    def ahead(*parts: Tensor | None) -> Tensor:
        like = next(t for t in parts if t is not None)
        return torch.cat([like.new_zeros(size) if t is None else t for t, size in zip(parts, sizes, strict=True)], axis)

    def back(i: int) -> Callable[[Tensor], Tensor]:
        return lambda d: d.narrow(axis, ends[i] - sizes[i][axis], sizes[i][axis])

    return Map(node.place, node.reads, node.shape, ahead, tuple(back(i) for i in range(len(sizes))))


VIEWED = _moved(lambda t, node: t.reshape(node.shape), lambda d, node: d.reshape(node.given(0)))
SPLIT = _moved(lambda t, node: torch.ops.aten.slice(t, *_piece(node)), _split_back)
LINEAR: dict[str, Read] = {
    "TBackward0": _moved(lambda t, node: t.t(), lambda d, node: d.t()),
    "TransposeBackward0": _moved(_swapped, _swapped),
    "PermuteBackward0": _moved(_permuted, _permuted_back),
    "ViewBackward0": VIEWED,
    "UnsafeViewBackward0": VIEWED,
    "ReshapeAliasBackward0": VIEWED,
    "SqueezeBackward1": VIEWED,
    "UnsqueezeBackward0": VIEWED,
    "ExpandBackward0": _moved(lambda t, node: t.expand(node.shape), lambda d, node: d.sum_to_size(node.given(0))),
    "SumBackward1": _moved(lambda t, node: t.sum(_axes(node), node.saved("keepdim")), _spread),
    "MeanBackward1": _moved(
        lambda t, node: t.mean(_axes(node), node.saved("keepdim")), lambda d, node: _spread(d / _count(node), node)
    ),
    "NegBackward0": _moved(lambda t, node: -t, lambda d, node: -d),
    "RsubBackward1": _moved(lambda t, node: t * -node.saved("alpha"), lambda d, node: d * -node.saved("alpha")),
    "SelectBackward0": _moved(lambda t, node: t.select(*_picked(node)), _selected_back),
    "SliceBackward0": _moved(lambda t, node: torch.ops.aten.slice(t, *_cut(node)), _sliced_back),
    "SplitBackward0": SPLIT,
    "SplitWithSizesBackward0": SPLIT,
    "UnbindBackward0": _moved(lambda t, node: t.select(*_bound(node)), _unbound_back),
    "MaskedFillBackward0": _moved(
        lambda t, node: t.masked_fill(node.saved("mask"), 0),
        lambda d, node: d.masked_fill(node.saved("mask"), 0).sum_to_size(node.given(0)),  # a mask may spread it over more axes
    ),
    "AvgPool2DBackward0": _moved(lambda t, node: F.avg_pool2d(t, *_pooling(node)), _pooled_back),
    "AdaptiveAvgPool2DBackward0": _moved(
        lambda t, node: F.adaptive_avg_pool2d(t, (node.shape[-2], node.shape[-1])), _adapted_back
    ),
    "MaxPool2DWithIndicesBackward0": _moved(_highest, _highest_back),
    "CloneBackward0": _shifted,
    "AddBackward1": _shifted,
    "AddBackward0": _sum(1),
    "SubBackward0": _sum(-1),
    "WhereBackward0": _chosen,
    "CatBackward0": _joined,
    "EmbeddingBackward0": _looked_up,
}
