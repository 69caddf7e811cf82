"""How a network starts: the laws of its weights."""

from lazyrich.init.variance import Variance, variance

__all__ = ["Variance", "variance"]
