"""The NTK of 20,000 MNIST images streamed to disk, and the posterior by conjugate gradients on the file, within 3 GB.

    LAZYRICH_DATA=folder python benchmarks/streamed_gram.py --samples 20000

A killed run continues with the same command. Reported: seconds, entries a second beside the rate of the kernel in memory (the
limit: writing costs nothing), the disk's rate, the peak memory of the process, and the test accuracy of the posterior mean.
"""

import argparse
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.inference import Streamed, conjugate_gradients, one_hot_targets
from lazyrich.lazy import write_gram

DEPTH = 5


def network():
    layers = [layer for i in range(DEPTH) for layer in (nn.Linear(784 if i == 0 else 8, 8), nn.ReLU())]
    return lzr.kernel(nn.Sequential(*layers, nn.Linear(8, 1)), init=lzr.init.variance(2.0, 0.01))


def peak():
    """GB of resident memory at most; pages of the mapped file count while they are mapped in."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--block", type=int, default=2000)
    parser.add_argument("--noise", type=float, default=1e-2)
    parser.add_argument("--folder", type=Path, default=Path("runs/streamed"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    data = lzr.data.load("mnist").subset(words.samples + words.test, seed=0)
    x, y = data.x[: words.samples], data.y[: words.samples]
    x_test, y_test = data.x[words.samples :], data.y[words.samples :]
    kernel = network()
    start = time.perf_counter()
    kernel.ntk(x[: words.block])
    start = time.perf_counter()
    kernel.ntk(x[: words.block], x[words.block : 2 * words.block])
    limit = words.block**2 / (time.perf_counter() - start)

    path = words.folder / "gram.npy"
    start = time.perf_counter()
    seen = []

    def show(done, total, what):
        seen.append(done)
        if sys.stderr.isatty():
            print(f"\r{done}/{total} blocks, {what}    ", end="", file=sys.stderr)

    gram = write_gram(kernel, x, path, block=words.block, progress=show)
    seconds = time.perf_counter() - start
    blocks = seen[-1] - seen[0]
    side = -(-words.samples // words.block)
    entries = (words.samples**2 + side * words.block**2) / 2 * blocks / seen[-1]  # what this run computed
    if blocks:
        print(
            f"{words.samples:,} images: {blocks} blocks of {words.block} in {seconds:.1f} s, {entries / seconds / 1e6:.1f}M "
            f"entries/s, {100 * entries / seconds / limit:.0f} % of the rate in memory ({limit / 1e6:.1f}M/s); "
            f"{gram.nbytes / 1e9:.2f} GB at {2 * entries * gram.itemsize / seconds / 1e6:.0f} MB/s; peak memory {peak():.2f} GB"
        )
    start = time.perf_counter()
    noise = words.noise * float(np.mean(gram.diagonal()))
    del gram
    targets = one_hot_targets(y, 10)
    found = conjugate_gradients(
        Streamed.mapped(path), targets, noise=noise, preconditioner="cholesky", rank=256, tolerance=1e-4
    )
    middle = time.perf_counter()
    mean = torch.cat([kernel.ntk(x_test[i : i + 500], x).double() @ found.x for i in range(0, words.test, 500)])
    accuracy = float((mean.argmax(1) == y_test).double().mean())
    print(
        f"posterior: {found} in {middle - start:.1f} s; accuracy {100 * accuracy:.2f} % on {words.test} test images "
        f"({time.perf_counter() - middle:.1f} s); peak memory {peak():.2f} GB"
    )


if __name__ == "__main__":
    main()
