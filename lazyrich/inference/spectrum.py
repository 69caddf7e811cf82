"""What a kernel finds easy: its eigenvalues, and where the targets lie among its eigenvectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.inference.layout import layout_of, precision, symmetric
from lazyrich.inference.modes import check_definite, rounding

# part of the largest eigenvalue that a small one may lie below zero: kernels of numerical integrals are good to no more
_INTEGRALS = 1e-3


@dataclass(frozen=True)
class Spectrum:
    """Eigenmodes of a Gram matrix, largest first.

    Attributes:
        eigenvalues: (N,), descending, of the Gram itself (divide by N for those of the kernel operator).
        eigenvectors: (N, N), in columns.
        power: the part of the targets' square on each eigenvector, (N,), summing to 1; None without targets.
        alignment: <K, Y Y^T>_F / (||K||_F ||Y Y^T||_F), uncentred (Cristianini et al. 2001); None without targets.

    Example:
        >>> found = spectrum(torch.diag(torch.tensor([1.0, 3.0])), torch.tensor([0.6, 0.8]))
        >>> found.eigenvalues.tolist(), [round(p, 2) for p in found.cumulative.tolist()]
        ([3.0, 1.0], [0.64, 1.0])
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    power: Tensor | None
    alignment: float | None

    @property
    def cumulative(self) -> Tensor | None:
        """The part of the targets' square on the first 1, 2, ... eigenvectors, (N,)."""
        return None if self.power is None else self.power.cumsum(0)

    @property
    def effective_rank(self) -> float:
        """The exponential of the entropy of the eigenvalues over their sum (Roy & Vetterli 2007)."""
        p = self.eigenvalues.clamp_min(0) / self.eigenvalues.clamp_min(0).sum()
        return float(torch.exp(torch.special.entr(p).sum()))

    @property
    def participation_ratio(self) -> float:
        """(sum lambda)^2 / sum lambda^2."""
        return float(self.eigenvalues.sum() ** 2 / self.eigenvalues.square().sum())

    @property
    def stable_rank(self) -> float:
        """||K||_F^2 / lambda_max^2."""
        return float(self.eigenvalues.square().sum() / self.eigenvalues.abs().max() ** 2)

    @property
    def condition(self) -> float:
        """|lambda|_max / |lambda|_min; infinity for a singular Gram."""
        sizes = self.eigenvalues.abs()
        return float(sizes.max() / sizes.min())

    def rows(self) -> list[dict[str, Any]]:
        """One record a mode: ``mode``, ``eigenvalue`` and, with targets, ``power`` and ``cumulative``."""
        columns = {"mode": torch.arange(1, len(self.eigenvalues) + 1), "eigenvalue": self.eigenvalues}
        if self.power is not None:
            columns |= {"power": self.power, "cumulative": self.power.cumsum(0)}
        return [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]

    def __str__(self) -> str:
        aligned = "" if self.alignment is None else f", target alignment {self.alignment:.3f}"
        lines = [
            f"{len(self.eigenvalues)} modes, effective rank {self.effective_rank:.3g}, condition {self.condition:.2g}{aligned}"
        ]
        for row in self.rows()[:8]:
            lines.append("  ".join(f"{name} {value:<10.4g}" for name, value in row.items()).rstrip())
        return "\n".join(lines)


def spectrum(gram: Tensor, y: Tensor | None = None) -> Spectrum:
    """Eigenvalues of a kernel on a sample, and how much of the targets lies on each eigenvector.

    Args:
        gram: (N, N).
        y: targets, (N,) or (N, K); the power is summed over outputs.

    Raises:
        KernelError: for a Gram that is not symmetric, finite and positive semi-definite up to 1e-3 of its largest eigenvalue
            (what the errors of numerical integrals explain), or targets that do not fit or are all zero.

    Example:
        >>> print(spectrum(torch.diag(torch.tensor([1.0, 3.0])), torch.tensor([0.6, 0.8])))
        2 modes, effective rank 1.75, condition 3, target alignment 0.721
        mode 1           eigenvalue 3           power 0.64        cumulative 0.64
        mode 2           eigenvalue 1           power 0.36        cumulative 1
    """
    values, vectors = torch.linalg.eigh(symmetric(gram, "gram").detach())
    check_definite(values, "gram", max(_INTEGRALS, rounding(len(values), precision(gram))))
    values, vectors = values.flip(0), vectors.flip(1)
    if float(values.abs().max()) == 0:
        raise KernelError("got a Gram of zeros, expected a kernel with at least one mode")
    if y is None:
        return Spectrum(values, vectors, None, None)
    columns = _targets(y, gram)
    power = (vectors.T @ columns).square().sum(1)
    outer = torch.linalg.matrix_norm(columns.T @ columns)
    alignment = float((values * power).sum() / (values.norm() * outer))
    return Spectrum(values, vectors, power / power.sum(), alignment)


def _targets(y: Tensor, gram: Tensor) -> Tensor:
    layout = layout_of(y)
    if layout.samples != len(gram):
        raise KernelError(f"got {layout.samples} targets for a Gram of {len(gram)} samples, expected one a row")
    columns = layout.columns(y, "y").detach()
    if not bool(columns.any()):
        raise KernelError("got targets that are all zero, expected something to align with")
    return columns
