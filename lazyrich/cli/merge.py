"""``lazyrich merge INTO FROM ...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from lazyrich.cli.command import parse


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def merge(
        into: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INTO")],
        parts: Annotated[
            tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FROM ...", help_behavior_hint="(at least one)")
        ],
    ) -> None:
        """Bring the finished trials of several stores together; the parts are only read.

        Example:
            lazyrich merge runs/whole runs/sweep-calculate-gain

        Args:
            into: run folder or store; made when it is not there.
            parts: run folders or stores.
        """
        from lazyrich.errors import StoreError, UsageError
        from lazyrich.sweep import Store, store_in

        if not parts:
            raise UsageError("got no stores to merge, expected at least one: lazyrich merge INTO FROM ...")
        stores = [store_in(part) for part in parts]
        try:
            place = store_in(into)
        except StoreError:  # a run folder keeps its store beside its page
            place = into / "trials" if any(s.name == "trials" for s in stores) else into
        for part in stores:
            Store(part).close()  # refuses one of another version, before a folder is made for it
        with Store(place) as store:
            new = store.merge(*stores)
            print(f"{sum(store.functions().values())} trials in {place}, {new} of them new")

    parse(merge, "merge", words)
