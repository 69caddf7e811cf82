"""Supervised processes of this machine: one that dies is replaced, and its trial tried again a bounded number of times."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lazyrich.errors import SweepError
from lazyrich.sweep.packed import packed
from lazyrich.sweep.trial import Outcome, Trial, harmless

STARTS = 10  # workers in a row that die before they take a trial, before the sweep is given up
TAIL = 300  # characters of a dead process's last words


class Processes:
    """Local worker processes, each started afresh and given the function once.

    Args:
        workers: how many; all cores by default.
        retries: how often a trial is tried again whose process died (out of memory, killed, crashed).
        timeout: seconds a trial may take before its process is killed, which counts as dying.
        threads: of torch and BLAS a worker: on a busy machine two are slower than one.

    Raises:
        SweepError: for numbers that make no team.

    Example:
        >>> [outcome.value for outcome in Processes(workers=1).run(lambda a: abs(a), iter([Trial("k", {"a": -2})]))]
        [{'value': 2}]
    """

    def __init__(self, workers: int | None = None, retries: int = 2, timeout: float | None = None, threads: int = 1) -> None:
        self.workers = workers if workers is not None else os.cpu_count() or 1
        for name, number, least in (("workers", self.workers, 1), ("retries", retries, 0), ("threads", threads, 1)):
            if number < least:
                raise SweepError(f"got {name}={number}, expected at least {least}")
        if timeout is not None and not timeout > 0:
            raise SweepError(f"got timeout={timeout}, expected a positive number of seconds")
        self.retries, self.timeout, self.threads = retries, timeout, threads

    def run(self, function: Callable[..., Any], trials: Iterator[Trial]) -> Generator[Outcome, None, None]:
        """Outcomes as they finish; closing the iterator ends the workers."""
        team = _Team(packed(function), self)
        try:
            yield from team.run(trials)
        finally:
            team.end()


class _Team:
    def __init__(self, function: bytes, asked: Processes) -> None:
        self.function, self.asked = function, asked
        self.workers: list[_Worker] = []
        self.again: deque[tuple[Trial, int]] = deque()  # trials whose worker died, with the attempts so far
        self.stillborn = 0

    def run(self, trials: Iterator[Trial]) -> Generator[Outcome, None, None]:
        while True:
            self._employ(trials)
            if not self.workers:
                return
            yield from self._hear()

    def _employ(self, trials: Iterator[Trial]) -> None:
        """Give every free worker a trial, start workers while there are trials for them, let the others go."""
        while True:
            free = next((w for w in self.workers if w.ready and w.trial is None), None)
            if free is None and len(self.workers) >= self.asked.workers:
                return
            job = self.again.popleft() if self.again else next(((trial, 0) for trial in trials), None)
            if job is None:
                self._dismiss()
                return
            if free is None:
                free = _Worker(self.function, self.asked.threads)
                self.workers.append(free)
            free.give(*job)

    def _dismiss(self) -> None:
        for worker in [w for w in self.workers if w.trial is None]:
            worker.end()
            self.workers.remove(worker)

    def _hear(self) -> Iterator[Outcome]:
        limit = self.asked.timeout or math.inf
        soonest = min((w.since + limit for w in self.workers if w.ready), default=math.inf)
        heard = wait(
            [w.connection for w in self.workers], None if soonest == math.inf else max(0.0, soonest - time.monotonic())
        )
        for worker in [w for w in self.workers if w.connection in heard]:
            outcome = self._listen(worker)
            if outcome is not None:
                yield outcome
        for worker in [w for w in self.workers if w.ready and w.trial and time.monotonic() - w.since > limit]:
            answered = worker.connection.poll()  # while whoever took the last outcome was busy
            outcome = self._listen(worker) if answered else self._bury(worker, f"took longer than {limit:g} s")
            if outcome is not None:
                yield outcome

    def _listen(self, worker: _Worker) -> Outcome | None:
        try:
            said, what = worker.connection.recv()
        except (EOFError, OSError):
            return self._bury(worker, worker.last_words())
        if said == "ready":
            worker.ready, worker.since, self.stillborn = True, time.monotonic(), 0
            return None
        if said == "edited":
            raise SweepError(what)
        if said == "refused":
            raise SweepError(f"a worker cannot load the function: {what}; can the module be imported from {os.getcwd()}?")
        attempts, worker.trial = worker.attempts, None
        return dataclasses.replace(what, attempts=attempts + 1)

    def _bury(self, worker: _Worker, why: str) -> Outcome | None:
        """Its trial goes back to the queue, or is recorded as died."""
        worker.end()
        self.workers.remove(worker)
        self.stillborn += not worker.ready
        if self.stillborn >= STARTS:
            raise SweepError(f"{STARTS} worker processes died before they took a trial: {why}")
        if worker.trial is None:
            return None
        attempts = worker.attempts + worker.ready
        if attempts <= self.asked.retries:
            self.again.append((worker.trial, attempts))
            return None
        return Outcome(worker.trial.key, worker.trial.settings, "died", error=why, attempts=attempts)

    def end(self) -> None:
        for worker in self.workers:
            worker.end()
        self.workers.clear()


class _Worker:
    """One process, and the trial that it has."""

    def __init__(self, function: bytes, threads: int) -> None:
        here, there = socket.socketpair()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  what trials print does not mix with what workers say
        env = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lazyrich.sweep.worker", str(there.fileno())],
            pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
            env={**os.environ, **env, "PYTHONPATH": os.pathsep.join(_path())},
        )  # fmt: skip
        there.close()
        self.connection = Connection(here.detach())
        self.ready, self.since = False, time.monotonic()
        self.trial: Trial | None = None
        self.attempts = 0
        self._say((sys.path, function))

    def give(self, trial: Trial, attempts: int) -> None:
        self.trial, self.attempts, self.since = trial, attempts, time.monotonic()
        self._say(trial)

    def _say(self, what: Any) -> None:
        with contextlib.suppress(OSError):  # it is dead, which the next look at its connection shows
            self.connection.send(what)

    def last_words(self) -> str:
        code = self.process.wait()
        name = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        self.log.seek(0)
        words = self.log.read()[-TAIL:].decode(errors="replace")
        words = harmless(words).strip()
        return f"the process was {name}" + (f"; its last words: {words}" if words else "")

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()
        self.log.close()


def _path() -> list[str]:
    """Where a new process finds this very package."""
    return [str(Path(__file__).parents[3]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
