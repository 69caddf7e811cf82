"""What one network showed along the richness axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curve:
    """One exponent r and width of a dial.

    Attributes:
        r: exponent of the richness scale.
        width: of the network.
        richness: gamma_0 at the base width, one a column.
        values: by quantity, (seeds, columns); NaN where training diverged.
        leaves: gamma_0 from which on the network is more than 10 % away from its linearisation; 0 if it is so everywhere,
            infinity if nowhere.
    """

    r: float
    width: int
    richness: tuple[float, ...]
    values: Mapping[str, np.ndarray]
    leaves: float

    def mean(self, quantity: str) -> np.ndarray:
        """Mean over the seeds that did not diverge, NaN where none is left."""
        table = self.values[quantity]
        there = np.isfinite(table)
        return np.where(there.any(0), np.where(there, table, 0).sum(0) / np.maximum(there.sum(0), 1), math.nan)

    def ends(self, side: int) -> tuple[float, ...]:
        """Richnesses where a seed's best learning rate is the smallest (-1) or the largest (1) that was tried."""
        there = (self.values["edge"] == side).any(0)
        return tuple(g for g, end in zip(self.richness, there, strict=True) if end)
