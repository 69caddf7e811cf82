"""The outcomes of a sweep, as rows, tables and files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lazyrich.errors import SweepError
from lazyrich.files import write_bytes, write_json, write_text
from lazyrich.sweep.row import uncollected
from lazyrich.sweep.store import Store
from lazyrich.sweep.tidy import tidied
from lazyrich.sweep.trial import Outcome, Settings, plain_settings

SHOWN = 5  # failures that are printed


@dataclass(frozen=True)
class Results:
    """What is known of a sweep's trials.

    Attributes:
        outcomes: of the finished trials, in the order of the grid.
        total: how many trials the sweep has.
        folder: of the store.
        notes: what a person should know, such as outcomes of older code that were not used.
        varied: settings that differ among all trials, also those that are not finished, where that is known.
    """

    outcomes: tuple[Outcome, ...]
    total: int
    folder: Path
    notes: tuple[str, ...] = ()
    varied: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """Outcomes without a value."""
        return tuple(o for o in self.outcomes if o.status != "done")

    def rows(self, tidy: bool = False) -> list[dict[str, Any]]:
        """One record a finished trial: settings, values, status, error and seconds; if ``tidy``, one an entry of its lists.

        Outcomes of several functions or codes, as a whole store has them, are told apart by the columns ``function`` and
        ``code``. A returned value named like a setting or like one of these is ``returned_...``, and left out where it is that
        setting in every trial; those are ``trial_...`` where an axis has the name. Arrays are in no row and no table:
        ``array_names`` tells which there are, ``array`` reads them.
        """
        mixed = self._mixed()
        other = {n for o in self.outcomes for n, value in o.value.items() if n not in o.settings or o.settings[n] != value}
        rows = [_row(o, mixed, other) for o in self.outcomes]
        return tidied(rows) if tidy else rows

    def _mixed(self) -> bool:
        return len({(o.function, o.code) for o in self.outcomes}) > 1

    def array(self, settings: Settings, name: str) -> np.ndarray:
        """An array that the trial with these settings returned."""
        plain = plain_settings(settings)
        alike = [o for o in self.outcomes if o.settings == plain]
        if not alike:
            raise SweepError(f"no finished trial has the settings {settings}")
        found = max(alike, key=lambda o: _kinds(o.settings) == _kinds(plain))
        with Store(self.folder) as store:
            return store.array(found.key, name)

    def array_names(self) -> list[str]:
        """Names of the arrays that trials returned."""
        with Store(self.folder) as store:
            return store.array_names([o.key for o in self.outcomes])

    @uncollected()
    def mean(self, value: str, over: str | Sequence[str] = "seed") -> list[dict[str, Any]]:
        """Mean, standard deviation and count of a returned value over some axes, one record a combination of the others.

        Raises:
            SweepError: for a value that no trial returned, or an axis that there is not.
        """
        axes = [over] if isinstance(over, str) else list(over)
        done = [o for o in self.outcomes if o.status == "done"]
        if not any(value in o.value for o in done):
            known = sorted({name for o in done for name in o.value})
            raise SweepError(f"no trial returned '{value}'; they returned {', '.join(known) or 'nothing'}")
        missing = [axis for axis in axes if not any(axis in o.settings for o in done)]
        if missing:
            raise SweepError(f"there is no axis '{missing[0]}'; the axes are {', '.join(done[0].settings)}")
        groups: dict[str, list[float]] = defaultdict(list)
        kept: dict[str, Settings] = {}
        for outcome in done:
            if outcome.value.get(value) is not None:
                rest = {k: v for k, v in outcome.settings.items() if k not in axes}
                if not isinstance(outcome.value[value], (int, float)):
                    got = type(outcome.value[value]).__name__
                    raise SweepError(f"'{value}' is a {got} in a trial, expected numbers; take rows() or to_pandas()")
                groups[key := repr(rest)].append(_float(outcome.value[value], value))
                kept[key] = rest
        return [{**kept[key], "mean": mean_of(v), "std": _std(v), "count": len(v)} for key, v in groups.items()]

    def write(self, path: str | Path, tidy: bool = False) -> Path:
        """The rows as a table whose kind its name's end tells: .parquet, .csv or .json; written whole or not at all.

        Args:
            path: of the file.
            tidy: a row an entry where trials have lists, as a transfer study's have of learning rates and losses.

        Raises:
            SweepError: for another end.
        """
        path, rows = Path(path), self.rows(tidy)
        if path.suffix == ".parquet":
            return self.to_parquet(path, tidy)
        if path.suffix == ".json":
            return write_json(path, [{name: _known(value) for name, value in row.items()} for row in rows])
        if path.suffix != ".csv":
            raise SweepError(f"got file '{path}', expected one that ends in .parquet, .csv or .json")
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(rows)
        return write_text(path, text.getvalue())

    def to_pandas(self, tidy: bool = False) -> Any:
        """The rows as a ``pandas.DataFrame``."""
        return _needed("pandas").DataFrame(self.rows(tidy))

    def to_parquet(self, path: str | Path, tidy: bool = False) -> Path:
        """The rows in a Parquet file, written whole or not at all."""
        _needed("pyarrow")
        try:
            content = self.to_pandas(tidy).to_parquet(None, index=False)
        except OverflowError as error:
            columns = dict.fromkeys(name for row in self.rows(tidy) for name, value in row.items() if _huge(value))
            raise SweepError(
                f"column '{', '.join(columns) or '?'}' holds an integer of more than 64 bits, which no column of a Parquet file "
                "takes; return it as text or as a float, or export to .csv or .json"
            ) from error
        except (ValueError, TypeError, NotImplementedError) as error:  # pyarrow's own errors are of these kinds
            raise SweepError(
                f"the returned values do not fit the columns of a Parquet file ({str(error).splitlines()[0]}); return the same "
                "kind under a name in every trial, or export to .csv or .json"
            ) from error
        return write_bytes(path, content)

    def to_xarray(self) -> Any:
        """The returned values as an ``xarray.Dataset`` over the axes."""
        _needed("xarray")
        axes = list(dict.fromkeys(name for o in self.outcomes for name in o.settings))
        axes += [f"trial_{name}" if name in axes else name for name in ("function", "code") if self._mixed()]
        table = self.to_pandas()
        try:
            return table.set_index(axes).to_xarray()
        except (ValueError, TypeError) as error:
            raise SweepError(f"the trials do not lie on a grid of {', '.join(axes)} ({error}); use to_pandas()") from error

    def __str__(self) -> str:
        counts = Counter(o.status for o in self.outcomes)
        parts = [f"{counts[s]} {s}" for s in ("done", "failed", "died") if counts[s]]
        left = self.total - len(self.outcomes)
        parts += [f"{left} not run"] if left else []
        lines = [f"{self.total} trials: {', '.join(parts) or 'none run'} (in {self.folder})"]
        alike: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
        for outcome in self.failures:  # what fails of one cause everywhere is said once
            after = f" after {outcome.attempts}" if outcome.attempts else ""
            alike[outcome.status + after, " ".join(outcome.error.split())].append(outcome)
        for (what, error), group in list(alike.items())[:SHOWN]:
            settings = ", ".join(f"{k}={v}" for k, v in group[0].settings.items())
            more = f" and {len(group) - 1} more alike" if len(group) > 1 else ""
            lines.append(f"  {what}: {settings}{more}: {error}")
        if left := sum(len(group) for group in list(alike.values())[SHOWN:]):
            lines.append(f"  and {left} more")
        return "\n".join(lines + list(self.notes))


def _kinds(settings: Settings) -> str:
    """Text that tells 1, 1.0 and True apart."""
    return json.dumps(settings, sort_keys=True)


def mean_of(values: Sequence[float]) -> float:
    """The mean, also of numbers whose sum no float holds, and as floats have it where some are infinite.

    Example:
        >>> mean_of([1e308, 1e308]), mean_of([math.inf, -math.inf])
        (1e+308, nan)
    """
    try:
        return math.fsum(values) / len(values)
    except (OverflowError, ValueError):
        pass
    if not all(map(math.isfinite, values)):
        return sum(values) / len(values)
    scale = max(map(abs, values))
    return scale * (math.fsum(v / scale for v in values) / len(values))


def _std(values: list[float]) -> float:
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    mean = mean_of(values)
    away = [v - mean for v in values]
    try:
        return math.sqrt(math.fsum(v**2 for v in away) / (len(values) - 1))
    except OverflowError:
        scale = max(map(abs, away))
        return scale * math.sqrt(math.fsum((v / scale) ** 2 for v in away) / (len(values) - 1))


def _float(value: float, name: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise SweepError(f"'{name}' is an integer that no float holds in a trial; take rows() or to_pandas()") from error


def _needed(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SweepError(f"{name} is not installed; run: pip install -e 'path/to/lazyrich[export]'") from error


def _huge(value: Any) -> bool:
    """Whether there is an integer in it that 64 bits do not hold."""
    if isinstance(value, (list, tuple, dict)):
        return any(map(_huge, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _known(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(outcome: Outcome, mixed: bool, other: set[str]) -> dict[str, Any]:
    own = {"status": outcome.status, "error": outcome.error, "seconds": outcome.seconds}
    own |= {"function": outcome.function, "code": outcome.code} if mixed else {}
    taken = {*outcome.settings, *own}
    values = {f"returned_{name}" if name in taken else name: v for name, v in outcome.value.items() if name in other}
    return {**outcome.settings, **values, **{f"trial_{n}" if n in outcome.settings else n: v for n, v in own.items()}}
