"""``lazyrich report RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from lazyrich.cli.command import parse
from lazyrich.errors import UsageError


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def report(folder: tyro.conf.Positional[Path], out: Path | None = None) -> None:
        """Draw the page of a run folder again; of a sweep, finished or not, with all trials that are kept by now.

        Example:
            lazyrich report runs/demo

        Args:
            folder: a run folder: of a sweep, or with result.json.
            out: where to write the page (default: report.html in the folder).
        """
        from lazyrich.report import render

        refresh_sweep(folder)
        print(f"page: {render(str(folder), out or folder / 'report.html')}")

    parse(report, "report", words)


def refresh_sweep(folder: Path) -> None:
    """Bring result.json of a sweep's folder up to what its store holds.

    Raises:
        UsageError: where no trial is finished yet, and for trials of a study without a result yet, which only its own command
            can draw.
    """
    from lazyrich.files import read_json, write_json
    from lazyrich.sweep import Results, Store, summarise
    from lazyrich.sweep.store import FILE

    file, trials = folder / "result.json", folder / "trials"
    if not (trials / FILE).is_file():
        return
    known = read_json(file) if file.is_file() else {}
    with Store(trials) as store:
        names, outcomes = {name for name, _ in store.functions()}, store.latest()
    studies = [name for name in names if name.startswith("lazyrich.")]
    if known.get("kind", "sweep") != "sweep":
        return
    if not outcomes and known:
        return
    if not outcomes:
        raise UsageError(
            f"no trial of {folder} is finished yet, so there is nothing to draw; give the command again once one is"
        )
    if studies:
        raise UsageError(
            f"{folder} holds {len(outcomes)} finished trials of {studies[0]} and no result yet; give the command that made it "
            "again: it continues, and draws the page as soon as there is something to compare"
        )
    total = max(len(outcomes), sum(known.get("counts", {}).values()))
    found = summarise(
        Results(tuple(outcomes), total, trials), known.get("title") or next(iter(names)), known.get("command", "")
    )
    write_json(file, found.to_dict())
