"""The maximal update parameterisation."""

from __future__ import annotations

from lazyrich.scaling.exponents import Exponents, Layers
from lazyrich.scaling.scheme import Scheme


def mup() -> Scheme:
    """Every layer learns features as fast as it can without blowing up (Yang & Hu 2021, arXiv:2011.14522, Table 1).

    Entrywise exponents as in Yang & Littwin 2023 (arXiv:2308.01814). In the multiplier-free gauge this is Table 3 of Yang et
    al. 2022 (arXiv:2203.03466): initial variances 1/fan_in, 1/fan_in, 1/fan_in^2 for input, hidden and output; learning
    rates fan_out, 1, 1/fan_in under SGD and 1, 1/fan_in, 1/fan_in under Adam.

    Example:
        >>> [row.init for row in mup().sgd], [row.rate(True) for row in mup().entrywise]
        ([0.0, 0.5, 1.0], [0, 1, 1])
    """
    return Scheme(
        name="mup()",
        sgd=Layers(Exponents(-0.5, 0.5, 0), Exponents(0, 0.5, 0), Exponents(0.5, 0.5, 0)),
        entrywise=Layers(Exponents(0, 0, 0, 1), Exponents(0, 0.5, 1, 1), Exponents(1, 0, 0, 1)),
    )
