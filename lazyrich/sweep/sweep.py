"""A function over many settings: what is finished is kept, what is not is run, wherever there is room."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from lazyrich.errors import SweepError
from lazyrich.fingerprint import fingerprint
from lazyrich.sweep.executor import Executor, Inline, executor_for
from lazyrich.sweep.grid import grid, part_of, shard_of, varied_in
from lazyrich.sweep.misfit import refuse_misfit
from lazyrich.sweep.promised import Promised
from lazyrich.sweep.results import Results
from lazyrich.sweep.tracker import trackers_of
from lazyrich.sweep.trial import Outcome, Trial, name_of, trial_of

Progress = Callable[[int, int, str], None]
Callback = Callable[[Outcome], None]
Proposer = Callable[[Sequence[Outcome]], Sequence[Mapping[str, Any]]]
EVERY = 5.0  # seconds between results so far
SHARE = 10.0  # and as many times what showing them takes
POLL = 0.2  # seconds between looks at trials that another process is running


def sweep(
    function: Callable[..., Any],
    trials: Mapping[str, Sequence[Any]] | Iterable[Mapping[str, Any]] | Proposer,
    store: str | Path,
    *,
    executor: Executor | str | None = None,
    name: str | None = None,
    code: str | None = None,
    shard: tuple[int, int] | str | None = None,
    together: Sequence[str] = (),
    retry_failed: bool = False,
    progress: Progress | None = None,
    callbacks: Sequence[Callback | str] | Callback | str = (),
    so_far: Callable[[Results], None] | None = None,
) -> Results:
    """Call a function with every settings of a grid, once, and keep what it returns.

    Every finished trial is durable at once, under a key made of the function's name, its code and the settings; the same call
    continues where the last one stopped, whether that was Ctrl-C, a kill or a full disk. Changed code makes new keys, and the
    result says that older outcomes were not used. Several processes may run the same call at a time and share the trials.

    Args:
        function: called as ``function(**settings)``; returns numbers, text, lists, dictionaries or arrays, by name.
        trials: named axes (their product), a list of settings, or a function that is given the outcomes of the settings it
            last proposed and proposes the next, until it proposes none.
        store: folder of the outcomes.
        executor: where trials run; in this process by default. See ``executor_for``.
        name: of the function, in keys; ``module.name`` by default.
        code: fingerprint of its code, in keys; that of the file that defines it by default.
        shard: (i, n): only the i-th of n parts, of equal size and mixed by a digest of the settings, so that no part has all the
            costly ones; merge the stores of all shards afterwards.
        together: axes whose values are not parted by shards, such as one that grows from call to call.
        retry_failed: run trials again that failed or died.
        progress: called with (trials finished, in all, what came last).
        callbacks: called with every outcome once it is kept, or texts for ``tracker_for``; one that raises is not called
            again, which the result's notes say: a tracker that is down loses no trial.
        so_far: called with what is finished, every few seconds, for pages that are looked at while trials run.

    Returns:
        The outcomes in the order of the trials.

    Raises:
        SweepError: for an empty grid, settings that are no plain values or not those that the function takes, or a function
            that cannot travel. What is refused before any trial leaves no folder.
        StoreError: for a folder that cannot be used, or a full disk; what is finished stays.

    Example:
        >>> import tempfile
        >>> results = sweep(lambda lr, seed: {"loss": lr + seed}, {"lr": [1, 2], "seed": [0, 1]}, tempfile.mkdtemp() + "/s")
        >>> [row["loss"] for row in results.rows()]
        [1, 2, 2, 3]
    """
    if not callable(function):
        raise SweepError(f"got {function!r} as the function of the sweep, expected one that is called as function(**settings)")
    if isinstance(executor, str):
        executor = executor_for(executor)
    if isinstance(shard, str):
        shard = shard_of(shard)
    told = _Told(progress, trackers_of(callbacks), so_far)
    job = _Job(function, name or name_of(function), code or fingerprint(function), executor or Inline(), retry_failed, told)
    if callable(trials) and shard is not None:
        raise SweepError(
            "got shard= with a function that proposes trials, which sees the outcomes of all; give a grid or a list"
        )
    wanted = {} if callable(trials) else _by_key(_part(job.trials(_settings(trials)), shard, together))
    with Promised(store, job.name, job.code) as kept:
        try:
            if callable(trials):
                _proposed(job, kept, trials, wanted)
            else:
                job.fill(kept, list(wanted.values()))
        except BaseException:  # interrupted, or refused: what is finished is shown all the same
            told.last(lambda: job.results(kept, list(wanted.values())))
            raise
        kept.store()  # a shard without trials has a store to be merged all the same
        return job.results(kept, list(wanted.values()))


def _by_key(trials: Sequence[Trial]) -> dict[str, Trial]:
    return {trial.key: trial for trial in trials}


def _settings(trials: Any) -> Any:
    """One mapping a trial, from axes or from whatever yields them."""
    if isinstance(trials, Mapping):
        return grid(trials)
    if isinstance(trials, str):
        return trials  # which is refused where trials are made
    if not isinstance(trials, Iterable):
        raise SweepError(
            f"got {trials!r} as trials, expected axes {{'lr': [0.1]}}, a list of settings, or a function of outcomes"
        )
    return list(trials)


class _Told:
    """Who hears of the sweep."""

    def __init__(self, progress: Progress | None, callbacks: list[Callback], so_far: Callable[[Results], None] | None) -> None:
        self.progress, self.callbacks, self.so_far = progress, callbacks, so_far
        self.notes: list[str] = []
        self._next = time.monotonic()

    def of_progress(self, done: int, total: int, what: str) -> None:
        if self.progress:
            self.progress(done, total, what)

    def of_outcome(self, outcome: Outcome) -> None:
        for callback in list(self.callbacks):
            try:
                callback(outcome)
            except Exception as error:  # whatever a tracker raises; the trial is kept already
                self.callbacks.remove(callback)
                name = getattr(callback, "__name__", type(callback).__name__)
                self.notes.append(f"{name} failed and was not called again: {type(error).__name__}: {error}")

    def of_results(self, results: Callable[[], Results]) -> None:
        start = time.monotonic()
        if self.so_far and start >= self._next:
            try:
                self.so_far(results())
            except Exception as error:  # a page that cannot be drawn stops no trial
                self.so_far = None
                self.notes.append(f"what is finished could not be shown while trials ran: {type(error).__name__}: {error}")
            self._next = time.monotonic() + max(EVERY, SHARE * (time.monotonic() - start))

    def last(self, results: Callable[[], Results]) -> None:
        """Show what is finished on the way out; what stops the sweep is told, not what stops this."""
        if self.so_far:
            with suppress(Exception):
                found = results()
                if found.outcomes:
                    self.so_far(found)


class _Job:
    """A function to be called, and how."""

    def __init__(
        self, function: Callable[..., Any], name: str, code: str, executor: Executor, again: bool, told: _Told
    ) -> None:
        self.function, self.name, self.code = function, name, code
        self.executor, self.again, self.told = executor, again, told

    def trials(self, settings: Sequence[Mapping[str, Any]], twice: bool = False) -> list[Trial]:
        """One a settings; equal ones are refused but where ``twice`` allows them."""
        odd = settings if isinstance(settings, str) else next((s for s in settings if not isinstance(s, Mapping)), None)
        if odd is not None:
            raise SweepError(
                f"got {odd!r} among the trials, expected settings by name as {{'lr': 0.1}}, or axes {{'lr': [0.1]}}"
            )
        made = [trial_of(s, self.name, self.code) for s in settings]
        refuse_misfit(self.function, self.name, [trial.settings for trial in made])
        if not made:
            raise SweepError("got an empty list of settings, expected at least one, for example [{'lr': 0.1}]")
        if not twice and len({trial.key for trial in made}) < len(made):
            seen: set[str] = set()
            again = next(trial for trial in made if trial.key in seen or seen.add(trial.key))
            raise SweepError(f"the settings {again.settings} are there twice; give every one once")
        return made

    def fill(self, store: Promised, wanted: Sequence[Trial]) -> None:
        """Run what is not finished and not claimed by others, and wait for what others have claimed."""
        tried: set[str] = set()
        while True:
            status = store.status([trial.key for trial in wanted])
            missing = [t for t in wanted if t.key not in tried and not self._over(status.get(t.key))]
            self.told.of_progress(len(wanted) - len(missing), len(wanted), "continuing" if status else "starting")
            if not missing:
                return
            ran = self._run(store, missing, wanted)
            tried |= ran
            if not ran:
                time.sleep(POLL)

    def _over(self, status: str | None) -> bool:
        return status == "done" or (status is not None and not self.again)

    def _run(self, store: Promised, missing: Sequence[Trial], wanted: Sequence[Trial]) -> set[str]:
        before, total = len(wanted) - len(missing), len(wanted)
        claimed = (trial for trial in missing if store.claim(trial, self.again))
        ran: set[str] = set()
        with closing(self.executor.run(self.function, claimed)) as outcomes:
            for outcome in outcomes:
                store.put(outcome)
                ran.add(outcome.key)
                self.told.of_outcome(outcome)
                last = ", ".join(f"{k}={v}" for k, v in outcome.settings.items())
                self.told.of_progress(before + len(ran), total, f"{outcome.status}: {last}"[:80])
                self.told.of_results(lambda: self.results(store, wanted))
        return ran

    def results(self, store: Promised, wanted: Sequence[Trial]) -> Results:
        """What is finished, in the order of the trials."""
        found = store.get([trial.key for trial in wanted])
        outcomes = tuple(found[trial.key] for trial in wanted if trial.key in found)
        varied = varied_in([trial.settings for trial in wanted])
        return Results(outcomes, len(wanted), store.path, (*self._notes(store), *self.told.notes), varied)

    def _notes(self, store: Promised) -> tuple[str, ...]:
        older = sum(n for (name, code), n in store.functions().items() if name == self.name and code != self.code)
        if not older:
            return ()
        said = "1 outcome of other code is" if older == 1 else f"{older} outcomes of other code are"
        return (f"The code of {self.name} has changed: {said} in {store.path} and not used.",)


def _proposed(job: _Job, store: Promised, propose: Proposer, everything: dict[str, Trial]) -> None:
    """Run what is proposed, which is entered in ``everything``, until nothing is."""
    last: list[Trial] = []
    try:
        while True:
            found = store.get([trial.key for trial in last])
            proposed, last = propose([found[trial.key] for trial in last]), []
            settings = [] if proposed is None else _settings(proposed)
            if not settings:
                return
            last = job.trials(settings, twice=True)
            everything |= _by_key(last)
            job.fill(store, list(_by_key(last).values()))
    except BaseException:
        with suppress(Exception):  # what stops the sweep is told, not what stops this
            _stopped(store, propose, last)
        raise


def _stopped(store: Promised, propose: Proposer, last: Sequence[Trial]) -> None:
    """Tell a proposer that wants to know what is known of its last proposals."""
    if hasattr(propose, "stop"):
        found = store.get([trial.key for trial in last])
        propose.stop([found.get(trial.key) for trial in last])


def _part(trials: list[Trial], shard: tuple[int, int] | None, together: Sequence[str]) -> list[Trial]:
    parts = part_of([trial.settings for trial in trials], shard, together)
    return [trial for trial, (mine, _) in zip(trials, parts, strict=True) if mine]
