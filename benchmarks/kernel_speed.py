"""Infinite-width NTKs against neural-tangents 0.6.5 (jax 0.4.25), same machine, same run, same threads, same numbers.

    python benchmarks/kernel_speed.py --peer peer/bin/python

How to make the peer's environment is told in peer_neural_tangents.py. Without --peer only our times are shown. Both sides have
compiled what they compile before they are timed: ours the loops of lazyrich.compiled (--plain: without). Also shown: the
share of the machine's limit that each case reaches, the limit being the inputs' matrix product, one arc cosine and one square root
an entry a layer, and of convolutions one copy of both arrays a layer, all over the upper half and timed in the same run.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lazyrich as lzr
from lazyrich import compiled

PEER = Path(__file__).with_name("peer_neural_tangents.py")


def dense(depth):
    layers = [layer for i in range(depth) for layer in (nn.Linear(784 if i == 0 else 8, 8), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(8, 1)), lzr.init.variance(2.0, 0.01)


def conv(depth, channels, end):
    layers = [m for i in range(depth) for m in (nn.Conv2d(channels if i == 0 else 8, 8, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, *end), lzr.init.variance(2.0, 0.0)


class Mean(nn.Module):
    """Global average pooling."""

    def forward(self, x):
        """Mean over positions."""
        return x.mean((2, 3))


# kernel, input shape, dtype, repeats, claim
CASES = [
    ("dense", (2000, 784), "float32", 15, 5.0),
    ("dense", (2000, 784), "float64", 15, 3.0),
    ("conv flatten", (100, 28, 28, 1), "float32", 15, 5.0),
    ("conv pool", (40, 10, 10, 3), "float32", 5, 40.0),
]
NETWORKS = {
    "dense": lambda: dense(5),
    "conv flatten": lambda: conv(4, 1, (nn.Flatten(), nn.Linear(8 * 784, 1))),
    "conv pool": lambda: conv(4, 3, (Mean(), nn.Linear(8, 1))),
}


def ours(name, x, dtype, repeats):
    network, init = NETWORKS[name]()
    kernel = lzr.kernel(network, init=init)
    x = torch.from_numpy(x).to(getattr(torch, dtype))
    x = x.movedim(-1, 1).contiguous() if x.dim() == 4 else x
    found, times = kernel.ntk(x), []
    for _ in range(repeats):
        start = time.perf_counter()
        kernel.ntk(x)
        times.append(time.perf_counter() - start)
    return found.numpy(), times


def theirs(python, name, x, dtype, repeats, threads):
    with tempfile.TemporaryDirectory() as folder:
        inputs, output = Path(folder) / "x.npy", Path(folder) / "k.npy"
        np.save(inputs, x)
        case = {"kernel": name, "dtype": dtype, "repeats": repeats, "inputs": str(inputs), "output": str(output)}
        flags = "--xla_cpu_multi_thread_eigen=" + ("true" if threads > 1 else "false")
        env = os.environ | {"XLA_FLAGS": flags, "OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
        run = subprocess.run([python, str(PEER), json.dumps(case)], capture_output=True, text=True, env=env)
        if run.returncode:
            raise SystemExit(f"the peer failed:\n{run.stderr[-2000:]}")
        return np.load(output), json.loads(run.stdout.splitlines()[-1])


def limit(name, shape, dtype):
    """Seconds of a case's floor: the inputs' product, and a layer's arc cosine, square root and copy of the upper half."""
    n, positions, channels = shape[0], int(np.prod(shape[1:-1])), shape[-1]
    depth, pairs = {"dense": (5, 1), "conv flatten": (4, positions), "conv pool": (4, positions**2)}[name]
    x = torch.randn(n * positions, channels, dtype=getattr(torch, dtype))
    half = torch.rand(n * (n + 1) // 2 * pairs, dtype=x.dtype)
    out = torch.empty_like(half)
    product = best_of(lambda: x @ x.T) / 2 if name != "conv flatten" else 0.0  # only equal positions meet there
    copies = 2 * best_of(lambda: out.copy_(half)) if name != "dense" else 0.0
    return product + depth * (best_of(lambda: torch.acos(half, out=out)) + best_of(lambda: torch.sqrt(half, out=out)) + copies)


def best_of(function, repeats=5):
    """Seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="python of an environment with neural-tangents")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="")
    parser.add_argument("--plain", action="store_true", help="without compiled loops, as long as little has been computed")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    if words.plain:
        compiled.PRICE = float("inf")
    elif not compiled.start():
        print("no compiled loops: pip install 'lazyrich[fast]', on Linux")
    print(f"{'case':14}{'shape':>20} {'dtype':8} {'ours s':>9} {'theirs s':>9} {'ratio':>7} {'claim':>6}  largest difference")
    for name, shape, dtype, repeats, claim in CASES:
        if words.only not in name:
            continue
        x = np.random.default_rng(0).standard_normal(shape)
        found, times = ours(name, x, dtype, repeats)
        line = f"{name:14}{shape!s:>20} {dtype:8} {min(times):9.3f}"
        if words.peer:
            other, peer_times = theirs(words.peer, name, x, dtype, repeats, words.threads)
            apart = np.abs(found - other).max() / np.abs(other).max()
            line += f" {min(peer_times):9.3f} {min(peer_times) / min(times):7.1f} {claim:6.0f}  {apart:.1e}"
        print(line, flush=True)
        floor = limit(name, shape, dtype)
        print(f"{'':14}floor of this machine {floor:.3f} s: we reach {100 * floor / min(times):.0f} % of it")


if __name__ == "__main__":
    main()
