"""E[phi(u) phi(v)] for jointly Gaussian u, v: closed forms, quadrature, and what depth does to correlations."""

from lazyrich.gaussian.activation import dual, known
from lazyrich.gaussian.critical import Critical, critical, half_stable
from lazyrich.gaussian.dual import Dual
from lazyrich.gaussian.signal import Signal, signal

__all__ = ["Critical", "Dual", "Signal", "critical", "dual", "half_stable", "known", "signal"]
