"""What a sweep shows: means over seeds along its axes, in one table, and in the numbers that the page draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lazyrich.sweep.grid import varied_in
from lazyrich.sweep.results import Results, mean_of
from lazyrich.sweep.trial import Outcome

SEED = "seed"
LINES = 6  # curves of one figure
ROWS = 60  # rows of a table


@dataclass(frozen=True)
class Summary:
    """Means over seeds of the numbers that a sweep's trials returned.

    Attributes:
        title: name of the function.
        results: of the sweep.
        axes: settings that vary in the sweep, without the seed.
        values: names of the returned numbers.
        rows: one record a combination of the axes: settings, and mean, lowest and highest finite one of every value, with
            "odd" where some of several trials returned NaN or an infinity.
        command: how a person repeats the sweep.
    """

    title: str
    results: Results
    axes: tuple[str, ...]
    values: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    command: str = ""

    @property
    def sentence(self) -> str:
        """Where the first value is lowest and highest."""
        left = self.results.total - len(self.results.outcomes)
        failed = len(self.results.failures)
        parts = [f"{left} of {self.results.total} trials {'is' if left == 1 else 'are'} still to come." if left else ""]
        parts += [f"{failed} {'trial' if failed == 1 else 'trials'} failed." if failed else ""]
        known = [row for row in self.rows if self.values and math.isfinite(_mean(row, self.values[0]))]
        if known:
            name = self.values[0]
            low, high = (pick(known, key=lambda row: row[name]["mean"]) for pick in (min, max))
            lowest, highest = (f"{end}{' so far' if left else ''}" for end in ("lowest", "highest"))
            ends = f"{name} is {lowest}, {low[name]['mean']:.4g}, at {self._place(low)}"
            parts.append(ends + (f", and {highest}, {high[name]['mean']:.4g}, at {self._place(high)}." if low != high else "."))
        parts += self._not_finite()
        return " ".join(filter(None, parts)) or "No trial returned a number."

    def _not_finite(self) -> list[str]:
        """Of every value, how many trials returned NaN or an infinity: a mean is neither low nor high then."""
        done = [o.value for o in self.results.outcomes if o.status == "done"]
        found = {name: [n for n in (_returned(value.get(name)) for value in done) if n is not None] for name in self.values}
        odd = {name: sum(not math.isfinite(n) for n in numbers) for name, numbers in found.items()}
        return [
            f"{name} is not finite in {odd[name]} of {len(numbers)} {'trial' if len(numbers) == 1 else 'trials'}."
            for name, numbers in found.items()
            if odd[name]
        ]

    @property
    def unshown(self) -> str:
        """Which names hold lists, that a table of means has no place for; empty where none does."""
        lists = dict.fromkeys(n for o in self.results.outcomes for n, v in o.value.items() if isinstance(v, (list, dict)))
        said = f"Lists among what the trials returned are not shown: {', '.join(lists)}; lazyrich export has them."
        return said if lists else ""

    def _place(self, row: dict[str, Any]) -> str:
        return ", ".join(f"{axis}={row['settings'].get(axis)}" for axis in self.axes) or "its one setting"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON and the page."""
        outcomes = self.results.outcomes
        return {
            "kind": "sweep",
            "title": self.title,
            "sentence": self.sentence,
            "counts": {s: sum(o.status == s for o in outcomes) for s in ("done", "failed", "died")}
            | {"to come": self.results.total - len(outcomes)},
            "axes": list(self.axes),
            "values": list(self.values),
            "rows": [_written(row) for row in self.rows[:ROWS]],
            "rows_in_all": len(self.rows),
            "figures": [self._figure(value) for value in self.values[:LINES]],
            "failures": [{"settings": _text(o), "status": o.status, "error": o.error} for o in self.results.failures[:ROWS]],
            "store": str(self.results.folder),
            "command": self.command,
            "notes": [*self.results.notes, *([self.unshown] if self.unshown else [])],
        }

    def _figure(self, value: str) -> dict[str, Any]:
        """Curves of one value along the numeric axis with most points, one a combination of the others.

        An axis with a value that has no place on a line, such as an infinite one, is among the others.
        """
        along = self._along()
        curves: dict[str, list[tuple[float, dict[str, float]]]] = {}
        for row in self.rows:
            if value in row:
                label = ", ".join(f"{axis}={row['settings'].get(axis)}" for axis in self.axes if axis != along)
                curves.setdefault(label, []).append((float(row["settings"].get(along, 0)) if along else 0.0, row[value]))
        shown = list(curves.items())[:LINES]
        return {
            "value": value,
            "along": along,
            "curves": [
                {"label": label, "x": [x for x, _ in sorted(points, key=_first)]}
                | {end: [_drawn(v, end) for _, v in sorted(points, key=_first)] for end in ("mean", "low", "high")}
                for label, points in shown
            ],
            "left_out": len(curves) - len(shown),
        }

    def _along(self) -> str | None:
        counts = {a: len({row["settings"][a] for row in self.rows}) for a in self.axes if self._numeric(a)}
        return max(counts, key=lambda a: counts[a]) if counts else None

    def _numeric(self, axis: str) -> bool:
        return all(_number(row["settings"].get(axis)) for row in self.rows)

    def __str__(self) -> str:
        shown = self.rows[:ROWS]
        heads = [*self.axes, *self.values[:LINES]]
        cells = [[str(row["settings"].get(a, "")) for a in self.axes] + [_cell(row.get(v)) for v in heads[len(self.axes) :]]
                 for row in shown]  # fmt: skip
        sizes = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
        lines = ["  ".join(word.rjust(size) for word, size in zip(line, sizes, strict=True)) for line in [heads, *cells]]
        more = [f"... and {len(self.rows) - len(shown)} more"] if len(self.rows) > len(shown) else []
        return "\n".join(
            [*(lines if heads and cells else []), *more, "", self.sentence, *filter(None, [self.unshown]), str(self.results)]
        ).strip()


