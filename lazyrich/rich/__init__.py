"""Infinite width where features move: dynamical mean-field theory of fully connected networks."""

from lazyrich.rich.dmft import solve
from lazyrich.rich.dynamics import Dynamics
from lazyrich.rich.network import Layer, Network
from lazyrich.rich.planned import dmft, network_of

__all__ = ["Dynamics", "Layer", "Network", "dmft", "network_of", "solve"]
