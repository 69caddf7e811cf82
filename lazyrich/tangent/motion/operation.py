"""Operations of a graph all of whose derivatives are known: linear maps, products, curves entry by entry, softmax."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Place = Any  # what names a value: a node of autograd's graph (with the number of its output, beyond the first), or a parameter
Jet = Sequence[Tensor | None]  # a value and its derivatives in time; None where there is none, or it is zero
Term = Callable[..., Tensor]  # a product of two, or one that is added: term(x, y, into, times)


@dataclass
class Operation(ABC):
    """What makes one value from others.

    Attributes:
        place: of the value.
        reads: the places of what it takes; None for what is constant.
        shape: of the value.
    """

    place: Place
    reads: tuple[Place | None, ...]
    shape: torch.Size

    @abstractmethod
    def forward(self, k: int, jets: Mapping[Place, Jet]) -> Tensor | None:
        """The kth derivative of what it gives, k >= 1, from the derivatives of what it takes."""

    @abstractmethod
    def backward(self, k: int, delta: Jet, jets: Mapping[Place, Jet]) -> Iterator[tuple[Place, Tensor]]:
        """The kth derivative of the gradients of what it takes, from the derivatives of the gradient of what it gives."""


@dataclass
class Map(Operation):
    """A linear map of all that it takes."""

    ahead: Callable[..., Tensor | None]
    back: Sequence[Callable[[Tensor], Tensor]]

    def forward(self, k: int, jets: Mapping[Place, Jet]) -> Tensor | None:
        """The map of the derivatives."""
        parts = [_of(jets, at, k) for at in self.reads]
        return None if all(part is None for part in parts) else self.ahead(*parts)

    def backward(self, k: int, delta: Jet, jets: Mapping[Place, Jet]) -> Iterator[tuple[Place, Tensor]]:
        """The adjoint map of the gradient's derivative."""
        if (d := delta[k]) is not None:
            yield from ((at, back(d)) for at, back in zip(self.reads, self.back, strict=True) if at is not None)


@dataclass
class Product(Operation):
    """a * b + c: linear in a and in b, as products of matrices, of entries, and windows; it reads a, b and c.

    Attributes:
        a: the value, or None where no derivative needs it.
        b: the same.
        term: a * b.
        to_a: the gradient of a, of the output's and b.
        to_b: the gradient of b, of a and the output's.
        spread: c as it is added.
        gathered: the gradient of c, of the output's.
    """

    a: Tensor | None
    b: Tensor | None
    term: Term
    to_a: Term
    to_b: Term
    spread: Callable[[Tensor], Tensor] = lambda c: c
    gathered: Callable[[Tensor], Tensor] = lambda delta: delta

    def forward(self, k: int, jets: Mapping[Place, Jet]) -> Tensor | None:
        """sum_i binom(k, i) a_i * b_(k-i) + c_k."""
        out = leibniz(self.term, k, *self.factors(jets))
        if (c := _of(jets, self.reads[2], k)) is None:
            return out
        return self.spread(c).expand(self.shape) if out is None else out.add_(self.spread(c))

    def backward(self, k: int, delta: Jet, jets: Mapping[Place, Jet]) -> Iterator[tuple[Place, Tensor]]:
        """The same of the adjoint products."""
        a, b = self.factors(jets)
        at_a, at_b, at_c = self.reads
        if at_a is not None and (found := leibniz(self.to_a, k, delta, b)) is not None:
            yield at_a, found
        if at_b is not None and (found := leibniz(self.to_b, k, a, delta)) is not None:
            yield at_b, found
        if at_c is not None and (d := delta[k]) is not None:
            yield at_c, self.gathered(d)

    def factors(self, jets: Mapping[Place, Jet]) -> tuple[Jet, Jet]:
        """The values of a and b with their derivatives."""
        a, b = ([own, *jets.get(at, ())[1:]] for own, at in zip((self.a, self.b), self.reads, strict=False))
        return a, b


