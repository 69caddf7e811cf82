"""Stacked training against the sequential eager loop with torch's stock optimizer, same machine, same run, same threads.

    python benchmarks/ensemble_speed.py

Claims on two cores: MLP 784-128-10 under Adam at least 3 times the loop, width 32 at least 6 times, width 512 never slower.
The limit is the matrix products alone at the rate of a large one: 4 flops an entry of the first weight, a sample and a step, 6
of the second.
"""

import argparse
import os
import time

import torch
from torch import nn

from lazyrich.train import Member, engine_for, train_all

CASES = [(128, 128, 3.0), (32, 32, 6.0), (512, 128, 1.0)]  # width, batch, claim


def members(width, count, batch):
    torch.manual_seed(0)
    x, y = torch.randn(40, batch, 784), torch.randint(10, (40, batch))

    def batches(step):
        return x[step % 40], y[step % 40]

    made = []
    for i in range(count):
        model = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
        made.append(Member(model, torch.optim.Adam(model.parameters(), lr=1e-3 * 2 ** (i % 8 / 4)), batches))
    return made


def speed(engine, width, count, batch, steps):
    """Model-steps a second."""
    train_all(members(width, count, batch), nn.functional.cross_entropy, 3, engine=engine)
    some = members(width, count, batch)
    start = time.perf_counter()
    train_all(some, nn.functional.cross_entropy, steps, engine=engine)
    return count * steps / (time.perf_counter() - start)


def peak():
    """Flops a second of a large float32 product."""
    a = torch.randn(1024, 1024)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    limit = peak()
    print(
        f"{'width':>6} {'batch':>6} {'loop/s':>8} {'stacked/s':>10} {'ratio':>6} {'claim':>6} {'auto':>5} {'of the flop limit':>18}"
    )
    for width, batch, claim in CASES:
        loop = speed("loop", width, words.members, batch, words.steps)
        stacked = speed("auto", width, words.members, batch, words.steps)
        flops = (4 * 784 * width + 6 * width * 10) * batch
        chosen = engine_for(members(width, 1, batch)[0].model).name
        print(
            f"{width:6} {batch:6} {loop:8.0f} {stacked:10.0f} {stacked / loop:6.1f} {claim:6.0f} {chosen:>5} "
            f"{100 * stacked * flops / limit:17.0f}%",
            flush=True,
        )


if __name__ == "__main__":
    main()
