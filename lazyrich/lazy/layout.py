"""Which axis of a traced tensor is batch, which position, which feature: through views, permutations and splits.

Axes are tuples of atoms, outermost first. A view refines and regroups atoms, a permutation reorders axes; neither touches a
kernel. Two fields are compared axis by axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from lazyrich.errors import KernelError
from lazyrich.graph.node import Batch


class Kind(Enum):
    """What an atom counts."""

    BATCH = "batch"
    POSITION = "position"
    FEATURE = "feature"


@dataclass(frozen=True, eq=False)
class Atom:
    """An indivisible part of an axis; two atoms of one size are still two.

    ``rank`` orders the parts of one axis that was split as they lie in memory, whatever the axes do later.
    """

    kind: Kind
    size: int
    rank: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return "B" if self.kind is Kind.BATCH else f"{self.kind.value[0]}{self.size}"


Axis = tuple[Atom, ...]
Split = dict[Atom, tuple[Atom, ...]]


@dataclass(frozen=True)
class Layout:
    """The axes of one tensor."""

    axes: tuple[Axis, ...]

    def __repr__(self) -> str:
        return "(" + ", ".join("·".join(map(repr, axis)) or "1" for axis in self.axes) + ")"

    @property
    def positions(self) -> Axis:
        """Position atoms in the order of the axes."""
        return tuple(atom for axis in self.axes for atom in axis if atom.kind is Kind.POSITION)

    @property
    def features(self) -> Axis:
        """Feature atoms in the order of the axes."""
        return tuple(atom for axis in self.axes for atom in axis if atom.kind is Kind.FEATURE)

    def axis(self, index: int) -> int:
        """A dimension counted from either end as one counted from the front."""
        return index % len(self.axes)

    def permuted(self, order: Sequence[int]) -> Layout:
        """Axes in another order."""
        return Layout(tuple(self.axes[self.axis(i)] for i in order))

    def swapped(self, i: int, j: int) -> Layout:
        """Two axes exchanged."""
        order = list(range(len(self.axes)))
        order[self.axis(i)], order[self.axis(j)] = self.axis(j), self.axis(i)
        return self.permuted(order)

    def replaced(self, index: int, *axes: Axis) -> Layout:
        """One axis replaced by none, one or several."""
        at = self.axis(index)
        return Layout((*self.axes[:at], *axes, *self.axes[at + 1 :]))

    def viewed(self, shape: Sequence[Any]) -> tuple[Layout, Split]:
        """The layout of a view of another shape, and the atoms that had to be split for it."""
        split: Split = {a: () for axis in self.axes for a in axis if a.kind is Kind.POSITION and a.size == 1}
        atoms = [atom for axis in self.axes for atom in axis if atom not in split]
        axes = []
        for size in shape:
            wanted = _Size(size.times, 1) if isinstance(size, Batch) else _Size(int(size), 0)
            axis: list[Atom] = []
            while not wanted.done:
                if not atoms:
                    raise KernelError(f"cannot follow the view of {self} as {tuple(shape)}")
                atom = atoms.pop(0)
                left = wanted.without(atom)
                if left is None:
                    outer, inner = _cut(atom, wanted, self, shape)
                    split[atom] = (outer, inner)
                    atoms[:0] = [outer, inner]
                    continue
                axis.append(atom)
                wanted = left
            if size == 1 and atoms and atoms[0].size == 1:  # a feature axis of one
                axis.append(atoms.pop(0))
            axes.append(tuple(axis))
        return Layout(tuple(axes)), _flat(split)


@dataclass(frozen=True)
class _Size:
    """A number times the batch to a power."""

    number: int
    batches: int

    @property
    def done(self) -> bool:
        return self.number == 1 and self.batches == 0

    def without(self, atom: Atom) -> _Size | None:
        if atom.kind is Kind.BATCH:
            return _Size(self.number, self.batches - 1) if self.batches else None
        return _Size(self.number // atom.size, self.batches) if self.number % atom.size == 0 else None


def _cut(atom: Atom, wanted: _Size, layout: Layout, shape: Sequence[Any]) -> tuple[Atom, Atom]:
    """An atom that holds more than is wanted, cut in an outer part of the wanted size and the rest."""
    if atom.kind is Kind.BATCH or wanted.number <= 1 or atom.size % wanted.number:
        raise KernelError(f"cannot follow the view of {layout} as {tuple(shape)}: it mixes batch, position and feature axes")
    outer, inner = wanted.number, atom.size // wanted.number
    return Atom(atom.kind, outer, (*atom.rank, 0)), Atom(atom.kind, inner, (*atom.rank, 1))


def _flat(split: Split) -> Split:
    """Splits of splits written out."""

    def leaves(atom: Atom) -> tuple[Atom, ...]:
        return tuple(leaf for part in split[atom] for leaf in leaves(part)) if atom in split else (atom,)

    inner = {part for parts in split.values() for part in parts}
    return {atom: leaves(atom) for atom in split if atom not in inner}


def size_of(axis: Axis) -> int:
    """Number of positions or features along an axis without a batch."""
    return math.prod(atom.size for atom in axis)


def plain(shape: Sequence[Any], feature: int | None) -> Layout:
    """The layout of a fresh tensor: batch where the shape says so, one feature axis, all else positions.

    Example:
        >>> plain((Batch(), 3, 8, 8), feature=1)
        (B, f3, p8, p8)
    """
    axes: list[Axis] = []
    for i, size in enumerate(shape):
        if isinstance(size, Batch):
            axes.append((Atom(Kind.BATCH, 0),))
        elif i == feature:
            axes.append((Atom(Kind.FEATURE, size),))
        else:
            axes.append((Atom(Kind.POSITION, size),) if size != 1 else ())
    return Layout(tuple(axes))
