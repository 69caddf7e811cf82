"""The largest stable SGD rate against the width, and how far features move at a quarter of it: standard, NTK, muP.

    python studies/stable_rates.py

Two hidden tanh layers, +-1 targets on digits, full batch, outputs centred, LeCun's rule. A rate is stable when
the loss never rises above where it began. Expected (Yang & Hu, arXiv:2011.14522, Table 1): rates as n^-1, n^0, n^0, asked
within .2, .2, .1; features move by n^(-1/2), n^(-1/2), n^0.
"""

import argparse

import torch

import lazyrich as lzr
from lazyrich.family.zoo import MLP
from lazyrich.measure import fit_slope
from lazyrich.measure.dial import Centred
from lazyrich.measure.movement import feature_movement
from lazyrich.measure.watch import capture, state_of
from lazyrich.train import train

WIDTHS = (64, 256, 1024)
BRACKET = (-12, 8)  # of log2 of the rate
SCHEMES = {"standard": (lzr.standard(), -1.0, -0.5), "ntk": (lzr.ntk(), 0.0, -0.5), "mup": (lzr.mup(), 0.0, 0.0)}


def data(seed: int):
    some = lzr.data.load("digits").subset(32, seed=seed)
    return some.x.double().flatten(1), (some.y % 2 * 2 - 1).double()[:, None]


def loss(f, t):
    return (f - t).square().mean() / 2


def stable(plan, width: int, seed: int, lr: float, steps: int) -> bool:
    """Whether the loss never rises above where it began."""
    batch = data(seed)
    model = Centred(plan.build(width, seed).double())
    run = train(model, plan.optimizer(model.network, lr), lambda step: batch, loss, steps)
    return not run.diverged and max(run.losses) <= run.losses[0]


def largest(plan, width: int, seed: int, steps: int) -> float:
    """The largest stable rate, by halving in the logarithm down to a sixteenth of an octave."""
    low, high = BRACKET
    if not stable(plan, width, seed, 2.0**low, steps) or stable(plan, width, seed, 2.0**high, steps):
        raise SystemExit(f"2^{low} to 2^{high} does not hold the largest stable rate ({plan.scheme.name}, width {width})")
    while high - low > 1 / 16:
        middle = (low + high) / 2
        low, high = (middle, high) if stable(plan, width, seed, 2.0**middle, steps) else (low, middle)
    return 2.0**low


def moved(plan, width: int, seed: int, lr: float, steps: int) -> float:
    """How far the last hidden layer's features move, relative to their size."""
    x, y = data(seed)
    model = Centred(plan.build(width, seed).double())

    def features():
        return torch.tanh(capture(model.network, state_of(model.network), x)[1]["hidden.1"].output)

    before = features()
    train(model, plan.optimizer(model.network, lr), lambda step: (x, y), loss, steps)
    return feature_movement(before, features())


def slopes(name: str, seeds: int, steps: int = 40):
    """Slopes in the width of the largest stable rate, and of the features' movement at a quarter of it."""
    family = lzr.Family(lambda n: MLP(n, depth=2, outputs=1, bias=False), base=64)
    plan = lzr.plan(family, SCHEMES[name][0], "sgd", init={"*": "lecun"})
    rates = [[largest(plan, width, seed, steps) for width in WIDTHS] for seed in range(seeds)]
    moves = [
        [moved(plan, width, seed, lr / 4, steps) for width, lr in zip(WIDTHS, row, strict=True)]
        for seed, row in enumerate(rates)
    ]
    return fit_slope(WIDTHS, rates), fit_slope(WIDTHS, moves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    words = parser.parse_args()
    print("scheme     largest stable rate (expected)    features at a quarter of it (expected)")
    for name, (_, rate, move) in SCHEMES.items():
        found, movement = slopes(name, words.seeds)
        print(f"{name:9} {found!s:>20} ({rate:+.1f}) {movement!s:>30} ({move:+.1f})", flush=True)


if __name__ == "__main__":
    main()
