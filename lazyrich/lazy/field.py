"""What flows through a network of infinite width: a random field over samples and positions, known by its covariances.

A field's features are exchangeable; its arrays are covariances per feature, between the samples of two batches (or of one
batch with itself) and between positions: only equal ones (``full`` False), or all pairs of them.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.gaussian import Dual, dual
from lazyrich.graph import Node
from lazyrich.lazy.layout import Atom, Axis, Kind, Layout, Split, size_of


@dataclass(frozen=True)
class Source:
    """A stretch of the features that one weight tensor draws afresh; fields of disjoint stretches are independent.

    Of a stretch in pieces of one size (heads), ``inner`` is the part of every piece. ``lost`` is one whose places nobody knows any
    more: every part of it counts as all.

    Example:
        >>> third = Fraction(1, 3)
        >>> queries, keys = (Source("qkv").inside(4, at, at + third) for at in (Fraction(0), third))
        >>> queries.meets(keys), queries.meets(Source("qkv"))
        (False, True)
    """

    name: str
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(1)
    piece: Fraction | None = None
    inner: tuple[Fraction, Fraction] = (Fraction(0), Fraction(1))
    lost: bool = False

    def part(self, low: Fraction, high: Fraction) -> Source:
        """A stretch of the stretch; one that cuts pieces counts as all of them."""
        if self.lost:
            return self
        size = self.high - self.low
        part = Source(self.name, self.low + size * low, self.low + size * high)
        whole = self.piece is not None and (size * low / self.piece).denominator == (size * high / self.piece).denominator == 1
        return replace(part, piece=self.piece, inner=self.inner) if whole else part

    def inside(self, pieces: int, low: Fraction, high: Fraction) -> Source:
        """The same part of each of so many equal pieces."""
        return self if self.lost else replace(self, piece=(self.high - self.low) / pieces, inner=(low, high))

    def meets(self, other: Source) -> bool:
        """Whether two stretches overlap, as far as can be told."""
        if self.piece is not None and self.piece == other.piece and ((self.low - other.low) / self.piece).denominator == 1:
            (low, high), (bottom, top) = self.inner, other.inner
            if high <= bottom or top <= low:
                return False
        return self.name == other.name and self.low < other.high and other.low < self.high


Sources = frozenset[Source]
ROUGH = 1e-4  # error of a numerical integral above which users are told


@dataclass(frozen=True)
class Field:
    """A random field.

    Attributes:
        layout: its axes.
        order: position atoms in the order of the arrays' axes.
        nngp: covariances, lead + positions, or lead + positions + positions when ``full``; the lead is (N1, N2), or (N,).
        ntk: tangent kernel, of the same shape; None where it is not asked for.
        full: whether all pairs of positions are kept.
        sources: the weights that drew its features.
        behind: the weights of features that fresh ones have multiplied one by one since (depthwise layers): covariances with them
            are zero, so branches may be added, and those of squares are not, so they may not be multiplied.
        gaussian: features are independent, centred and Gaussian in the limit.
        centred: features have mean zero, so sums with independent fields have no cross terms.
        mean: over the features, (N, positions), in a pass of one batch; None for zero.
        mixed: stretches of the features have other laws than others, and the arrays hold the average.
        own: gains that were trained on the features: their part of ``ntk`` is ``own`` times the product of the features themselves,
            which a sum with weights averages to ``own`` times ``nngp``, and a nonlinearity does not.
        uneven: that part is a product of other features than these (of one branch of a sum), so no nonlinearity can follow.
        shared: one feature was added to all of them, or multiplied them, so means over them fluctuate.
        origin: the operation that drew the features and what it read; two fields with one origin, one order and the same
            sources are one field. None where something else was done since.
    """

    layout: Layout
    order: Axis
    nngp: Tensor
    ntk: Tensor | None
    full: bool
    sources: Sources
    gaussian: bool = False
    centred: bool = False
    mean: Tensor | None = None
    origin: tuple[str, ...] | None = None
    mixed: bool = False
    own: float = 0.0
    uneven: bool = False
    shared: bool = False
    behind: Sources = frozenset()

    @property
    def touched(self) -> Sources:
        """All weights that its features depend on one by one."""
        return self.sources | self.behind

    @property
    def lead(self) -> int:
        """Number of sample axes."""
        return self.nngp.dim() - len(self.order) * (2 if self.full else 1)

    def mapped(self, function: Callable[[Tensor], Tensor], mean: Callable[[Tensor], Tensor] | None, **changes: Any) -> Field:
        """The same map on both arrays, and another on the mean (None forgets it)."""
        ntk = None if self.ntk is None else function(self.ntk)
        kept = None if self.mean is None or mean is None else mean(self.mean)
        return replace(self, **({"nngp": function(self.nngp), "ntk": ntk, "mean": kept, "origin": None} | changes))

    def scaled(self, factor: float) -> Field:
        """The field times a number."""
        return self.mapped(lambda k: k * (factor * factor), lambda m: m * factor)

    def laid(self, layout: Layout, split: Split | None = None) -> Field:
        """The same field under another layout, after splitting atoms."""
        cut = {a: parts for a, parts in (split or {}).items() if a.kind is Kind.POSITION}
        if not cut:
            return replace(self, layout=layout)
        return self._reshaped(layout, tuple(part for a in self.order for part in cut.get(a, (a,))))

    def _reshaped(self, layout: Layout, order: Axis) -> Field:
        sizes, lead = [a.size for a in order], self.lead
        twice = sizes * (2 if self.full else 1)
        return self.mapped(
            lambda k: k.reshape(*k.shape[:lead], *twice), lambda m: m.reshape(len(m), *sizes),
            layout=layout, order=order, origin=self.origin,
        )  # fmt: skip

    def ordered(self, order: Axis) -> Field:
        """Arrays with their position axes in another order."""
        if order == self.order:
            return self
        at = [self.order.index(a) for a in order]
        n, lead = len(order), self.lead
        axes = [*range(lead), *(lead + i for i in at), *((lead + n + i for i in at) if self.full else ())]
        return self.mapped(
            lambda k: k.permute(axes), lambda m: m.permute(0, *(1 + i for i in at)), order=order, origin=self.origin
        )

    def merged(self) -> Field:
        """Every axis of positions with one atom, arrays in the order of the axes."""
        field = self.ordered(self.layout.positions)
        axes = [
            (Atom(Kind.POSITION, size_of(axis)),) if len(axis) > 1 and all(a.kind is Kind.POSITION for a in axis) else axis
            for axis in field.layout.axes
        ]
        layout = Layout(tuple(axes))
        return field if layout.axes == field.layout.axes else field._reshaped(layout, layout.positions)

    def with_position(self, at: int) -> Field:
        """An axis of size one made into an axis of positions."""
        if self.layout.axes[at]:
            return self
        place = sum(a.kind is Kind.POSITION for axis in self.layout.axes[:at] for a in axis)
        atom, lead, n = Atom(Kind.POSITION, 1), self.lead, len(self.order)

        def widen(k: Tensor) -> Tensor:
            k = k.unsqueeze(lead + place)
            return k.unsqueeze(lead + n + 1 + place) if self.full else k

        order = (*self.order[:place], atom, *self.order[place:])
        return self.mapped(widen, lambda m: m.unsqueeze(1 + place), order=order, layout=self.layout.replaced(at, (atom,)))

    def reduced(self) -> Field:
        """Only equal positions kept."""
        if not self.full:
            return self
        n, sizes = len(self.order), [a.size for a in self.order]

        def reduce(k: Tensor) -> Tensor:
            for done in range(n):
                k = k.diagonal(dim1=self.lead, dim2=self.lead + n - done)
            return k.reshape(*k.shape[: self.lead], *sizes)

        return self.mapped(reduce, lambda m: m, full=False, origin=self.origin)

    def averaged(self, atoms: Axis) -> Field:
        """Some positions averaged along their diagonal: what a sum over positions with fresh weights sees."""
        if not atoms:
            return self
        kept = tuple(a for a in self.order if a not in atoms)
        field = self.ordered((*kept, *atoms))
        keep, n, lead = len(kept), len(self.order), self.lead
        sizes, inner = [a.size for a in kept], size_of(atoms)

        def reduce(k: Tensor) -> Tensor:
            if not self.full:
                return k.mean(tuple(range(lead + keep, lead + n)))
            k = k.reshape(*k.shape[:lead], *sizes, inner, *sizes, inner)
            return k.diagonal(dim1=lead + keep, dim2=-1).mean(-1)

        return field.mapped(reduce, lambda m: m.mean(tuple(range(1 + keep, 1 + n))), order=kept)

    def at_positions(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers a sample and position, (N, positions) of each batch, laid out to broadcast against the arrays."""
        n = len(self.order)
        if self.lead == 2:
            first, second = first.unsqueeze(1), second.unsqueeze(0)
        if self.full:
            first = first.reshape(*first.shape, *([1] * n))
            second = second.reshape(*second.shape[: self.lead], *([1] * n), *second.shape[self.lead :])
        return first, second

    def own_diagonal(self) -> Tensor:
        """Of a field of one batch with itself: the variances (N, positions)."""
        return self.reduced().nngp


