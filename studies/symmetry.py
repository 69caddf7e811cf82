"""The abc symmetry at finite width: the trained function is the same in every gauge, in float64.

    python studies/symmetry.py

(a, b, c) -> (a + t, b - t, c - 2t) layer by layer under SGD, (a + t, b - t, c - t, d + t) with a scaled epsilon under Adam
(Yang & Hu 2021, arXiv:2011.14522, Eq. (5); Yang & Littwin 2023, arXiv:2308.01814). A network of width 48, 8 steps.
"""

import torch

import lazyrich as lzr

WIDTH, STEPS, EPS = 48, 8, 1e-4
THETAS = (0.5, -0.3, (0.5, 0.0, 0.0), (0.0, -0.4, 0.0), (0.0, 0.0, 0.7), (-0.5, 0.25, 1.0))
SCHEMES = (lzr.mup(), lzr.ntk(), lzr.richness(0.25), lzr.standard(max_stable=True), lzr.mean_field())


def outputs(rows, adam: bool, lr: float) -> torch.Tensor:
    """Outputs after every step of a tanh network with explicit multipliers, straight from the exponents (no plan)."""
    draw = torch.Generator().manual_seed(0)
    sizes = ((WIDTH, 5), (WIDTH, WIDTH), (3, WIDTH))
    x, y = (torch.randn(16, k, generator=draw, dtype=torch.float64) for k in (5, 3))
    weights = [
        (torch.randn(s, generator=draw, dtype=torch.float64) * WIDTH**-row.b).requires_grad_()
        for s, row in zip(sizes, rows, strict=True)
    ]
    groups = [
        {"params": [w], "lr": lr * WIDTH**-row.c, **({"eps": EPS * WIDTH**-row.d} if adam else {})}
        for w, row in zip(weights, rows, strict=True)
    ]
    optimizer = torch.optim.Adam(groups) if adam else torch.optim.SGD(groups)
    found = []
    for _ in range(STEPS):
        h = x
        for i, (w, row) in enumerate(zip(weights, rows, strict=True)):
            h = (torch.tanh(h) if i else h) @ (WIDTH**-row.a * w).T
        found.append(h.detach())
        optimizer.zero_grad()
        (h - y).square().mean().backward()
        optimizer.step()
    return torch.stack(found)


def largest_difference(scheme: lzr.Scheme, adam: bool) -> float:
    """Largest relative difference between the scheme and its shifts."""
    lr = 0.02 if adam else 0.3
    plain = outputs(scheme.layers(adam), adam, lr)
    shifted = (outputs(scheme.shift(theta).layers(adam), adam, lr) for theta in THETAS)
    return max(float((plain - other).norm() / plain.norm()) for other in shifted)


def main() -> None:
    for scheme in SCHEMES:
        print(f"{scheme.name:24} sgd {largest_difference(scheme, False):.1e}   adam {largest_difference(scheme, True):.1e}")


if __name__ == "__main__":
    main()