@dataclass
class Curve(Operation):
    """phi(h), entry by entry.

    Attributes:
        slope: m -> the mth derivative of phi at h; None where it is zero everywhere.
    """

    slope: Callable[[int], Tensor | None]
    _known: dict[tuple[int, int], Tensor | None] = field(default_factory=dict)

    def forward(self, k: int, jets: Mapping[Place, Jet]) -> Tensor | None:
        """The kth derivative of phi(h)."""
        return self.moving(0, k, jets[self.reads[0]])

    def backward(self, k: int, delta: Jet, jets: Mapping[Place, Jet]) -> Iterator[tuple[Place, Tensor]]:
        """sum_i binom(k, i) (d/dt)^i phi'(h) delta_(k-i)."""
        h = jets[self.reads[0]]
        slopes = [self.moving(1, i, h) for i in range(k + 1)]
        if (found := leibniz(entries, k, slopes, delta)) is not None:
            yield self.reads[0], found

    def forget(self) -> None:
        """What it keeps of one motion, before another: all but the slopes."""
        self._known = {(m, k): slope for (m, k), slope in self._known.items() if k == 0}

    def moving(self, m: int, k: int, h: Jet) -> Tensor | None:
        """The kth derivative in time of phi^(m)(h): (k-1) more of phi^(m+1)(h) h', by Leibniz."""
        if (m, k) not in self._known:
            above = [self.moving(m + 1, i, h) for i in range(k)]
            self._known[m, k] = leibniz(entries, k - 1, above, h[1:]) if k else self.slope(m)
        return self._known[m, k]


@dataclass
class Softmax(Operation):
    """s = softmax(z) along an axis.

    s' = J(s) z' and the gradient of z is J(s) delta, J(s) v = s v - s sum(s v).

    Attributes:
        value: s.
        axis: along which it sums to one.
    """

    value: Tensor
    axis: int

    def forward(self, k: int, jets: Mapping[Place, Jet]) -> Tensor | None:
        """The (k-1)th derivative of J(s) z'."""
        return self._turned(k - 1, jets[self.reads[0]][1:], jets)

    def backward(self, k: int, delta: Jet, jets: Mapping[Place, Jet]) -> Iterator[tuple[Place, Tensor]]:
        """The kth derivative of J(s) delta."""
        if (found := self._turned(k, delta, jets)) is not None:
            yield self.reads[0], found

    def _turned(self, k: int, v: Jet, jets: Mapping[Place, Jet]) -> Tensor | None:
        """The kth derivative of J(s) v."""
        s = [self.value, *jets[self.place][1:]]
        weighed = [leibniz(entries, i, s, v) for i in range(k + 1)]
        sums = [None if t is None else -t.sum(self.axis, keepdim=True) for t in weighed]
        rest = leibniz(entries, k, s, sums)
        if (first := weighed[k]) is None or rest is None:
            return first if rest is None else rest
        return rest.add_(first)


def same(t: Tensor) -> Tensor:
    """What a copy, and a sum, do with a gradient."""
    return t


def matrices(x: Tensor, y: Tensor, into: Tensor | None = None, times: float = 1) -> Tensor:
    """The product of two matrices, added up."""
    return torch.mm(x, y) if into is None else into.addmm_(x, y, alpha=times)


def entries(x: Tensor, y: Tensor, into: Tensor | None = None, times: float = 1) -> Tensor:
    """The product entry by entry, added up."""
    return x * y if into is None else into.addcmul_(x, y, value=times)


def _of(jets: Mapping[Place, Jet], at: Place | None, k: int) -> Tensor | None:
    return None if at is None else _at(jets[at], k)


def _at(jet: Jet, k: int) -> Tensor | None:
    return jet[k] if k < len(jet) else None


def leibniz(term: Term, k: int, x: Jet, y: Jet) -> Tensor | None:
    """sum_i binom(k, i) x_i y_(k-i)."""
    found = None
    for i in range(k + 1):
        if (a := _at(x, i)) is None or (b := _at(y, k - i)) is None:
            continue
        times = math.comb(k, i)
        if found is None and times == 1:
            found = term(a, b)
        else:
            found = term(a, b).mul_(times) if found is None else term(a, b, found, times)
    return found
