"""What the check costs beside the bare training steps that it watches.

    python benchmarks/check_overhead.py

Each row times, in turn and in one process, the trials of a check and the same builds and steps without probes; the ratio is
the median over the rounds. The promise is at most 1.5.
"""

import statistics
import time

import torch

import lazyrich as lzr
from lazyrich.measure.check import _setup, run_trial
from lazyrich.train import train

CASES = (
    ("mlp", 64, (64, 128, 256, 512, 1024), 256),
    ("convnet", 16, (16, 32, 64, 128), 128),
    ("transformer", 32, (32, 64, 128), 128),
)


def bare(setup, width: int) -> None:
    model = setup.plan.build(width, 0)
    optimizer = setup.plan.optimizer(model, setup.lr)
    train(model, optimizer, lambda step: setup.data.batch(setup.batch, step), setup.loss, setup.steps)


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main(rounds: int = 5) -> None:
    torch.set_num_threads(1)
    data = lzr.data.load("digits")
    for network, base, widths, batch in CASES:
        plan = lzr.plan(lzr.Family(getattr(lzr.zoo, network), base=base), lzr.mup(), "adam")
        setup = _setup(plan, data, widths, 5, 1, None, 0.0, batch, 16, None, "cpu", False)
        ratios, cost = [], 0.0
        for _ in range(rounds + 1):  # the first round warms up
            watched = sum(seconds(run_trial, setup, width, 0) for width in widths)
            plain = sum(seconds(bare, setup, width) for width in widths)
            ratios.append(watched / plain)
            cost = plain
        print(f"{network:12} widths {widths} batch {batch}: ratio {statistics.median(ratios[1:]):.2f} (bare {cost:.2f} s)")


if __name__ == "__main__":
    main()
