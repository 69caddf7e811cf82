"""A piece of a result that knows its own path, so that whatever is wrong is named by where it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lazyrich.errors import ReportError

_WORDS_FOR_NO_NUMBER = frozenset({"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", ""})
_MEND = "write the result again with this version of lazyrich"


class Node:
    """A mapping inside a result, read by key with the type that is expected there.

    Args:
        value: the mapping.
        path: where it stands in the result, such as ``result.lines[3]``; only used in errors.

    Raises:
        ReportError: the value is no mapping; from the methods, a key is missing or holds another type.

    Example:
        >>> Node({"slope": float("nan"), "layer": "fc1"}, "result.lines[0]").number("slope") is None
        True
        >>> Node({}, "result.lines[0]").text("layer")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: result.lines[0]: got no key 'layer', ...
    """

    def __init__(self, value: Any, path: str) -> None:
        """Hold the mapping; see the class."""
        if not isinstance(value, Mapping):
            raise ReportError(f"{path}: got {_kind(value)}, expected a mapping; {_MEND}")
        self.value = value
        self.path = path

    def get(self, key: str) -> Any:
        """The raw value of a key that must be there."""
        if key not in self.value:
            raise ReportError(f"{self.path}: got no key {key!r}, expected one; {_MEND}")
        return self.value[key]

    def text(self, key: str, default: str | None = None) -> str:
        """A key's value as text; numbers are written out, and null is the default or the empty text."""
        value = self.get(key) if default is None else self.value.get(key, default)
        if value is None:
            return default or ""
        if isinstance(value, (Mapping, list, tuple)):
            raise ReportError(f"{self.path}.{key}: got {_kind(value)}, expected text; {_MEND}")
        return str(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A key's list of texts; a missing key or null is no texts, and one text is a list of one."""
        value = self.value.get(key)
        if value is None or value == "":
            return ()
        if isinstance(value, str):
            return (value,)
        return tuple(str(item) for item in self._sequence(key, value))

    def number(self, key: str, required: bool = True) -> float | None:
        """A key's number; None stands for null and for anything that is not finite."""
        value = self.get(key) if required else self.value.get(key)
        return finite(value, f"{self.path}.{key}")

    def numbers(self, key: str, required: bool = True) -> tuple[float | None, ...]:
        """A key's list of numbers, each as `number` reads it; a missing key that is not required is empty."""
        value = self.get(key) if required else self.value.get(key)
        if value is None:
            return ()
        items = self._sequence(key, value)
        return tuple(finite(item, f"{self.path}.{key}[{i}]") for i, item in enumerate(items))

    def truth(self, key: str) -> bool | None:
        """A key's truth; None where the key is missing or null."""
        value = self.value.get(key)
        return None if value is None else bool(value)

    def node(self, key: str) -> Node:
        """The mapping under a key."""
        return Node(self.get(key), f"{self.path}.{key}")

    def nodes(self, key: str, required: bool = True) -> tuple[Node, ...]:
        """The list of mappings under a key."""
        value = self.get(key) if required else self.value.get(key)
        if value is None:
            return ()
        return tuple(Node(item, f"{self.path}.{key}[{i}]") for i, item in enumerate(self._sequence(key, value)))

    def _sequence(self, key: str, value: Any) -> Sequence[Any]:
        if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__len__"):
            raise ReportError(f"{self.path}.{key}: got {_kind(value)}, expected a list; {_MEND}")
        return value


def finite(value: Any, path: str) -> float | None:
    """A number, or None for null, NaN, infinities and the words that JSON writers use for them.

    Example:
        >>> finite("NaN", "x"), finite(2, "x"), finite(float("inf"), "x")
        (None, 2.0, None)
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in _WORDS_FOR_NO_NUMBER):
        return None
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise ReportError(f"{path}: got {_kind(value)}, expected a number or null; {_MEND}")
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _kind(value: Any) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:39] + '…'}"
