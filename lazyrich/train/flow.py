"""Gradient flow of a network itself: training with steps so small that their size no longer matters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lazyrich.errors import TrainError
from lazyrich.inference.normalisation import loss_scale
from lazyrich.inference.times import Times, times_of
from lazyrich.tangent.function import NetworkFunction, Parameters, copy_of
from lazyrich.tangent.outputs import in_float64

Point = dict[str, Tensor]
STEP = 0.7  # of a step times the fastest mode's rate of decay; the method is stable up to 2.8, and kernels grow on the way
MOST = 100_000  # steps from one time to the next
POWER = 12  # iterations for the fastest mode; a start from the last time's vector helps


def flow(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    times: Times,
    *,
    x_test: Tensor | None = None,
    loss: str = "mean",
    lr: float = 1.0,
    rates: Mapping[str, float] | None = None,
    substeps: int = 20,
) -> tuple[Tensor, Tensor | None]:
    """Outputs of a network under dtheta_t/dt = -lr rate_t dL/dtheta_t, in float64.

    What ``tangent.hierarchy`` and ``inference.gradient_flow`` predict, for a referee. Integrated by the classical Runge-Kutta
    method of order 4 in steps of a fixed size: at the kinks of a ReLU net adaptive ones would never come to an end.

    Args:
        model: the start; left as it is.
        x: training inputs (N, ...).
        y: targets (N, K), or (N,) for one output.
        times: increasing, from 0 on, in steps.
        x_test: further inputs to follow.
        loss: normalisation of the squared loss, as in ``gradient_flow``: "mean" is 1/(2N) sum.
        lr: learning rate.
        rates: learning-rate factor by tensor name, 1 where it is not given.
        substeps: Runge-Kutta steps from each time to the next at the least; more are taken where a step would exceed
            0.7 / (lr c lambda_max), with lambda_max the largest eigenvalue of the tangent kernel at the earlier of the two
            times, rates included, and c the scale of the loss.

    Returns:
        Outputs on x, (T, N, K), and on x_test, (T, M, K) or None; float64.

    Raises:
        TrainError: if times do not increase, targets are not of the outputs' shape, the flow needs too many steps, or its steps
            turn out too large: the loss rises, or the outputs cease to be finite.
        TangentError: for a network that is no fixed function of its parameters, or rates of tensors that it does not have.

    Example:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> nn.init.zeros_(net.weight).tolist()
        [[0.0]]
        >>> train, _ = flow(net, torch.ones(1, 1), torch.ones(1), times=[0.0, 1.0])
        >>> round(float(train[1]), 4)  # 1 - 1/e
        0.6321
    """
    function = NetworkFunction(copy_of(model).double())
    given, x, test = x, _double(x), None if x_test is None else _double(x_test)
    with in_float64(model, given):
        function.check(x)
    when = times_of(times).reshape(-1)
    if not (torch.isfinite(when).all() and (when >= 0).all() and (when.diff() > 0).all()):
        raise TrainError(f"got times {when.tolist()}, expected finite and increasing ones from 0 on")
    if substeps < 1:
        raise TrainError(f"got substeps = {substeps}, expected at least 1")
    point = {name: p.clone() for name, p in function.parameters.items()}
    targets = _targets(y, function(point, x))
    scale = lr * loss_scale(loss, *targets.shape)
    speeds = {name: -scale * rate for name, rate in function.rates(rates).items()}

    def velocity(at: Parameters) -> Point:
        leaves = {name: p.detach().requires_grad_() for name, p in at.items()}
        with torch.enable_grad():
            value = (function(leaves, x) - targets).square().sum() / 2
            gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        pairs = zip(leaves.items(), gradients, strict=True)
        return {name: torch.zeros_like(p) if g is None else speeds[name] * g for (name, p), g in pairs}

    def distance(at: Parameters) -> float:
        with torch.no_grad():
            return float((function(at, x) - targets).square().sum())

    found, now, vector, left = [], 0.0, _random(targets, 0), distance(point)
    for time in when.tolist():
        if time > now:
            fastest, vector = _fastest(function, point, x, speeds, vector)
            steps = max(substeps, math.ceil((time - now) * fastest / STEP))
            if steps > MOST:
                raise TrainError(
                    f"gradient flow to time {time:.4g} needs {steps:,} steps, expected at most {MOST:,}: its fastest mode decays "
                    f"in {1 / fastest:.3g}; give times closer to that, or a lower lr"
                )
            for _ in range(steps):
                point = _runge_kutta(velocity, point, (time - now) / steps)
        now, before, left = time, left, distance(point)
        with torch.no_grad():
            found.append((function(point, x), None if test is None else function(point, test)))
        if not torch.isfinite(found[-1][0]).all():
            raise TrainError(f"gradient flow left the finite numbers before time {time:.4g}; raise substeps, or lower lr")
        if left > 1.001 * before + 1e-9 * float(targets.square().sum()):
            raise TrainError(
                f"gradient flow raised the squared distance to the targets from {before:.3g} to {left:.3g} before time {time:.4g}, "
                "expected it to fall: its kernel grew faster than the steps shrank; raise substeps, or give more times"
            )
    after = [out for _, out in found if out is not None]
    return torch.stack([out for out, _ in found]), torch.stack(after) if after else None


def _fastest(
    function: NetworkFunction, point: Parameters, x: Tensor, speeds: Mapping[str, float], vector: Tensor
) -> tuple[float, Tensor]:
    """The largest rate of decay, lr c lambda_max, by power iteration from a vector of the outputs' shape; with the last vector.

    Products J D J^T v by backward passes alone: J is the derivative of J^T u in u.
    """
    leaves = {name: p.detach().requires_grad_() for name, p in point.items()}
    inputs, factors = list(leaves.values()), [-speeds[name] for name in leaves]
    u, size = torch.zeros_like(vector, requires_grad=True), 0.0
    vector = vector / vector.norm() + 0.1 * _random(
        vector, 1
    )  # of the last time's, the mode that is fastest now may be no part
    with torch.enable_grad():
        out = function(leaves, x)
        pulled = torch.autograd.grad(out, inputs, u, create_graph=True, materialize_grads=True)
        for _ in range(POWER):
            back = torch.autograd.grad(out, inputs, vector / vector.norm(), retain_graph=True, materialize_grads=True)
            steps = [factor * g for factor, g in zip(factors, back, strict=True)]
            live = [(p, step) for p, step in zip(pulled, steps, strict=True) if p.requires_grad]
            vector = torch.autograd.grad([p for p, _ in live], u, [step for _, step in live], retain_graph=True)[0]
            size = float(vector.norm())
            if not 0 < size < math.inf:
                return 0.0, _random(u, 0)
    return size, vector


def _random(like: Tensor, seed: int) -> Tensor:
    """A direction that no kernel's null space holds: ones would lie in one where outputs cancel."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=like.dtype).to(like.device)
    return drawn / drawn.norm()


def _runge_kutta(velocity: Callable[[Parameters], Point], point: Point, step: float) -> Point:
    """One classical step of order 4."""

    def moved(by: float, along: Point) -> Point:
        return {name: p + by * along[name] for name, p in point.items()}

    first = velocity(point)
    second = velocity(moved(step / 2, first))
    third = velocity(moved(step / 2, second))
    fourth = velocity(moved(step, third))
    return {n: p + step / 6 * (first[n] + 2 * second[n] + 2 * third[n] + fourth[n]) for n, p in point.items()}


def _targets(y: Tensor, outputs: Tensor) -> Tensor:
    """Targets (N, K) of the outputs' dtype; (N,) for one output."""
    column = y.unsqueeze(1) if y.dim() == 1 else y.flatten(1) if y.dim() else y
    if column.shape != outputs.shape:
        raise TrainError(f"got targets y {tuple(y.shape)} for outputs {tuple(outputs.shape)}, expected equal shapes (N, K)")
    return column.to(outputs)


def _double(x: Tensor) -> Tensor:
    return x.detach().double() if x.is_floating_point() else x
