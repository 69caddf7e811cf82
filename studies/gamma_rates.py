"""The largest stable learning rate against richness: gamma_0^2 while lazy, gamma_0^(2/D) while rich.

    python studies/gamma_rates.py

Linear networks with D weight layers, n = 64, in muP with the centred output (h - h_0)/gamma_0, trained by full-batch gradient
descent to a target that one direction of the data decides (Atanasov et al. 2024, arXiv:2410.04642, section 3). A learning rate is
stable when the loss never rises above where it began. Expected slopes: 2 +- 0.1 and 2/D +- 0.05.
"""

import math

import torch
from torch import nn

import lazyrich as lzr
from lazyrich.measure import fit_slope
from lazyrich.measure.dial import Centred
from lazyrich.train import Member, train_all

WIDTH, INPUTS, SAMPLES = 64, 16, 32
LAZY = (2.0**-10, 2.0**-9, 2.0**-8)
RICH = (64.0, 128.0, 256.0)
DEPTHS = (2, 3, 4)
GRID = 2.0**0.25


def linear(depth: int):
    def build(width: int) -> nn.Module:
        sizes = [INPUTS, *[width] * (depth - 1), 1]
        return nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in zip(sizes[:-1], sizes[1:], strict=True)))

    return lzr.Family(build, base=WIDTH)


def largest(depth: int, gamma0: float, seed: int, steps: int) -> float:
    """The largest stable learning rate in units of muP."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(SAMPLES, INPUTS, generator=draw, dtype=torch.float64)
    y = x @ torch.nn.functional.normalize(torch.randn(INPUTS, 1, generator=draw, dtype=torch.float64), dim=0)
    plan = lzr.plan(linear(depth), lzr.richness(0.5, gamma0 * math.sqrt(WIDTH)), "sgd")
    law = max(gamma0, 1.0) ** (2 / depth - 2)
    rates = [0.004 * law * GRID**k for k in range(56)]

    def batches(step: int):
        return x, y

    members = []
    for lr in rates:
        model = Centred(plan.build(WIDTH, seed).double())
        members.append(Member(model, plan.optimizer(model.network, lr), batches, seed=seed))
    runs = train_all(members, lambda f, t: (f - t).square().mean() / 2, steps, engine="vmap")
    stable = [not run.diverged and max(run.losses) <= run.losses[0] for run in runs]
    last = stable.index(False) - 1 if False in stable else len(stable)
    if not 0 <= last < len(rates) - 1:
        raise SystemExit(f"the grid of learning rates ends before stability does (depth {depth}, gamma_0 = {gamma0:g})")
    return rates[last] * gamma0**2


def slopes(seeds: int = 3, steps: int = 200):
    """Slopes of log(largest learning rate) against log(gamma_0) by depth, lazy and rich."""
    return {
        depth: tuple(
            fit_slope(gammas, [[largest(depth, g, seed, steps) for g in gammas] for seed in range(seeds)])
            for gammas in (LAZY, RICH)
        )
        for depth in DEPTHS
    }


def main() -> None:
    print("D   lazy            (expected 2)   rich             (expected 2/D)")
    for depth, (lazy, rich) in slopes().items():
        print(f"{depth}   {lazy!s:>14}  (+2.00)        {rich!s:>14}   ({2 / depth:+.2f})")


if __name__ == "__main__":
    main()
