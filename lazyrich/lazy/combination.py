"""Linear combinations of one branch's positions, written as several operations: h - h.mean(1), (1 + eps) h + A h, a running mean.

Their parts are dependent, so no rule may add them one after the other; but all of them together are one matrix over the positions
of one field. Which operations make such a combination is read off the graph, and they are replaced by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only

from lazyrich.graph import Graph, Node, Ref
from lazyrich.graph.node import live
from lazyrich.lazy.rule.table import rule_of

NAME = "combination"
SUMS = ("add", "sub", "rsub", "stack", "cat", "lerp", "index_add", "scatter_add", "where")
NUMBERS = (
    "zeros_like",
    "ones_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "sym_size",
    "size",
)  # of its shape alone
CASTS = ("to", "_to_copy", "float", "double", "type_as")  # a kernel has the precision of its inputs throughout
SCALES = ("mul", "div", "matmul", "mm", "bmm", "einsum")  # linear in the one factor that holds weights
VIEWS = (
    "neg", "alias", "clone", "contiguous", "to", "_to_copy", "float", "double", "type_as", "view", "reshape", "_unsafe_view",
    "permute", "transpose", "swapaxes", "movedim", "t", "mT", "squeeze", "unsqueeze", "flatten", "unflatten", "expand", "expand_as",
    "repeat", "repeat_interleave", "select", "slice", "narrow", "split", "split_with_sizes", "chunk", "unbind", "tensor_split",
    "getitem", "index", "index_select", "gather", "flip", "roll", "pad", "constant_pad_nd", "mean", "sum", "cumsum", "diff", "tril",
    "triu", "masked_fill", "unfold", "avg_pool1d", "avg_pool2d", "avg_pool3d", "fft_fft", "fft_ifft", "fft_rfft", "fft_irfft",
    "fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2", "fft_fftn", "fft_ifftn", "real", "imag", "view_as_real", NAME,
)  # fmt: skip


@dataclass(frozen=True)
class Combination:
    """A linear function of one branch, the first argument; the others hold no weights.

    Attributes:
        nodes: its operations in order; the last gives the value.
        names: of the arguments.
        known: its matrices, as they were read off.
    """

    nodes: tuple[Node, ...]
    names: tuple[str, ...]
    known: dict[Any, Tensor] = field(default_factory=dict, compare=False)

    def __call__(self, *given: Any) -> Tensor:
        """Its value on plain tensors."""
        values: dict[str, Any] = dict(zip(self.names, given, strict=True))
        for node in self.nodes:
            args, kwargs = tree_map_only(Ref, lambda ref: values[ref.name], (node.args, dict(node.kwargs)))
            values[node.name] = args[0] if node.op in CASTS else node.target(*args, **kwargs)
        return values[self.nodes[-1].name]


def roots_of(graph: Graph, kept: frozenset[str] = frozenset()) -> dict[str, str]:
    """Of every operation whose numbers depend on weights the branch that it is a linear function of, or its own name.

    Example:
        >>> import torch
        >>> from lazyrich.graph import trace
        >>> class Centred(torch.nn.Linear):
        ...     def forward(self, x):
        ...         h = super().forward(x)
        ...         return h - h.mean(1, keepdim=True)
        >>> roots_of(trace(Centred(2, 3), torch.zeros(1, 4, 2)))["sub"]
        'linear'
    """
    roots: dict[str, str] = {}
    for node in graph:
        below = [name for name in node.inputs if name in roots]
        if node.op in NUMBERS or (node.op != "parameter" and not below):
            continue
        origins = {roots[name] for name in below}
        linear = node.op in SUMS or node.op in VIEWS or (node.op in SCALES and len(below) == 1 and _on_top(node, below[0]))
        alone = len(origins) == 1 and graph[next(iter(origins))].op != "parameter"
        roots[node.name] = origins.pop() if linear and alone and node.name not in kept else node.name
    return roots


def joins(graph: Graph, roots: Mapping[str, str]) -> list[str]:
    """Operations that join parts of one branch, or that no rule knows, and are linear functions of it."""
    found = []
    for node in graph:
        root = roots.get(node.name, node.name)
        several = sum(name in roots for name in node.inputs) > 1
        if root != node.name and (several or rule_of(node) is None) and node.op != NAME:
            found.append(node.name)
    return found


def combined(graph: Graph, branches: Iterable[str], kept: frozenset[str]) -> Graph:
    """The graph with all joins of some branches' parts as one operation each, and without what nobody reads then.

    Args:
        graph: as it was traced.
        branches: names of the operations whose parts are joined.
        kept: joins that stay as they are.
    """
    roots, wanted = roots_of(graph, kept), set(branches)
    at = {name for name in joins(graph, roots) if roots[name] in wanted}
    nodes = [_combination(graph, node, roots) if node.name in at else node for node in graph]
    return replace(graph, nodes=live(nodes))


def _on_top(node: Node, name: str) -> bool:
    """A quotient is linear in what stands above."""
    return node.op != "div" or (isinstance(node.args[0], Ref) and node.args[0].name == name)


def _combination(graph: Graph, node: Node, roots: Mapping[str, str]) -> Node:
    """All operations between a branch and a linear function of it as one."""
    root, members, leaves, open_ = roots[node.name], {node.name}, {}, [node.name]
    while open_:
        for name in graph[open_.pop()].inputs:
            if name != root and roots.get(name) == root:
                open_ += [name] if name not in members else []
                members.add(name)
            elif name != root:
                leaves[name] = None
    names = (root, *leaves)
    inner = tuple(one for one in graph if one.name in members)
    args = tuple(Ref(name) for name in names)
    return replace(node, op=NAME, target=Combination(inner, names), args=args, kwargs={}, shapes=None)
