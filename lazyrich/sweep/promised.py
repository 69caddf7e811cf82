"""A store that is made when its first trial is about to run: a sweep that is refused before leaves no folder behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lazyrich.errors import StoreError
from lazyrich.sweep.store import Store
from lazyrich.sweep.trial import Outcome, Trial

BEAT = 20.0  # seconds between signs of life


class Promised:
    """The store of a sweep, at the latest from its first trial on; a folder that is there is opened, or refused, at once.

    Executors take their first trial when the function has been packed and the cluster has answered, so what stops either is
    told before there is a store. It is not made first and removed again: another process may have opened it meanwhile.

    Args:
        path: folder of the outcomes.
        name: of the function whose outcomes are wanted.
        code: fingerprint of its code.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "store")
        >>> with Promised(path, "train", "v1") as kept:
        ...     kept.status(["k"]), path.exists(), kept.claim(Trial("k", {"lr": 0.1})), path.exists()
        ({}, False, True, True)
    """

    def __init__(self, path: str | Path, name: str, code: str) -> None:
        self.path = Path(path)
        self._asked = name, code
        self._open = ExitStack()
        self._store: Store | None = None

    def __enter__(self) -> Promised:
        if self.path.exists():
            self.store()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def store(self) -> Store:
        """The store, made now where it was not.

        Raises:
            StoreError: for a folder that cannot be used.
        """
        if self._store is None:
            store = self._open.enter_context(Store(self.path))
            self._open.enter_context(_beating(store))
            store.ask(*self._asked)
            self._store = store
        return self._store

    def claim(self, trial: Trial, again: bool = False) -> bool:
        """Whether this process is to run the trial."""
        return self.store().claim(trial, again)

    def put(self, outcome: Outcome) -> bool:
        """Keep an outcome; False where its trial is done already."""
        return self.store().put(outcome, *self._asked)

    def status(self, keys: Sequence[str]) -> dict[str, str]:
        """Status by key, of those that are finished."""
        return self._store.status(keys) if self._store else {}

    def get(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """Outcomes by key, of those that are finished."""
        return self._store.get(keys) if self._store else {}

    def functions(self) -> dict[tuple[str, str], int]:
        """How many outcomes there are of each function's name and code."""
        return self._store.functions() if self._store else {}


@contextmanager
def _beating(store: Store) -> Iterator[None]:
    """Signs of life while trials run."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            with suppress(StoreError):  # a full disk is met, and told, where outcomes are kept
                store.beat()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
