"""The standard parameterisation: the plain network."""

from __future__ import annotations

from lazyrich.scaling.exponents import Exponents, Layers
from lazyrich.scaling.scheme import Scheme


def standard(max_stable: bool = False) -> Scheme:
    """What plain PyTorch does: fan-in initialisation and one learning rate, which does not know the width.

    With ``max_stable=True`` the one learning rate falls as 1/n under SGD (Yang & Hu 2021, arXiv:2011.14522, Table 1) and as
    n^-3/2 under entrywise optimizers: the largest rates at which nothing blows up. Both limits are kernel regimes. Finite
    networks trained by Adam often stand 1/n, because moving features need time to align with the readout; at 1/n features
    are learned and the function's growth shows as n^1/2 in a check.

    Example:
        >>> standard().classify("sgd").stable, standard(max_stable=True).classify("sgd").regime
        (False, 'kernel')
    """
    rate, entry = (1.0, 1.5) if max_stable else (0.0, 0.0)
    return Scheme(
        name="standard(max_stable=True)" if max_stable else "standard()",
        sgd=Layers(Exponents(0, 0, rate), Exponents(0, 0.5, rate), Exponents(0, 0.5, rate)),
        entrywise=Layers(Exponents(0, 0, entry), Exponents(0, 0.5, entry), Exponents(0, 0.5, entry)),
        own_init=True,
        global_rate=True,
    )
