"""What turns targets into dual weights: the inverse of a Gram, or the matrix of training that stops early."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.inference import gradient_flow
from lazyrich.inference.factor import Factor, factorise, ridge_of


@dataclass(frozen=True)
class Response:
    """A matrix R with dual = R y, where it is no inverse: of training that stops early.

    Example:
        >>> Response(2 * torch.eye(2)).solve(torch.ones(2, 1)).flatten().tolist()
        [2.0, 2.0]
    """

    matrix: Tensor
    jitter: float = 0.0

    def solve(self, b: Tensor) -> Tensor:
        """R b."""
        return self.matrix @ b


def response_of(gram: Tensor, noise: float | Tensor, time: float | None = None) -> Factor | Response:
    """Of training to convergence, or for a time; a Gram that is singular is given a jitter, and a warning says so.

    Args:
        gram: of the training inputs, (N, N).
        noise: on its diagonal, a number or one a sample.
        time: None, or how long training lasts.

    Example:
        >>> response_of(torch.eye(2, dtype=torch.float64), 1.0).solve(torch.ones(2, 1, dtype=torch.float64)).flatten().tolist()
        [0.5, 0.5]
    """
    if time is not None:
        flow = gradient_flow(gram, torch.eye(len(gram), dtype=gram.dtype), t=float(time), loss="mean", ridge=float(noise))
        return Response(flow.dual)
    factor = factorise(gram, ridge_of(gram, noise, relative=False), jitter="auto")
    if factor.jitter:
        least = float(torch.as_tensor(noise).min())
        warnings.warn(
            f"got a Gram matrix of the training inputs that is singular with noise {least:.3g}, expected a positive definite one; "
            f"a jitter of {factor.jitter:.1e} was added to its diagonal (jitter_): give more noise, or remove duplicate inputs",
            UserWarning,
            stacklevel=4,
        )
    return factor
