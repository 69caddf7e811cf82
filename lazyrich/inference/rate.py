"""The largest learning rate at which gradient descent converges."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.inference.layout import layout_of, precision, symmetric, tensor
from lazyrich.inference.modes import check_definite, rounding
from lazyrich.inference.normalisation import loss_scale
from lazyrich.inference.operator import Operator, columns_of
from lazyrich.inference.times import check_rate, check_ridge


def max_learning_rate(
    theta: Tensor | Operator, loss: str = "sum", momentum: float = 0.0, outputs: int = 1, ridge: float = 0.0
) -> float:
    """The learning rate below which gradient descent on the squared loss converges, and above which it diverges.

    lr < 2 (1 + m) / (c (lambda_max(Theta) + ridge)), with c the scale of the loss and m the momentum of the heavy ball
    (Polyak 1964; for m = 0 Lee et al. 2019, arXiv:1902.06720, section 2).

    Args:
        theta: tangent kernel of the training inputs, (N, N) or (N, K, N, K), or an operator with ``shape`` and ``matvec``.
        loss: "sum", "mean", "mse" or "neural_tangents", as in ``loss_scale``.
        momentum: m in [0, 1).
        outputs: K; matters for "mse" and "neural_tangents" when ``theta`` is (N, N).
        ridge: weight decay towards the initial weights, as in ``gradient_flow``.

    Returns:
        The bound; infinity for a theta of zeros.

    Raises:
        KernelError: for a theta that is not a symmetric positive semi-definite Gram (an operator: one whose eigenvalue of
            largest size is negative), a ridge that is negative or not finite, and fewer than one output.

    Example:
        >>> max_learning_rate(torch.diag(torch.tensor([1.0, 4.0])), momentum=0.5)
        0.75
        >>> max_learning_rate(torch.diag(torch.tensor([1.0, 4.0])), loss="mean")
        1.0
    """
    check_rate(1.0, momentum)
    check_ridge(ridge)
    largest, samples, outputs = _largest(theta, outputs)
    return largest_rate(loss_scale(loss, samples, outputs) * (largest + ridge), momentum)


def largest_rate(curvature: float, momentum: float) -> float:
    """2 (1 + m) / curvature; infinity where nothing is curved.

    Example:
        >>> largest_rate(4.0, 0.5)
        0.75
    """
    return 2 * (1 + momentum) / curvature if curvature > 0 else float("inf")


def _largest(theta: Any, outputs: int) -> tuple[float, int, int]:
    if not isinstance(theta, Tensor) and hasattr(theta, "matvec"):
        return _lanczos(theta), theta.shape[0], outputs
    theta = tensor(theta, "theta")
    if theta.ndim == 4:
        outputs = theta.shape[1]
        matrix = layout_of(torch.zeros(len(theta), outputs), theta).gram(theta, "theta").detach()
    else:
        matrix = symmetric(theta, "theta").detach()
    return _last(matrix, precision(theta)), len(theta), outputs


def _last(matrix: Tensor, eps: float = torch.finfo(torch.float64).eps) -> float:
    """The largest eigenvalue of a matrix that has none below zero."""
    values = torch.linalg.eigvalsh(matrix)
    check_definite(values, "theta", rounding(len(matrix), eps))
    return float(values[-1])


def _lanczos(theta: Operator) -> float:
    def product(v: np.ndarray) -> np.ndarray:
        return columns_of(theta, torch.as_tensor(v).reshape(-1, 1)).numpy().reshape(-1)

    n = theta.shape[0]
    if n < 3:  # Lanczos needs room
        return _last(columns_of(theta, torch.eye(n, dtype=torch.float64)))
    build: Any = LinearOperator  # it chooses a subclass in __new__, which hides its arguments from type checkers
    operator = build((n, n), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n)
    if not product(start).any():  # an operator of zeros, on which Lanczos cannot start
        return 0.0
    try:
        found = eigsh(operator, 1, which="LM", v0=start, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        raise KernelError(f"got an operator whose largest eigenvalue Lanczos did not find: {error}") from error
    if found[0] < 0:
        raise KernelError(
            f"got an indefinite operator theta: its eigenvalue of largest size is {found[0]:.3g}, expected a positive "
            "semi-definite one; check its products"
        )
    return float(found[0])
