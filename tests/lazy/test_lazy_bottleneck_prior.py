"""The deep-GP prior of a bottleneck and its tangent kernel at initialisation, against exact moments and wide networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp

import lazyrich as lzr
from lazyrich.errors import KernelError
from lazyrich.gaussian import dual
from lazyrich.inference import log_marginal
from lazyrich.lazy.bottleneck import (
    BottleneckPrior,
    bottleneck_ntk,
    dependence,
    derivative_covariance,
    homogeneous_dependence,
    homogeneous_kurtosis,
    kurtosis,
)
from lazyrich.lazy.bottleneck.gauss import root
from lazyrich.lazy.bottleneck.likelihood import mean_weight

DOUBLE = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


class Dense:
    """Layers without biases, written out: K <- w E[phi phi], Theta <- K + w Theta E[phi' phi']."""

    def __init__(self, activation: str, hidden: int = 1, w: float = 1.0) -> None:
        self.dual, self.depth, self.w = dual(activation), hidden, w

    def both(self, x1: Tensor, x2: Tensor | None) -> tuple[Tensor, Tensor]:
        x2 = x1 if x2 is None else x2
        c, q1, q2 = x1 @ x2.T, x1.square().sum(1)[:, None], x2.square().sum(1)[None]
        c, q1, q2 = (self.w * v / x1.shape[1] for v in (c, q1, q2))
        theta = c
        for _ in range(self.depth):
            values, slopes = self.dual.both(c, q1, q2)
            theta = self.w * (values + theta * slopes)
            c, q1, q2 = self.w * values, self.w * self.dual.variance(q1), self.w * self.dual.variance(q2)
        return c, theta

    def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        return self.both(x1, x2)[0]

    def ntk(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        return self.both(x1, x2)[1]


class Linear:
    def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        return x1 @ (x1 if x2 is None else x2).T / x1.shape[1]

    ntk = nngp


class Erf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


X = normal(4, 5, seed=1)


@pytest.mark.parametrize("latents", [1, 2, 5])
@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_a_homogeneous_decoder_has_the_exact_fourth_moments(latents, hidden):
    f = BottleneckPrior(Dense("relu"), Dense("relu", hidden), latents).sample(X[:1], outputs=40, draws=6000, seed=3).outputs
    for measured, exact in ((kurtosis(f), homogeneous_kurtosis(latents)), (dependence(f), homogeneous_dependence(latents))):
        assert float(measured.error) < 0.05 * exact
        assert abs(float(measured.value) - exact) < 4 * float(measured.error)


def test_the_kurtosis_is_within_three_percent():
    f = BottleneckPrior(Dense("relu"), Dense("relu"), 2).sample(X[:1], outputs=200, draws=20_000, seed=1).outputs
    assert float(kurtosis(f).value) == pytest.approx(6, rel=0.03)
    assert float(dependence(f).value) == pytest.approx(2, rel=0.03)


def test_a_wide_network_has_the_moments_of_the_prior():
    rng, n, k, draws = torch.Generator().manual_seed(0), 128, 2, 4000
    outputs = []
    for _ in range(draws):
        h = torch.relu(torch.randn(n, generator=rng) * math.sqrt(2))
        u = torch.randn(k, n, generator=rng) @ h / math.sqrt(n)
        g = torch.relu(torch.randn(n, k, generator=rng) @ u)
        outputs.append(torch.randn(6, n, generator=rng) @ g / math.sqrt(n))
    f = torch.stack(outputs)[:, None]
    assert float(kurtosis(f).value) == pytest.approx(homogeneous_kurtosis(k), rel=0.15)
    assert float(dependence(f).value) == pytest.approx(homogeneous_dependence(k), rel=0.15)


def test_the_covariance_is_the_mean_kernel():
    """For linear sides E_u[u . u' / k] = K_enc; for a relu decoder of one input, E |u|^2 / (2k) = K_enc / 2."""
    linear = BottleneckPrior(Dense("erf"), Linear(), 3).covariance(X, draws=4000)
    assert float(((linear.value - Dense("erf").nngp(X)) / linear.error).abs().max()) < 4.5
    relu = BottleneckPrior(Dense("erf"), Dense("relu"), 3).covariance(X[:1], draws=4000)
    assert float((relu.value - Dense("erf").nngp(X[:1]) / 2).abs() / relu.error) < 4
    f = BottleneckPrior(Dense("erf"), Dense("relu"), 3).sample(X[:2], outputs=50, draws=4000).outputs
    relu = BottleneckPrior(Dense("erf"), Dense("relu"), 3).covariance(X[:2], draws=4000, seed=7)
    torch.testing.assert_close(torch.einsum("sai,sbi->ab", f, f) / (4000 * 50), relu.value, rtol=0.06, atol=0.01)


def test_a_nonlinear_bottleneck_is_read_by_the_decoder():
    u = BottleneckPrior(Linear(), Linear(), 3, torch.tanh).given(X[None, :, :3])[0]
    torch.testing.assert_close(u, torch.tanh(X[:, :3]) @ torch.tanh(X[:, :3]).T / 3)


def test_draws_are_reproducible_and_differ_between_seeds():
    prior = BottleneckPrior(Linear(), Linear(), 2)
    a, b, c = (prior.sample(X, 3, draws=np.int64(2), seed=s).outputs for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


# ---- the likelihood ----


def test_the_likelihood_of_one_sample_is_that_of_quadrature():
    """One input, linear sides: f | u ~ N(0, |u|^2/k), |u|^2 = K_enc chi^2_k, integrated on a grid."""
    k, noise, y = 2, 0.3, torch.tensor([[0.7, -0.4, 1.1]], dtype=DOUBLE)
    q = float(Linear().nngp(X[:1]))
    grid = torch.linspace(0, 80, 400_001, dtype=DOUBLE)[1:]
    variance = q * grid / k + noise
    log = -0.5 * float(y.square().sum()) / variance - 1.5 * (2 * math.pi * variance).log() - grid / 2 - math.log(2)
    exact = float(log.exp().sum() * (grid[1] - grid[0]))
    prior = BottleneckPrior(Linear(), Linear(), k)
    for steps, draws in ((0, 4000), (4, 500)):
        found = prior.log_likelihood(X[:1], y, noise, draws=draws, steps=steps, seed=5)
        assert found.reliable
        assert found.warning == ""
        assert abs(found.value - math.log(exact)) < 4 * found.error
        assert found.error < 0.05


def test_without_dependence_on_the_latents_it_is_that_of_a_gaussian_process():
    class Constant:
        def nngp(self, x1, x2=None):
            return torch.eye(len(x1), dtype=DOUBLE)

        ntk = nngp

    y = normal(4, 2)
    found = BottleneckPrior(Linear(), Constant(), 2).log_likelihood(X, y, 0.1, draws=5)
    assert found.value == pytest.approx(float(log_marginal(torch.eye(4, dtype=DOUBLE), y, 0.1)), rel=1e-12)
    assert found.error < 1e-12
    assert found.effective == pytest.approx(5)


def test_annealing_agrees_with_many_plain_draws():
    prior = BottleneckPrior(Dense("erf"), Dense("erf", w=2.0), 2)
    y = prior.sample(X, outputs=3, seed=8).outputs[0]
    plain = prior.log_likelihood(X, y, 0.02, draws=20_000, seed=1)
    annealed = prior.log_likelihood(X, y, 0.02, draws=300, steps=40, seed=2)
    assert plain.reliable
    assert annealed.reliable
    assert annealed.effective / annealed.draws > 3 * plain.effective / plain.draws
    assert abs(annealed.value - plain.value) < 4 * math.hypot(plain.error, annealed.error)


def test_an_estimate_carried_by_few_draws_says_so():
    x = normal(25, 5, seed=3)
    prior = BottleneckPrior(Dense("erf"), Dense("erf"), 2)
    y = prior.sample(x, outputs=4, seed=8).outputs[0]
    found = prior.log_likelihood(x, y, 1e-3, draws=60)
    assert not found.reliable
    assert "effective draws of 60" in found.warning
    assert "steps=" in found.warning


def test_the_mean_weights_error_is_that_of_repetition():
    logs = normal(2000, 50)
    rows = [mean_weight(row) for row in logs]
    spread = float(torch.tensor([row.value for row in rows]).std())
    assert spread == pytest.approx(sum(row.error for row in rows) / len(rows), rel=0.15)
    assert float(torch.tensor([row.value for row in rows]).mean()) == pytest.approx(0.5 - spread**2 / 2, abs=0.02)
    assert mean_weight(logs[0] - 5000).value == pytest.approx(rows[0].value - 5000)


# ---- the tangent kernel ----


def test_derivatives_are_those_of_a_linear_kernel():
    u = normal(3, 2)
    found = derivative_covariance(Linear(), u)
    torch.testing.assert_close(found[0, :, 0], u @ u.T / 2)
    for i in range(2):
        torch.testing.assert_close(found[1 + i, :, 0], u[:, i].expand(3, 3) / 2)
        torch.testing.assert_close(found[0, :, 1 + i], u[:, i, None].expand(3, 3) / 2)
        for j in range(2):
            torch.testing.assert_close(found[1 + i, :, 1 + j], torch.full((3, 3), 0.5 * (i == j), dtype=DOUBLE))


@pytest.mark.parametrize("activation", ["erf", "relu"])
@pytest.mark.parametrize("hidden", [1, 2])
def test_derivatives_are_the_moments_of_wide_decoders_and_their_gradients(activation, hidden):
    u = normal(3, 2, seed=4)
    found = derivative_covariance(Dense(activation, hidden), u)
    rng, n, draws = torch.Generator().manual_seed(1), 400, 40
    act = torch.erf if activation == "erf" else torch.relu
    total = torch.zeros_like(found)
    for _ in range(draws):
        weights = [torch.randn(n, 2 if i == 0 else n, generator=rng, dtype=DOUBLE) for i in range(hidden)]

        def units(at: Tensor, weights=weights) -> Tensor:
            for w in weights:
                at = act(at @ w.T / math.sqrt(w.shape[1]))
            return at

        parts = [units(u), *(jvp(units, (u,), (torch.eye(2, dtype=DOUBLE)[i].expand(3, 2),))[1] for i in range(2))]
        total += torch.einsum("pam,qbm->paqb", torch.stack(parts), torch.stack(parts)) / n / draws  # the mean over readouts
    torch.testing.assert_close(found, total, rtol=0.1, atol=0.03)


def test_derivatives_are_those_of_the_traced_kernel():
    first, *later = (nn.Linear(*shape, bias=False) for shape in ((2, 8), (8, 8), (8, 1)))
    net = nn.Sequential(first, nn.ReLU(), later[0], nn.ReLU(), later[1])
    traced = lzr.kernel(net, init=lzr.init.variance(w=1.5, b=0.0))
    u = normal(3, 2, seed=4)
    torch.testing.assert_close(derivative_covariance(traced, u), derivative_covariance(Dense("relu", 2, 1.5), u))


def test_the_mean_of_draws_is_the_mean_given_the_latents():
    found = bottleneck_ntk(Dense("erf"), Dense("erf"), X, latents=2, outputs=3, draws=500, seed=2)
    eye = torch.eye(3, dtype=DOUBLE)
    residual = found.theta - torch.einsum("sab,ij->saibj", found.given_latents, eye)
    scale = residual.std(0) / math.sqrt(500)
    assert float((residual.mean(0) / scale).abs().max()) < 4.5
    torch.testing.assert_close(found.mean, torch.einsum("ab,ij->aibj", found.given_latents.mean(0), eye))


def test_draws_have_the_covariance_of_the_function_and_its_gradient():
    u = normal(2, 2, seed=6)
    joint = derivative_covariance(Dense("erf"), u)
    flat = joint.reshape(6, 6)
    drawn = (root(flat) @ normal(6, 200_000, seed=3)).reshape(3, 2, -1)
    torch.testing.assert_close(torch.einsum("pad,qbd->paqb", drawn, drawn) / 200_000, joint, rtol=0.03, atol=0.01)


def test_the_draws_are_positive_semidefinite_and_symmetric():
    theta = bottleneck_ntk(Dense("relu"), Dense("relu"), X, latents=2, outputs=3, draws=4).theta.reshape(4, 12, 12)
    torch.testing.assert_close(theta, theta.transpose(1, 2))
    assert float(torch.linalg.eigvalsh(theta).min()) > -1e-10


def test_wide_networks_have_tangent_kernels_of_this_law():
    """Mean and spread of diagonal entries over networks of width 256."""

    class Net(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            shapes = {"a": (n, 5), "b": (2, n), "c": (n, 2), "d": (3, n)}
            self.w = nn.ParameterDict({k: nn.Parameter(torch.randn(*s, dtype=DOUBLE)) for k, s in shapes.items()})

        def forward(self, x: Tensor) -> Tensor:
            for name in "abcd":
                x = x @ self.w[name].T / math.sqrt(x.shape[-1])
                x = torch.erf(x) if name in "ac" else x
            return x

    torch.manual_seed(0)
    x, values = X[:2], []
    for _ in range(80):
        net = Net(256)
        rows = jacrev(lambda p, net=net: functional_call(net, p, (x,)))(dict(net.named_parameters()))
        flat = torch.cat([r.detach().flatten(2) for r in rows.values()], 2)
        values.append(torch.einsum("aip,bjp->aibj", flat, flat))
    wide, limit = torch.stack(values), bottleneck_ntk(Dense("erf"), Dense("erf"), x, 2, 3, draws=1500).theta
    error = wide.std(0) / math.sqrt(80)
    assert float(((wide.mean(0) - limit.mean(0)) / error).abs().max()) < 4.5
    assert float((wide.std(0) / limit.std(0)).mean()) == pytest.approx(1, abs=0.15)
    assert float(limit.std(0).min()) > 0.05  # random at infinite width


class Broken:
    def __init__(self, change) -> None:
        self.change = change

    def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        return self.change(x1 @ (x1 if x2 is None else x2).T)

    ntk = nngp


REFUSED = {
    "latents": (lambda: BottleneckPrior(Linear(), Linear(), 0), "latents=0"),
    "outputs": (lambda: BottleneckPrior(Linear(), Linear(), 2).sample(X, outputs=0), "outputs=0"),
    "draws": (lambda: BottleneckPrior(Linear(), Linear(), 2).sample(X, 1, draws=0), "draws=0"),
    "one draw": (lambda: BottleneckPrior(Linear(), Linear(), 2).covariance(X, draws=1), "at least 2"),
    "noise": (lambda: BottleneckPrior(Linear(), Linear(), 2).log_likelihood(X, X, 0.0), "noise=0.0"),
    "noise in words": (lambda: BottleneckPrior(Linear(), Linear(), 2).log_likelihood(X, X, "a"), "noise='a'"),
    "seed": (lambda: BottleneckPrior(Linear(), Linear(), 2).sample(X, 1, seed="a"), "seed='a'"),
    "targets in a list": (lambda: BottleneckPrior(Linear(), Linear(), 2).log_likelihood(X, [1.0], 1.0), "targets of type list"),
    "targets": (lambda: BottleneckPrior(Linear(), Linear(), 2).log_likelihood(X, X[:2], 1.0), "targets of shape"),
    "steps": (lambda: BottleneckPrior(Linear(), Linear(), 2).log_likelihood(X, X, 1.0, steps=-1), "steps=-1"),
    "input": (lambda: BottleneckPrior(Linear(), Linear(), 2).sample(X * math.nan, 1), "not finite"),
    "shape": (lambda: BottleneckPrior(Broken(lambda k: k[:, :1]), Linear(), 2).sample(X, 1), "expected \\(4, 4\\)"),
    "indefinite": (lambda: BottleneckPrior(Broken(torch.neg), Linear(), 2).sample(X, 1), "below zero"),
    "not a number": (lambda: BottleneckPrior(Linear(), Broken(lambda k: k / 0), 2).sample(X, 1), "not finite"),
    "no gradient": (lambda: bottleneck_ntk(Linear(), Broken(torch.Tensor.detach), X, 2, 1), "without gradients"),
    "jumps": (lambda: bottleneck_ntk(Linear(), Dense("sign"), X, 2, 1), "an activation with jumps has none"),
    "one output": (lambda: dependence(torch.zeros(3, 1, 1)), "one output"),
    "kurtosis of a matrix": (
        lambda: kurtosis(torch.zeros(3, 2)),
        "outputs of shape \\(3, 2\\), expected a tensor \\(S, N, d\\)",
    ),
    "dependence of a matrix": (lambda: dependence(torch.zeros(3, 2)), "outputs of shape \\(3, 2\\)"),
    "dependence of a list": (lambda: dependence([[[1.0, 2.0]]]), "outputs of type list"),
    "a network for a kernel": (
        lambda: BottleneckPrior(nn.Linear(4, 1), Linear(), 2),
        "encoder of type Linear, .*lazyrich.kernel",
    ),
    "a network behind the latents": (lambda: bottleneck_ntk(Linear(), nn.Linear(2, 1), X, 2, 1), "decoder of type Linear"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused(what):
    attempt, words = REFUSED[what]
    with pytest.raises(KernelError, match=words):
        attempt()


def test_a_tangent_behind_a_nonlinearity_is_that_of_the_decoder_with_it():
    class Behind(Dense):
        def both(self, x1: Tensor, x2: Tensor | None) -> tuple[Tensor, Tensor]:
            return super().both(torch.tanh(x1), None if x2 is None else torch.tanh(x2))

    sides = Dense("erf"), Dense("erf")
    found, plain = (bottleneck_ntk(*sides, X, 2, 3, draws=2, bottleneck=phi).theta for phi in (torch.tanh, None))
    want = bottleneck_ntk(Dense("erf"), Behind("erf"), X, 2, 3, draws=2).theta
    torch.testing.assert_close(found, want)
    assert not torch.allclose(found, plain)
