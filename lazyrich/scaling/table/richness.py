"""The richness scale: every well-behaved scheme between the lazy and the rich end."""

from __future__ import annotations

import numbers

from lazyrich.amount import positive
from lazyrich.errors import UsageError
from lazyrich.scaling.exponents import Exponents, Layers
from lazyrich.scaling.scheme import Scheme


def richness(r: float, gamma: float = 1.0) -> Scheme:
    """Hidden representations move by ||Delta h|| = A = gamma n^r (Karkada 2024, arXiv:2404.19719).

    The neural-tangent network with its output divided by A and its learning rate multiplied by A^2 (rescaling gauge). r = 0
    is ``ntk``, r = 1/2 is ``mup``; every r < 1/2 is a kernel regime at infinite width, with corrections of relative size
    n^(2r-1). Multipliers are g_l = A/sqrt(n_0), A/sqrt(n), ..., 1/sqrt(n) and initial weights 1/A. Some study notes print
    the g's without their square roots, which gives a trivial limit; a test of ours holds both statements.

    Args:
        r: exponent of the movement, in [0, 1/2]. Yang & Hu's r is 1/2 minus this one.
        gamma: constant richness, positive; 1 leaves the base-width network exactly plain. The division by it goes into the last
            weights alone, with their biases: bottlenecks and gates inside are as ever, and learn gamma^2 times as fast as all else.

    Raises:
        UsageError: if r or gamma is out of range.

    Example:
        >>> richness(0.25).classify("sgd").r
        0.25
        >>> richness(0.25, gamma=3.0).name, richness(0.25, gamma=3.0).gamma
        ('richness(0.25, gamma=3)', 3.0)
    """
    for name, value in (("richness r", r), ("gamma", gamma)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise UsageError(f"got {name} = {value!r}, expected a number: richness(0.25)")
    if not 0 <= r <= 0.5:
        raise UsageError(
            f"got richness r = {r}, expected 0 <= r <= 1/2: below 0 the function blows up at initialisation, "
            "above 1/2 the representations do"
        )
    gamma = positive("gamma", gamma)
    return Scheme(
        name=f"richness({r:g})" if gamma == 1 else f"richness({r:g}, gamma={gamma:g})",
        sgd=Layers(Exponents(0, 0, -2 * r), Exponents(0.5, 0, -2 * r), Exponents(0.5 + r, 0, -2 * r)),
        entrywise=Layers(
            Exponents(0, 0, 0.5 - r, 0.5 + r), Exponents(0.5, 0, 1 - r, 1 + r), Exponents(0.5 + r, 0, 0.5 - r, 0.5 + r)
        ),
        gamma=gamma,
    )
