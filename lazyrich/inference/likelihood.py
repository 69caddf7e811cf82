"""How likely the targets are under a kernel."""

from __future__ import annotations

import math

from torch import Tensor

from lazyrich.inference.factor import Factor, Jitter, factorise, ridge_of
from lazyrich.inference.layout import layout_of, precision


def log_marginal(k_dd: Tensor, y: Tensor, noise: float | Tensor = 0.0, relative: bool = False, jitter: Jitter = 0.0) -> Tensor:
    """The log marginal likelihood of a Gaussian process, in nats, summed over samples and outputs.

    log p(y) = -1/2 sum_k y_k^T (K + s^2 I)^{-1} y_k - (K_out/2) log det(K + s^2 I) - (N K_out/2) log 2 pi
    (Rasmussen & Williams 2006, eq. 2.30), K_out independent outputs that share the kernel.
    Gradients reach ``k_dd``, ``y`` and ``noise`` by autograd.

    Args:
        k_dd: Gram of the training inputs, (N, N), or (N, K, N, K) for correlated outputs.
        y: targets, (N,) or (N, K).
        noise: variance s^2 of the targets' noise, a number or one a sample; (N, K) for correlated outputs.
        relative: count ``noise`` in units of tr(K)/N.
        jitter: added to the diagonal beyond the noise; ``"auto"`` escalates until the Gram can be factorised.

    Returns:
        A float64 scalar.

    Raises:
        KernelError: for inputs that do not fit, and for a singular or indefinite Gram.

    Example:
        >>> import torch
        >>> round(float(log_marginal(torch.eye(2), torch.zeros(2))), 4)  # two standard Gaussians at their mode
        -1.8379
    """
    layout = layout_of(y, k_dd)
    matrix = layout.gram(k_dd, "k_dd")
    factor = factorise(matrix, ridge_of(matrix, noise, relative, layout.outputs if layout.full else 1), jitter, precision(k_dd))
    return log_density(factor, layout.columns(y, "y"))


def log_density(factor: Factor, columns: Tensor) -> Tensor:
    """The logarithm of N(columns; 0, L L^T), summed over columns."""
    n, k = columns.shape
    whitened = factor.half_solve(columns)
    return -0.5 * (whitened.square().sum() + k * factor.log_determinant() + n * k * math.log(2 * math.pi))
