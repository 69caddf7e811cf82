"""What keeping a trial costs, and how fast a large store is read; beside Optuna's own storage.

    python benchmarks/sweep_overhead.py

Aims: store and executor below 2 ms a trial, every trial durable (fsync) when it is counted; 100,000 stored trials listed and
averaged in under a second.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import optuna

from lazyrich.sweep import Inline, Outcome, Processes, Store, sweep
from lazyrich.sweep.trial import trial_of

TRIALS = 2000
STORED = 100_000
SEEDS = 10


def nothing(lr: float, seed: int) -> dict[str, float]:
    """A trial that takes no time."""
    return {"loss": lr * seed}


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def grid(trials: int) -> dict[str, list[float]]:
    return {"lr": [1.0 / (i + 1) for i in range(trials // SEEDS)], "seed": list(range(SEEDS))}


def synced(folder: Path) -> float:
    """What the disk itself asks for one durable write."""
    with open(folder / "probe", "ab") as file:

        def write() -> None:
            for _ in range(200):
                file.write(b"x" * 200)
                file.flush()
                os.fsync(file.fileno())

        return timed(write) / 200


def by_optuna(folder: Path, trials: int) -> float:
    """The same trials through Optuna's grid of trials in SQLite, which does not fsync more than ours."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=f"sqlite:///{folder / 'optuna.sqlite'}")
    for lr in grid(trials)["lr"]:
        for seed in range(SEEDS):
            study.enqueue_trial({"lr": lr, "seed": seed})
    return timed(lambda: study.optimize(lambda t: t.suggest_float("lr", 0, 1) * t.suggest_int("seed", 0, 10), n_trials=trials))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"one durable write on this disk: {1e3 * synced(folder):.2f} ms")
        rows = [
            ("in process", timed(lambda: sweep(nothing, grid(TRIALS), folder / "a", executor=Inline())), TRIALS),
            ("in process, all finished before", timed(lambda: sweep(nothing, grid(TRIALS), folder / "a")), TRIALS),
            ("two processes", timed(lambda: sweep(nothing, grid(TRIALS), folder / "b", executor=Processes(2))), TRIALS),
            ("Optuna, SQLite, in process", by_optuna(folder, TRIALS // 10), TRIALS // 10),
        ]
        for what, seconds, trials in rows:
            print(f"{what:34}{1e3 * seconds / trials:8.2f} ms a trial")
        settings = [{"lr": lr, "seed": seed} for lr in grid(STORED)["lr"] for seed in range(SEEDS)]
        trials_ = [trial_of(s, "nothing", "1") for s in settings]
        with Store(folder / "c") as store:
            with store._transaction() as db:  # as fast as can be: filling it is not what is timed
                db.executemany(
                    "INSERT INTO trials VALUES (?, 'nothing', '1', ?, 'done', ?, '[]', '', 0.0, 1, ?)",
                    ((t.key, _json(t.settings), _json({"loss": t.settings["lr"]}), i) for i, t in enumerate(trials_)),
                )
            listed = timed(lambda: store.all("nothing"))
            outcomes = tuple(store.all("nothing"))
        print(
            f"{STORED:,} stored trials: listed in {listed:.2f} s, averaged over seeds in {timed(lambda: _mean(outcomes)):.2f} s"
        )


def _mean(outcomes: tuple[Outcome, ...]) -> None:
    from lazyrich.sweep import Results

    assert len(Results(outcomes, len(outcomes), Path()).mean("loss")) == STORED // SEEDS


def _json(value: object) -> str:
    import json

    return json.dumps(value)


if __name__ == "__main__":
    main()
