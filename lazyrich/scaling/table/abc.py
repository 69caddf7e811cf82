"""Any abc-parameterisation."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

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
        UsageError: if a tuple has not three numbers.

    Example:
        >>> abc(a=(-0.5, 0, 0.5), b=(0.5, 0.5, 0.5), c=0).classify("sgd").regime
        'feature learning'
    """
    cs = (c, c, c) if isinstance(c, (int, float)) else tuple(c)
    for name, triple in (("a", a), ("b", b), ("c", cs), ("d", d or (0, 0, 0))):
        if len(triple) != 3:
            raise UsageError(f"got {name} = {tuple(triple)}, expected three numbers: input, hidden, output")
        if not all(isinstance(x, numbers.Real) and math.isfinite(x) for x in triple):
            raise UsageError(f"got {name} = {tuple(triple)}, expected finite numbers: input, hidden, output")
    reach = a[2] + b[2]
    ds = tuple(d) if d is not None else (a[0] + reach, a[1] + reach, a[2])
    return Scheme(
        name=f"abc(a={_text(a)}, b={_text(b)}, c={_text(cs)})",
        sgd=Layers(*(Exponents(*row) for row in zip(a, b, cs, strict=True))),
        entrywise=Layers(*(Exponents(*row) for row in zip(a, b, cs, ds, strict=True))),
    )


def _text(triple: Sequence[float]) -> str:
    return "(" + ", ".join(f"{x:g}" for x in triple) + ")"
