"""How large the terms of a two-layer network are when rows move by m^{-1/4}: what randomised signs leave.

    python studies/quadratic.py

Rows w_r = m^{-1/4} v where a_r = +1 and 0 where a_r = -1, so that f_Q adds up; inputs on the unit sphere,
sigma(z) = sigmoid(z - 1).
Expected powers of m (Bai & Lee 2019, arXiv:1910.01619): f_L 1/4, f_Q 0, f_L with signs -1/4, remainder with signs -1/2;
claimed within 0.08. Then a low-rank target (sqrt(d) b . x)^2 is learnt by the model with signs, and f_Q alone predicts as well.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.measure.slope import Slope, fit_slope
from lazyrich.tangent.quadratic import QuadNTK

WIDTHS = (256, 1024, 4096, 16384)
EXPECTED = {"linear": 0.25, "quadratic": 0.0, "linear, signs": -0.25, "remainder, signs": -0.5}


def sphere(samples: int, inputs: int, seed: int) -> Tensor:
    x = torch.randn(samples, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def sizes(width: int, seed: int, inputs: int = 10, samples: int = 50, draws: int = 8) -> dict[str, float]:
    """Root mean squares over inputs and draws of the signs."""
    model, x = QuadNTK(inputs, width, seed=seed).double(), sphere(samples, inputs, 1000 + seed)
    direction = 2 * math.sqrt(inputs) * sphere(1, inputs, 2000 + seed)  # long enough for the quartic term to lead the remainder
    weight = width**-0.25 * (model.a[:, None] > 0) * direction
    at = model.features(x)
    signed = [model.signs()[:, None] * weight for _ in range(draws)]
    found = {
        "linear": model.linear(at, weight),
        "quadratic": model.quadratic(at, weight),
        "linear, signs": torch.cat([model.linear(at, w) for w in signed]),
        "remainder, signs": torch.cat([model.remainder(x, w) for w in signed]),
    }
    return {name: float(f.detach().square().mean().sqrt()) for name, f in found.items()}


def slopes(widths=WIDTHS, seeds: int = 8) -> dict[str, tuple[Slope, list[float]]]:
    """Slope against the width, and the geometric means over seeds, of every term."""
    rows = [[sizes(width, seed) for width in widths] for seed in range(seeds)]
    table = {name: torch.tensor([[cell[name] for cell in row] for row in rows], dtype=torch.float64) for name in EXPECTED}
    return {name: (fit_slope(widths, values.tolist()), values.log().mean(0).exp().tolist()) for name, values in table.items()}


def learnt(width: int = 1024, inputs: int = 10, samples: int = 400, steps: int = 600, lr: float = 1.0, penalty: float = 1e-9):
    """Relative errors on train and test inputs, of f_Q and of the network with signs, after training with signs."""
    x, direction = sphere(samples + 1000, inputs, 0), sphere(1, inputs, 1)
    y = inputs * (x @ direction.T).square() - 1
    model = QuadNTK(inputs, width, "relu_squared").double()
    sgd = torch.optim.SGD(model.parameters(), lr=lr * math.sqrt(width))
    for _ in range(steps):
        sgd.zero_grad()
        loss = (model(x[:samples]) - y[:samples]).square().mean() / 2 + penalty * model.penalty()
        loss.backward()
        sgd.step()
    error = {}
    with torch.no_grad():
        for name, f in (("f_Q", model.eval()(x)), ("network with signs", model.train()(x))):
            wrong = (f - y).square().flatten() / y.var()
            error[name] = (float(wrong[:samples].mean()), float(wrong[samples:].mean()))
    return error


def main() -> None:
    print("m = " + ", ".join(map(str, WIDTHS)))
    for name, (slope, values) in slopes().items():
        print(f"  {name:17} slope {slope} (expected {EXPECTED[name]:+.2f})   " + "  ".join(f"{v:.3e}" for v in values))
    print("relative squared error on (sqrt(d) b . x)^2 - 1 after training with signs, d = 10, n = 400, m = 1024")
    for name, (train, test) in learnt().items():
        print(f"  {name:18} train {train:.3f}   test {test:.3f}")


if __name__ == "__main__":
    main()
