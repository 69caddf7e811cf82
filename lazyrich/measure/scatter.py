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
    """The scatter of several groups of seeds, and what it says of the difference of two of their means.

    Where all groups have the same seeds, what differs between seeds in all groups alike is no scatter: a difference of means is
    held against the scatter of the seeds' own differences, by Student's t at a level shared by all pairs (Bonferroni). Where some
    are missing, against the two groups' scatters (Games and Howell's studentised range). Either way each pair has a scatter of its
    own, for some groups scatter more than others, and of groups that do not differ at most 1 study in 20 shows two that seem to,
    however many groups and seeds there are.

    Args:
        groups: values of every group, in the order of the seeds; those that are not finite are left out.

    Example:
        >>> scatter = Scatter([[1.0, 1.2, 1.1], [1.1, 0.9, 1.0]])
        >>> round(scatter.reach(0, 1), 3)
        0.497
        >>> Scatter([[1.0], [2.0]]).reach(0, 1)
        nan
    """

    def __init__(self, groups: Sequence[Sequence[float] | np.ndarray]) -> None:
        values = [np.asarray(g, float) for g in groups]
        self.known = [v[np.isfinite(v)] for v in values]
        filled = [v for v in values if np.isfinite(v).any()]
        self.shared = len({len(v) for v in filled}) == 1 and all(np.isfinite(v).all() for v in filled)
        self.freedom = sum(int(np.isfinite(v).sum()) - 1 for v in filled)
        self.groups = len(filled)
        self.size = max((float(abs(v).max()) for v in self.known if len(v)), default=0.0)

    def reach(self, a: int, b: int) -> float:
        """By how much two groups' means may differ where nothing does; NaN where all have one seed, infinite where these have."""
        one, other = self.known[a], self.known[b]
        if not self.freedom or self.groups < 2 or not (len(one) and len(other)):
            return math.nan
        if min(len(one), len(other)) < 2:
            return math.inf
        return (self._paired if self.shared else self._apart)(one, other) + ROUNDING * self.size

    def _paired(self, one: np.ndarray, other: np.ndarray) -> float:
        pairs = self.groups * (self.groups - 1) / 2
        quantile = float(stats.t.ppf(1 - (1 - LEVEL) / 2 / pairs, len(one) - 1))
        return quantile * float((one - other).std(ddof=1)) / math.sqrt(len(one))

    def _apart(self, one: np.ndarray, other: np.ndarray) -> float:
        parts = np.array([v.var(ddof=1) / len(v) for v in (one, other)])
        if not parts.any():
            return 0.0
        freedom = float(parts.sum() ** 2 / (parts**2 / [len(one) - 1, len(other) - 1]).sum())  # Welch and Satterthwaite
        return _range(self.groups, round(freedom, 1)) * math.sqrt(float(parts.sum()) / 2)


@functools.lru_cache(maxsize=256)
def _range(groups: int, freedom: float) -> float:
    """The studentised range that equal groups pass in 1 study of 20."""
    return float(stats.studentized_range.ppf(LEVEL, groups, freedom))
