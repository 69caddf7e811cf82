"""The seam, and its simplest side: one trial after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

from lazyrich.sweep.trial import Outcome, Trial, attempt


class Executor(Protocol):
    """Runs a function on trials, which it takes one at a time as it has room, and gives outcomes as they finish."""

    def run(self, function: Callable[..., Any], trials: Iterator[Trial]) -> Generator[Outcome, None, None]:
        """Outcomes in any order, one a trial. Closing the iterator stops what is running."""
        ...


class Inline:
    """In this process.

    Example:
        >>> [outcome.value for outcome in Inline().run(lambda a: a + 1, iter([Trial("k", {"a": 1})]))]
        [{'value': 2}]
    """

    def run(self, function: Callable[..., Any], trials: Iterator[Trial]) -> Generator[Outcome, None, None]:
        """Outcomes in the order of the trials."""
        for trial in trials:
            yield attempt(function, trial)
