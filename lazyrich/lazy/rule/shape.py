"""Views, permutations, selections: bookkeeping of axes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.graph.node import Batch
from lazyrich.lazy.field import Curve, Data, Field, Mix, Weight
from lazyrich.lazy.layout import Atom, Kind, Layout, size_of
from lazyrich.lazy.rule.convolution import chosen
from lazyrich.lazy.rule.table import Call, register


def over(call: Call, value: Any, change: Any, part: str = "") -> Any:
    """A change of axes under a curve, or in every part of a mixture; ``part`` tells several changes at one node apart."""
    if isinstance(value, Curve):
        return replace(value, base=over(call, value.base, change), key=f"{value.key}|{call.node.name}{part}")
    if isinstance(value, Mix):
        parts = tuple((share, over(call, one, change, part)) for share, one in value.parts)
        return Mix(parts, change(_bare(parts[0][1]), value.layout))
    return change(value, None)


def _bare(value: Any) -> Field:
    return value.base if isinstance(value, Curve) else value


@register("transpose", "swapaxes", "permute", "t", "mT", "numpy_T", "movedim", says="axes change places")
def permute(call: Call) -> Any:
    """Another order of axes."""
    value, op = call.args[0], call.node.op
    if isinstance(value, Weight):
        _refuse_repeated(call, value)
        if len(value.shape) == 2 and op in ("t", "transpose", "permute", "mT", "numpy_T"):
            return replace(value, shape=value.shape[::-1], transposed=not value.transposed, spread=())
        return replace(value, shape=call.node.shape or (), transposed=False, spread=())

    def change(field: Field, layout: Layout | None) -> Any:
        old = layout or field.layout
        if op in ("transpose", "swapaxes"):
            new = old.swapped(call.args[1], call.args[2])
        elif op in ("t", "mT", "numpy_T"):
            new = old.swapped(-1, -2)
        elif op == "movedim":
            order = list(range(len(old.axes)))
            order.insert(old.axis(call.args[2]), order.pop(old.axis(call.args[1])))
            new = old.permuted(order)
        else:
            new = old.permuted(call.args[1])
        return new if layout else field.laid(new)

    return over(call, value, change)


@register("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view", says="axes merge or split")
def view(call: Call) -> Any:
    """Another grouping of the axes."""
    value, shape = call.args[0], call.node.shape or ()
    if isinstance(value, Weight):
        _refuse_repeated(call, value)
        return replace(value, shape=shape, spread=())

    def change(field: Field, layout: Layout | None) -> Any:
        sizes = shape if layout or not isinstance(value, Mix) else _of_part(call, value.layout, field.layout, shape)
        new, split = _viewed(call, layout or field.layout, sizes)
        return new if layout else field.laid(new, split)

    return over(call, value, change)


def _of_part(call: Call, whole: Layout, part: Layout, shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape of one of joined branches where all of them take another: with its own share of the features."""
    viewed, split = _viewed(call, whole, shape)
    own, all_ = size_of(part.features), size_of(whole.features)
    if own == all_ or len(whole.features) != 1 or whole.features[0] in split:
        return shape  # what takes them apart is refused
    return tuple(
        size // all_ * own if not isinstance(size, Batch) and whole.features[0] in axis else size
        for size, axis in zip(shape, viewed.axes, strict=True)
    )


def _viewed(call: Call, layout: Layout, shape: tuple[Any, ...]) -> Any:
    try:
        return layout.viewed(shape)
    except KernelError as error:
        mend = "keep samples, positions and features on axes of their own; of joined branches view each before joining"
        raise call.refuse(str(error), mend) from error


@register("contiguous", "clone", "to", "_to_copy", "alias", "lift_fresh_copy", "type_as", "float", "double",
          says="passes through")  # fmt: skip
def same(call: Call) -> Any:
    """Nothing changes."""
    return call.args[0]


