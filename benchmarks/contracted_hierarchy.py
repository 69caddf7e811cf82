"""What K3 and K4 contracted with residuals cost, in training steps of the same network on the same batch.

    python benchmarks/contracted_hierarchy.py [--device cuda]

One step is a forward and backward pass of the mean squared loss and an SGD update. Timed in turn, the ratio is the median over
rounds. N = 256. Aim: at most 6 for the third order.

K2 r       sum_b K2(a, b) r_b,                      (N, K)
dNTK r r   sum_bc dNTK(a; b, c) r_b r_c = v^T H_a v, (N, K), v = sum_b r_b grad f_b
K3 r r     sum_bc K3(a, b, c) r_b r_c,              (N, K): the second time derivative of the outputs under theta' = v(theta)
K4 r r r   sum_bce K4(a, b, c, e) r_b r_c r_e,      (N, K): the third
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import lazyrich as lzr
from lazyrich.family.zoo import MLP
from lazyrich.tangent import contracted


def step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # every round sees the same network

    def once() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()

    return once


def seconds(function: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratios(model: nn.Module, x: torch.Tensor, outputs: int, rounds: int, device: str) -> tuple[float, dict[str, float]]:
    model, x = model.to(device), x.to(device)
    y = torch.randn(len(x), outputs, device=device)
    r = ((model(x) - y) / len(x)).detach()
    cases: dict[str, Callable[[], object]] = {
        "K2 r": lambda: contracted(model, x, r, order=2),
        "dNTK r r": lambda: contracted(model, x, r, order=3, straight=True),
        "K3 r r": lambda: contracted(model, x, r, order=3),
        "K4 r r r": lambda: contracted(model, x, r, order=4),
    }
    train = step(model, x, y)
    for function in (train, *cases.values()):
        function()  # warm up
    plain, found = [], {name: [] for name in cases}
    for _ in range(rounds):
        for name, function in cases.items():
            base = min(seconds(train, device) for _ in range(3))
            plain.append(base)
            found[name].append(seconds(function, device) / base)
    return statistics.median(plain), {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--device", default="cpu")
    options.add_argument("--rounds", type=int, default=7)
    chosen = options.parse_args()
    torch.manual_seed(0)
    cases = {
        "MLP 784-512x4-10, tanh": (MLP(512, 4, inputs=784), torch.randn(256, 784), 10),
        "MLP 784-512x4-10, relu": (MLP(512, 4, inputs=784, activation="relu"), torch.randn(256, 784), 10),
        "conv net, width 32, 8x8": (lzr.zoo.convnet(32), torch.randn(256, 1, 8, 8), 10),
    }
    for name, (model, x, outputs) in cases.items():
        plain, found = ratios(model, x, outputs, chosen.rounds, chosen.device)
        columns = "  ".join(f"{case} {ratio:5.2f}" for case, ratio in found.items())
        print(f"{name:24} step {1000 * plain:7.2f} ms   in steps: {columns}", flush=True)


if __name__ == "__main__":
    main()
