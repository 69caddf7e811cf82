"""Closed forms of dual activations, one function an activation.

Sources: error function (Williams 1997), exact GELU (Tsuchida et al. 2021), powers of rectifiers (Cho & Saul 2009), sines and
exponentials by the Gaussian characteristic function, polynomials by Hermite expansion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lazyrich.gaussian.dual import Closed


def erf(a: float = 1.0, b: float = 1.0, shift: float = 0.0) -> Closed:
    """For a erf(b x) + shift: (2 a^2/pi) asin(2 b^2 c / sqrt((1 + 2 b^2 q1)(1 + 2 b^2 q2))) + shift^2."""
    b2 = b * b

    def kernel(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        # asin(x) = atan2(x, sqrt(1 - x^2)) keeps its digits near 1
        p = (1 + 2 * b2 * q1) * (1 + 2 * b2 * q2)
        x = 2 * b2 * c
        return a * a * 2 / math.pi * torch.atan2(x, (p - x * x).sqrt()) + shift**2

    def slope(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        p = (1 + 2 * b2 * q1) * (1 + 2 * b2 * q2)
        return a * a * b2 * 4 / math.pi / (p - 4 * b2 * b2 * c * c).sqrt()

    return Closed("erf", kernel, slope, lambda q: torch.full_like(q, shift))


def gelu() -> Closed:
    """The exact GELU, x Phi(x)."""

    def parts(c: Tensor, q1: Tensor, q2: Tensor) -> tuple[Tensor, ...]:
        p = (1 + q1) * (1 + q2)
        d2 = 1 + q1 + q2 + (q1 * q2 - c * c)  # P - c^2 without cancellation
        return p, d2, d2.sqrt()

    def kernel(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        p, d2, d = parts(c, q1, q2)
        return c / 4 + ((c * c + q1 * q2 * d2) / (p * d) + c * torch.atan2(c, d)) / (2 * math.pi)

    def slope(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        p, d2, d = parts(c, q1, q2)
        tail = c / (2 * math.pi * d) * (1 / d2 + (1 - q1 * q2) / p + 1)
        return 0.25 + torch.atan2(c, d) / (2 * math.pi) + tail

    return Closed("gelu", kernel, slope, lambda q: q / (2 * math.pi * (1 + q)).sqrt())


def sine(a: float = 1.0, b: float = 1.0, phase: float = 0.0, name: str = "sin") -> Closed:
    """For a sin(b x + p): (a^2/2) e^(-b^2 S/2) (e^(b^2 c) - cos(2p) e^(-b^2 c)), S = q1 + q2."""
    b2, mix = b * b, math.cos(2 * phase)

    def kernel(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        s = (q1 + q2) / 2
        return a * a / 2 * (torch.exp(-b2 * (s - c)) - mix * torch.exp(-b2 * (s + c)))

    def slope(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        s = (q1 + q2) / 2
        return a * a * b2 / 2 * (torch.exp(-b2 * (s - c)) + mix * torch.exp(-b2 * (s + c)))

    return Closed(name, kernel, slope, lambda q: a * math.sin(phase) * torch.exp(-b2 * q / 2))


def exponential(a: float = 1.0, b: float = 1.0) -> Closed:
    """For a exp(b x): a^2 exp(b^2 ((q1 + q2)/2 + c))."""

    def kernel(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        return a * a * torch.exp(b * b * ((q1 + q2) / 2 + c))

    return Closed("exp", kernel, lambda c, q1, q2: b * b * kernel(c, q1, q2), lambda q: a * torch.exp(b * b * q / 2))


def bell(b: float = -1.0) -> Closed:
    """For exp(b x^2), b <= 0: D^(-1/2) with D = (1 - 2b q1)(1 - 2b q2) - 4 b^2 c^2."""
    if b > 0:
        raise ValueError(f"got b = {b}, expected b <= 0: exp(b x^2) has no finite kernel otherwise")

    def det(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        return (1 - 2 * b * q1) * (1 - 2 * b * q2) - 4 * b * b * c * c

    return Closed(
        "gaussian",
        lambda c, q1, q2: det(c, q1, q2) ** -0.5,
        lambda c, q1, q2: 4 * b * b * c * det(c, q1, q2) ** -1.5,
        lambda q: (1 - 2 * b * q) ** -0.5,
    )


def rbf(gamma: float = 1.0) -> Closed:
    """For sqrt(2) sin(sqrt(2 gamma) x + pi/4): the kernel exp(-gamma |u - v|^2 averaged), e^(-gamma (q1 + q2 - 2c))."""
    return sine(math.sqrt(2), math.sqrt(2 * gamma), math.pi / 4, name="rbf")


def sign() -> Closed:
    """Sign: (2/pi) asin(c/s); its slope is (2/pi) / sqrt(s^2 - c^2), infinite on the diagonal."""

    def kernel(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        s = (q1 * q2).sqrt()
        return 2 / math.pi * torch.atan2(c, ((s - c) * (s + c)).clamp(min=0).sqrt())

    def slope(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        s = (q1 * q2).sqrt()
        return 2 / math.pi / ((s - c) * (s + c)).clamp(min=0).sqrt()

    return Closed("sign", kernel, slope, torch.zeros_like, 0.0)


def step() -> Closed:
    """The step function, (1 + sign)/2."""
    whole = sign()
    return Closed(
        "heaviside",
        lambda c, q1, q2: 0.25 + whole.kernel(c, q1, q2) / 4,
        lambda c, q1, q2: whole.slope(c, q1, q2) / 4,
        lambda q: torch.full_like(q, 0.5),
        0.0,
    )


def polynomial(coefficients: Sequence[float], name: str = "polynomial") -> Closed:
    """Sum_p t_p x^p: sum over p, r of t_p t_r E[u^p v^r], the moments by their recursion."""
    t = [float(v) for v in coefficients]
    d = [p * v for p, v in enumerate(t)][1:] or [0.0]
    return Closed(
        name,
        lambda c, q1, q2: _moment_sum(t, c, q1, q2),
        lambda c, q1, q2: _moment_sum(d, c, q1, q2),
        lambda q: _projected(t, 0, q),
    )


def _moment_sum(t: Sequence[float], c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    """E[P(u) P(v)] = sum_k k! c^k h_k(q1) h_k(q2), h_k(q) = sum_m t_(k+2m) C(k+2m, k) (2m-1)!! q^m."""
    total = torch.zeros_like(c * q1 * q2)
    for k in range(len(t)):
        total = total + math.factorial(k) * c**k * _projected(t, k, q1) * _projected(t, k, q2)
    return total


def _projected(t: Sequence[float], k: int, q: Tensor) -> Tensor:
    total = torch.zeros_like(q)
    for m in range((len(t) - 1 - k) // 2 + 1):
        odd = math.prod(range(1, 2 * m, 2))
        total = total + t[k + 2 * m] * math.comb(k + 2 * m, k) * odd * q**m
    return total


def monomial(degree: int = 2) -> Closed:
    """X^p."""
    made = polynomial([0.0] * degree + [1.0], name="monomial")
    return Closed("monomial", made.of_kernel, made.of_slope, made.of_mean, float(degree))


def hermite(degree: int = 2) -> Closed:
    """He_p(x) / sqrt(p!), the normalised Hermite polynomial of probability."""
    coefficients = np.polynomial.hermite_e.herme2poly([0.0] * degree + [1.0]) / math.sqrt(math.factorial(degree))
    return polynomial(list(coefficients), name="hermite")


def rectified_power(degree: int = 2) -> Closed:
    """For relu(x)^p: s^p J_p(theta) / (2 pi), J_0 = pi - theta, ... (Cho & Saul 2009); the slope is p^2 K_(p-1)."""
    if degree not in (0, 1, 2, 3):
        raise ValueError(f"got degree = {degree}, expected 0, 1, 2 or 3")

    def angular(p: int, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        s = (q1 * q2).sqrt()
        root = ((s - c) * (s + c)).clamp(min=torch.finfo(c.dtype).tiny).sqrt()
        rest = math.pi - torch.atan2(root, c)
        if p == 0:
            return rest / (2 * math.pi)
        if p == 1:
            return (root + rest * c) / (2 * math.pi)
        if p == 2:
            return (3 * root * c + rest * (s * s + 2 * c * c)) / (2 * math.pi)
        return (root * (4 * s * s + 11 * c * c) + rest * c * (9 * s * s + 6 * c * c)) / (2 * math.pi)

    half_moment = {0: 0.5, 1: 1 / math.sqrt(2 * math.pi), 2: 0.5, 3: 2 / math.sqrt(2 * math.pi)}[degree]

    def slope(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        if degree == 0:
            return step().slope(c, q1, q2)
        return degree**2 * angular(degree - 1, c, q1, q2)

    def mean(q: Tensor) -> Tensor:
        return half_moment * q ** (degree / 2)

    return Closed("rectified_power", lambda c, q1, q2: angular(degree, c, q1, q2), slope, mean, float(degree))
