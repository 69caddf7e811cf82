"""Losses of the outputs on the training inputs, by name or as any torch function, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from lazyrich.errors import KernelError
from lazyrich.inference.layout import tensor
from lazyrich.inference.normalisation import NORMALISATIONS, loss_scale

Objective = Callable[[Tensor, Tensor], Tensor]


def squared(loss: str, output: Tensor, target: Tensor) -> Tensor:
    """The squared loss in the normalisation of ``loss_scale``."""
    scale = loss_scale(loss, len(output), output[0].numel())
    return 0.5 * scale * (output - target).square().sum()


def logistic(output: Tensor, target: Tensor) -> Tensor:
    """Mean of log(1 + e^{-y f}) for y = -1, +1."""
    return F.softplus(-target * output).mean()


NAMED: dict[str, Objective] = {
    "cross_entropy": F.cross_entropy,
    "logistic": logistic,
    "huber": F.huber_loss,
    **{name: partial(squared, name) for name in NORMALISATIONS},
}


def objective_of(loss: str | Objective) -> tuple[str, Objective]:
    """A loss and its name.

    Raises:
        KernelError: for a name that is not known.

    Example:
        >>> objective_of("huber")[0]
        'huber'
    """
    if callable(loss):
        return getattr(loss, "__name__", type(loss).__name__), loss
    if not isinstance(loss, str) or loss not in NAMED:
        raise KernelError(f"got loss {loss!r}, expected one of {', '.join(NAMED)}, or a function(output, target)")
    return loss, NAMED[loss]


def target_of(loss: str | Objective, y: Tensor) -> Tensor:
    """Targets as the loss wants them: labels as int64, +-1 for "logistic" (which takes 0, 1 and booleans too), else float64.

    Raises:
        KernelError: for no targets, those of "logistic" that are not two-valued, and negative labels.

    Example:
        >>> target_of("logistic", torch.tensor([0, 1]))
        tensor([-1.,  1.], dtype=torch.float64)
    """
    y = tensor(y, "y")
    if not y.ndim or not y.numel():
        raise KernelError(f"got y of shape {tuple(y.shape)}, expected a target for each of at least one sample")
    if y.is_floating_point() and not bool(torch.isfinite(y).all()):
        raise KernelError("got y with values that are not finite, expected numbers")
    if loss == "logistic":
        numbers = y.to(torch.float64)  # first: booleans and bytes have no -1
        signs = torch.where(numbers == 0, -torch.ones_like(numbers), numbers)
        if not bool((signs.abs() == 1).all()):
            raise KernelError(f"got targets {sorted(set(y.reshape(-1).tolist()))[:5]}, expected 0 and 1, or -1 and 1")
        return signs
    if loss == "cross_entropy" and not y.is_floating_point():
        if int(y.min()) < 0:
            raise KernelError(f"got label {int(y.min())}, expected labels 0, 1, ...")
        return y.to(torch.int64)
    return y if not y.is_floating_point() and callable(loss) else y.to(torch.float64)


def slope_of(objective: Objective, output: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """The loss at the outputs, and its gradient with respect to them.

    Raises:
        KernelError: for a loss that is not a scalar, or that does not depend on the outputs.
    """
    leaf = output.detach().clone().requires_grad_()
    with torch.enable_grad():
        try:
            value = objective(leaf, target)
        except (RuntimeError, ValueError, IndexError) as error:
            shapes = f"outputs {tuple(output.shape)} and targets {tuple(target.shape)} of {target.dtype}"
            raise KernelError(f"got a loss that fails on {shapes}: {error}") from error
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            raise KernelError("got a loss that is not a differentiable scalar, expected function(output, target) -> scalar")
        (gradient,) = torch.autograd.grad(value.reshape(()), leaf)
    return float(value.detach()), gradient
