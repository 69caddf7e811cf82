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

ALSO = {"sp": "standard", "ntp": "ntk", "mf": "mean_field", "mfp": "mean_field", "mup": "mup", "mu_p": "mup", "\u03bcp": "mup"}


def parse(text: str) -> Scheme:
    """A scheme from its text: ``mup``, ``richness(0.25)``, ``standard(max_stable=True)``, ``abc(...)``, ``mup().shift(0.5)``.

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
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "shift":
        return _shifted(text, call, parse(ast.unparse(call.func.value)))
    name = call.func if isinstance(call, ast.Call) else call
    if not isinstance(name, ast.Name) or name.id not in SCHEMES:
        also = ALSO.get(ast.unparse(name).lower()) if isinstance(name, ast.Name) else None
        raise UsageError(f"got scheme '{text}', {f'which is called {also} here; ' if also else ''}{known}")
    positional, named = (call.args, call.keywords) if isinstance(call, ast.Call) else ([], [])
    try:
        arguments = [_literal(node) for node in positional]
        options = {str(keyword.arg): _literal(keyword.value) for keyword in named}
        return SCHEMES[name.id](*arguments, **options)
    except (ValueError, TypeError, IndexError, OverflowError, MemoryError, RecursionError) as error:
        raise UsageError(f"got scheme '{text}': {error}; {known}") from None


def _shifted(text: str, call: ast.Call, scheme: Scheme) -> Scheme:
    """The same training in another gauge, as ``mup().shift(0.5)`` writes it."""
    expected = "expected one number or three in brackets: mup().shift(0.5)"
    if len(call.args) != 1 or call.keywords:
        raise UsageError(f"got scheme '{text}', {expected}")
    try:
        return scheme.shift(_literal(call.args[0]))
    except (ValueError, TypeError) as error:
        raise UsageError(f"got scheme '{text}': {error}; {expected}") from None


def _literal(node: ast.expr) -> Any:
    """The value of a literal; Python's own message for what is none would show an address."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"'{ast.unparse(node)}' is no number or other literal") from None


__all__ = ["SCHEMES", "abc", "mean_field", "mup", "ntk", "parse", "richness", "spectral", "standard"]
