"""One sample as a network reads it, where the data comes flat."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any

from torch import Tensor

from lazyrich.errors import KernelError


def sample_shape(given: Any, refusal: type[KernelError] = KernelError) -> tuple[int, ...] | None:
    """A shape in plain numbers, None for flat features.

    Raises:
        KernelError: for what is no shape.

    Example:
        >>> sample_shape([1, 8, 8]), sample_shape(None)
        ((1, 8, 8), None)
    """
    if given is None:
        return None
    shape = tuple(given) if isinstance(given, Iterable) else ()
    if not shape or not all(isinstance(size, Integral) and int(size) > 0 for size in shape):
        raise refusal(f"got input_shape {given!r}, expected the shape of one sample in whole numbers, such as (1, 8, 8)")
    return tuple(int(size) for size in shape)


def shaped(x: Tensor, shape: tuple[int, ...] | None, refusal: type[KernelError] = KernelError) -> Tensor:
    """Flat samples (N, features) in the shape that the network reads.

    Raises:
        KernelError: for another number of features.

    Example:
        >>> import torch
        >>> tuple(shaped(torch.zeros(5, 64), (1, 8, 8)).shape)
        (5, 1, 8, 8)
    """
    if shape is None:
        return x
    if math.prod(shape) != x.shape[1]:
        raise refusal(f"got {x.shape[1]} features and input_shape {shape}, expected {math.prod(shape)}; correct one of them")
    return x.reshape(len(x), *shape)
