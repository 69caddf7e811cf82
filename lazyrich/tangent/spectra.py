"""Eigenvalues and eigenvectors whose derivatives are right in every order and direction (torch 2.13).

Gradients through forward derivatives of torch's are not numbers, and third derivatives of those of general matrices wrong.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import TangentError

PAIRS: Any = torch.return_types
STEPS = 4  # right derivatives up to order 2^STEPS - 1


def _following(A: Tensor, values: Tensor, vectors: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors that move with A from where they were found, as constants; ``back`` is the vectors' inverse.

    Newton's steps on B = V^-1 A V, which is diagonal here and not nearby: by V (1 + X), X_ij = B_ij / (l_j - l_i), what is off
    the diagonal becomes as its square, so a step doubles the orders in which derivatives are right. No value changes.
    """
    own = torch.eye(A.shape[-1], dtype=back.dtype, device=A.device)
    small = (
        torch.finfo(back.dtype).tiny ** 0.5
    )  # between values that are the same: their own slopes are right, the rest is vast
    moved = torch.diag_embed(values.to(back.dtype)) + back @ (A - A.detach()).to(back.dtype) @ vectors
    for _ in range(STEPS):
        here = moved.diagonal(dim1=-2, dim2=-1)
        gaps = here.unsqueeze(-2) - here.unsqueeze(-1)
        turn = own + moved * (1 - own) / torch.where(gaps == 0, small, gaps)
        moved, vectors = torch.linalg.inv(turn) @ moved @ turn, vectors @ turn
    return moved.diagonal(dim1=-2, dim2=-1), vectors / (vectors.conj() * vectors).real.sum(-2, keepdim=True).sqrt()


def _refuse_meeting(values: Tensor) -> None:
    """Eigenvalues that are the same to rounding, whose vectors may turn at once; within a transform they cannot be looked at."""
    if torch._C._functorch.is_functorch_wrapped_tensor(values) or not values.numel():
        return
    size = values.shape[-1]
    itself = torch.eye(size, dtype=torch.bool, device=values.device)
    apart = (values.unsqueeze(-2) - values.unsqueeze(-1)).abs().masked_fill(itself, torch.inf).amin((-2, -1))
    if bool((apart <= size * torch.finfo(values.dtype).eps * values.abs().amax(-1)).any()):
        raise TangentError(
            f"two eigenvalues of a matrix {(size, size)} are the same to rounding, where eigenvectors have no derivative; use "
            "torch.linalg.eigvalsh where only values are read, or add a diagonal whose entries differ"
        )


def _eigh(A: Tensor, UPLO: str = "L") -> Any:
    values, vectors = torch.linalg.eigh(A.detach(), UPLO)
    _refuse_meeting(values)
    values, vectors = _following(A, values, vectors, vectors.mH)
    return PAIRS.linalg_eigh((values.real, vectors))


def _eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    values, vectors = torch.linalg.eigh(A.detach(), UPLO)
    return _following(A, values, vectors, vectors.mH)[0].real


def _eig(input: Tensor) -> Any:
    values, vectors = torch.linalg.eig(input.detach())
    _refuse_meeting(values)
    return PAIRS.linalg_eig(_following(input, values, vectors, torch.linalg.inv(vectors)))


def _eigvals(input: Tensor) -> Tensor:
    values, vectors = torch.linalg.eig(input.detach())
    return _following(input, values, vectors, torch.linalg.inv(vectors))[0]


WRITTEN: dict[Any, Any] = {
    torch.linalg.eigh: _eigh,
    torch.linalg.eigvalsh: _eigvalsh,
    torch.linalg.eig: _eig,
    torch.linalg.eigvals: _eigvals,
}
