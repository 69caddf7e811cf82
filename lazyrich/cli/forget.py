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
            gone = [
                outcome for outcome in everything
                if (failed and outcome.status != "done") or (older_code and outcome.code != latest[outcome.function])
            ]  # fmt: skip
            print(f"{kept.forget([outcome.key for outcome in gone])} of {len(everything)} trials in {place} forgotten")
        _uncount(place.parent / "result.json", [o.status for o in gone if o.code == latest[o.function]])

    parse(forget, "forget", words)


def _uncount(file: Path, statuses: Sequence[str]) -> None:
    """Take forgotten trials off a sweep's counts, or its page would say that they are still to come."""
    from lazyrich.files import read_json, write_json

    known = read_json(file) if file.is_file() and statuses else {}
    if known.get("kind") == "sweep":
        left = {status: max(0, n - statuses.count(status)) for status, n in known["counts"].items()}
        write_json(file, known | {"counts": left})
