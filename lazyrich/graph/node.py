"""One operation of a traced network, and the graph that they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Ref:
    """Stands in an argument for the value of another node."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: unique in the graph.
        op: what it does, in torch's words without overload and in-place mark (``linear``, ``conv2d``, ``add``), or
            ``input``, ``parameter``, ``constant``, ``output``.
        target: the callable behind it; the tensor's own name for parameters and constants.
        args: positional arguments, other nodes' values as ``Ref``.
        kwargs: named arguments.
        shape: of its value; a size that grows with the batch is ``Batch(k)``, k times the batch. None where it is no tensor.
        path: the module that it belongs to, as in ``named_modules``.
        kind: the class of that module.
        source: file and line that wrote it, where known.
        shapes: of its values, where it makes several.
    """

    name: str
    op: str
    target: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[Any, ...] | None = None
    path: str = ""
    kind: str = ""
    source: str = ""
    shapes: tuple[Any, ...] | None = None

    @cached_property
    def inputs(self) -> list[str]:
        """Names of the nodes that it reads."""
        return [leaf.name for leaf in tree_leaves((self.args, dict(self.kwargs))) if isinstance(leaf, Ref)]

    @cached_property
    def library(self) -> str:
        """Whose operation it is: ``aten`` for torch's, empty for what is no operation of a library."""
        return getattr(getattr(self.target, "_schema", None), "name", "").rpartition("::")[0]

    @property
    def place(self) -> str:
        """Where in the model it stands, for messages."""
        module = f"module '{self.path}' ({self.kind})" if self.path else f"the network's own forward ({self.kind})"
        return f"{module}{', ' + self.source if self.source else ''}"


@dataclass(frozen=True)
class Batch:
    """A size that is a multiple of the batch size.

    Example:
        >>> Batch(2)
        2B
    """

    times: int = 1

    def __repr__(self) -> str:
        return "B" if self.times == 1 else f"{self.times}B"


@dataclass(frozen=True)
class Graph:
    """The operations of a network in the order in which they run.

    Attributes:
        nodes: in order; the last is the output.
        constants: values of buffers and literal tensors, by node name.
        parameters: shape of every parameter, by its own name.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    parameters: Mapping[str, tuple[int, ...]]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def weighed(self) -> frozenset[str]:
        """Operations that depend on a parameter, and the parameters."""
        found: set[str] = set()
        for node in self.nodes:
            if node.op == "parameter" or any(name in found for name in node.inputs):
                found.add(node.name)
        return frozenset(found)

    @cached_property
    def uses(self) -> Counter[str]:
        """How many operations read each node."""
        return Counter(name for node in self.nodes for name in node.inputs)

    @cached_property
    def last_uses(self) -> dict[str, list[str]]:
        """Names whose value nobody reads after each node."""
        last = {name: node.name for node in self.nodes for name in node.inputs}
        found: dict[str, list[str]] = {}
        for name, user in last.items():
            found.setdefault(user, []).append(name)
        return found

    def __str__(self) -> str:
        rows = [f"{n.name:24} {n.op:28} {n.shape!s:24} {n.path}" for n in self.nodes if n.op not in ("parameter", "constant")]
        return "\n".join(rows)


def live(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Only what the output reads, and the inputs."""
    wanted: set[str] = set()
    kept = []
    for node in reversed(nodes):
        if node.op in ("output", "input") or node.name in wanted:
            kept.append(node)
            wanted.update(node.inputs)
    return tuple(reversed(kept))
