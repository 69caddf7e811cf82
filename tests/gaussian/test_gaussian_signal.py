"""Signal propagation: printed critical initialisations, phases, fixed points and rates of approach."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from torch.nn import functional as F

import lazyrich
from lazyrich.errors import KernelError
from lazyrich.gaussian import critical, dual, half_stable, known, signal
from lazyrich.gaussian.critical import GRID, _roots, _with_bias
from lazyrich.gaussian.signal import Signal, growth

DOUBLE = torch.float64


@pytest.mark.parametrize(
    ("bias", "variance", "weight"), [(0.01, 0.273, 1.4242), (0.05, 0.570, 1.7610), (0.1, 0.806, 1.9861), (0.3, 1.461, 2.5051)]
)
def test_edge_of_chaos_of_tanh(bias, variance, weight) -> None:
    point = critical("tanh", bias=bias)
    assert (round(point.variance, 3), round(point.weight, 4)) == (variance, weight)
    again = critical("tanh", variance=point.variance)
    assert again.bias == pytest.approx(bias, abs=1e-10) and again.weight == pytest.approx(point.weight)
    assert point.signal.phase() == "critical" and point.signal.variance == pytest.approx(point.variance, rel=1e-6)
    assert point.signal.depth_scales()[1] == math.inf and point.signal.correlation == 1


def test_edge_of_chaos_of_others() -> None:
    relu, leaky, erf, tanh = (
        critical("relu"),
        critical(dual("leaky_relu", negative_slope=0.1)),
        critical("erf"),
        critical("tanh"),
    )
    assert (relu.weight, relu.bias) == (2.0, 0.0)
    assert leaky.weight == pytest.approx(2 / 1.01) and leaky.bias == 0
    assert erf.weight == pytest.approx(math.pi / 4) and erf.variance == 0
    assert tanh.weight == pytest.approx(1.0) and tanh.bias == 0


@pytest.mark.parametrize("phi", [lambda u: u.clamp(min=0), lambda u: torch.where(u > 0, u, u / 3), lambda u: u])
def test_a_function_without_a_scale_is_known_without_its_name(phi) -> None:
    point = critical(phi)
    assert (point.bias, point.variance, point.signal.variance) == (0.0, 1.0, 1.0)
    assert point.signal.fixed_variance(3.7) == 3.7 and point.signal.phase() == "critical"
    with pytest.raises(KernelError, match="scale-invariant"):
        critical(phi, bias=0.1)


def test_half_stable_points() -> None:
    gelu, swish = half_stable("gelu"), half_stable("swish")
    assert gelu.variance == pytest.approx((3 + math.sqrt(17)) / 2, rel=1e-9)
    assert (round(gelu.weight, 5), round(gelu.bias, 5)) == (1.98306, 0.17292)
    assert swish.variance == pytest.approx(14.3201, abs=1e-4)  # 14.32017
    assert (round(swish.weight, 5), round(swish.bias, 5)) == (1.98800, 0.55514)
    for point in (gelu, swish):
        q = torch.tensor(point.variance, dtype=DOUBLE)
        assert float(point.signal.chi_parallel(q)) == pytest.approx(1, abs=1e-9)
        assert float(point.signal.chi_perp(q)) == pytest.approx(1, abs=1e-12)


def test_no_such_point() -> None:
    with pytest.raises(KernelError, match="half-stable"):
        half_stable("tanh")
    with pytest.raises(KernelError, match="half-stable"):
        half_stable("relu")
    with pytest.raises(KernelError, match="no critical initialisation"):
        critical("relu", bias=0.1)
    with pytest.raises(KernelError, match="one of them"):
        critical("tanh", bias=0.1, variance=1.0)
    with pytest.raises(KernelError, match="< 0"):
        critical("exp", variance=0.1)
    with pytest.raises(KernelError, match="0 or more"):
        signal("tanh", -1.0)
    for odd in ("1", math.nan, math.inf, None):
        with pytest.raises(KernelError, match=r"got sigma_w\^2 = .*expected finite variances"):
            signal("tanh", odd)
    with pytest.raises(KernelError, match="without bound"):
        signal("relu", 2.5, 0.1).phase()


def test_phases() -> None:
    assert signal("tanh", 0.9, 0.05).phase() == "ordered"
    assert signal("tanh", 2.5, 0.05).phase() == "chaotic"
    assert signal("relu", 2.0).phase() == "critical" and signal("relu", 1.8, 0.1).phase() == "ordered"


def test_fixed_points_and_depth_scales_are_those_of_the_iterated_map() -> None:
    net = signal("tanh", 2.5, 0.05)
    q, rho = net.trajectory(400, torch.tensor(0.4, dtype=DOUBLE), torch.tensor(0.99, dtype=DOUBLE))
    assert float(q[-1]) == pytest.approx(net.variance, abs=1e-9)
    assert float(rho[-1]) == pytest.approx(net.correlation, abs=1e-8) and net.correlation < 0.9
    along, across = net.depth_scales()
    decay = (rho[200] - rho[-1]) / (rho[190] - rho[-1])
    assert -10 / math.log(float(decay)) == pytest.approx(across, rel=1e-3)
    assert -1 / math.log(float(net.chi_parallel(q[-1]))) == pytest.approx(along, rel=1e-9)


def test_variances_that_swing_around_their_fixed_point_have_a_depth_scale() -> None:
    net = signal("cos", 1.5, 0.1)
    q, _ = net.trajectory(12, torch.tensor(0.5, dtype=DOUBLE), torch.tensor(0.5, dtype=DOUBLE))
    rate = float((q[12] - net.variance) / (q[11] - net.variance))
    assert rate < 0 and net.depth_scales()[0] == pytest.approx(-1 / math.log(-rate), rel=1e-2)


def test_fixed_points_from_starts_of_any_size() -> None:
    net = signal("tanh", 1.5, 0.05)
    for start in (0.0, 1e-300, 1e-15, 1e12, 1e200):
        assert net.fixed_variance(start) == pytest.approx(net.variance, rel=1e-9)
    assert Signal(net.phi, 1.5, 0.05, start=0.0).phase() == net.phase()
    assert net.fixed_variance(0.0) == pytest.approx(net.variance) and signal("tanh", 0.5).fixed_variance(0.0) == 0
    assert signal("tanh", 0.5).variance == 0 and signal("relu", 3.0).variance == math.inf, (
        "variances that die out, and that grow"
    )
    assert signal("relu", 1.0, 1e9).variance == pytest.approx(2e9)
    assert signal("relu", 1.0, 1e-20).variance == pytest.approx(2e-20)
    assert signal("relu", 2.5, 0.1).fixed_variance(0.0) == math.inf
    with pytest.raises(KernelError, match="got start = -1"):
        net.fixed_variance(-1)


def test_growth_is_the_derivative_of_the_variance() -> None:
    for name in ("tanh", "gelu", "elu", "relu", "hardtanh"):
        d, q = dual(name), torch.tensor([0.4, 1.3, 5.0], dtype=DOUBLE)
        numeric = (d.variance(q + 1e-5) - d.variance(q - 1e-5)) / 2e-5
        assert torch.allclose(growth(d, q), numeric, atol=1e-8)


def test_correlations_at_criticality() -> None:
    zero, one = torch.zeros((), dtype=DOUBLE), torch.ones((), dtype=DOUBLE)
    _, rho = signal("relu", 2.0).trajectory(3000, one, 0.3 * one)
    assert float((1 - rho[100]) * 100**2) == pytest.approx(35.2, abs=0.1)
    assert float((1 - rho[3000]) * 3000**2) == pytest.approx(43.9, abs=0.1)
    assert float((1 - rho[3000]) * 3000**2) == pytest.approx(9 * math.pi**2 / 2, rel=0.02)
    point = critical("erf", variance=1.0)
    q = torch.tensor(1.0, dtype=DOUBLE)
    bend = float(point.signal.curvature(q))
    _, rho = point.signal.trajectory(2000, q, zero)
    assert float(1 - rho[2000]) * 2000 == pytest.approx(2 / bend, rel=0.02)


def test_curvature_by_quadrature_is_that_of_the_formula() -> None:
    q = torch.tensor(1.3, dtype=DOUBLE)
    assert float(signal("erf", 1.0).curvature(q)) == pytest.approx(
        float(signal(lambda x: torch.erf(x), 1.0).curvature(q)), abs=1e-8
    )


def second(f, z: float) -> float:
    """f'' away from kinks."""
    x = torch.tensor(z, dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(f(x), x, create_graph=True)
    return float(torch.autograd.grad(slope, x)[0])


@pytest.mark.parametrize(
    ("name", "f"), [("elu", F.elu), ("celu", F.celu), ("softsign", F.softsign), ("own", lambda x: F.elu(x - 0.3))]
)
def test_curvature_counts_slopes_with_a_kink(name, f) -> None:
    q, place = torch.tensor(0.8, dtype=DOUBLE), 0.3 if name == "own" else 0.0
    pieces = [
        quad(lambda z: second(f, z) ** 2 * math.exp(-z * z / 1.6) / math.sqrt(1.6 * math.pi), *ends, epsabs=1e-11)[0]
        for ends in ((-10, place), (place, 10))
    ]
    assert float(signal(name if name != "own" else f, 1.5).curvature(q)) == pytest.approx(1.5 * 0.8 * sum(pieces), rel=1e-7)
    assert float(signal(lambda x: f(x), 1.5).curvature(q)) == pytest.approx(1.5 * 0.8 * sum(pieces), rel=1e-7)


@pytest.mark.parametrize(
    "f", ["relu", "selu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "sign", dual("rectified_power", degree=1),
          lambda x: x.clamp(-1, 1), lambda x: torch.relu(x - 0.3), torch.round],
    ids=["relu", "selu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "sign", "power", "clamp", "moved", "round"],
)  # fmt: skip
def test_curvature_is_infinite_where_a_slope_jumps(f) -> None:
    assert float(signal(f, 1.5).curvature(torch.tensor(0.8, dtype=DOUBLE))) == math.inf


def test_curvature_of_what_is_straight_or_bends_once() -> None:
    q = torch.tensor([0.0, 0.8], dtype=DOUBLE)
    assert signal("identity", 1.5).curvature(q).tolist() == signal(lambda x: 2 * x, 1.5).curvature(q).tolist() == [0, 0]
    assert signal(dual("rectified_power", degree=2), 1.0).curvature(q).tolist() == pytest.approx([0, 1.6])
    with pytest.raises(KernelError, match="differentiate twice"):
        signal(Once.apply, 1.0).curvature(q)


class Once(torch.autograd.Function):
    """A function with one derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].cos()


