"""Closed forms against an integration of their own: trapezia in the plane, and known values."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import special
from torch.nn import functional as F

from lazyrich.errors import KernelError
from lazyrich.gaussian import Dual, dual, known
from lazyrich.gaussian.dual import correlation, product
from lazyrich.gaussian.rectifier import _root

DOUBLE = torch.float64
# name, parameters, the function itself, and its derivative
CASES = [
    ("identity", {}, lambda x: x, np.ones_like),
    ("erf", {}, special.erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x)),
    ("erf", {"a": 0.7, "b": 1.3, "shift": 0.2}, lambda x: 0.7 * special.erf(1.3 * x) + 0.2,
     lambda x: 0.7 * 1.3 * 2 / math.sqrt(math.pi) * np.exp(-1.69 * x * x)),
    ("gelu", {}, lambda x: x * special.ndtr(x), lambda x: special.ndtr(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
    ("sin", {"a": 1.2, "b": 0.7, "phase": 0.4}, lambda x: 1.2 * np.sin(0.7 * x + 0.4), lambda x: 0.84 * np.cos(0.7 * x + 0.4)),
    ("cos", {}, np.cos, lambda x: -np.sin(x)),
    ("exp", {"a": 0.5, "b": 0.8}, lambda x: 0.5 * np.exp(0.8 * x), lambda x: 0.4 * np.exp(0.8 * x)),
    ("gaussian", {"b": -0.7}, lambda x: np.exp(-0.7 * x * x), lambda x: -1.4 * x * np.exp(-0.7 * x * x)),
    ("rbf", {"gamma": 0.3}, lambda x: math.sqrt(2) * np.sin(math.sqrt(0.6) * x + math.pi / 4),
     lambda x: math.sqrt(1.2) * np.cos(math.sqrt(0.6) * x + math.pi / 4)),
    ("polynomial", {"coefficients": [0.3, -1.0, 0.5, 0.2]}, lambda x: 0.3 - x + 0.5 * x**2 + 0.2 * x**3,
     lambda x: -1 + x + 0.6 * x**2),
    ("monomial", {"degree": 3}, lambda x: x**3, lambda x: 3 * x**2),
    ("hermite", {"degree": 4}, lambda x: (x**4 - 6 * x**2 + 3) / math.sqrt(24), lambda x: (4 * x**3 - 12 * x) / math.sqrt(24)),
]  # fmt: skip
PIECES = [
    ("relu", {}, lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    ("leaky_relu", {"negative_slope": 0.1}, lambda x: np.where(x > 0, x, 0.1 * x), lambda x: np.where(x > 0, 1.0, 0.1)),
    ("abs", {}, np.abs, np.sign),
    ("rectifier", {"a": -0.4, "b": 1.3}, lambda x: np.where(x > 0, 1.3 * x, -0.4 * x), lambda x: np.where(x > 0, 1.3, -0.4)),
    ("rectified_power", {"degree": 2}, lambda x: np.maximum(x, 0) ** 2, lambda x: 2 * np.maximum(x, 0)),
    ("rectified_power", {"degree": 5}, lambda x: np.maximum(x, 0) ** 5, lambda x: 5 * np.maximum(x, 0) ** 4),
    ("sign", {}, np.sign, None),
    ("heaviside", {}, lambda x: (x > 0) * 1.0, None),
]  # fmt: skip
POINTS = [(1.0, 1.0, 0.5), (0.3, 2.0, -0.6), (1.7, 0.6, 0.97), (0.8, 0.8, 0.0), (1.3, 1.3, 1.0), (0.9, 2.2, -1.0)]


def number(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(v, dtype=DOUBLE) for v in values]


def by_trapezia(f, g, q1: float, q2: float, rho: float) -> float:
    """The trapezium rule converges geometrically for analytic functions under a Gaussian."""
    z = np.arange(-12, 12.0001, 0.1)
    w = 0.1 * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    x, y = z[:, None], z[None]
    u, v = math.sqrt(q1) * (x + 0 * y), math.sqrt(q2) * (rho * x + math.sqrt(max(0.0, 1 - rho * rho)) * y)
    return float(w @ (f(u) * g(v)) @ w)


def by_sectors(f, q1: float, q2: float, rho: float) -> float:
    """Polar coordinates, sectors between the rays where u or v changes sign; everything here is homogeneous in each."""
    theta = math.acos(rho)
    r, wr = np.polynomial.legendre.leggauss(120)
    r, wr = 7 * (r + 1), 7 * wr
    x, w = np.polynomial.legendre.leggauss(60)
    total = 0.0
    edges = [math.pi / 2, math.pi / 2 + theta, 1.5 * math.pi, 1.5 * math.pi + theta, 2.5 * math.pi]
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        t, wt = (low + high) / 2 + (high - low) / 2 * x, (high - low) / 2 * w
        u, v = math.sqrt(q1) * r[:, None] * np.cos(t), math.sqrt(q2) * r[:, None] * np.cos(t - theta)
        total += float((wr * r * np.exp(-r * r / 2)) @ (f(u) * f(v)) @ wt) / (2 * math.pi)
    return total


def by_halves(f, q: float) -> float:
    """The mean: Gauss-Legendre on either side of zero."""
    z, w = np.polynomial.legendre.leggauss(120)
    z, w = 6 * (z + 1), 6 * w * np.exp(-18 * (z + 1) ** 2) / math.sqrt(2 * math.pi)
    return float(w @ (f(math.sqrt(q) * z) + f(-math.sqrt(q) * z)))


@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]}{i}" for i, c in enumerate(CASES)])
def test_smooth_closed_forms_are_the_integrals(case) -> None:
    name, parameters, f, df = case
    d = dual(name, **parameters)
    for q1, q2, rho in POINTS:
        at = number(rho * math.sqrt(q1 * q2), q1, q2)
        kernel, slope = d.both(*at)
        assert float(kernel) == pytest.approx(by_trapezia(f, f, q1, q2, rho), abs=1e-8, rel=1e-9)
        assert float(slope) == pytest.approx(by_trapezia(df, df, q1, q2, rho), abs=1e-8, rel=1e-9)
        one = by_trapezia(f, np.ones_like, q1, q2, 0.0)
        assert float(d.mean(at[1])) == pytest.approx(one, abs=1e-9)
        assert float(d.variance(at[1])) == pytest.approx(by_trapezia(f, f, q1, q1, 1.0), abs=1e-8, rel=1e-9)
        assert float(d.slope_variance(at[1])) == pytest.approx(by_trapezia(df, df, q1, q1, 1.0), abs=1e-8, rel=1e-9)


@pytest.mark.parametrize("case", PIECES, ids=[f"{c[0]}{i}" for i, c in enumerate(PIECES)])
def test_pieces_are_the_integrals(case) -> None:
    name, parameters, f, df = case
    d = dual(name, **parameters)
    for q1, q2, rho in POINTS:
        at = number(rho * math.sqrt(q1 * q2), q1, q2)
        assert float(d.kernel(*at)) == pytest.approx(by_sectors(f, q1, q2, rho), abs=1e-8, rel=1e-9)
        if df is not None:
            assert float(d.slope(*at)) == pytest.approx(by_sectors(df, q1, q2, rho), abs=1e-8, rel=1e-9)
        assert float(d.mean(at[1])) == pytest.approx(by_halves(f, q1), abs=1e-9)


@pytest.mark.parametrize("name", ["sign", "heaviside"])
def test_the_slope_of_a_jump_is_the_derivative(name) -> None:
    d, (q1, q2) = dual(name), number(0.7, 1.9)
    c = torch.tensor([-0.8, 0.0, 0.4, 1.1], dtype=DOUBLE)
    numeric = (d.kernel(c + 1e-5, q1, q2) - d.kernel(c - 1e-5, q1, q2)) / 2e-5
    assert torch.allclose(d.slope(c, q1, q2), numeric, rtol=1e-7)


@pytest.mark.parametrize(
    "name", ["relu", "abs", "leaky_relu", "erf", "gelu", "sin", "cos", "rbf", "gaussian", "exp", "rectified_power"]
)
def test_diagonal_is_the_variance(name) -> None:
    d, q = dual(name), torch.tensor([0.0, 1e-12, 1e-3, 0.5, 1.0, 3.0], dtype=DOUBLE)
    assert torch.allclose(d.kernel(q, q, q), d.variance(q), rtol=1e-14, atol=0)
    assert torch.allclose(d.slope(q, q, q), d.slope_variance(q), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("side", [1, -1])
def test_roots_in_two_parts_keep_every_digit_of_near_and_opposite_inputs(dtype, side) -> None:
    d = dual("relu")
    q = (torch.rand(60, generator=torch.Generator().manual_seed(0), dtype=DOUBLE) + 0.2).to(dtype)
    c = side * q * (1 - torch.logspace(-5 if dtype is torch.float32 else -12, 0, 60, dtype=DOUBLE).to(dtype))
    roots = d.prepared(q)[1:]
    assert len(roots) == 2, "not the way that kernels go"
    kernel, slope = d.between(c, roots, roots, True)
    exact = [Fraction(float(a)) / Fraction(float(b)) for a, b in zip(c, q, strict=True)]  # rho, and 1 - |rho| in full
    angle = torch.tensor([2 * math.asin(math.sqrt(float(1 - abs(rho)) / 2)) for rho in exact], dtype=DOUBLE)
    expected = (angle if side < 0 else math.pi - angle) / (2 * math.pi)
    digit = torch.finfo(dtype).eps
    assert torch.allclose(slope.double(), expected, rtol=0, atol=2 * digit)
    height = angle.sin() * q / (2 * math.pi) + c * expected
    assert torch.allclose(kernel.double(), height, rtol=0, atol=2 * digit)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-10), (DOUBLE, 1e-22)])
def test_the_first_part_of_a_root_has_an_exact_square_and_the_second_adds_the_rest(dtype, close) -> None:
    q = 100 * torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=DOUBLE).to(dtype)
    high, low = _root(q)
    square = high * high
    for i in range(len(q)):
        first, second, whole = (Fraction(float(t[i])) for t in (high, low, q))
        assert first**2 == Fraction(float(square[i]))
        assert abs((first + second) ** 2 / whole - 1) < 2 * close


def test_zero_variances_have_the_same_roots_in_float32_and_beside_others() -> None:
    d, zero = dual("relu"), torch.tensor([0.0, 1.0])
    kernel, slope = torch.tensor([[0.0, 0.0], [0.0, 0.5]]), torch.tensor([[0.5, 0.25], [0.25, 0.5]])
    for q in (zero, zero.double()):
        c, first, second = q[:, None] * q, d.prepared(q[:, None]), d.prepared(q)
        for found in (d.both(c, q[:, None], q), d.between(c, first[1:] or first, second[1:] or second, True)):
            torch.testing.assert_close(found[0], kernel.to(q), atol=1e-7, rtol=0)
            torch.testing.assert_close(found[1], slope.to(q), atol=1e-7, rtol=0)


def test_the_slope_of_opposite_inputs_is_zero_with_gradients_too() -> None:
    c, q = torch.tensor([-1.0, 0.0, 1.0], dtype=DOUBLE, requires_grad=True), torch.ones(3, dtype=DOUBLE)
    assert dual("relu").slope(c, q, q).tolist() == pytest.approx([0.0, 0.25, 0.5], abs=1e-15)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs", "erf", "gelu", "sin", "rectified_power", "sign", "tanh", "elu"])
def test_float32_agrees_with_float64_on_the_same_numbers(name) -> None:
    d, generator = dual(name), torch.Generator().manual_seed(0)
    q = torch.rand(40, generator=generator) + 0.2
    gap = torch.logspace(-7, 0, 40)
    c = q * (1 - gap)  # ever nearer the diagonal
    kernel, slope = d.both(c, q, q)
    assert kernel.dtype == slope.dtype == torch.float32
    kernel64, slope64 = d.both(c.double(), q.double(), q.double())
    assert torch.allclose(kernel.double(), kernel64, rtol=3e-7, atol=1e-7)
    assert torch.allclose(slope.double(), slope64, rtol=3e-7, atol=2e-7)
    assert torch.allclose(d.kernel(q, q, q), d.variance(q), rtol=1.5e-7, atol=0)


def test_relu_keeps_tiny_and_huge_variances_in_float32() -> None:
    d = dual("relu")
    for size in (1e-30, 1e-12, 1e25):
        q = torch.tensor([1.0, 2.0, 3.0]) * size
        c = 0.5 * (q[:, None] * 1.0).minimum(q[None])
        kernel, slope = d.both(c, q[:, None], q[None])
        kernel64, slope64 = d.both(c.double(), q[:, None].double(), q[None].double())
        assert torch.allclose(kernel.double() / size, kernel64 / size, rtol=1e-6)
        assert torch.allclose(slope.double(), slope64, rtol=1e-6)


def test_relu_in_chunks_is_relu_at_once() -> None:
    d, generator = dual("relu"), torch.Generator().manual_seed(0)
    x = torch.randn(700, 5, generator=generator, dtype=DOUBLE)
    c = x @ x.T
    q = c.diagonal()
    kernel, slope = d.both(c, q[:, None], q[None])
    theta = torch.arccos((c / (q[:, None] * q).sqrt()).clamp(-1, 1))
    s = (q[:, None] * q).sqrt()
    assert torch.allclose(kernel, s * (theta.sin() + (math.pi - theta) * theta.cos()) / (2 * math.pi), atol=1e-7)
    assert torch.allclose(slope, (math.pi - theta) / (2 * math.pi), atol=1e-7)
    four = c.reshape(70, 10, 7, 100)
    shaped = d.both(four, q.reshape(70, 10, 1, 1), q.reshape(1, 1, 7, 100))
    assert torch.equal(shaped[0].reshape(700, 700), kernel) and torch.equal(shaped[1].reshape(700, 700), slope)
    assert torch.allclose(d.both(c.T, q[None], q[:, None])[0], kernel.T, rtol=1e-15)


def test_zero_variances() -> None:
    zero, one = number(0.0, 1.0)
    d = dual("relu")
    assert float(d.kernel(zero, zero, one)) == 0
    assert float(d.slope(zero, zero, one)) == 0.25  # phi'(0) = 1/2 times E phi' = 1/2
    assert float(d.slope(zero, zero, zero)) == float(d.slope_variance(zero)) == 0.5
    assert float(dual("gelu").slope(zero, zero, one)) == pytest.approx(0.25)
    assert float(dual("sign").kernel(zero, zero, one)) == 0


def test_tangent_kernel_of_a_deep_relu_net_in_float32() -> None:
    def diagonal(q: torch.Tensor) -> torch.Tensor:
        d, theta = dual("relu"), q
        for _ in range(100):
            theta = 2 * d.variance(q) + 2 * d.slope_variance(q) * theta
            q = 2 * d.variance(q)
        return theta

    q = torch.linspace(0.3, 2, 7, dtype=DOUBLE)
    assert torch.allclose(diagonal(q.float()).double(), diagonal(q), rtol=1e-5)
    assert torch.allclose(diagonal(q), 101 * q, rtol=1e-12)


def test_deep_relu_kernel_off_the_diagonal_in_float32() -> None:
    def kernel(q: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        d, theta = dual("relu"), c
        for _ in range(50):
            k, s = d.both(c, q, q)
            theta, c, q = 2 * k + 2 * s * theta, 2 * k, 2 * d.variance(q)
        return theta

    c, q = torch.linspace(-0.9, 1, 21, dtype=DOUBLE), torch.ones(21, dtype=DOUBLE)
    single, double = kernel(q.float(), c.float()).double(), kernel(q, c.float().double())
    assert torch.allclose(single, double, rtol=2e-4)
    assert float(single[-1]) == 51


def test_degrees_of_homogeneity() -> None:
    assert {n: dual(n).homogeneous for n in ("relu", "abs", "leaky_relu", "identity", "sign")} == {
        "relu": 1.0, "abs": 1.0, "leaky_relu": 1.0, "identity": 1.0, "sign": 0.0,
    }  # fmt: skip
    assert dual("monomial", degree=3).homogeneous == dual("rectified_power", degree=3).homogeneous == 3.0
    assert dual("tanh").homogeneous is None and dual("gelu").homogeneous is None


def test_functions_and_modules_are_recognised() -> None:
    for given, name in (
        (torch.relu, "relu"), (F.gelu, "gelu"), (torch.nn.ReLU(), "relu"), (torch.nn.GELU(), "gelu"), (torch.abs, "abs"),
        (torch.nn.Identity(), "identity"), (torch.erf, "erf"), (torch.nn.PReLU(), "prelu"),
    ):  # fmt: skip
        assert dual(given).name == name and dual(given).error == 0
    (one,) = number(1.0)
    leaky = dual(torch.nn.LeakyReLU(0.3))
    assert float(leaky.slope_variance(one)) == pytest.approx((1 + 0.09) / 2)
    assert dual(torch.nn.GELU("tanh")).name == "gelu_tanh"
    assert float(dual(torch.nn.Hardtanh(-2.0, 0.5)).mean(one)) == pytest.approx(
        float(dual(lambda x: x.clamp(-2, 0.5), kinks=(-2.0, 0.5)).mean(one)), abs=1e-12
    )
    assert float(dual(F.leaky_relu, negative_slope=0.3).slope_variance(one)) == pytest.approx(0.545)


def test_refusals_say_what_is_known() -> None:
    with pytest.raises(KernelError, match="got activation 'rilu', expected one of .*relu") as caught:
        dual("rilu")
    assert all(name in str(caught.value) for name in known())
    with pytest.raises(KernelError, match="does not take"):
        dual("relu", slope=3)
    with pytest.raises(KernelError, match="degree"):
        dual("rectified_power", degree=0.5)
    with pytest.raises(KernelError, match="entry by entry"):
        dual(lambda x: x.softmax(-1))
    with pytest.raises(KernelError, match="entry by entry"):
        dual(lambda x: x.sum())
    with pytest.raises(KernelError, match="parameters"):
        dual(torch.nn.Linear(4, 4))
    with pytest.raises(KernelError, match="int64"):
        dual("relu").kernel(*(torch.tensor(1) for _ in range(3)))
    with pytest.raises(KernelError, match="expected a name"):
        dual(3)  # pyrefly: ignore
    with pytest.raises(NotImplementedError):
        Dual("none").mean(torch.ones(1))


def test_sine_keeps_its_digits_at_tiny_variances_and_its_gradient_at_zero():
    c = torch.tensor([0.0, 1e-12, -1e-12], dtype=torch.float64, requires_grad=True)
    kernel = dual("sin").kernel(c, torch.full_like(c, 1e-11), torch.full_like(c, 1e-11))
    torch.testing.assert_close(kernel, c.detach(), rtol=1e-10, atol=0)
    (grad,) = torch.autograd.grad(kernel.sum(), c)
    torch.testing.assert_close(grad, torch.ones_like(grad), rtol=1e-10, atol=0)
    large = torch.tensor([-800.0, 800.0], dtype=torch.float64)
    assert torch.isfinite(dual("sin").kernel(large, large.abs(), large.abs())).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("q", [1.0, 1e-6, 1e-12, 1e-20])
def test_opposite_inputs_have_the_angle_pi_at_any_scale(dtype, q):
    q = torch.tensor(q, dtype=dtype)
    kernel, slope = dual("relu").both(-q, q, q)
    assert abs(float(slope)) < 3e-4 and abs(float(kernel / q)) < 1e-6  # a root of the rounding of c away from pi


@pytest.mark.parametrize("size", [1e-34, 1e-20, 1.0, 1e20, 1e34])
def test_nearly_opposite_inputs_of_any_scale_keep_their_angle_in_float32(size) -> None:
    """At the smallest, s + c is below the smallest normal number."""
    d, q = dual("relu"), torch.full((6,), size)
    c = -q * (1 - torch.logspace(-5, 0, 6))
    roots = d.prepared(q)
    for found in (d.both(c, q, q), d.between(c, roots[1:] or roots, roots[1:] or roots, True)):
        exact = d.both(c.double(), q.double(), q.double())
        torch.testing.assert_close(found[1].double(), exact[1], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found[0].double() / size, exact[0] / size, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_rounding_beyond_the_ends_is_taken_for_the_ends(dtype) -> None:
    """Covariances that exceed their bound by the last digits, tiny and zero variances."""
    d, eps = dual("relu"), torch.finfo(dtype).eps
    small = 1e-36 if dtype == torch.float32 else 1e-200
    c = torch.tensor([1 + eps, -1 - eps, 0.0, small, -small], dtype=dtype)
    q = torch.tensor([1.0, 1.0, 0.0, small, small], dtype=dtype)
    kernel, slope = d.both(c, q, q)
    torch.testing.assert_close(slope, torch.tensor([0.5, 0.0, 0.5, 0.5, 0.0], dtype=dtype), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        kernel / q.clamp(min=small), torch.tensor([0.5, 0.0, 0.0, 0.5, 0.0], dtype=dtype), atol=1e-3, rtol=0
    )
    prepared = d.prepared(q[:2])
    again = d.between(c[:2], prepared[1:] or prepared, prepared[1:] or prepared, True)
    for got, expected in zip(again, d.both(c[:2], q[:2], q[:2]), strict=True):
        assert torch.equal(got, expected)


def test_correlations_where_products_of_variances_leave_the_range_of_float64() -> None:
    q = torch.tensor([1e-200, 1e200], dtype=DOUBLE)
    assert correlation(q / 2, q, q).tolist() == pytest.approx([0.5, 0.5])


def test_a_slope_that_somebody_follows_or_that_repeats_one_number_is_not_written_over() -> None:
    x = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    product(
        x.exp(), torch.tensor([2.0, 3.0], dtype=torch.float64)
    ).sum().backward()  # an exponential's gradient reads its value
    torch.testing.assert_close(x.grad, x.detach().exp() * torch.tensor([2.0, 3.0]))
    one = torch.tensor([0.5])
    assert product(one.expand(2), torch.tensor([2.0, 4.0])).tolist() == [1.0, 2.0]
    assert product(one, torch.tensor([[2.0], [4.0]])).tolist() == [[1.0], [2.0]]
    assert one.tolist() == [0.5]


def test_numbers_that_are_no_tensors_are_refused() -> None:
    for name in ("relu", "tanh"):  # a closed form, and an integral
        with pytest.raises(KernelError, match="of type float, expected tensors"):
            dual(name).kernel(0.5, 1.0, 1.0)
