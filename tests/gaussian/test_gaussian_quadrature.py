"""Activations without a closed form against Gauss-Hermite rules, closed forms in disguise, and sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special
from torch.nn import functional as F

from lazyrich.errors import KernelError
from lazyrich.gaussian import dual, plane
from lazyrich.gaussian.quadrature import Integrand

DOUBLE = torch.float64
SMOOTH = {
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "silu": lambda x: x * special.expit(x),
    "softplus": lambda x: np.logaddexp(x, 0),
    "logsigmoid": lambda x: -np.logaddexp(-x, 0),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "tanhshrink": lambda x: x - np.tanh(x),
}
BROKEN = {
    "elu": (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), [0.0]),
    "selu": (lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))), [0.0]),
    "softsign": (lambda x: x / (1 + abs(x)), [0.0]),
    "hardtanh": (lambda x: np.clip(x, -1, 1), [-1.0, 1.0]),
    "relu6": (lambda x: np.clip(x, 0, 6), [0.0, 6.0]),
    "hardsigmoid": (lambda x: np.clip(x / 6 + 0.5, 0, 1), [-3.0, 3.0]),
    "hardswish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), [-3.0, 3.0]),
}
POINTS = [
    (1.0, 1.0, 0.5),
    (0.3, 2.0, -0.6),
    (1.7, 0.6, 0.97),
    (0.8, 0.8, 0.0),
    (2.3, 2.3, 1.0),
    (0.9, 2.2, -1.0),
    (1e-12, 1.0, 0.3),
]


def number(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(v, dtype=DOUBLE) for v in values]


def by_trapezia(f, q1: float, q2: float, rho: float) -> float:
    """In rotated coordinates, (x +- y) cos and sin of half the angle: a scheme the library does not use."""
    z = np.arange(-10, 10.0001, 0.05)
    w = 0.05 * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    half = math.acos(rho) / 2
    x, y = z[:, None] * math.cos(half), z[None] * math.sin(half)
    return float(w @ (f(math.sqrt(q1) * (x + y)) * f(math.sqrt(q2) * (x - y))) @ w)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_activations_are_the_integrals(name) -> None:
    d, f = dual(name), SMOOTH[name]
    assert d.error < 1e-8

    def df(x):
        return (f(x + 1e-3) - f(x - 1e-3)) * (4 / 3) / 2e-3 - (f(x + 2e-3) - f(x - 2e-3)) / 3 / 4e-3

    for q1, q2, rho in POINTS:
        kernel, slope = d.both(*number(rho * math.sqrt(q1 * q2), q1, q2))
        assert float(kernel) == pytest.approx(by_trapezia(f, q1, q2, rho), abs=1e-8)
        assert float(slope) == pytest.approx(by_trapezia(df, q1, q2, rho), abs=1e-8)


@pytest.mark.parametrize("name", BROKEN)
def test_kinked_activations_are_the_integrals(name) -> None:
    d, (f, kinks) = dual(name), BROKEN[name]
    assert d.error < 1e-8
    for q1, q2, rho in ((1.0, 1.0, 0.4), (1.6, 0.7, 0.9)):
        a, b, rest = math.sqrt(q1), math.sqrt(q2), math.sqrt(1 - rho * rho)

        def inner(z: float, a=a, b=b, rest=rest, rho=rho) -> float:
            edges = sorted({-10.0, 0.0, 10.0, *(min(10.0, max(-10.0, (k / b - rho * z) / rest)) for k in kinks)})
            total = 0.0
            for low, high in zip(edges[:-1], edges[1:], strict=True):
                y, w = (low + high) / 2 + (high - low) / 2 * NODES[0], (high - low) / 2 * NODES[1]
                total += float(np.sum(w * f(b * (rho * z + rest * y)) * np.exp(-y * y / 2)))
            return total * float(f(np.array(a * z))) * math.exp(-z * z / 2) / (2 * math.pi)

        exact, _ = integrate.quad(inner, -10, 10, points=[k / a for k in kinks], epsabs=1e-11, epsrel=1e-11, limit=300)
        assert float(d.kernel(*number(rho * a * b, q1, q2))) == pytest.approx(exact, abs=1e-8)


NODES = np.polynomial.legendre.leggauss(60)


@pytest.mark.parametrize("name", ["relu", "erf", "gelu", "sin", "leaky_relu"])
@pytest.mark.parametrize("variances", [(1.0, 1.0), (0.3, 2.0), (9.0, 4.0), (400.0, 400.0), (1e-12, 1e-12), (0.0, 1.0)])
def test_quadrature_of_a_function_in_disguise_is_its_closed_form(name, variances) -> None:
    function = {"relu": torch.relu, "erf": torch.erf, "gelu": F.gelu, "sin": torch.sin, "leaky_relu": F.leaky_relu}[name]
    if name == "sin" and variances[0] > 100:
        variances = (100.0, 60.0)  # functions that oscillate over the whole line are integrated only at moderate variances
    closed, found = dual(name), dual(lambda x: function(x), kinks=(0.0,) if "relu" in name else ())
    q1, q2 = number(*variances)
    rho = torch.tensor([-1.0, -0.9999, -0.5, 0.0, 0.3, 0.98, 0.99999, 1.0], dtype=DOUBLE)
    c = rho * (q1 * q2).sqrt()
    size = max(1.0, float((q1 * q2).sqrt()))
    for exact, here in zip(closed.both(c, q1, q2), found.both(c, q1, q2), strict=True):
        if variances[0] == 0 and "relu" in name:
            exact, here, size = exact[:1] * 0, here[:1] * 0, 1.0  # phi'(0) is a convention
        assert torch.allclose(exact, here, rtol=0, atol=1e-8 * size)
    for part in ("variance", "slope_variance", "mean"):
        if part != "slope_variance" or variances[0] > 0:
            assert torch.allclose(getattr(closed, part)(q1), getattr(found, part)(q1), atol=1e-9 * size)


def gram(n: int, shared: float, equal: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 20, generator=generator, dtype=DOUBLE) * (1 - shared) + shared * torch.randn(
        1, 20, generator=generator, dtype=DOUBLE
    )
    c = x @ x.T / 20
    q = c.diagonal().clone()
    if equal:
        return c / (q[:, None] * q).sqrt(), torch.ones(n, dtype=DOUBLE)
    return c, q


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("shared", [0.0, 0.97])
def test_many_entries_by_series_and_table(equal, shared) -> None:
    c, q = gram(120, shared, equal)
    closed, found = dual("leaky_relu", negative_slope=0.2), dual(lambda x: F.leaky_relu(x, 0.2), kinks=(0.0,))
    for exact, here in zip(closed.both(c, q[:, None], q), found.both(c, q[:, None], q), strict=True):
        assert torch.allclose(exact, here, rtol=0, atol=3e-8)  # rho rounds to 1 within 1e-16, its angle within 1e-8


def test_many_entries_of_a_kink_off_zero() -> None:
    c, q = gram(40, 0.9, True)
    found = dual("hardtanh")
    entries = [(0, 0), (0, 1), (3, 7), (5, 30)]
    alone = torch.stack([found.kernel(c[i, j], q[i], q[j]) for i, j in entries])
    assert torch.allclose(found.kernel(c, q[:, None], q)[tuple(zip(*entries, strict=True))], alone, atol=1e-9)


def test_kinks_matter_and_the_error_says_so() -> None:
    def bent(x: torch.Tensor) -> torch.Tensor:
        return (x - 0.3).abs()

    for odd in (0.3, ("a",), (math.nan,)):
        with pytest.raises(KernelError, match="got kinks .*expected the places"):
            dual(bent, kinks=odd)
    told, untold = dual(bent, kinks=(0.3,)), dual(bent)
    assert told.error < 1e-8 < 1e-5 < untold.error
    c, q1, q2 = number(0.6, 1.2, 0.8)
    assert float(told.kernel(c, q1, q2)) == pytest.approx(float(untold.kernel(c, q1, q2)), abs=1e-2)


def test_a_users_function_against_samples() -> None:
    def own(x: torch.Tensor) -> torch.Tensor:
        return x * torch.sin(x) + torch.tanh(2 * x)

    d = dual(own)
    z = torch.randn(2, 1_000_000, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    q1, q2, c = number(1.5, 0.7, 0.6)
    u = q1.sqrt() * z[0]
    v = c / q1.sqrt() * z[0] + (q2 - c * c / q1).sqrt() * z[1]
    sample = own(u) * own(v)
    assert abs(float(d.kernel(c, q1, q2) - sample.mean())) < 5 * float(sample.std()) / 1000
    assert abs(float(d.mean(q1) - own(u).mean())) < 5 * float(own(u).std()) / 1000


@pytest.mark.parametrize("name", ["relu", "gelu", "erf", "tanh", "silu", "sin", "gaussian", "rectified_power"])
def test_gradients(name) -> None:
    d = dual(name)
    c, q1, q2 = (torch.tensor(v, dtype=DOUBLE, requires_grad=True) for v in ([0.3, -0.5], [1.2, 0.7], [0.9, 1.4]))
    assert torch.autograd.gradcheck(d.kernel, (c, q1, q2), atol=1e-6)
    assert torch.autograd.gradcheck(d.slope, (c, q1, q2), atol=1e-6)
    assert torch.autograd.gradcheck(d.variance, (q1,), atol=1e-6)
    assert torch.autograd.gradcheck(d.slope_variance, (q1,), atol=1e-6)
    assert torch.equal(d.kernel(c, q1, q2).detach(), d.kernel(c, q1, q2).data)


@pytest.mark.parametrize("name", ["elu", "selu", "hardtanh"])
def test_gradients_with_kinks(name) -> None:
    d = dual(name)
    c, q1, q2 = (torch.tensor([v], dtype=DOUBLE, requires_grad=True) for v in (0.3, 1.2, 0.9))
    assert torch.autograd.gradcheck(d.kernel, (c, q1, q2), atol=1e-5)
    assert torch.autograd.gradcheck(d.slope, (c, q1, q2), atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "elu"])
def test_gradients_on_the_diagonal_are_finite_and_the_slope(name) -> None:
    d = dual(name)
    c, q = (
        torch.tensor([0.5, 1.0], dtype=DOUBLE, requires_grad=True),
        torch.tensor([1.0, 1.0], dtype=DOUBLE, requires_grad=True),
    )
    slope, at = torch.autograd.grad(d.kernel(c, q, q).sum(), (c, q))
    assert torch.allclose(slope, d.slope(c.detach(), q.detach(), q.detach()), atol=1e-9)
    assert bool(at.isfinite().all())


def test_gradients_leave_the_values_alone() -> None:
    for name in ("relu", "gelu", "tanh", "elu"):
        c, q = torch.tensor([-1.0, 0.2, 1.0], dtype=DOUBLE), torch.ones(3, dtype=DOUBLE)
        tracked = dual(name).both(c.clone().requires_grad_(), q, q)
        for one, other in zip(tracked, dual(name).both(c, q, q), strict=True):
            assert torch.allclose(one.detach(), other, atol=1e-9)


finite = st.floats(0.01, 4.0)


@settings(max_examples=40, deadline=None)
@given(
    q1=finite,
    q2=finite,
    rho=st.floats(-1, 1),
    name=st.sampled_from(["relu", "abs", "erf", "gelu", "tanh", "sigmoid", "elu", "sin"]),
)
def test_a_kernel_is_symmetric_and_bounded(q1: float, q2: float, rho: float, name: str) -> None:
    d, (c, a, b) = DUALS[name], number(rho * math.sqrt(q1 * q2), q1, q2)
    kernel = d.kernel(c, a, b)
    assert float(kernel) == pytest.approx(float(d.kernel(c, b, a)), abs=1e-9)
    assert float(kernel) ** 2 <= float(d.variance(a) * d.variance(b)) * (1 + 1e-9) + 1e-12
    assert float(d.slope(c, a, b)) ** 2 <= float(d.slope_variance(a) * d.slope_variance(b)) * (1 + 1e-9) + 1e-12


@settings(max_examples=25, deadline=None)
@given(q=finite, scale=st.floats(0.1, 10), rho=st.floats(-1, 1))
def test_homogeneous_kernels_scale(q: float, scale: float, rho: float) -> None:
    for name in ("relu", "abs", "leaky_relu"):
        c, a, s = number(rho * q, q, scale)
        d = DUALS[name] if name in DUALS else dual(name)
        assert torch.allclose(d.kernel(s * c, s * a, s * a), s * d.kernel(c, a, a), rtol=1e-7, atol=1e-12)


DUALS = {name: dual(name) for name in ("relu", "abs", "erf", "gelu", "tanh", "sigmoid", "elu", "sin")}


def half_tanh(x):
    return torch.tanh(x) + 0.2 * torch.sign(x)


JUMPY = [
    (half_tanh, (0.0,)),
    (half_tanh, ()),
    (F.hardshrink, (-0.5, 0.5)),
    (lambda x: F.hardshrink(x), ()),
    (lambda x: torch.sign(x), ()),
]


@pytest.mark.parametrize(("function", "kinks"), JUMPY)
def test_jumps_count_in_the_derivative_of_the_kernel(function, kinks) -> None:
    d, q1, q2 = dual(function, kinks=kinks), *number(1.0, 1.7)
    exact = dual(function, kinks=(-0.5, 0.5) if float(function(q1 / 4)) == 0 else (0.0,))
    for rho in (-0.99, 0.5, 0.9):
        c = torch.tensor(rho * math.sqrt(1.7), dtype=DOUBLE)
        numeric = (exact.kernel(c + 1e-4, q1, q2) - exact.kernel(c - 1e-4, q1, q2)) / 2e-4
        assert float(d.derivative(c, q1, q2)) == pytest.approx(float(numeric), rel=2e-5)
    assert float(d.derivative(q1, q1, q1)) == float(d.derivative(-q1, q1, q1)) == float(d.derivative_variance(q1)) == math.inf
    assert float(d.slope(q1, q1, q1)) < 1  # as autograd takes it
    if kinks:
        c, q1, q2 = (t.requires_grad_() for t in number(0.3, 0.8, 1.2))
        grads = torch.autograd.grad(d.kernel(c, q1, q2), (c, q1, q2))
        for i, grad in enumerate(grads):
            step = torch.tensor([1e-5 * (i == j) for j in range(3)], dtype=DOUBLE)
            up, down = (d.kernel(*(t.detach() + s for t, s in zip((c, q1, q2), sign * step, strict=True))) for sign in (1, -1))
            assert float(grad) == pytest.approx(float(up - down) / 2e-5, rel=1e-7)


def test_the_derivative_of_a_function_in_disguise_with_jumps_is_its_closed_form() -> None:
    c, q1, q2 = number(0.4, 0.7, 1.3)
    assert float(dual(lambda x: torch.sign(x)).derivative(c, q1, q2)) == pytest.approx(float(dual("sign").slope(c, q1, q2)))
    floor = dual(torch.floor)  # 1 + small oscillations: E floor(u) floor(v) is nearly c + 1/4
    assert float(floor.derivative(c, q1, q2)) == pytest.approx(1, abs=1e-3)
    assert float(dual("tanh").derivative(c, q1, q2)) == float(dual("tanh").slope(c, q1, q2))
    shrink = dual(torch.nn.Hardshrink(0.3))
    assert shrink.name == dual(F.hardshrink).name == "hardshrink" and shrink.error < 1e-10
    assert float(shrink.slope_variance(q1)) == pytest.approx(math.erfc(0.3 / math.sqrt(2 * 0.7)))


TINY = {
    "sign of size 1e-5": (dual(lambda x: 1e-5 * torch.sign(x)), 1.0),
    "hardshrink far inside": (dual("hardshrink", lambd=0.5), 0.005),
    "hardshrink, near the diagonal": (dual("hardshrink", lambd=0.5), 0.02),
    **{f"{name} at {q}": (dual(name), q) for name in ("selu", "relu6", "softsign", "elu") for q in (1e-3, 1e-6, 1e-8)},
}


@pytest.mark.parametrize("case", TINY)
def test_small_values_are_as_exact_as_large_ones(case) -> None:
    d, variance = TINY[case]
    q = torch.tensor(variance, dtype=DOUBLE)
    rho = torch.tensor([1.0, 1 - 1e-6, 0.9, 0.5], dtype=DOUBLE)
    exact = plane.integrate(d.phi, d.phi, rho, q.expand(4), q.expand(4)) / d.variance(q)
    assert torch.allclose(d.kernel(rho * q, q, q) / d.variance(q), exact, rtol=1e-8, atol=1e-10)
    assert float(d.kernel(q, q, q)) == pytest.approx(float(d.variance(q)), rel=1e-12)
    assert float(d.slope(q, q, q)) == pytest.approx(float(d.slope_variance(q)), rel=1e-12)


def test_a_small_rectifier_is_a_rectifier_on_the_diagonal_and_near_it() -> None:
    q, rho = torch.tensor(1e-8, dtype=DOUBLE), torch.tensor([1.0, 1 - 1e-6, 0.3, -0.7], dtype=DOUBLE)
    assert torch.allclose(dual("relu6").kernel(rho * q, q, q), dual("relu").kernel(rho * q, q, q), rtol=1e-8, atol=0)


@pytest.mark.parametrize("equal", [True, False])
def test_many_small_entries_keep_their_digits(equal) -> None:
    c, q = gram(60, 0.9, equal)
    for size in (1e-3, 1e-8):
        exact, here = (
            dual("relu").kernel(size * c, size * q[:, None], size * q),
            dual("relu6").kernel(size * c, size * q[:, None], size * q),
        )
        assert torch.allclose(exact, here, rtol=0, atol=1e-9 * size)


def test_functions_that_are_zero_and_jumps_of_small_functions() -> None:
    c, q = gram(5, 0.0, True)
    assert not dual(torch.zeros_like).kernel(c, q[:, None], q).any()
    small, one = dual(lambda x: 1e-5 * torch.sign(x)), number(0.4, 0.7, 1.3)
    assert float(small.derivative(*one)) == pytest.approx(1e-10 * float(dual("sign").slope(*one)))
    at = number(0.4)[0].requires_grad_()
    (slope,) = torch.autograd.grad(small.kernel(at, *one[1:]), at)
    assert float(slope) == pytest.approx(1e-10 * float(dual("sign").slope(*one)), rel=1e-6)


def test_where_one_function_is_zero_the_other_is_not_looked_at():
    """By parts E[relu(u - k) v] = rho P(u > k)."""
    rho, one, looks = torch.tensor([0.6], dtype=torch.float64), torch.ones(1, dtype=torch.float64), []
    for floor in (0.0, 1.0):
        seen: list[int] = []
        other = Integrand(lambda v, seen=seen: seen.append(v.numel()) or v)
        found = plane.integrate(Integrand(lambda u, c=floor: torch.relu(u - 0.3) + c, (0.3,)), other, rho, one, one)
        torch.testing.assert_close(found, rho * 0.5 * torch.special.erfc(0.3 * one / 2**0.5), rtol=1e-12, atol=1e-12)
        looks.append(sum(seen))
    assert looks[0] < 0.6 * looks[1]
