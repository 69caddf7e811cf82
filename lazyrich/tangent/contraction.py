"""K2, K3 and K4 with their last indices contracted with residuals, on large sets: derivatives along a gradient field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.func import jacrev, jvp, vmap

from lazyrich.errors import TangentError, out_of_memory
from lazyrich.inference.normalisation import loss_scale
from lazyrich.memory import keep_freed_memory
from lazyrich.tangent.function import differentiable, unremarked
from lazyrich.tangent.higher import ORDERS
from lazyrich.tangent.inner import inner
from lazyrich.tangent.motion import motion, moving_kernel
from lazyrich.tangent.ntk import ntk_of, refuse_large
from lazyrich.tangent.once import once
from lazyrich.tangent.outputs import Outputs, Point, along, following

ROWS = 2.5e8  # bytes of gradients held at a time for a contracted matrix


def contracted(
    model: nn.Module,
    x: Tensor,
    r: Tensor,
    order: int = 3,
    keep: int = 1,
    rates: Mapping[str, float] | None = None,
    straight: bool = False,
) -> Tensor:
    """K_order with all but its first ``keep`` indices contracted with r.

    With V(theta) = sum_b r_b grad f_b, r held fixed, K_order is a chain of derivatives along V (L_V g = <grad g, V>):

    keep=1: sum K_order(a, b, c, ..) r_b r_c .. = L_V^(order-1) f_a, the (order-1)th time derivative of the outputs under
    theta' = V; for order 3 it is v^T H_a v + <u_a, H_r v>, H_r = sum_b r_b H_b: the second derivative along the gradient.
    keep=2: sum K_order(a, b, c, ..) r_c .. = L_V^(order-2) K2(a, b), the same of the tangent kernel.

    With ``straight`` the first gradient v is kept: D^(order-1) f_a [v, v, ..], the dNTK for order 3, sum_bc dNTK(a; b, c) r_b r_c,
    and the first part of the ddNTK for order 4.

    A vector is about 3, 5 and 8 training steps for dense and convolutional networks, and more where norms or attention weigh much;
    a network of operations that are not known to ``motion`` takes ``order - 1`` nested forward passes through outputs and
    gradient, about 4, 9 and 17 or more. Both hold what they compute until the end, as a backward pass does. A matrix comes from
    Gram matrices for dense layers of vectors (and for order 2), else from per-sample gradients, in blocks of 250 MB.

    Args:
        model: treats samples one by one; computed in its own dtype (K4 wants float64).
        x: inputs (N, ...).
        r: weights of the outputs, (N, K), or (N,) for one output: residuals f - y, for instance.
        order: 2, 3 or 4.
        keep: free indices, 1 or 2.
        rates: learning-rate factor by tensor name, 1 where it is not given.
        straight: derivatives along the gradient here, instead of along the gradient wherever the path leads; for ``keep=1``.

    Returns:
        (N, K) for ``keep=1``; (N K, N K) for ``keep=2``, output k of sample n at n K + k; in the outputs' dtype.

    Raises:
        TangentError: for an order or ``keep`` that is not known, r of another shape, or derivatives that are not finite.

    Example:
        >>> model, x, r = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(5, 3), torch.randn(5, 1)
        >>> vector, matrix = contracted(model, x, r), contracted(model, x, r, keep=2)
        >>> bool(torch.allclose(matrix @ r, vector, atol=1e-5))
        True
    """
    if not isinstance(order, Integral) or order not in ORDERS or keep not in (1, 2):
        raise TangentError(f"got order {order!r} and keep {keep!r}, expected order 2, 3 or 4 and keep 1 or 2")
    if straight and keep == 2:
        raise TangentError("got straight=True with keep=2, expected it with keep=1; higher_kernels has the dNTK whole")
    keep_freed_memory()
    outputs = Outputs(model, x, rates, nested=keep == 2)
    weights = outputs.cotangent(r)
    if keep == 2:
        return _finite(outputs, ntk_derivatives(outputs, weights, order - 2, "fewer samples, or keep=1")[-1])
    moved = motion(outputs.function, outputs.x, weights.view(outputs.shape), order - 1, outputs.rates, straight)
    found = None if moved is None else moved.outputs
    if found is None or not found.any():
        outputs.refuse_nested()
    if found is None:
        found = _vector(outputs, weights, order, straight).reshape(outputs.shape).detach()
    return _finite(outputs, found)


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
    residual = outputs.start - outputs.cotangent(y, "y")
    return -lr * loss_scale(loss, *outputs.shape) * _finite(outputs, ntk_derivatives(outputs, residual, 1)[-1])


def _finite(outputs: Outputs, found: Tensor) -> Tensor:
    """Refuse derivatives that do not exist where the outputs do: of a root of zero, of eigenvalues that meet."""
    if not torch.isfinite(found).all():
        raise TangentError(
            f"{type(outputs.function.model).__name__} has higher derivatives that are not finite on x (a root or a power of zero, "
            "equal eigenvalues, or an overflow); move it off that point, write the operation without it, or call model.double()"
        )
    return found


def _vector(outputs: Outputs, r: Tensor, order: int, straight: bool) -> Tensor:
    """L_V^(order-1) F, of any operations: nested forward passes, or along one direction."""

    def field(point: Point) -> Point:
        return outputs.pull(point, r)

    def compute() -> Tensor:
        if straight:
            return along(outputs, outputs.point, *[field(outputs.point)] * (order - 1))
        moving: Callable[[Point], Tensor] = outputs
        for _ in range(order - 1):
            moving = following(moving, field)
        return moving(outputs.point)

    with differentiable(outputs.function.model):
        return once(compute)


def ntk_derivatives(outputs: Outputs, r: Tensor, times: int, instead: str = "fewer samples") -> list[Tensor]:
    """J J^T and its first ``times`` derivatives along V = sum_b r_b grad f_b, each (m, m).

    Of other networks than dense ones by Jacobians, in blocks of samples:
    L_V^k (J J^T) = sum_i binom(k, i) (L_V^i J)(L_V^(k-i) J)^T.
    """
    refuse_large((times + 1) * len(r) ** 2 * r.element_size(), f"kernels of {len(r)} outputs a side", instead)
    if times == 0:
        kernel = ntk_of(outputs.function.model, outputs.x, rates=outputs.rates)
        return [kernel.transpose(1, 2).reshape(len(r), len(r))]
    moved = motion(outputs.function, outputs.x, r.view(outputs.shape), times, outputs.rates)
    found = None if moved is None else moving_kernel(moved, outputs.rates, times)
    if found is not None and torch.isfinite(found[-1]).all():  # behind a rectifier's zeros a root's slopes do not count
        return found
    with differentiable(outputs.function.model):
        return _ntk_derivatives(outputs, r, times)


def _ntk_derivatives(outputs: Outputs, r: Tensor, times: int) -> list[Tensor]:
    v = outputs.pull(outputs.point, r)
    bend = jvp(lambda point: outputs.pull(point, r), (outputs.point,), (v,))[1] if times > 1 else v
    outs = outputs.shape[1]
    size = max(1, int(ROWS / (2 * (times + 1) * outs * outputs.weights * r.element_size())))
    blocks = [slice(i, min(i + size, len(outputs.x))) for i in range(0, len(outputs.x), size)]
    found = torch.zeros(times + 1, len(r), len(r)).to(r)
    for i, rows in enumerate(blocks):
        left = _jet(outputs, rows, times, v, bend)
        for columns in blocks[: i + 1]:
            right = left if columns == rows else _jet(outputs, columns, times, v, bend)
            here, there = (slice(s.start * outs, s.stop * outs) for s in (rows, columns))
            for k in range(times + 1):
                block = _leibniz(left, right, k)
                found[k, here, there], found[k, there, here] = block, block.T
    return list(found)


def _jet(outputs: Outputs, samples: slice, times: int, v: Point, bend: Point) -> list[list[Tensor]]:
    """J of some samples and its derivatives along theta' = V, each a list over tensors of (outputs, entries).

    v is the path's first derivative, ``bend`` its second, V'v.
    """

    @unremarked()
    def jacobian(point: Point) -> list[Tensor]:
        each = jacrev(lambda p, x: outputs.function.one(outputs.theta(p), x))
        xs = outputs.x[samples]
        try:
            found = vmap(each, in_dims=(None, 0))(point, xs)
        except (RuntimeError, TangentError) as error:  # an operation without a batched form, such as a recurrent layer
            if out_of_memory(error):
                raise
            rows = [each(point, x) for x in xs]
            found = {name: torch.stack([row[name] for row in rows]) for name in point}
        return [part.reshape(part.shape[0] * part.shape[1], -1) for part in found.values()]

    if times == 0:
        return [jacobian(outputs.point)]
    if times == 1:
        return list(jvp(jacobian, (outputs.point,), (v,)))
    both = jvp(lambda p, d: jvp(jacobian, (p,), (d,)), (outputs.point, v), (v, bend))
    return [*both[0], both[1][1]]


def _leibniz(left: list[list[Tensor]], right: list[list[Tensor]], k: int) -> Tensor:
    """The kth derivative of the product, summed over tensors."""
    terms = [math.comb(k, i) * inner(a, b) for i in range(k + 1) for a, b in zip(left[i], right[k - i], strict=True)]
    return torch.stack(terms).sum(0)
