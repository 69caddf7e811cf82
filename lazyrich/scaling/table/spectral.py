"""The spectral condition: weights and updates of spectral norm sqrt(fan_out / fan_in)."""

from __future__ import annotations

import math
from dataclasses import replace

from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.table.mup import mup


def spectral() -> Scheme:
    """MuP for layers of any shape (Yang, Simon & Bernstein 2023, arXiv:2310.17813).

    Initial standard deviation and learning rate follow the actual shapes: ``init_std`` and ``rate``, relative to their values
    at the base width. When every size is either fixed or proportional to the width this is ``mup``; it differs where a layer
    turns from widening to narrowing.

    Example:
        >>> spectral().classify("sgd").regime
        'feature learning'
    """
    return replace(mup(), name="spectral()", taper=True)


def init_std(fan_out: float, fan_in: float) -> float:
    """Gaussian standard deviation with spectral norm of order sqrt(fan_out/fan_in): fan_in^-1/2 min(1, sqrt(fan_out/fan_in)).

    Example:
        >>> init_std(1024, 256), init_std(4, 256)
        (0.0625, 0.0078125)
    """
    return min(1.0, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in)


def rate(fan_out: int, fan_in: int, entrywise: bool = False) -> float:
    """Learning-rate factor: fan_out/fan_in under SGD, 1/fan_in for entrywise updates.

    Example:
        >>> rate(256, 16), rate(256, 16, entrywise=True)
        (16.0, 0.0625)
    """
    return 1 / fan_in if entrywise else fan_out / fan_in


def target_norm(fan_out: int, fan_in: int) -> float:
    """The spectral norm that weights and updates should have, sqrt(fan_out/fan_in).

    Example:
        >>> target_norm(4, 16)
        0.5
    """
    return math.sqrt(fan_out / fan_in)
