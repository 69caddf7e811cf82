"""Sums and products of branches, and side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lazyrich.graph.node import Batch
from lazyrich.lazy.field import SQUARE, Data, Field, Mix, Random, Source, Sources, Weight, number_of, straight
from lazyrich.lazy.layout import Atom, Kind, Layout, size_of
from lazyrich.lazy.rule import grid, output
from lazyrich.lazy.rule.constant import are_zero, zeros
from lazyrich.lazy.rule.learned import feature_axis, table
from lazyrich.lazy.rule.parameter import changed, scalar
from lazyrich.lazy.rule.pointwise import joined, through, times
from lazyrich.lazy.rule.pointwise import plus as plus_curve
from lazyrich.lazy.rule.shape import halves
from lazyrich.lazy.rule.table import Call, register


@register("add", "sub", says="covariances of independent branches add", moments=True)
def add(call: Call) -> Any:
    """The sum of two branches, or with a constant."""
    if not call.random():
        return changed(call)
    first, second = call.args[0], call.args[1]
    sign = -1.0 if call.node.op == "sub" else 1.0
    alpha = float(call.kwargs.get("alpha", 1)) * sign
    if not isinstance(first, Random):
        if (number := scalar(call, first)) is not None:
            return plus(call, times(call, second, alpha) if alpha != 1 else second, number)
        first, second = _swap(call, first, second, alpha)
        alpha = 1.0
    if (number := scalar(call, second)) is not None:
        return plus(call, first, alpha * number)
    if isinstance(second, (Weight, Data)):
        return plus_tensor(call, first, second, alpha)
    whole = joined(call, (first, second), lambda a, b: a + alpha * b)
    if whole is not None:
        return whole
    if output.is_centring(call, first, second, alpha):
        return output.centred(*_aligned(call, call.run.field(first, call), second))
    lines = [straight(first), straight(second)]
    if all(lines) and any(line[1] for line in lines):  # type: ignore[index]
        (a, up), (b, other) = lines  # type: ignore[misc]
        return plus(call, sum_of(call, a, b.scaled(alpha)), up + alpha * other)
    a, b = call.run.field(first, call), call.run.field(second, call)
    return sum_of(call, a, b if alpha == 1 else b.scaled(alpha))


def plus(call: Call, value: Any, offset: float) -> Any:
    """A random value plus a number: a curve of Gaussian features, a shift of the mean of others."""
    if offset and isinstance(value, Field) and not value.gaussian:
        number = Data((value.nngp.new_tensor(offset),), constant=True)
        return _shifted(call, value.merged(), number, 1.0)
    return plus_curve(call, value, offset)


@register("rsub", moments=True, says="as sub, the other way round")
def subtract_from(call: Call) -> Any:
    """A number minus a branch."""
    if not call.random():
        return changed(call)
    number = number_of(call.args[1])
    if number is None or call.get(2, "alpha", 1) != 1:
        raise call.refuse("it subtracts from something that is no number", "write it as a sum")
    return plus(call, times(call, call.args[0], -1.0), number)


@register("glu", says="the first half of the features times sigmoid of the second")
def gated(call: Call) -> Any:
    """Two independent halves of the features."""
    first, second = halves(call, call.args[0], call.get(1, "dim", -1))
    return product(call, first, through(call, second, torch.sigmoid, ("sigmoid", ())))


@register("mul", "div", says="a number scales; independent branches multiply; a gain multiplies by its square")
def multiply(call: Call) -> Any:
    """The product of a branch with a constant, a gain, or an independent branch."""
    if not call.random():
        return changed(call)
    first, second = call.args[0], call.args[1]
    if call.node.op == "div":
        if call.kwargs.get("rounding_mode") is not None:
            raise call.refuse("it divides and rounds", "divide without rounding, or round as a function of its own")
        number = scalar(call, second)
        if not isinstance(first, Random):
            raise call.refuse("it divides by something random", "divide by a number")
        whole = joined(call, (first, second), lambda a, b: a / b) if number is None else None
        if whole is not None:
            return whole
        if isinstance(second, Data):
            second = _thin(first.layout, second)
            return masked(call, call.run.field(first, call), replace(second, tensors=tuple(1 / t for t in second.tensors)))
        if number is None:
            raise call.refuse("it divides by something random or by a parameter", "divide by a number")
        return times(call, first, 1.0 / number)
    if not isinstance(first, Random):
        first, second = second, first
    if (number := scalar(call, second)) is not None:
        return times(call, first, number)
    if isinstance(second, Weight):
        return gain(call, call.run.field(first, call), second)
    if isinstance(second, Data):
        mix = grid.stretched(call, first, second)
        return masked(call, call.run.field(first, call), second) if mix is None else mix
    return product(call, first, second)


def product(call: Call, first: Any, second: Any) -> Any:
    """Feature by feature: of functions of one field a function, of independent branches the product of covariances."""
    whole = joined(call, (first, second), lambda a, b: a * b)
    if whole is not None:
        return whole
    if first is second and isinstance(first, Field):
        return through(call, first, torch.square, SQUARE)
    a, b = _aligned(call, call.run.field(first, call), call.run.field(second, call))
    _refuse_dependent(call, a, b, "multiplied")
    if a.mixed and b.mixed:
        raise call.refuse("it multiplies two joined branches, whose stretches have other laws", "multiply before joining")
    for one in (a, b):
        output.tell_random(call, one, "the other output")
    ntk = None if a.ntk is None else a.ntk * b.nngp + a.nngp * b.ntk  # type: ignore[operator]
    mean = None if a.mean is None or b.mean is None else a.mean * b.mean
    return Field(a.layout, a.order, a.nngp * b.nngp, ntk, a.full, a.sources | b.sources, False, a.centred or b.centred, mean,
                 mixed=a.mixed or b.mixed, shared=a.shared or b.shared, behind=a.behind | b.behind)  # fmt: skip


@register("stack", says="branches are positions of a new axis: blocks")
def stack(call: Call) -> Field:
    """Branches side by side along a new axis."""
    parts, dim = list(call.args[0]), call.get(1, "dim", 0)
    if not all(isinstance(p, Random) for p in parts):
        raise call.refuse("it stacks branches with parameters or constants", "stack branches that depend on the input")
    fields = [call.run.field(p, call).merged() for p in parts]
    at = dim % (len(fields[0].layout.axes) + 1)
    axes = [field.layout.axes for field in fields]
    return _blocks(call, [f.laid(Layout((*a[:at], (), *a[at:]))) for f, a in zip(fields, axes, strict=True)], at)


@register("cat", says="features side by side average; positions side by side are blocks")
def cat(call: Call) -> Any:
    """Concatenation along features or along positions."""
    parts, dim = list(call.args[0]), call.get(1, "dim", 0)
    like = next((p for p in parts if isinstance(p, Random)), None)
    if like is None:
        raise call.refuse("it joins parameters only", "join them with a branch that depends on the input")
    layout = like.layout
    at = layout.axis(dim)
    feature = any(a.kind is Kind.FEATURE for a in layout.axes[at])
    parts = [p if isinstance(p, Random) else _token(call, p, call.run.field(like, call), at) for p in parts]
    if feature:
        return _beside(call, parts, layout, at)
    return _blocks(call, [call.run.field(p, call).merged() for p in parts], at)


def _beside(call: Call, parts: list[Any], layout: Layout, at: int) -> Mix:
    sizes = [size_of(p.layout.axes[at]) for p in parts]
    total = sum(sizes)
    flat: list[tuple[float, Any]] = []
    for part, size in zip(parts, sizes, strict=True):
        inner = part.parts if isinstance(part, Mix) else ((1.0, part),)
        flat += [(share * size / total, value) for share, value in inner]
    return Mix(tuple(flat), layout.replaced(at, (Atom(Kind.FEATURE, total),)))


def _blocks(call: Call, parts: list[Field], at: int) -> Field:
    full = all(p.full for p in parts)
    parts = [p if full else p.reduced() for p in parts]
    for i, one in enumerate(parts):
        for other in parts[:i]:
            if full and not _independent(one.sources, other.sources):
                raise call.refuse(
                    "it joins positions of dependent branches",
                    "join before they branch; of a recurrent layer's states take the last one",
                )
            if full and not (one.centred or other.centred):
                raise call.refuse("it joins positions of branches that both have means", "join before their activations")
    first = parts[0]
    place, n, lead = len([a for axis in first.layout.axes[:at] for a in axis if a.kind is Kind.POSITION]), 0, first.lead
    parts = [p.with_position(at) for p in parts]
    n = len(parts[0].order)
    sizes = [p.order[place].size for p in parts]
    new = Atom(Kind.POSITION, sum(sizes))

    def joined_arrays(arrays: list[Tensor]) -> Tensor:
        if not full:
            return torch.cat(arrays, lead + place)
        rows = []
        for i, k in enumerate(arrays):
            widths = [
                k if j == i else k.new_zeros(1).expand(*_resized(k, lead + n + place, sizes[j])) for j in range(len(parts))
            ]
            rows.append(torch.cat(widths, lead + n + place))
        return torch.cat(rows, lead + place)

    nngp = joined_arrays([p.nngp for p in parts])
    ntk = None if first.ntk is None else joined_arrays([p.ntk for p in parts])  # type: ignore[misc]
    means = [torch.zeros_like(p.own_diagonal()) if p.mean is None else p.mean for p in parts]
    mean = torch.cat(means, 1 + place) if any(p.mean is not None for p in parts) else None
    order = (*parts[0].order[:place], new, *parts[0].order[place + 1 :])
    sources: Sources = frozenset().union(*(p.sources for p in parts))
    return Field(
        parts[0].layout.replaced(at, (new,)), order, nngp, ntk, full, sources,
        all(p.gaussian for p in parts), all(p.centred for p in parts), mean, mixed=any(p.mixed for p in parts), own=first.own,
        uneven=any(p.uneven or p.own != first.own for p in parts), shared=any(p.shared for p in parts),
        behind=frozenset().union(*(p.behind for p in parts)),
    )  # fmt: skip


def _resized(k: Tensor, axis: int, size: int) -> list[int]:
    shape = list(k.shape)
    shape[axis] = size
    return shape


def sum_of(call: Call, a: Field, b: Field) -> Field:
    """The sum of two independent branches, K + K' and Theta + Theta'."""
    a, b = _aligned(call, a, b)
    _refuse_dependent(call, a, b, "added")
    ntk = None if a.ntk is None else a.ntk + b.ntk  # type: ignore[operator]
    mean = a.mean if b.mean is None else (b.mean if a.mean is None else a.mean + b.mean)
    return Field(
        a.layout, a.order, a.nngp + b.nngp, ntk, a.full, a.sources | b.sources,
        a.gaussian and b.gaussian, a.centred and b.centred, mean, mixed=a.mixed or b.mixed,
        uneven=a.uneven or b.uneven or bool(a.own or b.own), shared=a.shared or b.shared, behind=a.behind | b.behind,
    )  # fmt: skip


def _refuse_dependent(call: Call, a: Field, b: Field, what: str) -> None:
    one, other = (a.touched, b.touched) if what == "multiplied" else (a.sources, b.sources)
    if not _independent(one, other):
        shared = ", ".join(sorted({s.name for s in one if any(s.meets(t) for t in other)}))
        raise call.refuse(
            f"branches that depend on the same weights ({shared}) are {what}, so their covariance is not known",
            "end one of the branches with a linear layer of its own",
        )
    if what == "added" and not (a.centred or b.centred):
        raise call.refuse(
            "two branches are added that are both not centred, so their means have a cross term",
            "end one of the branches with a linear layer",
        )


def _independent(a: Sources, b: Sources) -> bool:
    return not any(s.meets(t) for s in a for t in b)


def _aligned(call: Call, a: Field, b: Field) -> tuple[Field, Field]:
    """Two fields with the same axes, broadcast where one has size one; the one with more features first."""
    a, b = a.merged(), b.merged()
    if a.full != b.full:
        a, b = a.reduced(), b.reduced()
    if len(a.layout.axes) < len(b.layout.axes):
        return _aligned(call, b, a)
    missing = len(a.layout.axes) - len(b.layout.axes)
    b = replace(b, layout=Layout((((),) * missing) + b.layout.axes))
    return output.widest(call, _broadcast(a, b), _broadcast(b, a))


def _broadcast(field: Field, like: Field) -> Field:
    """Position axes of size one stretched to those of another field."""
    for at, (mine, other) in enumerate(zip(field.layout.axes, like.layout.axes, strict=True)):
        if not mine and any(a.kind is Kind.POSITION for a in other):
            place = len([a for axis in field.layout.axes[:at] for a in axis if a.kind is Kind.POSITION])
            field = field.with_position(at)
            size, lead, n = other[0].size, field.lead, len(field.order)
            atom = Atom(Kind.POSITION, size)

            def stretch(
                k: Tensor, lead: int = lead, n: int = n, place: int = place, size: int = size, full: bool = field.full
            ) -> Tensor:
                shape = list(k.shape)
                shape[lead + place] = size
                if full:
                    shape[lead + n + place] = size
                return k.expand(shape)

            def stretch_mean(m: Tensor, place: int = place, size: int = size) -> Tensor:
                return m.expand(*m.shape[: 1 + place], size, *m.shape[2 + place :])

            order = (*field.order[:place], atom, *field.order[place + 1 :])
            layout = field.layout.replaced(at, (atom,))
            field = field.mapped(stretch, stretch_mean, layout=layout, order=order)
    return field


def plus_tensor(call: Call, value: Any, tensor: Weight | Data, alpha: float) -> Any:
    """A branch plus a table of parameters (positions, a bias) or plus a constant or the input itself."""
    if (mix := grid.shifted(call, value, tensor, alpha)) is not None:
        return mix
    field = call.run.field(value, call).merged()
    if isinstance(tensor, Weight):
        return sum_of(call, field, table(call, tensor, field))
    feature = feature_axis(call, field.layout) - len(field.layout.axes)
    if number_of(tensor) == 0:
        return value
    if -feature > len(tensor.shape) or tensor.shape[feature] == 1:
        return _shifted(call, field, tensor, alpha)
    other = call.run.as_field(tensor, feature, field.full, call)
    return sum_of(call, field, other if alpha == 1 else other.scaled(alpha))


def _token(call: Call, value: Any, like: Field, at: int) -> Field:
    if isinstance(value, Data) and are_zero(value) and len(value.shape) == len(like.layout.axes):
        return zeros(value, like.merged())
    if not isinstance(value, Weight):
        if isinstance(value, Data) and not value.constant and value.number is None:
            raise call.refuse(
                "it joins a branch with the inputs, or with what is computed of them alone: a fixed number of features has no "
                "share in those that grow, so the limit would not see them, and a network of finite width does",
                "give the inputs a linear layer of their own and add or join its output",
            )
        raise call.refuse("it joins a branch with a constant", "add constants instead")
    like = like.merged()
    sized = replace(value, shape=tuple(s if isinstance(s, int) else 1 for s in value.shape))
    return table(call, sized, like)


def gain(call: Call, field: Field, weight: Weight) -> Field:
    """A gain, feature by feature: K -> (mean^2 + variance) K, Theta -> (...) Theta + rate K."""
    field = field.merged()
    feature = feature_axis(call, field.layout)
    shape = (1,) * (len(field.layout.axes) - len(weight.shape)) + tuple(weight.shape)
    axes = [size_of(axis) for axis in field.layout.axes]
    if any(isinstance(s, int) and s > 1 and i != feature for i, s in enumerate(shape)) or shape[feature] != axes[feature]:
        raise call.refuse(f"the gain '{weight.name}' does not have one number a feature", "multiply feature by feature")
    return gained(call, field, weight)


def gained(call: Call, field: Field, weight: Weight) -> Field:
    """A field times a gain of its own for each feature: a gain's derivative is the feature that it multiplies."""
    call.run.one_way(call, name := weight.name, "a gain")
    if any(s.name == name for s in field.touched):
        raise call.refuse(f"the gain '{name}' acts twice on one branch", "untie the two, or put a linear layer between them")
    drawn = call.run.entry(weight)
    square = drawn.mean**2 + drawn.variance
    if drawn.rate:
        output.tell_random(call, field, "the output itself")
    ntk = None if field.ntk is None else field.ntk * square + field.nngp * drawn.rate
    mean = None if field.mean is None else field.mean * drawn.mean
    own = field.own + drawn.rate / drawn.mean**2 if drawn.mean else 0.0
    return replace(
        field, nngp=field.nngp * square, ntk=ntk, mean=mean, gaussian=field.gaussian and drawn.variance == 0, origin=None,
        sources=field.sources | {Source(name)}, own=own,
    )  # fmt: skip


