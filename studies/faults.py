"""What a sweep survives: workers killed at random, killed parents, a full disk, two parents, killed cluster workers.

    python studies/faults.py            (about three minutes)
    python studies/faults.py ray        (with Ray installed)

Every trial writes a line before it returns. Claimed, of every fault: the store opens and is whole, every trial is in it exactly
once with its right value, and none that was in it ran again. Trials that a kill caught between their return and the store
run twice by necessity; they are counted.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lazyrich.errors import LazyrichError
from lazyrich.sweep import Executor, Processes, Store, executor_for, sweep

KILLS = 200
SLEEP = 0.05


@dataclass
class Tally:
    """What was seen of one fault."""

    fault: str
    trials: int
    faults: int
    there: int = 0
    wrong: int = 0
    lost: int = 0
    twice: int = 0
    again: int = 0
    whole: str = ""


def trial(a: int, log: str) -> dict[str, int]:
    """A small training: some time, a line, a number."""
    time.sleep(SLEEP)
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{a}\n")
    return {"square": a * a}


def settings(count: int, log: Path) -> list[dict[str, object]]:
    return [{"a": a, "log": str(log)} for a in range(count)]


def children(parent: int, words: str) -> list[int]:
    """Processes below one whose command line holds some words."""
    above, found = {}, []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline") as line:
            above[pid] = int(stat.read().rpartition(")")[2].split()[1])
            if words in line.read():
                found.append(pid)

    def below(pid: int) -> bool:
        return pid == parent or (pid in above and below(above[pid]))

    return [pid for pid in found if below(pid)]


def judged(fault: str, folder: Path, log: Path, count: int, faults: int, again: int = 0) -> Tally:
    """The store, after everything."""
    tally = Tally(fault, count, faults, again=again)
    with sqlite3.connect(folder / "trials.sqlite") as db:
        tally.whole = db.execute("PRAGMA integrity_check").fetchone()[0]
    with Store(folder) as store:
        kept = store.all()
    times = Counter(o.settings["a"] for o in kept)
    tally.there = sum(times[a] == 1 for a in range(count))
    tally.lost = sum(times[a] == 0 for a in range(count))
    tally.wrong = sum(o.status != "done" or o.value != {"square": o.settings["a"] ** 2} for o in kept)
    tally.twice = sum(n > 1 for n in Counter(log.read_text().split()).values())
    return tally


def killed_workers(folder: Path, kills: int, executor: Executor, words: str, pause: float, count: int, fault: str) -> Tally:
    """Kill -9 a random worker again and again while trials run."""
    log, over, draw, killed = folder / "log", threading.Event(), random.Random(0), 0

    def kill() -> None:
        nonlocal killed
        while killed < kills and not over.wait(pause * draw.uniform(0.5, 1.5)):
            for pid in draw.sample(found := children(os.getpid(), words), min(1, len(found))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        while killed < kills:  # trials go on until all kills are done
            sweep(trial, settings(count, log), folder / "s", executor=executor, code="1")
            count += 200 if killed < kills else 0
    finally:
        over.set()
        thread.join()
    sweep(trial, settings(count, log), folder / "s", executor=executor, code="1")
    return judged(fault, folder / "s", log, count, killed)


PARENT = """
import sys
sys.path.insert(0, {here!r})
from faults import parent
parent({folder!r}, {count})
"""


def parent(folder: str, count: int) -> None:
    """One whole sweep in a process of its own."""
    sweep(trial, settings(count, Path(folder) / "log"), Path(folder) / "s", executor=Processes(2), code="1", name="trial")


def start(folder: Path, count: int, limit: int | None = None) -> subprocess.Popen[str]:
    code = PARENT.format(here=str(Path(__file__).parent), folder=str(folder), count=count)
    limited = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, preexec_fn=limited)


def in_store(folder: Path) -> set[int]:
    """The trials that a store holds, by their number."""
    with contextlib.suppress(LazyrichError), Store(folder / "s") as store:
        return {o.settings["a"] for o in store.all()}
    return set()


def killed_parents(folder: Path, kills: int = 20, count: int = 300) -> Tally:
    """Kill -9 the process that runs the sweep, at random times, and repeat the command."""
    draw, again, log = random.Random(1), 0, folder / "log"
    log.touch()
    for _ in range(kills):
        before, lines = in_store(folder), len(log.read_text().split())
        running = start(folder, count)
        time.sleep(draw.uniform(0.8, 2.0))
        running.kill()
        running.communicate()
        time.sleep(0.2)  # the workers see that it is gone
        again += sum(int(a) in before for a in log.read_text().split()[lines:])
    start(folder, count).communicate()
    return judged("kill -9 of the parent", folder / "s", log, count, kills, again)


def full_disk(folder: Path, count: int = 300) -> Tally:
    """A limit on the size of files, which SQLite meets as a full disk; then room, and the same command."""
    running = start(folder, count, limit=400_000)
    _, said = running.communicate()
    kept = in_store(folder)
    assert running.returncode != 0
    assert "make room" in said, said
    lines = len((folder / "log").read_text().split())
    start(folder, count).communicate()
    again = sum(int(a) in kept for a in (folder / "log").read_text().split()[lines:])
    return judged(f"a full disk after {len(kept)} trials", folder / "s", folder / "log", count, 1, again)


def two_parents(folder: Path, count: int = 300) -> Tally:
    """The same command twice at a time."""
    both = [start(folder, count) for _ in range(2)]
    for running in both:
        running.communicate()
    return judged("two parents on one store", folder / "s", folder / "log", count, 1)


def main() -> None:
    cases = [
        ("workers", lambda f: killed_workers(f, KILLS, Processes(4, retries=100), "lazyrich.sweep.worker", 0.4, 600,
                                             "kill -9 of a random worker")),
        ("parents", killed_parents),
        ("disk", full_disk),
        ("two", two_parents),
        ("dask", lambda f: killed_workers(f, 5, executor_for("dask", 2), "spawn_main", 1.5, 200, "kill -9 of a Dask worker")),
        ("ray", lambda f: killed_workers(f, 5, executor_for("ray", 2), "ray::attempt_packed", 1.5, 200, "kill -9 of a Ray worker")),
    ]  # fmt: skip
    asked = sys.argv[1:] or [name for name, _ in cases[:-1]]
    heads = ("fault", "faults", "trials", "there once", "lost", "wrong", "ran again", "caught", "integrity", "seconds")
    print(f"{heads[0]:32}" + "".join(f"{head:>11}" for head in heads[1:]))
    for name, case in cases:
        if name not in asked:
            continue
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            t = case(Path(folder))
        cells = (t.faults, t.trials, t.there, t.lost, t.wrong, t.again, t.twice, t.whole, f"{time.perf_counter() - begun:.0f}")
        print(f"{t.fault:32}" + "".join(f"{cell!s:>11}" for cell in cells), flush=True)
        assert t.there == t.trials
        assert t.lost == t.wrong == t.again == 0
        assert t.whole == "ok"


if __name__ == "__main__":
    main()
