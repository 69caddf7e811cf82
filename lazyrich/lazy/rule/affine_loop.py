"""A layer's w K + b and w Theta + rate K + b' in one pass over both arrays, compiled (``lazyrich.compiled``)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lazyrich import compiled


def combine(
    nngp: Tensor, ntk: Tensor | None, numbers: tuple[float, float, float, float], over: bool
) -> tuple[Tensor, Tensor] | None:
    """K -> w K + b and Theta -> w Theta + rate K + b'; None, with nothing done, where no loop is due.

    Args:
        nngp: K.
        ntk: Theta, of the same shape; None for zero.
        numbers: w, b, rate and b'.
        over: whether to write over the arrays.

    Example:
        >>> combine(torch.ones(2), torch.ones(2), (2.0, 0.5, 1.0, 0.0), over=True)  # two numbers wait for no compiler
    """
    given = (nngp, nngp if ntk is None else ntk)
    fits = given[0].shape == given[1].shape and all(k.is_contiguous() for k in given)
    if not fits or not compiled.due(_loop, *given):
        return None
    k = nngp if over else torch.empty_like(nngp)
    theta = ntk if over and ntk is not None else torch.empty_like(nngp)
    walk = np.array([nngp.numel(), over, ntk is not None])
    _loop(nngp.dtype)((*given, k, theta, np.array(numbers, compiled.real(nngp.dtype)), walk), nngp.numel())
    return k, theta


@functools.cache
def _loop(dtype: torch.dtype) -> Callable[[Sequence[Tensor | np.ndarray], int], None]:
    """For one precision."""
    from numba import carray, njit

    real, share = compiled.real(dtype), compiled.share()

    @njit(fastmath={"contract"})
    def apart(k, theta, trained, w, b, rate, offset, nngp, ntk):
        for i in range(len(k)):
            ntk[i] = (w * theta[i] if trained else 0) + (rate * k[i] + offset)
            nngp[i] = w * k[i] + b

    @njit(fastmath={"contract"})
    def over(nngp, ntk, trained, w, b, rate, offset):  # the same, which LLVM takes number by number where arrays are one
        for i in range(len(nngp)):
            ntk[i] = (w * ntk[i] if trained else 0) + (rate * nngp[i] + offset)
            nngp[i] = w * nngp[i] + b

    def walk(data):
        sizes, numbers = carray(data[5], 3, np.int64), carray(data[4], 4, real)
        start, stop = share(sizes[0])
        k, theta = carray(data[0], stop, real)[start:], carray(data[1], stop, real)[start:]
        nngp, ntk = carray(data[2], stop, real)[start:], carray(data[3], stop, real)[start:]
        if sizes[1]:
            over(nngp, ntk, sizes[2] != 0, numbers[0], numbers[1], numbers[2], numbers[3])
        else:
            apart(k, theta, sizes[2] != 0, numbers[0], numbers[1], numbers[2], numbers[3], nngp, ntk)

    return compiled.loop(walk)
