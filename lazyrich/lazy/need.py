"""Which position covariances are read, by going backwards through a graph: what nobody reads is not computed."""

from __future__ import annotations

from lazyrich.graph import Graph
from lazyrich.lazy.rule.table import Need, rule_of

KEPT = (  # what a parameter may go through and stay one
    "t", "mT", "numpy_T", "transpose", "permute", "view", "reshape", "unsqueeze", "squeeze", "mul", "div", "neg", "to", "_to_copy",
    "clone", "contiguous", "type_as", "float", "double", "alias",
)  # fmt: skip
SUMS = ("linear", "addmm")


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
            if rule and rule.overlaps and any(_parameter(graph, name) for name in node.inputs):
                reads = need
            elif alone and rule and rule.overlaps and sum(name in graph.weighed for name in node.inputs) > 1:
                reads = Need.ALL
        for name in node.inputs:
            needs[name] = max(needs.get(name, Need.NONE), reads)
    return needs


def _parameter(graph: Graph, name: str) -> str:
    """The name of the parameter that a node is, with its axes in another order or times a number; empty for anything else."""
    node = graph[name]
    if node.op == "parameter":
        return str(node.target)
    weighed = [below for below in node.inputs if below in graph.weighed]
    numbers = all(set(graph[below].shape or (1,)) == {1} for below in node.inputs if below not in weighed)
    return _parameter(graph, weighed[0]) if node.op in KEPT and len(weighed) == 1 and numbers else ""


def readouts_of(graph: Graph) -> frozenset[str]:
    """Weights after which no other weight sums over features: the network's readouts."""
    after: dict[str, bool] = {}  # whether a sum with weights follows a node
    found = set()
    for node in reversed(graph.nodes):
        weights = [name for name in (_parameter(graph, n) for n in node.inputs) if name]
        rule = rule_of(node)
        products = bool(rule and rule.overlaps and weights)
        summing = products or node.op in SUMS or node.op.startswith("conv")
        if summing and not after.get(node.name, False):
            found.update(weights)
        for name in node.inputs:
            after[name] = after.get(name, False) or after.get(node.name, False) or summing
    return frozenset(found)
