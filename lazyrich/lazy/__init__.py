"""Infinite width in the kernel regime: NNGP and NTK of a traced module."""

from lazyrich.lazy.explain import Explanation
from lazyrich.lazy.kernel import Kernel, kernel
from lazyrich.lazy.referee import Estimate, monte_carlo
from lazyrich.lazy.rule import register
from lazyrich.lazy.stream import write_gram

__all__ = ["Estimate", "Explanation", "Kernel", "kernel", "monte_carlo", "register", "write_gram"]
