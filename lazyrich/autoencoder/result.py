"""What a study of autoencoders found: a ranked table, paired comparisons, what goes with success, and a paragraph that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from lazyrich.autoencoder.metric import UNDEFINED
from lazyrich.files import finite
from lazyrich.measure.slope import Slope, fit_slope
from lazyrich.measure.verdict import WIDEST
from lazyrich.scaling import parse as parse_scheme

AXES = ("start", "scheme", "optimizer", "width", "code")
SHOWN = ("unexplained", "probe", "delay", "encoder early", "code early", "mirror before", "mirror after", "dimension", "radius")
VARIATIONAL = ("active latents", "code rate", "evidence bound")  # shown where the networks are variational
CAUSES = ("delay", "encoder early", "decoder early", "code early", "mirror before", "mirror shared", "dimension", "stretch")
GOAL = "unexplained"
SURE = 0.01  # p value below which a cause is named
LEAST = 6  # networks below which a correlation says nothing


@dataclass(frozen=True)
class Comparison:
    """Two levels of one axis, everything else and the seed being equal.

    Attributes:
        axis: start, scheme, ...
        better: the level with the lower unexplained variance.
        worse: the other.
        gain: mean difference, in parts of the variance.
        half_width: half of its 95 % interval over the pairs.
        pairs: how many, of which both trained.
        diverged: networks of the better and of the worse level that diverged; then there is no winner.
    """

    axis: str
    better: Any
    worse: Any
    gain: float
    half_width: float
    pairs: int
    diverged: tuple[int, int] = (0, 0)

    @property
    def sure(self) -> bool:
        """Whether the interval leaves zero out, and all networks trained."""
        return self.gain > self.half_width and not any(self.diverged)

    @property
    def sentence(self) -> str:
        """What it means."""
        if any(self.diverged):
            return self._lost
        amount = f"{100 * self.gain:.2g} ± {100 * self.half_width:.2g} points of variance, {self.pairs} pairs"
        if self.sure:
            return f"Of {self.axis}s, {self.better} beats {self.worse} by {amount}."
        return f"Between {self.axis}s {self.better} and {self.worse} nothing can be told ({amount})."

    @property
    def _lost(self) -> str:
        """Pairs of which both trained are a choice of the tame ones, so they are told and decide nothing."""
        who = " and ".join(f"{n} of {level}" for n, level in zip(self.diverged, (self.better, self.worse), strict=True) if n)
        rest = "no pair is left of which both trained"
        if self.pairs > 1:
            more = "less" if self.gain >= 0 else "more"
            rest = f"where both trained, {self.better} leaves {100 * abs(self.gain):.2g} ± {100 * self.half_width:.2g} points "
            rest += f"{more}, {self.pairs} pairs"
        names = f"{self.better} and {self.worse}"
        return (
            f"Between {self.axis}s {names} there is no winner: networks diverged, {who}; {rest}; give smaller learning rates."
        )


@dataclass(frozen=True)
class Cause:
    """How a measured property goes with the unexplained variance, over all networks of the study: a rank correlation."""

    name: str
    rank: float
    p_value: float
    networks: int


@dataclass(frozen=True)
class AutoencoderResult:
    """The result of a study: a ranked table when printed, records by ``rows()``, a page by ``lazyrich.render``.

    Attributes:
        cells: one record a combination, in the order of the study.
        linear: part of the variance that the best linear autoencoder leaves, by the code's size as asked for.
        comparisons: best against second level of every axis with several.
        causes: by the strength of their correlation.
        movements: slope of the encoder's movement in the width by (start, scheme, optimizer), with the exponent of theory for the
            first layer of a network without a bottleneck.
    """

    cells: tuple[Mapping[str, Any], ...]
    linear: Mapping[str, float]
    comparisons: tuple[Comparison, ...]
    causes: tuple[Cause, ...]
    movements: tuple[tuple[str, str, str, Slope, float], ...]
    settings: Mapping[str, Any]
    reproduce: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Network and data."""
        return f"{self.settings['network']} · autoencoders of {self.settings['data']}"

    @property
    def ranked(self) -> list[Mapping[str, Any]]:
        """Cells by their mean unexplained variance, best first; those of which a network diverged last."""
        return sorted(self.cells, key=lambda c: (lost(c) > 0, _or(mean(c, GOAL), math.inf)))

    def rows(self) -> list[dict[str, Any]]:
        """Every network as a flat record."""
        kept = (*AXES, "lr")
        return [{k: c[k] for k in kept} | {"seed": i} | dict(seed) for c in self.cells for i, seed in _seeded(c)]

    @property
    def sentence(self) -> str:
        """What won, by how much, and what goes with it."""
        best = self.ranked[0] if self.cells else None
        if best is None or mean(best, GOAL) is None:
            return "Every network diverged; give smaller learning rates."
        left, probe, linear = mean(best, GOAL), mean(best, "probe"), self.linear[str(best["code"])]
        word = "below" if _or(left, 1.0) < linear else "above"
        said = [
            f"Best: start {best['start']} under {self._scheme(best)} with {best['optimizer']} at width {best['width']}"
            + (f", code {best['code']}" if best["code"] else "")
            + f"; it leaves {100 * _or(left, 1):.3g}% of the held-out variance, {word} the {100 * linear:.3g}% of the best "
            + f"linear autoencoder{'' if probe is None else f', and its codes classify {100 * probe:.3g}% by a linear probe'}."
        ]
        said += [c.sentence for c in self.comparisons]
        if self._strong:
            cause = self._strong[0]
            side = "more" if cause.rank > 0 else "less"
            said.append(
                f"What goes with success most is '{cause.name}': the more of it, the {side} variance is left (rank correlation "
                f"{cause.rank:+.2f} over {cause.networks} networks, p = {cause.p_value:.1g}); that is no proof of cause."
            )
        own = distinct(self.cells, self.settings.get("base"))
        if gone := [c for c in own if lost(c)]:
            said.append(
                f"In {len(gone)} of {len(own)} cells no learning rate trained all networks, and {sum(map(lost, gone))} diverged at "
                "the best; those cells rank last; give smaller learning rates."
            )
        said += self._failures
        edges = sum(bool(c["edge"]) for c in own)
        if edges:
            said.append(f"In {edges} of {len(own)} cells the best learning rate is an end of the grid; widen it to be sure.")
        return " ".join(said)

    @property
    def _strong(self) -> list[Cause]:
        """Causes that chance hardly makes, strongest first; the sentence names the first of them, and the tables show it."""
        return [c for c in self.causes if c.p_value < SURE]

    @property
    def _failures(self) -> list[str]:
        """Metrics that raised an error, or that have no meaning here: finished trainings are kept without them."""
        told = {name: text for c in reversed(self.cells) for name, text in c.get("failed", {}).items()}
        return [
            f"Metric '{name}' is undefined: {text.removeprefix(UNDEFINED)}."
            if text.startswith(UNDEFINED)
            else f"Metric '{name}' fails ({text}) and is undefined there; mend it and repeat."
            for name, text in told.items()
        ]

    def _scheme(self, cell: Mapping[str, Any]) -> str:
        """A cell's scheme, or all of them where they are one network."""
        return "every scheme (one network at the base width)" if self._shared(cell) else str(cell["scheme"])

    def _shared(self, cell: Mapping[str, Any]) -> bool:
        return cell["width"] == self.settings.get("base") and len({c["scheme"] for c in self.cells}) > 1

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; what ``lazyrich.render`` reads."""
        return {
            "kind": "autoencoder",
            "title": self.title,
            "sentence": self.sentence,
            "cells": [dict(c) for c in self.ranked],
            "linear": dict(self.linear),
            "movements": [
                {"start": a, "scheme": b, "optimizer": o, "value": finite(s.value), "low": finite(s.low), "high": finite(s.high),
                 "theory": finite(t), "told": told(s)}
                for a, b, o, s, t in self.movements
            ],
            "causes": [{"name": c.name, "rank": c.rank, "p_value": c.p_value, "networks": c.networks} for c in self.causes],
            "settings": dict(self.settings),
            "reproduce": dict(self.reproduce),
        }  # fmt: skip

    def __str__(self) -> str:
        axes = [a for a in AXES if len({str(c[a]) for c in self.cells}) > 1 or a in ("start", "scheme", "width")]
        shown = [*SHOWN, *(m for m in VARIATIONAL if any(mean(c, m) is not None for c in self.cells))]
        shown += [c.name for c in self._strong[:1] if c.name not in shown]
        header = [*axes, "lr", *shown]
        own = distinct(self.ranked, self.settings.get("base"))
        rows = [self._row(c, axes, shown) for c in own]
        if any(map(lost, self.cells)):
            header, rows = [*header, "diverged"], [[*row, str(lost(c))] for row, c in zip(rows, own, strict=True)]
        sizes = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        table = ["  ".join(w.ljust(n) for w, n in zip(row, sizes, strict=True)).rstrip() for row in [header, *rows]]
        rule = "-" * max(map(len, table))
        linear = ", ".join(f"{'' if k == 'None' else f'code {k}: '}{100 * v:.3g}%" for k, v in self.linear.items())
        moves = [_moves(*movement) for movement in self.movements]
        return "\n".join([self.title, self.sentence, rule, *table, rule, f"best linear autoencoder leaves {linear}", *moves])

    def _row(self, cell: Mapping[str, Any], axes: Sequence[str], shown: Sequence[str]) -> list[str]:
        """A line of the table; a network that all schemes share stands there once."""
        names = ["every" if a == "scheme" and self._shared(cell) else str(cell[a]) for a in axes]
        return [*names, f"{cell['lr']:.3g}", *(_brief(mean(cell, m)) for m in shown)]


def summarise(
    cells: Sequence[Mapping[str, Any]], linear: Mapping[str, float], settings: Mapping[str, Any], reproduce: Mapping[str, Any]
) -> AutoencoderResult:
    """From finished trainings to comparisons, causes, slopes and sentences."""
    base = settings.get("base")
    comparisons = [found for axis in AXES if (found := _compared(cells, axis, base)) is not None]
    causes = [found for name in CAUSES if (found := _cause(distinct(cells, base), name)) is not None]
    causes.sort(key=lambda c: -abs(c.rank))
    return AutoencoderResult(
        tuple(cells), dict(linear), tuple(comparisons), tuple(causes), tuple(_movements(cells)), dict(settings), dict(reproduce)
    )


def mean(cell: Mapping[str, Any], metric: str) -> float | None:
    """Mean of a metric over a cell's seeds; None where no seed has it.

    Example:
        >>> mean({"seeds": [{"a": 1.0}, {"a": 3.0}, {"a": None}]}, "a")
        2.0
    """
    known = [seed[metric] for seed in cell["seeds"] if seed.get(metric) is not None]
    return sum(known) / len(known) if known else None


def lost(cell: Mapping[str, Any]) -> int:
    """Networks of a cell that diverged at its best learning rate, or whose reconstructions are no numbers.

    Example:
        >>> lost({"seeds": [{"unexplained": 0.5}], "diverged": 2})
        2
    """
    return int(cell.get("diverged", 0)) + sum(seed.get(GOAL) is None for seed in cell["seeds"])


def _seeded(cell: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """The networks that trained, each with its seed: pairs must share it."""
    return list(zip(cell.get("trained", range(len(cell["seeds"]))), cell["seeds"], strict=True))


def distinct(cells: Sequence[Mapping[str, Any]], base: int | None) -> list[Mapping[str, Any]]:
    """The cells without repetitions: at the base width every scheme's plan is the plain network, so one scheme stands for all.

    Example:
        >>> one = {"start": "a", "optimizer": "sgd", "code": None}
        >>> both = [{**one, "scheme": s, "width": w} for w in (8, 16) for s in ("ntk", "mup")]
        >>> [(c["scheme"], c["width"]) for c in distinct(both, 8)]
        [('ntk', 8), ('ntk', 16), ('mup', 16)]
    """
    kept = {tuple(None if a == "scheme" and c["width"] == base else c[a] for a in AXES): c for c in reversed(cells)}
    return list(reversed(kept.values()))


def _compared(cells: Sequence[Mapping[str, Any]], axis: str, base: int | None = None) -> Comparison | None:
    """The level that leaves least on average against the second, over all pairs that differ in this axis alone.

    Of a network that diverged infinitely much is left: the level with fewer of them comes first, and their pairs are counted apart.
    """
    levels = list(dict.fromkeys(c[axis] for c in cells))
    if len(levels) < 2:
        return None
    own = cells if axis == "width" else distinct(cells, base)
    at = {level: _keyed(own, axis, level) for level in levels}
    shared = set.intersection(*(set(found) for found in at.values()))
    gone = {level: _gone(at[level], shared, axis == "width" and level == base) for level in levels}
    tame = [level for level in levels if gone[level] <= sorted(gone.values())[1]]
    whole = [key for key in shared if all(math.isfinite(at[level][key]) for level in tame)]
    first, second = sorted(tame, key=lambda level: (gone[level], sum(at[level][key] for key in whole)))[:2]
    gaps = {key: at[second][key] - at[first][key] for key in shared if math.isfinite(at[first][key] + at[second][key])}
    pairs = _once(gaps) if axis == "width" and base in (first, second) else list(gaps.values())
    if len(pairs) < 2:
        pairs = []
        if not (gone[first] or gone[second]):
            return None
    gain, half = (float(np.mean(pairs)), _half_width(pairs)) if pairs else (math.nan, math.nan)
    return Comparison(axis, first, second, gain, half, len(pairs), (gone[first], gone[second]))


def _gone(left: Mapping[tuple[Any, ...], float], keys: set[tuple[Any, ...]], once: bool) -> int:
    """Networks that diverged; at the base width all schemes share them, so they count once."""
    return len({(key[0], *key[2:]) if once else key for key in keys if math.isinf(left[key])})


def _half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean."""
    return float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _once(gaps: Mapping[tuple[Any, ...], float]) -> list[float]:
    """Differences to networks of the base width, one for each of them: the mean over the schemes that share it."""
    by: dict[tuple[Any, ...], list[float]] = {}
    for (start, _, *rest), gap in gaps.items():
        by.setdefault((start, *rest), []).append(gap)
    return [sum(found) / len(found) for found in by.values()]


