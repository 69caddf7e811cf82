"""Named axes, and the settings that they span."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lazyrich.errors import SweepError

MOST = 1_000_000


def grid(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All combinations of the values of named axes, the last axis running fastest.

    Raises:
        SweepError: for no axes, an axis without values or with one of them twice, or more than a million combinations.

    Example:
        >>> grid({"lr": [0.1, 0.2], "seed": range(2)})
        [{'lr': 0.1, 'seed': 0}, {'lr': 0.1, 'seed': 1}, {'lr': 0.2, 'seed': 0}, {'lr': 0.2, 'seed': 1}]
    """
    if not axes:
        raise SweepError("got no axes, expected at least one, for example lr=[0.1, 0.2]")
    lists: dict[str, list[Any]] = {}
    for name, values in axes.items():
        one = isinstance(values, str) or not isinstance(values, Iterable) or getattr(values, "ndim", 1) != 1
        if isinstance(values, range) and not -MOST <= values.stop - values.start <= MOST * abs(values.step):
            raise SweepError(f"axis '{name}' is {values!r}, more than {MOST:,} values; give fewer")
        lists[name] = [] if one else list(values)
        if not lists[name]:
            raise SweepError(f"axis '{name}' is {values!r}, expected a list of at least one value")
        names = [repr(v) for v in lists[name]]  # 1 and True are two values
        if len(set(names)) < len(names):
            twice = next(v for i, v in enumerate(names) if v in names[:i])
            raise SweepError(f"axis '{name}' has {twice} twice; give every value once")
    total = 1
    for values in lists.values():
        total *= len(values)
    if total > MOST:
        raise SweepError(f"the axes span {total:,} trials, more than {MOST:,}; give fewer values, or shards of them")
    return [dict(zip(lists, chosen, strict=True)) for chosen in itertools.product(*lists.values())]


def varied_in(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names that have more than one value.

    Example:
        >>> varied_in([{"lr": 0.1, "width": 8}, {"lr": 0.2, "width": 8}])
        ('lr',)
    """
    names = dict.fromkeys(name for one in settings for name in one)
    first = {name: repr(settings[0].get(name)) for name in names}  # 1 and True are two values
    return tuple(name for name in names if any(repr(one.get(name)) != first[name] for one in settings))


def shard_of(text: str) -> tuple[int, int]:
    """``i/n``, the part i of 1 .. n of a sweep's trials.

    Example:
        >>> shard_of("2/8")
        (2, 8)
    """
    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise SweepError(f"got shard '{text}', expected i/n with i from 1 to n: 1/8, 2/8, ..., 8/8")
    return int(part), int(parts)


def part_of(
    settings: Sequence[Mapping[str, Any]], shard: tuple[int, int] | None, together: Sequence[str] = ()
) -> list[tuple[bool, str]]:
    """Of every settings, whether a shard has it, and a text that those share which differ in the axes ``together`` only.

    Raises:
        SweepError: for a part that is none.

    Example:
        >>> [mine for mine, _ in part_of([{"lr": 1, "seed": 0}, {"lr": 2, "seed": 0}], (1, 2), together=["lr"])]
        [True, True]
    """
    texts = [json.dumps({k: v for k, v in s.items() if k not in together}, sort_keys=True) for s in settings]
    part, parts = shard or (1, 1)
    if not 1 <= part <= parts:
        raise SweepError(f"got shard {part}/{parts}, expected i/n with i from 1 to n")
    mixed = sorted(dict.fromkeys(texts), key=lambda text: hashlib.sha256(text.encode()).digest())
    mine = {*mixed[part - 1 :: parts]}  # in the order of the grid, one part would have all the wide ones
    return [(text in mine, text) for text in texts]
