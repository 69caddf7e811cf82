"""A layer's w K + b and w Theta + rate K + b' in one pass over both arrays, compiled (``lazyrich.compiled``)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lazyrich import compiled


def combine(nngp: Tensor, ntk: Tensor, numbers: tuple[float, float, float, float]) -> bool:
    """K -> w K + b and Theta -> w Theta + rate K + b', written over both; False, with nothing done, where no loop is due.

    Args:
        nngp: K.
        ntk: Theta, of the same shape.
        numbers: w, b, rate and b'.

    Example:
        >>> k, theta = torch.ones(2), torch.ones(2)
        >>> combine(k, theta, (2.0, 0.5, 1.0, 0.0))  # two numbers wait for no compiler
        False
    """
    fits = nngp.shape == ntk.shape and nngp.is_contiguous() and ntk.is_contiguous()
    if not fits or not compiled.due(_loop, ntk, nngp):
        return False
    _loop(nngp.dtype)((nngp, ntk, np.array(numbers, compiled.real(nngp.dtype)), np.array([nngp.numel()])), nngp.numel())
    return True


@functools.cache
def _loop(dtype: torch.dtype) -> Callable[[Sequence[Tensor | np.ndarray], int], None]:
    """For one precision."""
    from numba import carray, njit

    real, share = compiled.real(dtype), compiled.share()

    @njit(fastmath={"contract"})
    def layer(nngp, ntk, w, b, rate, offset):
        for i in range(len(nngp)):
            k = nngp[i]
            ntk[i] = w * ntk[i] + (rate * k + offset)
            nngp[i] = w * k + b

    def walk(data):
        n = carray(data[3], 1, np.int64)[0]
        nngp, ntk, numbers = carray(data[0], n, real), carray(data[1], n, real), carray(data[2], 4, real)
        start, stop = share(n)
        layer(nngp[start:stop], ntk[start:stop], numbers[0], numbers[1], numbers[2], numbers[3])

    return compiled.loop(walk)
