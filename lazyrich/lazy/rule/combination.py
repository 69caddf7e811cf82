"""A linear combination of one branch's positions: its matrix is read off from what it does to unit vectors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lazyrich.graph.node import Batch
from lazyrich.lazy.combination import NAME
from lazyrich.lazy.field import Data, Field
from lazyrich.lazy.layout import Atom, Kind, Layout, size_of
from lazyrich.lazy.rule.convolution import chosen
from lazyrich.lazy.rule.product import weighed
from lazyrich.lazy.rule.table import Call, pairs, register

ENTRIES = 1 << 22  # of the unit vectors that are mapped at a time


@register(NAME, reads=pairs, says="all that joins positions of one branch is a matrix A: K -> A K A'; Theta alike")
def combination(call: Call) -> Field:
    """A K A' over all positions at once, where the same A acts on every feature."""
    field = call.field().merged()
    old, batch, feature = field.layout.axes, _only(call, field, Kind.BATCH), _only(call, field, Kind.FEATURE)
    flat = tuple(atom for axis in old for atom in axis if atom.kind is Kind.POSITION)
    line = field.laid(Layout((old[batch], flat, old[feature]))).merged().with_position(1)
    sides = range(len(call.run.inputs)) if _depends(call) else [0]
    found = [_Read(call, [size_of(axis) if i != batch else 0 for i, axis in enumerate(old)], batch, feature, i) for i in sides]
    a, b = found[0].matrix(), found[-1].matrix()
    if line.full:
        made = weighed(call, line, 1, a, b)
    else:  # nobody reads more than its shape
        made = chosen(line, 1, torch.zeros(a.shape[1], dtype=torch.long, device=a.device))
    at = {found[0].batch_after: made.layout.axes[0], found[0].feature_after: made.layout.axes[2]}
    axes = [at.get(i) or (() if size == 1 else (Atom(Kind.POSITION, size),)) for i, size in enumerate(call.node.shape or ())]
    positions = tuple(atom for axis in axes for atom in axis if atom.kind is Kind.POSITION)
    return made.laid(Layout(tuple(axes)), {made.layout.axes[1][0]: positions})


