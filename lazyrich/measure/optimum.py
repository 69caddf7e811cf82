"""The best learning rate of a measured curve, smoothed, with what another one would cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

REACH = 1.5  # octaves on either side of the lowest point that the parabola is fitted to
CLIFF = 3.0  # a point this many times above what a parabola of the smaller rates can reach has exploded
SOFT = 0.3  # rise of the log loss over which a point's weight in the fit falls by e: walls tell little of a bowl's bottom
ROUGH = 0.05  # a parabola further above the lowest point than this, in log loss, is none: only its neighbours are fitted then
PHASE = 0.06  # of a step: standard error of a parabola's bottom, from where the grid happens to lie on a curve that is none
UNSEEN = 0.15  # of a step: the same where no wider parabola tells how far the curve is from one
BENT = 0.25  # of how far the bottom moves as one more point on either side is fitted: the part that the grid's place moves it


@dataclass(frozen=True)
class Optimum:
    """The minimum of a loss curve over learning rates.

    Attributes:
        lr: where the smoothed curve is lowest.
        loss: its value there.
        edge: whether the lowest point is the first that did not diverge or the grid's last.
        step: octaves to the next learning rates of the grid, where no parabola could be fitted and ``lr`` is known no better.
        sway: where one was, the standard error of ``lr`` in octaves from the curve being none, which no seeds average away.
        gap: how far ``loss`` may be from the curve's lowest for the same reason, or by how much one more step could lower it.
    """

    lr: float
    loss: float
    edge: bool
    step: float = 0.0
    sway: float = 0.0
    gap: float = 0.0


def optimum(lrs: Sequence[float], losses: Sequence[float] | np.ndarray, start: float = math.inf) -> Optimum:
    """Fit a parabola to log(loss) against log2(lr) around the lowest point; to the loss itself where some are not positive.

    The fit takes all finite points within 1.5 octaves of the lowest one, at least its two neighbours, and none that exploded:
    beyond the lowest, from the first that is above the loss at the start, or far above what a parabola that fits the smaller
    rates could reach. Points weigh less the higher they are, and a parabola 5 % above the lowest gives way to that through it
    and its neighbours. Where none opens upwards with its vertex among its points, the lowest point itself is the answer.

    Args:
        lrs: increasing learning rates.
        losses: one each; non-finite ones (diverged runs) are left out.
        start: the loss before training, where it is known.

    Returns:
        The optimum; NaN where no run is finite.

    Example:
        >>> best = optimum([0.1, 0.2, 0.4, 0.8], [2.0, 1.0, 1.0, 2.0])
        >>> round(best.lr, 6) == round(0.2 * 2**0.5, 6)
        True
        >>> optimum([0.1, 0.2, 0.4, 0.8], [0.5, 0.4, 0.3, 1e9]).lr
        0.4
    """
    x, y, level, value = _finite(lrs, losses, start)
    if len(x) == 0:
        return Optimum(math.nan, math.nan, True)
    k = int(np.argmin(y))
    edge = k == 0 or bool(x[k] == np.log2(float(lrs[-1])))  # after the last one that did not diverge, training diverges
    bowl = _bowl(x, y, level)
    if bowl is None:
        loss = value(y[k])
        return Optimum(float(2 ** x[k]), loss, edge, _step(lrs, x[k]), gap=value(y[k] + _beside(y, k)) - loss)
    loss = value(bowl(bowl.bottom))
    return Optimum(float(2**bowl.bottom), loss, edge, 0.0, bowl.sway, value(bowl(bowl.bottom) + bowl.gap) - loss)


def loss_at(lrs: Sequence[float], losses: Sequence[float] | np.ndarray, lr: float, start: float = math.inf) -> float:
    """The curve at any learning rate: ``optimum``'s parabola where that was fitted, else linear in logarithms between neighbours.

    Infinite beyond the last finite run.

    Example:
        >>> loss_at([1.0, 4.0], [1.0, 4.0], 2.0), loss_at([1.0, 2.0], [1.0, math.inf], 1.5)
        (2.0, inf)
    """
    x, y, level, value = _finite(lrs, losses, start)
    at = math.log2(lr) if lr > 0 else math.nan
    if len(x) == 0 or not math.isfinite(at) or at > x[-1] + 1e-9:
        return math.inf
    bowl = _bowl(x, y, level)
    if bowl is not None and bowl.low - 1e-9 <= at <= bowl.high + 1e-9:
        return round(value(bowl(at)), 12)
    return round(value(float(np.interp(at, x, y))), 12)


def _step(lrs: Sequence[float], at: float) -> float:
    """The larger gap beside a point of the grid, also to a rate at which training diverged."""
    x = np.log2(np.asarray(lrs, float))
    k = int(np.argmin(np.abs(x - at)))
    return float(np.diff(x[max(0, k - 1) : k + 2]).max(initial=0.0))


def _beside(y: np.ndarray, k: int) -> float:
    """What the last step to the lowest point gained: one more gains no more, as far as the curve flattens."""
    return float(abs(y[k - 1] - y[k])) if k else float(y[1] - y[0]) if len(y) > 1 else math.inf


@dataclass(frozen=True)
class Bowl:
    """A parabola through the points from ``low`` to ``high``, with its bottom between them.

    ``sway`` is the standard error of the bottom, ``gap`` the largest of its height, from the curve being no parabola.
    """

    fit: np.ndarray
    low: float
    high: float
    bottom: float
    sway: float = 0.0
    gap: float = 0.0

    def __call__(self, x: float) -> float:
        """The parabola."""
        return float(np.polyval(self.fit, x))


def _bowl(x: np.ndarray, y: np.ndarray, start: float) -> Bowl | None:
    """Around the lowest point, if there are three points that bend upwards there."""
    k, stable = int(np.argmin(y)), _stable(x, y, start)
    x, y = x[:stable], y[:stable]
    if not 0 < k < len(x) - 1:
        return None
    near = np.flatnonzero(np.abs(x - x[k]) <= max(REACH, x[k] - x[k - 1], x[k + 1] - x[k]) + 1e-9)
    bowl = _through(x, y, k, near)
    if bowl is not None and bowl(x[k]) > y[k] + ROUGH:
        three = np.arange(k - 1, k + 2)
        return _in_doubt(_through(x, y, k, three), bowl, x[three], y[three])
    more = np.arange(max(0, near[0] - 1), min(len(x) - 1, near[-1] + 1) + 1)
    wider = _through(x, y, k, more) if len(more) > len(near) else None
    return _in_doubt(bowl, wider, x[near], y[near])


def _through(x: np.ndarray, y: np.ndarray, k: int, near: np.ndarray) -> Bowl | None:
    """The parabola through some points, if it has its bottom among them."""
    weights = np.exp((y[k] - y[near]) / (2 * SOFT))  # of the residuals, whose squares count
    a, b, c = np.polyfit(x[near] - x[k], y[near], 2, w=np.maximum(weights, 1e-4))
    low, high, bottom = x[near[0]], x[near[-1]], x[k] - b / (2 * a) if a > 0 else math.inf
    if not low <= bottom <= high:
        return None
    return Bowl(np.array([a, b - 2 * a * x[k], c - b * x[k] + a * x[k] ** 2]), low, high, bottom)


def _in_doubt(bowl: Bowl | None, wider: Bowl | None, x: np.ndarray, y: np.ndarray) -> Bowl | None:
    """The same with its errors, from how a parabola over more points than its own differs.

    Three points always lie on a parabola, and where the grid happens to lie on a curve that is none moves its bottom for all seeds
    alike.
    """
    if bowl is None:
        return None
    step = float(np.diff(x).mean())
    if wider is None:
        return replace(bowl, sway=UNSEEN * step, gap=float(bowl.fit[0]) * step**2 / 2)
    sway = math.hypot(PHASE * step, BENT * (wider.bottom - bowl.bottom))
    return replace(bowl, sway=sway, gap=float(np.abs(np.polyval(wider.fit, x) - y).max()))


def _stable(x: np.ndarray, y: np.ndarray, start: float) -> int:
    """How many points come before the first that has exploded: a cliff beyond the lowest point is no part of its bowl."""
    k = int(np.argmin(y))
    if not 0 < k < len(x) - 1:
        return len(x)
    before, ahead, rise = x[k] - x[k - 1], x[k + 1 :] - x[k], y[:k] - y[k]
    far = slice(0, max(1, k - 1))  # the point next to the lowest may be as low as it, and tells nothing
    behind = x[k] - x[:k][far]
    bend = (rise[far] / np.maximum(behind * (behind - before), before**2 / 4)).max()  # at most, with a bottom halfway to before
    times = CLIFF if behind[0] >= REACH else 10 * CLIFF  # what lies this near tells little of the shape
    gone = y[k + 1 :] - y[k] > np.maximum(times * bend * ahead * (ahead + before), rise.max() / 2)  # half: noise is no cliff
    if y[k] < start:  # else training gains nothing, and all points are above it
        gone |= y[k + 1 :] > start
    return k + 1 + int(np.argmax(gone)) if gone.any() else len(x)


def _finite(
    lrs: Sequence[float], losses: Sequence[float] | np.ndarray, start: float
) -> tuple[np.ndarray, np.ndarray, float, Callable[[float], float]]:
    """Octaves, logarithms of losses and start where all are positive (else these over a scale), and the way back to a loss."""
    x, y = np.log2(np.asarray(lrs, float)), np.asarray(losses, float)
    kept = np.isfinite(y)
    level = math.inf if math.isnan(start) else start
    if (y[kept] > 0).all() and level > 0:
        return x[kept], np.log(y[kept]), math.log(level), lambda v: float(np.exp(v))
    y = y[kept]
    unit = float(np.median(y) - y.min()) if len(y) else 1.0  # for weights, which logarithms have without
    unit = unit if unit > 0 else 1.0
    return x[kept], y / unit, level / unit, lambda v: float(v * unit)
