"""A traced ``nn.Module`` as a small graph of the field's standard operations."""

from lazyrich.graph.node import Graph, Node, Ref
from lazyrich.graph.trace import trace

__all__ = ["Graph", "Node", "Ref", "trace"]
