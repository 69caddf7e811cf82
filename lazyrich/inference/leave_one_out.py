"""What every training sample would have been predicted to be without itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.inference.factor import Jitter, factorise, ridge_of
from lazyrich.inference.layout import layout_of, precision


@dataclass(frozen=True)
class LeaveOneOut:
    """Predictions of each target from all others.

    Attributes:
        mean: (N,) or (N, K), as the targets.
        variance: of the target, so with its noise, (N,), the same for every output.
        log_density: log of the density of each target under its prediction, summed over outputs, (N,).
        error: mean squared error over samples and outputs (torch's mse).
    """

    mean: Tensor
    variance: Tensor
    log_density: Tensor
    error: float

    def __str__(self) -> str:
        return (
            f"leave-one-out over {len(self.variance)} samples: mean squared error {self.error:.4g}, "
            f"log density {float(self.log_density.detach().sum()):.6g}"
        )


def leave_one_out(
    k_dd: Tensor, y: Tensor, noise: float | Tensor = 0.0, relative: bool = False, jitter: Jitter = 0.0
) -> LeaveOneOut:
    """Leave-one-out predictions of kernel regression in closed form, from one factorisation.

    mean_i = y_i - [K^{-1} y]_i / [K^{-1}]_ii,  variance_i = 1/[K^{-1}]_ii,  with K the Gram with its noise
    (Rasmussen & Williams 2006, eq. 5.12).

    Args:
        k_dd: Gram of the training inputs, (N, N), shared by the outputs.
        y: targets, (N,) or (N, K).
        noise: variance of the targets' noise (or a ridge), a number or one a sample.
        relative: count ``noise`` in units of tr(K)/N over all samples.
        jitter: added to the diagonal beyond the noise; it counts as noise. ``"auto"`` escalates until it works.

    Raises:
        KernelError: for inputs that do not fit, and for a singular or indefinite Gram.

    Example:
        >>> k = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> found = leave_one_out(k, torch.tensor([4.0, 0.0]))
        >>> found.mean.round(decimals=6).tolist(), found.variance.round(decimals=6).tolist()
        ([-0.0, 2.0], [1.5, 1.5])
    """
    layout = layout_of(y)
    matrix, columns = layout.gram(k_dd, "k_dd"), layout.columns(y, "y")
    factor = factorise(matrix, ridge_of(matrix, noise, relative), jitter, precision(k_dd))
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    variance = 1 / factor.half_solve(eye).square().sum(0)
    gap = factor.solve(columns) * variance[:, None]
    k = columns.shape[1]
    density = -0.5 * (gap.square().sum(1) / variance + k * torch.log(2 * math.pi * variance))
    return LeaveOneOut(layout.restore(columns - gap), variance, density, float(gap.detach().square().mean()))
