"""The numbers of an abc-parameterisation, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Exponents:
    """One layer of an abc(d)-parameterisation.

    The layer multiplies its weight by n^-a, draws it with standard deviation n^-b and trains it with learning rate
    eta n^-c; an entrywise optimizer first multiplies the gradient by n^d (Yang & Littwin 2023, arXiv:2308.01814,
    Definition 2.2.1), which for Adam says that epsilon is worth n^-d.
    """

    a: float
    b: float
    c: float
    d: float = 0.0

    def shifted(self, theta: float, entrywise: bool) -> Exponents:
        """The same layer written in another gauge: a+theta, b-theta, c-2 theta (entrywise: c-theta, d+theta)."""
        step = theta if entrywise else 2 * theta
        return Exponents(self.a + theta, self.b - theta, self.c - step, self.d + (theta if entrywise else 0.0))

    @property
    def init(self) -> float:
        """Exponent of the effective weight's standard deviation, a + b: the same in every gauge."""
        return self.a + self.b

    def rate(self, entrywise: bool) -> float:
        """Exponent of the effective weight's learning rate: 2a + c (entrywise: a + c), the same in every gauge."""
        return (self.a if entrywise else 2 * self.a) + self.c


@dataclass(frozen=True)
class Layers:
    """Exponents of the input layer (and of vectors), of the hidden layers and of the readout; iterates in this order.

    Attributes:
        input: of tensors with one side that grows, or none: input weights, biases, gains.
        hidden: of matrices both of whose sides grow.
        output: of the readout, whose fan-in alone grows.

    Example:
        >>> [layer.a for layer in Layers(Exponents(0.0, 0.0, 0.0), Exponents(0.5, 0.0, 0.0), Exponents(0.5, 0.0, 0.0))]  # NTK
        [0.0, 0.5, 0.5]
    """

    input: Exponents
    hidden: Exponents
    output: Exponents

    def __iter__(self) -> Iterator[Exponents]:
        return iter((self.input, self.hidden, self.output))
