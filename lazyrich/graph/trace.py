"""From a module to its graph, by ``torch.export``."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx import Node as FxNode
from torch.utils._pytree import tree_map_only

from lazyrich.errors import KernelError
from lazyrich.graph.failure import failure
from lazyrich.graph.node import Batch, Graph, Node, Ref, live
from lazyrich.graph.recurrent import unrolled

_TORCH = str(Path(torch.__file__).parent)


def trace(module: nn.Module, example: Tensor) -> Graph:
    """The operations of a module on inputs like an example, whatever their number.

    The module is exported without being run on real numbers (``torch.export``, non-strict) with a symbolic batch. In-place
    operations become plain ones, plain recurrent layers are unrolled, tied tensors are one node, and every node keeps its module
    and its line.

    Args:
        module: as it is, in its own train or eval mode.
        example: an input of the right shape (batch, ...) and dtype; only these matter.

    Raises:
        KernelError: if the module cannot be exported, for instance because a branch depends on the data.

    Example:
        >>> graph = trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True)), torch.zeros(2, 3))
        >>> [node.op for node in graph if node.op != "parameter"]
        ['input', 'linear', 'relu', 'output']
    """
    program = _export(module, example)
    signature = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    tied = {id(p): name for name, p in reversed(list(module.named_parameters(remove_duplicate=False)))}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    nodes: list[Node] = []
    constants: dict[str, Tensor] = {}
    names = _Names()
    known: dict[str, str] = {}
    for fx in program.graph.nodes:
        if fx.op == "placeholder":
            spec = signature[fx.name]
            if spec.kind is InputKind.PARAMETER:
                tensor = tied[id(parameters[str(spec.target)])]
                names.now[fx.name] = known.setdefault(tensor, fx.name)
                if names.now[fx.name] == fx.name:
                    nodes.append(Node(fx.name, "parameter", tensor, shape=tuple(parameters[tensor].shape)))
            elif spec.kind is InputKind.USER_INPUT:
                nodes.append(Node(fx.name, "input", fx.name, shape=_shape(fx)))
            else:
                nodes.append(Node(fx.name, "constant", str(spec.target), shape=_shape(fx)))
                constants[fx.name] = _constant(program, str(spec.target))
        else:
            nodes.append(_node(fx, names))
    shapes = {tied[id(p)]: tuple(p.shape) for p in parameters.values()}
    return Graph(live(nodes), constants, shapes)


def _export(module: nn.Module, example: Tensor) -> Any:
    own = next((p.dtype for p in module.parameters() if p.is_floating_point()), example.dtype)
    dtype = own if example.is_floating_point() else example.dtype
    device = next((p.device for p in module.parameters()), example.device)
    pair = torch.zeros((3, *example.shape[1:]), dtype=dtype, device=device)  # 0 and 1 are taken for constants by the tracer
    quiet = logging.root.manager.disable
    logging.disable(logging.ERROR)  # the tracer logs what it raises
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            batch = torch.export.Dim("batch", max=2**40)  # older tracers (2.6) ask at slices whether it is the largest integer
            return unrolled(torch.export.export(module, (pair,), dynamic_shapes=({0: batch},), strict=False))
    except Exception as error:  # the tracer raises errors of every kind; all mean the same here
        raise failure(module, example, error) from error
    finally:
        logging.disable(quiet)


class _Names:
    """Which node holds the value of each traced tensor, through operations that write over it or return a view of it."""

    def __init__(self) -> None:
        self.now: dict[str, str] = {}  # what was written over -> the value after it
        self.memory: dict[str, str] = {}  # tensor -> the first one in the same memory
        self.stale: dict[str, str] = {}  # what changed by a write through another view -> why it cannot be read

    def ref(self, fx: FxNode) -> Ref:
        """The value of an argument."""
        if fx.name in self.stale:
            raise KernelError(self.stale[fx.name])
        return Ref(self.now.get(fx.name, fx.name))

    def views(self, fx: FxNode, of: FxNode) -> None:
        """One tensor looks at the memory of another."""
        self.memory[fx.name] = self.memory.setdefault(of.name, of.name)

    def written(self, fx: FxNode, over: FxNode, node: Node) -> None:
        """An in-place operation gives a tensor and its other names a new value; its views are not followed."""
        before = self.now.get(over.name, over.name)
        self.views(fx, over)
        for name in [name for name, root in self.memory.items() if root == self.memory[over.name]]:
            if self.now.get(name, name) == before:
                self.now[name] = fx.name
            elif name != fx.name:
                self.stale[name] = (
                    f"{node.op} at {node.place} writes in place through a view of a tensor that is read again later, which "
                    "cannot be followed; use the operation that returns a new tensor"
                )


def _node(fx: FxNode, names: _Names) -> Node:
    args = tree_map_only(FxNode, names.ref, tuple(fx.args))
    kwargs = tree_map_only(FxNode, names.ref, dict(fx.kwargs))
    if fx.op == "output":
        return Node(fx.name, "output", "output", args)
    if fx.op == "get_attr":
        raise KernelError(
            f"a part of the forward runs under a switch (torch.no_grad, autocast), which the trace keeps as a block ('{fx.name}'); "
            "take the switch out and freeze what it holds by requires_grad_(False), or call model.eval() (spectral_norm)"
        )
    if fx.op != "call_function":
        raise KernelError(f"cannot read the traced node '{fx.name}' of kind {fx.op}")
    raw = _op(fx.target)
    path, kind = _module(fx)
    op, shapes = raw.removesuffix("_"), _shapes(fx)
    node = Node(fx.name, op, _plain(fx.target), args, kwargs, _shape(fx), path, kind, _source(fx), shapes)
    first = fx.args[0] if fx.args else None
    if isinstance(first, FxNode):
        if raw.endswith("_") and not raw.endswith("__"):
            names.written(fx, first, node)
        elif _is_view(fx):
            names.views(fx, first)
    return node


def _is_view(fx: FxNode) -> bool:
    """Whether a result may share memory with the first argument."""
    returns = getattr(getattr(fx.target, "_schema", None), "returns", ())
    return _op(fx.target) in ("dropout", "getitem") or any(r.alias_info is not None for r in returns)


def _op(target: Any) -> str:
    packet = getattr(target, "overloadpacket", None)
    return packet.__name__ if packet is not None else getattr(target, "__name__", str(target))


def _plain(target: Any) -> Any:
    """The callable without its in-place effect."""
    name = _op(target)
    if not name.endswith("_") or not hasattr(target, "overloadpacket"):
        return target
    packet = getattr(torch.ops.aten, name[:-1], None)
    return getattr(packet, target._overloadname, target) if packet else target


def _shape(fx: FxNode) -> tuple[Any, ...] | None:
    value = fx.meta.get("val")
    return tuple(_size(s, fx) for s in value.shape) if isinstance(value, Tensor) else None


def _shapes(fx: FxNode) -> tuple[Any, ...] | None:
    values = fx.meta.get("val")
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, Tensor) for v in values):
        return None
    return tuple(tuple(_size(s, fx) for s in value.shape) for value in values)


def _size(size: Any, fx: FxNode) -> Any:
    if isinstance(size, int):
        return size
    times, rest = size.node.expr.as_coeff_Mul()
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols  # which loads sympy

    if free_unbacked_symbols(size):
        place = Node(fx.name, _op(fx.target), None, (), {}, None, *_module(fx), _source(fx)).place
        raise KernelError(
            f"{_op(fx.target)} at {place}: how much it picks depends on values, as of a boolean mask, so there is no one graph; "
            "pick by indices (mask.nonzero().flatten(), as a buffer), or multiply by the mask"
        )
    if not (rest.is_Symbol and times.is_Integer):
        raise KernelError(
            f"a tensor in the network has a size that is no multiple of the number of samples ({size.node.expr}); "
            "treat all samples alike, without picking or joining some"
        )
    return Batch(int(times))


def _module(fx: FxNode) -> tuple[str, str]:
    stack = list((fx.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", ""
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else kind.__qualname__
    return re.sub(r"^L\['self'\]\.?", "", path), kind.rpartition(".")[2]


def _source(fx: FxNode) -> str:
    found = re.findall(r'File "([^"]+)", line (\d+)', fx.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in found if not file.startswith(_TORCH)]
    return f"{own[-1][0].rpartition('/')[2]}:{own[-1][1]}" if own else ""


def _constant(program: Any, target: str) -> Tensor:
    held = {**program.state_dict, **program.constants}
    return held[target].detach()
