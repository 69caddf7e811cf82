"""What a transfer study means in words: one sentence a scheme, and one for all of which the same is true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lazyrich.measure.slope import Slope


@dataclass(frozen=True)
class Said:
    """What is true of one scheme; those with equal words, whatever their numbers, are said together.

    Attributes:
        name: of the scheme.
        words: what is said, with ``{}`` where its numbers are.
        numbers: how the best learning rate moves, and a doubling of what, where a sentence is of one scheme.
        short: the same without of what, beside the name where it is of several.
        unit: of what.
    """

    name: str
    words: str
    numbers: str = ""
    short: str = ""
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.words.format(self.numbers)}"


def together(said: Sequence[Said]) -> tuple[str, ...]:
    """Sentences in which nothing is said twice, in the order of their first schemes.

    Example:
        >>> together([Said("a", "it moves ({}).", "+1 a width", "+1", "a width"), Said("b", "it moves ({}).", "", "+2", "a width")])
        ('a (+1), b (+2): it moves (a width).',)
    """
    groups: dict[tuple[str, str], list[Said]] = {}
    for one in said:
        groups.setdefault((one.words, one.unit), []).append(one)
    return tuple(str(own[0]) if len(own) == 1 else _several(own) for own in groups.values())


def _several(own: Sequence[Said]) -> str:
    names = ", ".join(f"{one.name} ({one.short})" if one.short else one.name for one in own)
    return f"{names}: {own[0].words.format(own[0].unit)}"


def shifted(shift: Slope, places: Sequence[int], octaves: float, unit: str = "") -> str:
    """How the best learning rate moves, with an interval that is not told where it is wider than the grid's octaves.

    Example:
        >>> shifted(Slope(-0.08, -25.0, 25.0, 4), [1, 2], 11.0, " a doubling of the depth")
        '-0.08 octaves a doubling of the depth, its interval wider than the grid'
        >>> shifted(Slope(0.5, -math.inf, math.inf, 2), [8, 16], 11.0)
        '+0.50 octaves, no interval with so few seeds'
    """
    if math.isnan(shift.value):
        return f"not measured{unit}"
    known = f"{round(shift.value, 2) + 0.0:+.2f}"
    if not math.isfinite(shift.half_width):
        return f"{known} octaves{unit}, no interval with so few seeds"
    if wider(shift.half_width, places, octaves):
        return f"{known} octaves{unit}, its interval wider than the grid"
    return f"{known} ± {shift.half_width:.2f} octaves{unit}"


def wider(half_width: float, places: Sequence[float], octaves: float) -> bool:
    """Whether an interval of a slope in octaves a doubling reaches further than a grid along all places.

    Example:
        >>> wider(25.1, [1, 2], 11.0), wider(1.68, [8, 16, 32], 11.0)
        (True, False)
    """
    return half_width * math.log2(max(places) / min(places)) > octaves


def cost(regret: float, error: float) -> str:
    """What another learning rate costs, as a clause.

    Example:
        >>> cost(0.25, 0.18), cost(0.25, 5.0)
        ('that costs 25 ± 18% of what training gains', 'that costs 25% (± more than 100) of what training gains')
        >>> cost(math.nan, math.nan), cost(1.0, 0.1), cost(math.inf, math.nan)
        ('training gains nothing at any rate', 'training ends no lower than it began', 'training diverges')
        >>> cost(0.0, 0.0), cost(2e-4, 0.004)
        ('that costs nothing that can be seen', 'that costs nothing that can be seen (0 ± 0.4%)')
    """
    if math.isnan(regret):
        return "training gains nothing at any rate"
    if math.isinf(regret):
        return "training diverges"
    if regret >= 1:
        return "training ends no lower than it began"
    known = f" ± {100 * error:.2g}%" if error >= 1e-4 else ""
    if error > 1:
        known = "% (± more than 100)"
    if regret < 1e-3:
        return "that costs nothing that can be seen" + (f" (0{known})" if error >= 1e-3 else "")
    return f"that costs {100 * regret:.2g}{known or '%'} of what training gains"


def percent(value: float, error: float) -> str:
    """A regret as a cell of a table.

    Example:
        >>> percent(0.3538, 5.2532), percent(0.0571, 0.053), percent(math.inf, math.nan), percent(math.nan, math.nan)
        ('35.38 ± >100%', '5.71 ± 5.30%', 'diverges', 'undefined')
    """
    known = (f" ± {100 * error:.2f}" if error <= 1 else " ± >100") if math.isfinite(error) else ""
    return "diverges" if math.isinf(value) else ("undefined" if math.isnan(value) else f"{100 * value:.2f}{known}%")
