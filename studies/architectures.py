"""Coordinate checks of architectures as people write them, in plain torch: updates by muP under AdamW, obligations met.

    python studies/architectures.py

A U-Net with transposed convolutions and skips, an LSTM, torch's own TransformerEncoder, a depthwise-separable conv net that ends
in a 1x1 convolution, grouped convolutions, a mixture of experts kept in one tensor, and a network with weight norm. Where shapes do
not tell a tensor's role (a position table, the originals of a parametrization) lazyrich asks, and the role is given. Claimed:
slopes of updates from 64 to 512 (channels 16 to 128) within .13 of zero, or an interval that holds zero.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import lazyrich as lzr


class UNet(nn.Module):
    """Two scales with a skip, image to image."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(1, n, 3, padding=1), nn.Conv2d(n, 2 * n, 3, stride=2, padding=1)
        self.norm, self.middle = nn.GroupNorm(4, 2 * n), nn.Conv2d(2 * n, 2 * n, 3, padding=1)
        self.up, self.join = nn.ConvTranspose2d(2 * n, n, 2, stride=2), nn.Conv2d(2 * n, n, 3, padding=1)
        self.out = nn.Conv2d(n, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.enter(x))
        deep = F.silu(self.middle(F.silu(self.norm(self.down(h)))))
        return self.out(F.silu(self.join(torch.cat([h, self.up(deep)], 1))))


class Recurrent(nn.Module):
    """An LSTM over the rows of an image."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.lstm, self.readout = nn.LSTM(8, n, num_layers=2, batch_first=True), nn.Linear(n, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.lstm(x[:, 0])[0][:, -1])


class Encoder(nn.Module):
    """torch's own TransformerEncoder over rows, with two heads that grow."""

    def __init__(self, n: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(n, 2, 2 * n, dropout=0.0, batch_first=True, norm_first=True)
        self.embed, self.position = nn.Linear(8, n), nn.Parameter(0.1 * torch.randn(8, n))
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.readout = nn.Linear(n, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.encoder(self.embed(x[:, 0]) + self.position).mean(1))


class Separable(nn.Module):
    """Depthwise convolutions with pointwise ones between, and a 1x1 convolution to the classes."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.enter, self.deep = nn.Conv2d(1, n, 3, padding=1), nn.Conv2d(n, n, 3, padding=1, groups=n)
        self.point, self.out = nn.Conv2d(n, n, 1), nn.Conv2d(n, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.point(F.relu(self.deep(F.relu(self.enter(x))))))).mean((2, 3))


class Grouped(nn.Module):
    """Convolutions in four groups."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.enter, self.mix = nn.Conv2d(1, n, 3), nn.Conv2d(n, n, 3, groups=4)
        self.readout = nn.Linear(n, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(F.relu(self.mix(F.relu(self.enter(x)))).mean((2, 3)))


class Experts(nn.Module):
    """Four experts in one tensor (experts, out, in), the best of which a router chooses for each sample."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.enter, self.router, self.readout = nn.Linear(64, n), nn.Linear(n, 4), nn.Linear(n, 10)
        self.experts = nn.Parameter(torch.randn(4, n, n) / math.sqrt(n))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.enter(x.flatten(1)))
        gate = self.router(h).softmax(1)
        out = torch.tanh(torch.einsum("eoi,bi->beo", self.experts, h))
        return self.readout((gate[:, :, None] * out).sum(1))


class Normed(nn.Module):
    """Weight norm: a gain a row (original0) and a direction (original1)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.enter, self.mix, self.readout = nn.Linear(64, n), weight_norm(nn.Linear(n, n)), nn.Linear(n, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(torch.tanh(self.mix(torch.tanh(self.enter(x.flatten(1))))))


@dataclass(frozen=True)
class Case:
    """A network, its widths, and what has to be said of it."""

    factory: Callable[[int], nn.Module]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    roles: Mapping[str, str] = field(default_factory=dict)
    target: str = "labels"


CHANNELS = (16, 32, 64, 128)
CASES = {
    "U-Net": Case(UNet, CHANNELS, target="input"),
    "LSTM": Case(Recurrent),
    "TransformerEncoder": Case(Encoder, roles={"position": "vector"}),  # lazyrich asks which
    "depthwise, 1x1 readout": Case(Separable, CHANNELS),
    "grouped convolution": Case(Grouped, CHANNELS),
    "experts in one tensor": Case(Experts),
    "weight norm": Case(
        Normed, roles={"mix.parametrizations.weight.original0": "vector", "mix.parametrizations.weight.original1": "hidden"}
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--lr", type=float, default=5e-3)
    words = parser.parse_args()
    for name, case in CASES.items():
        data = lzr.data.load("digits", flatten=False, target=case.target)
        for scheme in (lzr.mup(), lzr.standard()):
            plan = lzr.plan(lzr.Family(case.factory, base=case.widths[0], roles=dict(case.roles)), scheme, "adamw")
            found = lzr.check(
                plan, data, widths=case.widths, steps=words.steps, seeds=words.seeds, lr=words.lr, meet=True,
                loss="mse" if case.target == "input" else None,
            )  # fmt: skip
            lines = [line for line in found.lines if line.quantity == "update" and line.step == words.steps]
            slopes = [line.slope.value for line in lines]
            worst = max(lines, key=lambda line: abs(line.slope.value))
            print(
                f"{name:24}{scheme.name:11}{min(slopes):+.2f} to {max(slopes):+.2f}   {found.verdict.word:14}"
                f"farthest: {worst.layer} {worst.slope}",
                flush=True,
            )


if __name__ == "__main__":
    main()
