"""Lengths and distances written out in operations whose derivatives are right in every order and direction (torch 2.13).

Per-sample gradients through torch's distances between rows are wrong without a word where they are taken together, and gradients
do not pass through second forward derivatives of its lengths. At zero a length has the derivative zero, as torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EUCLIDEAN = (2, "fro", None)


def _root(square: Tensor) -> Tensor:
    some = square > 0
    return torch.where(some, torch.where(some, square, 1).sqrt(), 0)


def _length(x: Tensor, axes: Any = None, keepdim: bool = False) -> Tensor:
    square = x.real.square() + x.imag.square() if x.is_complex() else x.square()
    axes = tuple(range(x.dim())) if axes is None else axes
    return _root(square.sum(axes, keepdim) if x.dim() else square)


def _norm(func: Callable[..., Tensor], default: Any) -> Callable[..., Tensor]:
    """Of vectors, under the order's several names; other orders and types go to torch."""

    def written(input: Tensor, p: Any = default, dim: Any = None, keepdim: bool = False, **more: Any) -> Tensor:
        order = more.pop("ord", p)
        more = {key: value for key, value in more.items() if value is not None}
        if order in EUCLIDEAN and not more:
            return _length(input, dim, keepdim)
        return func(input, order, dim, keepdim, **more)

    return written


def _normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    if p != 2 or out is not None:
        return F.normalize(input, p, dim, eps, out)
    return input / _length(input, dim, True).clamp_min(eps)


def _cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    x1, x2 = torch.broadcast_tensors(x1, x2)
    one, other = (_length(x, dim, True).clamp_min(eps) for x in (x1, x2))
    return (x1 / one * (x2 / other)).sum(dim)


def _pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    return _length(x1 - x2 + eps, -1, keepdim) if p == 2 else F.pairwise_distance(x1, x2, p, eps, keepdim)


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    apart = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    return _length(apart, -1) if p == 2 else torch.linalg.vector_norm(apart, p, -1)


def _std(func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: _root(func(*args, **kwargs))


WRITTEN: dict[Any, Any] = {
    torch.cdist: _cdist,
    torch.norm: _norm(torch.norm, "fro"),
    Tensor.norm: _norm(Tensor.norm, "fro"),
    torch.linalg.vector_norm: _norm(torch.linalg.vector_norm, 2),
    F.normalize: _normalize,
    F.cosine_similarity: _cosine_similarity,
    torch.cosine_similarity: _cosine_similarity,
    F.pairwise_distance: _pairwise_distance,
    torch.pairwise_distance: _pairwise_distance,
    torch.std: _std(torch.var),
    Tensor.std: _std(Tensor.var),
}
