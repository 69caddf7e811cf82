"""What a check over depth found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazyrich.files import finite
from lazyrich.layer import shown, spoken
from lazyrich.measure.slope import Slope
from lazyrich.measure.table import table
from lazyrich.measure.verdict import TOLERANCE, WIDEST


@dataclass(frozen=True)
class DepthLine:
    """One quantity of one layer: ``update`` of its output, ``own`` (its own part over its output) or ``level`` at the start.

    ``values`` are by seed and depth.
    """

    layer: str
    quantity: str
    slope: Slope
    predicted: float | None
    values: tuple[tuple[float, ...], ...] = ()

    @property
    def inside(self) -> bool:
        """Whether the layer lies in a residual branch."""
        return ": " in self.layer

    @property
    def word(self) -> str:
        """Of an update, empty for others: exploding, well-behaved, vanishing (inside of branches: lazy), or inconclusive.

        Inside of branches an update that fades is what an exponent below 1 brings: the layer's weights stay nearly linear.
        """
        if self.quantity != "update":
            return ""
        if math.isnan(self.slope.value):
            return "inconclusive"
        if self.slope.low > TOLERANCE:
            return "exploding"
        if self.slope.high < -TOLERANCE:
            return "lazy" if self.inside else "vanishing"
        return "well-behaved" if abs(self.slope.value) <= TOLERANCE and not self.vague else "inconclusive"

    @property
    def vague(self) -> bool:
        """Whether the slope is too uncertain to say anything."""
        return not self.slope.half_width <= WIDEST

    @property
    def largest(self) -> float:
        """The largest slope, of either sign, that the interval allows; 0 where there is none."""
        ends = [abs(end) for end in (self.slope.low, self.slope.high) if not math.isnan(end)]
        return max(ends, default=0.0)


@dataclass(frozen=True)
class DepthResult:
    """The result of ``lzr.check_depth``: a table when printed, records by ``rows()``, a page by ``lazyrich.render``.

    Attributes:
        title: network, scheme, optimizer and the branches' exponent.
        depths: that were trained.
        lines: layers in the network's order, those of branches by place.
        diverged: depths at which a network diverged.
        settings: of the run, by depth.
        command, date: how and when, for the page.
    """

    title: str
    depths: tuple[int, ...]
    lines: tuple[DepthLine, ...]
    diverged: tuple[int, ...]
    settings: Mapping[str, Any]
    command: str = ""
    date: str = ""

    @property
    def word(self) -> str:
        """The worst of all updates; that of a layer inside of a branch is no more than lazy where it fades."""
        if self.diverged:
            return "exploding"
        words = {line.word for line in self.lines if line.word != "inconclusive"} | self._open()
        return next((word for word in ("exploding", "vanishing", "inconclusive", "lazy") if word in words), "well-behaved")

    def _open(self) -> set[str]:
        """Whether what cannot be told leaves the whole open: not a layer in a branch, nor a few vague ones before the readout."""
        updates = [line for line in self.lines if line.quantity == "update"]
        outside, unsure = (
            [line for line in updates if not line.inside],
            [line for line in updates if line.word == "inconclusive"],
        )
        sharp = [line for line in unsure if not line.inside and (math.isnan(line.slope.value) or not line.vague)]
        vague = [line for line in unsure if line.vague and not math.isnan(line.slope.value)]
        whole = sharp or 4 * len(vague) > len(updates) or (outside and outside[-1] in vague)
        return {"inconclusive"} if whole else set()

    @property
    def sentence(self) -> str:
        """The conclusion in words."""
        span = f"from depth {self.depths[0]} to {self.depths[-1]}"
        if self.diverged:
            return f"Exploding {span}: training diverged at depth {', '.join(map(str, self.diverged))}; lower lr."
        updates = [line for line in self.lines if line.quantity == "update" and not math.isnan(line.slope.value)]
        if not updates:
            return f"Inconclusive {span}: nothing moved."
        worst = max(updates, key=lambda line: (line.word == self.word, line.largest))
        said = f"the update of {spoken(worst.layer)} goes as depth^({worst.slope})"
        return {
            "exploding": f"Exploding {span}: {said}. {self._mend()}",
            "vanishing": f"Vanishing {span}: {said}; what you tune on a shallow network fades in a deep one.",
            "inconclusive": f"Inconclusive {span}: {said}; add depths, seeds or steps.",
            "lazy": f"Well-behaved {span} outside of the branches, whose layers learn less the more there are: {said}. "
            "depth_exponent=1 keeps them learning.",
            "well-behaved": f"Well-behaved {span}: no update grows or fades; at most, {said}.",
        }[self.word]

    def _mend(self) -> str:
        """What to do against growing updates: a check's plans name their branches, so what may be missing is the hooks."""
        if not all(one.get("obligations met") for one in self.settings.values()):
            return "Scale the branches: meet the obligation (meet=True, or --meet)."
        return "The branches are scaled and the obligations met, so it comes from elsewhere; see which layer grows first."

    def rows(self) -> list[dict[str, Any]]:
        """One flat record a line."""
        return [
            {
                "layer": line.layer, "quantity": line.quantity, "slope": finite(line.slope.value), "low": finite(line.slope.low),
                "high": finite(line.slope.high), "predicted": line.predicted, "verdict": line.word,
            }
            for line in self.lines
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "kind": "depth", "title": self.title, "word": self.word, "sentence": self.sentence, "depths": list(self.depths),
            "lines": [{**row, "values": line.values} for row, line in zip(self.rows(), self.lines, strict=True)],
            "diverged": list(self.diverged), "settings": dict(self.settings), "command": self.command, "date": self.date,
        }  # fmt: skip

    def __str__(self) -> str:
        layers = list(dict.fromkeys(line.layer for line in self.lines))
        by = {(line.layer, line.quantity): line for line in self.lines}
        header = ["layer", "update", "verdict", "own part", "its theory", "level"]
        rows = []
        for layer in layers:
            update, own, level = (by.get((layer, quantity)) for quantity in ("update", "own", "level"))
            predicted = f"{own.predicted:+.2f}" if own and own.predicted is not None else ""
            rows.append([shown(layer), _slope(update), update.word if update else "", _slope(own), predicted, _slope(level)])
        return "\n".join([self.title, self.sentence, "", *table(header, rows, numbers=False)])


def _slope(line: DepthLine | None) -> str:
    return str(line.slope) if line and not math.isnan(line.slope.value) else ""
