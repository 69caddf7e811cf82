"""Numbers that callers give: what is none compares as false, and a count is a whole number."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

from torch import Tensor

from lazyrich.errors import KernelError


def number(value: Any) -> float:
    """As a float; NaN for what is no number, texts and lists among them, which no comparison lets pass.

    Example:
        >>> number(2), number("2"), number([2.0])
        (2.0, nan, nan)
    """
    try:
        return math.nan if isinstance(value, (str, bytes)) else float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan


def count(value: Any, name: str, least: int = 1) -> int:
    """A count as an integer.

    Raises:
        KernelError: for what is no whole number, or is below ``least``.

    Example:
        >>> count(3, "rank")
        3
    """
    whole = isinstance(value, Integral) or isinstance(value, float) and value.is_integer()
    if isinstance(value, bool) or not whole or value < least:
        raise KernelError(f"got {name}={value!r}, expected a whole number, at least {least}; pass such as {name}={least}")
    return int(value)
