"""Lengths and distances written out in operations whose derivatives are right in every order and direction (torch 2.13).

Per-sample gradients through torch's distances between rows are wrong without a word where they are taken together, and gradients
do not pass through second forward derivatives of its lengths. At zero a length has the derivative zero, as torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EUCLIDEAN = (2, "fro", None)  # names of one order


def _root(square: Tensor) -> Tensor:
    some = square > 0
    return torch.where(some, torch.where(some, square, 1).sqrt(), 0)


def _abs(func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Of complex numbers: gradients do not pass through third forward derivatives of torch's."""

    def written(input: Tensor, **more: Any) -> Tensor:
        return _root(input.real.square() + input.imag.square()) if input.is_complex() and not more else func(input, **more)

    return written


def _angle(input: Tensor) -> Tensor:
    """Of complex numbers by their parts, as lengths are; at zero the derivative is zero, as torch's."""
    if not input.is_complex():
        return torch.angle(input)
    some = (input.real != 0) | (input.imag != 0)
    found = torch.atan2(torch.where(some, input.imag, 0), torch.where(some, input.real, 1))
    return torch.where(some, found, torch.angle(input.detach()))


def _length(x: Tensor, axes: Any = None, keepdim: bool = False) -> Tensor:
    square = x.real.square() + x.imag.square() if x.is_complex() else x.square()
    axes = tuple(range(x.dim())) if axes is None else axes
    return _root(square.sum(axes, keepdim) if x.dim() else square)


def _size(x: Tensor, order: Any, axes: Any = None, keepdim: bool = False) -> Tensor:
    """(sum |x|^p)^(1/p); of orders that are no positive numbers, and of complex entries, torch's."""
    if order in EUCLIDEAN:
        return _length(x, axes, keepdim)
    if x.is_complex() or not 0 < order < math.inf:
        return torch.linalg.vector_norm(x, order, axes, keepdim)
    whole = x.pow(order) if order % 2 == 0 else _power(x.abs(), order)
    return _power(whole.sum(tuple(range(x.dim())) if axes is None else axes, keepdim) if x.dim() else whole, 1 / order)


def _power(x: Tensor, order: float) -> Tensor:
    """Of numbers from 0, with slope 0 there."""
    some = x > 0
    return torch.where(some, torch.where(some, x, 1).pow(order), 0)


def _norm(func: Callable[..., Tensor], default: Any) -> Callable[..., Tensor]:
    """Of vectors, under the order's several names; other orders and types go to torch."""

    def written(input: Tensor, p: Any = default, dim: Any = None, keepdim: bool = False, **more: Any) -> Tensor:
        order = more.pop("ord", p)
        more = {key: value for key, value in more.items() if value is not None}
        if not more and (order is None or order == "fro" or not isinstance(order, str)):
            return _size(input, order, dim, keepdim)
        return func(input, order, dim, keepdim, **more)

    return written


def _linalg_norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, **more: Any) -> Tensor:
    """Of vectors, and the Euclidean ones of matrices."""
    axes = (dim,) if isinstance(dim, int) else dim
    matrix = ord is not None and (A.dim() if axes is None else len(axes)) == 2
    if more or isinstance(ord, str) != matrix or ord == "nuc":
        return torch.linalg.norm(A, ord, dim, keepdim, **more)
    return _size(A, ord, axes, keepdim)


def _matrix_norm(A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, **more: Any) -> Tensor:
    return torch.linalg.matrix_norm(A, ord, dim, keepdim, **more) if more or ord != "fro" else _length(A, tuple(dim), keepdim)


def _renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    size = _size(input, p, [axis for axis in range(input.dim()) if axis != dim % input.dim()], True)
    return input * torch.where(size > maxnorm, maxnorm / (size + 1e-7), 1)


def _triplet(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2, eps: float = 1e-6, swap: bool = False,
    size_average: Any = None, reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    if size_average is not None or reduce is not None:  # the old words for a reduction
        return F.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, size_average, reduce, reduction)
    near, far = (_pairwise_distance(anchor, other, p, eps) for other in (positive, negative))
    far = torch.minimum(far, _pairwise_distance(positive, negative, p, eps)) if swap else far
    return _reduced((margin + near - far).clamp_min(0), reduction)


def _huber(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Tensor:
    """Torch's has no forward derivative."""
    if weight is not None:
        more: dict[str, Any] = {"weight": weight}
        return F.huber_loss(input, target, reduction, delta, **more)
    apart = (input - target).abs()
    return _reduced(torch.where(apart <= delta, apart.square() / 2, delta * (apart - delta / 2)), reduction)


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()


def _normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    return F.normalize(input, p, dim, eps, out) if out is not None else input / _size(input, p, dim, True).clamp_min(eps)


def _cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    x1, x2 = torch.broadcast_tensors(x1, x2)
    one, other = (_length(x, dim, True).clamp_min(eps) for x in (x1, x2))
    return (x1 / one * (x2 / other)).sum(dim)


def _pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    return _size(x1 - x2 + eps, p, -1, keepdim)


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    return _size(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def _pdist(input: Tensor, p: float = 2.0) -> Tensor:
    one, other = torch.triu_indices(len(input), len(input), 1, device=input.device)
    return _size(input[one] - input[other], p, -1)


def _dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    return _size(input - other, p)


def _std(func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: _root(func(*args, **kwargs))


def _std_mean(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    square, mean = torch.var_mean(*args, **kwargs)
    return _root(square), mean


WRITTEN: dict[Any, Any] = {
    **{func: _abs(func) for func in (torch.abs, torch.absolute, Tensor.abs, Tensor.absolute, Tensor.__abs__)},
    torch.angle: _angle,
    Tensor.angle: _angle,
    torch.cdist: _cdist,
    torch.norm: _norm(torch.norm, "fro"),
    Tensor.norm: _norm(Tensor.norm, "fro"),
    torch.linalg.vector_norm: _norm(torch.linalg.vector_norm, 2),
    F.normalize: _normalize,
    F.cosine_similarity: _cosine_similarity,
    torch.cosine_similarity: _cosine_similarity,
    F.pairwise_distance: _pairwise_distance,
    torch.pairwise_distance: _pairwise_distance,
    torch.linalg.norm: _linalg_norm,
    torch.linalg.matrix_norm: _matrix_norm,
    torch.dist: _dist,
    Tensor.dist: _dist,
    torch.pdist: _pdist,
    F.pdist: _pdist,
    torch.renorm: _renorm,
    Tensor.renorm: _renorm,
    F.triplet_margin_loss: _triplet,
    F.huber_loss: _huber,
    torch.std_mean: _std_mean,
    torch.std: _std(torch.var),
    Tensor.std: _std(Tensor.var),
}