def _keyed(cells: Sequence[Mapping[str, Any]], axis: str, level: Any) -> dict[tuple[Any, ...], float]:
    """What every network of a level leaves, by everything else; infinitely much where it diverged."""
    found = {}
    for c in cells:
        if c[axis] == level:
            rest, own = tuple(c[a] for a in AXES if a != axis), dict(_seeded(c))
            seeds = range(len(own) + int(c.get("diverged", 0)))
            found |= {(*rest, i): _or(own[i].get(GOAL) if i in own else None, math.inf) for i in seeds}
    return found


def _cause(cells: Sequence[Mapping[str, Any]], name: str) -> Cause | None:
    both = [(s[name], s[GOAL]) for c in cells for s in c["seeds"] if s.get(name) is not None and s.get(GOAL) is not None]
    if len(both) < LEAST or len({a for a, _ in both}) < 3:
        return None
    found = stats.spearmanr([a for a, _ in both], [b for _, b in both])
    return Cause(name, float(found.statistic), float(found.pvalue), len(both))


def _movements(cells: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, Slope, float]]:
    """Slopes of the encoder's early movement in the width, where two widths or more were trained at one learning rate."""
    found = []
    codes = {c["code"] for c in cells}
    for start, scheme, optimizer in dict.fromkeys((c["start"], c["scheme"], c["optimizer"]) for c in cells):
        own = [c for c in cells if (c["start"], c["scheme"], c["optimizer"]) == (start, scheme, optimizer)]
        widths = sorted({c["width"] for c in own})
        if len(widths) < 2 or len(codes) > 1 or len({c["lr"] for c in own}) > 1:
            continue
        by_width = {c["width"]: [_or(s.get("encoder early"), math.nan) for s in c["seeds"]] for c in own}
        seeds = min(len(v) for v in by_width.values())
        if seeds:
            slope = fit_slope(widths, [[by_width[w][s] for w in widths] for s in range(seeds)])
            verdict = parse_scheme(scheme).classify(optimizer)
            found.append((start, scheme, optimizer, slope, 0.0 - verdict.layer_r[0]))
    return found


def told(slope: Slope) -> bool:
    """Whether an interval is narrow enough to say how something scales: two widths of few seeds seldom are.

    Example:
        >>> told(Slope(-0.1, -6.45, 6.25, 4)), told(Slope(-0.5, -0.6, -0.4, 9))
        (False, True)
    """
    return slope.half_width <= WIDEST


def _moves(start: str, scheme: str, optimizer: str, slope: Slope, theory: float) -> str:
    whose, beside = f"under {scheme} from {start} with {optimizer}", f"theory without a bottleneck {theory:+.2f}"
    if told(slope):
        return f"encoder moves as n^({slope}) {whose}; {beside}"
    return f"how the encoder moves with the width {whose} cannot be told, n^({slope}); {beside}; add widths or seeds"


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _brief(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"
