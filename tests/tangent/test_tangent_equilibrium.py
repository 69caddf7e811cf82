"""The balance of memory and backward correlation, against closed forms, limits and wide networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lazyrich.errors import KernelError, TangentError
from lazyrich.gaussian import critical, half_stable, signal
from lazyrich.tangent.equilibrium import _walk, equilibrium


def slope(activation, depths, **options) -> float:
    balances = [equilibrium(activation, depth, **options).balance for depth in depths]
    return float(np.polyfit(np.log(depths), np.log(balances), 1)[0])


def test_relu_against_the_arc_cosine_recursion_by_hand() -> None:
    depth, rho = 40, 0.3
    memory, factors = [], []
    for _ in range(depth):
        angle = math.acos(rho)
        rho = (math.sin(angle) + (math.pi - angle) * rho) / math.pi
        memory.append(1 - rho)
        factors.append(1 - math.acos(rho) / math.pi)
    backward = np.cumprod(factors[::-1])[::-1]
    found = equilibrium("relu", depth, correlation=0.3)
    np.testing.assert_allclose(found.memory.numpy(), memory, atol=1e-12)
    np.testing.assert_allclose(found.backward.numpy(), backward, atol=1e-12)
    above = int(np.argmax(backward >= np.array(memory)))  # layers above + 1 and above + 2 enclose the crossing
    gap = np.log(backward / np.array(memory))[above - 1 : above + 1]  # straight in the logarithms of layers and correlations
    assert found.balance == pytest.approx(above * ((above + 1) / above) ** float(-gap[0] / (gap[1] - gap[0])), rel=1e-9)


def test_relu_balance_points_and_their_slope() -> None:
    """Theory 12: 11, 26, 56, 124, 248; slope .65 +- .05 over [300, 3000]."""
    balances = [equilibrium("relu", depth).balance for depth in (30, 100, 300, 1000, 3000)]
    assert [math.floor(b) for b in balances] == [11, 26, 56, 124, 248]
    assert slope("relu", (300, 1000, 3000)) == pytest.approx(0.65, abs=0.05)
    deep = equilibrium("relu", 3000)
    assert float(deep.memory[-1]) * 3000**2 == pytest.approx(4.5 * math.pi**2, rel=0.02)
    rise = float(torch.log(deep.backward[1499] / deep.backward[749])) / math.log(2)
    assert rise == pytest.approx(3, abs=0.05)


def test_smooth_activations_forget_slower() -> None:
    net = critical("erf", bias=0.05).signal
    assert slope(net, (300, 1000, 3000)) == pytest.approx(2 / 3, abs=0.03)
    deep = equilibrium(net, 3000)
    q = torch.tensor(net.variance, dtype=torch.float64)
    assert float(deep.memory[-1]) * 3000 == pytest.approx(2 / float(net.curvature(q)), rel=0.05)


def test_residual_branches_over_the_root_of_the_depth_balance_at_a_fraction() -> None:
    assert slope("relu", (100, 300, 1000), residual=1.0) == pytest.approx(1.0, abs=0.03)
    fractions = [equilibrium("relu", depth, residual=1.0).fraction for depth in (500, 1000)]
    assert fractions[0] == pytest.approx(fractions[1], abs=0.005)
    assert 0.3 < fractions[0] < 0.9
    assert equilibrium("relu", 1000).fraction < 0.15


@pytest.mark.parametrize("residual", [None, 1.5])
def test_wide_networks_have_these_correlations(residual: float | None) -> None:
    """Forward and backward correlations of two inputs in float64 networks of width 600."""
    depth, width = 6, 600
    x = torch.zeros(2, width, dtype=torch.float64)
    x[0, ::2], x[1, 1::2] = 2**0.5, 2**0.5  # at right angles, variance 1
    found = equilibrium("relu", depth, residual=residual)
    forward, backward = np.zeros(depth), np.zeros(depth)
    draws = 12
    for _ in range(draws):
        weights = [torch.randn(width, width, dtype=torch.float64) * (2 / width) ** 0.5 for _ in range(depth)]
        h = x @ torch.randn(width, width, dtype=torch.float64) / width**0.5 if residual is None else x
        if residual is not None:
            h = h @ torch.randn(width, width, dtype=torch.float64) / width**0.5
        hs = []
        for weight in weights:
            branch = torch.relu(h) @ weight.T
            h = branch if residual is None else h + residual / depth**0.5 * branch
            h.requires_grad_()
            h.retain_grad()
            hs.append(h)
        readout = torch.randn(width, dtype=torch.float64)
        top = (
            torch.relu(h)
            if residual is None
            else h
            + residual / depth**0.5 * torch.relu(h) @ (torch.randn(width, width, dtype=torch.float64) * (2 / width) ** 0.5)
        )
        (top @ readout).sum().backward()
        forward += [float(torch.cosine_similarity(*a.detach(), dim=0)) / draws for a in hs]
        backward += [float(torch.cosine_similarity(a.grad[0], a.grad[1], dim=0)) / draws for a in hs]
    np.testing.assert_allclose(1 - forward, found.memory.numpy(), atol=0.04)
    np.testing.assert_allclose(backward, found.backward.numpy(), atol=0.05)


def test_what_is_offered_instead_of_an_edge_of_chaos_balances() -> None:
    assert 1 < equilibrium(half_stable("gelu").signal, 40).balance < 40
    assert equilibrium(lambda u: u.clamp(min=0), 30).balance == pytest.approx(equilibrium("relu", 30).balance, rel=1e-6)


def test_where_the_curves_do_not_cross_the_end_is_told() -> None:
    assert equilibrium("relu", 10, correlation=0.99).balance == 1.0
    assert equilibrium(signal("erf", 100.0, 0.0), 20).balance == 20  # chaotic: inputs never grow alike


def test_rows_and_words() -> None:
    found = equilibrium("relu", 12)
    assert [row["layer"] for row in found.rows()] == list(range(1, 13))
    assert str(found).startswith("relu, sigma_w^2 2, sigma_b^2 0: balance at layer")


@pytest.mark.parametrize(
    ("activation", "depth", "options", "error", "says"),
    [
        ("relu", 1, {}, TangentError, "depth 1"),
        ("relu", 10.0, {}, TangentError, "depth 10.0, expected a whole number"),
        ("relu", 9, {"correlation": "a"}, TangentError, "correlation 'a'"),
        ("relu", 9, {"correlation": 1.0}, TangentError, "correlation 1"),
        ("relu", 9, {"residual": -1.0}, TangentError, "residual -1"),
        ("tanh", 9, {}, TangentError, "critical\\('tanh', bias=0.05\\)"),
        ("gelu", 9, {}, KernelError, "gelu has no edge of chaos.*give lazyrich.gaussian.half_stable\\('gelu'\\).signal"),
        (torch.nn.Hardshrink(), 9, {}, KernelError, "give lazyrich.gaussian.signal\\(phi, weight, bias\\)"),
        ("nonsense", 9, {}, KernelError, "nonsense"),
    ],
)
def test_bad_input(activation, depth, options, error, says) -> None:
    with pytest.raises(error, match=says):
        equilibrium(activation, depth, **options)


def test_gradients_see_no_jumps_of_an_activation():
    net = signal(torch.nn.Hardshrink(), 0.9, 0.05)
    q = torch.tensor(net.variance, dtype=torch.float64)
    factor = _walk(net, net.variance, 1.0, 1, None)[1]
    assert float(factor) == pytest.approx(1) and math.isinf(float(net.chi_perp(q)))
