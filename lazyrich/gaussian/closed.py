"""Closed forms of dual activations, one function an activation.

Sources: error function (Williams 1997), exact GELU (Tsuchida, Pearce, van der Heide, Roosta & Gallagher 2021), powers of
rectifiers (Cho & Saul 2009), sines and exponentials by the Gaussian characteristic function, polynomials by Hermite expansion.
S = q1 + q2 and s = sqrt(q1 q2) throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.polynomial import Polynomial
from torch import Tensor

from lazyrich.gaussian.dual import Closed, correlation


def erf(a: float = 1.0, b: float = 1.0, shift: float = 0.0) -> Closed:
    """The error function, scaled and shifted.

    For a erf(b x) + shift: (2 a^2/pi) asin(2 b^2 c / sqrt((1 + 2 b^2 q1)(1 + 2 b^2 q2))) + shift^2.

    Example:
        >>> one = torch.tensor(1.0)
        >>> round(float(erf().kernel(one, one, one)), 6)
        0.464559
    """
    b2 = b * b

    def rest(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        # (1 + 2 b^2 q1)(1 + 2 b^2 q2) - (2 b^2 c)^2 without cancellation of large variances
        return (1 + 2 * b2 * (q1 + q2) + 4 * b2 * b2 * (q1 * q2 - c * c)).sqrt()

    def kernel(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        # asin(x) = atan2(x, sqrt(1 - x^2)) keeps its digits near 1
        return a * a * 2 / math.pi * torch.atan2(2 * b2 * c, rest(c, q1, q2)) + shift**2

    def slope(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        return a * a * b2 * 4 / math.pi / rest(c, q1, q2)

    return Closed("erf", kernel, slope, lambda q: torch.full_like(q, shift))


def gelu() -> Closed:
    """The exact GELU, x Phi(x): c/4 + [(c^2 + s^2 D^2)/(P D) + c atan2(c, D)] / (2 pi), P = (1+q1)(1+q2), D^2 = P - c^2.

    Example:
        >>> one = torch.tensor(1.0)
        >>> round(float(gelu().kernel(one, one, one)), 6)
        0.425221
    """

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
    """For a sin(b x + p): a^2 e^(-b^2 S/2) (sinh(b^2 c) + sin(p)^2 e^(-b^2 c)), S = q1 + q2.

    Example:
        >>> one = torch.tensor(1.0)
        >>> round(float(sine().kernel(one, one, one)), 6)  # e^-1 sinh 1
        0.432332
    """
    b2 = b * b

    def parts(c: Tensor, q1: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
        """e^(-b^2 S/2) times sinh(b^2 c), which keeps its digits near 0 and does not overflow, and times e^(-b^2 c)."""
        s = (q1 + q2) / 2
        above = -torch.exp(-b2 * (s - c)) * torch.expm1(-2 * b2 * c.clamp(min=0))
        below = torch.exp(-b2 * (s + c))
        return torch.where(c >= 0, above, below * torch.expm1(2 * b2 * c.clamp(max=0))) / 2, below

    def kernel(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        odd, rest = parts(c, q1, q2)
        return a * a * (odd + math.sin(phase) ** 2 * rest)

    def slope(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        odd, rest = parts(c, q1, q2)
        return a * a * b2 * (odd + math.cos(phase) ** 2 * rest)

    return Closed(name, kernel, slope, lambda q: a * math.sin(phase) * torch.exp(-b2 * q / 2))


def exponential(a: float = 1.0, b: float = 1.0) -> Closed:
    """For a exp(b x): a^2 exp(b^2 (S/2 + c)).

    Example:
        >>> one = torch.tensor(1.0)
        >>> round(float(exponential().kernel(one, one, one)), 4)  # e^2
        7.3891
    """

    def kernel(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        return a * a * torch.exp(b * b * ((q1 + q2) / 2 + c))

    return Closed("exp", kernel, lambda c, q1, q2: b * b * kernel(c, q1, q2), lambda q: a * torch.exp(b * b * q / 2))


def bell(b: float = -1.0) -> Closed:
    """For exp(b x^2), b <= 0: D^(-1/2) with D = (1 - 2b q1)(1 - 2b q2) - 4 b^2 c^2.

    Example:
        >>> one = torch.tensor(1.0)
        >>> round(float(bell().kernel(one, one, one)), 6)  # 5^-1/2
        0.447214
    """
    if b > 0:
        raise ValueError(f"got b = {b}, expected b <= 0: exp(b x^2) has no finite kernel otherwise")

    def det(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        return 1 - 2 * b * (q1 + q2) + 4 * b * b * (q1 * q2 - c * c)

    return Closed(
        "gaussian",
        lambda c, q1, q2: det(c, q1, q2) ** -0.5,
        lambda c, q1, q2: 4 * b * b * c * det(c, q1, q2) ** -1.5,
        lambda q: (1 - 2 * b * q) ** -0.5,
    )


def rbf(gamma: float = 1.0) -> Closed:
    """For sqrt(2) sin(sqrt(2 gamma) x + pi/4), whose kernel is e^(-gamma (q1 + q2 - 2c)) (Rahimi & Recht 2007).

    Example:
        >>> one = torch.tensor(1.0)
        >>> round(float(rbf().kernel(0 * one, one, one)), 6)  # e^-2
        0.135335
    """
    if gamma < 0:
        raise ValueError(f"got gamma = {gamma}, expected 0 or more")
    return sine(math.sqrt(2), math.sqrt(2 * gamma), math.pi / 4, name="rbf")


def sign() -> Closed:
    """Sign: (2/pi) asin(rho); its slope, (2/pi) / sqrt(s^2 - c^2), is infinite on the diagonal.

    Example:
        >>> one = torch.tensor(1.0)
        >>> float(sign().kernel(one, one, one)), float(sign().slope(one, one, one))
        (1.0, inf)
    """

    def kernel(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        return 1 - 2 / math.pi * _angle(c, q1, q2)[0]

    def slope(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        s = (q1 * q2).sqrt()
        return 2 / math.pi / ((s - c) * (s + c)).clamp(min=0).sqrt()

    return Closed("sign", kernel, slope, torch.zeros_like, 0.0, kinked=True)


def step() -> Closed:
    """The step function, (1 + sign)/2, which is 1/2 at zero.

    Example:
        >>> one = torch.tensor(1.0)
        >>> float(step().kernel(one, one, one)), float(step().mean(one))
        (0.5, 0.5)
    """
    whole = sign()
    return Closed(
        "heaviside",
        lambda c, q1, q2: 0.25 + whole.of_kernel(c, q1, q2) / 4,
        lambda c, q1, q2: whole.of_slope(c, q1, q2) / 4,
        lambda q: torch.full_like(q, 0.5),
        0.0,
        kinked=True,
    )


def polynomial(coefficients: Sequence[float], name: str = "polynomial", degree: float | None = None) -> Closed:
    """Sum_p t_p x^p, lowest power first: sum over p, r of t_p t_r E[u^p v^r], grouped by powers of c.

    Example:
        >>> one = torch.tensor(1.0)
        >>> float(polynomial([0.0, 0.0, 1.0]).kernel(one, one, one))  # E z^4
        3.0
    """
    t = [float(v) for v in coefficients] or [0.0]
    d = [p * v for p, v in enumerate(t)][1:] or [0.0]
    return Closed(name, partial(_moment_sum, t), partial(_moment_sum, d), partial(_projected, t, 0), degree)


def _moment_sum(t: Sequence[float], c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    """E[P(u) P(v)] = sum_k k! c^k h_k(q1) h_k(q2), h_k(q) = sum_m t_(k+2m) C(k+2m, k) (2m-1)!! q^m."""
    total = torch.zeros_like(c * q1 * q2)
    for k in range(len(t)):
        if any(t[k::2]):
            total = total + math.factorial(k) * c**k * _projected(t, k, q1) * _projected(t, k, q2)
    return total


def _projected(t: Sequence[float], k: int, q: Tensor) -> Tensor:
    total = torch.zeros_like(q)
    for m in range((len(t) - 1 - k) // 2 + 1):
        odd = math.prod(range(1, 2 * m, 2))
        total = total + t[k + 2 * m] * math.comb(k + 2 * m, k) * odd * q**m
    return total


def monomial(degree: int = 2) -> Closed:
    """X^p.

    Example:
        >>> float(monomial(3).variance(torch.tensor(1.0)))  # E z^6
        15.0
    """
    p = _whole(degree)
    return polynomial([0.0] * p + [1.0], "monomial", float(p))


def hermite(degree: int = 2) -> Closed:
    """He_p(x) / sqrt(p!), the normalised Hermite polynomial of probability: its kernel is rho^p at unit variances.

    Example:
        >>> one = torch.tensor(1.0)
        >>> round(float(hermite(3).kernel(0.5 * one, one, one)), 6)
        0.125
    """
    p = _whole(degree)
    return polynomial(list(np.polynomial.hermite_e.herme2poly([0.0] * p + [1.0]) / math.sqrt(math.factorial(p))), "hermite")


def rectified_power(degree: int = 2) -> Closed:
    """Relu(x)^p: s^p J_p(theta) / (2 pi) (Cho & Saul 2009, Eqs. (3)-(4)); the slope is p^2 times the kernel of p - 1.

    J_p = (1 - x^2)^(p + 1/2) (d/dx)^p [(pi - theta) / sqrt(1 - x^2)] with x = cos(theta), a polynomial times sin(theta) and
    another times pi - theta.

    Example:
        >>> one = torch.tensor(1.0)
        >>> float(rectified_power(2).kernel(one, one, one))
        1.5
    """
    p = _whole(degree)
    if p == 0:
        return step()

    def slope(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        return p**2 * _arc_cosine(p - 1, c, q1, q2)

    half_moment = 2 ** (p / 2 - 1) * math.gamma((p + 1) / 2) / math.sqrt(math.pi)
    kernel = partial(_arc_cosine, p)
    return Closed("rectified_power", kernel, slope, lambda q: half_moment * q ** (p / 2), float(p), kinked=p == 1)


def _arc_cosine(p: int, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    theta, sine, x = _angle(c, q1, q2)
    with_sine, with_angle = _angular(p)
    size = (q1 * q2) ** (p // 2 if p % 2 == 0 else p / 2)
    return size * (sine * _horner(with_sine, x) + (math.pi - theta) * _horner(with_angle, x)) / (2 * math.pi)


def _angular(p: int) -> tuple[list[float], list[float]]:
    """The polynomials P, Q of J_p = sin(theta) P(x) + (pi - theta) Q(x), lowest power first."""
    first, second = Polynomial([0.0]), Polynomial([1.0])
    x, rest = Polynomial([0.0, 1.0]), Polynomial([1.0, 0.0, -1.0])
    for k in range(p):
        first, second = first.deriv() * rest + second + 2 * k * x * first, second.deriv() * rest + (2 * k + 1) * x * second
    return list(first.coef), list(second.coef)


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for value in reversed(coefficients):
        total = total * x + float(value)
    return total


def _angle(c: Tensor, q1: Tensor, q2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Arccos(rho), its sine and its cosine, without losing digits near rho = +-1, where gradients count as zero."""
    rho = correlation(c, q1, q2)
    gap = (1 - rho) * (1 + rho)
    inside = gap > 0
    sine = torch.where(inside, torch.where(inside, gap, 1.0).sqrt(), 0.0)
    theta = torch.atan2(torch.where(inside, sine, 1.0), rho)
    return torch.where(inside, theta, math.pi * (rho < 0).to(rho)), sine, rho


def _whole(degree: float) -> int:
    if degree != int(degree) or degree < 0:
        raise ValueError(f"got degree = {degree}, expected a whole number, 0 or more")
    return int(degree)
