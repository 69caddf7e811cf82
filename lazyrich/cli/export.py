"""``lazyrich export STORE FILE``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lazyrich.cli.command import parse
from lazyrich.errors import UsageError

if TYPE_CHECKING:
    from lazyrich.sweep import Outcome


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def export(
        store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")],
        file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
        function: str | None = None,
        every_code: bool = False,
        tidy: bool = False,
    ) -> None:
        """Write the trials of a store as a table, one row a trial: settings, values, status, error, seconds.

        Example:
            lazyrich export runs/sweep-calculate-gain trials.csv

        Args:
            store: run folder or store.
            file: ends in .parquet, .csv or .json.
            function: name of the function whose trials are wanted (default: that which was asked for last).
            every_code: also the trials of other functions and of older code, told apart by the columns function and code.
            tidy: a row an entry where trials have lists: one a learning rate of a transfer study, one a richness of a dial.
        """
        from lazyrich.sweep import Results, Store, store_in

        place = store_in(store)
        with Store(place) as kept:
            outcomes = kept.all(function) if every_code else kept.latest(function)
            counts, arrays = kept.functions(), kept.array_names([outcome.key for outcome in outcomes])
        if function and not outcomes:
            known = ", ".join(sorted({name for name, _ in counts}))
            raise UsageError(f"got function '{function}', expected one of the store: {known or 'it holds none'}")
        results = Results(tuple(outcomes), len(outcomes), place)
        print(f"{len(outcomes)} trials in {results.write(file, tidy)}")
        for said in _apart(outcomes):
            print(said)
        lists = dict.fromkeys(name for row in results.rows() for name, value in row.items() if isinstance(value, list))
        if lists and not tidy:
            print(f"lists are in one cell: {', '.join(lists)}; --tidy writes a row an entry")
        if arrays:
            print(
                f"arrays are not in the table: {', '.join(arrays)}; lazyrich.sweep.Store('{place}').array(key, name) reads them"
            )
        others = sum(n for (name, _), n in counts.items() if function in (None, name)) - len(outcomes)
        if others and not every_code:
            what = "of other functions or older code" if function is None else "of older code"
            print(f"{others} more {what} left out: --every-code writes them too, with the columns function and code")

    parse(export, "export", words)


def _apart(outcomes: Sequence[Outcome]) -> list[str]:
    """Which columns tell apart what is not to be averaged over: studies of other settings, a network before it was edited."""
    ours = [outcome for outcome in outcomes if outcome.function.startswith("lazyrich.")]
    studies = list(dict.fromkeys(outcome.settings.get("study") for outcome in ours))
    networks = list(dict.fromkeys(outcome.value.get("network") or "" for outcome in ours))
    edited = len({name.rpartition(" ")[0] for name in networks}) < len(networks)
    return [
        f"they are of {len(values)} {what}, told apart by the column {column}; last finished: {values[-1]}"
        for column, what, values, several in (
            ("study", "studies with other settings (steps, data, ...)", studies, len(studies) > 1),
            ("network", "networks, one as it was before an edit or with other roles", networks, edited),
        )
        if several
    ]
