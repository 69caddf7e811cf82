"""Training a network in its lazy limit on any loss, by an ordinary differential equation in function space."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from lazyrich.amount import counted
from lazyrich.errors import KernelError
from lazyrich.inference.flow import Flow
from lazyrich.inference.layout import Layout, check_starts, finite, layout_of, tensor
from lazyrich.inference.objective import Objective, objective_of, slope_of, target_of
from lazyrich.inference.response import momentum_flow
from lazyrich.inference.times import Times, check_rate, times_of


def function_flow(
    theta_dd: Tensor,
    y: Tensor,
    theta_td: Tensor | None = None,
    t: Times = 1.0,
    *,
    lr: float = 1.0,
    loss: str | Objective = "cross_entropy",
    momentum: float = 0.0,
    discrete: bool = False,
    f0_train: Tensor | None = None,
    f0_test: Tensor | None = None,
    outputs: int | None = None,
    method: str = "RK45",
    rtol: float = 1e-8,
    atol: float = 1e-10,
) -> Flow:
    """Outputs of a network in its lazy limit, trained on any loss of its outputs.

    df_t(x)/dt = -lr Theta(x, X) dLoss/df_t(X)  (Jacot et al. 2018, arXiv:1806.07572; Lee et al. 2019, arXiv:1902.06720,
    section 2.2). It is the coefficients a of f_t(x) = f_0(x) + Theta(x, X) a_t that are integrated, a' = -lr dLoss/df,
    so test inputs cost nothing. With momentum m the velocity u is integrated beside them: steps u <- m u + dLoss/df,
    a <- a - lr u in torch's form, or the flow that they follow, u' = log(m) u - log(m)/(1-m) dLoss/df, a' = -lr u.

    Args:
        theta_dd: tangent kernel of the training inputs, (N, N) shared by the outputs, or (N, K, N, K).
        y: targets as the loss wants them: labels (N,) for "cross_entropy" (or probabilities (N, K)); 0 and 1, -1 and 1,
            or booleans for "logistic"; numbers (N,) or (N, K) otherwise.
        theta_td: tangent kernel of test with training inputs, (M, N) or (M, K, N, K).
        t: one finite time or several, in steps.
        lr: learning rate.
        loss: "cross_entropy", "logistic", "huber" (torch's: means over samples, or over samples and outputs), the squared
            losses of ``gradient_flow`` ("sum", "mean", "mse", "neural_tangents"), or any function(output, target) ->
            scalar, whose own normalisation counts.
        momentum: of the heavy ball.
        discrete: gradient descent with whole steps instead of the flow.
        f0_train: initial outputs on the training inputs; zeros by default.
        f0_test: initial outputs on the test inputs.
        outputs: K, where neither ``y``, ``f0_train`` nor the kernel says it (labels: the largest label + 1 by default).
        method: of scipy's ``solve_ivp``; "LSODA", "BDF" or "Radau" for stiff problems.
        rtol: relative tolerance of the solver.
        atol: absolute tolerance of the solver.

    Returns:
        The flow. ``test_error`` makes sense for numbers as targets only.

    Raises:
        KernelError: for inputs that do not fit, an infinite time, a loss that fails, or a solver that gives up.

    Example:
        >>> flow = function_flow(torch.eye(2), torch.tensor([0, 1]), t=[0.0, 100.0], lr=1.0)
        >>> flow.train[-1].argmax(1).tolist(), bool(flow.losses[1] < 0.1 * flow.losses[0])
        ([0, 1], True)
    """
    check_rate(lr, momentum)
    check_starts(theta_td, f0_train, f0_test)
    times, target, theta_dd = times_of(t), target_of(loss, y), tensor(theta_dd, "theta_dd")
    if not bool(torch.isfinite(times).all()):
        raise KernelError(f"got t {times.tolist()}, expected finite times: losses such as cross entropy have no last one")
    name, objective = objective_of(loss)
    target = target.to(theta_dd.device)
    layout = _layout(loss, target, theta_dd, f0_train, outputs)
    theta, start = layout.gram(theta_dd, "theta_dd").detach(), layout.columns(f0_train, "f0_train").detach()
    cross = None if theta_td is None else layout.cross(theta_td, "theta_td").detach()

    def slope(dual: Tensor) -> tuple[float, Tensor]:
        value, gradient = slope_of(objective, layout.restore(start + theta @ dual), target)
        return value, finite(gradient, "the gradient of the loss").reshape(start.shape)

    order = torch.argsort(times.reshape(-1))
    moments = times.reshape(-1)[order].tolist()
    walk = _steps(slope, start, moments, lr, momentum) if discrete else None
    walk = _integrate(slope, start, moments, lr, momentum, method, rtol, atol) if walk is None else walk
    dual = torch.empty_like(walk)
    dual[order] = walk
    rows = 0 if cross is None else len(cross) // (layout.outputs if layout.full else 1)
    test = None if cross is None else layout.restore(layout.columns(f0_test, "f0_test", rows) + cross @ dual)
    one = (lambda v: v) if times.ndim else (lambda v: v[0])
    kind = "gradient descent" if discrete else "gradient flow"
    return Flow(
        times=times,
        train=one(layout.restore(start + theta @ dual)),
        test=None if test is None else one(test),
        losses=one(torch.tensor([slope(a)[0] for a in dual], dtype=torch.float64, device=dual.device)),
        dual=one(layout.restore(dual)),
        train_covariance=None,
        test_covariance=None,
        title=f"{kind} on {layout.samples} samples, loss {name}, lr {lr:g}" + (f", momentum {momentum:g}" if momentum else ""),
        layout=layout,
    )


def _layout(loss: str | Objective, y: Tensor, theta_dd: Tensor, f0: Tensor | None, outputs: int | None) -> Layout:
    """Outputs have an axis if the initial outputs, the kernel, ``outputs``, or else the targets say so."""
    labels = y.ndim == 1 and not y.is_floating_point()
    outputs = None if outputs is None else counted("outputs", outputs, refusal=KernelError)
    if f0 is not None:
        shape = tensor(f0, "f0_train").shape
    elif theta_dd.ndim == 4 and not (y.ndim == 1 and theta_dd.shape[1] == 1 and not labels):
        shape = torch.Size((len(y), theta_dd.shape[1]))
    elif outputs is not None:
        shape = torch.Size((len(y), outputs))
    elif labels and loss == "cross_entropy":
        shape = torch.Size((len(y), int(y.max()) + 1))
    else:
        shape = y.shape
    if len(shape) not in (1, 2):
        raise KernelError(f"got f0_train of shape {tuple(shape)}, expected (N,) or (N, K): the outputs on the training inputs")
    if outputs is not None and outputs != (shape[1] if len(shape) > 1 else 1):
        raise KernelError(
            f"got outputs={outputs} for outputs of shape {tuple(shape)}, as {'theta_dd' if f0 is None else 'f0_train'} has them, "
            "expected the same number of both; leave outputs= out"
        )
    if shape[0] != len(y):
        raise KernelError(f"got {shape[0]} initial outputs for {len(y)} targets, expected as many")
    if labels and loss == "cross_entropy" and (len(shape) < 2 or int(y.max()) >= shape[1]):
        raise KernelError(f"got label {int(y.max())} for outputs {tuple(shape)}, expected labels below the number of outputs")
    return layout_of(torch.empty(shape), theta_dd)


def _steps(slope, start: Tensor, times: list[float], lr: float, momentum: float) -> Tensor:
    if any(t != int(t) for t in times):
        raise KernelError(f"got times {times} with discrete=True, expected whole numbers of steps")
    dual, velocity, found = torch.zeros_like(start), torch.zeros_like(start), {}
    for step in range(int(times[-1]) + 1):
        found[step] = dual
        velocity = momentum * velocity + slope(dual)[1]
        dual = dual - lr * velocity
    return torch.stack([found[int(t)] for t in times])


def _integrate(
    slope, start: Tensor, times: list[float], lr: float, momentum: float, method: str, rtol: float, atol: float
) -> Tensor:
    if method not in ("RK45", "RK23", "DOP853", "LSODA", "BDF", "Radau"):
        raise KernelError(f"got method {method!r}, expected one of RK45, RK23, DOP853, LSODA, BDF, Radau")
    size = start.numel()
    friction, force = momentum_flow(momentum) if momentum else (0.0, 0.0)

    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        dual = torch.as_tensor(state[:size], device=start.device).reshape(start.shape)
        gradient = slope(dual)[1].cpu().numpy().reshape(-1)
        if not momentum:
            return -lr * gradient
        return np.concatenate([-lr * state[size:], force * gradient - friction * state[size:]])

    if times[-1] == 0:
        return torch.zeros(len(times), *start.shape, dtype=torch.float64, device=start.device)
    state = np.zeros(2 * size if momentum else size)
    found = solve_ivp(velocity, (0.0, times[-1]), state, method, sorted(set(times)), rtol=rtol, atol=atol)
    if not found.success or not math.isfinite(float(np.abs(found.y).max())):
        raise KernelError(f"got a flow that {method} could not follow ({found.message}); lower lr, or pass method='LSODA'")
    where = np.searchsorted(found.t, times)
    return torch.as_tensor(found.y[:size].T[where], device=start.device).reshape(len(times), *start.shape)
