"""How close a wide two-layer network stays to a linear model of (x, ||x||) while training begins.

    python studies/early.py

x ~ N(0, I). First the tangent kernel (infinite width) against the early-time model's, d ||Theta - Theta_lin||_2 / n with
n = d^1.5 samples, for erf and ReLU and each choice of trained layers: claimed to fall at least as d^-0.4. With n = 4 d it does
not vanish. Then training: n = d^1.5, m = 2 d^1.5, gradient descent at lr 1 on 1/(2n) sum for d log(d)/4 steps, mean square
gap of network and model on fresh inputs: claimed to fall at least as d^-0.3 and to be below 0.01 from d = 50 on, while the
loss at least halves.
Theory: Hu, Xiao, Adlam & Pennington 2020 (arXiv:2006.14599), d^-Omega(alpha) for n, m >= d^{1 + alpha}.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.gaussian import dual
from lazyrich.measure.slope import fit_slope
from lazyrich.tangent.early import EarlyNetwork, Layers, early_model
from lazyrich.train.loss import half_mse

KERNEL_INPUTS = (25, 50, 100, 200)
TRAINED_INPUTS = (25, 50, 100)
LAYERS: tuple[Layers, ...] = ("first", "second", "both")


def normal(samples: int, inputs: int, seed: int) -> Tensor:
    return torch.randn(samples, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tangent_kernel(x: Tensor, activation: str, layers: Layers) -> Tensor:
    """Of the network at infinite width, from the activation's dual."""
    c = x @ x.T / x.shape[1]
    q = c.diagonal()
    second, slope = dual(activation).both(c, q[:, None], q[None, :])
    return {"first": c * slope, "second": second, "both": c * slope + second}[layers]


def kernel_gap(activation: str, layers: Layers, d: int, n: int | None = None, seed: int = 0) -> float:
    """The spectral gap d ||Theta - Theta_lin||_2 / n."""
    x = normal(n or round(d**1.5), d, seed)
    gap = tangent_kernel(x, activation, layers) - early_model(x, activation, layers).kernel(x)
    return float(torch.linalg.eigvalsh(gap).abs().max()) * d / len(x)


def kernel_gaps(activation: str, layers: Layers, inputs=KERNEL_INPUTS) -> tuple[float, list[float]]:
    gaps = [kernel_gap(activation, layers, d) for d in inputs]
    return fit_slope(inputs, [gaps]).value, gaps


@dataclass(frozen=True)
class Gap:
    """After training: mean square gaps of network and model, and which share of its loss the network had left."""

    train: float
    test: float
    left: float


def target(x: Tensor) -> Tensor:
    """A linear function with a nonlinear one of another direction, second moment 1."""
    d = x.shape[1]
    b = normal(d, 2, 17)
    one, other = (x @ (b / b.norm(dim=0))).T
    return 0.9 * one + math.sqrt(0.19) * torch.sign(other)


def trained(activation: str, d: int, layers: Layers = "both", seed: int = 0, lr: float = 1.0) -> Gap:
    """The network beside its model, after the same steps."""
    n, steps = round(d**1.5), round(d * math.log(d) / 4 / lr)
    x, test = normal(n, d, 3 * seed), normal(2000, d, 3 * seed + 1)
    y = target(x)
    net = EarlyNetwork(d, 2 * n, activation, layers, seed=3 * seed + 2).double()
    line = early_model(x, activation, layers).train(x, y, lr)
    sgd = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=lr)
    for _ in range(steps):
        sgd.zero_grad()
        half_mse(net(x), y).backward()
        sgd.step()
    with torch.no_grad():
        gaps = [float((net(z) - line.predict(z, steps)).square().mean()) for z in (x, test)]
        return Gap(gaps[0], gaps[1], float(half_mse(net(x), y) / (y.square().mean() / 2)))


def gap_slope(activation: str) -> tuple[float, dict[int, Gap]]:
    """Power of d of the test gap, and the gaps by d."""
    gaps = {d: trained(activation, d) for d in TRAINED_INPUTS}
    return fit_slope(list(gaps), [[gap.test for gap in gaps.values()]]).value, gaps


def main() -> None:
    print("d ||Theta - Theta_lin|| / n, n = d^1.5, d = " + ", ".join(map(str, KERNEL_INPUTS)))
    for activation in ("erf", "relu"):
        for layers in LAYERS:
            slope, gaps = kernel_gaps(activation, layers)
            print(f"  {activation:5} {layers:7} " + "  ".join(f"{g:.3f}" for g in gaps) + f"   slope {slope:+.2f}", flush=True)
    few = [kernel_gap("erf", "both", d, n=4 * d) for d in KERNEL_INPUTS]
    print("  erf   both, n = 4 d: " + "  ".join(f"{g:.3f}" for g in few))
    print("after d log(d)/4 steps at lr 1, both layers")
    for activation in ("erf", "relu"):
        begun = time.perf_counter()
        slope, gaps = gap_slope(activation)
        for d, gap in gaps.items():
            print(f"  {activation:5} d = {d:3}: gap train {gap.train:.5f}  test {gap.test:.5f}   loss left {gap.left:.2f}")
        print(f"  {activation:5} slope {slope:+.2f}   {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
