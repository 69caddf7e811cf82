"""The Cholesky factor of a Gram matrix, and what is wrong with a Gram that has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.inference.layout import finite, tensor

Jitter = float | Literal["auto"]

_EPS = torch.finfo(torch.float64).eps
_LARGEST_JITTER = 1e-4  # relative to the mean of the diagonal; more would be another model


@dataclass(frozen=True)
class Factor:
    """K = L L^T with the noise and the jitter already on K's diagonal.

    Attributes:
        matrix: K, (N, N) float64.
        lower: L.
        jitter: what was added to the diagonal beyond the noise, absolute.
    """

    matrix: Tensor
    lower: Tensor
    jitter: float

    def solve(self, b: Tensor) -> Tensor:
        """K^{-1} b for b of shape (N, R), with one step of iterative refinement."""
        x = torch.cholesky_solve(b, self.lower)
        return x + torch.cholesky_solve(b - self.matrix @ x, self.lower)

    def half_solve(self, b: Tensor) -> Tensor:
        """L^{-1} b, whose Gram matrix is b^T K^{-1} b."""
        return torch.linalg.solve_triangular(self.lower, b, upper=False)

    def log_determinant(self) -> Tensor:
        """2 sum_i log L_ii, the logarithm of det K."""
        return 2 * self.lower.diagonal().log().sum()


def ridge_of(matrix: Tensor, noise: float | Tensor, relative: bool, outputs: int = 1) -> Tensor:
    """The variance to add to the diagonal: ``noise``, or ``noise`` tr(K)/N when relative; a number or one a row.

    Where a sample has a row an ``output``, one number a sample serves all of its rows.

    Raises:
        KernelError: for noise that is negative, not finite, or of another length.
    """
    found = finite(tensor(noise, "noise"), "noise").to(matrix.device)
    if (found.detach() < 0).any():
        raise KernelError(f"got noise {float(found.detach().min()):.4g}, expected a variance: zero or positive")
    samples = len(matrix) // outputs
    if found.ndim and tuple(found.shape) not in {(samples,), (samples, outputs), (len(matrix),)}:
        each = f", or one an output {(samples, outputs)}" if outputs > 1 else ""
        raise KernelError(f"got noise of shape {tuple(found.shape)}, expected a number or one a sample ({samples},){each}")
    if found.ndim:
        found = found.repeat_interleave(outputs) if found.shape == (samples,) else found.reshape(-1)
    return found * matrix.diagonal().mean() if relative else found


def check_jitter(jitter: Jitter) -> None:
    """Refuse what is no jitter.

    Example:
        >>> check_jitter("auto")
    """
    if jitter != "auto" and not (isinstance(jitter, (int, float)) and 0 <= jitter < float("inf")):
        raise KernelError(f"got jitter {jitter!r}, expected a number that is zero or positive, or 'auto'")


def factorise(matrix: Tensor, ridge: Tensor, jitter: Jitter = 0.0, eps: float = _EPS) -> Factor:
    """Factorise K + ridge + jitter.

    A pivot that is smaller than its diagonal entry's rounding error counts as a failure.

    Args:
        matrix: K, symmetric (N, N) float64.
        ridge: to add to the diagonal, a number or one a row.
        jitter: to add beyond it, absolute; ``"auto"``: none, then tenfold from 10 N eps tr(K)/N up, until it works.
        eps: rounding error of the numbers that K came in.

    Raises:
        KernelError: for a Gram that stays singular or indefinite.

    Example:
        >>> ones = torch.ones(2, 2, dtype=torch.float64)
        >>> factorise(ones, torch.tensor(0.0), jitter="auto").jitter > 0
        True
    """
    check_jitter(jitter)
    noisy = matrix + torch.diag_embed(ridge.expand(len(matrix)))
    for added in _ladder(noisy, jitter):  # tensors: a jitter in units of the Gram is a part of its gradient
        candidate = noisy + added * torch.eye(len(matrix), dtype=noisy.dtype, device=noisy.device)
        lower, info = torch.linalg.cholesky_ex(candidate)
        if not int(info) and _pivots_are_sound(candidate, lower, eps):
            return Factor(candidate, lower, float(added.detach()))
    raise KernelError(_refusal(noisy.detach(), jitter, eps))


def _ladder(matrix: Tensor, jitter: Jitter) -> list[Tensor]:
    if jitter != "auto":
        return [matrix.new_tensor(float(jitter))]
    scale = matrix.diagonal().abs().mean()
    rungs, relative = [scale.new_zeros(())], 10 * len(matrix) * _EPS
    while relative <= _LARGEST_JITTER:
        rungs.append(relative * scale)
        relative *= 10
    return rungs


def _pivots_are_sound(matrix: Tensor, lower: Tensor, eps: float) -> bool:
    pivots, diagonal = lower.detach().diagonal() ** 2, matrix.detach().diagonal()
    return bool((pivots > max(len(matrix) * _EPS, eps) * diagonal).all())


def _refusal(matrix: Tensor, jitter: Jitter, eps: float) -> str:
    eigenvalues = torch.linalg.eigvalsh(matrix)
    low, high, sizes = float(eigenvalues[0]), float(eigenvalues[-1]), eigenvalues.abs()
    condition = float(sizes.max() / sizes.min()) if float(sizes.min()) else float("inf")
    kind = "an indefinite" if low < -len(matrix) * max(100 * _EPS, eps) * float(sizes.max()) else "a singular"
    tried = ", even with jitter='auto'" if jitter == "auto" else ""
    alike = _duplicates(matrix)
    mends = [
        f"add noise (noise={max(-2 * low, 1e-10 * abs(high), 100 * eps * high):.1e} is enough)"
        if high > 0
        else "check the kernel's sign"
    ]
    mends += [f"remove duplicate inputs ({alike})"] if alike else []
    mends += ["compute it in float64"] if eps > _EPS else []
    mends += [] if jitter == "auto" or kind == "an indefinite" else ["ask for jitter='auto'"]
    return (
        f"got {kind} Gram matrix k_dd ({len(matrix)} x {len(matrix)}{tried}): smallest eigenvalue {low:.3g}, largest "
        f"{high:.3g}, condition number {condition:.2g}, expected a positive definite one; {' or '.join(mends)}"
    )


def _duplicates(matrix: Tensor) -> str:
    """The first few pairs of inputs at distance zero in the kernel's own metric K_ii + K_jj - 2 K_ij."""
    diagonal = matrix.diagonal()
    distance = diagonal[:, None] + diagonal[None, :] - 2 * matrix
    scale = (diagonal[:, None] + diagonal[None, :]).abs()
    pairs = torch.triu(distance.abs() <= 1e-12 * scale, diagonal=1).nonzero()
    shown = ", ".join(f"{int(i)} and {int(j)}" for i, j in pairs[:3])
    return f"{shown} are alike" + (f", and {len(pairs) - 3} more pairs" if len(pairs) > 3 else "") if len(pairs) else ""
