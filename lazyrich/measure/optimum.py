"""The best learning rate of a measured curve, smoothed, with what another one would cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REACH = 1.5  # octaves on either side of the lowest point that the parabola is fitted to


@dataclass(frozen=True)
class Optimum:
    """The minimum of a loss curve over learning rates.

    Attributes:
        lr: where the smoothed curve is lowest.
        loss: its value there.
        edge: whether the lowest point is the first or last that did not diverge before the grid's own end.
    """

    lr: float
    loss: float
    edge: bool


def optimum(lrs: Sequence[float], losses: Sequence[float] | np.ndarray) -> Optimum:
    """Fit a parabola to log(loss) against log2(lr) around the lowest point.

    The fit takes all finite points within 1.5 octaves of the lowest one, at least its two neighbours; where the parabola does
    not open upwards, or its vertex lies outside them, the lowest point itself is the answer.

    Args:
        lrs: increasing learning rates.
        losses: one each; non-finite ones (diverged runs) are left out.

    Returns:
        The optimum; NaN where no run is finite.

    Example:
        >>> best = optimum([0.1, 0.2, 0.4, 0.8], [2.0, 1.0, 1.0, 2.0])
        >>> round(best.lr, 6) == round(0.2 * 2**0.5, 6)
        True
    """
    x, y = _finite(lrs, losses)
    if len(x) == 0:
        return Optimum(math.nan, math.nan, True)
    k = int(np.argmin(y))
    edge = k == 0 or (k == len(x) - 1 and len(x) == len(lrs))
    near = np.abs(x - x[k]) <= max(REACH, *(abs(x[j] - x[k]) for j in (max(k - 1, 0), min(k + 1, len(x) - 1)))) + 1e-9
    if near.sum() >= 3 and 0 < k < len(x) - 1:
        a, b, c = np.polyfit(x[near] - x[k], y[near], 2)
        shift = -b / (2 * a) if a > 0 else math.inf
        if x[near][0] <= x[k] + shift <= x[near][-1]:
            return Optimum(float(2 ** (x[k] + shift)), float(np.exp(c + b * shift / 2)), edge)
    return Optimum(float(2 ** x[k]), float(np.exp(y[k])), edge)


def loss_at(lrs: Sequence[float], losses: Sequence[float] | np.ndarray, lr: float) -> float:
    """The curve at any learning rate: log(loss) linear in log(lr) between neighbours; infinite beyond the last finite run.

    Example:
        >>> loss_at([1.0, 4.0], [1.0, 4.0], 2.0), loss_at([1.0, 2.0], [1.0, math.inf], 1.5)
        (2.0, inf)
    """
    x, y = _finite(lrs, losses)
    at = math.log2(lr) if lr > 0 else math.nan
    if len(x) == 0 or not math.isfinite(at) or at > x[-1] + 1e-9:
        return math.inf
    return float(round(np.exp(np.interp(at, x, y)), 12))


def _finite(lrs: Sequence[float], losses: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.log2(np.asarray(lrs, float)), np.asarray(losses, float)
    kept = np.isfinite(y) & (y > 0)
    return x[kept], np.log(y[kept])
