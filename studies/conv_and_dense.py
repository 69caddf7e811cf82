"""A conv net's slopes equal a dense net's, with channels as the width.

python studies/conv_and_dense.py
"""

import torch
from torch import nn

import lazyrich as lzr
from lazyrich.family.zoo import MLP


class Conv(nn.Module):
    """Two 3x3 convolutions, tanh, mean over positions, readout; the depth and activation of the dense net."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)])
        self.readout = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, 64) digits to (batch, 10)."""
        h = x.reshape(-1, 1, 8, 8)
        for layer in self.hidden:
            h = torch.tanh(layer(h))
        return self.readout(h.mean(dim=(2, 3)))


def update_slopes(factory, scheme: lzr.Scheme, optimizer: str, lr: float, widths=(64, 128, 256, 512), seeds: int = 10):
    plan = lzr.plan(lzr.Family(factory, base=64), scheme, optimizer)
    result = lzr.check(plan, "digits", widths, steps=1, seeds=seeds, lr=lr, batch=32, probe=32)
    return {line.layer: line.slope for line in result.updates}


def main() -> None:
    for scheme in (lzr.ntk(), lzr.richness(0.25), lzr.mup()):
        for optimizer, lr in (("sgd", 0.05), ("adam", 0.001)):
            conv = update_slopes(Conv, scheme, optimizer, lr)
            dense = update_slopes(lambda n: MLP(n, depth=2), scheme, optimizer, lr)
            apart = max(abs(conv[layer].value - dense[layer].value) for layer in conv)
            pairs = "  ".join(f"{layer}: conv {conv[layer]}, dense {dense[layer]}" for layer in conv)
            print(f"{scheme.name:15} {optimizer:5} apart by {apart:.3f}   {pairs}", flush=True)


if __name__ == "__main__":
    main()
