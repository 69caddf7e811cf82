"""Infinite width where features move: dynamical mean-field theory of fully connected networks."""

from lazyrich.rich.dmft import solve
from lazyrich.rich.dynamics import Dynamics
from lazyrich.rich.network import Layer, Network

__all__ = ["Dynamics", "Layer", "Network", "solve"]
