"""Counts and numbers that people give, checked at the door: later they would fail far from their cause, or pass in silence."""

from __future__ import annotations

import math
import operator
from typing import Any

from lazyrich.errors import LazyrichError, UsageError


def counted(name: str, value: Any, least: int = 1, refusal: type[LazyrichError] = UsageError) -> int:
    """A number of something.

    Raises:
        LazyrichError: ``refusal``, for what is no whole number or too small.

    Example:
        >>> counted("steps", 3)
        3
        >>> counted("steps", 1.5)
        Traceback (most recent call last):
        ...
        lazyrich.errors.UsageError: got steps = 1.5, expected a whole number of at least 1
    """
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    try:
        found = least - 1 if isinstance(value, bool) else operator.index(whole)
    except TypeError:
        found = least - 1
    if found < least:
        raise refusal(f"got {name} = {value!r}, expected a whole number of at least {least}")
    return found


def positive(name: str, value: Any, refusal: type[LazyrichError] = UsageError) -> float:
    """A number above zero.

    Raises:
        LazyrichError: ``refusal``, for anything else, infinity among it.

    Example:
        >>> positive("lr", float("inf"))
        Traceback (most recent call last):
        ...
        lazyrich.errors.UsageError: got lr = inf, expected a positive number that is finite
    """
    found = real(value)
    if not 0 < found < math.inf:
        raise refusal(f"got {name} = {value!r}, expected a positive number that is finite")
    return found


def unsigned(name: str, value: Any, refusal: type[LazyrichError] = UsageError) -> float:
    """A number that is not negative.

    Raises:
        LazyrichError: ``refusal``, for anything else, infinity among it.

    Example:
        >>> unsigned("decay", 0)
        0.0
    """
    found = real(value)
    if not 0 <= found < math.inf:
        raise refusal(f"got {name} = {value!r}, expected a number that is finite and not negative")
    return found


def real(value: Any) -> float:
    """As a float; NaN for what is no number, text that reads as one among it, which no comparison lets pass.

    Example:
        >>> real(2), real("2"), real([2.0])
        (2.0, nan, nan)
    """
    if isinstance(value, (bool, str, bytes)):
        return math.nan
    try:
        return float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor of several entries
        return math.nan
