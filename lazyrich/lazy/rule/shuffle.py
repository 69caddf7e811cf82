"""Features that change places with one another, or with positions, a fixed way: shuffled channels and pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyrich.lazy.field import Curve, Field, Mix
from lazyrich.lazy.layout import Atom, Kind, Layout, size_of
from lazyrich.lazy.rule.shape import over
from lazyrich.lazy.rule.table import Call, register


@register("channel_shuffle", "native_channel_shuffle", says="features change places")
def channels(call: Call) -> Any:
    """As a view in groups and places within them, which are exchanged."""
    groups = int(call.get(1, "groups"))
    if isinstance(call.args[0], Mix):
        raise call.refuse("it shuffles joined branches, whose stretches have other laws", "shuffle before joining")

    def change(field: Field, layout: Layout | None) -> Field:
        axes = field.layout.axes
        if any(a.kind is not Kind.FEATURE for a in axes[1]) or len(axes[1]) != 1:
            raise call.refuse("it shuffles an axis that is no plain axis of features", "shuffle channels (N, channels, ...)")
        (atom,) = axes[1]
        outer, inner = Atom(atom.kind, groups, (*atom.rank, 0)), Atom(atom.kind, atom.size // groups, (*atom.rank, 1))
        return field.laid(Layout((axes[0], (inner, outer), *axes[2:])))

    return over(call, call.args[0], change)


@register("pixel_shuffle", says="disjoint stretches of features become neighbouring positions")
def pixels(call: Call) -> Any:
    """(N, C r r, H, W) -> (N, C, H r, W r): positions within one block have features of their own."""
    value, r = call.args[0], int(call.get(1, "upscale_factor"))
    base = value.base if isinstance(value, Curve) else value
    axes = value.layout.axes
    if len(axes) != 4 or len(axes[1]) != 1 or axes[1][0].kind is not Kind.FEATURE or axes[0][0].kind is not Kind.BATCH:
        raise call.refuse("it shuffles other axes than those of images", "give (N, channels, height, width)")
    if isinstance(value, Mix) or base.mixed:
        raise call.refuse("it takes joined branches apart, whose stretches have other laws", "shuffle before joining")
    if not base.centred:
        raise call.refuse(
            "it shuffles features that are not centred, so neighbours depend on one another", "shuffle before the nonlinearity"
        )
    return over(call, value, lambda field, layout: _apart(field, r))


def _apart(field: Field, r: int) -> Field:
    field = field.merged()
    channels = size_of(field.layout.axes[1])
    for axis in (2, 3):
        field = field.with_position(axis)
    order = [axis[0] for axis in field.layout.axes[2:]]
    field = field.ordered(tuple(order))
    parts = [Atom(Kind.POSITION, r), Atom(Kind.POSITION, r)]
    equal = torch.eye(r * r, dtype=field.nngp.dtype, device=field.nngp.device).reshape(r, r, r, r)

    def spread(k: Tensor) -> Tensor:
        """One block of r x r features beside each position, of which each meets itself alone."""
        lead, (h, w) = k.shape[: field.lead], (atom.size for atom in order)
        if not field.full:
            return k.reshape(*lead, h, 1, w, 1).expand(*lead, h, r, w, r)
        k = k.reshape(*lead, h, 1, w, 1, h, 1, w, 1)
        return k * equal.reshape(1, r, 1, r, 1, r, 1, r)

    def mean(m: Tensor) -> Tensor:
        h, w = (atom.size for atom in order)
        return m.reshape(len(m), h, 1, w, 1).expand(-1, h, r, w, r)

    placed = (order[0], parts[0], order[1], parts[1])
    axes = (field.layout.axes[0], (Atom(Kind.FEATURE, channels // r**2),), placed[:2], placed[2:])
    return field.mapped(spread, mean, layout=Layout(axes), order=placed).merged()
