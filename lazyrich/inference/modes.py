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
    low, high = float(values[0].detach()), float(values[-1].detach())
    if low < -max(_EPS**0.5, len(matrix) * eps) * max(abs(low), abs(high)):
        raise KernelError(
            f"got an indefinite Gram matrix {name} ({len(matrix)} x {len(matrix)}): smallest eigenvalue {low:.3g}, largest "
            f"{high:.3g}, expected a positive semi-definite one; check the kernel, or compute it in float64"
        )
    floor = len(matrix) * eps * high
    return Modes(torch.where(values > floor, values, torch.zeros_like(values)), vectors)
