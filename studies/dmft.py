"""The rich limit against networks of growing width, its lazy end, and what it costs.

python studies/dmft.py
"""

from __future__ import annotations

import resource
import time

import torch

from lazyrich.measure.slope import fit_slope
from lazyrich.rich import Network, solve

INPUTS, SAMPLES, STEPS, GAMMA, RATE = 5, 3, 20, 1.5, 0.6


def data(samples=SAMPLES):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, INPUTS, dtype=torch.float64, generator=generator)
    return x, torch.randn(samples, 1, dtype=torch.float64, generator=generator).sign()


def finite(width, seed, phi, x, y, lr):
    """Two hidden layers in muP by autograd: outputs at every step, and at the end Phi^1, Phi^2 and G^2."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (width, INPUTS), (width, width), (1, width)
    tensors = [torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes]
    outputs = []
    for step in range(STEPS + 1):
        h1 = x @ tensors[0].T / INPUTS**0.5
        h2 = phi(h1) @ tensors[1].T / width**0.5
        f = phi(h2) @ tensors[2].T / (GAMMA * width)
        outputs.append(f.detach())
        loss = (f - y).square().mean() / 2
        if step == STEPS:
            (back,) = torch.autograd.grad(f.sum(), h2)
            break
        gradients = torch.autograd.grad(loss, tensors)
        with torch.no_grad():
            for p, g in zip(tensors, gradients, strict=True):
                p -= lr * GAMMA**2 * width * g
    g = GAMMA * width * back
    return torch.stack(outputs), *((a @ a.T / width).detach() for a in (phi(h1), phi(h2), g))


def off(a, b):
    return float((a - b).norm() / b.norm())


def against_width(name, phi, lr):
    x, y = data()
    start = time.perf_counter()
    limit = solve(Network.uniform(INPUTS, 2, activation=name, gamma0=GAMMA), x, y, STEPS, lr=lr)
    spent = time.perf_counter() - start
    theory = (limit.outputs, limit.features(1), limit.features(2), limit.gradients(2))
    moved = ", ".join(f"{100 * limit.movement(i):.0f} %" for i in (1, 2))
    print(
        f"\n{name}, lr {lr}: {spent:.1f} s for {limit.samples} samples in {len(limit.tracks)} replicates; Phi moves by {moved}"
    )
    print(f"largest standard error of an output {float(limit.outputs_error.max()):.4f}")
    widths, single = (64, 256, 1024, 2000), []
    for width in widths:
        runs = [finite(width, seed, phi, x, y, lr) for seed in range(4)]
        mean = [torch.stack([run[i] for run in runs]).mean(0) for i in range(4)]
        single.append(sum(off(run[0], theory[0]) for run in runs) / len(runs))
        parts = ", ".join(
            f"{what} {100 * off(a, b):.1f} %" for what, a, b in zip(("f", "Phi1", "Phi2", "G2"), theory, mean, strict=True)
        )
        print(f"  width {width:5d}: mean of 4 networks off by {parts}; single networks' f by {100 * single[-1]:.1f} %")
    wrong = solve(Network.uniform(INPUTS, 2, activation=name, gamma0=GAMMA), x, y, STEPS, lr=lr, responses=False)
    gaps = [100 * off(a, b) for a, b in zip((wrong.outputs, wrong.features(1), wrong.features(2)), mean, strict=False)]
    print("  without responses: f {:.1f} %, Phi1 {:.1f} %, Phi2 {:.1f} %".format(*gaps))
    slope = fit_slope(widths, [single])
    print(f"  power of the width, single networks: {slope}")


def one_hidden_linear(widths=(64, 256, 1024, 4096, 16384), seeds=12, lr=0.3):
    """Single networks approach the exact limit as width^(-1/2)."""
    x, y = data()
    exact = solve(Network.uniform(INPUTS, 1, activation="linear", gamma0=GAMMA), x, y, STEPS, lr=lr, samples=400).outputs
    errors = []
    for seed in range(seeds):
        generator, row = torch.Generator().manual_seed(seed), []
        for width in widths:
            inner = torch.randn(width, INPUTS, dtype=torch.float64, generator=generator)
            outer, f = torch.randn(width, dtype=torch.float64, generator=generator), []
            for _ in range(STEPS + 1):
                f.append(x @ inner.T @ outer / (GAMMA * width * INPUTS**0.5))
                pull = lr * GAMMA * (y[:, 0] - f[-1]) @ x / (SAMPLES * INPUTS**0.5)
                inner, outer = inner + torch.outer(outer, pull), outer + inner @ pull
            row.append(off(torch.stack(f), exact[:, :, 0]))
        errors.append(row)
    print(f"\none hidden linear layer: power of the width {fit_slope(widths, errors)}")


def lazy_end():
    x, y = data()
    limit = solve(Network.uniform(INPUTS, 2, gamma0=0.05), x, y, STEPS, lr=RATE)
    f, kernel = [torch.zeros_like(y)], limit.tangent(0)
    for _ in range(STEPS):
        f.append(f[-1] - RATE / SAMPLES * kernel @ (f[-1] - y))
    gap = off(limit.outputs, torch.stack(f))
    print(f"\ngamma0 = 0.05: outputs off from gradient descent with the tangent kernel by {100 * gap:.1f} %")


def costs():
    print("\ncost")
    for name, depth, samples, steps, neurons, lr in (
        ("tanh", 2, 3, 20, 4000, RATE),
        ("tanh", 2, 10, 40, 2000, RATE),
        ("linear", 2, 20, 500, 800, 0.1),
    ):
        x, y = data(samples)
        start = time.perf_counter()
        limit = solve(Network.uniform(INPUTS, depth, activation=name, gamma0=GAMMA), x, y, steps, lr=lr, samples=neurons)
        known = limit.tracks[0].features[1][-1].shape[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"  {name}, {depth} hidden, P = {samples}, T = {steps}, S = {neurons}: {time.perf_counter() - start:.1f} s; "
            f"{known} functions a layer of {samples * (steps + 1)} rows; peak of the process so far {peak:.2f} GB"
        )


if __name__ == "__main__":
    against_width("tanh", torch.tanh, RATE)
    against_width("relu", torch.relu, RATE)
    against_width("linear", lambda h: h, 0.2)
    one_hidden_linear()
    lazy_end()
    costs()
