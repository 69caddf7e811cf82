"""How a network starts: rules of initialisation, each a size from the fans and a form of the draw, for ``plan(init=...)``."""

from lazyrich.init.catalogue import (
    critical,
    delta_orthogonal,
    he,
    inverse,
    lecun,
    orthogonal,
    parse,
    principal,
    spectral,
    transposed,
    variance,
    xavier,
    zero,
)
from lazyrich.init.form import Form, Sides, formed
from lazyrich.init.initialiser import Initialiser

__all__ = [
    "Form",
    "Initialiser",
    "Sides",
    "critical",
    "delta_orthogonal",
    "formed",
    "he",
    "inverse",
    "lecun",
    "orthogonal",
    "parse",
    "principal",
    "spectral",
    "transposed",
    "variance",
    "xavier",
    "zero",
]
