"""Trials on a Dask cluster.

Start one with ``dask scheduler`` on one machine and ``dask worker HOST:8786 --nthreads 1 --nworkers 8`` on each of the others,
then give ``dask://HOST:8786``. Without an address a cluster of local processes is started for the sweep. Workers need lazyrich
installed, and whatever the function imports.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

from lazyrich.errors import SweepError
from lazyrich.sweep.executor.futures import HOW
from lazyrich.sweep.packed import attempt_packed, packed
from lazyrich.sweep.trial import Outcome, Trial

BEAT = 0.1  # seconds between looks at the connection to the scheduler


class Dask:
    """Dask's own scheduler: a killed worker's trial is given to another one, up to ``allowed-failures`` (3) times.

    Dask blames whatever waited on a worker that died, so trials that it gives up are tried once more at the end, each alone.

    Args:
        address: ``host:port`` of a scheduler; none for a local cluster.
        workers: of a local cluster.

    Raises:
        SweepError: if Dask is not installed or the cluster does not answer.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        try:
            import distributed
        except ImportError as error:
            raise SweepError("Dask is not installed; run: pip install -e 'path/to/lazyrich[dask]'") from error
        self._distributed = distributed
        self.address, self.workers = address, workers

    def run(self, function: Callable[..., Any], trials: Iterator[Trial]) -> Generator[Outcome, None, None]:
        """Outcomes as they finish; closing the iterator cancels the rest.

        Raises:
            SweepError: if the scheduler is gone; trials that were under way stay unfinished.
        """
        client = self._connect()
        try:
            yield from self._outcomes(client, function, trials)
        finally:
            with _silent(), suppress(asyncio.TimeoutError, OSError):  # of a scheduler that is gone
                client.close()
            if self.address is None and client.cluster is not None:
                client.cluster.close()

    def _outcomes(self, client: Any, function: Callable[..., Any], trials: Iterator[Trial]) -> Iterator[Outcome]:
        with self._there(client):
            data = client.submit(_held, packed(function), pure=False)  # made anew where every worker that held it is gone
            slots = 2 * max(1, sum(client.ncores().values()))
        finished = self._distributed.as_completed(loop=client.loop)
        names: dict[str, Trial] = {}
        suspects: list[Trial] = []

        def submit(trial: Trial, again: str = "") -> None:
            with self._there(client):
                future = client.submit(attempt_packed, data, trial, key=f"trial-{trial.key}{again}", pure=False)
            names[future.key] = trial
            finished.add(future)

        while True:
            for trial in itertools.islice(trials, slots - len(names)):
                submit(trial)
            alone = not names
            if alone and suspects:
                submit(suspects.pop(0), "-alone")
            if not names:
                return
            with self._there(client):
                future = _next(client, finished)
                outcome = _outcome(client, future, names.pop(future.key))
            if outcome.status == "died" and not alone:
                suspects.append(Trial(outcome.key, outcome.settings))
            else:
                yield outcome

    @contextmanager
    def _there(self, client: Any) -> Iterator[None]:
        """What a client raises that has lost its scheduler, in words."""
        try:
            yield
        except Exception as error:
            if _connected(client) and not isinstance(error, CancelledError):
                raise
            place = f"'{self.address}'" if self.address else "of this machine"
            raise SweepError(
                f"the Dask scheduler {place} is gone ({type(error).__name__}); finished trials are kept, those under way are not: "
                "start it and its workers again, then repeat the same command"
            ) from error

    def _connect(self) -> Any:
        try:
            if self.address is not None:
                return self._distributed.Client(self.address, timeout=5, set_as_default=False)
            return self._distributed.Client(self._cluster(), set_as_default=False)
        except (OSError, asyncio.TimeoutError, ValueError) as error:
            raise SweepError(
                f"the Dask scheduler '{self.address}' does not answer ({type(error).__name__}: {error}); start it with "
                "'dask scheduler' and give dask://HOST:8786"
            ) from error

    def _cluster(self) -> Any:
        """Processes of this machine, each of which imports the script that was started."""
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise SystemExit(1)  # this is one of them, in an unguarded script: the first process says so
        try:
            return self._distributed.LocalCluster(
                n_workers=self.workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50
            )
        except RuntimeError as error:
            raise SweepError(
                f"the processes of a Dask cluster of this machine did not start ({error}); each of them imports the script that "
                "was started, so put what the script does under: if __name__ == '__main__':"
            ) from None  # sixty lines of Dask's own


def _held(data: bytes) -> bytes:
    return data


@contextmanager
def _silent() -> Iterator[None]:
    """Without the traceback that Dask logs where a client is closed that looks for its scheduler."""
    log = logging.getLogger("distributed.client")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _connected(client: Any) -> bool:
    """Whether the scheduler still listens; a client does not say so where it was closed in good order."""
    comm = client.scheduler_comm
    return client.status == "running" and comm is not None and not comm.closed()


def _next(client: Any, finished: Any) -> Any:
    """The next future that ended; as_completed alone would wait for a scheduler that is gone."""
    while not finished.has_ready():
        if not _connected(client):
            raise ConnectionError("no scheduler")
        with finished.thread_condition:
            finished.thread_condition.wait(BEAT)
    return next(finished)


def _result(client: Any, future: Any) -> Any:
    """What a future that ended holds; fetching it would wait for a scheduler that is gone meanwhile."""
    while True:
        try:
            return future.result(timeout=50 * BEAT)
        except asyncio.TimeoutError:  # the built-in one from Python 3.11 on
            if not _connected(client):
                raise ConnectionError("no scheduler") from None


def _outcome(client: Any, future: Any, trial: Trial) -> Outcome:
    try:
        return _result(client, future)
    except Exception as error:  # KilledWorker and its kin
        if isinstance(error, CancelledError) or not _connected(client):
            raise  # no fault of the trial
        return Outcome(trial.key, trial.settings, "died", error=_said(error), attempts=0)


def _said(error: Exception) -> str:
    """Dask tells how often it tried a trial in the number of deaths that it allows."""
    allowed = getattr(error, "allowed_failures", None)
    if allowed is None:
        return f"{type(error).__name__}: {error}"
    return f"its worker process died ({type(error).__name__}; Dask tried it alone up to {allowed + 1} times); {HOW}"