def _shifted(call: Call, field: Field, data: Data, alpha: float) -> Field:
    """One number added to all features, K -> K + m d' + d m' + d d', for every position, or for every sample and position."""
    field, _, (m1, m2) = call.run.moments(call.node.name, field)
    numbers, d1, d2 = _numbers(call, field, data)
    nngp = field.nngp + alpha * (m1 * d2 + d1 * m2) + alpha**2 * d1 * d2
    mean = None
    if call.run.alone:
        mean = alpha * numbers + (torch.zeros_like(field.own_diagonal()) if field.mean is None else field.mean)
    return replace(field, nngp=nngp, mean=mean, gaussian=False, centred=False, origin=None)


def masked(call: Call, field: Field, data: Data) -> Field:
    """A factor for every position, or for every sample and position."""
    field = field.merged()
    factors, first, second = _numbers(call, field, data)
    return field.mapped(lambda k: k * (first * second), lambda m: m * factors)


def _numbers(call: Call, field: Field, data: Data) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers for positions, (N or 1, positions) of the first batch, and of both laid out against a field's arrays."""
    axes, data = field.layout.axes, _thin(field.layout, data)
    shape = (1,) * (len(axes) - len(data.shape)) + tuple(data.shape)
    batch = [i for i, size in enumerate(shape) if isinstance(size, Batch)]
    wrong = [
        i for i, size in enumerate(shape)
        if any(a.kind is not (Kind.BATCH if i in batch else Kind.POSITION) for a in axes[i]) and size != 1
    ]  # fmt: skip
    if wrong or len(shape) > len(axes):
        raise call.refuse("it combines with a tensor over features", "take numbers or masks over positions")
    sizes = [shape[i] for i, axis in enumerate(axes) for a in axis if a.kind is Kind.POSITION]
    factors = [t.to(field.nngp).reshape(-1 if batch else 1, *sizes) for t in data.tensors]
    return factors[0], *field.at_positions(factors[0], factors[-1])


def _thin(layout: Layout, data: Data) -> Data:
    """Data that repeats one number along the features, as ``expand`` makes it, with that number alone."""
    for back in range(1, 1 + min(len(data.shape), len(layout.axes))):
        same = all(t.dim() == len(data.shape) and t.stride(-back) == 0 for t in data.tensors)
        if same and any(a.kind is Kind.FEATURE for a in layout.axes[-back]):
            shape = tuple(1 if i == len(data.shape) - back else size for i, size in enumerate(data.shape))
            data = replace(data, tensors=tuple(t.narrow(-back, 0, 1) for t in data.tensors), shape=shape)
    return data


def _swap(call: Call, first: Any, second: Any, alpha: float) -> tuple[Any, Any]:
    """Constant + alpha * random as random + constant."""
    return (times(call, second, alpha) if alpha != 1 else second), first
