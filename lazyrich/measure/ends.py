"""Where a grid of learning rates ends before the optimum: at which end, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lazyrich.measure.optimum import Optimum

NEXT = 2  # rates to try beyond an end


@dataclass(frozen=True)
class Ends:
    """Places along an axis (widths, depths) whose best learning rate is an end of the grid.

    Attributes:
        lrs: the grid.
        low: places where it is the smallest rate, for some seeds or their mean.
        high: places where it is the largest.
        whole: places where it is an end for the mean of the seeds.
    """

    lrs: tuple[float, ...]
    low: tuple[int, ...] = ()
    high: tuple[int, ...] = ()
    whole: tuple[int, ...] = ()

    @property
    def places(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(sorted({*self.low, *self.high}))

    @property
    def octaves(self) -> float:
        """From the grid's smallest rate to its largest."""
        return math.log2(self.lrs[-1] / self.lrs[0])

    @property
    def beyond(self) -> tuple[float, ...]:
        """The next rates at the ends in question, in steps of the grid.

        Example:
            >>> Ends((0.01, 0.02, 0.04), high=(64,)).beyond
            (0.08, 0.16)
        """
        first, last = self.lrs[0] / self.lrs[1], self.lrs[-1] / self.lrs[-2]
        lower = [self.lrs[0] * first**k for k in range(NEXT, 0, -1)] if self.low else []
        upper = [self.lrs[-1] * last**k for k in range(1, NEXT + 1)] if self.high else []
        return tuple(float(f"{lr:.3g}") for lr in (*lower, *upper))

    def said(self, axis: str) -> str:
        """Which end at which places of the axis, and what to try.

        Example:
            >>> Ends((0.01, 0.02, 0.04), high=(64,)).said("width")
            'the best learning rate at width 64 is an end of the grid for some seeds, its largest rate; --lrs with 0.08, 0.16 too'
        """
        parts = []
        for places, end in ((self.low, "smallest"), (self.high, "largest")):
            for all_, whose in ((True, ""), (False, " for some seeds")):
                if some := [str(place) for place in places if (place in self.whole) is all_]:
                    parts.append(f"at {axis} {', '.join(some)} is an end of the grid{whose}, its {end} rate")
        return f"the best learning rate {', and '.join(parts)}; --lrs with {', '.join(f'{lr:g}' for lr in self.beyond)} too"


def ends_of(lrs: Sequence[float], best: Mapping[int, Optimum], each: Mapping[int, Sequence[Optimum]]) -> Ends:
    """From the optima of the mean curves by place, and of every seed's.

    Example:
        >>> inner, last = Optimum(0.2, 1.0, False), Optimum(0.4, 1.0, True)
        >>> ends_of((0.1, 0.2, 0.4), {8: inner, 16: inner}, {8: [inner, inner], 16: [inner, last]})
        Ends(lrs=(0.1, 0.2, 0.4), low=(), high=(16,), whole=())
    """
    sides = {place: {_side(lrs, found) for found in (best[place], *each[place])} for place in best}
    low, high = (tuple(place for place, own in sides.items() if side in own) for side in (-1, 1))
    return Ends(tuple(lrs), low, high, tuple(place for place, found in best.items() if found.edge))


def _side(lrs: Sequence[float], found: Optimum) -> int:
    """-1 at the smallest rate, also where all diverged; 1 at the largest."""
    return 0 if not found.edge else 1 if found.lr >= lrs[-1] * (1 - 1e-9) else -1
