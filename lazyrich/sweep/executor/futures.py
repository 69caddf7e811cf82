"""Anything shaped like ``concurrent.futures.Executor``: submitit, loky, MPI pools, Dask's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from lazyrich.errors import SweepError
from lazyrich.sweep.packed import attempt_packed, packed
from lazyrich.sweep.trial import Outcome, Trial

HOW = "run it with --executor processes to be told how, and its last words"  # the mend where a cluster's worker died


class Pool(Protocol):
    """What is asked of a pool."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Start a call."""
        ...


class Futures:
    """Trials on a pool of futures; the function travels as bytes with each of them.

    A future that ends with an exception (a dead worker, after whatever retries the pool makes) is a trial that died.

    Args:
        pool: the executor, which stays open.
        slots: trials that are under way at a time: about twice the workers keeps them busy.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(2) as pool:
        ...     found = list(Futures(pool, slots=4).run(lambda a: a + 1, iter([Trial("k", {"a": 1})])))
        >>> found[0].value
        {'value': 2}
    """

    def __init__(self, pool: Pool, slots: int) -> None:
        if slots < 1:
            raise SweepError(f"got slots={slots}, expected at least 1")
        self.pool, self.slots = pool, slots

    def run(self, function: Callable[..., Any], trials: Iterator[Trial]) -> Generator[Outcome, None, None]:
        """Outcomes as they finish; closing the iterator cancels what has not begun."""
        data = packed(function)
        under_way: dict[Future[Any], Trial] = {}
        try:
            while True:
                for trial in itertools.islice(trials, self.slots - len(under_way)):
                    under_way[self.pool.submit(attempt_packed, data, trial)] = trial
                if not under_way:
                    return
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    yield _outcome(future, under_way.pop(future))
        finally:
            for future in under_way:
                future.cancel()


def _outcome(future: Future[Any], trial: Trial) -> Outcome:
    try:
        return future.result()
    except Exception as error:  # whatever the pool raises for a dead worker
        return Outcome(trial.key, trial.settings, "died", error=f"{type(error).__name__}: {error}", attempts=0)
