"""The two sides of an autoencoder, as kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol

import torch
from torch import Tensor

from lazyrich.errors import KernelError

Nonlinearity = Callable[[Tensor], Tensor]
TOGETHER = 64  # rows of latents a call: so few pairs cost less than the call itself, also those between draws


class Side(Protocol):
    """An encoder or a decoder at infinite width: what it is at initialisation, and how it is trained.

    Both kernels take inputs (N1, ...) and (N2, ...), float64, and return (N1, N2) for one output; ``lazyrich.kernel`` makes
    such objects. For a decoder they are differentiable in both arguments by autograd. A rank-one example:

    Example:
        >>> class Linear:
        ...     def nngp(self, x1, x2=None):
        ...         return x1 @ (x1 if x2 is None else x2).T / x1.shape[1]
        ...     ntk = nngp
        >>> Linear().ntk(torch.ones(1, 4)).item()
        1.0
    """

    def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Covariance of the outputs at initialisation."""
        ...

    def ntk(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Tangent kernel."""
        ...


@dataclass(frozen=True)
class After:
    """A decoder that reads phi(u) instead of u: K(phi(u), phi(u')), the nonlinear bottleneck.

    Example:
        >>> class Linear:
        ...     def nngp(self, x1, x2=None):
        ...         return x1 @ (x1 if x2 is None else x2).T
        ...     ntk = nngp
        >>> After(Linear(), torch.relu).nngp(torch.tensor([[-1.0], [2.0]])).tolist()
        [[0.0, 0.0], [0.0, 4.0]]
    """

    side: Side
    phi: Nonlinearity

    def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Covariance of the outputs at initialisation."""
        return self.side.nngp(self.phi(x1), None if x2 is None else self.phi(x2))

    def ntk(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Tangent kernel."""
        return self.side.ntk(self.phi(x1), None if x2 is None else self.phi(x2))


def behind(decoder: Side, phi: Nonlinearity | None) -> Side:
    """The decoder as a function of u: itself for a linear bottleneck."""
    return decoder if phi is None else After(decoder, phi)


def sided(side: Side, name: str, *kernels: str) -> Side:
    """An encoder or a decoder that has these kernels.

    Raises:
        KernelError: for anything without them, such as a network.

    Example:
        >>> sided(torch.nn.Linear(2, 1), "the encoder", "nngp", "ntk")
        Traceback (most recent call last):
        ...
        lazyrich.errors.KernelError: got the encoder of type Linear, expected one with the methods nngp and ntk; pass ...
    """
    if not all(callable(getattr(side, kernel, None)) for kernel in kernels):
        raise KernelError(
            f"got {name} of type {type(side).__name__}, expected one with the methods {' and '.join(kernels)}; "
            "pass lazyrich.kernel(network)"
        )
    return side


def gram(values: Tensor, shape: tuple[int, int], name: str) -> Tensor:
    """A kernel's answer, checked.

    Raises:
        KernelError: for another shape than (N1, N2), or values that are not finite.
    """
    if tuple(values.shape) != shape:
        raise KernelError(f"got {name} of shape {tuple(values.shape)}, expected {shape}: one value a pair; "
                          "give an encoder and a decoder that return no positions")  # fmt: skip
    if not bool(torch.isfinite(values.detach()).all()):
        raise KernelError(
            f"got {name} with values that are not finite, expected finite ones; check the variances and the inputs"
        )
    return values


def within(kernel: Callable[[Tensor], Tensor], u: Tensor, name: str) -> Tensor:
    """A kernel within each draw of latents, (S, N, k) -> (S, N, N); several small draws are evaluated in one call.

    Example:
        >>> within(lambda v: v @ v.T, torch.ones(3, 2, 1), "k").shape
        torch.Size([3, 2, 2])
    """
    n, found = u.shape[1], []
    for part in u.split(max(1, TOGETHER // n)):
        m = len(part)
        whole = gram(kernel(part.reshape(m * n, -1)), (m * n, m * n), name)
        found.append(whole.reshape(m, n, m, n).diagonal(dim1=0, dim2=2).permute(2, 0, 1))
    return torch.cat(found)


def counted(value: Any, name: str) -> int:
    """A number of something, at least one.

    Raises:
        KernelError: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise KernelError(f"got {name}={value!r}, expected a whole number of at least 1")
    return int(value)


def inputs(x: Tensor) -> Tensor:
    """Inputs in float64: Gram matrices of smooth kernels are close to singular.

    Raises:
        KernelError: for what is no tensor (N, ...) of finite numbers.
    """
    if not isinstance(x, Tensor) or x.dim() < 1 or len(x) < 1:
        raise KernelError(
            f"got inputs {tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__}, expected a tensor (N, ...)"
        )
    if not x.is_floating_point():
        return x
    if not bool(torch.isfinite(x).all()):
        raise KernelError("got inputs that are not finite, expected finite ones; clean them")
    return x.detach().double()
