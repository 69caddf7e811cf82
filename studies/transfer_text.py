"""Does the best learning rate of a small transformer on text stay put as the width doubles?

    python studies/transfer_text.py

Next characters of Python's own standard library (which every machine has), one causal block with heads of size 16, widths 32
to 256, Adam, ten learning rates an octave apart, two seeds, in two processes. Expected: standard drifts by about -1 octave a
doubling once wide, muP within 0.15 of 0 with a regret below 1 %.
"""

from __future__ import annotations

import argparse
import inspect
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lazyrich as lzr
from lazyrich.data import ArrayData

WIDTHS = (32, 64, 128, 256)
LRS = tuple(2.0**k for k in range(-13, -3))
LENGTH, HEAD = 32, 16


class Block(nn.Module):
    """Causal attention and a perceptron, each behind a LayerNorm and beside a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        q, k, v = (layer(h).unflatten(-1, (-1, HEAD)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Reader(nn.Module):
    """Next characters, (batch, LENGTH) -> (batch, LENGTH, characters)."""

    def __init__(self, width: int, characters: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(characters, width), nn.Parameter(0.02 * torch.randn(LENGTH, width))
        self.block, self.norm = Block(width), nn.LayerNorm(width)
        self.readout = nn.Linear(width, characters, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.norm(self.block(self.embed(x) + self.position)))


def text() -> ArrayData:
    """Windows of the source of a module of the standard library, as characters by number."""
    words = inspect.getsource(argparse)
    names = {c: i for i, c in enumerate(sorted(set(words)))}
    codes = torch.tensor([names[c] for c in words])
    windows = codes.unfold(0, LENGTH + 1, 8)
    return ArrayData(windows[:, :-1].contiguous(), windows[:, 1:].contiguous(), "standard library", len(names))


def next_character(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output.flatten(0, 1), target.flatten())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    words = parser.parse_args()
    data = text()

    def reader(width: int) -> Reader:
        return Reader(width, data.classes or 0)

    family = lzr.Family(reader, base=WIDTHS[0], roles={"position": "vector"})
    plans = [lzr.plan(family, scheme(), "adam") for scheme in (lzr.standard, lzr.mup)]
    start = time.perf_counter()
    result = lzr.transfer(
        plans, data, words.widths, LRS, words.seeds, steps=words.steps, batch=16, evaluate=500, loss=next_character,
        executor="processes", workers=2,
    )  # fmt: skip
    print(result)
    for scheme in result.schemes:
        print(f"{scheme.name:20} shift {scheme.shift}   worst regret {100 * max(scheme.regret.values()):.2f} %")
    print(f"in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
