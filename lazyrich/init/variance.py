"""Variance-scaling initialisation: weights of variance w / fan_in, biases of variance b."""

from __future__ import annotations

from dataclasses import dataclass

from lazyrich.errors import UsageError


@dataclass(frozen=True)
class Variance:
    """Weights with variance ``w / fan_in`` (sigma_w^2 = w), biases with variance ``b`` (sigma_b^2 = b)."""

    w: float
    b: float


def variance(w: float = 2.0, b: float = 0.0) -> Variance:
    """The law of a variance-scaling initialisation.

    LeCun (1998): w = 1; He et al. (2015, arXiv:1502.01852), for rectifiers: w = 2.

    Raises:
        UsageError: for variances that are negative or not finite.

    Example:
        >>> variance(w=2.0, b=0.01)
        Variance(w=2.0, b=0.01)
    """
    for name, value in (("w", w), ("b", b)):
        if not 0 <= float(value) < float("inf"):
            raise UsageError(f"got {name} = {value}, expected a variance: finite and not negative")
    return Variance(float(w), float(b))
