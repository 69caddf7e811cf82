"""How far apart means over seeds lie that differ by more than the seeds' scatter."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
ROUNDING = 1e-9  # relative difference that is none


class Scatter:
    """The scatter that several groups of seeds share, and what it says of the difference of two of their means.

    Scatters are pooled over the groups, since two or three seeds alone tell little of theirs, and the largest difference of all
    is what is held against them (Tukey and Kramer's studentised range): of groups that do not differ, 1 study in 20 shows two
    that seem to, however many groups and seeds there are. Seeds that groups share make it fewer.

    Args:
        groups: values of every group; those that are not finite are left out.

    Example:
        >>> scatter = Scatter([[1.0, 1.2, 1.1], [1.1, 0.9, 1.0]])
        >>> round(scatter.reach(0, 1), 3)
        0.227
        >>> Scatter([[1.0], [2.0]]).reach(0, 1)
        nan
    """

    def __init__(self, groups: Sequence[Sequence[float] | np.ndarray]) -> None:
        known = [values[np.isfinite(values)] for values in (np.asarray(g, float) for g in groups)]
        self.counts = [len(values) for values in known]
        filled = [values for values in known if len(values)]
        self.freedom = sum(len(values) - 1 for values in filled)
        self.variance = sum(float(((v - v.mean()) ** 2).sum()) for v in filled) / self.freedom if self.freedom else math.nan
        self.groups = len(filled)
        self.size = max((float(abs(values).max()) for values in filled), default=0.0)

    def reach(self, a: int, b: int) -> float:
        """By how much the means of two groups may differ where nothing does; NaN where every group has one seed."""
        if not self.freedom or self.groups < 2 or not (self.counts[a] and self.counts[b]):
            return math.nan
        error = math.sqrt(self.variance * (1 / self.counts[a] + 1 / self.counts[b]) / 2)
        return _range(self.groups, self.freedom) * error + ROUNDING * self.size


@functools.lru_cache(maxsize=256)
def _range(groups: int, freedom: int) -> float:
    """The studentised range that equal groups pass in 1 study of 20."""
    return float(stats.studentized_range.ppf(LEVEL, groups, freedom))
