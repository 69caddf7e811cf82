"""What training a network in its lazy limit gives at every time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.inference.layout import Layout


@dataclass(frozen=True)
class Flow:
    """Outputs at one or more times; all tensors float64, with a leading axis T unless a single time was asked for.

    Attributes:
        times: () or (T,), in steps.
        train: outputs on the training inputs, (N, K) or (N,) as the targets; the ensemble's mean where Grams were given.
        test: outputs on the test inputs, (M, K) or (M,); None without ``theta_td``.
        losses: training loss of ``train``, in the normalisation that was asked for.
        dual: a with f_t(x) = f_0(x) + Theta(x, X) a, (N, K) or (N,).
        train_covariance: of the ensemble over initialisations, (N, N), or (N, K, N, K); None without ``k_dd``.
        test_covariance: (M, M) or (M, K, M, K); None without ``k_dd``, ``k_td`` and ``k_tt``.
        title: what was trained, for people.
        layout: the axes of the problem.
    """

    times: Tensor
    train: Tensor
    test: Tensor | None
    losses: Tensor
    dual: Tensor
    train_covariance: Tensor | None
    test_covariance: Tensor | None
    title: str
    layout: Layout

    def predict(self, theta_td: Tensor, f0: Tensor | None = None) -> Tensor:
        """Outputs at further test inputs from Theta(x, X), (M, N) or (M, K, N, K), and their initial outputs ``f0``.

        Raises:
            KernelError: for a Gram or initial outputs that do not fit.
        """
        layout = self.layout
        cross = layout.cross(theta_td, "theta_td")
        rows = len(cross) // (layout.outputs if layout.full else 1)
        lead = self.times.shape
        dual = self.dual.reshape(*lead, -1, 1 if layout.full else layout.outputs)
        return layout.restore(layout.columns(f0, "f0", rows) + cross @ dual)

    def test_error(self, y: Tensor) -> Tensor:
        """Mean squared error over test samples and outputs (torch's mse) at each time, shaped as ``times``.

        Raises:
            KernelError: without test outputs, or for targets of another shape.
        """
        if self.test is None:
            raise KernelError("got a flow without test outputs, expected one made with theta_td; pass theta_td=")
        if tuple(y.shape) != tuple(self.test.shape[self.times.ndim :]):
            raise KernelError(
                f"got test targets of shape {tuple(y.shape)}, expected {tuple(self.test.shape[self.times.ndim :])}"
            )
        return (self.test - y.to(torch.float64)).square().flatten(self.times.ndim).mean(-1)

    def rows(self) -> list[dict[str, Any]]:
        """One record a time: ``time``, ``train_loss``, and ``test_deviation`` of the ensemble where it is known."""
        deviations = self._deviations()
        pairs = zip(self.times.reshape(-1).tolist(), self.losses.reshape(-1).tolist(), deviations, strict=True)
        return [
            {"time": time, "train_loss": loss} | ({} if deviation is None else {"test_deviation": deviation})
            for time, loss, deviation in pairs
        ]

    def _deviations(self) -> list[float | None]:
        if self.test_covariance is None:
            return [None] * self.times.numel()
        size = math.isqrt(self.test_covariance.numel() // self.times.numel())
        variances = self.test_covariance.detach().reshape(-1, size, size).diagonal(dim1=1, dim2=2)
        return variances.clamp_min(0).sqrt().mean(1).tolist()

    def __str__(self) -> str:
        lines = [self.title]
        for row in self.rows():
            lines.append("  ".join(f"{name} {value:<10.4g}" for name, value in row.items()).rstrip())
        return "\n".join(lines)
