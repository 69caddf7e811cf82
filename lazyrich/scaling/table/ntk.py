"""The neural-tangent parameterisation."""

from __future__ import annotations

from lazyrich.scaling.exponents import Exponents, Layers
from lazyrich.scaling.scheme import Scheme


def ntk() -> Scheme:
    """Unit weights behind 1/sqrt(fan-in) multipliers (Jacot, Gabriel & Hongler 2018, arXiv:1806.07572): the lazy limit.

    abc exponents as in Yang & Hu 2021 (arXiv:2011.14522), Table 1; entrywise ones as in Yang & Littwin 2023
    (arXiv:2308.01814).

    Example:
        >>> ntk().classify("sgd").r, ntk().classify("adam").r
        (0.5, 0.5)
    """
    return Scheme(
        name="ntk()",
        sgd=Layers(Exponents(0, 0, 0), Exponents(0.5, 0, 0), Exponents(0.5, 0, 0)),
        entrywise=Layers(Exponents(0, 0, 0.5, 0.5), Exponents(0.5, 0, 1, 1), Exponents(0.5, 0, 0.5, 0.5)),
    )
