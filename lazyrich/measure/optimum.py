"""The best learning rate of a measured curve, smoothed, with what another one would cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

REACH = 1.5  # octaves on either side of the lowest point that the parabola is fitted to


@dataclass(frozen=True)
class Optimum:
    """The minimum of a loss curve over learning rates.

    Attributes:
        lr: where the smoothed curve is lowest.
        loss: its value there.
        edge: whether the lowest point is the first that did not diverge or the grid's last.
    """

    lr: float
    loss: float
    edge: bool


def optimum(lrs: Sequence[float], losses: Sequence[float] | np.ndarray) -> Optimum:
    """Fit a parabola to log(loss) against log2(lr) around the lowest point; to the loss itself where some are not positive.

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
    x, y, value = _finite(lrs, losses)
    if len(x) == 0:
        return Optimum(math.nan, math.nan, True)
    k = int(np.argmin(y))
    edge = k == 0 or bool(x[k] == np.log2(float(lrs[-1])))  # after the last one that did not diverge, training diverges
    bowl = _bowl(x, y)
    if bowl is None:
        return Optimum(float(2 ** x[k]), value(y[k]), edge)
    return Optimum(float(2**bowl.bottom), value(bowl(bowl.bottom)), edge)


def loss_at(lrs: Sequence[float], losses: Sequence[float] | np.ndarray, lr: float) -> float:
    """The curve at any learning rate: ``optimum``'s parabola where that was fitted, else linear in logarithms between neighbours.

    Infinite beyond the last finite run.

    Example:
        >>> loss_at([1.0, 4.0], [1.0, 4.0], 2.0), loss_at([1.0, 2.0], [1.0, math.inf], 1.5)
        (2.0, inf)
    """
    x, y, value = _finite(lrs, losses)
    at = math.log2(lr) if lr > 0 else math.nan
    if len(x) == 0 or not math.isfinite(at) or at > x[-1] + 1e-9:
        return math.inf
    bowl = _bowl(x, y)
    if bowl is not None and bowl.low - 1e-9 <= at <= bowl.high + 1e-9:
        return round(value(bowl(at)), 12)
    return round(value(float(np.interp(at, x, y))), 12)


@dataclass(frozen=True)
class Bowl:
    """A parabola through the points from ``low`` to ``high``, with its bottom between them."""

    fit: np.ndarray
    low: float
    high: float
    bottom: float

    def __call__(self, x: float) -> float:
        """The parabola."""
        return float(np.polyval(self.fit, x))


def _bowl(x: np.ndarray, y: np.ndarray) -> Bowl | None:
    """Around the lowest point, if there are three points that bend upwards there."""
    k = int(np.argmin(y))
    if not 0 < k < len(x) - 1:
        return None
    near = np.abs(x - x[k]) <= max(REACH, x[k] - x[k - 1], x[k + 1] - x[k]) + 1e-9
    a, b, c = np.polyfit(x[near] - x[k], y[near], 2)
    low, high, bottom = x[near][0], x[near][-1], x[k] - b / (2 * a) if a > 0 else math.inf
    if not low <= bottom <= high:
        return None
    return Bowl(np.array([a, b - 2 * a * x[k], c - b * x[k] + a * x[k] ** 2]), low, high, bottom)


def _finite(
    lrs: Sequence[float], losses: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, Callable[[float], float]]:
    """Octaves, the logarithms of the losses where all are positive (else the losses), and the way back to a loss."""
    x, y = np.log2(np.asarray(lrs, float)), np.asarray(losses, float)
    kept = np.isfinite(y)
    if (y[kept] > 0).all():
        return x[kept], np.log(y[kept]), lambda v: float(np.exp(v))
    return x[kept], y[kept], float
