"""The named schemes, one a file, and how a scheme is read from text."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from lazyrich.errors import UsageError
from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.table.abc import abc
from lazyrich.scaling.table.mean_field import mean_field
from lazyrich.scaling.table.mup import mup
from lazyrich.scaling.table.ntk import ntk
from lazyrich.scaling.table.richness import richness
from lazyrich.scaling.table.spectral import spectral
from lazyrich.scaling.table.standard import standard

SCHEMES: dict[str, Callable[..., Scheme]] = {
    "standard": standard,
    "ntk": ntk,
    "mean_field": mean_field,
    "mup": mup,
    "richness": richness,
    "spectral": spectral,
    "abc": abc,
}


def parse(text: str) -> Scheme:
    """A scheme from its text: ``mup``, ``richness(0.25)``, ``standard(max_stable=True)``, ``abc(a=(0,0,0), ...)``.

    Only names from the table and literal arguments are understood; nothing is evaluated.

    Raises:
        UsageError: naming what is wrong and the known schemes.

    Example:
        >>> parse("richness(0.25)").name
        'richness(0.25)'
    """
    known = f"expected one of {', '.join(SCHEMES)}, with literal arguments such as richness(0.25)"
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last two: nested beyond sense
        raise UsageError(f"got scheme '{text}', {known}") from None
    name = call.func if isinstance(call, ast.Call) else call
    if not isinstance(name, ast.Name) or name.id not in SCHEMES:
        raise UsageError(f"got scheme '{text}', {known}")
    positional, named = (call.args, call.keywords) if isinstance(call, ast.Call) else ([], [])
    try:
        arguments = [_literal(node) for node in positional]
        options = {str(keyword.arg): _literal(keyword.value) for keyword in named}
        return SCHEMES[name.id](*arguments, **options)
    except (ValueError, TypeError, IndexError, OverflowError, MemoryError, RecursionError) as error:
        raise UsageError(f"got scheme '{text}': {error}; {known}") from None


def _literal(node: ast.expr) -> Any:
    """The value of a literal; Python's own message for what is none would show an address."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"'{ast.unparse(node)}' is no number or other literal") from None


__all__ = ["SCHEMES", "abc", "mean_field", "mup", "ntk", "parse", "richness", "spectral", "standard"]
