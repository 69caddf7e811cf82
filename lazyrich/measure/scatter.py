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

    Every group has a scatter of its own, for some scatter more than others, and the difference of two is held against both (Games
    and Howell's studentised range): of groups that do not differ about 1 study in 20 shows two that seem to, however many groups
    and seeds there are. Where all groups have the same seeds, what differs between seeds in all groups alike is no scatter, and is
    taken away first.

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
        filled = [v for v in values if np.isfinite(v).any()]
        self.groups, self.freedom = len(filled), sum(int(np.isfinite(v).sum()) - 1 for v in filled)
        self.size = max((float(abs(v[np.isfinite(v)]).max()) for v in filled), default=0.0)
        shared = self.groups > 1 and len({len(v) for v in filled}) == 1 and all(np.isfinite(v).all() for v in filled)
        level = sum(filled) / self.groups if shared else 0.0
        self.known = [(v - level)[np.isfinite(v)] if np.isfinite(v).any() else v[:0] for v in values]
        self.grown = self.groups / (self.groups - 1) if shared else 1.0  # what the mean over groups took of each
        self.most = (len(filled[0]) - 1) * (self.groups - 1) if shared else math.inf  # degrees of freedom that are left in all

    def reach(self, a: int, b: int) -> float:
        """By how much two groups' means may differ where nothing does; NaN where all have one seed, infinite where these have."""
        one, other = self.known[a], self.known[b]
        if not self.freedom or self.groups < 2 or not (len(one) and len(other)):
            return math.nan
        if min(len(one), len(other)) < 2:
            return math.inf
        parts = np.array([v.var(ddof=1) / len(v) for v in (one, other)]) * self.grown
        if not parts.any():
            return ROUNDING * self.size
        freedom = float(parts.sum() ** 2 / (parts**2 / [len(one) - 1, len(other) - 1]).sum())  # Welch and Satterthwaite
        quantile = _range(self.groups, round(min(freedom, self.most), 1))
        return quantile * math.sqrt(float(parts.sum()) / 2) + ROUNDING * self.size


@functools.lru_cache(maxsize=256)
def _range(groups: int, freedom: float) -> float:
    """The studentised range that equal groups pass in 1 study of 20."""
    return float(stats.studentized_range.ppf(LEVEL, groups, freedom))
