"""Infinite width in the kernel regime: NNGP and NTK of a traced module."""

from lazyrich.lazy.kernel import Kernel, kernel
from lazyrich.lazy.rule import register

__all__ = ["Kernel", "kernel", "register"]
