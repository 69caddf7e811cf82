"""Does the best learning rate stay put as the width doubles? Shifts in octaves a doubling, beside what theory says.

    LAZYRICH_DATA=folder python studies/transfer.py
    LAZYRICH_DATA=folder python studies/transfer.py --pooled

Multilayer perceptron on 10,000 MNIST images, widths 64 to 512, twelve learning rates an octave apart (under SGD, whose best rate is
the last before training diverges and is known to a step of the grid, 24 half an octave apart), three seeds, batches of 64, one
epoch under Adam and eight under SGD, which is slower: after one, half an octave of the rate is 4 % of what training gains, after
eight 1 %.
Expected: under Adam, standard between -0.7 and -1.2, muP within 0.15 of 0; under SGD with squared loss, standard -1 within 0.25,
ntk and muP 0 within 0.15.

These are laws of networks much wider than their inputs. With 784 of them the first layer's part of the kernel, which does not grow,
is the largest up to widths of several hundreds. Pooled, images are 7x7, networks deeper (three hidden layers under Adam; four under
SGD, started by LeCun's rule, so that the first layers' gradients do not fade) and up to 1024 wide.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.nn import functional as F

import lazyrich as lzr

WIDTHS = (64, 128, 256, 512)
ADAM = tuple(2.0**k for k in range(-14, -2))
SGD = tuple(2.0 ** (k / 2) for k in range(-18, 6))
CASES = (
    ("adam", "cross_entropy", 156, ADAM, (lzr.standard, lzr.mup), (-0.95, 0.0)),
    ("sgd", "half_mse", 1248, SGD, (lzr.standard, lzr.ntk, lzr.mup), (-1.0, 0.0, 0.0)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--steps", type=int, help="of every training; without, 156, and 1248 under SGD")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument(
        "--pooled", action="store_true", help="images of 7x7 pixels, deeper and wider networks, two seeds, two processes"
    )
    words = parser.parse_args()
    if words.pooled:
        return pooled(words)
    data = lzr.data.load("mnist").standardize().subset(words.samples)
    one_hot = (data.x, F.one_hot(data.y, 10).to(torch.float32) - 0.1)
    family = lzr.Family(mlp, base=WIDTHS[0])
    for optimizer, loss, usual, lrs, schemes, expected in CASES:
        if words.only not in optimizer:
            continue
        steps = words.steps or usual
        plans = [lzr.plan(family, scheme(), optimizer) for scheme in schemes]
        start = time.perf_counter()
        given = data if loss == "cross_entropy" else one_hot
        result = lzr.transfer(plans, given, WIDTHS, lrs, words.seeds, steps=steps, loss=loss)
        seconds = time.perf_counter() - start
        print(result)
        for scheme, theory in zip(result.schemes, expected, strict=True):
            worst = max(scheme.regret.values())
            print(f"{scheme.name:20} shift {scheme.shift}   theory {theory:+.2f}   worst regret {100 * worst:.2f} %")
        runs = len(plans) * len(WIDTHS) * len(lrs) * words.seeds
        print(f"{runs} trainings of {steps} steps in {seconds:.0f} s\n", flush=True)


def pooled(words: argparse.Namespace) -> None:
    data = lzr.data.load("mnist").standardize().subset(words.samples)
    x = F.avg_pool2d(data.x.reshape(-1, 1, 28, 28), 4).flatten(1)
    x = (x - x.mean()) / x.std()
    one_hot = F.one_hot(data.y, 10).to(torch.float32) - 0.1
    for optimizer, loss, y, factory, init, widths, schemes in (
        ("adam", "cross_entropy", data.y, deep, {}, (128, 256, 512, 1024), (lzr.standard, lzr.mup)),
        (
            "sgd",
            "half_mse",
            one_hot,
            deeper,
            {"*": lzr.init.lecun()},
            (64, 128, 256, 512, 1024),
            (lzr.standard, lzr.ntk, lzr.mup),
        ),
    ):
        if words.only not in optimizer:
            continue
        lrs = tuple(2.0**k for k in (range(-14, -3) if optimizer == "adam" else range(-12, 2)))
        plans = [lzr.plan(lzr.Family(factory, base=widths[0]), scheme(), optimizer, init=init) for scheme in schemes]
        start = time.perf_counter()
        result = lzr.transfer(
            plans, (x, y), widths, lrs, 2, steps=words.steps or 156, loss=loss, executor="processes", workers=2
        )
        print(result)
        for scheme in result.schemes:
            print(f"{scheme.name:20} shift {scheme.shift}   worst regret {100 * max(scheme.regret.values()):.2f} %")
        print(f"in {time.perf_counter() - start:.0f} s\n", flush=True)


def deep(width: int) -> torch.nn.Module:
    return lzr.zoo.MLP(width, depth=3, inputs=49)


def deeper(width: int) -> torch.nn.Module:
    return lzr.zoo.MLP(width, depth=4, inputs=49)


def mlp(width: int) -> torch.nn.Module:
    return lzr.zoo.MLP(width, inputs=784)


if __name__ == "__main__":
    main()
