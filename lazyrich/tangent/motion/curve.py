"""Curves in autograd's graph, entry by entry, with derivatives of every order, and softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyrich.tangent.motion.node import Node, Read
from lazyrich.tangent.motion.operation import Curve, Softmax


def _rectified(node: Node) -> Curve:
    y = node.saved("result")
    return Curve(node.place, node.reads, node.shape, lambda m: y.sign() if m == 1 else None)


def _of_value(slopes: Callable[[Tensor], Sequence[Callable[[], Tensor]]]) -> Read:
    """One whose first three derivatives are functions of its value."""

    def read(node: Node) -> Curve:
        found = slopes(node.saved("result"))
        return Curve(node.place, node.reads, node.shape, lambda m: found[m - 1]())

    return read


def _tanh(y: Tensor) -> Sequence[Callable[[], Tensor]]:
    s = torch.addcmul(y.new_ones(()), y, y, value=-1)
    return lambda: s, lambda: -2 * y * s, lambda: (4 - 6 * s) * s


def _sigmoid(y: Tensor) -> Sequence[Callable[[], Tensor]]:
    s = y * (1 - y)
    return lambda: s, lambda: (1 - 2 * y) * s, lambda: (1 - 6 * s) * s


def _of_input(function: Callable[[Node, Tensor], Tensor]) -> Read:
    """Any other, derived by autograd."""

    def read(node: Node) -> Curve:
        h = node.saved("self").detach().requires_grad_()

        def slope(m: int) -> Tensor | None:
            with torch.enable_grad():
                found = function(node, h)
                for _ in range(m):
                    if not found.requires_grad:
                        return None
                    (found,) = torch.autograd.grad(found.sum(), h, create_graph=True)
            return None if found._is_zerotensor() else found.detach()

        return Curve(node.place, node.reads, node.shape, slope)

    return read


def _elu(node: Node, h: Tensor) -> Tensor:
    return torch.ops.aten.elu(h, *(node.saved(name) for name in ("alpha", "scale", "input_scale")))


def _softmax(node: Node) -> Softmax:
    value = node.saved("result")
    return Softmax(node.place, node.reads, node.shape, value, node.axis("dim", value.dim()))


CURVES: dict[str, Read] = {
    "ReluBackward0": _rectified,
    "TanhBackward0": _of_value(_tanh),
    "SigmoidBackward0": _of_value(_sigmoid),
    "ExpBackward0": _of_value(lambda y: (lambda: y,) * 3),
    "SqrtBackward0": _of_value(lambda y: (lambda: 0.5 / y, lambda: -0.25 / y**3, lambda: 0.375 / y**5)),
    "RsqrtBackward0": _of_value(lambda y: (lambda: -0.5 * y**3, lambda: 0.75 * y**5, lambda: -1.875 * y**7)),
    "ReciprocalBackward0": _of_value(lambda y: (lambda: -(y**2), lambda: 2 * y**3, lambda: -6 * y**4)),
    "PowBackward0": _of_input(lambda node, h: h ** node.saved("exponent")),
    "LogBackward0": _of_input(lambda node, h: h.log()),
    "AbsBackward0": _of_input(lambda node, h: h.abs()),
    "ErfBackward0": _of_input(lambda node, h: torch.erf(h)),
    "GeluBackward0": _of_input(lambda node, h: F.gelu(h, approximate=node.saved("approximate"))),
    "SoftplusBackward0": _of_input(lambda node, h: F.softplus(h, node.saved("beta"), node.saved("threshold"))),
    "LeakyReluBackward0": _of_input(lambda node, h: F.leaky_relu(h, node.saved("negative_slope"))),
    "EluBackward0": _of_input(_elu),
    "SinBackward0": _of_input(lambda node, h: h.sin()),
    "CosBackward0": _of_input(lambda node, h: h.cos()),
    "SoftmaxBackward0": _softmax,
    "SafeSoftmaxBackward0": _softmax,
}