@pytest.mark.parametrize(("name", "bias"), [("silu", 0.1), ("gelu", 0.01), ("gelu", None), ("mish", 0.05), ("hardswish", 0.1)])
def test_points_that_variances_leave_are_refused(name, bias) -> None:
    with pytest.raises(KernelError, match=r"chi_parallel = 1\.\d+ > 1.*another sigma_b\^2.*half_stable"):
        critical(name, bias=bias)
    taken = critical(name, bias=bias, stable=False)
    assert taken.bias == (bias or 0.0) and taken.signal.phase() == "critical"
    with pytest.raises(KernelError, match="chi_parallel"):
        lazyrich.init.critical(name, bias=bias)


def test_a_critical_signal_stays_at_its_own_variance() -> None:
    for point in (critical("mish", bias=0.1), critical("gelu", bias=0.5), critical("gelu", variance=9.0), half_stable("gelu")):
        net, q = point.signal, torch.tensor(point.variance, dtype=DOUBLE)
        assert net.variance == pytest.approx(point.variance, rel=1e-12) and net.phase() == "critical"
        assert float(net.chi_parallel(q)) <= 1 + 1e-9
        start = 1.01 * q
        assert float(net.trajectory(300, start, q / q)[0][-1]) <= float(start)


def test_a_kink_at_zero_has_the_slope_around_it() -> None:
    elu, selu = critical("elu"), critical("selu")
    assert elu.weight == pytest.approx(1.0) and elu.signal.phase() == "critical"
    assert selu.weight == pytest.approx(2 / (1.0507009873554805**2 * (1 + 1.6732632423543772**2)))


