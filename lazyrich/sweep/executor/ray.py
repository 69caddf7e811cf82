"""Trials on a Ray cluster.

Start one with ``ray start --head`` on one machine and ``ray start --address HOST:6379`` on each of the others, then give
``ray://auto`` on any of them, or ``ray://HOST:10001`` from outside. Without an address a cluster of local processes is started
for the sweep. Workers need lazyrich installed, and whatever the function imports. Where the head is gone, Ray itself ends a program
that reached it by ``ray://auto``, a minute later; finished trials are kept, and the same command goes on from them.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from lazyrich.errors import SweepError
from lazyrich.sweep.executor.futures import HOW
from lazyrich.sweep.packed import attempt_packed, packed
from lazyrich.sweep.trial import Outcome, Trial


class Ray:
    """Ray's own scheduler: a killed worker's trial is given to another one, up to ``retries`` times.

    Args:
        address: ``auto``, or ``host:port`` of a Ray client server; none for a local cluster.
        workers: of a local cluster.
        retries: how often a trial is tried again whose worker died.

    Raises:
        SweepError: if Ray is not installed or the cluster does not answer.
    """

    def __init__(self, address: str | None = None, workers: int | None = None, retries: int = 3) -> None:
        try:
            import ray
        except ImportError as error:
            raise SweepError("Ray is not installed; run: pip install -e 'path/to/lazyrich[ray]'") from error
        self._ray = ray
        self.address, self.workers, self.retries = address, workers, retries

    def run(self, function: Callable[..., Any], trials: Iterator[Trial]) -> Generator[Outcome, None, None]:
        """Outcomes as they finish; closing the iterator cancels the rest.

        Raises:
            SweepError: if the cluster is gone; trials that were under way stay unfinished.
        """
        started = self._connect()
        under_way: dict[Any, Trial] = {}
        try:
            yield from self._outcomes(function, trials, under_way)
        finally:
            with suppress(Exception):  # of a cluster that is gone
                self._leave(under_way, started)

    def _outcomes(
        self, function: Callable[..., Any], trials: Iterator[Trial], under_way: dict[Any, Trial]
    ) -> Iterator[Outcome]:
        ray = self._ray
        with self._there():
            data = ray.put(packed(function))
            task = ray.remote(max_retries=self.retries, num_cpus=1)(attempt_packed)
            slots = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while True:
            for trial in itertools.islice(trials, slots - len(under_way)):
                with self._there():
                    under_way[task.remote(data, trial)] = trial
            if not under_way:
                return
            with self._there():
                (reference, *_), _ = ray.wait(list(under_way), num_returns=1)
                outcome = self._outcome(reference, under_way[reference])
            del under_way[reference]
            yield outcome

    @contextmanager
    def _there(self) -> Iterator[None]:
        """What Ray raises where its cluster is gone, in words."""
        try:
            yield
        except SweepError:
            raise
        except Exception as error:
            if self._ray.is_initialized() and not isinstance(error, (ConnectionError, *self._fatal())):
                raise
            place = f"'{self.address}'" if self.address else "of this machine"
            raise SweepError(
                f"the Ray cluster {place} is gone ({type(error).__name__}); finished trials are kept, those under way are not: "
                "start it again, then repeat the same command"
            ) from error

    def _fatal(self) -> tuple[type[Exception], ...]:
        """What is the cluster's end and no trial's; older versions of Ray do not know all of it."""
        names = ("RaySystemError", "LocalRayletDiedError", "RpcError")
        return tuple(getattr(self._ray.exceptions, name) for name in names if hasattr(self._ray.exceptions, name))

    def _leave(self, under_way: Mapping[Any, Trial], started: bool) -> None:
        for reference in under_way:
            if not self._ray.is_initialized():  # cancelling would start a cluster of its own
                return
            self._ray.cancel(reference, force=True)
        if started:
            self._ray.shutdown()

    def _connect(self) -> bool:
        """Whether Ray was started here, and is to be shut down here."""
        ray = self._ray
        if ray.is_initialized():
            return False
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if self.address is None:
                ray.init(num_cpus=self.workers, include_dashboard=False, **options)
            else:
                ray.init(address="auto" if self.address == "auto" else f"ray://{self.address}", **options)
        except Exception as error:  # Ray raises that very class when its processes do not start
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise SweepError(
                f"the Ray cluster '{self.address or 'of this machine'}' does not answer ({said}); start it with "
                "'ray start --head' and give ray://auto"
            ) from error
        return True

    def _outcome(self, reference: Any, trial: Trial) -> Outcome:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayError as error:
            if isinstance(error, self._fatal()) or not self._ray.is_initialized():
                raise  # no fault of the trial
            said = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
            if isinstance(error, errors.WorkerCrashedError):
                times = f"up to {self.retries + 1} times" if self.retries else "once"
                said = f"its worker process died ({type(error).__name__}; Ray tried it {times}); {HOW}"
            return Outcome(trial.key, trial.settings, "died", error=said, attempts=0)
