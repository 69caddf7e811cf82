"""A node of autograd's graph, as those see it who read operations off it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lazyrich.tangent.motion.operation import Operation, Place


class UnknownOperation(Exception):
    """A node of which not all derivatives are known here."""


@dataclass(frozen=True)
class Node:
    """One output of a node.

    Attributes:
        node: of autograd.
        output: which of its outputs.
        reads: the places of what it takes; None for what is constant.
    """

    node: Any
    output: int
    reads: tuple[Place | None, ...]

    @property
    def place(self) -> Place:
        """Of the output."""
        return (self.node, self.output) if self.output else self.node

    @property
    def shape(self) -> torch.Size:
        """Of the output."""
        return torch.Size(self.node._input_metadata[self.output].shape)

    @property
    def dtype(self) -> torch.dtype:
        """Of the output."""
        return self.node._input_metadata[self.output].dtype

    def given(self, i: int) -> torch.Size:
        """The shape of what it takes."""
        before, output = self.node.next_functions[i]
        if before is None:
            raise UnknownOperation
        return torch.Size(before._input_metadata[output].shape) if before.next_functions else before.variable.shape

    def saved(self, name: str) -> Any:
        """What the forward pass kept for it."""
        return getattr(self.node, f"_saved_{name}")

    def axis(self, name: str, axes: int) -> int:
        """A saved axis, counted from the first; negative ones are kept without a sign."""
        return place_of(self.saved(name), axes)

    def has_bias(self, i: int) -> bool:
        """Whether what it adds is constant, or has one entry an output; a single one would spread over them."""
        before, _ = self.node.next_functions[i]
        return before is None or (not before.next_functions and before.variable.shape == self.shape[1:2])

    @property
    def casts(self) -> bool:
        """Whether it takes other precisions than it gives, as a sum of two does without a node for it."""
        dtypes = [before._input_metadata[output].dtype for before, output in self.node.next_functions if before is not None]
        return any(dtype != self.dtype for dtype in dtypes)


Read = Callable[[Node], Operation | tuple[Operation, ...]]


def place_of(axis: int, axes: int) -> int:
    """An axis counted from the first; a number without axes has its first all the same, as torch counts.

    Example:
        >>> place_of(2**64 - 1, 3), place_of(1, 3), place_of(0, 0)
        (2, 1, 0)
    """
    return signed(axis) % max(axes, 1)


def signed(number: int) -> int:
    """A saved number, of which a negative one is kept without its sign.

    Example:
        >>> signed(2**64 - 3), signed(2**63 - 1) == 2**63 - 1
        (-3, True)
    """
    return number - 2**64 if number >= 2**63 else number
