"""The mean-field parameterisation."""

from __future__ import annotations

from lazyrich.scaling.exponents import Exponents, Layers
from lazyrich.scaling.scheme import Scheme


def mean_field() -> Scheme:
    """A readout that averages its units, with learning rate n (Mei, Montanari & Nguyen 2018, arXiv:1804.06561).

    For one hidden layer these are the exponents of Yang & Hu 2021 (arXiv:2011.14522), Table 1. With more layers the hidden
    weights keep their 1/sqrt(n) multiplier, since 1/n there would make signals vanish; the result is muP in another gauge.

    Example:
        >>> mean_field().classify("sgd", hidden_layers=1).regime
        'feature learning'
    """
    return Scheme(
        name="mean_field()",
        sgd=Layers(Exponents(0, 0, -1), Exponents(0.5, 0, -1), Exponents(1, 0, -1)),
        entrywise=Layers(Exponents(0, 0, 0, 1), Exponents(0.5, 0, 0.5, 1.5), Exponents(1, 0, 0, 1)),
    )
