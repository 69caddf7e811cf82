"""E[phi(u) phi(v)] for jointly Gaussian u, v: closed forms, quadrature, and what depth does to correlations."""

from lazyrich.gaussian.activation import dual
from lazyrich.gaussian.dual import Dual

__all__ = ["Dual", "dual"]
