"""A table's lists as rows of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazyrich.errors import SweepError

ONE = {"lrs": "lr", "losses": "loss"}  # what a study calls one entry of its lists


def tidied(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row an entry where rows hold lists; their lists run side by side, and entries that are dictionaries are columns.

    Raises:
        SweepError: for a row with lists of different lengths, of which no entry belongs to one of another.

    Example:
        >>> tidied([{"width": 8, "lrs": [0.1, 0.2], "losses": [2.0, None]}])
        [{'width': 8, 'lr': 0.1, 'loss': 2.0}, {'width': 8, 'lr': 0.2, 'loss': None}]
    """
    return [one for row in rows for one in _entries(row)]


def _entries(row: dict[str, Any]) -> list[dict[str, Any]]:
    lists = {name: value for name, value in row.items() if isinstance(value, list)}
    if not lists:
        return [row]
    lengths = {name: len(value) for name, value in lists.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} of {length}" for name, length in lengths.items())
        raise SweepError(f"a trial has lists of different lengths ({said}), so there is no row an entry; leave --tidy out")
    plain = {name: value for name, value in row.items() if name not in lists}
    made = []
    for i in range(max(lengths.values())):
        one = dict(plain)
        for name, value in lists.items():
            _enter(one, name, value[i])
        made.append(one)
    return made


def _enter(row: dict[str, Any], name: str, entry: Any) -> None:
    """An entry under its own name, or a dictionary's values under theirs, where these are free or the same."""
    if not isinstance(entry, dict):
        one = ONE.get(name, name)
        row[name if one in row else one] = entry
        return
    for key, value in entry.items():
        row[key if key not in row or row[key] == value else f"{name}_{key}"] = value
