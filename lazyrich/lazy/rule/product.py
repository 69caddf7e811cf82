"""Products over one axis: with weights, of two random fields over their features, and of numbers with a field over positions.

The sum of q k over d features is d times their covariance, with fluctuations of order sqrt(d). Scaled by 1/d it is a number for
every pair of positions, whatever is done to it afterwards: masks, softmax (Hron et al. 2020, arXiv:2006.10540, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.graph.node import Batch
from lazyrich.lazy.field import IDENTITY, Curve, Data, Field, Overlap, Random, Turned, Weight, number_of
from lazyrich.lazy.layout import Atom, Axis, Kind, size_of
from lazyrich.lazy.rule.linear import DATA, mixed, sum_over
from lazyrich.lazy.rule.table import Call, pairs, register

UNCHANGED = ("contiguous", "clone", "to", "_to_copy", "alias", "float", "double", "type_as")
Labels = Sequence[Any]  # a name for every axis; an axis that two factors share has one name


@register("matmul", "mm", "bmm", reads=pairs, overlaps=True,
          says="with a weight as linear; of fields over features: numbers, once scaled by 1/d; numbers mix positions")  # fmt: skip
def matmul(call: Call) -> Any:
    """Over the last axis of the left factor and the second last of the right one."""
    left, right = call.args[0], call.args[1]
    if isinstance(right, Weight):
        return sum_over(call, left, right, None, -1, call.node.shape[-1], transposed=True)  # type: ignore[index]
    if isinstance(left, Data) and left.constant and left.tensors[0].dim() == 2:
        return mixed(call, call.field(1), left.tensors[0], -2)
    if isinstance(right, Data) and right.constant and right.tensors[0].dim() == 2:
        return mixed(call, call.field(0), right.tensors[0].transpose(-1, -2), -1)
    one, two = _dims(left), _dims(right)
    if min(one, two) < 2:
        raise call.refuse("one of its factors is a vector", "give matrices")
    lead: list[Any] = list(range(max(one, two) - 2))  # axes are matched from the right
    of_left = [*lead[len(lead) + 2 - one :], "i", "s"]
    of_right = [*lead[len(lead) + 2 - two :], "s", "j"]
    return contract(call, left, right, of_left, of_right, [*lead, "i", "j"])


@register("einsum", reads=pairs, overlaps=True, says="as matmul")
def einsum(call: Call) -> Any:
    """Of two factors over one axis, every axis named."""
    equation, factors = call.args[0].replace(" ", ""), call.args[1]
    read, arrow, out = equation.partition("->")
    parts = read.split(",")
    if not arrow or "." in equation or len(parts) != 2 or len(factors) != 2:
        raise call.refuse(f"got '{equation}', expected two factors and all axes named, as in 'bqd,bkd->bqk'", "write it so")
    return contract(call, factors[0], factors[1], parts[0], parts[1], out)


@register("gru", "lstm", "gru_cell", "lstm_cell", says="refused")
def gates(call: Call) -> Any:
    """Gates of one step and the states that they multiply are made by the same weights."""
    raise call.refuse(
        "its gates multiply states that the same weights made a step before; products of such dependent features have no kernel in "
        "closed form",
        "take a plain recurrent layer (nn.RNN)",
    )


@register("softmax", "log_softmax", says="numbers as they are; refused of a branch")
def normalised(call: Call) -> Any:
    """Of attention's numbers it never comes here."""
    tables = _tables(call)
    if tables:
        raise call.refuse(
            f"its logits hold the random table '{', '.join(tables)}', whose few entries stay random at infinite width",
            "take constants in its place (register_buffer), as distances times a number, or leave it out",
        )
    raise call.refuse(
        "it normalises a branch that stays random at infinite width, as the gates of a mixture of experts do; no kernel in closed "
        "form is known",
        "gate by sigmoid entry by entry, or take softmax of products over features that are scaled by 1/d",
    )


def _tables(call: Call) -> list[str]:
    """Parameters that alone make a branch: of positions or tokens, added to numbers."""
    bare = getattr(call.args[0], "base", call.args[0])
    made = [source.name for source in getattr(bare, "sources", ()) if source not in DATA]
    return sorted(made) if made and all(call.run.ways.get(name) == "a table" for name in made) else []


