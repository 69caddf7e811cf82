"""Cheap approximate inverses that make conjugate gradients converge in fewer products."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.inference.operator import Operator

Preconditioner = Callable[[Tensor], Tensor]


def jacobi(operator: Operator, noise: float) -> Preconditioner:
    """Division by the diagonal of K + noise I.

    Raises:
        KernelError: for an operator without ``diagonal``, or with one that is not positive.
    """
    diagonal = _part(operator, "diagonal")() + noise
    if not bool((diagonal > 0).all()):
        raise KernelError(f"got a diagonal down to {float(diagonal.min()):.3g}, expected a positive one; add noise")
    return lambda v: v / diagonal[:, None]


def pivoted_cholesky(operator: Operator, noise: float, rank: int) -> Preconditioner:
    """Inverse of L L^T + s I by Woodbury's identity, L (N, rank) from the pivoted Cholesky decomposition of K.

    (Harbrecht, Peters & Schneider 2012; for Gaussian processes Gardner et al. 2018, arXiv:1809.11165, section 4.1.) The
    shift s is the noise plus what L leaves of the mean of the diagonal, so it is positive without noise too.
    """
    low_rank, left = _pivoted(operator, rank)
    shift = max(noise + left, torch.finfo(torch.float64).eps * float(low_rank.square().sum()))
    small = torch.eye(low_rank.shape[1], dtype=torch.float64) * shift + low_rank.T @ low_rank
    factor = torch.linalg.cholesky(small)
    return lambda v: (v - low_rank @ torch.cholesky_solve(low_rank.T @ v, factor)) / shift


def _pivoted(operator: Operator, rank: int) -> tuple[Tensor, float]:
    """The factor, and the mean of the diagonal that it leaves."""
    row, left = _part(operator, "row"), _part(operator, "diagonal")().clone()
    floor = torch.finfo(torch.float64).eps * float(left.max()) * len(left)
    columns = torch.zeros(len(left), 0, dtype=torch.float64)
    for _ in range(min(rank, len(left))):
        pivot = int(left.argmax())
        if float(left[pivot]) <= floor:
            break
        column = (row(pivot) - columns @ columns[pivot]) / left[pivot].sqrt()
        columns = torch.cat([columns, column[:, None]], 1)
        left = (left - column.square()).clamp_min(0)
        left[pivot] = 0
    return columns, float(left.mean())


def _part(operator: Operator, name: str) -> Callable[..., Tensor]:
    found = getattr(operator, name, None)
    if found is None:
        raise KernelError(f"got an operator without {name}(), expected one for this preconditioner; use preconditioner=None")
    return found
