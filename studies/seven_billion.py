"""The plan of a Llama-shaped model of seven billion parameters, from a small base, on the meta device.

python studies/seven_billion.py
"""

from __future__ import annotations

import resource
import time

import torch
from torch import nn

import lazyrich as lzr

HEAD = 128


class Norm(nn.Module):
    """Root mean square norm with a gain."""

    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Block(nn.Module):
    """Attention with heads of a fixed size, and a gated perceptron of 43/16 times the width."""

    def __init__(self, n):
        super().__init__()
        self.input_norm, self.post_norm = Norm(n), Norm(n)
        self.q, self.k, self.v, self.o = (nn.Linear(n, n, bias=False) for _ in range(4))
        inner = 43 * n // 16
        self.gate, self.up, self.down = (nn.Linear(a, b, bias=False) for a, b in ((n, inner), (n, inner), (inner, n)))

    def forward(self, x):
        h = self.input_norm(x)
        q, k, v = (layer(h).unflatten(-1, (-1, HEAD)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        h = self.post_norm(x)
        return x + self.down(nn.functional.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    """Embedding, blocks, norm and an untied readout."""

    def __init__(self, n, depth=32, words=32000):
        super().__init__()
        self.embed = nn.Embedding(words, n)
        self.layers = nn.ModuleList(Block(n) for _ in range(depth))
        self.norm, self.head = Norm(n), nn.Linear(n, words, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def main():
    begun = time.perf_counter()
    with torch.device("meta"):
        model = Llama(4096)
    count = sum(p.numel() for p in model.parameters())
    plan = lzr.plan(lzr.Family(Llama, base=256), lzr.mup(), "adamw")
    groups = plan.param_groups(model, lr=3e-3, weight_decay=0.1)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    size = f"{count / 1e9:.2f} billion parameters, {len(plan.tensors)} tensors, {len(groups)} groups"
    print(f"{size}: {seconds:.1f} s, {peak:.2f} GB peak")
    for group in groups:
        names = group["tensors"]
        print(f"  lr {group['lr']:.3g}, weight decay {group['weight_decay']:.3g}: {names[0]} and {len(names) - 1} more")


if __name__ == "__main__":
    main()
