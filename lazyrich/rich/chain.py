"""A traced network as a chain: affine maps, with one function of one number between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from lazyrich.errors import RichError
from lazyrich.graph import Graph, Node, Ref
from lazyrich.graph.node import Batch
from lazyrich.rich.curve import NAMED, curve_of
from lazyrich.rich.network import Activation

Maps = list[tuple[str, str | None]]  # weight and bias names of the affine maps
PASSED = (
    "flatten",
    "view",
    "reshape",
    "squeeze",
    "dropout",
    "feature_dropout",
    "alpha_dropout",
    "identity",
    "contiguous",
    "alias",
)
COVERED = "the rich limit covers fully connected networks: linear layers with one function of one number between them"
POINTS = torch.linspace(-4.1, 4.3, 96, dtype=torch.float64).reshape(8, 12)  # where two functions must agree to be one


def chain_of(graph: Graph) -> tuple[Maps, Activation]:
    """Weight and bias names of the affine maps in order, and the one function between them.

    Raises:
        RichError: for a network that is no chain, saying where.

    Example:
        >>> from torch import nn
        >>> from lazyrich.graph import trace
        >>> chain_of(trace(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1, bias=False)), torch.zeros(2, 2)))
        ([('0.weight', '0.bias'), ('2.weight', None)], 'tanh')
    """
    for node in graph:
        refuse_draws(node)
    maps, links = _walked(graph)
    if len(maps) < 2:
        raise RichError(f"found {len(maps)} linear layer{'' if len(maps) == 1 else 's'}; {COVERED}, at least two of them")
    before, *between, behind = links
    if before.ops:
        raise RichError(f"{before.said} comes before the first linear layer; {COVERED}, so apply it to the data")
    if behind.ops:
        raise RichError(
            f"{behind.said} comes behind the readout '{maps[-1][0]}'; {COVERED}, and outputs that are the last one's own, so "
            "leave it out of the network (or make it a part of the loss)"
        )
    return maps, _one_of(between)


def refuse_draws(node: Node) -> None:
    """Masks and noise of training are no part of any limit here.

    Raises:
        RichError: for an operation that draws at random.
    """
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and _draws(node):
        mend = "have the factory return the network in eval mode, model.eval(), or with p = 0"
        raise RichError(
            f"{node.op} at {node.place} draws at random in every step of training, which the limit would leave out; "
            f"{'take it out of the network' if 'rand' in node.op else mend}"
        )


def _draws(node: Node) -> bool:
    """Dropout and its like, also within attention and recurrent layers, draw in training only, and not at p = 0."""
    arguments = node.target._schema.arguments
    given = {a.name: a.default_value for a in arguments} | dict(zip((a.name for a in arguments), node.args, strict=False))
    given |= node.kwargs
    none = any(given.get(name) == 0 for name in ("p", "dropout_p", "dropout"))
    return bool(given.get("training", given.get("train", True))) and not none


@dataclass
class Link:
    """What stands between two affine maps: operations on the first one's output, ``root``, up to what the second reads.

    Attributes:
        graph: that it is a part of.
        root: name of the value that it starts from.
        nodes: its operations in order.
        constants: operations that no input enters.
        end: name of the value that it ends with.
    """

    graph: Graph
    root: str
    nodes: list[Node] = field(default_factory=list)
    constants: list[Node] = field(default_factory=list)
    end: str = ""

    @property
    def ops(self) -> list[Node]:
        """The operations that do something to numbers."""
        return [node for node in self.nodes if node.op not in PASSED and node.shape is not None]

    @property
    def name(self) -> str:
        """Of the function, for people."""
        return " and ".join(_with_numbers(node) for node in self.ops) or "no activation"

    @property
    def said(self) -> str:
        """The function and where it stands."""
        ops = self.ops
        place = self.graph[self.root].place if not ops else ops[-1].place
        return f"{self.name} {'at' if ops else 'behind'} {place}"

    @property
    def function(self) -> Activation:
        """By name where it has one, for its speed and its derivatives."""
        if not self.ops:
            return "identity"
        last = self.ops[-1]
        if len(self.ops) == 1 and last.op in NAMED and len(last.args) == 1 and not last.kwargs:
            return last.op

        def phi(x: Tensor) -> Tensor:
            values: dict[str, Any] = {self.root: x, **self.graph.constants}
            for node in (*self.constants, *self.nodes):
                if node.shape is not None:
                    args, kwargs = tree_map_only(Ref, lambda ref: values.get(ref.name), (node.args, dict(node.kwargs)))
                    values[node.name] = args[0] if node.op in PASSED else node.target(*args, **kwargs)
            return values[self.end]

        phi.__name__ = self.name
        return phi


def _with_numbers(node: Node) -> str:
    """An operation with the numbers that it was given, as in leaky_relu(0.2)."""
    given = [*node.args[1:], *node.kwargs.values()]
    numbers = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in given if _plain(value))
    return f"{node.op}({numbers})" if numbers else node.op


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _walked(graph: Graph) -> tuple[Maps, list[Link]]:
    """The affine maps, and what stands before, between and behind them."""
    maps: Maps = []
    links: list[Link] = []
    held: dict[str, bool] = {}  # values without any of the inputs in them -> whether a parameter is
    free: list[Node] = []
    for node in graph:
        if node.op in ("parameter", "constant"):
            held[node.name] = node.op == "parameter"
            continue
        if node.op == "input":
            links.append(Link(graph, node.name))
            continue
        link = links[-1]
        here = {link.root, *(n.name for n in link.nodes)}
        read = [name for name in node.inputs if name not in held]
        if not read and node.op != "output":
            held[node.name] = any(held[name] for name in node.inputs)
            free.append(node)
        elif any(name not in here for name in read):
            raise RichError(f"{node.op} at {node.place} joins or branches; {COVERED}")
        elif node.op in ("linear", "output"):
            link.constants, link.end = [n for n in free if not held[n.name]], read[0]
            if node.op == "linear":
                maps.append(_names(graph, node))
                links.append(Link(graph, node.name))
        else:
            _refuse_foreign(graph, node, held, read)
            link.nodes.append(node)
    return maps, links


def _names(graph: Graph, node: Node) -> tuple[str, str | None]:
    """Of the tensors of an affine map."""
    tensors = [graph[arg.name] for arg in node.args[1:] if isinstance(arg, Ref)]
    if not isinstance(node.args[0], Ref) or len(node.inputs) != 1 + len(tensors) or any(t.op != "parameter" for t in tensors):
        raise RichError(f"linear at {node.place} has a weight or a bias that is no parameter of its own; {COVERED}")
    shape = graph[node.args[0].name].shape
    if shape is None or len(shape) != 2:
        raise RichError(f"linear at {node.place} reads an array of shape {shape}, expected (samples, numbers); {COVERED}")
    names = [str(t.target) for t in tensors]
    return names[0], names[1] if len(names) > 1 else None


def _refuse_foreign(graph: Graph, node: Node, held: dict[str, bool], read: Sequence[str]) -> None:
    """Whatever makes an operation more than a function of one number, as far as it can be seen without trying."""
    others = [name for name in node.inputs if name in held]
    if node.op in PASSED or node.shape is None:  # sizes for a view are no numbers of the network
        return
    if any(held[name] for name in others):
        raise RichError(f"{node.op} at {node.place} is not covered, since it reads a parameter; {COVERED}")
    if any(_size(graph[name]) != 1 for name in others):
        raise RichError(f"{node.op} at {node.place} is not covered, since it reads a constant of many numbers; {COVERED}")
    if len(node.inputs) > 1 and torch.Tag.pointwise not in getattr(node.target, "tags", ()):
        raise RichError(f"{node.op} at {node.place} joins or branches; {COVERED}")


def _size(node: Node) -> int:
    """How many numbers a constant has; 0 where that is not known."""
    sizes = node.shape
    return 0 if sizes is None or not all(isinstance(s, int) for s in sizes) else int(torch.Size(sizes).numel())


def _one_of(links: Sequence[Link]) -> Activation:
    """The function that all links are."""
    values = []
    for link in links:
        try:
            _refuse_mixing(link)
            values.append(curve_of(link.function).phi(POINTS))
        except RichError as error:
            raise RichError(f"{link.said} is not covered: {error}; {COVERED}") from error
        if not torch.allclose(values[0], values[-1], rtol=1e-9, atol=1e-12, equal_nan=True):
            raise RichError(f"got {links[0].said} and {link.said}; {COVERED}, the same one everywhere")
    return links[0].function


def _refuse_mixing(link: Link) -> None:
    """Whether entries stay what they are when others change, at the network's own shape."""
    shape = [3 if isinstance(size, Batch) else size for size in link.graph[link.root].shape or ()]
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.5
    phi = NAMED[link.function] if isinstance(link.function, str) else link.function
    first, second = phi(one), phi(torch.where(mask, one, other))
    if first.shape != one.shape or not torch.allclose(first[mask], second[mask], equal_nan=True):
        raise RichError("it does not act entry by entry")
