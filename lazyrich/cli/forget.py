"""``lazyrich forget STORE``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from lazyrich.cli.command import parse
from lazyrich.errors import UsageError


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def forget(
        store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")],
        failed: bool = False,
        older_code: bool = False,
    ) -> None:
        """Remove trials of a store that nobody wants any more, with their arrays, all at once or none.

        Example:
            lazyrich forget runs/sweep-calculate-gain --failed

        Args:
            store: run folder or store.
            failed: those that failed or died.
            older_code: those of every function's code but that which was asked for last.
        """
        from lazyrich.sweep import Store, store_in

        if not (failed or older_code):
            raise UsageError("got no trials to forget, expected --failed, --older-code or both")
        place = store_in(store)
        with Store(place) as kept:
            everything = kept.all()
            latest = kept.codes()
            keys = [
                outcome.key for outcome in everything
                if (failed and outcome.status != "done") or (older_code and outcome.code != latest[outcome.function])
            ]  # fmt: skip
            print(f"{kept.forget(keys)} of {len(everything)} trials in {place} forgotten")

    parse(forget, "forget", words)
