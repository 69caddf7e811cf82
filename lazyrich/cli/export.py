"""``lazyrich export STORE FILE``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from lazyrich.cli.command import parse
from lazyrich.errors import UsageError


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def export(
        store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")],
        file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
        function: str | None = None,
    ) -> None:
        """Write the trials of a store as a table, one row a trial: settings, values, status, error, seconds.

        Example:
            lazyrich export runs/sweep-calculate-gain trials.csv

        Args:
            store: run folder or store.
            file: ends in .parquet, .csv or .json.
            function: name of the function whose trials are wanted, where the store holds several.
        """
        from lazyrich.sweep import Results, Store, store_in

        place = store_in(store)
        with Store(place) as kept:
            outcomes, known = tuple(kept.all(function)), sorted({name for name, _ in kept.functions()})
        if function and not outcomes:
            raise UsageError(f"got function '{function}', expected one of the store: {', '.join(known) or 'it holds none'}")
        written = Results(outcomes, len(outcomes), place).write(file)
        print(f"{len(outcomes)} trials in {written}")

    parse(export, "export", words)