def contract(call: Call, left: Any, right: Any, of_left: Labels, of_right: Labels, out: Labels) -> Any:
    """The sum over the one axis that both factors name and the result does not."""
    summed = [name for name in of_left if name in of_right and name not in out]
    lost = [name for name in (*of_left, *of_right) if name not in out and name not in summed]
    if len(summed) != 1 or lost or len(set(of_left)) < len(of_left) or len(set(of_right)) < len(of_right):
        raise call.refuse("it sums over several axes, over none, or over one of a single factor", "sum over one shared axis")
    if not isinstance(left, Random) and (isinstance(right, Random) or isinstance(left, Weight)):
        left, right, of_left, of_right = right, left, of_right, of_left
    (over,) = summed
    own = [name for name in of_right if name not in of_left]
    if isinstance(right, Random):
        return _overlap(call, left, right, of_left, of_right, out, over)
    if len(own) != 1:
        raise call.refuse("its second factor has more than one axis of its own, or none", "bring in one new axis at a time")
    named = [own[0] if name == over else name for name in of_left]
    if isinstance(right, Weight):
        if len(of_right) != 2:
            raise call.refuse(f"its weight has {len(of_right)} axes", "use a weight with two axes")
        outputs = right.shape[of_right.index(own[0])]
        field = sum_over(call, left, right, None, of_left.index(over), outputs, transposed=of_right.index(over) == 0)
    else:
        order = [name for name in of_right if name not in (over, own[0])] + [own[0], over]
        if any(a.kind is Kind.FEATURE for a in left.layout.axes[of_left.index(over)]):
            raise call.refuse("it multiplies a random field with data over features", "give the data a linear layer")
        numbers = _matrices(call, right, [of_right.index(name) for name in order])
        field = weighed(call, call.run.field(left, call), of_left.index(over), *numbers)
    field = field.laid(field.layout.permuted([named.index(name) for name in out]))
    sizes = [None if any(a.kind is Kind.BATCH for a in axis) else size_of(axis) for axis in field.layout.axes]
    if sizes != [None if isinstance(size, Batch) else size for size in call.node.shape or ()]:
        raise call.refuse("one of its factors repeats the other along an axis", "give both factors all axes")
    return field


def covariances(call: Call, first: Any, second: Any) -> tuple[tuple[Tensor, Tensor] | None, float]:
    """E q k of one feature at pairs of positions, (N, P, P) for both batches, or None where it is zero for all inputs.

    Also the number by which both fields are scaled, which is counted in already.
    """
    (one, a), (two, b) = _bare(call, first), _bare(call, second)
    if not any(s.meets(t) for s in one.sources for t in two.sources):
        if not (one.centred or two.centred):
            raise call.refuse("it multiplies two fields that both have means", "end one of them with a linear layer")
        return None, a * b
    if unknown := next((f for f in (one, two) if isinstance(f, Turned)), None):
        raise unknown.reason
    if one.sources != two.sources or one.origin is None or one.origin != two.origin or one.order != two.order:
        raise call.refuse(
            "queries and keys share a part of their weights and are not the same, so their covariance is not known",
            "give both the same linear layer of the same input, or layers of their own",
        )
    if one.layout.positions != two.layout.positions:
        raise call.refuse("its queries have their positions in another order than its keys", "give both the same axes")
    run, key = call.run, call.node.name
    if run.alone:
        found = a * b * one.ordered(one.layout.positions).nngp
        run.first[key] = (found, found)
    mine = run.first[key][0]
    return (mine, mine if run.alone else run.second[key][0]), a * b


def rescaled(call: Call) -> Overlap | None:
    """A product of two fields times a number, or unchanged."""
    first, *rest = call.args
    if isinstance(first, Overlap) and call.node.op in UNCHANGED:
        return first
    if call.node.op not in ("mul", "div"):
        return None
    if call.node.op == "mul" and isinstance(rest[0], Overlap):
        first, rest = rest[0], [first]
    number = number_of(rest[0])
    if number is None or not isinstance(first, Overlap):
        return None
    return replace(first, factor=first.factor * number if call.node.op == "mul" else first.factor / number)


def several_axes(call: Call) -> KernelError:
    """The error to raise where weights of attention differ along axes that it does not attend over."""
    return call.refuse(
        "it attends over one axis of several with queries and keys of the same weights, so its weights differ along the others",
        "give queries and keys weights of their own, or flatten the positions to one axis",
    )


def _bare(call: Call, value: Any) -> tuple[Field, float]:
    """A field and the number that multiplies it."""
    field, number = call.run.field(value, call), 1.0
    if isinstance(value, Curve) and value.spec == IDENTITY and value.base.gaussian:
        field, number = value.base, value.scale * value.inner
    return field, number * (field.size if isinstance(field, Turned) else 1.0)


