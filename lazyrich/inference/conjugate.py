"""Solving with a Gram matrix that is known by its products alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from lazyrich.amount import counted, real
from lazyrich.errors import KernelError
from lazyrich.inference.layout import finite, symmetric, tensor
from lazyrich.inference.operator import Dense, Operator, columns_of
from lazyrich.inference.preconditioner import Preconditioner, jacobi, pivoted_cholesky


@dataclass(frozen=True)
class Solved:
    """The solution of (K + noise I) x = b.

    Attributes:
        x: shaped as b, float64.
        iterations: products with K that were needed, one for all right-hand sides together.
        residual: the largest ||b - (K + noise I) x|| / ||b|| over right-hand sides, computed anew at the end.
        history: that number, as the recursion knew it, after every iteration.
    """

    x: Tensor
    iterations: int
    residual: float
    history: tuple[float, ...]

    def __str__(self) -> str:
        return f"solved in {self.iterations} iterations, relative residual {self.residual:.2g}"


def conjugate_gradients(
    operator: Tensor | Operator,
    b: Tensor,
    noise: float = 0.0,
    preconditioner: str | Preconditioner | None = None,
    rank: int = 32,
    tolerance: float = 1e-8,
    max_iterations: int | None = None,
) -> Solved:
    """Solve (K + noise I) x = b by preconditioned conjugate gradients (Hestenes & Stiefel 1952), all columns side by side.

    Args:
        operator: K: a tensor (N, N), or an object with ``shape`` and ``matvec`` such as ``Streamed``.
        b: right-hand sides, (N,) or (N, R).
        noise: added to the diagonal.
        preconditioner: None, "jacobi", "cholesky" (pivoted, of the given rank), or a function v -> P^{-1} v, (N, R).
        rank: of the pivoted Cholesky preconditioner.
        tolerance: on the relative residual of each right-hand side.
        max_iterations: 2 N + 10 by default.

    Raises:
        KernelError: if the tolerance is not reached, the operator is not positive definite, or shapes do not fit.

    Example:
        >>> found = conjugate_gradients(torch.diag(torch.tensor([1.0, 2.0, 4.0])), torch.tensor([1.0, 1.0, 1.0]))
        >>> found.x.tolist(), found.iterations
        ([1.0, 0.5, 0.25], 3)
    """
    k, b = _operator(operator), tensor(b, "b")
    rank, iterations = (
        counted("rank", rank, refusal=KernelError),
        None if max_iterations is None else counted("max_iterations", max_iterations, refusal=KernelError),
    )
    columns = _columns(b, k)
    if not (0 <= real(noise) < float("inf")) or not 0 < real(tolerance) < 1:
        raise KernelError(
            f"got noise {noise!r}, tolerance {tolerance!r}, expected numbers: noise at least 0, tolerance between 0 and 1"
        )
    limit = 2 * len(columns) + 10 if iterations is None else iterations
    x, history = _iterate(k, columns, noise, _preconditioner(preconditioner, k, noise, rank), tolerance, limit)
    worst = _relative(columns - columns_of(k, x) - noise * x, columns)
    if worst > max(10 * tolerance, 1e-13) or (history and history[-1] > tolerance):
        raise KernelError(
            f"got a relative residual of {worst:.2g} after {len(history)} iterations, expected {tolerance:.2g}; "
            "add noise, raise max_iterations, or pass preconditioner='cholesky'"
        )
    return Solved(x.reshape(b.shape), len(history), worst, tuple(history))


def _iterate(
    k: Operator, b: Tensor, noise: float, precondition: Preconditioner, tolerance: float, limit: int
) -> tuple[Tensor, list[float]]:
    x, r, history = torch.zeros_like(b), b.clone(), []
    z = precondition(r)
    p, rz = z, (r * z).sum(0)
    while _relative(r, b) > tolerance and len(history) < limit:
        running = r.norm(dim=0) > tolerance * b.norm(dim=0)
        kp = columns_of(k, p) + noise * p
        curvature = (p * kp).sum(0)
        if bool((running & ~(curvature > 0)).any()):
            low = float((curvature / (p * p).sum(0))[running].min())
            raise KernelError(
                f"got an operator that is not positive definite (p.Kp/p.p = {low:.3g}), expected a Gram matrix; add noise"
            )
        step = torch.where(running, rz / curvature, 0.0)
        x, r = x + step * p, r - step * kp
        z = precondition(r)
        rz_new = (r * z).sum(0)
        p = z + torch.where(running, rz_new / rz, 0.0) * p
        rz = rz_new
        history.append(_relative(r, b))
    return x, history


def _relative(r: Tensor, b: Tensor) -> float:
    sizes = b.norm(dim=0)
    return float((r.norm(dim=0) / torch.where(sizes > 0, sizes, torch.ones_like(sizes))).max())


def _operator(operator: Any) -> Operator:
    if isinstance(operator, Tensor):
        return Dense(symmetric(operator, "operator"))
    if not (hasattr(operator, "shape") and hasattr(operator, "matvec")):
        raise KernelError(f"got an operator of type {type(operator).__name__}, expected a tensor or .shape and .matvec(v)")
    shape = tuple(operator.shape)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise KernelError(f"got an operator of shape {shape}, expected (N, N)")
    return cast(Operator, operator)


def _columns(b: Tensor, k: Operator) -> Tensor:
    columns = finite(tensor(b, "b"), "b").detach()
    if columns.ndim not in (1, 2) or len(columns) != k.shape[0] or not columns.numel():
        raise KernelError(f"got b of shape {tuple(columns.shape)}, expected ({k.shape[0]},) or ({k.shape[0]}, R)")
    return columns.reshape(len(columns), -1)


def _preconditioner(preconditioner: str | Preconditioner | None, k: Operator, noise: float, rank: int) -> Preconditioner:
    if preconditioner is None:
        return lambda v: v
    if callable(preconditioner):
        return preconditioner
    if preconditioner == "jacobi":
        return jacobi(k, noise)
    if preconditioner == "cholesky":
        return pivoted_cholesky(k, noise, rank)
    raise KernelError(f"got preconditioner {preconditioner!r}, expected None, 'jacobi', 'cholesky' or a function")
