"""K2, K3 and K4 with their last indices contracted with residuals, on large sets: derivatives along a gradient field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, jvp, vmap

from lazyrich.errors import TangentError
from lazyrich.inference.normalisation import loss_scale
from lazyrich.tangent.higher import ORDERS
from lazyrich.tangent.outputs import Outputs, Point, along, following

ROWS = 2.5e8  # bytes of gradients held at a time for a contracted matrix


def contracted(
    model: nn.Module, x: Tensor, r: Tensor, order: int = 3, keep: int = 1, rates: Mapping[str, float] | None = None
) -> Tensor:
    """K_order with all but its first ``keep`` indices contracted with r.

    With V(theta) = sum_b r_b grad f_b, r held fixed, K_order is a chain of derivatives along V (L_V g = <grad g, V>):

    keep=1: sum K_order(a, b, c, ..) r_b r_c .. = L_V^(order-1) f_a, the (order-1)th time derivative of the outputs under
    theta' = V; for order 3 it is v^T H_a v + <u_a, H_r v> with v = V, H_r = sum_b r_b H_b.
    keep=2: sum K_order(a, b, c, ..) r_c .. = L_V^(order-2) K2(a, b), the same of the tangent kernel.

    A vector costs a few training steps: two for the gradient and its gradient, and ``order - 1`` nested forward passes.
    A matrix takes per-sample gradients, in blocks of 250 MB.

    Args:
        model: treats samples one by one; computed in its own dtype (K4 wants float64).
        x: inputs (N, ...).
        r: weights of the outputs, (N, K), or (N,) for one output: residuals f - y, for instance.
        order: 2, 3 or 4.
        keep: free indices, 1 or 2.
        rates: learning-rate factor by tensor name, 1 where it is not given.

    Returns:
        (N, K) for ``keep=1``; (N K, N K) for ``keep=2``, output k of sample n at n K + k.

    Raises:
        TangentError: for an order or ``keep`` that is not known, or r of another shape.

    Example:
        >>> model, x, r = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(5, 3), torch.randn(5, 1)
        >>> vector, matrix = contracted(model, x, r), contracted(model, x, r, keep=2)
        >>> bool(torch.allclose(matrix @ r, vector, atol=1e-5))
        True
    """
    if order not in ORDERS or keep not in (1, 2):
        raise TangentError(f"got order {order!r} and keep {keep!r}, expected order 2, 3 or 4 and keep 1 or 2")
    outputs = Outputs(model, x, rates)
    weights = outputs.cotangent(r)
    if keep == 2:
        return _kernel(outputs, weights, order - 2)
    return _vector(outputs, weights, order).reshape(outputs.shape).detach()


def ntk_velocity(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: str = "mean",
    lr: float = 1.0,
    rates: Mapping[str, float] | None = None,
) -> Tensor:
    """d/dt of the tangent kernel under gradient flow on the squared loss: -lr c sum_c K3(a, b, c) (f_c - y_c).

    Args:
        model: treats samples one by one.
        x: training inputs (N, ...).
        y: targets, (N, K), or (N,) for one output.
        loss: normalisation of the squared loss, which sets c: "mean" is 1/(2N) sum; as in ``gradient_flow``.
        lr: learning rate, so that time counts steps.
        rates: learning-rate factor by tensor name, 1 where it is not given.

    Returns:
        (N K, N K).

    Raises:
        TangentError: for targets of another shape.

    Example:
        >>> ntk_velocity(nn.Linear(3, 1), torch.randn(4, 3), torch.randn(4)).abs().max()  # linear: a constant kernel
        tensor(0.)
    """
    outputs = Outputs(model, x, rates)
    residual = outputs.start.flatten() - outputs.cotangent(y, "y")
    return -lr * loss_scale(loss, *outputs.shape) * _kernel(outputs, residual, 1)


def _vector(outputs: Outputs, r: Tensor, order: int) -> Tensor:
    """L_V^(order-1) F."""
    if order == 2:
        return along(outputs, outputs.point, outputs.pull(outputs.point, r))
    if order == 3:
        return _second(outputs, outputs.point, *_path(outputs, r))[1][1]

    def field(point: Point) -> Point:
        return outputs.pull(point, r)

    return following(following(following(outputs, field), field), field)(outputs.point)


def _path(outputs: Outputs, r: Tensor) -> tuple[Point, Point]:
    """First and second time derivative of theta' = V(theta): v, and V'v = H_r v.

    H_r v is the gradient of |v|^2 / 2: reverse over reverse needs v but once, forward over reverse twice.
    """

    def energy(point: Point) -> tuple[Tensor, Point]:
        v = grad(lambda p: (outputs(p) * r).sum())(point)
        return torch.stack([part.square().sum() for part in v.values()]).sum() / 2, v

    bend, v = grad(energy, has_aux=True)(outputs.point)
    return v, bend


def _second(function: Callable[[Point], Any], point: Point, v: Point, bend: Point) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """((g, g'), (g', g'')) of a function along the path."""
    return jvp(lambda p, d: jvp(function, (p,), (d,)), (point, v), (v, bend))


def _kernel(outputs: Outputs, r: Tensor, times: int) -> Tensor:
    """L_V^times of J J^T = sum_i binom(times, i) (L_V^i J)(L_V^(times-i) J)^T, in blocks of samples."""
    path = _path(outputs, r)
    outs = outputs.shape[1]
    size = max(1, int(ROWS / (2 * (times + 1) * outs * outputs.weights * outputs.start.element_size())))
    blocks = [slice(i, min(i + size, len(outputs.x))) for i in range(0, len(outputs.x), size)]
    found = torch.zeros(len(r), len(r)).to(outputs.start)
    for i, rows in enumerate(blocks):
        left = _jet(outputs, rows, times, *path)
        for columns in blocks[: i + 1]:
            right = left if columns == rows else _jet(outputs, columns, times, *path)
            block = _leibniz(left, right)
            here, there = (slice(s.start * outs, s.stop * outs) for s in (rows, columns))
            found[here, there], found[there, here] = block, block.T
    return found


def _jet(outputs: Outputs, samples: slice, times: int, v: Point, bend: Point) -> list[list[Tensor]]:
    """J of some samples and its derivatives along the path, each a list over tensors of (outputs, entries)."""

    def jacobian(point: Point) -> list[Tensor]:
        by_sample = vmap(jacrev(lambda p, x: outputs.function.one(outputs.theta(p), x)), in_dims=(None, 0))
        return [part.flatten(2).flatten(0, 1) for part in by_sample(point, outputs.x[samples]).values()]

    if times == 0:
        return [jacobian(outputs.point)]
    if times == 1:
        return list(jvp(jacobian, (outputs.point,), (v,)))
    zeroth, second = _second(jacobian, outputs.point, v, bend)
    return [*zeroth, second[1]]


def _leibniz(left: list[list[Tensor]], right: list[list[Tensor]]) -> Tensor:
    times = len(left) - 1
    terms = [math.comb(times, i) * (a @ b.T) for i in range(times + 1) for a, b in zip(left[i], right[times - i], strict=True)]
    return torch.stack(terms).sum(0)
