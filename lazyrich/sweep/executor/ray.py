"""Trials on a Ray cluster.

Start one with ``ray start --head`` on one machine and ``ray start --address HOST:6379`` on each of the others, then give
``ray://auto`` on any of them, or ``ray://HOST:10001`` from outside. Without an address a cluster of local processes is started
for the sweep. Workers need lazyrich installed, and whatever the function imports.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Iterator
from typing import Any

from lazyrich.errors import SweepError
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
            raise SweepError("Ray is not installed; run: pip install 'lazyrich[ray]'") from error
        self._ray = ray
        self.address, self.workers, self.retries = address, workers, retries

    def run(self, function: Callable[..., Any], trials: Iterator[Trial]) -> Generator[Outcome, None, None]:
        """Outcomes as they finish; closing the iterator cancels the rest."""
        ray, started = self._ray, self._connect()
        under_way: dict[Any, Trial] = {}
        try:
            data = ray.put(packed(function))
            task = ray.remote(max_retries=self.retries, num_cpus=1)(attempt_packed)
            slots = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
            while True:
                for trial in itertools.islice(trials, slots - len(under_way)):
                    under_way[task.remote(data, trial)] = trial
                if not under_way:
                    return
                done, _ = ray.wait(list(under_way), num_returns=1)
                for reference in done:
                    yield self._outcome(reference, under_way.pop(reference))
        finally:
            for reference in under_way:
                ray.cancel(reference, force=True)
            if started:
                ray.shutdown()

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
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            said = (str(error).strip().splitlines() or [""])[0]
            return Outcome(trial.key, trial.settings, "died", error=f"{type(error).__name__}: {said}")