def test_intervals_of_bias_variances_do_not_contradict_themselves() -> None:
    for name in ("hardtanh", "relu6"):  # straight around zero
        with pytest.raises(KernelError, match="no half-stable point"):
            half_stable(name)
    with pytest.raises(KernelError, match="sigma_b.2 = 0; no other sigma_b.2 has a stable one"):
        critical(lambda x: torch.log(torch.cosh(x)), bias=0.0)
    with pytest.raises(KernelError, match="expected 0, the only one of a scale-invariant"):
        critical("abs", bias=0.5)
    with pytest.raises(KernelError, match=r"= 1e\+06; expected another sigma_b\^2: a stable one has about .* to 9.*e\+03"):
        critical("tanh", bias=1e6)
    with pytest.raises(KernelError, match="no critical initialisation"):
        critical("sign", bias=0.5)


@pytest.mark.parametrize(
    ("phi", "weight", "at"),
    [(dual(lambda x: torch.tanh(x) + 0.2 * torch.sign(x), (0.0,)), 1.5, 60), (dual(F.hardshrink, (-0.5, 0.5)), 0.9, 15)],
)
def test_an_activation_with_jumps_is_chaotic_at_the_rate_of_the_iterated_map(phi, weight, at) -> None:
    net = signal(phi, weight, 0.05)
    q = torch.tensor(net.variance, dtype=DOUBLE)
    _, rho = net.trajectory(120, q, torch.tensor(0.99, dtype=DOUBLE))
    assert net.phase() == "chaotic" and net.correlation == pytest.approx(float(rho[-1]), abs=1e-6) and net.correlation < 0.95
    rate = -1 / math.log(float((rho[at] - net.correlation) / (rho[at - 1] - net.correlation)))
    assert net.depth_scales()[1] == pytest.approx(rate, rel=1e-3)
    with pytest.raises(KernelError, match="no critical initialisation"):
        critical(phi, bias=0.05)


@pytest.mark.parametrize("name", known())
def test_a_bias_variance_leads_back_to_the_critical_point_that_has_it(name) -> None:
    """At round numbers, which lie on the grid that is searched."""
    for variance in (0.01, 0.1, 1.0, 10.0):
        try:
            point = critical(name, variance=variance)
        except KernelError:
            continue
        if point.bias > 1e-8:  # below that it is the rounding of a scale-invariant activation
            assert any(other.variance == pytest.approx(variance, rel=1e-6) for other in _with_bias(point.phi, point.bias))


def test_roots_are_crossings_and_no_stretches_of_rounding() -> None:
    middle = float(GRID[len(GRID) // 2])
    assert _roots(lambda q: q - middle, 1e-12 * GRID) == pytest.approx([middle]), "a root on a point of the grid"
    assert _roots(lambda q: q - middle, 1e-12 * GRID, lambda q: q > 2 * middle) == []
    assert _roots(lambda q: (q > 9 * middle).double() - (q < middle / 9).double(), 1e-12) == []
