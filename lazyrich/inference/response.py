"""How far training has moved each eigenmode of the tangent kernel at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.errors import KernelError


def response(eigenvalues: Tensor, times: Tensor, rate: float, momentum: float, discrete: bool) -> Tensor:
    """The dual coefficient alpha_t of every mode per unit of initial residual: f_t - f_0 = lambda alpha_t (y - f_0).

    Gradient flow alpha' = rate (1 - lambda alpha), so alpha_t = (1 - e^{-rate lambda t})/lambda; gradient descent replaces
    the exponential by (1 - rate lambda)^t. Heavy ball in torch's form, u <- m u + (1 - lambda alpha), alpha <- alpha + rate u.
    Its flow is u' = log(m) u - log(m)/(1-m) (1 - lambda alpha), alpha' = rate u: free velocities decay by m a step, a
    constant force gives the same velocities as the steps, and m -> 0 is the plain flow.

    Args:
        eigenvalues: (N,), zero or positive; modes of eigenvalue zero are never learnt, so alpha is 0 there.
        times: (T,) in steps; infinity allowed.
        rate: learning rate times the scale of the loss.
        momentum: m in [0, 1).
        discrete: steps instead of flow.

    Returns:
        (T, N).

    Raises:
        KernelError: for steps that are not whole numbers, and for the limit of steps that diverge.

    Example:
        >>> response(torch.tensor([2.0]), torch.tensor([0.0, 3.0, math.inf]), 0.25, 0.0, True).T
        tensor([[0.0000, 0.4375, 0.5000]])
    """
    _check(eigenvalues, times, rate, momentum, discrete)
    learnt = eigenvalues > 0
    safe = torch.where(learnt, eigenvalues, torch.ones_like(eigenvalues))
    rows = [_at(safe, float(t), rate, momentum, discrete) for t in times]
    found = torch.stack([torch.where(learnt, row, torch.zeros_like(row)) for row in rows])
    if not bool(torch.isfinite(found.detach()).all()):
        raise KernelError(f"got steps that diverge beyond floating point by t = {float(times.max()):g}; lower lr")
    return found


def _at(eigenvalues: Tensor, t: float, rate: float, momentum: float, discrete: bool) -> Tensor:
    if math.isinf(t):
        return 1 / eigenvalues
    if momentum:
        return (_steps_with_momentum if discrete else _flow_with_momentum)(eigenvalues, t, rate, momentum)
    decay = rate * eigenvalues
    if not discrete:
        return -torch.expm1(-decay * t) / eigenvalues
    # where a step moves a mode little, 1 - (1 - decay)^t would cancel
    gentle = -torch.expm1(t * torch.log1p(-decay.clamp_max(0.5)))
    return torch.where(decay < 0.5, gentle, 1 - (1 - decay) ** t) / eigenvalues


def _steps_with_momentum(eigenvalues: Tensor, t: float, rate: float, momentum: float) -> Tensor:
    one, zero = torch.ones_like(eigenvalues), torch.zeros_like(eigenvalues)
    rows = [1 + momentum - rate * eigenvalues, -momentum * one, rate * one, one, zero, zero, zero, zero, one]
    step = torch.stack(rows, -1).reshape(-1, 3, 3)  # acts on (alpha_t, alpha_{t-1}, 1)
    return torch.linalg.matrix_power(step, int(t))[:, 0, 2]


def _flow_with_momentum(eigenvalues: Tensor, t: float, rate: float, momentum: float) -> Tensor:
    friction, force = momentum_flow(momentum)
    one, zero = torch.ones_like(eigenvalues), torch.zeros_like(eigenvalues)
    rows = [zero, rate * one, zero, -force * eigenvalues, -friction * one, force * one, zero, zero, zero]
    generator = torch.stack(rows, -1).reshape(-1, 3, 3)  # acts on (alpha, u, 1)
    return torch.linalg.matrix_exp(t * generator)[:, 0, 2]


def momentum_flow(momentum: float) -> tuple[float, float]:
    """Friction and force of the flow u' = -friction u + force g that heavy-ball steps u <- m u + g follow."""
    friction = -math.log(momentum)
    return friction, friction / (1 - momentum)


def _check(eigenvalues: Tensor, times: Tensor, rate: float, momentum: float, discrete: bool) -> None:
    if not 0 <= momentum < 1:
        raise KernelError(f"got momentum {momentum}, expected at least 0 and below 1")
    if discrete and not all(math.isinf(t) or (t == int(t) and t < 2**53) for t in times.tolist()):
        raise KernelError(f"got times {times.tolist()} with discrete=True, expected whole numbers of steps, or infinity")
    fastest = float(eigenvalues.detach().max())
    if discrete and torch.isinf(times).any() and rate * fastest >= 2 * (1 + momentum):
        raise KernelError(
            "got t = infinity for steps that diverge: the learning rate is "
            f"{rate * fastest / (2 * (1 + momentum)):.3g} times the largest that converges; lower lr (see max_learning_rate)"
        )
