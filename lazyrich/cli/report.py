"""``lazyrich report RUN``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import tyro

from lazyrich.cli.command import REFRESH, parse
from lazyrich.errors import StoreError, UsageError


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def report(folder: tyro.conf.Positional[Path], out: Path | None = None) -> None:
        """Draw the page of a run folder again; of a sweep, finished or not, with all trials that are kept by now.

        Beside a run that is under way the page goes on loading itself again.
        Of a study (transfer, dial, ...) it is the result that was written last: only the study's own command goes on from there.

        Example:
            lazyrich report runs/demo

        Args:
            folder: a run folder: of a sweep, or with result.json.
            out: where to write the page (default: report.html in the folder).
        """
        from lazyrich.report import render

        beside = folder.parent if folder.is_file() else folder  # the file's own path will do
        busy = _running(folder)
        grown, said = refresh_sweep(folder, busy)
        if said:
            print(said)
        print(f"page: {render(grown or str(folder), out or beside / 'report.html', refresh=REFRESH if busy else None)}")

    parse(report, "report", words)


def _running(folder: Path) -> bool:
    """Whether another process is at work on the trials of a run."""
    from lazyrich.sweep import Store
    from lazyrich.sweep.store import FILE

    if not (folder / "trials" / FILE).is_file():
        return False
    with Store(folder / "trials") as store:
        return store.running()


def refresh_sweep(folder: Path, busy: bool = False) -> tuple[dict[str, Any] | None, str]:
    """A sweep's result as its store has it by now, also in its folder; of a study, words for what its last result lacks.

    ``busy`` says that the run is under way, which draws the rest itself.

    Raises:
        UsageError: where no trial is finished yet, and for trials of a study without a result yet, which only its own command
            can draw.
    """
    from lazyrich.files import read_json, write_json
    from lazyrich.sweep import Results, Store, summarise
    from lazyrich.sweep.store import FILE

    file, trials = folder / "result.json", folder / "trials"
    if not (trials / FILE).is_file():
        return None, ""
    known = read_json(file) if file.is_file() else {}
    with Store(trials) as store:
        names, outcomes = {name for name, _ in store.functions()}, store.latest()
    studies = [name for name in names if name.startswith("lazyrich.")]
    if known.get("kind", "sweep") != "sweep":
        return None, _missing(known, len(outcomes), busy)
    if not outcomes and known:
        return None, ""
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
        Results(tuple(outcomes), total, trials, varied=tuple(known.get("axes", ()))),
        known.get("title") or outcomes[0].function,
        known.get("command", ""),
    )
    with suppress(StoreError):  # of others, who let it be read: its page may be wanted elsewhere
        write_json(file, found.to_dict())
    return found.to_dict(), ""


def _missing(known: Mapping[str, Any], kept: int, busy: bool) -> str:
    """What the result of a study that was interrupted, or is under way, does not show."""
    reproduce = known.get("reproduce", {})
    if not any("Not finished" in note for note in reproduce.get("notes", [])):
        return ""
    so_far = f"This is the last result that was drawn while the study ran; its store holds {kept} finished trials by now."
    if busy:
        return f"{so_far} The study is running: it draws them itself."
    return f"{so_far} To go on from there, and to draw them, give its command again: {reproduce.get('command', '')}"
