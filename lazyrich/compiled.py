"""Loops that numba compiles, where it is installed, run by the threads that torch holds ready.

A formula of twenty operations in torch reads and writes its arrays twenty times, a compiled loop once. Threads of one's own would
wait for torch's, which keep turning on their cores between two operations, so loops are given to torch's team, by the library
of OpenMP that torch was linked with (GNU's; elsewhere than on Linux there are no loops).

Compiling takes two to five seconds. It begins when what could have gone by loops has taken about as long without them, so nobody
waits more than twice as long as with the better choice, and small work never waits.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

PRICE = 2**31  # bytes of results that take torch about as long as numba takes to compile
LEAST = 1 << 14  # entries of which a thread is worth its start

_done = 0  # bytes so far


def due(loop: Callable[[torch.dtype], Any], result: Tensor, *others: Tensor) -> bool:
    """Whether a loop is to go over these arrays; as long as none is, the bytes of the result are counted.

    Never where a derivative is followed, of which a loop knows nothing, nor where the loop does not compile: torch's operations,
    to which there is always a way back, give the same numbers.

    Args:
        loop: makes the loop for one precision, and keeps it.
        result: as large as what is filled, or itself that.
        others: what else is read, all in the same precision.

    Example:
        >>> due(str, torch.empty(3)) or due(str, torch.empty(3, device="meta"))  # two numbers wait for no compiler
        False
    """
    global _done
    if not _possible() or not all(_plain(array) and array.dtype == result.dtype for array in (result, *others)):
        return False
    if _done < PRICE:
        _done += result.numel() * result.element_size()
    return _done >= PRICE and _compiles(loop, result.dtype)


def start() -> bool:
    """Take loops from now on, whatever has been computed before; False where there are none.

    Example:
        >>> start() == due(str, torch.empty(3))
        True
    """
    global _done
    _done = PRICE
    return _possible()


def real(dtype: torch.dtype) -> type[np.floating]:
    """NumPy's name of a precision that loops know.

    Example:
        >>> real(torch.float32).__name__
        'float32'
    """
    return np.float32 if dtype == torch.float32 else np.float64


@functools.cache
def _possible() -> bool:
    return importlib.util.find_spec("numba") is not None and team() is not None


def _plain(array: Tensor) -> bool:
    """Whether numbers in memory are all there is to an array."""
    real = array.device.type == "cpu" and array.dtype in (torch.float32, torch.float64)
    return real and not array.requires_grad and unpack_dual(array).tangent is None


@functools.cache
def _compiles(loop: Callable[[torch.dtype], Any], dtype: torch.dtype) -> bool:
    try:
        loop(dtype)
    except Exception:  # numba refuses some versions of NumPy as it is imported, and what it cannot compile in ways of its own
        return False
    return True


@functools.cache
def team() -> ctypes.CDLL | None:
    """Torch's own library, which finds the functions of the OpenMP that it was linked with, if that has GNU's names."""
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(torch._C.__file__)
    except OSError:
        return None
    return library if hasattr(library, "GOMP_parallel") else None


@functools.cache
def share() -> Callable[[int], tuple[int, int]]:
    """For loops: the part of n rows that is one's own in the team."""
    from numba import njit

    library = team()
    assert library is not None
    number, size = library.omp_get_thread_num, library.omp_get_num_threads
    for function in (number, size):
        function.argtypes, function.restype = [], ctypes.c_int

    @njit
    def part(n):
        return n * number() // size(), n * (number() + 1) // size()

    return part


def loop(function: Callable[[Any], None]) -> Callable[[Sequence[Tensor | np.ndarray], int], None]:
    """A function of an array of addresses as a loop of the team's threads, called with the arrays and the number of entries.

    Args:
        function: reads the arrays by ``numba.carray`` and works on its ``share`` of them.
    """
    from numba import cfunc, types

    library = team()
    assert library is not None
    parallel = library.GOMP_parallel
    parallel.argtypes, parallel.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    compiled = cfunc(types.void(types.CPointer(types.voidptr)), error_model="numpy")(function)

    def run(arrays: Sequence[Tensor | np.ndarray], entries: int) -> None:
        addresses = [a.data_ptr() if isinstance(a, Tensor) else a.ctypes.data for a in arrays]
        threads = max(1, min(torch.get_num_threads(), entries // LEAST))
        parallel(compiled.address, (ctypes.c_void_p * len(addresses))(*addresses), threads, 0)

    return run
