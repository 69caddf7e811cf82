"""Convolutions, plain and transposed: sums over channels and over a window of positions."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lazyrich import compiled
from lazyrich.lazy.field import Data, Field, Weight
from lazyrich.lazy.layout import Atom, Kind, Layout, size_of
from lazyrich.lazy.rule.linear import DATA, affine, is_fresh
from lazyrich.lazy.rule.table import Call, Need, register
from lazyrich.lazy.rule.window_loop import Slide, loop, slide

MASKED = 2**16  # positions (pairs of them) up to which rows are short and a mask, which is kept, is small


@register("conv1d", "conv2d", "conv3d", says="K(p,p') -> w mean over the window of K(p+k,p'+k) + b; Theta alike")
def convolve(call: Call) -> Any:
    """Any stride, padding, dilation and number of groups; padding adds zeros."""
    dims = int(call.node.op[4])
    weight = call.get(1, "weight")
    if not isinstance(weight, Weight):
        raise call.refuse("its weight is computed from others", "only plain parameters have a known law")
    call.run.one_way(call, weight.name, "a matrix")
    kernel = [int(k) for k in weight.shape[2:]]
    stride, dilation = _each(call.get(3, "stride", 1), dims), _each(call.get(5, "dilation", 1), dims)
    padding = _padding(call.get(4, "padding", 0), kernel, dilation, dims)
    groups = int(call.get(6, "groups", 1))
    field, at, channels = _grouped(call, dims, groups)
    if field.sources == DATA:
        field = replace(field, ntk=None)  # nothing was trained below: no window needs to slide over zeros
    field = _windows(field, at + 1, kernel, stride, padding, dilation)
    layout = field.layout.replaced(at, (Atom(Kind.FEATURE, int(weight.shape[0])),))
    fan_in = channels // groups * _product(kernel)
    moved = any(k > 1 or any(p) or s > 1 for k, p, s in zip(kernel, padding, stride, strict=True))
    return affine(
        call, field, weight, call.get(2, "bias"), fan_in, layout,
        gaussian=groups < channels or groups == 1, fresh=moved or is_fresh(call, call.args[0]), share=1 / _product(kernel),
    )  # fmt: skip


@register("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", says="K -> w/k sum over taps that meet; Theta alike")
def convolve_transposed(call: Call) -> Any:
    """Every input position is spread over a window of output positions; the fan-in counts taps that meet, on average."""
    dims = int(call.node.op[14])
    weight = call.get(1, "weight")
    if not isinstance(weight, Weight):
        raise call.refuse("its weight is computed from others", "only plain parameters have a known law")
    call.run.one_way(call, weight.name, "a transposed matrix")
    kernel = [int(k) for k in weight.shape[2:]]
    stride, padding = _each(call.get(3, "stride", 1), dims), _each(call.get(4, "padding", 0), dims)
    extra, groups = _each(call.get(5, "output_padding", 0), dims), int(call.get(6, "groups", 1))
    dilation = _each(call.get(7, "dilation", 1), dims)
    field, at, channels = _grouped(call, dims, groups)
    for axis in range(dims):
        field = _spread(field, at + 1 + axis, kernel[axis], stride[axis], padding[axis], dilation[axis], extra[axis])
    layout = field.layout.replaced(at, (Atom(Kind.FEATURE, int(weight.shape[1]) * groups),))
    gap = _product(stride)  # taps of which one meets an input: the rule's mean is over all of them
    return affine(
        call, field, weight, call.get(2, "bias"), channels // groups * _product(kernel) / gap, layout,
        gaussian=groups < channels or groups == 1, share=float(gap),
    )  # fmt: skip


@register("pad", says="positions beyond the border: zeros, reflections or the other end")
def pad(call: Call) -> Field:
    """Padding of position axes, from the last one backwards."""
    sizes, mode = list(call.args[1]), call.get(2, "mode", "constant") or "constant"
    if mode == "constant" and call.get(3, "value", 0) not in (None, 0, 0.0):
        raise call.refuse("it pads with a number that is not zero", "pad with zeros")
    field = call.field().merged()
    for i in range(len(sizes) // 2):
        low, high = int(sizes[2 * i]), int(sizes[2 * i + 1])
        if min(low, high) < 0 and mode != "constant":
            raise call.refuse(f"it pads by a negative size in mode '{mode}'", "cut with a slice first")
        if low or high:
            at = field.layout.axis(-1 - i)
            if not _is_position(field.layout, at):
                raise call.refuse("it pads an axis that is no position", "pad positions only")
            field = chosen(field, at, _padded_index(field.layout.axes[at][0].size, low, high, mode))
    return field


def _grouped(call: Call, dims: int, groups: int) -> tuple[Field, int, int]:
    """As ``_channels``, with their number, where groups of them are copies of each other."""
    field, at = _channels(call, dims)
    channels = size_of(field.layout.axes[at])
    if 1 < groups < channels and (field.mixed or field.sources == DATA):
        raise call.refuse(
            "its groups read different channels of the data, or stretches of joined branches with other laws, so their features "
            "are no copies of each other",
            "use one group, or one for each channel",
        )
    return field, at, channels


def _channels(call: Call, dims: int) -> tuple[Field, int]:
    """The input as a field with one position atom an axis, and its channel axis."""
    x = call.args[0]
    if isinstance(x, Data):
        full = call.run.needs.get(call.node.name, Need.EQUAL) is Need.ALL
        x = call.run.as_field(x, -dims - 1, full, call)
    field = call.run.field(x, call).merged()
    at = field.layout.axis(-dims - 1)
    if any(a.kind is not Kind.FEATURE for a in field.layout.axes[at]) or len(field.layout.features) != len(
        field.layout.axes[at]
    ):
        raise call.refuse("its channel axis is not the axis of the features", "convolve over positions, sum over features")
    for axis in range(at + 1, at + 1 + dims):
        field = field.with_position(axis)
    return field, at


def _windows(
    field: Field, at: int, kernel: list[int], stride: list[int], padding: list[tuple[int, int]], dilation: list[int]
) -> Field:
    """Sums over windows along all axes from ``at`` on, in one pass where they leave sizes as they are."""
    dims = range(len(kernel))
    sizes = [field.layout.axes[at + i][0].size for i in dims]
    stay = all(s == 1 and sum(p) == d * (k - 1) for s, p, d, k in zip(stride, padding, dilation, kernel, strict=True))
    n = math.prod(a.size for a in field.order) ** (2 if field.full else 1)
    shifts = tuple(tuple(t * d - p[0] for t in range(k)) for k, d, p in zip(kernel, dilation, padding, strict=True))
    meet = all(0 in one and len(one) > 1 and max(map(abs, one)) < size for one, size in zip(shifts, sizes, strict=True))
    arrays = [k for k in (field.nngp, field.ntk) if k is not None]
    if stay and meet and n <= MASKED and compiled.due(loop, *arrays):  # asked last: it counts what a loop could have done
        places = tuple(field.order.index(field.layout.axes[at + i][0]) for i in dims)
        moves = _moves(tuple(field.nngp.shape[field.lead :]), places, field.full, shifts, field.nngp.dtype)
        return field.mapped(lambda k: slide(k.reshape(-1, n), moves).view(k.shape), None)
    for i in dims:
        field = _window(field, at + i, kernel[i], stride[i], padding[i], dilation[i])
    return field


@lru_cache(maxsize=16)  # of up to 10 MB
def _moves(
    sizes: tuple[int, ...], places: tuple[int, ...], full: bool, shifts: tuple[tuple[int, ...], ...], dtype: torch.dtype
) -> Slide:
    """Shifts along axes of positions, of both positions at once where the sizes are of pairs."""
    axes = [(place, len(sizes) // 2 + place) if full else (place,) for place in places]
    return Slide.of([[_moved(sizes, both, by, dtype) for by in one if by] for both, one in zip(axes, shifts, strict=True)])


def _moved(sizes: tuple[int, ...], axes: tuple[int, ...], shift: int, dtype: torch.dtype) -> tuple[int, Tensor]:
    """A shift along axes as one on the flat axis of all positions, and one where it stays inside."""
    start, low, length, inside = _offset(sizes, axes, shift, dtype, torch.device("cpu"))
    mask = torch.zeros(math.prod(sizes), dtype=dtype)
    mask[low : low + length] = 1.0 if inside is None else inside
    return start - low, mask


def _window(field: Field, at: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int) -> Field:
    """Sum over a window along one axis, both positions moving together; taps beyond the border read zeros."""
    atom = field.layout.axes[at][0]
    place, n, lead = field.order.index(atom), len(field.order), field.lead
    out = (atom.size + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1
    axes = [lead + place, *([lead + n + place] if field.full else [])]
    shifts = [tap * dilation - padding[0] for tap in range(kernel)]
    taps = [_tap(shift, stride, atom.size, out) for shift in shifts]
    taps.sort(key=lambda tap: tap[1] - tap[2])  # the one that reaches most outputs first
    reaching = [shift for shift in shifts if 0 < abs(shift) < atom.size]
    stays = stride == 1 and out == atom.size and 0 in shifts and reaching

    def slide(k: Tensor) -> Tensor:
        if kernel == 1 and stride == 1 and not any(padding):
            return k
        if stays and math.prod(k.shape[lead:]) <= MASKED and not k.requires_grad:
            return _slid(k.contiguous(), lead, axes, reaching)
        total: Tensor | None = None
        for start, low, high in taps:
            if high <= low:
                continue
            source = k
            for axis in axes:
                source = source.narrow(axis, start, stride * (high - low - 1) + 1)
                if stride > 1:
                    source = source[(slice(None),) * axis + (slice(None, None, stride),)]
            if total is None and high - low == out:
                total = source.clone(memory_format=torch.contiguous_format)
                continue
            if total is None:
                total = k.new_zeros([out if i in axes else size for i, size in enumerate(k.shape)])
            target = total
            for axis in axes:
                target = target.narrow(axis, low, high - low)
            target += source
        return k.new_zeros([out if i in axes else size for i, size in enumerate(k.shape)]) if total is None else total

    new = Atom(Kind.POSITION, out)
    order = (*field.order[:place], new, *field.order[place + 1 :])
    return field.mapped(slide, None, layout=field.layout.replaced(at, (new,)), order=order)


def _slid(k: Tensor, lead: int, axes: list[int], shifts: list[int]) -> Tensor:
    """The sum of k and its shifts along axes whose size stays, each shift smaller than that size.

    Positions are taken as one flat axis, on which a shift along several axes is one offset. What would come round from another
    row is multiplied by zero: one pass over long rows, where slices of the last axis would be short ones.
    """
    sizes = tuple(k.shape[lead:])
    flat = k.view(-1, math.prod(sizes))
    total = torch.empty_like(flat)
    for i, shift in enumerate(shifts):
        start, low, length, mask = _offset(sizes, tuple(axis - lead for axis in axes), shift, k.dtype, k.device)
        source, reached = flat.narrow(1, start, length), total.narrow(1, low, length)
        below = reached if i else flat.narrow(1, low, length)
        if mask is None:
            torch.add(below, source, out=reached)
        else:
            torch.addcmul(below, source, mask, out=reached)
        if not i:
            rest, start = flat.shape[1] - length, 0 if low else length
            total.narrow(1, start, rest).copy_(flat.narrow(1, start, rest))
    return total.view(k.shape)


@lru_cache(maxsize=64)
def _offset(
    sizes: tuple[int, ...], axes: tuple[int, ...], shift: int, dtype: torch.dtype, device: torch.device
) -> tuple[int, int, int, Tensor | None]:
    """A shift as an offset on the flat axis: where it starts to read and to write, how far, and one where it stays inside."""
    mask = torch.zeros(sizes, dtype=dtype, device=device)
    within = mask
    for axis in axes:
        within = within.narrow(axis, max(0, -shift), sizes[axis] - abs(shift))
    within.fill_(1.0)
    offset = shift * sum(mask.stride(axis) for axis in axes)
    low, length = max(0, -offset), mask.numel() - abs(offset)
    return (
        low + offset,
        low,
        length,
        None if axes == (0,) else mask.flatten().narrow(0, low, length),
    )  # (0,): nothing comes round


def _tap(offset: int, stride: int, size: int, out: int) -> tuple[int, int, int]:
    """Of one tap: the first input that it reads, and the range of outputs for which it reads one."""
    low = max(0, -(offset // stride))
    high = min(out, (size - 1 - offset) // stride + 1)
    return low * stride + offset, low, high


def _spread(field: Field, at: int, kernel: int, stride: int, padding: int, dilation: int, extra: int) -> Field:
    """Mean over the taps through which inputs reach an output position, along one axis."""
    atom = field.layout.axes[at][0]
    place, n, lead = field.order.index(atom), len(field.order), field.lead
    whole = (atom.size - 1) * stride + dilation * (kernel - 1) + 1 + extra
    out = whole - 2 * padding
    axes = [lead + place, *([lead + n + place] if field.full else [])]

    def reach(k: Tensor) -> Tensor:
        shape = list(k.shape)
        for axis in axes:
            shape[axis] = whole
        total = k.new_zeros(shape)
        for tap in range(kernel):
            part = total
            for axis in axes:
                part = part[
                    (slice(None),) * axis + (slice(tap * dilation, tap * dilation + (atom.size - 1) * stride + 1, stride),)
                ]
            part += k / kernel
        for axis in axes:
            total = total.narrow(axis, padding, out)
        return total

    new = Atom(Kind.POSITION, out)
    order = (*field.order[:place], new, *field.order[place + 1 :])
    return field.mapped(reach, None, layout=field.layout.replaced(at, (new,)), order=order)


def chosen(field: Field, at: int, index: Tensor) -> Field:
    """Positions along one axis taken by index; -1 takes a zero."""
    atom = field.layout.axes[at][0]
    place, n, lead = field.order.index(atom), len(field.order), field.lead
    there = index >= 0

    def take(k: Tensor, axis: int) -> Tensor:
        k = k.index_select(axis, index.clamp(min=0))
        if not bool(there.all()):
            k = k * there.to(k).reshape([-1] + [1] * (k.dim() - 1 - axis))
        return k

    def both(k: Tensor) -> Tensor:
        k = take(k, lead + place)
        return take(k, lead + n + place) if field.full else k

    new = Atom(Kind.POSITION, len(index))
    order = (*field.order[:place], new, *field.order[place + 1 :])
    return field.mapped(both, lambda m: take(m, 1 + place), layout=field.layout.replaced(at, (new,)), order=order)


def _padded_index(size: int, low: int, high: int, mode: str) -> Tensor:
    at = torch.arange(-low, size + high)
    if mode == "circular":
        return at % size
    if mode == "replicate":
        return at.clamp(0, size - 1)
    if mode == "reflect":
        return (size - 1 - (at.abs() - (size - 1)).abs()).abs()
    return torch.where((at >= 0) & (at < size), at, torch.full_like(at, -1))


def _is_position(layout: Layout, at: int) -> bool:
    return len(layout.axes[at]) == 1 and layout.axes[at][0].kind is Kind.POSITION


def _each(value: Any, dims: int) -> list[int]:
    values = [int(value)] if isinstance(value, int) else [int(v) for v in value]
    return values * dims if len(values) == 1 else values


def _padding(value: Any, kernel: list[int], dilation: list[int], dims: int) -> list[tuple[int, int]]:
    if value == "valid":
        return [(0, 0)] * dims
    if value == "same":
        whole = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [(w // 2, w - w // 2) for w in whole]
    return [(p, p) for p in _each(value, dims)]


def _product(sizes: list[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
