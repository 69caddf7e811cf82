"""Which start removes the delay of a muP autoencoder at its bottleneck, and by how much.

    python studies/coupled.py
    python studies/coupled.py --seeds 48 --starts default transposed cascading

Both weights around a bottleneck of k latents start with an alignment of order n^(-1/2) under muP, and each one's gradient is
proportional to the other's alignment: gradient descent needs of order log n steps before it learns (J. Simon 2024). Adam does
not see gradient sizes. Here the decoder is drawn correlated with the transposed encoder (all other laws are the plan's), and
the steps to half of the loss of a network that returns zero are counted; the delay is their slope a doubling of the width, with
a 95 % interval.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

import lazyrich as lzr
from lazyrich.autoencoder import mirrors, start_for
from lazyrich.family.zoo.autoencoder import Autoencoder
from lazyrich.train import train

WIDTHS = (64, 256, 1024, 4096)
CASES = (
    ("default", "sgd"), ("transposed(0.25)", "sgd"), ("half", "sgd"), ("transposed", "sgd"), ("inverse", "sgd"),
    ("cascading", "sgd"), ("orthogonal", "sgd"), ("default", "adam"), ("transposed", "adam"),
)  # fmt: skip
RATES = {"sgd": 0.004, "adam": 0.0004}
INPUTS, CODE, SAMPLES, MOST, LEARNT = 8, 2, 32, 600, 0.5


def small(width: int) -> Autoencoder:
    return Autoencoder(width, inputs=INPUTS, code=CODE)


def near_a_plane(seed: int) -> Tensor:
    """Samples of about unit variance an entry, near a plane of as many dimensions as the code has."""
    draw = torch.Generator().manual_seed(20_000 + seed)
    plane = torch.randn(CODE, INPUTS, generator=draw) / math.sqrt(CODE)
    return torch.randn(SAMPLES, CODE, generator=draw) @ plane + 0.1 * torch.randn(SAMPLES, INPUTS, generator=draw)


def half_loss(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).square().sum() / (2 * len(y))


def steps_to_learn(start: str, optimizer: str, width: int, seed: int) -> tuple[float, float]:
    """Steps to half of the loss of silence, and the alignment of the weights around the bottleneck before them."""
    plan, x = lzr.plan(lzr.Family(small, base=WIDTHS[0]), lzr.mup(), optimizer), near_a_plane(seed)
    model = plan.build(width, seed)
    start_for(start)(model, x, seed)
    inner = mirrors(model, x)[-1].weight
    groups = plan.param_groups(model, lr=RATES[optimizer])
    descent = torch.optim.SGD(groups) if optimizer == "sgd" else torch.optim.Adam(groups)
    goal, losses = LEARNT * float(half_loss(0 * x, x)), [math.inf]
    while len(losses) <= MOST and losses[-1] > goal:
        losses += train(model, descent, lambda step: (x, x), half_loss, 1).losses  # the loss before this step
    return (max(len(losses) - 2, 0.5) if losses[-1] <= goal else math.nan), inner


def delay(steps: np.ndarray) -> tuple[float, float]:
    """Slope of log2(steps) a doubling of the width with a level for every seed, and half its 95 % interval."""
    x = np.log2(WIDTHS) - np.log2(WIDTHS).mean()
    y = np.log2(steps) - np.log2(steps).mean(1, keepdims=True)
    slope = float((y * x).sum() / (len(y) * (x**2).sum()))
    freedom = y.size - len(y) - 1
    spread = math.sqrt(float(((y - slope * x) ** 2).sum()) / freedom / (len(y) * float((x**2).sum())))
    return slope, float(stats.t.ppf(0.975, freedom)) * spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--starts", nargs="*", help="these starts only, under SGD")
    words = parser.parse_args()
    print(
        f"{'start':20}{'optimizer':10}"
        + "".join(f"{n:>8}" for n in WIDTHS)
        + "   log2 steps a doubling   alignment at the start"
    )
    cases = [(start, "sgd") for start in words.starts] if words.starts else CASES
    for start, optimizer in cases:
        table = np.array([[steps_to_learn(start, optimizer, w, s) for w in WIDTHS] for s in range(words.seeds)])
        steps, inner = table[..., 0], table[..., 1]
        slope, half = delay(steps)
        row = "".join(f"{v:8.1f}" for v in np.exp(np.log(steps).mean(0)))
        ends = ", ".join(f"{v:.3f}" for v in np.abs(inner).mean(0)[[0, -1]])
        print(f"{start:20}{optimizer:10}{row}   {slope:+.3f} ± {half:.3f}         {ends}", flush=True)


if __name__ == "__main__":
    main()
