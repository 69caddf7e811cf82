"""Sums over an axis with fresh weights, and constant matrices over positions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lazyrich.family import Role
from lazyrich.lazy.field import Data, Field, Source, Sources, Weight
from lazyrich.lazy.layout import Atom, Kind, size_of
from lazyrich.lazy.rule.affine_loop import combine
from lazyrich.lazy.rule.learned import vectors
from lazyrich.lazy.rule.pointwise import plus
from lazyrich.lazy.rule.table import Call, Need, register
from lazyrich.lazy.weights import Drawn


@register("linear", says="K -> w mean(K) + b; Theta -> w mean(Theta) + rate_w mean(K) + rate_b")
def linear(call: Call) -> Any:
    """Sum over the last axis with fresh weights."""
    x, weight = call.args[0], call.get(1, "weight")
    return sum_over(call, x, weight, call.get(2, "bias"), axis=-1, outputs=call.node.shape[-1], transposed=False)  # type: ignore[index]


@register("addmm", says="as linear")
def addmm(call: Call) -> Any:
    """Bias + x W."""
    weight = call.args[2]
    return sum_over(call, call.args[1], weight, call.args[0], -1, call.node.shape[-1], transposed=True)  # type: ignore[index]


def sum_over(call: Call, x: Any, weight: Any, bias: Any, axis: int, outputs: int, transposed: bool) -> Any:
    """A sum over one axis with fresh, independent weights, plus a bias."""
    if not isinstance(weight, Weight):
        raise call.refuse("its weight is computed from others", "only plain parameters have a known law")
    call.run.one_way(call, weight.name, "a matrix" if weight.transposed == transposed else "a transposed matrix")
    full = call.run.needs.get(call.node.name, Need.EQUAL) is Need.ALL
    if isinstance(x, Weight):
        x = vectors(call, x, weight, axis, full)
    if isinstance(x, Data):
        x = call.run.shared_field(x, axis, full, call)
    field = call.run.field(x, call)
    at = field.layout.axis(axis)
    atoms = field.layout.axes[at]
    positions = tuple(a for a in atoms if a.kind is Kind.POSITION)
    if not any(a.kind is Kind.FEATURE for a in atoms) and size_of(atoms) > 1:
        raise call.refuse(
            "its weight mixes positions, not features, and a fixed number of positions makes no limit",
            "mix positions with constant matrices or attention, or put the features on this axis",
        )
    if any(a.kind is Kind.FEATURE for i, axis_ in enumerate(field.layout.axes) if i != at for a in axis_):
        raise call.refuse("it sums over a part of the features only", "sum over all features at once")
    new = Atom(Kind.FEATURE, outputs)
    averaged = field.averaged(positions)
    layout = field.layout.replaced(at, (new,))
    return affine(call, averaged, weight, bias, size_of(atoms), layout, fresh=bool(positions) or is_fresh(call, x))


def is_fresh(call: Call, x: Any) -> bool:
    """Whether nobody else will read the arrays of an evaluated input, so that they may be written over."""
    return call.run.read_once(x)


def affine(
    call: Call, field: Field, weight: Weight, bias: Any, fan_in: float, layout: Any,
    gaussian: bool = True, fresh: bool = False, share: float = 1.0,
) -> Any:  # fmt: skip
    """K -> w K + b, Theta -> w Theta + rate_w K + rate_b for covariances averaged over the fan-in.

    ``share`` multiplies what was only summed; ``fresh`` arrays are written over. A bias with a mean shifts the field.
    """
    _refuse_bottleneck(call, name := weight.name, field)
    if weight.shift:
        raise call.refuse(f"'{name}' has the mean {weight.shift:g}, since a number was added", "sum with weights of mean zero")
    role = call.run.role(name, field)
    drawn = call.run.summed(weight, fan_in, role)
    b = _bias(call, bias, role)
    added = (bias.name,) if isinstance(bias, Weight) else ()
    variance, rate = drawn.variance * share, drawn.rate * share
    nngp, ntk = field.nngp, field.ntk
    mixed = not gaussian and (field.mixed or field.sources == DATA)  # every feature goes on by itself
    behind = frozenset[Source]() if gaussian else _behind(call, name, field)
    fresh = fresh and not nngp.requires_grad
    theta = None if field.sources == DATA else ntk  # nothing was trained below
    done = combine(nngp, theta, (variance, b.variance, rate, b.rate), over=fresh) if call.run.tangent else None
    if call.run.tangent and not done:
        if theta is None:
            ntk = _scaled(nngp, rate, b.rate, over=False)
        elif rate == variance:
            ntk = _scaled(theta.add_(nngp) if fresh else theta + nngp, variance, b.rate, over=fresh)
        else:
            ntk = _scaled(theta, variance, b.rate, over=fresh)
            ntk = ntk + rate * nngp if ntk.requires_grad else ntk.add_(nngp, alpha=rate)
    nngp, ntk = done or (_scaled(nngp, variance, b.variance, over=fresh), ntk)
    made = replace(
        field, layout=layout, nngp=nngp, ntk=ntk, sources=frozenset({Source(n) for n in (name, *added)}), gaussian=gaussian,
        centred=True, mixed=mixed, mean=None, origin=(call.node.op, *call.node.inputs), own=0.0, uneven=False,
        behind=behind,
    )  # fmt: skip
    if not b.mean:
        return made
    if not gaussian:
        raise call.refuse(f"the bias '{bias.name}' has the mean {b.mean:g}", "draw it with mean zero")
    return plus(call, made, b.mean)


def _refuse_bottleneck(call: Call, name: str, field: Field) -> None:
    """A layer that widens again behind one of a plan's fixed widths: the features there stay random at every width."""
    roles = call.run.weights.roles
    made = sorted(source.name for source in field.sources)
    narrow = [n for role in (Role.OUTPUT, Role.FIXED) for n in made if roles.get(n) is role]
    if narrow and roles.get(name) is Role.INPUT:
        raise call.refuse(
            f"'{name}' reads what '{narrow[0]}' makes of a fixed number of features, a bottleneck: behind it the limit is random",
            "take lazyrich.lazy.bottleneck with a kernel for either side, or let the bottleneck grow with the width",
        )