def _overlap(call: Call, left: Any, right: Any, of_left: Labels, of_right: Labels, out: Labels, over: Any) -> Overlap:
    axes = dict(zip(of_left, left.layout.axes, strict=True))
    others = dict(zip(of_right, right.layout.axes, strict=True))
    if any(a.kind is not Kind.FEATURE for a in (*axes[over], *others[over])):
        raise call.refuse(
            "it sums two random fields over positions or samples",
            "sum over features: attention has a rule as softmax(q k / d) v, not as q (k v)",
        )
    query = [name for name in of_left if name not in of_right]
    key = [name for name in of_right if name not in of_left]
    places = [a for axis in (*axes.values(), *others.values()) for a in axis if a.kind is Kind.POSITION]
    own = [a for name in (*query, *key) for a in {**axes, **others}[name] if a.kind is Kind.POSITION]
    if len(query) != 1 or len(key) != 1:
        raise call.refuse("it attends over one axis of several", "flatten the positions to one axis")
    queries, keys = size_of(axes[query[0]]), size_of(others[key[0]])
    found, inner = covariances(call, left, right)
    if found is not None and len(own) != len(places):  # else the weights are the same ones along the other axes, as of windows
        raise several_axes(call)
    if found is None:
        like, inputs = _bare(call, left)[0].nngp, call.run.inputs
        found = like.new_zeros(len(inputs[0]), queries, keys), like.new_zeros(len(inputs[-1]), queries, keys)
    names = {query[0]: ("q",), key[0]: ("k",)}
    shape = [names.get(name) or _copies(axes.get(name) or others.get(name, ())) for name in out]
    tensors = tuple(_shaped(c.reshape(len(c), queries, keys), shape) for c in found[: len(call.run.inputs)])
    return Overlap(tensors, size_of(axes[over]), inner, shape=call.node.shape or ())


def _copies(axis: Axis) -> tuple[str | int, ...]:
    """What an axis that both factors share holds: samples, or so many heads."""
    return tuple("n" if atom.kind is Kind.BATCH else atom.size for atom in axis)


def _shaped(c: Tensor, axes: Sequence[tuple[str | int, ...]]) -> Tensor:
    """Covariances c[n, q, k] along the axes of a traced value, the same for every head."""
    parts = [part for axis in axes for part in axis]
    sizes: dict[str | int, int] = dict(zip("nqk", c.shape, strict=True))
    c = c.permute(["nqk".index(part) for part in parts if isinstance(part, str)])
    for at, part in enumerate(parts):
        c = c.unsqueeze(at) if isinstance(part, int) else c
    lengths = [[part if isinstance(part, int) else sizes[part] for part in axis] for axis in axes]
    return c.expand([n for axis in lengths for n in axis]).reshape([math.prod(axis) for axis in lengths])


def _matrices(call: Call, data: Data, order: list[int]) -> tuple[Tensor, Tensor]:
    """(N, queries, keys) of both batches, (1, queries, keys) of a constant; the same for every head."""
    shape = [data.shape[i] for i in order]
    batch = [i for i, size in enumerate(shape) if isinstance(size, Batch)]
    found = []
    for i, tensor in enumerate(data.tensors):
        tensor = tensor.permute(order)
        tensor = tensor.movedim(batch[0], 0) if batch else tensor.unsqueeze(0)
        z = tensor.reshape(1 if data.constant else len(call.run.inputs[i]), -1, *tensor.shape[-2:])
        if not torch.allclose(z, z[:, :1].expand_as(z)):
            raise call.refuse(
                "its matrices differ from head to head, or from window to window, so these are no copies of each other",
                "use the same",
            )
        found.append(z[:, 0])
    return found[0], found[-1]


def weighed(call: Call, field: Field, at: int, first: Tensor, second: Tensor) -> Field:
    """Z K Z' along one axis of positions, the same for all others; Z is (N or 1, queries, keys) for either batch."""
    field = field.merged()
    axis = field.layout.axes[field.layout.axis(at)]
    if len(axis) != 1 or axis[0].kind is not Kind.POSITION:
        raise call.refuse("it attends over an axis that is no position", "give (batch, heads, positions, dim)")
    if not field.full:  # nobody reads it
        return field
    place, n, lead = field.order.index(axis[0]), len(field.order), field.lead
    new, first, second = Atom(Kind.POSITION, first.shape[-2]), first.to(field.nngp), second.to(field.nngp)
    z1 = first if lead == 1 else first.unsqueeze(1)
    z2 = second if lead == 1 else second.unsqueeze(0)
    z1, z2 = (z.reshape(*z.shape[:-2], *[1] * (2 * n - 2), *z.shape[-2:]) for z in (z1, z2))

    def both(k: Tensor) -> Tensor:
        ends = (lead + place, lead + n + place)
        return (z1 @ k.movedim(ends, (-2, -1)) @ z2.transpose(-1, -2)).movedim((-2, -1), ends)

    def mean(m: Tensor) -> Tensor:
        z = first.reshape(len(first), *[1] * (n - 1), *first.shape[-2:])
        return (z @ m.movedim(1 + place, -1).unsqueeze(-1)).squeeze(-1).movedim(-1, 1 + place)

    order = (*field.order[:place], new, *field.order[place + 1 :])
    return field.mapped(both, mean, layout=field.layout.replaced(at, (new,)), order=order)


def _dims(value: Any) -> int:
    if isinstance(value, Random):
        return len(value.layout.axes)
    return len(value.shape)
