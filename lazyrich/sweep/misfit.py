"""Settings by names that a function does not take: each of their trials would fail, so they are refused before any runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lazyrich.errors import SweepError


def refuse_misfit(function: Callable[..., Any], name: str, settings: Sequence[Mapping[str, Any]]) -> None:
    """Refuse settings that lack an argument which the function needs, or have one that it does not take.

    What a decorator hands on is its own affair: of a wrapped function, the signature of what is called counts.

    Raises:
        SweepError: naming the argument.

    Example:
        >>> refuse_misfit(lambda lr, width: lr / width, "train", [{"lr": 0.1}])
        Traceback (most recent call last):
        ...
        lazyrich.errors.SweepError: train needs 'width', which the settings {'lr': 0.1} lack, expected a value for every ...
    """
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (ValueError, TypeError):  # some callables written in C do not tell theirs
        return
    for one in {frozenset(given): given for given in reversed(settings)}.values():  # the first of each kind
        try:
            signature.bind(**one)
        except TypeError as error:
            raise SweepError(f"{name} {_why(signature, one, error)}") from None


def _why(signature: inspect.Signature, given: Mapping[str, Any], error: TypeError) -> str:
    takes = list(signature.parameters.values())
    if odd := [p.name for p in takes if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]:
        return (
            f"takes '{odd[0]}' by position alone, and settings are given by name; wrap it in a function that takes it by name"
        )
    named = [p for p in takes if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if missing := [p.name for p in named if p.default is p.empty and p.name not in given]:
        lacks = " and ".join(f"'{name}'" for name in missing)
        open_ended = any(p.kind is p.VAR_KEYWORD for p in takes)
        odd = [] if open_ended else [name for name in given if name not in [p.name for p in named]]
        misspelt = f"; it takes no '{odd[0]}', if that was meant" if odd else ""
        return (
            f"needs {lacks}, which the settings {dict(given)} lack, expected a value for every argument without a default; add "
            f"{'an axis' if len(missing) == 1 else 'axes'} of that name (--axis {' '.join(f'{name}=...' for name in missing)})"
            f"{misspelt}"
        )
    if surplus := [name for name in given if name not in [p.name for p in named]]:
        takes_what = ", ".join(p.name for p in named) or "no arguments"
        return f"takes no '{surplus[0]}', which the settings {dict(given)} have; it takes {takes_what}: leave out that axis"
    return f"does not take the settings {dict(given)}: {error}"
