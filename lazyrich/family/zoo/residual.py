"""A residual MLP with pre-normalised branches."""

from __future__ import annotations

from torch import Tensor, nn


class Branch(nn.Module):
    """One residual branch: normalise, expand, gelu, contract."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The branch alone, without the skip."""
        return self.down(nn.functional.gelu(self.up(self.norm(x))))


class ResidualMLP(nn.Module):
    """Embed, ``depth`` residual branches, normalise, read out.

    Example:
        >>> import torch
        >>> ResidualMLP(16)(torch.zeros(5, 64)).shape
        torch.Size([5, 10])
    """

    def __init__(self, width: int, depth: int = 2, inputs: int = 64, outputs: int = 10) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Branch(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ...) inputs to (batch, outputs)."""
        h = self.embed(x.flatten(1))
        for block in self.blocks:
            h = h + block(h)
        return self.readout(self.norm(h))


def residual_mlp(width: int, depth: int = 2) -> ResidualMLP:
    """A pre-norm residual MLP for the 8x8 digits."""
    return ResidualMLP(width, depth)
