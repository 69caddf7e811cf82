"""The early-time linear model: its averages, features and training against quadrature by others, kernels and plain loops."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lazyrich.errors import TangentError
from lazyrich.gaussian import dual
from lazyrich.reference import resolve
from lazyrich.tangent.early import EarlyModel, EarlyNetwork, averages, early_model


@pytest.mark.parametrize(
    ("activation", "zeta", "rise", "th0", "th2"),
    [
        ("erf", 2 / math.sqrt(3 * math.pi), 0.0, 0.0, 0.0),
        ("tanh", 0.60571, 0.0, 0.0, 0.0),
        ("relu", 0.5, 1 / math.sqrt(2 * math.pi), 1 / math.sqrt(2 * math.pi), 0.0),
    ],
)
def test_the_averages_are_those_of_the_paper(activation, zeta, rise, th0, th2):
    found = averages(activation)
    assert (found.zeta, found.rise, found.th0, found.th2) == pytest.approx((zeta, rise, th0, th2), abs=5e-6)


def test_the_averages_of_any_function_are_gaussian_integrals():
    z, w = np.polynomial.hermite_e.hermegauss(80)
    w = w / w.sum()
    found = averages(lambda g: torch.sin(g + 0.3))
    slope = np.cos(z + 0.3)
    expected = [(w * f).sum() for f in (slope, z * slope, np.sin(z + 0.3), (z**3 / 2 - z) * slope)]
    assert [found.zeta, found.rise, found.th0, found.th2] == pytest.approx(expected, abs=1e-12)


def gaussian(samples, scales, seed=0):
    """x = Sigma^{1/2} z with Tr Sigma = d."""
    scales = torch.tensor(scales, dtype=torch.float64)
    x = torch.randn(samples, len(scales), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x * (scales * len(scales) / scales.sum()).sqrt()


@pytest.mark.parametrize(
    ("function", "kinks"),
    [
        (torch.nn.functional.hardtanh, (-1.0, 1.0)),
        (torch.nn.functional.relu6, (6.0,)),
        (lambda g: (2 * g).clamp(-1, 0.7) + g.sin(), (-0.5, 0.35)),
    ],
)
def test_kinks_are_found_where_none_are_given(function, kinks):
    found, told = (vars(averages(function, given)).values() for given in ((), kinks))
    assert list(found) == pytest.approx(list(told), abs=1e-10)


def test_the_kernels_are_the_formulas():
    x = gaussian(40, [1.0, 2.0, 3.0, 2.0])
    a, d = averages("gelu"), 4
    s = x.norm(dim=1) / 2 - 1
    q = a.th0 + a.rise * s + a.th2 * s**2
    nu2 = a.rise**2 * 7.0 / d
    first = early_model(x, "gelu", "first", trace=7.0).kernel(x)
    second = early_model(x, "gelu", "second", trace=7.0).kernel(x)
    torch.testing.assert_close(first, a.zeta**2 * x @ x.T / d + nu2 / d)
    torch.testing.assert_close(second, a.zeta**2 * x @ x.T / d + nu2 / (2 * d) + q[:, None] * q)
    torch.testing.assert_close(early_model(x, "gelu", "both", trace=7.0).kernel(x, x[:3]), (first + second)[:, :3])


def test_the_trace_is_estimated_without_bias():
    scales = [0.5, 1.0, 1.5, 1.0, 1.0]
    true = sum(s**2 for s in scales)
    a = averages("relu").rise
    found = [early_model(gaussian(30, scales, seed), "relu").nu ** 2 * 5 / a**2 for seed in range(60)]
    assert np.mean(found) == pytest.approx(true, rel=0.1)
    assert early_model(gaussian(30, scales), "relu", trace=true).nu == pytest.approx(a * math.sqrt(true / 5))


@pytest.mark.parametrize("layers", ["first", "second", "both"])
def test_a_wide_network_starts_with_that_kernel_up_to_what_vanishes(layers):
    """With n = d^1.5 samples the spectral gap, in units of n / d, falls as d grows."""
    gaps = []
    for d in (10, 40):
        x = gaussian(round(d**1.5), [1.0] * d)
        c = x @ x.T / d
        second, slope = dual("relu").both(c, c.diagonal()[:, None], c.diagonal())
        wide = {"first": c * slope, "second": second, "both": c * slope + second}[layers]
        gap = wide - early_model(x, "relu", layers, trace=float(d)).kernel(x)
        gaps.append(float(torch.linalg.matrix_norm(gap, 2)) * d / len(x))
    assert gaps[1] < 0.7 * gaps[0]


@pytest.mark.parametrize("layers", ["first", "second", "both"])
def test_its_training_is_the_loop_that_it_stands_for(layers):
    x, y = gaussian(30, [1.0] * 5), torch.randn(30, 2, generator=torch.Generator().manual_seed(3)).double()
    model = early_model(x, "relu", layers)
    psi, beta = model.features(x), torch.zeros(model.features(x).shape[1], 2, dtype=torch.float64)
    solved = model.train(x, y, lr=0.8)
    for step in range(41):
        if step in (0, 1, 2, 7, 40):
            torch.testing.assert_close(solved.beta(step), beta, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(solved.predict(x[:4], step), psi[:4] @ beta, rtol=1e-10, atol=1e-12)
        beta = beta - 0.8 * psi.T @ (psi @ beta - y) / 30


def test_training_at_every_pace_keeps_its_digits():
    """Curvatures times lr of 1.9, 0.7, 1e-12 and 0: alternating, fast, hardly moving and not at all."""
    from lazyrich.tangent.early import EarlyTraining

    values, eye = torch.tensor([1.9, 0.7, 1e-12, 0.0], dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    model = EarlyModel(averages("erf"), "both", 2, 0.0)
    beta = EarlyTraining(model, 1.0, values, eye, torch.ones(4, 1, dtype=torch.float64)).beta(3).flatten()
    expected = [(1 + 0.9**3) / 1.9, (1 - 0.3**3) / 0.7, 3 - 3e-12, 3.0]
    torch.testing.assert_close(beta, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("layers", "trained"), [("first", {"w"}), ("second", {"v"}), ("both", {"w", "v"})])
def test_the_network_starts_at_zero_and_trains_what_it_says(layers, trained):
    net, x = EarlyNetwork(5, 12, "tanh", layers).double(), gaussian(7, [1.0] * 5)
    assert float(net(x).detach().abs().max()) == 0
    assert {name for name, p in net.named_parameters() if p.requires_grad} == trained
    assert set(net.v.tolist()) == {-1.0, 1.0}
    with torch.no_grad():
        net.w += torch.randn_like(net.w)
    expected = torch.tanh(x @ net.w.T / math.sqrt(5)) @ net.v / math.sqrt(12)
    torch.testing.assert_close(net(x)[:, 0], expected)


def test_what_does_not_fit_is_refused_with_the_mend():
    x = gaussian(20, [1.0] * 4)
    model = early_model(x, "relu")
    largest = float(torch.linalg.eigvalsh(model.kernel(x))[-1] / 20)
    for call, says in [
        (lambda: early_model(3 * x), r"mean of \|\|x\|\|\^2 / d is .*divide by"),
        (lambda: early_model(x, "cube"), "got activation 'cube', expected one of erf"),
        (lambda: early_model(x, "erf", "last"), "got layers='last', expected one of first, second, both"),
        (lambda: early_model(x[0]), "got x of shape"),
        (lambda: early_model(x.numpy()), "got x of type ndarray"),
        (lambda: early_model(x * torch.nan), "x has entries that are not finite"),
        (lambda: model.train(x, x[:, 0] * torch.nan, 0.1), "y has entries that are not finite"),
        (lambda: model.features(x[:, :2]), r"expected a tensor \(N, 4\)"),
        (lambda: model.train(x, x[:3, 0], 0.1), "20 inputs and 3 targets"),
        (lambda: model.train(x, x[:, 0], 2.1 / largest), "diverges"),
        (lambda: model.train(x, x[:, 0], 0.0), "got lr=0"),
        (lambda: model.train(x, x[:, 0], "a"), "got lr='a', expected 0 < lr <"),
        (lambda: model.train(x, x[:, 0].tolist(), 0.1), "got y of type list, expected a tensor"),
        (lambda: model.train(x, x[0, 0], 0.1), r"got y of shape \(\), expected a tensor"),
        (lambda: model.train(x.tolist(), x[:, 0], 0.1), "got x of type list, expected a tensor"),
        (lambda: model.train(x, x[:0, 0], 0.1), "20 inputs and 0 targets"),
        (lambda: model.train(x, x[:, 0], 0.1).beta(-1), "got step = -1"),
        (lambda: model.train(x, x[:, 0], 0.1).beta("x"), "got step = 'x', expected a whole number"),
        (lambda: model.train(x, x[:, 0], 0.1).predict(x, 1.5), "got step = 1.5, expected a whole number"),
        (lambda: early_model(x, 3), "got activation 3, expected one of erf"),
        (lambda: early_model(x, torch.nn.Tanh), "got activation <class .*expected one of erf"),
        (lambda: early_model(x[:, :0]), "expected a tensor"),
        (lambda: model.features(x.long()), "of torch.int64, expected real"),
        (lambda: early_model(x.long()), "of torch.int64, expected real numbers with a floating point; pass x.float"),
        (lambda: early_model(x, trace="a"), "got trace = 'a', expected a number"),
        (lambda: EarlyNetwork("a", 8), "got inputs = 'a', expected a whole number"),
        (lambda: EarlyNetwork(4, 8.5), "got width = 8.5, expected a whole number of at least 2"),
        (lambda: EarlyNetwork(4, 7), "even width"),
        (lambda: EarlyNetwork(4, 8, seed="a"), "got seed = 'a', expected a whole number"),
        (lambda: EarlyNetwork(4, 8)(x[:, :3].float()), r"got x of shape \(20, 3\), expected a tensor \(N, 4\)"),
        (lambda: early_model(x, torch.relu, kinks=("a",)), r"got kinks = \('a',\), expected the places"),
        (lambda: EarlyNetwork(4, 8, layers="last"), "got layers='last'"),
    ]:
        with pytest.raises(TangentError, match=says):
            call()


def test_whole_numbers_may_be_of_any_kind():
    assert EarlyNetwork(3, 8.0).w.shape == (8, 3)
    trained = early_model(gaussian(20, [1.0] * 4), "relu").train(gaussian(20, [1.0] * 4), torch.ones(20), torch.tensor(0.1))
    assert torch.equal(trained.beta(2.0), trained.beta(torch.tensor(2)))


def test_the_gap_to_the_network_is_small_at_moderate_size():
    gap = study("trained")("erf", 25)
    assert gap.test < 0.03
    assert 0.2 < gap.left < 0.6


def study(function):
    return resolve(f"{Path(__file__).parents[2] / 'studies' / 'early.py'}:{function}")


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["first", "second", "both"])
@pytest.mark.parametrize("activation", ["erf", "relu"])
def test_the_kernels_come_together_as_a_power_of_the_dimension(activation, layers):
    slope, _ = study("kernel_gaps")(activation, layers)
    assert slope <= -0.4


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["erf", "relu"])
def test_networks_and_model_part_less_and_less(activation):
    slope, gaps = study("gap_slope")(activation)
    assert slope <= -0.3
    assert all(gap.test < 0.01 for d, gap in gaps.items() if d >= 50)
    assert all(gap.left < 0.5 for gap in gaps.values())


def test_inputs_that_are_not_centred_are_refused():
    x = torch.rand(500, 20)
    with pytest.raises(TangentError, match="expected centred ones; subtract x.mean"):
        early_model(x / x.square().mean().sqrt(), "relu")
