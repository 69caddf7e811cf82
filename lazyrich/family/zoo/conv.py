"""A small convolutional network, its channels growing with the width."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """``depth`` 3x3 convolutions of ``width`` channels, mean over positions, linear readout.

    Flat inputs are read as square images.

    Example:
        >>> ConvNet(16)(torch.zeros(5, 64)).shape
        torch.Size([5, 10])
    """

    def __init__(self, width: int, depth: int = 2, channels: int = 1, outputs: int = 10) -> None:
        super().__init__()
        self.channels = channels
        sizes = [channels] + [width] * depth
        self.hidden = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.readout = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, pixels) or (batch, channels, height, width) to (batch, outputs)."""
        h = _as_images(x, self.channels)
        for layer in self.hidden:
            h = torch.relu(layer(h))
        return self.readout(h.mean(dim=(2, 3)))


def _as_images(x: Tensor, channels: int) -> Tensor:
    if x.dim() == 4:
        return x
    side = round((x.shape[1] / channels) ** 0.5)
    return x.reshape(x.shape[0], channels, side, side)


def convnet(width: int, depth: int = 2) -> ConvNet:
    """A relu conv net for one-channel square images with 10 classes."""
    return ConvNet(width, depth)
