"""The times at which training is looked at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lazyrich.amount import real
from lazyrich.errors import KernelError
from lazyrich.inference.layout import tensor

Times = float | Sequence[float] | Tensor


def times_of(t: Times, name: str = "t") -> Tensor:
    """Times as float64, of shape () for one time or (T,).

    Raises:
        KernelError: for times that are negative, NaN, or not a number or a list of numbers.

    Example:
        >>> times_of([0, float("inf")])
        tensor([0., inf], dtype=torch.float64)
    """
    found = tensor(t, name).to(torch.float64)
    if found.ndim > 1 or not found.numel():
        raise KernelError(f"got times of shape {tuple(found.shape)}, expected a number or a list of numbers")
    if not bool((found >= 0).all()):
        raise KernelError(f"got times {found.tolist()}, expected none that is negative or NaN")
    return found


def check_rate(lr: float, momentum: float) -> None:
    """Refuse a learning rate or a momentum that means nothing.

    Raises:
        KernelError: unless lr is finite and positive and 0 <= momentum < 1.
    """
    if not 0 < real(lr) < float("inf"):
        raise KernelError(f"got lr {lr!r}, expected a learning rate: a positive and finite number")
    if not 0 <= real(momentum) < 1:
        raise KernelError(f"got momentum {momentum!r}, expected a number of at least 0 and below 1")


def check_ridge(ridge: float) -> None:
    """Refuse a weight decay that means nothing.

    Raises:
        KernelError: unless it is finite and zero or positive.
    """
    if not 0 <= real(ridge) < float("inf"):
        raise KernelError(f"got ridge {ridge!r}, expected a finite number, zero or positive; pass ridge=0 for no weight decay")
