"""What a transfer study found: curves, optima, their shift, the regret of a transferred learning rate, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from scipy import stats

from lazyrich.files import finite
from lazyrich.measure.ends import Ends, ends_of
from lazyrich.measure.optimum import Optimum, loss_at, optimum
from lazyrich.measure.scatter import Scatter
from lazyrich.measure.slope import Slope, fit_slope
from lazyrich.measure.transfer_sentence import Said, cost, percent, shifted, together
from lazyrich.scaling import Plan

STEADY = 0.15  # octaves a doubling of the width within which a learning rate is said to stay put
WIDER = {
    True: "no width is worse than a narrower one beyond the seeds' scatter",
    False: "wider is NOT always better",
    None: "whether wider is better was not measured",
}
HIDDEN = "whether wider is better is known only to a step of the grid; give a finer one"


@dataclass(frozen=True)
class Transferred:
    """One scheme of a study.

    Attributes:
        name: scheme and optimizer.
        curves: loss by width, one row a seed, one column a learning rate; NaN where training diverged.
        start: loss before training by width.
        best: the smoothed optimum of the seeds' mean curve by width.
        shift: slope of log2(best learning rate) a doubling of the width.
        regret: by width, (loss at the smallest network's optimum - best loss) / (loss before training - best loss), both on
            the smoothed curve; infinite where training diverges there, NaN where it gains nothing.
        regret_error: by width, the half-width of the regret's 95 % interval from the scatter over seeds of what their losses
            differ at these two rates; NaN where one seed tells none.
        wider_is_better: whether no width's best loss is worse than a narrower one's beyond the scatter of their seeds (1 study in
            20 at most says so of widths that do not differ); None where a width has no best loss, with one seed, and where a
            finer grid alone could tell.
        ends: widths whose best learning rate is an end of the grid, for some seeds or all.
        inner: the shift without the seeds whose best is an end of the grid: a flat curve is lowest anywhere.
    """

    name: str
    curves: Mapping[int, np.ndarray]
    start: Mapping[int, float]
    best: Mapping[int, Optimum]
    shift: Slope
    regret: Mapping[int, float]
    regret_error: Mapping[int, float]
    wider_is_better: bool | None
    ends: Ends
    inner: Slope

    @property
    def edges(self) -> tuple[int, ...]:
        """Widths whose best learning rate is an end of the grid, for some seeds or all."""
        return self.ends.places

    @property
    def transfers(self) -> bool | None:
        """Whether the best learning rate stays put; None where the interval cannot tell."""
        words = {_kept(self.shift), _kept(self.inner)}
        return None if self.ends.whole or len(words) > 1 else words.pop()

    @property
    def hidden(self) -> bool:
        """Whether the grid's step alone keeps from telling whether wider is better."""
        several = all(len(curve) > 1 for curve in self.curves.values())
        return self.wider_is_better is None and several and all(math.isfinite(found.loss) for found in self.best.values())

    @property
    def wider(self) -> str:
        """Whether wider is better, in words; a loss that rises by no more than the scatter is told, as neither better nor worse."""
        rises = [
            f"{low} to {high} at width {b}"
            for a, b in pairwise(sorted(self.best))
            if float(low := f"{self.best[a].loss:.3g}") < float(high := f"{self.best[b].loss:.3g}")
        ]
        if self.wider_is_better and rises:
            return (
                f"the loss rises ({', '.join(rises)}), but within the seeds' scatter: add seeds to tell whether wider is worse"
            )
        return HIDDEN if self.hidden else WIDER[self.wider_is_better]

    @property
    def said(self) -> Said:
        """What it means and what to do."""
        if lost := [str(width) for width, curve in self.curves.items() if not np.isfinite(curve).any()]:
            return Said(self.name, f"every training diverged at width {', '.join(lost)}; give smaller learning rates.")
        if self.ends.whole:
            return Said(self.name, f"{self.ends.said('width')}.")
        words, at = self._words(), "a doubling of the width"
        long, short = (shifted(self.shift, list(self.best), self.ends.octaves, unit) for unit in (f" {at}", ""))
        return Said(self.name, words, long, short, at)

    def _words(self) -> str:
        first, last = min(self.best), max(self.best)
        costs = cost(self.regret[last], self.regret_error[last])
        beside = f" ({self.ends.said('width')})" if self.edges else ""
        if self.transfers:
            return (
                f"it transfers (best learning rate {{}}). Tune at width {first}, use lr {self.best[first].lr:.3g} at every width: "
                f"at {last} {costs}.{beside}"
            )
        if self.transfers is False:
            return (
                f"it does not transfer (best learning rate {{}}). Multiply the learning rate by {2**self.shift.value:.2g} at every "
                f"doubling, or use a scheme that keeps it; with width {first}'s, at {last} {costs}.{beside}"
            )
        if coarse := [str(width) for width, found in self.best.items() if found.step]:
            return (
                f"inconclusive (best learning rate {{}}): at width {', '.join(coarse)} the best rate is known to a step of the "
                f"grid only, as where it is the last before training diverges; give a finer grid of learning rates.{beside}"
            )
        if self.edges:
            return f"inconclusive (best learning rate {{}}): {self.ends.said('width')}; or add seeds."
        return "inconclusive (best learning rate {}); add seeds or widths, or a finer grid of learning rates."

    @property
    def sentence(self) -> str:
        """What it means and what to do, in a sentence of its own."""
        return str(self.said)


def _kept(shift: Slope) -> bool | None:
    """Whether a best learning rate that moves so stays put; None where the interval cannot tell."""
    if math.isnan(shift.low):
        return None
    if abs(shift.value) <= STEADY and shift.low >= -2 * STEADY and shift.high <= 2 * STEADY:
        return True
    return False if shift.low > STEADY or shift.high < -STEADY else None


@dataclass(frozen=True)
class DepthShift:
    """How the best learning rate of one scheme moves with the depth, at the widest width.

    Attributes:
        name: scheme and optimizer.
        depths: increasing.
        width: of the networks.
        best: the smoothed optimum by depth.
        shift: slope of log2(best learning rate) a doubling of the depth.
        ends: depths whose best learning rate is an end of the grid, for some seeds or all.
    """

    name: str
    depths: tuple[int, ...]
    width: int
    best: tuple[float, ...]
    shift: Slope
    ends: Ends

    @property
    def edges(self) -> tuple[int, ...]:
        """Depths whose best learning rate is an end of the grid, for some seeds or all."""
        return self.ends.places

    @property
    def said(self) -> Said:
        """What it means."""
        if self.ends.whole:
            return Said(self.name, f"{self.ends.said('depth')}.")
        at = f"a doubling of the depth at width {self.width}"
        long, short = (shifted(self.shift, self.depths, self.ends.octaves, unit) for unit in (f" {at}", ""))
        return Said(self.name, self._words(), long, short, at)

    def _words(self) -> str:
        if self.edges:
            return f"inconclusive in depth ({{}}): {self.ends.said('depth')}; or add seeds."
        if self.shift.low >= -2 * STEADY and self.shift.high <= 2 * STEADY:
            return "the best learning rate stays put as the depth grows ({})."
        if self.shift.low > STEADY or self.shift.high < -STEADY:
            return "the best learning rate moves with the depth ({}); tune it at the depth that you will use."
        return "inconclusive in depth ({}); add seeds or depths, or a finer grid of learning rates."

    @property
    def sentence(self) -> str:
        """What it means, in a sentence of its own."""
        return str(self.said)


@dataclass(frozen=True)
class TransferResult:
    """The result of ``lazyrich.transfer``: a small table when printed, records by ``rows()``, a page by ``lazyrich.render``."""

    title: str
    schemes: tuple[Transferred, ...]
    widths: tuple[int, ...]
    lrs: tuple[float, ...]
    settings: Mapping[str, Any]
    reproduce: Mapping[str, Any]
    depths: tuple[DepthShift, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the schemes do as the width grows, and as the depth does where several were asked; what is true of several once."""
        return together([part.said for part in (*self.schemes, *self.depths)])

    @property
    def sentence(self) -> str:
        """All of them."""
        return " ".join(self.sentences)

    @property
    def wider_lrs(self) -> tuple[float, ...]:
        """The grid with the next rates at the ends where an optimum is; empty where none is at an end."""
        new = {lr for part in (*self.schemes, *self.depths) for lr in part.ends.beyond}
        return tuple(sorted({*self.lrs, *new})) if new else ()

    def rows(self) -> list[dict[str, Any]]:
        """Every training as a flat record."""
        return [
            {"scheme": s.name, "width": width, "seed": seed, "lr": lr, "loss": float(value)}
            for s in self.schemes
            for width in self.widths
            for seed, row in enumerate(s.curves[width])
            for lr, value in zip(self.lrs, row, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; what ``lazyrich.render`` reads."""
        return {
            "kind": "transfer",
            "title": self.title,
            "sentence": self.sentence,
            "sentences": list(self.sentences),
            "settings": dict(self.settings),
            "schemes": [_scheme(s, self.widths, self.lrs) for s in self.schemes],
            "depths": [
                {
                    "name": d.name,
                    "sentence": d.sentence,
                    "depths": list(d.depths),
                    "width": d.width,
                    "best": [finite(b) for b in d.best],
                }
                | {"shift": _interval(d.shift)}
                for d in self.depths
            ],
            "reproduce": dict(self.reproduce),
        }

    def __str__(self) -> str:
        header = ["scheme", "width", "best lr", "loss", "regret of transfer"]
        rows = [
            [s.name, str(w), f"{s.best[w].lr:.3g}" + (" (end of grid)" if s.best[w].edge else ""), f"{s.best[w].loss:.4g}",
             percent(s.regret[w], s.regret_error[w])]
            for s in self.schemes for w in self.widths
        ]  # fmt: skip
        sizes = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        table = ["  ".join(c.ljust(n) for c, n in zip(row, sizes, strict=True)).rstrip() for row in [header, *rows]]
        better = together([Said(s.name, s.wider) for s in self.schemes])
        rule = "-" * max(map(len, table))
        return "\n".join([self.title, *self.sentences, rule, *table, rule, *better, *self.reproduce.get("notes", ())])


def summarise(
    plans: Sequence[Plan], widths: Sequence[int], lrs: Sequence[float], trials: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any], reproduce: Mapping[str, Any],
) -> TransferResult:  # fmt: skip
    """From finished trainings to optima, shifts and sentences."""
    depths = [plan.family.depth if plan.family else None for plan in plans]
    bases = [f"{plan.scheme.name} · {plan.optimizer_name}" for plan in plans]
    many = len(set(depths)) > 1
    names = [f"{name} · depth {depth}" if many else name for name, depth in zip(bases, depths, strict=True)]
    names = [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]
    found = []
    for p, name in enumerate(names):
        own = [trial for trial in trials if trial["plan"] == p]
        curves = {w: np.array([_numbers(t["losses"]) for t in own if t["width"] == w]) for w in widths}
        start = {w: float(np.mean(_numbers([t["start"] for t in own if t["width"] == w]))) for w in widths}
        found.append(transferred(name, lrs, curves, start))
    family = plans[0].family.name if plans[0].family else "network"
    schemes = {plan.scheme.name: None for plan in plans}
    title = f"{family} · {', '.join(schemes)} · learning rate against width"
    rates = f"{len(lrs)} from {lrs[0]:.3g} to {lrs[-1]:.3g}"
    shown = {k: v for k, v in settings.items() if k != "scheme"} | {"schemes": list(schemes), "learning rates": rates}
    shown |= {"depths": depths} if many else {}
    deep = [
        _along_depth(name, {d: f for d, f, b in zip(depths, found, bases, strict=True) if b == name and d is not None}, lrs)
        for name in (dict.fromkeys(bases) if many else ())
    ]
    return TransferResult(title, tuple(found), tuple(widths), tuple(lrs), shown, reproduce, tuple(deep))


def _along_depth(name: str, found: Mapping[int, Transferred], lrs: Sequence[float]) -> DepthShift:
    depths = tuple(sorted(found))
    width = max(found[depths[0]].curves)
    each = [_optima(lrs, found[d].curves[width], found[d].start[width]) for d in depths]
    best = tuple(found[d].best[width].lr for d in depths)
    ends = ends_of(lrs, {d: found[d].best[width] for d in depths}, dict(zip(depths, each, strict=True)))
    return DepthShift(name, depths, width, best, _moved(depths, each, [found[d].best[width] for d in depths]), ends)


def _optima(lrs: Sequence[float], curve: np.ndarray, start: float) -> list[Optimum]:
    """Every seed's."""
    return [optimum(lrs, row, start) for row in curve]


def _moved(along: Sequence[int], each: Sequence[Sequence[Optimum]], best: Sequence[Optimum], inner: bool = False) -> Slope:
    """The slope of every seed's optimum, which may be no better known than to a step of the grid, or as that of the mean curve.

    ``inner`` leaves those at ends of the grid out.
    """
    steps = [float(np.mean([found.step for found in own if not (inner and found.edge)] or [math.nan])) for own in each]
    rates = [[math.nan if inner and found.edge else found.lr for found in row] for row in zip(*each, strict=True)]
    return fit_slope(along, rates, bent=False).on_grid(along, steps, [found.sway for found in best])


def transferred(name: str, lrs: Sequence[float], curves: Mapping[int, np.ndarray], start: Mapping[int, float]) -> Transferred:
    """Optima, shift and regret of one scheme's curves."""
    widths = sorted(curves)
    best = {w: optimum(lrs, _mean(curves[w]), start[w]) for w in widths}
    each = {w: _optima(lrs, curves[w], start[w]) for w in widths}
    kept = best[widths[0]].lr
    regret = {w: _regret(lrs, _mean(curves[w]), kept, start[w]) for w in widths}
    error = {w: _regret_error(lrs, curves[w], (kept, best[w]), start[w]) for w in widths}
    losses = [[loss_at(lrs, row, best[w].lr, start[w]) for row in curves[w]] for w in widths]
    better = _wider_is_better(losses, [best[w] for w in widths])
    shift, inner = (_moved(widths, list(each.values()), list(best.values()), left_out) for left_out in (False, True))
    ends = ends_of(lrs, best, each)
    return Transferred(name, dict(curves), dict(start), best, shift, regret, error, better, ends, inner)


def _wider_is_better(losses: Sequence[Sequence[float]], best: Sequence[Optimum]) -> bool | None:
    """From every seed's loss at the best rate of its width, widths increasing; a ratio where all losses are positive.

    Where a grid lies on a curve is the same for all seeds: what its step alone may make worse is neither better nor worse.
    """
    table, gaps = [np.asarray(row, float) for row in losses], [found.gap for found in best]
    if not all(np.isfinite(row).all() for row in table):
        return None
    if all((row > 0).all() for row in table) and all(found.loss > 0 for found in best):
        table, gaps = [np.log(row) for row in table], [math.log1p(found.gap / found.loss) for found in best]
    scatter, mean = Scatter(table), [float(row.mean()) for row in table]
    if not scatter.freedom:
        return None
    worse = [
        (mean[b] - mean[a], scatter.reach(a, b), math.hypot(gaps[a], gaps[b])) for a, b in combinations(range(len(mean)), 2)
    ]
    if any(more > math.hypot(reach, gap) for more, reach, gap in worse):
        return False
    return None if any(more > reach for more, reach, _ in worse) else True


def _regret(lrs: Sequence[float], losses: np.ndarray, lr: float, start: float) -> float:
    """What a rate costs beside the curve's own optimum, as a part of what training gains there."""
    lowest, got = optimum(lrs, losses, start).loss, loss_at(lrs, losses, lr, start)
    return max(got - lowest, 0.0) / (start - lowest) if start > lowest else math.nan


def _regret_error(lrs: Sequence[float], curve: np.ndarray, rates: tuple[float, Optimum], start: float) -> float:
    """Student's t over the differences of every seed's loss at the transferred rate and at the best of their mean curve.

    Both rates are the same for all seeds, so that what a seed's own optimum is lower by chance adds nothing.
    """
    lr, best = rates
    costs = [loss_at(lrs, row, lr, start) - loss_at(lrs, row, best.lr, start) for row in curve]
    if len(costs) < 2 or not np.isfinite(costs).all() or not start > best.loss:
        return math.nan
    reach = float(stats.t.ppf(0.975, len(costs) - 1)) / math.sqrt(len(costs))
    return reach * float(np.std(costs, ddof=1)) / (start - best.loss)


def _mean(curve: np.ndarray) -> np.ndarray:
    """Geometric mean over seeds where all are positive, else the mean; a rate at which one seed diverged counts as diverged."""
    positive = (curve[np.isfinite(curve)] > 0).all()
    return np.exp(np.log(curve).mean(0)) if positive else curve.mean(0)


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if v is None else float(v) for v in values]


def _scheme(s: Transferred, widths: Sequence[int], lrs: Sequence[float]) -> dict[str, Any]:
    curves = []
    for w in widths:
        mean = _mean(s.curves[w])
        low, high = s.curves[w].min(0), s.curves[w].max(0)
        curves.append(
            {
                "width": w,
                "lrs": list(lrs),
                "mean": [finite(v) for v in mean],
                "low": [finite(v) for v in low],
                "high": [finite(v) for v in high],
                "best": finite(s.best[w].lr),
                "loss": finite(s.best[w].loss),
                "edge": s.best[w].edge,
                "regret": finite(s.regret[w]),
                "regret error": finite(s.regret_error[w]),
            }
        )
    return {
        "name": s.name,
        "sentence": s.sentence,
        "transfers": s.transfers,
        "shift": _interval(s.shift),
        "wider is better": s.wider_is_better,
        "hidden by the grid": s.hidden,
        "curves": curves,
    }


def _interval(slope: Slope) -> dict[str, float | None]:
    return {"value": finite(slope.value), "low": finite(slope.low), "high": finite(slope.high)}