@dataclass(frozen=True)
class Turned(Field):
    """A field whose features fixed numbers have acted on one by one: its arrays are those from before, and its law is not known.

    ``reason`` is the error to raise where the law is asked for; ``size`` is how the numbers scale the features, root mean square.
    """

    size: float = 1.0
    reason: KernelError = KernelError("its law is not known")

    def scaled(self, factor: float) -> Field:
        """Times a number, of which only the size of logits takes note."""
        return replace(self, size=self.size * abs(factor))


BOTH_WAYS = torch.tensor([0.1, 0.9, 2.3, 7.0, -0.1, -0.9, -2.3, -7.0], dtype=torch.float64)


@dataclass(frozen=True)
class Curve:
    """A function applied entry by entry to a field and not evaluated yet, so that chains of them stay one function.

    The curve is ``scale * function(inner * x)``; ``spec`` names a known ``function`` and its parameters, ``kinks`` says where
    another one has kinks or jumps beside zero, as far as that is known.
    """

    base: Field
    key: str
    function: Callable[[Tensor], Tensor]
    spec: tuple[str, tuple[tuple[str, Any], ...]] | None = None
    scale: float = 1.0
    inner: float = 1.0
    kinks: tuple[float, ...] = ()

    @property
    def layout(self) -> Layout:
        """The axes of the field below."""
        return self.base.layout

    @property
    def known_kinks(self) -> tuple[float, ...]:
        """Kinks of the function, with zero, where a function that tells of none is taken to have one."""
        return tuple(sorted({0.0, *self.kinks})) if self.kinks else ()

    @property
    def breaks(self) -> tuple[float, ...]:
        """Kinks of the whole function."""
        return tuple(kink / self.inner for kink in self.kinks) if self.inner else ()

    @property
    def odd(self) -> bool:
        """Whether f(-x) = -f(x), so that its values have the mean zero wherever the field has."""
        values = self.function(BOTH_WAYS).tolist()  # one call: every tile asks
        return all(abs(a + b) <= 1e-12 * abs(a) + 1e-15 for a, b in zip(values[:4], values[4:], strict=True))

    def maker(self, nodes: Iterable[Node], reader: Node) -> Node:
        """The node that made it, or its reader if it is not among the nodes."""
        name = re.split(r"[.|]", self.key)[0]  # behind it: the part of a mixture, and views
        return next((node for node in nodes if node.name == name), reader)

    def curve(self, x: Tensor) -> Tensor:
        """The whole function."""
        return self.scale * self.function(self.inner * x)


