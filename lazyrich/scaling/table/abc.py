"""Any abc-parameterisation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lazyrich.amount import real
from lazyrich.errors import UsageError
from lazyrich.scaling.exponents import Exponents, Layers
from lazyrich.scaling.scheme import Scheme

Triple = tuple[float, float, float]


def abc(a: Sequence[float], b: Sequence[float], c: float | Sequence[float], d: Sequence[float] | None = None) -> Scheme:
    """W = n^-a w, w drawn with standard deviation n^-b, learning rate eta n^-c (Yang & Hu 2021, arXiv:2011.14522).

    Args:
        a: multiplier exponents of input, hidden and output layers.
        b: initialisation exponents, likewise.
        c: learning-rate exponent: one number, or one a role.
        d: gradient exponents for entrywise optimizers; faithful ones (gradients of size one) by default.

    Raises:
        UsageError: for anything else than three finite numbers, or one of c.

    Example:
        >>> abc(a=(-0.5, 0, 0.5), b=(0.5, 0.5, 0.5), c=0).classify("sgd").regime
        'feature learning'
    """
    given, start = _three("a", a), _three("b", b)
    one = c if type(c) is int else real(c)
    cs = _three("c", (one, one, one) if math.isfinite(one) else c, "one number, or ")
    reach = given[2] + start[2]
    ds = _three("d", d) if d is not None else (given[0] + reach, given[1] + reach, given[2])
    return Scheme(
        name=f"abc(a={_text(given)}, b={_text(start)}, c={_text(cs)})",
        sgd=Layers(*(Exponents(*row) for row in zip(given, start, cs, strict=True))),
        entrywise=Layers(*(Exponents(*row) for row in zip(given, start, cs, ds, strict=True))),
    )


def _three(name: str, value: Any, other: str = "") -> Triple:
    """Three exponents as numbers of Python's own, which a saved plan can hold."""
    several = tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)) else ()
    found = tuple(x if type(x) is int else real(x) for x in several)  # whole numbers stay, and with them fingerprints
    if len(found) != 3 or not all(map(math.isfinite, found)):
        raise UsageError(f"got {name} = {value!r}, expected {other}three finite numbers: input, hidden, output")
    return found[0], found[1], found[2]


def _text(triple: Sequence[float]) -> str:
    return "(" + ", ".join(f"{x:g}" for x in triple) + ")"
