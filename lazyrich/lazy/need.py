"""Which position covariances are read, by going backwards through a graph: what nobody reads is not computed."""

from __future__ import annotations

from lazyrich.graph import Graph
from lazyrich.lazy.rule.table import Need, rule_of

TURNS = ("t", "mT", "numpy_T", "transpose", "permute")


def needs_of(graph: Graph, alone: bool = False) -> dict[str, Need]:
    """For every node, how much of its position covariances the rest reads.

    Args:
        graph: of the network.
        alone: in the pass of one batch with itself, only what norms and nonlinearities look at.
    """
    needs: dict[str, Need] = {}
    for node in reversed(graph.nodes):
        need = needs.get(node.name, Need.NONE)
        rule = rule_of(node)
        if node.op == "output":
            reads = Need.NONE if alone else Need.EQUAL
        else:
            reads = rule.reads(node, need) if rule else need
            if alone and rule and rule.moments:
                reads = max(reads, Need.EQUAL)
            if rule and rule.overlaps and any(_is_weight(graph, name) for name in node.inputs):
                reads = need
            elif alone and rule and rule.overlaps and sum(name in graph.weighed for name in node.inputs) > 1:
                reads = Need.ALL
        for name in node.inputs:
            needs[name] = max(needs.get(name, Need.NONE), reads)
    return needs


def _is_weight(graph: Graph, name: str) -> bool:
    """Whether a node is a parameter, or one with its axes in another order."""
    node = graph[name]
    return node.op == "parameter" or (node.op in TURNS and _is_weight(graph, node.inputs[0]))


def _weight(graph: Graph, name: str) -> str:
    """The name of the parameter."""
    node = graph[name]
    return str(node.target) if node.op == "parameter" else _weight(graph, node.inputs[0])


def readouts_of(graph: Graph) -> frozenset[str]:
    """Weights after which no other weight sums over features: the network's readouts."""
    after: dict[str, bool] = {}  # whether a sum with weights follows a node
    found = set()
    for node in reversed(graph.nodes):
        weights = [_weight(graph, n) for n in node.inputs if _is_weight(graph, n)]
        rule = rule_of(node)
        products = bool(rule and rule.overlaps and weights)
        summing = products or node.op in ("linear", "addmm") or node.op.startswith("conv")
        if summing and not after.get(node.name, False):
            found.update(weights)
        for name in node.inputs:
            after[name] = after.get(name, False) or after.get(node.name, False) or summing
    return frozenset(found)
