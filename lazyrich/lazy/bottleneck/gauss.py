"""Draws from a Gaussian with a given covariance, singular ones included."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.errors import KernelError

INDEFINITE = 1e-7  # of the largest eigenvalue: beyond it, it is not rounding


def generator(seed: int) -> torch.Generator:
    """A stream of random numbers that nothing else draws from.

    Raises:
        KernelError: for a seed that is no whole number.
    """
    try:
        return torch.Generator().manual_seed(seed)
    except (TypeError, RuntimeError, ValueError, OverflowError) as error:
        raise KernelError(f"got seed={seed!r}, expected a whole number of 64 bits") from error


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def root(covariance: Tensor, name: str = "the covariance") -> Tensor:
    """R with R R^T = covariance, (..., N, N), by eigenvalues: Gram matrices of low rank have no Cholesky factor.

    Raises:
        KernelError: for a covariance with a truly negative eigenvalue.

    Example:
        >>> r = root(torch.ones(2, 2, dtype=torch.float64))
        >>> torch.allclose(r @ r.T, torch.ones(2, 2, dtype=torch.float64))
        True
    """
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    worst = int((values[..., 0] + INDEFINITE * values[..., -1].abs()).argmin())
    low, high = float(values[..., 0].flatten()[worst]), float(values[..., -1].flatten()[worst])
    if low < -INDEFINITE * abs(high):
        raise KernelError(f"got {name} with eigenvalue {low:.3g} (largest {high:.3g}), expected none "
                          "below zero; check that the kernel is symmetric and positive semidefinite")  # fmt: skip
    return vectors * values.clamp(min=0).sqrt().unsqueeze(-2)