class _Read:
    """What an operation does to unit vectors of positions, with random numbers on the features."""

    def __init__(self, call: Call, sizes: list[int], batch: int, feature: int, side: int) -> None:
        self.call, self.sizes, self.batch, self.feature, self.side = call, sizes, batch, feature, side
        self.features, self.positions = sizes[feature], math.prod(s for i, s in enumerate(sizes) if i not in (batch, feature))
        like = next((t for t in self._others() if isinstance(t, Tensor) and t.is_floating_point()), call.field().nngp)
        drawn = torch.randn(self.features, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.numbers = (drawn.sign() + drawn / 4).to(like)  # none of them small
        self.batch_after, self.feature_after = self._axes()
        self._refuse_mixing()

    def matrix(self) -> Tensor:
        """(N, after, before) where it depends on the sample, else (1, after, before)."""
        known, key = self.call.node.target.known, (tuple(self.sizes), self.numbers.dtype, self.numbers.device)
        if _depends(self.call):
            units = torch.eye(self.positions).unsqueeze(1).expand(-1, len(self.call.run.inputs[self.side]), -1)
            return torch.stack([self._mapped(unit) for unit in units], -1)
        if key not in known:
            rows = len(self.call.run.inputs[self.side]) if _counted(self.call) else ENTRIES // (self.positions * self.features)
            units = torch.eye(self.positions).split(max(1, rows))
            if _counted(self.call):  # it was told how many samples there are
                units = [torch.cat([u, u.new_zeros(rows - len(u), self.positions)]) for u in units]
            known[key] = torch.cat([self._mapped(unit) for unit in units])[: self.positions].T[None]
        return known[key]

    def _refuse_mixing(self) -> None:
        """Samples must not meet: another first one changes no other. A single one is taken twice."""
        rows = len(self.call.run.inputs[self.side]) if _counted(self.call) else 2
        times = 2 if rows == 1 else 1
        one = torch.rand(rows * times, self.positions) + 0.5
        other = torch.cat([one[:1] + 1, one[1:]])
        found, expected = (self._after(v, times).movedim(self.batch_after, 0)[1:] for v in (one, other))
        if not torch.allclose(found, expected):
            raise self.call.refuse("it mixes samples, so there is no kernel between two samples alone", "treat each by itself")

    def _others(self, times: int = 1) -> list[Any]:
        given = self.call.args[1:]
        return [_several(v, v.tensors[0 if v.constant else self.side], times) if isinstance(v, Data) else v for v in given]

    def _after(self, units: Tensor, times: int = 1) -> Tensor:
        """Of positions (rows, before) times the features' numbers."""
        x = units.to(self.numbers).unsqueeze(-1) * self.numbers
        order = [self.batch, *(i for i in range(len(self.sizes)) if i not in (self.batch, self.feature)), self.feature]
        x = x.reshape(len(units), *(self.sizes[i] for i in order[1:]))
        return self.call.node.target(x.permute([order.index(i) for i in range(len(order))]), *self._others(times))

    def _mapped(self, units: Tensor) -> Tensor:
        """(rows, after)."""
        out = _lined(self._after(units), self.batch_after, self.feature_after)
        found = out @ self.numbers / self.numbers.square().sum()
        if not self._fits(out, found):
            raise self._refused()
        return found

    def _fits(self, out: Tensor, found: Tensor) -> bool:
        scale = float(found.abs().max()) if found.numel() else 0.0
        return torch.allclose(out, found.unsqueeze(-1) * self.numbers, rtol=1e-4, atol=1e-5 * scale)

    def _axes(self) -> tuple[int, int]:
        """Which axes are samples and features afterwards."""
        shape = self.call.node.shape or ()
        batches = [i for i, size in enumerate(shape) if isinstance(size, Batch)]
        rows = len(self.call.run.inputs[self.side])
        zero = self._after(torch.zeros(rows, self.positions))
        if batches != [i for i, size in enumerate(shape) if size == Batch()] or len(batches) != 1 or bool(zero.any()):
            raise self._refused()
        places = [i for i, size in enumerate(shape) if size == self.features and i != batches[0]]
        nearest = (self.feature, self.feature - len(self.sizes) + len(shape))  # counted from the front, from the back
        for at in sorted(places, key=lambda i: nearest.index(i) if i in nearest else 2):
            out = _lined(self._after(torch.rand(rows, self.positions) + 0.5), batches[0], at)
            if self._fits(out, out @ self.numbers / self.numbers.square().sum()):
                return batches[0], at
        raise self._refused()

    def _refused(self) -> Exception:
        return self.call.refuse(
            "it joins positions of one branch in another way for one feature than for another, or adds constants",
            "treat all features alike; add constants afterwards",
        )


def _several(data: Data, value: Any, times: int) -> Any:
    """Numbers of the samples, or how many these are, with all of them several times."""
    if data.constant or times == 1:
        return value
    at = [i for i, size in enumerate(data.shape) if isinstance(size, Batch)]
    return torch.cat([value] * times, at[0]) if isinstance(value, Tensor) else value * times


def _lined(out: Tensor, batch: int, feature: int) -> Tensor:
    """(rows, positions, features), also of a tensor without positions."""
    out = out.movedim((batch, feature), (0, -1))
    return out.reshape(len(out), -1, out.shape[-1])


def _only(call: Call, field: Field, kind: Kind) -> int:
    """The one axis of samples, or of features."""
    found = [i for i, axis in enumerate(field.layout.axes) if any(atom.kind is kind for atom in axis)]
    if len(found) != 1 or any(atom.kind is not kind for atom in field.layout.axes[found[0]]):
        raise call.refuse(
            f"its branch has no {kind.value} axis of its own", "keep samples, positions and features on axes of their own"
        )
    return found[0]


def _depends(call: Call) -> bool:
    """Whether numbers of the samples make it."""
    return any(isinstance(v, Data) and not v.constant and isinstance(v.tensors[0], Tensor) for v in call.args[1:])


def _counted(call: Call) -> bool:
    """Whether the number of samples goes in."""
    return any(isinstance(v, Data) and not v.constant for v in call.args[1:])
