"""Operations that a network writes twice: relu(h)[:, 1:] - relu(h)[:, :-1] holds one relu, and rules that join must know it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from lazyrich.graph import Graph, Node, Ref


def merged(graph: Graph) -> Graph:
    """The graph with one of every operation of the same arguments that draws nothing; itself where no two read weights.

    Example:
        >>> from lazyrich.graph import trace
        >>> class Twice(torch.nn.Linear):
        ...     def forward(self, x):
        ...         return super().forward(x).relu() + super().forward(x).relu()
        >>> [node.op for node in merged(trace(Twice(2, 3), torch.zeros(1, 2))) if node.op not in ("parameter", "input")]
        ['linear', 'relu', 'add', 'output']
    """
    known: dict[Any, str] = {}
    names: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph:
        given = tree_map_only(Ref, lambda ref: Ref(names.get(ref.name, ref.name)), (node.args, dict(node.kwargs)))
        key = (node.op, node.target, repr(given))
        if key in known and _repeats(node):
            names[node.name] = known[key]
            continue
        known.setdefault(key, node.name)
        kept.append(replace(node, args=given[0], kwargs=given[1]))
    return replace(graph, nodes=tuple(kept)) if graph.weighed & names.keys() else graph


def _repeats(node: Node) -> bool:
    """Whether it makes the same of the same each time."""
    leaf = node.op in ("input", "parameter", "constant", "output")
    return not leaf and torch.Tag.nondeterministic_seeded not in (getattr(node.target, "tags", None) or ())
