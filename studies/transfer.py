"""Does the best learning rate stay put as the width doubles? Shifts in octaves a doubling, beside what theory says.

    LAZYRICH_DATA=folder python studies/transfer.py

Multilayer perceptron on 10,000 MNIST images, widths 64 to 512, twelve learning rates an octave apart, three seeds, one epoch
at batch 64. Expected: under Adam, standard between -0.7 and -1.2, muP within 0.15 of 0; under SGD with squared loss, standard
-1 within 0.25, ntk and muP 0 within 0.15.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.nn import functional as F

import lazyrich as lzr

WIDTHS = (64, 128, 256, 512)
ADAM = tuple(2.0**k for k in range(-14, -2))
SGD = tuple(2.0**k for k in range(-9, 3))
CASES = (
    ("adam", "cross_entropy", ADAM, (lzr.standard, lzr.mup), (-0.95, 0.0)),
    ("sgd", "half_mse", SGD, (lzr.standard, lzr.ntk, lzr.mup), (-1.0, 0.0, 0.0)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=156)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    words = parser.parse_args()
    data = lzr.data.load("mnist").standardize().subset(words.samples)
    one_hot = (data.x, F.one_hot(data.y, 10).to(torch.float32) - 0.1)
    family = lzr.Family(mlp, base=WIDTHS[0])
    for optimizer, loss, lrs, schemes, expected in CASES:
        if words.only not in optimizer:
            continue
        plans = [lzr.plan(family, scheme(), optimizer) for scheme in schemes]
        start = time.perf_counter()
        given = data if loss == "cross_entropy" else one_hot
        result = lzr.transfer(plans, given, WIDTHS, lrs, words.seeds, steps=words.steps, loss=loss)
        seconds = time.perf_counter() - start
        print(result)
        for scheme, theory in zip(result.schemes, expected, strict=True):
            worst = max(scheme.regret.values())
            print(f"{scheme.name:20} shift {scheme.shift}   theory {theory:+.2f}   worst regret {100 * worst:.2f} %")
        runs = len(plans) * len(WIDTHS) * len(lrs) * words.seeds
        print(f"{runs} trainings of {words.steps} steps in {seconds:.0f} s\n", flush=True)


def mlp(width: int) -> torch.nn.Module:
    return lzr.zoo.MLP(width, inputs=784)


if __name__ == "__main__":
    main()
