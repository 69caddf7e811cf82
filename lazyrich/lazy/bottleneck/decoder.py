"""The decoder's function while it is trained: where it began, minus what it was taught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.lazy.bottleneck.side import Side, gram

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TrainedDecoder:
    """g(u) = g_0(u) - sum_m Theta_dec(u, c_m) w_m, differentiable by autograd.

    Attributes:
        start: g_0, (N, k) -> (N, d).
        side: its ``ntk`` is Theta_dec.
        centres: c, (M, k): the latents of the past.
        weights: w, (M, d): the errors of the past times the time that they lasted.

    Example:
        >>> class Linear:
        ...     def ntk(self, x1, x2=None):
        ...         return x1 @ x2.T
        ...     nngp = ntk
        >>> one = torch.ones(1, 1)
        >>> TrainedDecoder(lambda u: 5 * u, Linear(), one, 2 * one)(one).item()
        3.0
    """

    start: Function
    side: Side
    centres: Tensor
    weights: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        """Values at the rows of u: (N, k) -> (N, d)."""
        value = self.start(u)
        if len(self.centres):
            value = (
                value - gram(self.side.ntk(u, self.centres), (len(u), len(self.centres)), "the decoder's ntk") @ self.weights
            )
        return value

    def taught(self, centres: Tensor, weights: Tensor) -> TrainedDecoder:
        """The function with more centres."""
        return TrainedDecoder(self.start, self.side, torch.cat([self.centres, centres]), torch.cat([self.weights, weights]))

    def pull(self, u: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """At the latents (N, k): g, e = (g - y)/N and J^T e, the gradient in u_b of the mean loss 1/(2N) sum |g - y|^2."""
        with torch.enable_grad():
            at = u.detach().clone().requires_grad_()
            value = self(at)
            e = (value.detach() - y) / len(y)
            (back,) = torch.autograd.grad((e * value).sum(), at)
        return value.detach(), e, back
