"""Infinite width where features move: mean field of two-layer networks, dynamical mean field of deeper ones."""

from lazyrich.rich.closure import ClosedFlow, Closure
from lazyrich.rich.dmft import solve
from lazyrich.rich.dynamics import Dynamics
from lazyrich.rich.entropy import entropy
from lazyrich.rich.isotropic import IsotropicGaussians
from lazyrich.rich.mean_field import Particles, mean_field
from lazyrich.rich.network import Layer, Network
from lazyrich.rich.planned import dmft, network_of

__all__ = [
    "ClosedFlow",
    "Closure",
    "Dynamics",
    "IsotropicGaussians",
    "Layer",
    "Network",
    "Particles",
    "dmft",
    "entropy",
    "mean_field",
    "network_of",
    "solve",
]
