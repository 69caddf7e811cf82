"""The eigenmodes of a tangent kernel, with rounding told from eigenvalues."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.errors import KernelError

_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Modes:
    """Eigenvalues (N,), ascending, zero where they are rounding; eigenvectors (N, N) in columns."""

    values: Tensor
    vectors: Tensor

    @property
    def rank(self) -> int:
        """How many eigenvalues stand above rounding."""
        return int((self.values > 0).sum())


def modes_of(matrix: Tensor, name: str, eps: float = _EPS) -> Modes:
    """Eigendecomposition of a symmetric positive semi-definite float64 matrix.

    Eigenvalues below N eps lambda_max are rounding and become zero; ``eps`` is that of the numbers the Gram came in.

    Raises:
        KernelError: for a matrix with eigenvalues that are negative beyond rounding.

    Example:
        >>> modes_of(torch.ones(2, 2, dtype=torch.float64), "k").values.round()
        tensor([0., 2.], dtype=torch.float64)
    """
    values, vectors = torch.linalg.eigh(matrix)
    check_definite(values.detach(), name, rounding(len(matrix), eps))
    floor = len(matrix) * eps * float(values[-1].detach())
    return Modes(torch.where(values > floor, values, torch.zeros_like(values)), vectors)


def rounding(size: int, eps: float = _EPS) -> float:
    """How far below zero, relative to the largest, an eigenvalue of a Gram of ``size`` samples may lie by rounding.

    Example:
        >>> rounding(1024, eps=2.0**-20) == 2.0**-10
        True
    """
    return max(_EPS**0.5, size * eps)


def check_definite(values: Tensor, name: str, tolerance: float) -> None:
    """Refuse a Gram with an eigenvalue below zero by more than ``tolerance`` of the largest in size; ``values`` ascend.

    Raises:
        KernelError: for such a Gram.

    Example:
        >>> check_definite(torch.tensor([-1e-9, 1.0]), "k", 1e-8)
    """
    low, high, size = float(values[0]), float(values[-1]), len(values)
    if low < -tolerance * max(abs(low), abs(high)):
        raise KernelError(
            f"got an indefinite Gram matrix {name} ({size} x {size}): smallest eigenvalue {low:.3g}, largest {high:.3g}, "
            "expected a positive semi-definite one; check the kernel, or compute it in float64"
        )
