"""The rectifier's kernel and slope in one pass over the arrays, compiled (``lazyrich.compiled``)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from lazyrich import compiled

AXES = 4  # after neighbours that lie in one piece in all arrays are joined
DEGREE = {np.float32: 9, np.float64: 20}  # of the arc tangent's polynomial: errors of 3e-9 and 1e-16
CONTRACT = {"contract", "nsz"}


def rectify(
    c: Tensor, scales: Sequence[Tensor], below: Tensor | None, weights: tuple[float, float], kernel: Tensor, slope: Tensor
) -> bool:
    """Fill kernel and slope as ``Rectifier._fill`` does; False, with nothing done, where no loop is due or none walks them.

    Args:
        c: covariances, which broadcast to ``kernel``.
        scales: high and low part of the first root, of the second, and the whole second.
        below: what the slope is multiplied by, if anything, laid out as c is.
        weights: the slope on the diagonal, and the weight of the angle.
        kernel: to be filled.
        slope: to be filled.
    """
    arrays = (c, *scales, kernel, slope, c if below is None else below)
    walk = _walk(tuple(t.expand(kernel.shape).stride() for t in arrays), tuple(kernel.shape), below is not None)
    if walk is None or not compiled.due(_loop, kernel, c, *scales, arrays[-1]):
        return False
    numbers = np.array(weights, compiled.real(kernel.dtype))
    _loop(kernel.dtype)((*arrays, walk, numbers), kernel.numel())
    return True


@functools.lru_cache(maxsize=256)
def _walk(steps: tuple[tuple[int, ...], ...], shape: tuple[int, ...], times: bool) -> np.ndarray | None:
    """Sizes, then steps of c, first root, second root and results along each axis, innermost last, their extents, and ``times``."""
    c, first, low1, second, low2, root2, kernel, slope, below = steps
    if first != low1 or not second == low2 == root2 or kernel != slope or c != below:
        return None
    sizes: list[int] = []
    walked: list[list[int]] = [[], [], [], []]
    for i, size in enumerate(shape):
        if size == 1:
            continue
        here = [step[i] for step in (c, first, second, kernel)]
        if sizes and all(w[-1] == step * size for w, step in zip(walked, here, strict=True)):
            sizes[-1] *= size
            for w, step in zip(walked, here, strict=True):
                w[-1] = step
        else:
            sizes.append(size)
            for w, step in zip(walked, here, strict=True):
                w.append(step)
    if len(sizes) > AXES or not sizes or any(w[-1] != 1 for w in (walked[0], walked[2], walked[3])) or walked[1][-1] > 1:
        return None
    missing = AXES - len(sizes)
    extents = [1 + sum((n - 1) * step for n, step in zip(sizes, w, strict=True)) for w in walked]
    return np.array([1] * missing + sizes + [n for w in walked for n in [0] * missing + w] + extents + [times], dtype=np.int64)


@functools.cache
def _loop(dtype: torch.dtype) -> Callable[[Sequence[Tensor | np.ndarray], int], None]:
    """For one precision: row by row, the first root being one number a row or one an entry."""
    from numba import carray, njit

    real, share = compiled.real(dtype), compiled.share()
    entry = _entry(real)

    @njit(error_model="numpy", fastmath=CONTRACT)
    def row(c, high1, low1, high2, low2, root2, half, bend, below, times, kernel, slope):
        for j in range(len(c)):
            kernel[j], tilt = entry(c[j], high1, low1, high2[j], low2[j], root2[j], half, bend)
            slope[j] = tilt * below[j] if times else tilt

    @njit(error_model="numpy", fastmath=CONTRACT)
    def even(c, high1, low1, high2, low2, root2, half, bend, below, times, kernel, slope):
        for j in range(len(c)):
            kernel[j], tilt = entry(c[j], high1[j], low1[j], high2[j], low2[j], root2[j], half, bend)
            slope[j] = tilt * below[j] if times else tilt

    def walk(data):
        at, numbers = carray(data[9], 25, np.int64), carray(data[10], 2, real)
        c, below, times = carray(data[0], at[20], real), carray(data[8], at[20], real), at[24] != 0
        high1, low1 = carray(data[1], at[21], real), carray(data[2], at[21], real)
        high2, low2, root2 = carray(data[3], at[22], real), carray(data[4], at[22], real), carray(data[5], at[22], real)
        kernel, slope = carray(data[6], at[23], real), carray(data[7], at[23], real)
        m, p, n = at[1], at[2], at[3]
        start, stop = share(at[0] * m * p)
        for i in range(start, stop):
            x, y, z = i // (m * p), i // p % m, i % p
            a = x * at[4] + y * at[5] + z * at[6]
            b = x * at[8] + y * at[9] + z * at[10]
            d = x * at[12] + y * at[13] + z * at[14]
            e = x * at[16] + y * at[17] + z * at[18]
            given, lower, second = c[a : a + n], below[a : a + n], slice(d, d + n)
            high2_, low2_, whole = high2[second], low2[second], root2[second]
            out, tilt = kernel[e : e + n], slope[e : e + n]
            if at[11]:
                low, high = low1[b : b + n], high1[b : b + n]
                even(given, high, low, high2_, low2_, whole, numbers[0], numbers[1], lower, times, out, tilt)
            else:
                row(given, high1[b], low1[b], high2_, low2_, whole, numbers[0], numbers[1], lower, times, out, tilt)

    return compiled.loop(walk)


def _entry(real: type) -> Callable[..., tuple[float, float]]:
    """Kernel and slope of one entry. The angle is 2 atan(t), of t or its inverse, whichever is below one."""
    from numba import njit

    pi, tiny, middle, two, zero = (real(v) for v in (np.pi, np.finfo(real).tiny, 0.5, 2, 0))
    coefficients = _arctangent(DEGREE[real])
    evens, odds = (tuple(real(v) for v in coefficients[i::2][::-1]) for i in (0, 1))

    @njit(inline="always", fastmath=CONTRACT)
    def ratio(z):
        """atan(sqrt(r)) / sqrt(r) at r = z + 1/2, even powers and odd ones."""
        square = z * z
        a, b = evens[0], odds[0]
        for i in range(1, len(evens)):
            a = a * square + evens[i]
        for i in range(1, len(odds)):
            b = b * square + odds[i]
        return a + z * b

    @njit(inline="always", fastmath=CONTRACT)
    def entry(c, high1, low1, high2, low2, root2, half, bend):
        s, low = high1 * high2, high1 * low2 + low1 * root2
        gap, total = max((s - c) + low, zero), max((s + c) + low, tiny)
        larger = max(gap, total)
        r = min(gap, total) / larger
        t = np.sqrt(r)
        angle = two * t * ratio(r - middle)
        angle = pi - angle if gap > total else angle
        slope = half - bend * angle
        return bend * (t * larger) + c * slope, slope

    return entry


def _arctangent(degree: int) -> np.ndarray:
    """Powers of r - 1/2 that make atan(sqrt(r)) / sqrt(r) for r in [0, 1]."""
    from scipy.fft import dct  # loaded by nobody else here

    n = degree + 1
    t = np.cos(np.pi * (2 * np.arange(n) + 1) / (4 * n))  # roots of r at Chebyshev's nodes: (1 + cos x) / 2 = cos(x/2)^2
    series = dct(np.arctan(t) / t) / n
    series[0] /= 2
    return chebyshev.cheb2poly(series) * 2.0 ** np.arange(n)
