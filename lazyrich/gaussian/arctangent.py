"""The arc tangent, on processors for which torch's own is slow.

torch takes MKL's vector functions, which have a fast path for Intel's processors only. On others with AVX-512, NumPy's arc tangent
on one thread costs a sixth of it in float32 and a fifth in float64, so a handful of threads do not catch up with it.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FEW = 4  # threads
AVX512 = ("AVX512_SKX", "X86_V4")  # as NumPy calls what it was compiled for


def arctangent_(x: Tensor) -> Tensor:
    """atan(x) in place, to the last digit but one on every path.

    Example:
        >>> 4 * arctangent_(torch.ones(1, dtype=torch.float64))
        tensor([3.1416], dtype=torch.float64)
    """
    if x.device.type == "cpu" and not x.requires_grad and torch.get_num_threads() <= FEW and _numpy_is_faster():
        array = x.numpy()
        np.arctan(array, out=array)
        return x
    return x.atan_()


@functools.cache
def _numpy_is_faster() -> bool:
    """Whether NumPy has AVX-512 code for this processor and MKL has not."""
    if _vendor() in ("", "GenuineIntel") or not torch.backends.mkl.is_available() or not hasattr(np.lib, "introspect"):
        return False
    found = np.lib.introspect.opt_func_info(func_name="^arctan$", signature="float64")
    return any(way["current"] in AVX512 for kind in found.values() for way in kind.values())


def _vendor() -> str:
    """Who made the processor, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")
