"""Rows of a store as outcomes, many at a time."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lazyrich.errors import StoreError
from lazyrich.sweep.trial import Outcome

COLUMNS = "key, settings, status, value, arrays, error, seconds, attempts, function, code"


@contextmanager
def uncollected() -> Iterator[None]:
    """Without looks for garbage, while many objects are made that are none: a quarter of the time of a hundred thousand outcomes.

    Example:
        >>> import gc
        >>> with uncollected():
        ...     gc.isenabled()
        False
        >>> gc.isenabled()
        True
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@uncollected()
def outcomes_of(rows: Sequence[Sequence[Any]]) -> list[Outcome]:
    """The outcomes of rows of ``COLUMNS``; arrays are read when they are asked for.

    Example:
        >>> outcomes_of([("k", '{"lr": 0.1}', "done", '{"loss": 2.0}', "[]", "", 0.5, 1, "train", "v1")])[0].value
        {'loss': 2.0}
    """
    settings, values = (_loaded([row[i] for row in rows]) for i in (1, 3))
    return [
        Outcome(key, given, status, value, {}, *rest)
        for (key, _, status, _, _, *rest), given, value in zip(rows, settings, values, strict=True)
    ]


def _loaded(texts: Sequence[str]) -> list[Any]:
    """Many JSON texts in one call, which is a third of the time."""
    try:
        return json.loads(f"[{','.join(texts)}]")
    except json.JSONDecodeError as error:
        raise StoreError(f"a row of the store is damaged ({error}); run its trials into a new folder") from error
