"""Moments of the deep-GP prior: how far it is from a Gaussian process."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.lazy.bottleneck.side import counted


@dataclass(frozen=True)
class Measured:
    """A mean over draws with its standard error; both have the mean's shape.

    Example:
        >>> import torch
        >>> Measured(torch.tensor(1.0), torch.tensor(0.1)).error.item() < 0.2
        True
    """

    value: Tensor
    error: Tensor


def homogeneous_kurtosis(latents: int) -> float:
    """E f^4 / (E f^2)^2 = 3 (1 + 2/k) at one input, for a linear bottleneck and a decoder homogeneous of degree one.

    Given u, f ~ N(0, c |u|^2), and |u|^2 / K_enc(x, x) is chi-squared with k degrees of freedom: E f^4 = 3 c^2 E|u|^4, and
    E|u|^4 / (E|u|^2)^2 = (k + 2)/k. A rectifier decoder without biases of any depth is such; the moment stays away from a
    Gaussian's 3 however wide and deep the decoder is.

    Example:
        >>> homogeneous_kurtosis(2)
        6.0
    """
    return 3 * homogeneous_dependence(latents)


def homogeneous_dependence(latents: int) -> float:
    """E f_i^2 f_j^2 / (E f^2)^2 = 1 + 2/k for two outputs at one input, as in ``homogeneous_kurtosis``; 1 if independent.

    Example:
        >>> homogeneous_dependence(2)
        2.0
    """
    return 1 + 2 / counted(latents, "latents")


def kurtosis(outputs: Tensor) -> Measured:
    """E f^4 / (E f^2)^2 over draws, at every input; outputs are pooled.

    Args:
        outputs: f, (S, N, d).

    Returns:
        Value and standard error (delta method over draws), (N,).

    Raises:
        KernelError: for outputs of another shape.

    Example:
        >>> import torch
        >>> kurtosis(torch.tensor([1.0, -1.0]).reshape(2, 1, 1)).value.tolist()
        [1.0]
    """
    squares = _drawn(outputs).square()
    return _ratio(squares.square().mean(2), squares.mean(2))


def dependence(outputs: Tensor) -> Measured:
    """E f_i^2 f_j^2 / (E f^2)^2 over draws and pairs of outputs i != j, at every input.

    Args:
        outputs: f, (S, N, d) with d at least two.

    Returns:
        Value and standard error (delta method over draws), (N,).

    Raises:
        KernelError: for one output, and for outputs of another shape.

    Example:
        >>> import torch
        >>> dependence(torch.tensor([[1.0, 1.0], [1.0, -1.0]]).reshape(2, 1, 2)).value.tolist()
        [1.0]
    """
    squares = _drawn(outputs).square()
    d = squares.shape[2]
    if d < 2:
        raise KernelError("got one output, expected at least 2: dependence is between two")
    pairs = (squares.sum(2).square() - squares.square().sum(2)) / (d * (d - 1))
    return _ratio(pairs, squares.mean(2))


def _drawn(outputs: Tensor) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.dim() != 3:
        got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"type {type(outputs).__name__}"
        raise KernelError(
            f"got outputs of {got}, expected a tensor (S, N, d): draws, inputs, outputs; pass Draws.outputs, or reshape them"
        )
    return outputs.double()


def _ratio(fourth: Tensor, second: Tensor) -> Measured:
    """E[fourth] / E[second]^2; first-order error from each draw's influence on it."""
    top, bottom = fourth.mean(0), second.mean(0)
    influence = fourth / bottom**2 - 2 * top / bottom**3 * second
    return Measured(top / bottom**2, influence.std(0) / math.sqrt(len(fourth)))
