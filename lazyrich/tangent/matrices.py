"""Functions of matrices written out in operations whose derivatives are right in every order and direction (torch 2.13).

Of solutions, determinants and products of reflections torch keeps a factorisation, and forgets in a forward derivative of a
forward derivative that it moves, too: second derivatives come out wrong without a word. Of its solutions from a given
factorisation those that are taken sample by sample are wrong at once. Derivatives of the factorisation by itself, and of
triangular solutions, are right. The first forward derivative of torch's inverse from a Cholesky factor is wrong already.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyrich.tangent.products import product

PAIRS: Any = torch.return_types


def _solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    factor, pivots = torch.linalg.lu_factor(A)
    return _solved(A, B, factor, pivots, left)


def _solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    factor, pivots, info = torch.linalg.lu_factor_ex(A, check_errors=check_errors)
    return PAIRS.linalg_solve_ex((_solved(A, B, factor, pivots, left), info))


def _solved(A: Tensor, B: Tensor, factor: Tensor, pivots: Tensor, left: bool) -> Tensor:
    vector = B.dim() == 1 or (A.dim() - 1 == B.dim() and A.shape[:-1] == B.shape)  # torch's own rule
    out = _lu_solve(factor, pivots, B.unsqueeze(-1) if vector else B, left=left)
    return out.squeeze(-1) if vector else out


def _lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """By the two triangles, one after the other: A = P L U."""
    if adjoint:
        return _lu_solve(LU, pivots, B.mH, left=not left).mH
    P, L, U = torch.lu_unpack(LU, pivots)
    below = {"upper": False, "unitriangular": True}
    if left:
        return torch.linalg.solve_triangular(U, torch.linalg.solve_triangular(L, P.mT @ B, **below), upper=True)
    return (
        torch.linalg.solve_triangular(L, torch.linalg.solve_triangular(U, B, upper=True, left=False), left=False, **below)
        @ P.mT
    )


def _old_lu_solve(input: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    return _lu_solve(LU_data, LU_pivots, input)


def _tensorsolve(input: Tensor, other: Tensor, dims: Any = None) -> Tensor:
    input = input if dims is None else input.movedim(tuple(dims), tuple(range(-len(dims), 0)))
    return _solve(input.reshape(other.numel(), -1), other.flatten()).reshape(input.shape[other.dim() :])


def _signed(A: Tensor) -> tuple[Tensor, Tensor]:
    """The sign of a permutation of rows, and the diagonal whose product it makes the determinant."""
    factor, pivots, _ = torch.linalg.lu_factor_ex(A)
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    swaps = (pivots != torch.arange(1, A.shape[-1] + 1, device=A.device, dtype=pivots.dtype)).sum(-1)
    return (1 - 2 * (swaps % 2)).to(A), diagonal


def _det(A: Tensor) -> Tensor:
    sign, diagonal = _signed(A)
    return sign * product(diagonal, -1)


def _slogdet(A: Tensor) -> Any:
    sign, diagonal = _signed(A)
    if not A.is_complex():
        return PAIRS.linalg_slogdet((sign * diagonal.detach().sgn().prod(-1), diagonal.abs().log().sum(-1)))
    both = diagonal.log().sum(-1)  # the logarithm of the size, and the phase, which moves too
    regular = diagonal.detach().abs().sgn().prod(-1)
    return PAIRS.linalg_slogdet((sign * regular * (1j * both.imag).exp(), both.real))


def _logdet(input: Tensor) -> Tensor:
    sign, size = _slogdet(input)
    return size + sign.log() if sign.is_complex() else torch.where(sign < 0, torch.nan, size)


def _reflections(input: Tensor, tau: Tensor) -> Tensor:
    """First columns of the product of I - tau_i v_i v_i^H, which is I - V T V^H (Schreiber & Van Loan 1989)."""
    rows, columns, count = *input.shape[-2:], tau.shape[-1]
    eye = torch.eye(rows, columns, dtype=input.dtype, device=input.device)
    below = torch.ones(rows, count, dtype=input.dtype, device=input.device).tril(-1)
    v = input[..., :count] * below + eye[:, :count]
    met = (v.mH @ v) * below[:count].mT
    middle = torch.linalg.solve_triangular(
        eye[:count, :count] + tau[..., None] * met, tau[..., None] * v.mH, upper=True, unitriangular=True
    )
    return eye - v @ middle[..., :columns]


def _cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    eye = torch.eye(input.shape[-1], dtype=input.dtype, device=input.device)
    inverse = torch.linalg.solve_triangular(input, eye, upper=upper)
    return inverse @ inverse.mH if upper else inverse.mH @ inverse


WRITTEN: dict[Any, Any] = {
    torch.linalg.solve: _solve,
    torch.linalg.solve_ex: _solve_ex,
    torch.linalg.tensorsolve: _tensorsolve,
    torch.linalg.lu_solve: _lu_solve,
    torch.lu_solve: _old_lu_solve,
    Tensor.lu_solve: _old_lu_solve,
    torch.linalg.det: _det,
    torch.det: lambda input: _det(input),
    Tensor.det: _det,
    torch.linalg.slogdet: _slogdet,
    torch.slogdet: lambda input: _slogdet(input),
    Tensor.slogdet: _slogdet,
    torch.logdet: _logdet,
    Tensor.logdet: _logdet,
    torch.linalg.householder_product: _reflections,
    torch.orgqr: _reflections,
    Tensor.orgqr: _reflections,
    torch.cholesky_inverse: _cholesky_inverse,
    Tensor.cholesky_inverse: _cholesky_inverse,
}
