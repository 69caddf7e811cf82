"""A path of training of an infinite-width autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.lazy.bottleneck.decoder import TrainedDecoder


@dataclass(frozen=True)
class BottleneckPath:
    """Latents and outputs on the training inputs along training.

    Attributes:
        times: (T,): time of gradient flow, or learning rate times steps; the first is 0.
        latents: u, (T, N, k).
        outputs: f, (T, N, d).
        loss: 1/(2N) sum_b |f_b - y_b|^2 (mean over samples, sum over outputs), (T,).
        pulled: P = integral of J^T e, (N, k) at the last time: u(x) = u_0(x) - Theta_enc(x, X) P at any input x.
        decoder: g at the last time, a function (N, k) -> (N, d) of the latents.
        evaluations: how often the decoder was evaluated.
    """

    times: Tensor
    latents: Tensor
    outputs: Tensor
    loss: Tensor
    pulled: Tensor
    decoder: TrainedDecoder
    evaluations: int

    @property
    def latent_movement(self) -> Tensor:
        """|u_t - u_0| / |u_0| over all samples and latents, (T,)."""
        return (self.latents - self.latents[0]).flatten(1).norm(dim=1) / self.latents[0].norm()

    def predict(self, to_train: Tensor, u0: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and outputs at other inputs, at the last time.

        Args:
            to_train: Theta_enc(x, X), (M, N).
            u0: latents there at initialisation, (M, k), drawn jointly with those of the training inputs.

        Returns:
            u (M, k) and f (M, d).
        """
        u = u0 - to_train @ self.pulled
        with torch.no_grad():
            return u, self.decoder(u)
