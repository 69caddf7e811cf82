"""Logarithmic axes for a person: ticks at round numbers, and one steepness for one slope in every panel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lazyrich.report.number import brief

_MARGIN = 0.12
FLAT = 0.25  # decades that an axis of losses or errors spans at least


@dataclass(frozen=True)
class Span:
    """An interval of a logarithmic axis, in decades (powers of ten)."""

    low: float
    high: float

    @property
    def limits(self) -> tuple[float, float]:
        """The two ends as numbers."""
        return 10.0**self.low, 10.0**self.high

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers inside: powers of ten where there are at least two, else ones, twos and fives, or finer ones.

        Example:
            >>> [round(t, 3) for t in Span(-2.1, -0.9).ticks()]
            [0.01, 0.1]
            >>> [round(t, 3) for t in Span(-1.9, -1.1).ticks()]
            [0.02, 0.05]
            >>> [round(t, 3) for t in Span(0.25, 0.45).ticks()]
            [2.0, 2.5]
        """
        powers = range(math.ceil(self.low), math.floor(self.high) + 1)
        if len(powers) >= 2:
            step = math.ceil(len(powers) / most)
            return [10.0**p for p in powers if p % step == 0]
        every = range(math.floor(self.low), math.ceil(self.high) + 1)
        found: list[float] = []
        for digits in ((1, 2, 5), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8), [1 + i / 10 for i in range(90)]):
            found = [m * 10.0**p for p in every for m in digits if self.low <= math.log10(m * 10.0**p) <= self.high]
            if len(found) >= 2:
                break
        return found[:: math.ceil(len(found) / most)]


def positive(values: Iterable[float | None]) -> list[float]:
    """Those values that a logarithmic axis can show."""
    return [v for v in values if v is not None and v > 0]


def spans(groups: Sequence[Sequence[float]], least: float = 1.0) -> list[Span]:
    """An interval for each panel's values, all of the same length, each with its values in the middle.

    Args:
        groups: each panel's positive values; a panel without any gets an interval around 1.
        least: the shortest length in decades, so that flat curves look flat.

    Example:
        >>> [round(s.high - s.low, 2) for s in spans([[1.0, 10.0], [3.0]], least=1.0)]
        [1.24, 1.24]
    """
    ends = [(math.log10(min(g)), math.log10(max(g))) if g else (0.0, 0.0) for g in groups]
    length = max([least, *(high - low + 2 * _MARGIN for low, high in ends)])
    return [Span((low + high - length) / 2, (low + high + length) / 2) for low, high in ends]


def labels(ticks: Sequence[float]) -> list[str]:
    """The ticks in words.

    Example:
        >>> labels([0.0001, 0.01, 1.0])
        ['10⁻⁴', '0.01', '1']
    """
    return [brief(float(f"{t:.3g}")) for t in ticks]


def thin(values: Sequence[float], most: int) -> list[float]:
    """At most `most` of the values, evenly, with the last kept.

    Example:
        >>> thin([64, 128, 256, 512, 1024], 3)
        [64, 256, 1024]
    """
    step = max(1, math.ceil((len(values) - 1) / max(1, most - 1)))
    return list(values)[::-1][::step][::-1]
