"""A small pre-LayerNorm transformer that reads a row of pixels as a token sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head self-attention; heads of a fixed size grow in number with the width, or ``heads`` of a growing size."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same shape."""
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a LayerNorm and beside a skip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Tokens are grey levels of pixels; the mean over positions is read out against the classes or the vocabulary.

    Args:
        width: embedding size; must be a multiple of the head size.
        depth: number of blocks.
        tokens: sequence length.
        levels: vocabulary; a real input in [-3, 3] is cut into that many grey levels.
        head: size of a head; None keeps four heads that grow.
        tied: read out with the embedding's own table (then ``outputs`` equals ``levels``).

    Example:
        >>> Transformer(32)(torch.zeros(5, 64)).shape
        torch.Size([5, 16])
    """

    def __init__(
        self, width: int, depth: int = 1, tokens: int = 64, levels: int = 16, head: int | None = 8, tied: bool = False
    ) -> None:
        super().__init__()
        self.levels = levels
        self.embed = nn.Embedding(levels, width)
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, 4 if head is None else width // head) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, levels, bias=False)
        if tied:
            self.readout.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens) grey levels, real or already integer, to (batch, levels)."""
        if x.is_floating_point():
            x = ((x.flatten(1) + 3) / 6 * self.levels).long().clamp(0, self.levels - 1)
        h = self.embed(x) + self.position
        for block in self.blocks:
            h = block(h)
        return self.readout(self.norm(h).mean(dim=1))


def transformer(width: int, depth: int = 1) -> Transformer:
    """A one-block transformer over the 64 pixels of a digit, untied."""
    return Transformer(width, depth)


def tied_transformer(width: int, depth: int = 1) -> Transformer:
    """The same with its readout tied to the embedding."""
    return Transformer(width, depth, tied=True)