def _behind(call: Call, name: str, field: Field) -> Sources:
    """What features depend on one by one that a fresh weight each has multiplied."""
    if any(s.name == name for s in field.touched):
        raise call.refuse(
            f"'{name}' acts twice on one branch feature by feature, where the same few numbers meet one another",
            "untie the two, or put a layer that mixes the features between",
        )
    plain = len(field.layout.features) == 1  # else they have changed places
    return frozenset(s if plain else Source(s.name, lost=True) for s in field.touched)


def _scaled(k: Tensor, factor: float, offset: float, over: bool) -> Tensor:
    """The array times a factor plus an offset in one pass, written over it if nobody else reads it."""
    if k.requires_grad:
        return factor * k + offset
    if offset:
        return torch.add(k.new_tensor(offset), k, alpha=factor, **({"out": k} if over else {}))
    return k.mul_(factor) if over else k * factor


def _bias(call: Call, bias: Any, role: Role) -> Drawn:
    """A bias adds its variance everywhere: it is the same at every sample and position."""
    if bias is None:
        return Drawn(0.0, 0.0, 0.0)
    if not isinstance(bias, Weight):
        raise call.refuse("its bias is computed from others", "only plain parameters have a known law")
    call.run.one_way(call, bias.name, "a bias")
    return call.run.added(bias, Role.FIXED if role is Role.OUTPUT else Role.VECTOR)


DATA = frozenset({Source("the input")})


def mixed(call: Call, field: Field, matrix: Tensor, axis: int) -> Field:
    """A constant matrix over one axis of positions: K -> A K A'."""
    field = field.merged()
    at = field.layout.axis(axis)
    atoms = field.layout.axes[at]
    if len(atoms) != 1 or atoms[0].kind is not Kind.POSITION or matrix.dim() != 2:
        raise call.refuse("its matrix does not act on one axis of positions", "apply it to an axis of positions alone")
    return along(field, at, lambda k: matrix.to(k) @ k, matrix.shape[0])


def along(field: Field, at: int, function: Any, size: int) -> Field:
    """A linear map on one axis of positions; ``function`` acts on the second last axis of what it is given."""
    atom = field.layout.axes[at][0]
    place, n, lead = field.order.index(atom), len(field.order), field.lead
    new = Atom(Kind.POSITION, size)

    def one(k: Tensor, axis: int) -> Tensor:
        return function(k.movedim(axis, -1).unsqueeze(-1)).squeeze(-1).movedim(-1, axis)

    def both(k: Tensor) -> Tensor:
        k = one(k, lead + place)
        return one(k, lead + n + place) if field.full else k

    order = (*field.order[:place], new, *field.order[place + 1 :])
    return field.mapped(both, lambda m: one(m, 1 + place), layout=field.layout.replaced(at, (new,)), order=order)