def summarise(results: Results, title: str = "sweep", command: str = "") -> Summary:
    """Means over seeds along the axes of a sweep.

    Example:
        >>> import tempfile
        >>> from lazyrich.sweep import sweep
        >>> axes = {"lr": [1, 2], "seed": [0, 1]}
        >>> found = summarise(sweep(lambda lr, seed: {"loss": lr + seed}, axes, tempfile.mkdtemp() + "/s"))
        >>> found.sentence
        'loss is lowest, 1.5, at lr=1, and highest, 2.5, at lr=2.'
    """
    done = [o for o in results.outcomes if o.status == "done"]
    names = dict.fromkeys(name for o in done for name in o.settings)
    varied = {*varied_in([o.settings for o in done]), *results.varied}  # the first to finish may have one value of every axis
    axes = tuple(n for n in names if n != SEED and n in varied)
    values = tuple(dict.fromkeys(name for o in done for name, v in o.value.items() if _returned(v) is not None))
    groups: dict[str, list[Outcome]] = {}
    for outcome in done:
        groups.setdefault(repr([outcome.settings.get(a) for a in axes]), []).append(outcome)
    return Summary(title, results, axes, values, tuple(_row(axes, values, group) for group in groups.values()), command)


def _row(axes: Sequence[str], values: Sequence[str], group: Sequence[Outcome]) -> dict[str, Any]:
    row: dict[str, Any] = {"settings": {a: group[0].settings.get(a) for a in axes}, "count": len(group)}
    for name in values:
        found = [n for n in (_returned(o.value.get(name)) for o in group) if n is not None]
        finite = [n for n in found if math.isfinite(n)] or found
        if found:
            row[name] = {"mean": mean_of(found), "low": min(finite), "high": max(finite)}
            odd = sum(not math.isfinite(n) for n in found)
            row[name] |= {"odd": f"{odd} of {len(found)} not finite"} if odd and len(found) > 1 else {}
    return row


def _returned(value: Any) -> float | None:
    """A number that a trial returned, also NaN; an integer that no float holds is infinite. None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, 1 if value > 0 else -1)


def _mean(row: dict[str, Any], value: str) -> float:
    return row[value]["mean"] if value in row else math.nan


def _drawn(value: dict[str, Any], end: str) -> float | None:
    """A number that a figure takes: where the mean is not finite, it has a gap."""
    return value[end] if _number(value["mean"]) and _number(value[end]) else None


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1e308  # no NaN, and no integer that no float holds


def _written(value: Any) -> Any:
    """Settings and means as JSON has them: NaN and infinities are words."""
    if isinstance(value, dict):
        return {name: _written(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_written(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _first(pair: tuple[float, Any]) -> float:
    return pair[0]


def _text(outcome: Outcome) -> str:
    return ", ".join(f"{k}={v}" for k, v in outcome.settings.items())


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return "-"
    return f"{value['mean']:.4g}" + (f" ({value['odd']})" if "odd" in value else "")
