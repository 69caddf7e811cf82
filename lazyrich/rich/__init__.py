"""Infinite width where features move: mean field of two-layer networks, dynamical mean field of deeper ones."""

from lazyrich.rich.closure import ClosedFlow, Closure
from lazyrich.rich.cloud import entropy
from lazyrich.rich.dynamics import Dynamics
from lazyrich.rich.fixed import FixedKernel
from lazyrich.rich.isotropic import IsotropicGaussians
from lazyrich.rich.network import Layer, Network
from lazyrich.rich.particles import Particles, mean_field
from lazyrich.rich.planned import dmft, hidden_layers, network_of, random_offset
from lazyrich.rich.prediction import Prediction, predict
from lazyrich.rich.projected import ProjectedLimit
from lazyrich.rich.solver import solve

__all__ = [
    "ClosedFlow",
    "Closure",
    "Dynamics",
    "FixedKernel",
    "IsotropicGaussians",
    "Layer",
    "Network",
    "Particles",
    "Prediction",
    "ProjectedLimit",
    "dmft",
    "entropy",
    "hidden_layers",
    "mean_field",
    "network_of",
    "predict",
    "random_offset",
    "solve",
]
