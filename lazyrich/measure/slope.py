"""An exponent as a measured slope with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from lazyrich.errors import LazyrichError

ROUNDING = 1e-20  # squares of logarithms below this are none


@dataclass(frozen=True)
class Slope:
    """Slope of log(value) against log(width), with a 95 % interval; ``points`` is how many values it rests on.

    Example:
        >>> str(Slope(-0.48, -0.52, -0.44, 12))
        '-0.48 ± 0.04'
    """

    value: float
    low: float
    high: float
    points: int

    @property
    def half_width(self) -> float:
        """Half the interval's length."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{round(self.value, 2) + 0.0:+.2f} ± {self.half_width:.2f}"  # no -0.00

    def on_grid(self, widths: Sequence[float], steps: Sequence[float], sways: Sequence[float] | float = 0.0) -> Slope:
        """The same with a wider interval, for values that are points of a grid, or read off one.

        They can be wrong by half a step either way, for all seeds alike, so that seeds average nothing of it away and none of
        it shows in their scatter.

        Args:
            widths: as the slope was fitted along.
            steps: of the grid at every width, in logarithms to base 2; 0 where the value is no point of it.
            sways: standard errors at every width that all seeds share, in logarithms to base 2.

        Example:
            >>> str(Slope(0.0, 0.0, 0.0, 12).on_grid([64, 128, 256, 512], [2, 2, 2, 2]))
            '+0.00 ± 0.51'
        """
        x = np.log2(np.asarray(widths, float))
        dx, error = x - x.mean(), np.hypot(np.asarray(steps, float) / math.sqrt(12), np.asarray(sways, float))
        reach = 1.96 * float(np.linalg.norm(dx * error)) / float((dx**2).sum())
        whole = math.hypot(reach, self.half_width) if math.isfinite(self.half_width) else self.half_width
        return replace(self, low=self.value - whole, high=self.value + whole)


def fit_slope(widths: Sequence[float], values: Sequence[Sequence[float]], bent: bool = True) -> Slope:
    """Fit value ~ width^slope by least squares on logarithms, every seed with a level of its own.

    Seeds share their data order across widths, so what differs between seeds at all widths alike says nothing of the slope.
    The geometric mean over seeds has the same slope when no value is missing. The interval of 95 % is
    Student's t with points - seeds - 1 degrees of freedom. Where all seeds deviate alike from a power of the width (an F test of
    lack of fit at 5 %), more seeds tell no more of it: then the widths' means alone scatter, with widths - 2 degrees of freedom.

    Args:
        widths: the widths, at least two different ones.
        values: one row a seed, one column a width; zeros and non-finite values are left out.
        bent: whether to test for that; not where the errors that seeds share are counted otherwise.

    Returns:
        The slope; NaN throughout when fewer than two widths remain, an infinite interval when no scatter can be seen.

    Raises:
        LazyrichError: if a row has another length than ``widths``, and for widths that are no positive numbers.

    Example:
        >>> fit_slope([64, 128, 256], [[8.0, 4.0, 2.0], [9.0, 4.5, 2.25]]).value
        -1.0
    """
    along, table = _array("widths", widths), _array("values", values)
    if along.ndim != 1 or not (np.isfinite(along) & (along > 0)).all():
        raise LazyrichError(f"got widths {widths!r}, expected a row of positive numbers, such as [64, 128, 256]")
    if table.ndim != 2 or table.shape[1] != len(along):
        raise LazyrichError(f"got values of shape {table.shape}, expected (seeds, {len(along)})")
    x = np.log(np.broadcast_to(along, table.shape))
    usable = np.isfinite(table) & (table > 0)
    y = np.log(np.where(usable, table, 1.0))
    rows = usable.sum(1) > 0
    x, y, usable = x[rows], y[rows], usable[rows]
    if not rows.any() or len(np.unique(x[usable])) < 2:
        return Slope(math.nan, math.nan, math.nan, int(usable.sum()))
    dx, dy = (_within_rows(v, usable) for v in (x, y))
    sxx = float((dx**2).sum())
    if sxx == 0:  # no seed has two widths left
        return Slope(math.nan, math.nan, math.nan, int(usable.sum()))
    slope = round(float((dx * dy).sum()) / sxx, 12)  # rounding of logarithms makes no exponent
    points, freedom = int(usable.sum()), int(usable.sum()) - int(rows.sum()) - 1
    if freedom < 1:
        return Slope(slope, -math.inf, math.inf, points)
    left = np.where(usable, dy - slope * dx, 0.0)
    error, freedom = _error(left, usable, freedom, bent)
    reach = float(stats.t.ppf(0.975, freedom)) * math.sqrt(error / sxx)
    return Slope(slope, slope - reach, slope + reach, points)


def _error(left: np.ndarray, usable: np.ndarray, freedom: int, bent: bool) -> tuple[float, int]:
    """The variance of what the slope left and its degrees of freedom: of all values, or of what all seeds share if that is more."""
    every = np.repeat(np.eye(left.shape[1])[None], len(left), 0) * usable[..., None]  # one effect a width
    every = np.where(usable[..., None], every - every.sum(1, keepdims=True) / usable.sum(1)[:, None, None], 0.0)
    effects, _, rank, _ = np.linalg.lstsq(every[usable], left[usable], rcond=None)
    whole, shared = float((left**2).sum()), float(((every[usable] @ effects) ** 2).sum())
    lack, pure = int(rank) - 1, freedom - int(rank) + 1
    if bent and lack > 0 and pure > 0 and shared > ROUNDING * left.size:
        ratio = shared / lack / max((whole - shared) / pure, ROUNDING)
        if stats.f.sf(ratio, lack, pure) < 0.05:
            return shared / lack, lack
    return whole / freedom, freedom


def _array(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise LazyrichError(f"got {name} that are no table of numbers ({error}), expected rows of equal length") from error


def _within_rows(v: np.ndarray, usable: np.ndarray) -> np.ndarray:
    means = (v * usable).sum(1, keepdims=True) / usable.sum(1, keepdims=True)
    return np.where(usable, v - means, 0.0)
