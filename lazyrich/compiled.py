"""Loops that numba compiles, where it is installed, run by the threads that torch holds ready.

A formula of twenty operations in torch reads and writes its arrays twenty times, a compiled loop once. Threads of one's own would
wait for torch's, which keep turning on their cores between two operations, so loops are given to torch's team, by the library
of OpenMP that torch has loaded (libgomp; elsewhere than on Linux there are no loops).

Compiling takes about two seconds. It begins when what could have gone by loops has taken about as long without them, so nobody
waits more than twice as long as with the better choice, and small work never waits.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

PRICE = 2**31  # bytes of results that take torch about as long as numba takes to compile
LEAST = 1 << 14  # entries of which a thread is worth its start

_done = 0  # bytes so far


def due(result: Tensor) -> bool:
    """Whether a loop is to make these results; where none is there yet, they are counted.

    Example:
        >>> due(torch.empty(3)) or due(torch.empty(3, device="meta"))  # two numbers wait for no compiler
        False
    """
    global _done
    if result.device.type != "cpu" or result.dtype not in (torch.float32, torch.float64) or not _possible():
        return False
    if _done < PRICE:
        _done += result.numel() * result.element_size()
    return _done >= PRICE


def start() -> bool:
    """Take loops from now on, whatever has been computed before; False where there are none.

    Example:
        >>> start() == due(torch.empty(3))
        True
    """
    global _done
    _done = PRICE
    return _possible()


@functools.cache
def _possible() -> bool:
    return importlib.util.find_spec("numba") is not None and team() is not None


@functools.cache
def team() -> ctypes.CDLL | None:
    """The OpenMP library whose threads torch uses, if it is GNU's."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    found = {Path(line.split()[-1]) for line in lines if "libgomp" in line}
    home = Path(torch.__file__).parent
    own = [path for path in found if path.parent in (home / "lib", home.with_name("torch.libs"))] or list(found)
    return ctypes.CDLL(str(own[0])) if len(own) == 1 else None


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
