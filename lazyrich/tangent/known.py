"""Reading autograd's graph of a forward pass as operations whose derivatives are all known, where it has no others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyrich.tangent.operation import Curve, Map, Operation, Place, Product, entries, matrices, same

Read = Callable[[Any, tuple[Place | None, ...]], Operation | None]


class UnknownOperation(Exception):
    """A node that is none of these, or one with settings that are not known here."""


def known_operations(out: Tensor, names: Mapping[int, str]) -> list[Operation] | None:
    """The operations between parameters and outputs, each behind what it reads; None where one is not known.

    Args:
        out: the outputs, in the graph.
        names: of the parameters, by id; other leaves are not known.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
        >>> names = {id(p): name for name, p in net.named_parameters()}
        >>> [type(operation).__name__ for operation in known_operations(net(torch.ones(5, 3)), names)]
        ['Map', 'Map', 'Product', 'Curve', 'Product']
    """
    if out.grad_fn is None:
        return None
    found: dict[Any, Operation] = {}
    ahead: list[tuple[Any, bool]] = [(out.grad_fn, False)]
    try:
        while ahead:
            node, ready = ahead.pop()
            if node in found:
                continue
            if ready:
                found[node] = _operation(node, tuple(_place(before, output, names) for before, output in node.next_functions))
                continue
            ahead.append((node, True))
            ahead += [(before, False) for before, _ in node.next_functions if before is not None and before.next_functions]
    except (UnknownOperation, RuntimeError):  # or what it keeps was changed behind it
        return None
    return list(found.values())


def _place(node: Any, output: int, names: Mapping[int, str]) -> Place | None:
    if node is None or node.next_functions:
        if output:  # the second result of an operation
            raise UnknownOperation
        return node
    name = names.get(id(getattr(node, "variable", None)))
    if name is None:
        raise UnknownOperation
    return name


def _operation(node: Any, reads: tuple[Place | None, ...]) -> Operation:
    read = READ.get(node.name())
    found = read(node, reads) if read else None
    if found is None:
        raise UnknownOperation
    return found


def _shape(node: Any) -> torch.Size:
    """Of what an operation gives."""
    return node._input_metadata[0].shape


def _transposed(node: Any, reads: tuple[Place | None, ...]) -> Operation:
    return Map(node, reads, Tensor.t, (Tensor.t,))


def _viewed(node: Any, reads: tuple[Place | None, ...]) -> Operation:
    shape, was = _shape(node), node._saved_self_sym_sizes
    return Map(node, reads, lambda t: t.reshape(shape), (lambda d: d.reshape(was),))


def _mean(node: Any, reads: tuple[Place | None, ...]) -> Operation:
    was, keep = node._saved_self_sym_sizes, node._saved_keepdim
    axes = tuple((axis - 2**64 if axis >= 2**63 else axis) % len(was) for axis in node._saved_dim)  # it keeps them unsigned
    count = math.prod(was[axis] for axis in axes)

    def back(d: Tensor) -> Tensor:
        for axis in () if keep else sorted(axes):
            d = d.unsqueeze(axis)
        return (d / count).expand(was)

    return Map(node, reads, lambda t: t.mean(axes, keep), (back,))


def _pooled(node: Any, reads: tuple[Place | None, ...]) -> Operation:
    kind = (
        node._saved_kernel_size,
        node._saved_stride,
        node._saved_padding,
        node._saved_ceil_mode,
        node._saved_count_include_pad,
    )
    args, like = (*kind, node._saved_divisor_override), node._saved_self
    return Map(node, reads, lambda t: F.avg_pool2d(t, *args), (lambda d: torch.ops.aten.avg_pool2d_backward(d, like, *args),))


def _sum(node: Any, reads: tuple[Place | None, ...]) -> Operation | None:
    """Of two that both vary, of one shape."""
    if None in reads or node._saved_alpha != 1 or any(isinstance(at, str) or _shape(at) != _shape(node) for at in reads):
        return None

    def ahead(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return b if a is None else a if b is None else a + b

    return Map(node, reads, ahead, (same, same))


def _copied(node: Any, reads: tuple[Place | None, ...]) -> Operation:
    return Map(node, reads, same, (same,))


def _affine(node: Any, reads: tuple[Place | None, ...]) -> Operation | None:
    bias, a, b = reads
    if node._saved_alpha != 1 or node._saved_beta != 1 or not _is_bias(node.next_functions[0][0]):
        return None
    return _matrix(node, (a, b, bias), node._saved_mat1, node._saved_mat2)


def _is_bias(node: Any) -> bool:
    """Whether what is added is constant, or a parameter that is a vector."""
    return node is None or (not node.next_functions and node.variable.dim() == 1)


def _multiplied(node: Any, reads: tuple[Place | None, ...]) -> Operation:
    return _matrix(node, (*reads, None), node._saved_self, node._saved_mat2)


def _matrix(node: Any, reads: tuple[Place | None, ...], a: Tensor | None, b: Tensor | None) -> Operation:
    def to_a(delta: Tensor, b: Tensor, *more: Any) -> Tensor:
        return matrices(delta, b.t(), *more)

    def to_b(a: Tensor, delta: Tensor, *more: Any) -> Tensor:
        return matrices(a.t(), delta, *more)

    return Product(node, reads, a, b, matrices, to_a, to_b, gathered=lambda delta: delta.sum(0))


def _gated(node: Any, reads: tuple[Place | None, ...]) -> Operation | None:
    """Entry by entry, of two that both vary, of one shape."""
    if None in reads or any(isinstance(at, str) or _shape(at) != _shape(node) for at in reads):
        return None
    return Product(node, (*reads, None), node._saved_self, node._saved_other, entries, entries, entries)


def _window(node: Any, reads: tuple[Place | None, ...]) -> Operation | None:
    a, b = node._saved_input, node._saved_weight
    if node._saved_transposed or not _is_bias(node.next_functions[2][0]):
        return None
    how = (node._saved_stride, node._saved_padding, node._saved_dilation, False, node._saved_output_padding, node._saved_groups)
    gradients = torch.ops.aten.convolution_backward
    like_a, like_b = a, b

    def term(a: Tensor, b: Tensor, *more: Any) -> Tensor:
        return _added(torch.convolution(a, b, None, *how), *more)

    def to_a(delta: Tensor, b: Tensor, *more: Any) -> Tensor:
        return _added(gradients(delta, like_a, b, None, *how, (True, False, False))[0], *more)

    def to_b(a: Tensor, delta: Tensor, *more: Any) -> Tensor:
        return _added(gradients(delta, a, like_b, None, *how, (False, True, False))[1], *more)

    def spread(c: Tensor) -> Tensor:
        return c.view(-1, *(1 for _ in _shape(node)[2:]))

    def gathered(delta: Tensor) -> Tensor:
        return delta.sum((0, *range(2, delta.dim())))

    return Product(node, reads, a, b, term, to_a, to_b, spread, gathered)


def _added(found: Tensor, into: Tensor | None = None, times: float = 1) -> Tensor:
    return found if into is None else into.add_(found, alpha=times)


def _relu(node: Any, reads: tuple[Place | None, ...]) -> Operation:
    y = node._saved_result
    return Curve(node, reads, lambda m: y.sign() if m == 1 else None)


def _tanh(node: Any, reads: tuple[Place | None, ...]) -> Operation:
    y = node._saved_result
    s = torch.addcmul(y.new_ones(()), y, y, value=-1)
    slopes = (lambda: s, lambda: -2 * y * s, lambda: (4 - 6 * s) * s)
    return Curve(node, reads, lambda m: slopes[m - 1]())


def _sigmoid(node: Any, reads: tuple[Place | None, ...]) -> Operation:
    y = node._saved_result
    s = y * (1 - y)
    slopes = (lambda: s, lambda: (1 - 2 * y) * s, lambda: (1 - 6 * s) * s)
    return Curve(node, reads, lambda m: slopes[m - 1]())


def _curve(function: Callable[[Any, Tensor], Tensor]) -> Read:
    """Any other, derived by autograd."""

    def read(node: Any, reads: tuple[Place | None, ...]) -> Operation:
        h = node._saved_self.detach().requires_grad_()

        def slope(m: int) -> Tensor | None:
            with torch.enable_grad():
                found = function(node, h)
                for _ in range(m):
                    if not found.requires_grad:
                        return None
                    (found,) = torch.autograd.grad(found.sum(), h, create_graph=True)
            return found.detach()

        return Curve(node, reads, slope)

    return read


def _elu(node: Any, h: Tensor) -> Tensor:
    return torch.ops.aten.elu(h, node._saved_alpha, node._saved_scale, node._saved_input_scale)


READ: dict[str, Read] = {
    "AddmmBackward0": _affine,
    "MmBackward0": _multiplied,
    "ConvolutionBackward0": _window,
    "MulBackward0": _gated,
    "TBackward0": _transposed,
    "ViewBackward0": _viewed,
    "UnsafeViewBackward0": _viewed,
    "MeanBackward1": _mean,
    "AvgPool2DBackward0": _pooled,
    "AddBackward0": _sum,
    "CloneBackward0": _copied,
    "ReluBackward0": _relu,
    "TanhBackward0": _tanh,
    "SigmoidBackward0": _sigmoid,
    "ErfBackward0": _curve(lambda node, h: torch.erf(h)),
    "GeluBackward0": _curve(lambda node, h: F.gelu(h, approximate=node._saved_approximate)),
    "SoftplusBackward0": _curve(lambda node, h: F.softplus(h, node._saved_beta, node._saved_threshold)),
    "LeakyReluBackward0": _curve(lambda node, h: F.leaky_relu(h, node._saved_negative_slope)),
    "EluBackward0": _curve(_elu),
    "SinBackward0": _curve(lambda node, h: h.sin()),
    "CosBackward0": _curve(lambda node, h: h.cos()),
}