@register("detach", says="K passes, Theta ends here")
def detach(call: Call) -> Field:
    """No gradient reaches what lies below."""
    if isinstance(call.args[0], Weight):
        raise call.refuse(f"it takes '{call.args[0].name}' out of training", "freeze it, requires_grad_(False)")
    field = call.field()
    return field if field.ntk is None else replace(field, ntk=torch.zeros_like(field.ntk), own=0.0, uneven=False)


@register("expand", "expand_as", "repeat", says="positions are repeated")
def expand(call: Call) -> Any:
    """Repetition along axes of positions (all of them, or one of size one)."""
    value, shape = call.args[0], call.node.shape or ()
    if isinstance(value, Weight):
        return _repeated(call, value, shape)
    if isinstance(value, Data) and len(value.shape) == len(shape):  # numbers, to the size of a branch
        sizes = [-1 if isinstance(size, Batch) else size for size in shape]
        return replace(value, tensors=tuple(t.expand(sizes) for t in value.tensors), shape=shape)
    field = call.field().merged()
    field = field.laid(Layout(((),) * (len(shape) - len(field.layout.axes)) + field.layout.axes))
    for at, size in enumerate(shape):
        axis = field.layout.axes[at]
        if any(a.kind is not Kind.POSITION for a in axis):
            if isinstance(size, Batch) or size == size_of(axis):
                continue
            raise call.refuse("it repeats samples or features", "repeat positions only")
        old = size_of(axis)
        if size != old:
            field = chosen(field.with_position(at), at, torch.arange(old).repeat(size // old))
    return field


@register("repeat_interleave", says="positions, or copies of features, in a row")
def interleave(call: Call) -> Field:
    """Every entry of one axis a number of times in a row."""
    times, dim = call.args[1], call.get(2, "dim")
    if not isinstance(times, int) or dim is None:
        raise call.refuse("it repeats each entry another number of times, or all axes at once", "give one number and dim=")
    field = call.field().merged()
    if any(a.kind is Kind.BATCH for a in field.layout.axes[field.layout.axis(dim)]):
        raise call.refuse("it repeats samples", "treat all samples alike")
    return copied(field, field.layout.axis(dim), times)


def copied(field: Field, at: int, times: int) -> Field:
    """Every entry of an axis several times in a row; the copies are positions within the axis, as of heads that share keys."""
    if times == 1:
        return field
    axes = field.layout.axes
    field = field.laid(Layout((*axes[: at + 1], (), *axes[at + 1 :]))).with_position(at + 1)
    field = chosen(field, at + 1, torch.zeros(times, dtype=torch.long))
    axes = field.layout.axes
    return field.laid(Layout((*axes[:at], (*axes[at], *axes[at + 1]), *axes[at + 2 :])))


def _refuse_repeated(call: Call, weight: Weight) -> None:
    if any(weight.spread):
        raise call.refuse(f"it changes the axes of '{weight.name}' after its entries were repeated", "repeat them last")


def _repeated(call: Call, weight: Weight, shape: tuple[Any, ...]) -> Weight:
    """A parameter whose entries are read several times."""
    missing = len(shape) - len(weight.shape)
    old = (1,) * missing + tuple(weight.shape)
    spread = (False,) * missing + (weight.spread or (False,) * len(weight.shape))
    if any(was != 1 and is_ != was for was, is_ in zip(old, shape, strict=True)):
        raise call.refuse(f"it repeats the entries of '{weight.name}' one after the other", "repeat axes of size one only")
    spread = tuple(s or (was == 1 and is_ != 1) for s, was, is_ in zip(spread, old, shape, strict=True))
    return replace(weight, shape=shape, spread=spread)


@register("select", says="one position, or one stretch of features, is kept")
def select(call: Call) -> Any:
    """One index of an axis."""
    value, dim, index = call.args[0], call.args[1], call.args[2]
    if isinstance(value, Weight):
        raise call.refuse(f"it takes a part of the parameter '{value.name}'", "use whole parameters")
    return over(call, value, lambda field, layout: _selected(call, field, layout, dim, index))


def _selected(call: Call, field: Field, layout: Layout | None, dim: int, index: int) -> Any:
    if layout and any(a.kind is Kind.FEATURE for a in layout.axes[layout.axis(dim)]):
        raise call.refuse("it takes a feature of joined branches, whose stretches have other laws", "split before joining")
    if layout:
        return layout.replaced(dim, *())
    at = field.layout.axis(dim)
    axis = field.layout.axes[at]
    if any(a.kind is Kind.BATCH for a in axis):
        raise call.refuse("it picks samples out of the batch", "treat all samples alike")
    if any(a.kind is Kind.FEATURE for a in axis):
        size = size_of(axis)
        return _stretch(call, field, at, Fraction(index % size, size), Fraction(index % size + 1, size), None)
    field = field.merged()
    if not field.layout.axes[at]:
        return field.laid(field.layout.replaced(at, *()))
    size = field.layout.axes[at][0].size
    return dropped(chosen(field, at, torch.tensor([index % size])), at)


def dropped(field: Field, at: int) -> Field:
    """An axis with one position taken off."""
    atom = field.layout.axes[at][0]
    place, n, lead = field.order.index(atom), len(field.order), field.lead

    def squeeze(k: Tensor) -> Tensor:
        if field.full:
            k = k.squeeze(lead + n + place)
        return k.squeeze(lead + place)

    order = tuple(a for a in field.order if a is not atom)
    layout = field.layout.replaced(at, *())
    return field.mapped(squeeze, lambda m: m.squeeze(1 + place), layout=layout, order=order)


@register("slice", "narrow", says="a stretch of positions or of features is kept")
def cut(call: Call) -> Any:
    """A stretch of an axis."""
    value, dim = call.args[0], call.get(1, "dim", 0)
    if isinstance(value, Weight):
        if tuple(call.node.shape or ()) == tuple(value.shape):  # all of it
            return value
        raise call.refuse(f"it takes a part of the parameter '{value.name}'", "use whole parameters")
    start, stop = call.get(2, "start", 0) or 0, call.get(3, "end")
    if call.node.op == "narrow":
        length = stop if stop is not None else call.kwargs["length"]
        start = start if start >= 0 else start + size_of(value.layout.axes[value.layout.axis(dim)])
        stop = start + length
    step = call.get(4, "step", 1) or 1

    def change(field: Field, layout: Layout | None) -> Any:
        axis = (layout or field.layout).axes[(layout or field.layout).axis(dim)]
        if any(a.kind is Kind.BATCH for a in axis):
            if (start, step) == (0, 1) and (stop is None or stop > 2**62):
                return layout or field
            raise call.refuse("it picks samples out of the batch", "treat all samples alike")
        return _cut(call, field, layout, dim, range(size_of(axis))[slice(start, stop, step)])

    return over(call, value, change)


def _cut(call: Call, field: Field, layout: Layout | None, dim: int, kept: range) -> Any:
    old = layout or field.layout
    at = old.axis(dim)
    axis, size = old.axes[at], size_of(old.axes[at])
    if len(kept) == size:
        return layout or field
    if any(a.kind is Kind.FEATURE for a in axis):
        if kept.step != 1 or layout:
            raise call.refuse("it takes features apart with steps or across joined branches", "split before joining")
        low, high = Fraction(kept.start, size), Fraction(kept.stop, size)
        return _stretch(call, field, at, low, high, Atom(Kind.FEATURE, len(kept)))
    if layout:
        return old.replaced(at, (Atom(Kind.POSITION, len(kept)),))
    return chosen(field.merged(), at, torch.tensor(list(kept)))


def _stretch(call: Call, field: Field, at: int, low: Fraction, high: Fraction, left: Atom | None) -> Field:
    """A stretch of the features: a field of the same law, drawn by its own part of the weights."""
    if field.mixed:
        raise call.refuse("it takes a part of joined branches, whose stretches have other laws", "split before joining")
    axis, inside = field.layout.axes[at], sorted(field.layout.features, key=lambda a: a.rank)  # as they lie in memory
    if axis == tuple(inside[: len(axis)]) and (left is None or len(axis) == 1):
        sources, behind = (frozenset(s.part(low, high) for s in those) for those in (field.sources, field.behind))
    elif axis == tuple(inside[1:2]) and all(s.piece is None for s in field.sources):  # of every head
        sources = frozenset(s.inside(inside[0].size, low, high) for s in field.sources)
        behind = frozenset(s if s.piece else s.inside(inside[0].size, low, high) for s in field.behind)
    else:
        raise call.refuse("it takes an inner part of split features", "split the outermost part")
    kept = ((replace(left, rank=axis[0].rank),),) if left else ()
    return replace(field, layout=field.layout.replaced(at, *kept), sources=sources, behind=behind)


@register("chunk", "split", "split_with_sizes", "unbind", "tensor_split", says="stretches of positions or features")
def pieces(call: Call) -> list[Any]:
    """Several stretches of an axis."""
    value, op = call.args[0], call.node.op
    dim = call.get(1 if op == "unbind" else 2, "dim", 0)
    layout = value.layout if isinstance(value, (Field, Curve, Mix)) else None
    if layout is None:
        raise call.refuse("it splits a parameter", "use whole parameters")
    at = layout.axis(dim)
    size = size_of(layout.axes[at])
    if op == "unbind":
        return [over(call, value, lambda f, lay, i=i: _selected(call, f, lay, dim, i), f".{i}") for i in range(size)]
    if op == "tensor_split":
        given = call.args[1]
        ends = (
            [i * (size // given) + min(i, size % given) for i in range(given + 1)]
            if isinstance(given, int)
            else [0, *given, size]
        )
        sizes = [high - low for low, high in zip(ends, ends[1:], strict=False)]
    elif op == "chunk":
        step = -(-size // int(call.args[1]))
        sizes = [min(step, size - i) for i in range(0, size, step)]
    else:
        given = call.args[1]
        sizes = list(given) if isinstance(given, (list, tuple)) else [min(given, size - i) for i in range(0, size, given)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        over(call, value, lambda f, lay, r=range(s, s + n): _cut(call, f, lay, dim, r), f".{s}")
        for s, n in zip(starts, sizes, strict=True)
    ]


def halves(call: Call, value: Any, dim: int) -> tuple[Any, Any]:
    """Two halves of an axis."""
    size = size_of(value.layout.axes[value.layout.axis(dim)])
    first, second = (
        over(call, value, lambda f, lay, r=r: _cut(call, f, lay, dim, r), f".{r.start}")
        for r in (range(size // 2), range(size // 2, size))
    )
    return first, second


@register("getitem", says="one of several")
def item(call: Call) -> Any:
    """One member of a list."""
    return call.args[0][call.args[1]]


@register("sym_size", "size", says="a size")
def size(call: Call) -> Any:
    """A size; that of the batch differs between the two batches."""
    found = (call.run.graph[call.node.inputs[0]].shape or ())[call.args[1]]
    # a number for each batch goes through the graph like a tensor for each batch
    return Data(tuple(found.times * len(x) for x in call.run.inputs)) if isinstance(found, Batch) else found  # type: ignore[arg-type]


@register("flip", "roll", says="positions change places")
def rearrange(call: Call) -> Field:
    """Positions taken in another order."""
    field, op = call.field().merged(), call.node.op
    shifts = call.args[1]
    dims = call.args[1] if op == "flip" else call.args[2]
    for i, dim in enumerate(dims):
        at = field.layout.axis(dim)
        if any(a.kind is not Kind.POSITION for a in field.layout.axes[at]):
            raise call.refuse("it rearranges samples or features", "rearrange positions only")
        if field.layout.axes[at]:
            index = torch.arange(field.layout.axes[at][0].size)
            field = chosen(field, at, index.flip(0) if op == "flip" else index.roll(shifts[i]))
    return field
