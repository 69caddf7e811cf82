"""The network that the user has, at its own width: tangent kernels, their hierarchy, and expansions around a point."""

from lazyrich.tangent.function import NetworkFunction

__all__ = ["NetworkFunction"]
