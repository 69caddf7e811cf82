"""The autoencoder: wide encoder, narrow code, wide decoder."""

from __future__ import annotations

from torch import Tensor, nn

from lazyrich.family.zoo.mlp import MLP


class Autoencoder(nn.Module):
    """An MLP encoder to ``code`` latents and an MLP decoder back; only the hidden layers grow, never the code.

    Example:
        >>> import torch
        >>> Autoencoder(32, inputs=64, code=8)(torch.zeros(5, 64)).shape
        torch.Size([5, 64])
    """

    def __init__(self, width: int, depth: int = 1, inputs: int = 64, code: int = 8, activation: str = "tanh") -> None:
        super().__init__()
        self.encoder = MLP(width, depth, inputs, code, activation)
        self.decoder = MLP(width, depth, code, inputs, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct (batch, ...) inputs as (batch, inputs)."""
        return self.decoder(self.encoder(x))


def autoencoder(width: int, depth: int = 1, inputs: int = 64, code: int = 8) -> Autoencoder:
    """A tanh autoencoder, of the 8x8 digits unless ``inputs`` says otherwise."""
    return Autoencoder(width, depth, inputs, code)
