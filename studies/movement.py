"""Exponents of feature and kernel movement along the richness scale, r = 0, 1/4, 1/2.

    python studies/movement.py

Expected (THEORY: even orders in A cancel): features n^(r-1/2), feature and tangent kernels n^(2r-1), Fort distance n^(4r-2).
Two hidden tanh layers, scalar output trained to +-1 on digits, full batch of 16, so that the path is a kernel's own.
"""

import torch

import lazyrich as lzr
from lazyrich.family.zoo import MLP
from lazyrich.measure import fit_slope
from lazyrich.measure.movement import feature_movement, kernel_distance, kernel_movement
from lazyrich.measure.watch import capture, state_of
from lazyrich.tangent import ntk_of
from lazyrich.tangent.features import feature_gram
from lazyrich.train import train

WIDTHS = (64, 128, 256, 512, 1024)
QUANTITIES = ("features", "feature kernel", "tangent kernel", "Fort distance")


def movements(r: float, width: int, seed: int, steps: int = 10, lr: float = 0.05) -> dict[str, float]:
    """Train a centred network and measure what moved in its last hidden layer."""
    family = lzr.Family(lambda n: MLP(n, depth=2, outputs=1, bias=False), base=64)
    plan = lzr.plan(family, lzr.richness(r), "sgd")
    model = plan.build(width, seed).double()
    data = lzr.data.load("digits").subset(16, seed=seed)
    x, y = data.x.double(), (data.y % 2 * 2 - 1).double()
    start = model(x).detach().squeeze(1)
    rates = {name: setting.lr for name, setting in plan.settings(model).items()}

    def look() -> tuple[torch.Tensor, torch.Tensor]:
        _, calls = capture(model, state_of(model), x)
        return torch.tanh(calls["hidden.1"].output), ntk_of(model, x, outputs="trace", rates=rates)

    h0, theta0 = look()
    train(
        model,
        plan.optimizer(model, lr),
        lambda step: (x, y),
        lambda f, t: (f.squeeze(1) - start - t).square().mean() / 2,
        steps,
    )
    h1, theta1 = look()
    k0, k1 = feature_gram(h0, h0), feature_gram(h1, h1)
    values = feature_movement(h0, h1), kernel_movement(k0, k1), kernel_movement(theta0, theta1), kernel_distance(k0, k1)
    return dict(zip(QUANTITIES, values, strict=True))


def slopes(r: float, widths=WIDTHS, seeds: int = 6):
    table = {seed: [movements(r, width, seed) for width in widths] for seed in range(seeds)}
    return {q: fit_slope(widths, [[cell[q] for cell in row] for row in table.values()]) for q in QUANTITIES}


def main() -> None:
    print("r     " + "  ".join(f"{q:>26}" for q in QUANTITIES))
    for r in (0.0, 0.25, 0.5):
        expected = dict(zip(QUANTITIES, (r - 0.5, 2 * r - 1, 2 * r - 1, 4 * r - 2), strict=True))
        found = slopes(r)
        print(f"{r:<5} " + "  ".join(f"{found[q]!s:>14} ({expected[q]:+.1f})      " for q in QUANTITIES), flush=True)


if __name__ == "__main__":
    main()
