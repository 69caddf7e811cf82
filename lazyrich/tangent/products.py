"""Products along an axis written out in products of two, whose derivatives are right where factors are zero, too (torch 2.13).

Gradients through forward derivatives of torch's are not numbers there: it divides by the factors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def product(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Halves by halves.

    Example:
        >>> product(torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 1.0]]), 1)
        tensor([6., 0.])
    """
    dtype = dtype or (input.dtype if input.is_floating_point() or input.is_complex() else torch.int64)  # torch's own rule
    if not input.dim() or 0 in input.shape:
        return torch.prod(input, dtype=dtype) if dim is None else torch.prod(input, dim, keepdim, dtype=dtype)
    out = (input.flatten() if dim is None else input.movedim(dim, 0)).to(dtype)
    while len(out) > 1:
        half = len(out) // 2
        out = torch.cat([out[:half] * out[half : 2 * half], out[2 * half :]])
    return out[0].unsqueeze(dim) if keepdim and dim is not None else out[0]


def products(input: Tensor, dim: int, *, dtype: Any = None, out: Any = None) -> Tensor:
    """Of all factors up to each, over distances that double.

    Example:
        >>> products(torch.tensor([2.0, 3.0, 4.0]), 0)
        tensor([ 2.,  6., 24.])
    """
    if out is not None or not input.dim():
        return torch.cumprod(input, dim, dtype=dtype, out=out)
    dtype = dtype or (input.dtype if input.is_floating_point() or input.is_complex() else torch.int64)
    found, apart = input.movedim(dim, 0).to(dtype), 1
    while apart < len(found):
        found = torch.cat([found[:apart], found[apart:] * found[:-apart]])
        apart *= 2
    return found.movedim(0, dim)


WRITTEN: dict[Any, Any] = {
    torch.prod: product,
    Tensor.prod: product,
    torch.cumprod: products,
    Tensor.cumprod: products,
}
