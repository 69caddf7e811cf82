"""How a network scales: schemes as data, what they do at infinite width, and plans that apply them to a family."""

from lazyrich.scaling.dichotomy import Verdict, classify
from lazyrich.scaling.exponents import Exponents, Layers
from lazyrich.scaling.obligation import Obligation, release_
from lazyrich.scaling.plan import Plan, Setting, as_plan
from lazyrich.scaling.planner import plan
from lazyrich.scaling.schedule import flattens
from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.table import abc, mean_field, mup, ntk, parse, richness, spectral, standard

__all__ = [
    "Exponents",
    "Layers",
    "Obligation",
    "Plan",
    "Scheme",
    "Setting",
    "Verdict",
    "abc",
    "as_plan",
    "classify",
    "flattens",
    "mean_field",
    "mup",
    "ntk",
    "parse",
    "plan",
    "release_",
    "richness",
    "spectral",
    "standard",
]
