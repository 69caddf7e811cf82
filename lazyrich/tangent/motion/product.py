"""Products in autograd's graph: of matrices, of entries, and of windows with their filters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyrich.tangent.motion.node import Node, Read, UnknownOperation
from lazyrich.tangent.motion.operation import Curve, Operation, Product, Term, entries, matrices


def _affine(node: Node) -> Product:
    bias, a, b = node.reads
    if node.saved("alpha") != 1 or node.saved("beta") != 1 or not node.has_bias(0):
        raise UnknownOperation
    return _matrix(node, (a, b, bias), node.saved("mat1"), node.saved("mat2"))


def _multiplied(node: Node) -> Product:
    return _matrix(node, (*node.reads, None), node.saved("self"), node.saved("mat2"))


def _matrix(node: Node, reads: tuple[Any, ...], a: Tensor | None, b: Tensor | None) -> Product:
    def to_a(delta: Tensor, b: Tensor, *more: Any) -> Tensor:
        return matrices(delta, b.t(), *more)

    def to_b(a: Tensor, delta: Tensor, *more: Any) -> Tensor:
        return matrices(a.t(), delta, *more)

    return Product(node.place, reads, node.shape, a, b, matrices, to_a, to_b, gathered=lambda delta: delta.sum(0))


def _stacked(node: Node) -> Product:
    """Matrices by matrices."""

    def term(x: Tensor, y: Tensor, into: Tensor | None = None, times: float = 1) -> Tensor:
        return torch.bmm(x, y) if into is None else into.baddbmm_(x, y, alpha=times)

    def to_a(delta: Tensor, b: Tensor, *more: Any) -> Tensor:
        return term(delta, b.mT, *more)

    def to_b(a: Tensor, delta: Tensor, *more: Any) -> Tensor:
        return term(a.mT, delta, *more)

    return Product(node.place, (*node.reads, None), node.shape, node.saved("self"), node.saved("mat2"), term, to_a, to_b)


def _entrywise(node: Node) -> Product:
    """Of two tensors; one may be constant, or spread over more axes."""
    return _entries(node, (*node.reads, None), node.saved("self"), node.saved("other"))


def _entries(node: Node, reads: tuple[Any, ...], a: Tensor | None, b: Tensor | None) -> Product:
    to_a, to_b = (entries if at is None else _onto(node, i) for i, at in enumerate(reads[:2]))
    return Product(node.place, reads, node.shape, a, b, entries, to_a, to_b)


def _onto(node: Node, i: int) -> Term:
    """The gradient of what was perhaps spread over more axes."""
    shape = node.given(i)
    if shape == node.shape:
        return entries
    return lambda x, y, *more: _added((x * y).sum_to_size(shape), *more)


def _scaled(node: Node) -> Product:
    """By a number."""
    return _entries(node, (*node.reads, None, None), None, torch.tensor(node.saved("other"), dtype=torch.float64))


def _divided(node: Node) -> Operation | tuple[Operation, ...]:
    """A / b as a times 1 / b."""
    a, below = node.reads
    b = node.saved("other").to(node.dtype)
    over = b.new_ones(()) / b  # with 1 a number, as torch keeps those, would have the default precision
    if below is None:
        return _entries(node, (a, None, None), None, over)
    inverse = (node.node, "inverse")
    powers = (lambda: -(over**2), lambda: 2 * over**3, lambda: -6 * over**4)
    curve = Curve(inverse, (below,), b.shape, lambda m: powers[m - 1]())
    return curve, _entries(node, (a, inverse, None), node.saved("self"), over)


def _window(node: Node) -> Product:
    a, b = node.saved("input"), node.saved("weight")
    if node.saved("transposed") or not node.has_bias(2):
        raise UnknownOperation
    names = ("stride", "padding", "dilation", "output_padding", "groups")
    stride, padding, dilation, more_padding, groups = (node.saved(name) for name in names)
    how = (stride, padding, dilation, False, more_padding, groups)
    gradients = torch.ops.aten.convolution_backward

    def term(x: Tensor, y: Tensor, *more: Any) -> Tensor:
        return _added(torch.convolution(x, y, None, *how), *more)

    def to_a(delta: Tensor, y: Tensor, *more: Any) -> Tensor:
        return _added(gradients(delta, a, y, None, *how, (True, False, False))[0], *more)

    def to_b(x: Tensor, delta: Tensor, *more: Any) -> Tensor:
        return _added(gradients(delta, x, b, None, *how, (False, True, False))[1], *more)

    def spread(c: Tensor) -> Tensor:
        return c.view(-1, *(1 for _ in node.shape[2:]))

    def gathered(delta: Tensor) -> Tensor:
        return delta.sum((0, *range(2, delta.dim())))

    return Product(node.place, node.reads, node.shape, a, b, term, to_a, to_b, spread, gathered)


def _added(found: Tensor, into: Tensor | None = None, times: float = 1) -> Tensor:
    return found if into is None else into.add_(found, alpha=times)


MULTIPLIED: dict[str, Read] = {
    "AddmmBackward0": _affine,
    "MmBackward0": _multiplied,
    "BmmBackward0": _stacked,
    "MulBackward0": _entrywise,
    "MulBackward1": _scaled,
    "DivBackward0": _divided,
    "ConvolutionBackward0": _window,
}
