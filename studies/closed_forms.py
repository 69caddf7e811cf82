"""Every closed form of a dual activation, and two integrated ones, against an integration in the plane.

    python studies/closed_forms.py

E[phi(u) phi(v)] and E[phi'(u) phi'(v)] at variances from 1e-12 to 4, equal and different, and correlations from -1 to 1. Smooth
functions by trapezia in rotated coordinates, which converge geometrically; those with a kink at zero by Gauss-Legendre rules in
the sectors between the rays on which u or v is zero. Expected: at most 1e-8, relative to the larger of one and the value; and
relative to sqrt(E phi(u)^2 E phi(v)^2) also where both variances are tiny.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lazyrich.gaussian import dual

DOUBLE = torch.float64
TINY = (1e-12, 1e-6)
VARIANCES = [(q, q) for q in (*TINY, 0.3, 1.0, 4.0)] + [(1e-12, 1e-6), (1e-12, 1.0), (0.3, 2.0), (4.0, 0.7)]
CORRELATIONS = (-1.0, -1 + 1e-9, -0.6, 0.0, 0.5, 0.97, 1 - 1e-6, 1.0)


@dataclass(frozen=True)
class Case:
    """A name that ``dual`` knows, its parameters and the function itself; ``kinked`` at zero, or even ``jumping``."""

    name: str
    function: Callable[[Tensor], Tensor]
    parameters: dict[str, Any] = field(default_factory=dict)
    kinked: bool = False
    jumping: bool = False

    def __str__(self) -> str:
        return self.name + "".join(f" {key}={value}" for key, value in self.parameters.items())


CASES = [
    Case("identity", lambda x: x),
    Case("relu", torch.relu, kinked=True),
    Case("leaky_relu", lambda x: F.leaky_relu(x, 0.1), {"negative_slope": 0.1}, kinked=True),
    Case("abs", torch.abs, kinked=True),
    Case("rectifier", lambda x: 1.3 * x.clamp(min=0) - 0.4 * x.clamp(max=0), {"a": -0.4, "b": 1.3}, kinked=True),
    Case("erf", torch.erf),
    Case("erf", lambda x: 0.7 * torch.erf(1.3 * x) + 0.2, {"a": 0.7, "b": 1.3, "shift": 0.2}),
    Case("gelu", F.gelu),
    Case("gelu", lambda x: F.gelu(x, approximate="tanh"), {"approximate": "tanh"}),
    Case("sin", torch.sin),
    Case("sin", lambda x: 1.2 * torch.sin(0.7 * x + 0.4), {"a": 1.2, "b": 0.7, "phase": 0.4}),
    Case("cos", torch.cos),
    Case("exp", torch.exp),
    Case("gaussian", lambda x: torch.exp(-x * x)),
    Case("rbf", lambda x: math.sqrt(2) * torch.sin(math.sqrt(2) * x + math.pi / 4)),
    Case("sign", torch.sign, jumping=True),
    Case("heaviside", lambda x: (x > 0).to(x), jumping=True),
    Case("monomial", lambda x: x**3, {"degree": 3}),
    Case("monomial", lambda x: x**4, {"degree": 4}),
    Case("polynomial", lambda x: 0.3 - x + 0.5 * x**2 + 0.2 * x**3, {"coefficients": [0.3, -1.0, 0.5, 0.2]}),
    Case("hermite", lambda x: (x**4 - 6 * x**2 + 3) / math.sqrt(24), {"degree": 4}),
    Case("rectified_power", lambda x: x.clamp(min=0) ** 2, {"degree": 2}, kinked=True),
    Case("rectified_power", lambda x: x.clamp(min=0) ** 3, {"degree": 3}, kinked=True),
    Case("tanh", torch.tanh),
]


def derivative(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """f', by autograd."""

    def slope(x: Tensor) -> Tensor:
        at = x.detach().clone().requires_grad_()
        return torch.autograd.grad(f(at).sum(), at)[0]

    return slope


def by_trapezia(f: Callable[[Tensor], Tensor], q1: float, q2: float, rho: float) -> float:
    """E[f(u) f(v)] with u, v = x cos a +- y sin a, 2a the angle between them."""
    z = torch.arange(-10, 10.01, 1 / 12, dtype=DOUBLE)
    w = torch.exp(-z * z / 2) / (12 * math.sqrt(2 * math.pi))
    half = math.acos(rho) / 2
    x, y = z[:, None] * math.cos(half), z[None] * math.sin(half)
    return float(w @ (f(math.sqrt(q1) * (x + y)) * f(math.sqrt(q2) * (x - y))) @ w)


def by_sectors(f: Callable[[Tensor], Tensor], q1: float, q2: float, rho: float) -> float:
    """E[f(u) f(v)] with u, v = r cos t, r cos(t - angle), sector by sector."""
    angle = math.acos(rho)
    r, wr = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(80))
    r, wr = 6 * (r + 1), 6 * wr
    x, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(40))
    edges = [math.pi / 2, math.pi / 2 + angle, 1.5 * math.pi, 1.5 * math.pi + angle, 2.5 * math.pi]
    total = 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        t, wt = (low + high) / 2 + (high - low) / 2 * x, (high - low) / 2 * w
        u, v = math.sqrt(q1) * r[:, None] * torch.cos(t), math.sqrt(q2) * r[:, None] * torch.cos(t - angle)
        total += float((wr * r * torch.exp(-r * r / 2)) @ (f(u) * f(v)) @ wt) / (2 * math.pi)
    return total


def errors(case: Case) -> dict[str, float]:
    """Largest errors of the kernel and the slope over all points, and those relative to the size where variances are tiny."""
    referee = by_sectors if case.kinked or case.jumping else by_trapezia
    functions = {"kernel": case.function} if case.jumping else {"kernel": case.function, "slope": derivative(case.function)}
    d, worst = dual(case.name, **case.parameters), dict.fromkeys(("kernel", "slope", "tiny kernel", "tiny slope"), math.nan)
    for q1, q2 in VARIANCES:
        for rho in CORRELATIONS:
            c = (torch.tensor(v, dtype=DOUBLE) for v in (rho * math.sqrt(q1 * q2), q1, q2))
            for (what, f), found in zip(functions.items(), d.both(*c), strict=False):
                exact = referee(f, q1, q2, rho)
                off = abs(float(found) - exact)
                worst[what] = np.fmax(worst[what], off / max(1.0, abs(exact)))
                if max(q1, q2) in TINY:
                    size = math.sqrt(referee(f, q1, q1, 1.0) * referee(f, q2, q2, 1.0))
                    worst[f"tiny {what}"] = np.fmax(worst[f"tiny {what}"], off / size)
    return worst


def main() -> None:
    print(f"{'activation':48}{'kernel':>10}{'slope':>10}{'tiny: kernel':>14}{'slope':>10}")
    for case in CASES:
        found = errors(case)
        print(f"{case!s:48}{found['kernel']:10.1e}{found['slope']:10.1e}"
              f"{found['tiny kernel']:14.1e}{found['tiny slope']:10.1e}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
