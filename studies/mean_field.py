"""Isotropic Gaussians (Mei, Montanari & Nguyen 2018): one-pass SGD of 800 particles against the flow of radii.

python studies/mean_field.py
"""

from __future__ import annotations

import torch

from lazyrich.rich import IsotropicGaussians, mean_field

TIMES = [0.0, 1.0, 3.0, 5.0, 10.0, 20.0]


def main():
    problem = IsotropicGaussians(dimension=40, delta=0.8)
    watch = problem.draw(torch.Generator().manual_seed(99), 20_000)
    flow = problem.closure().follow(problem.start(4000, 1).norm(dim=1, keepdim=True), TIMES)
    print("time      ", "  ".join(f"{t:5.0f}" for t in TIMES))
    show("flow", flow.risk, flow.coordinates.mean((1, 2)))
    for eps in (5e-5, 2e-4, 1e-3):
        found = mean_field(problem.neuron, problem.start(800, 0), problem.draw, TIMES[-1], eps=eps, watch=watch, looks=20)
        at = [int(t) for t in TIMES]
        show(f"eps {eps:g}", found.risk[at], found.particles[at].norm(dim=2).mean(1))


def show(name, risks, radii):
    for what, values in (("risk", risks), ("mean radius", radii)):
        print(f"{name} {what}: ", "  ".join(f"{float(v):.3f}" for v in values))


if __name__ == "__main__":
    main()