def exact(value: Field, q: Tensor) -> Field:
    """The diagonal of a batch with itself set to its own variances (N, positions)."""
    return replace(value, nngp=with_diagonal(value, value.nngp, q))


def with_diagonal(like: Field, k: Tensor, q: Tensor, times: Tensor | None = None) -> Tensor:
    """An array of a batch with itself, with these numbers (N, positions) for equal samples at equal positions.

    Times those of another array there, where one is given.

    Example:
        >>> import torch
        >>> field = Field(Layout(()), (), torch.ones(2, 2), None, False, frozenset())
        >>> with_diagonal(field, torch.ones(2, 2), torch.zeros(2)).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    k = k.clone() if k.requires_grad or 0 in k.stride() else k
    _diagonal(like, k, q.shape).copy_(q if times is None else q * _diagonal(like, times, q.shape))
    return k


def _diagonal(like: Field, k: Tensor, shape: Sequence[int]) -> Tensor:
    """The part of an array that is of equal samples at equal positions, (N, positions), as a view."""
    n, lead, step = len(like.order), like.lead, k.stride()
    sample = step[0] + step[1] if lead == 2 else step[0]
    positions = [step[lead + i] + (step[lead + n + i] if like.full else 0) for i in range(n)]
    return k.as_strided(shape, (sample, *positions), k.storage_offset())


def dual_of(curve: Curve, nodes: Iterable[Node], reader: Node) -> Dual:
    """The dual activation of a curve among the nodes, or of what a reader reads; users are told where it is not exact.

    Example:
        >>> import torch
        >>> field = Field(Layout(()), (), torch.ones(1, 1), None, False, frozenset())
        >>> dual_of(Curve(field, "sin", torch.sin), [], Node("linear", "linear", None)).error < ROUGH
        True
    """
    if curve.spec and curve.spec[0] != SHIFT:
        return dual(curve.spec[0], **dict(curve.spec[1]))
    try:
        made = dual(curve.function, kinks=curve.known_kinks)
    except KernelError as error:
        node = curve.maker(nodes, reader)
        raise KernelError(f"{node.op} at {node.place}: {error}") from error
    if ROUGH < made.error < float("inf"):  # an infinite kernel is refused where it is found
        node = curve.maker(nodes, reader)
        warnings.warn(
            f"got the nonlinearity '{node.op}' at {node.place}, whose kernel is a numerical integral that is good to about "
            f"{made.error:.1g}; expected a function without jumps or kinks away from zero, take one for more digits",
            stacklevel=2,
        )
    return made


IDENTITY: tuple[str, tuple[tuple[str, Any], ...]] = ("identity", ())  # the curve of a Gaussian field times a number
SHIFT = "shift"  # the name of the curve of a field plus a number
SQUARE: tuple[str, tuple[tuple[str, Any], ...]] = ("monomial", (("degree", 2),))  # whose mean is known of any field


@dataclass(frozen=True)
class Mix:
    """Fields side by side along the feature axis, each with its share of the features."""

    parts: tuple[tuple[float, Field | Curve], ...]
    layout: Layout


@dataclass(frozen=True)
class Data:
    """Tensors that hold no random weight: the inputs of the one or two batches, or constants, computed as they are.

    ``shape`` is the traced one, in which the batch is marked; ``number`` is known to stand in all places.
    """

    tensors: tuple[Tensor, ...]
    constant: bool = False
    shape: tuple[Any, ...] = ()
    number: float | None = None


@dataclass(frozen=True)
class Overlap:
    """The sum over ``dim`` features of two random fields, for pairs of positions: ``factor`` dim tensors, up to its fluctuations.

    ``tensors`` are covariances of one feature, for each batch, in the traced shape; ``inner`` is what multiplied the fields
    before. Once scaled by 1/dim in all it does not fluctuate and is data.
    """

    tensors: tuple[Tensor, ...]
    dim: int
    inner: float
    factor: float = 1.0
    shape: tuple[Any, ...] = ()

    @property
    def steady(self) -> bool:
        """Whether it is scaled by 1/dim, rather than by 1/sqrt(dim) or not at all; the nearer of the two counts."""
        scale = abs(self.inner * self.factor)
        return self.dim == 1 or abs(math.log(scale * self.dim)) <= abs(math.log(scale * math.sqrt(self.dim)))

    def data(self) -> Data:
        """Its values."""
        return Data(tuple(t * (self.factor * self.dim) for t in self.tensors), shape=self.shape)


@dataclass(frozen=True)
class Weight:
    """A parameter on its way to the operation that uses it."""

    name: str
    shape: tuple[Any, ...]
    transposed: bool = False
    spread: tuple[bool, ...] = ()  # axes along which one entry is repeated
    scale: float = 1.0  # it is the tensor times this number, plus the next
    shift: float = 0.0


Random = (Field, Curve, Mix)


def straight(value: Any) -> tuple[Field, float] | None:
    """The Gaussian field and the number of which a value is known to be the sum; None for anything else."""
    if isinstance(value, Field):
        return (value, 0.0) if value.gaussian else None
    if not isinstance(value, Curve) or not value.base.gaussian or not value.spec or value.spec[0] not in (IDENTITY[0], SHIFT):
        return None
    return value.base.scaled(value.scale * value.inner), value.scale * float(dict(value.spec[1]).get("by", 0.0))


def number_of(value: Any) -> float | None:
    """A number, or a constant tensor that holds one; None for anything else."""
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, Data) and value.number is not None:
        return value.number
    if isinstance(value, Data) and value.constant and value.tensors[0].numel() == 1:
        return float(value.tensors[0])
    return None
