"""Autoencoders: wide encoder, narrow code, wide decoder; dense, convolutional, and with tied weights."""

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


class ConvAutoencoder(nn.Module):
    """Two strided 3x3 convolutions of ``width`` channels to ``code`` latents, and their mirror images back.

    Flat inputs are read as square images of one channel, whose side is a multiple of four; outputs are flat.

    Example:
        >>> import torch
        >>> ConvAutoencoder(8, inputs=784)(torch.zeros(5, 784)).shape
        torch.Size([5, 784])
    """

    def __init__(self, width: int, inputs: int = 64, code: int = 8) -> None:
        super().__init__()
        side = round(inputs**0.5)
        if side % 4 or side * side != inputs:
            raise ValueError(f"got {inputs} inputs, expected a square image whose side is a multiple of 4")
        small = side // 4
        self.encoder = nn.Sequential(
            nn.Unflatten(1, (1, side, side)), nn.Conv2d(1, width, 3, stride=2, padding=1), nn.Tanh(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(width * small * small, code),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(code, width * small * small), nn.Tanh(), nn.Unflatten(1, (width, small, small)),
            nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1), nn.Tanh(),
            nn.ConvTranspose2d(width, 1, 3, stride=2, padding=1, output_padding=1), nn.Flatten(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct (batch, ...) inputs as (batch, inputs)."""
        return self.decoder(self.encoder(x.flatten(1)))


class TiedAutoencoder(nn.Module):
    """A decoder whose weights are the encoder's, transposed: they are the same tensors.

    Layers are convolutions over a line of length one, which are dense layers; a transposed one keeps its weight as (in, out), so
    that encoder and decoder can hold one tensor. Schemes whose inputs and readouts scale apart owe its readout a multiplier.

    Example:
        >>> import torch
        >>> net = TiedAutoencoder(32)
        >>> net(torch.zeros(5, 64)).shape, net.decoder[3].weight is net.encoder[1].weight
        (torch.Size([5, 64]), True)
    """

    def __init__(self, width: int, inputs: int = 64, code: int = 8) -> None:
        super().__init__()
        outer, inner = nn.Conv1d(inputs, width, 1), nn.Conv1d(width, code, 1)
        back, out = nn.ConvTranspose1d(code, width, 1), nn.ConvTranspose1d(width, inputs, 1)
        back.weight, out.weight = inner.weight, outer.weight
        self.encoder = nn.Sequential(nn.Unflatten(1, (inputs, 1)), outer, nn.Tanh(), inner, nn.Flatten())
        self.decoder = nn.Sequential(nn.Unflatten(1, (code, 1)), back, nn.Tanh(), out, nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct (batch, ...) inputs as (batch, inputs)."""
        return self.decoder(self.encoder(x.flatten(1)))


def autoencoder(width: int, depth: int = 1, inputs: int = 64, code: int = 8) -> Autoencoder:
    """A tanh autoencoder, of the 8x8 digits unless ``inputs`` says otherwise."""
    return Autoencoder(width, depth, inputs, code)


def conv_autoencoder(width: int, inputs: int = 64, code: int = 8) -> ConvAutoencoder:
    """A convolutional tanh autoencoder of square images."""
    return ConvAutoencoder(width, inputs, code)


def tied_autoencoder(width: int, inputs: int = 64, code: int = 8) -> TiedAutoencoder:
    """A tanh autoencoder whose decoder is its encoder transposed."""
    return TiedAutoencoder(width, inputs, code)
