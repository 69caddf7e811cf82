"""What a quadratic term adds to a linear one, and how many samples a network needs where its tangent kernel needs many more.

    python studies/joint.py

First the joint model of Nichani, Bai & Lee (2022, arXiv:2206.03688), scaled down: d = 30, n = d^1.5 = 164, m = 1000, gradient
descent at lr 4 for 4000 steps on the mean square, f* = ((b . x)^2 - 1 + b . x)/sqrt(3), x ~ N(0, I), k = d directions left free.
Claimed: test error, averaged over seeds, falls from the linear model over the joint one to the joint one with
lambda (||J_large W||^2 / n + R_1), lambda = 0.1, 1, 10. The rows below that split the regulariser: R_1 on fresh inputs alone
does not keep f_L from memorising the training inputs (its mass off the top directions is small at any other input), J_large
is what does. The constant is direction d + 1 here, so one more free direction helps.

Then the smallest multiple of d^2 samples with which a ReLU network of width 100 gets below a test error of 0.1 on a dense
quadratic plus a cubic of one direction, f* = x.A x/norm + ((b . x)^3 - 3 b . x)/sqrt(6), each of second moment 1, and what the
network's tangent kernel (infinite width, best of several ridges) gets from as many samples, and from as many as fit here.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import lazyrich as lzr
from lazyrich.tangent.joint import JointModel, TangentDirections


@dataclass(frozen=True)
class Recipe:
    """What is trained: the weights of ||J_large W||^2 / n and of R_1, and how many directions stay free beyond d."""

    train: float = 0.0
    fresh: float = 0.0
    linear: bool = False
    more: int = 0


ORDERED = {
    "linear": Recipe(linear=True),
    "joint": Recipe(),
    "joint, lambda = 0.1": Recipe(0.1, 0.1),
    "joint, lambda = 1": Recipe(1.0, 1.0),
    "joint, lambda = 10": Recipe(10.0, 10.0),
}
SPLIT = {
    "R_1 alone, 1": Recipe(fresh=1.0),
    "J_large alone, 1": Recipe(train=1.0),
    "lambda = 10, d + 1 free": Recipe(10.0, 10.0, more=1),
}


def normal(samples: int, inputs: int, seed: int) -> Tensor:
    return torch.randn(samples, inputs, generator=torch.Generator().manual_seed(seed))


def unit(inputs: int, seed: int) -> Tensor:
    direction = normal(inputs, 1, seed)
    return direction / direction.norm()


def errors(recipe: Recipe, seed: int, d: int = 30, n: int = 164, m: int = 1000, lr: float = 4.0, steps: int = 4000):
    """Mean squared errors on training and on 4000 test inputs."""
    x, test, b = normal(n, d, 10 * seed), normal(4000, d, 10 * seed + 1), unit(d, 10 * seed + 2)
    y, truth = (((z @ b).square() - 1 + z @ b) / math.sqrt(3) for z in (x, test))
    model, draw = JointModel(d, m, seed=seed), torch.Generator().manual_seed(10 * seed + 3)
    at, top = model.features(x), TangentDirections(model, x, d + recipe.more)
    f = model.linear if recipe.linear else model
    sgd = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        sgd.zero_grad()
        loss = (f(at) - y).square().mean()
        if recipe.train:
            loss = loss + recipe.train * top.outside_train()
        if recipe.fresh:
            loss = loss + recipe.fresh * top.outside(torch.randn(100, d, generator=draw))
        loss.backward()
        sgd.step()
    with torch.no_grad():
        return float((f(at) - y).square().mean()), float((f(test) - truth).square().mean())


def cubic(x: Tensor) -> Tensor:
    """A dense quadratic (half of the coordinates) plus the third Hermite polynomial of one direction."""
    d = x.shape[1]
    half = d // 2
    dense = x[:, half:].square().sum(1, keepdim=True)
    k = d - half
    t = x @ unit(d, 7).to(x)
    return dense / math.sqrt(k * k + 2 * k) + (t**3 - 3 * t) / math.sqrt(6)


def network_error(d: int, n: int, seed: int = 0, width: int = 100, steps: int = 2000, enough: float = 0.1) -> float:
    """The lowest test error of a ReLU network under full-batch gradient descent with momentum 0.9; stops once it is enough."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(d, width), nn.ReLU(), nn.Linear(width, 1))
    x, test = normal(n, d, 100 + seed), normal(4000, d, 200 + seed)
    y, truth = cubic(x), cubic(test)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    best = math.inf
    for step in range(steps + 1):
        if step % 100 == 0:
            with torch.no_grad():
                best = min(best, float((net(test) - truth).square().mean()))
            if best < enough:
                break
        sgd.zero_grad()
        (net(x) - y).square().mean().backward()
        sgd.step()
    return best


def kernel_error(d: int, n: int, seed: int = 0, ridges=(0.0, 1e-3, 1e-2, 0.1, 1.0)) -> float:
    """The lowest test error of regression with the network's tangent kernel over ridges, in units of its mean diagonal."""
    x, test = (z.double() for z in (normal(n, d, 100 + seed), normal(4000, d, 200 + seed)))
    net = nn.Sequential(nn.Linear(d, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    kernel = lzr.kernel(net, scheme=lzr.ntk())
    gram, cross, y, truth = kernel.ntk(x), kernel.ntk(test, x), cubic(x), cubic(test)
    scale = gram.diagonal().mean()
    found = []
    for ridge in ridges:
        factor = torch.linalg.cholesky(gram + ridge * scale * torch.eye(n, dtype=gram.dtype))
        found.append(float((cross @ torch.cholesky_solve(y, factor) - truth).square().mean()))
    return min(found)


def samples_needed(d: int, seed: int = 0, enough: float = 0.1, most: int = 25) -> int | None:
    """The smallest multiple of d^2 with which the network's test error is below ``enough``."""
    return next((k * d * d for k in range(1, most + 1) if network_error(d, k * d * d, seed, enough=enough) < enough), None)


def main() -> None:
    seeds = range(2)
    print("test mean square (train), one column a seed; d = 30, n = 164, m = 1000")
    for name, recipe in {**ORDERED, **SPLIT}.items():
        begun = time.perf_counter()
        found = [errors(recipe, seed) for seed in seeds]
        cells = "  ".join(f"{test:.3f} ({train:.4f})" for train, test in found)
        mean = sum(test for _, test in found) / len(found)
        print(f"  {name:24} {cells}   mean {mean:.3f}   {time.perf_counter() - begun:.0f} s", flush=True)
    most = 6000
    print(f"samples for a test error below 0.1: network; its tangent kernel's error from as many, and from {most}")
    for d in (10, 20, 30, 40):
        begun = time.perf_counter()
        n = samples_needed(d)
        got = "more than 25 d^2" if n is None else f"{n} = {n // d**2} d^2 = {n / d**3:.2f} d^3"
        kernel = f"{kernel_error(d, n or most):.2f}, {kernel_error(d, most):.2f}"
        print(f"  d = {d}: {got:27} kernel {kernel}   {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
