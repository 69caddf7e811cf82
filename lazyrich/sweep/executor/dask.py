"""Trials on a Dask cluster.

Start one with ``dask scheduler`` on one machine and ``dask worker HOST:8786 --nthreads 1 --nworkers 8`` on each of the others,
then give ``dask://HOST:8786``. Without an address a cluster of local processes is started for the sweep. Workers need lazyrich
installed, and whatever the function imports.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Any

from lazyrich.errors import SweepError
from lazyrich.sweep.packed import attempt_packed, packed
from lazyrich.sweep.trial import Outcome, Trial


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
            raise SweepError("Dask is not installed; run: pip install 'lazyrich[dask]'") from error
        self._distributed = distributed
        self.address, self.workers = address, workers

    def run(self, function: Callable[..., Any], trials: Iterator[Trial]) -> Generator[Outcome, None, None]:
        """Outcomes as they finish; closing the iterator cancels the rest."""
        client = self._connect()
        try:
            data = client.submit(_held, packed(function), pure=False)  # made anew where every worker that held it is gone
            finished = self._distributed.as_completed(loop=client.loop)
            names: dict[str, Trial] = {}
            slots = 2 * max(1, sum(client.ncores().values()))
            suspects: list[Trial] = []

            def submit(trial: Trial, again: str = "") -> None:
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
                future = next(finished)
                outcome = _outcome(future, names.pop(future.key))
                if outcome.status == "died" and not alone:
                    suspects.append(Trial(outcome.key, outcome.settings))
                else:
                    yield outcome
        finally:
            client.close()
            if self.address is None and client.cluster is not None:
                client.cluster.close()

    def _connect(self) -> Any:
        try:
            if self.address is not None:
                return self._distributed.Client(self.address, timeout=5, set_as_default=False)
            cluster = self._distributed.LocalCluster(
                n_workers=self.workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50
            )
            return self._distributed.Client(cluster, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise SweepError(
                f"the Dask scheduler '{self.address}' does not answer ({type(error).__name__}: {error}); start it with "
                "'dask scheduler' and give dask://HOST:8786"
            ) from error


def _held(data: bytes) -> bytes:
    return data


def _outcome(future: Any, trial: Trial) -> Outcome:
    try:
        return future.result()
    except Exception as error:  # KilledWorker and its kin
        return Outcome(trial.key, trial.settings, "died", error=f"{type(error).__name__}: {error}")
