"""Training dynamics against literally training a model that is linear in its parameters, where the tangent kernel is exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.inference import Dense, early_stopping, equivalent_ridge, gradient_flow, max_learning_rate, posterior

N, M, K, P = 6, 4, 2, 9
LOSSES = {
    "sum": lambda f, y: 0.5 * (f - y).square().sum(),
    "mean": lambda f, y: 0.5 * (f - y).square().sum(1).mean(),
    "mse": torch.nn.functional.mse_loss,
    "neural_tangents": lambda f, y: 0.5 * torch.nn.functional.mse_loss(f, y),
}
STEPS = [0, 1, 2, 7, 60]


@dataclass
class Linear:
    """f = features @ weights, with weights that start at w0; ``spread`` is the deviation of each weight at initialisation."""

    train: Tensor
    test: Tensor
    w0: Tensor
    y: Tensor
    spread: Tensor

    @property
    def theta(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.train @ self.train.T, self.test @ self.train.T, self.test @ self.test.T

    @property
    def prior(self) -> tuple[Tensor, Tensor, Tensor]:
        a, b = self.train * self.spread, self.test * self.spread
        return a @ a.T, b @ a.T, b @ b.T

    def descend(self, loss: str, lr: float, momentum: float, steps: list[int], decay: float = 0.0) -> tuple[Tensor, Tensor]:
        """Torch's own optimizer on the weights."""
        weights = torch.nn.Parameter(self.w0.clone())
        optimizer = torch.optim.SGD([weights], lr=lr, momentum=momentum)
        found = []
        for step in range(max(steps) + 1):
            if step in steps:
                found.append(weights.detach().clone())
            optimizer.zero_grad()
            value = LOSSES[loss](self.train @ weights, self.y)
            (value + 0.5 * decay * (weights - self.w0).square().sum()).backward()
            optimizer.step()
        return torch.stack([self.train @ w for w in found]), torch.stack([self.test @ w for w in found])


@pytest.fixture
def model() -> Linear:
    g = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return Linear(draw(N, P) / 3, draw(M, P) / 3, draw(P, K), draw(N, K), 0.3 + draw(P).abs())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_descent_is_what_torchs_sgd_does_to_a_linear_model(model: Linear, loss: str, momentum: float) -> None:
    theta_dd, theta_td, _ = model.theta
    lr = 0.9 * max_learning_rate(theta_dd, loss, momentum, outputs=K)
    train, test = model.descend(loss, lr, momentum, STEPS)
    flow = gradient_flow(
        theta_dd, model.y, theta_td, STEPS, lr=lr, loss=loss, momentum=momentum, discrete=True,
        f0_train=model.train @ model.w0, f0_test=model.test @ model.w0,
    )  # fmt: skip
    torch.testing.assert_close(flow.train, train, rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.test, test, rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.losses, torch.stack([LOSSES[loss](f, model.y) for f in train]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_ridge_is_weight_decay_towards_the_start(model: Linear, momentum: float) -> None:
    theta_dd, theta_td, _ = model.theta
    train, test = model.descend("mean", 0.3, momentum, STEPS, decay=0.4 / N)
    f0 = {"f0_train": model.train @ model.w0, "f0_test": model.test @ model.w0}
    flow = gradient_flow(
        theta_dd, model.y, theta_td, STEPS, lr=0.3, loss="mean", momentum=momentum, discrete=True, ridge=0.4, **f0
    )
    torch.testing.assert_close(flow.train, train, rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.test, test, rtol=0, atol=1e-9)
    last = gradient_flow(theta_dd, model.y, theta_td, ridge=0.4)
    wanted = posterior(theta_dd, model.y, theta_td, noise=0.4).mean
    a, k_dd = torch.linalg.solve(theta_dd + 0.4 * torch.eye(N).double(), theta_dd), model.prior[0]
    spread = gradient_flow(theta_dd, model.y, ridge=0.4, k_dd=k_dd).train_covariance
    torch.testing.assert_close(spread, k_dd + a.T @ k_dd @ a - a.T @ k_dd - k_dd @ a, rtol=0, atol=1e-10)
    torch.testing.assert_close(last.test, wanted, rtol=0, atol=1e-10)
    assert float((last.train - model.y).abs().max()) > 0.01


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_flow_is_the_ordinary_differential_equation_of_the_weights(model: Linear, loss: str, momentum: float) -> None:
    """w' = -lr grad; with momentum w' = -lr u, u' = log(m) u - log(m)/(1-m) grad: one affine system, solved by expm."""
    (theta_dd, theta_td, _), lr, times = model.theta, 0.7, [0.0, 0.3, 2.0, 25.0]
    scale = {"sum": 1, "mean": 1 / N, "mse": 2 / (N * K), "neural_tangents": 1 / (N * K)}[loss]
    hessian, pull = scale * model.train.T @ model.train, scale * model.train.T @ model.y
    zero, eye = torch.zeros(P, P).double(), torch.eye(P).double()
    friction = -math.log(momentum) if momentum else 0.0
    force = friction / (1 - momentum)
    top = torch.cat([-lr * hessian, zero, lr * pull], 1) if not momentum else torch.cat([zero, -lr * eye, 0 * pull], 1)
    low = torch.cat([force * hessian, -friction * eye, -force * pull], 1)
    system = torch.cat([top, low, torch.zeros(K, 2 * P + K).double()])
    start = torch.cat([model.w0, 0 * model.w0, torch.eye(K).double()])
    weights = [(torch.as_tensor(expm(t * system.numpy())) @ start)[:P] for t in times]
    flow = gradient_flow(
        theta_dd, model.y, theta_td, times, lr=lr, loss=loss, momentum=momentum,
        f0_train=model.train @ model.w0, f0_test=model.test @ model.w0,
    )  # fmt: skip
    torch.testing.assert_close(flow.train, torch.stack([model.train @ w for w in weights]), rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.test, torch.stack([model.test @ w for w in weights]), rtol=0, atol=1e-9)


def test_small_steps_follow_the_flow_with_and_without_momentum(model: Linear) -> None:
    theta_dd, theta_td, _ = model.theta
    for momentum in (0.0, 0.9):
        gaps = []
        for lr in (0.02, 0.01):
            given = {"lr": lr * (1 - momentum), "momentum": momentum}
            both = [gradient_flow(theta_dd, model.y, theta_td, 1 / lr, discrete=d, **given).test for d in (False, True)]
            gaps.append(float((both[0] - both[1]).abs().max()))
        assert gaps[1] < 0.03
        assert gaps[1] < 0.6 * gaps[0]
    plain, light = (gradient_flow(theta_dd, model.y, theta_td, 3.0, lr=0.1, momentum=m).test for m in (0.0, 1e-12))
    torch.testing.assert_close(plain, light, rtol=0, atol=0.01)


def test_the_limit_is_kernel_regression_and_late_times_reach_it(model: Linear) -> None:
    theta_dd, theta_td, _ = model.theta
    limit = gradient_flow(theta_dd, model.y, theta_td)
    assert limit.train.shape == (N, K)
    torch.testing.assert_close(limit.train, model.y, rtol=0, atol=1e-9)
    torch.testing.assert_close(limit.test, posterior(theta_dd, model.y, theta_td).mean, rtol=0, atol=1e-9)
    for given in ({"discrete": True, "lr": 0.3}, {"momentum": 0.5}, {"discrete": True, "lr": 0.3, "momentum": 0.9}):
        late = gradient_flow(theta_dd, model.y, theta_td, 20000, **given)
        torch.testing.assert_close(late.test, limit.test, rtol=0, atol=1e-8)


def test_with_fewer_features_than_samples_the_limit_is_least_squares() -> None:
    g = torch.Generator().manual_seed(2)
    train, test, y = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((30, 4), (5, 4), (30,)))
    limit = gradient_flow(train @ train.T, y, test @ train.T)
    wanted = test @ torch.linalg.lstsq(train, y[:, None]).solution[:, 0]
    torch.testing.assert_close(limit.test, wanted, rtol=0, atol=1e-9)
    late = gradient_flow(train @ train.T, y, test @ train.T, 1e12)
    torch.testing.assert_close(late.test, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("discrete", "momentum"), [(False, 0.0), (True, 0.0), (True, 0.9), (False, 0.9)])
def test_the_ensemble_is_that_of_gaussian_initial_weights(model: Linear, discrete: bool, momentum: float) -> None:
    """Outputs are affine in the initial weights, so unit weights give mean and covariance without sampling."""
    lr, times = 0.2, [0, 1, 5, 40]
    (theta_dd, theta_td, _), (k_dd, k_td, k_tt) = model.theta, model.prior
    given = {"lr": lr, "discrete": discrete, "momentum": momentum}
    flow = gradient_flow(theta_dd, model.y, theta_td, times, k_dd=k_dd, k_td=k_td, k_tt=k_tt, **given)
    unit, y = torch.eye(P, dtype=torch.float64), torch.zeros(N, P, dtype=torch.float64)
    if discrete and not momentum:  # the weights themselves, step by step
        moved = [torch.matrix_power(unit - lr * model.train.T @ model.train, t) for t in times]
        train, test = torch.stack([model.train @ w for w in moved]), torch.stack([model.test @ w for w in moved])
    else:
        one = gradient_flow(theta_dd, y, theta_td, times, f0_train=model.train, f0_test=model.test, **given)
        train, test = one.train, one.test
    torch.testing.assert_close(flow.test, gradient_flow(theta_dd, model.y, theta_td, times, **given).test)
    for jacobian, covariance in ((train, flow.train_covariance), (test, flow.test_covariance)):
        wanted = (jacobian * model.spread) @ (jacobian * model.spread).transpose(1, 2)
        torch.testing.assert_close(covariance, wanted, rtol=0, atol=1e-9)
    assert [row["time"] for row in flow.rows()] == times
    assert flow.rows()[0]["test_deviation"] == pytest.approx(float(k_tt.diagonal().sqrt().mean()))
    assert flow.rows()[-1]["test_deviation"] < flow.rows()[0]["test_deviation"]


def test_readout_and_ntkgp_end_at_the_posterior_and_start_at_the_prior(model: Linear) -> None:
    k_dd, k_td, k_tt = model.prior
    gp = posterior(k_dd, model.y, k_td, k_tt)
    for kind in ("readout", "ntkgp"):
        flow = gradient_flow(k_dd, model.y, k_td, [0.0, math.inf], kind=kind, k_tt=k_tt)
        torch.testing.assert_close(flow.test_covariance[0], k_tt, rtol=0, atol=1e-10)
        torch.testing.assert_close(flow.test_covariance[1], gp.covariance, rtol=0, atol=1e-8)
        torch.testing.assert_close(flow.test[1], gp.mean, rtol=0, atol=1e-8)
    theta_dd, theta_td, _ = model.theta
    ensemble = gradient_flow(theta_dd, model.y, theta_td, k_dd=k_dd, k_td=k_td, k_tt=k_tt)
    assert float((ensemble.test_covariance - gp.covariance).abs().max()) > 0.01  # not a GP posterior


def test_a_full_kernel_trains_outputs_that_share_weights() -> None:
    g = torch.Generator().manual_seed(3)
    train, test = (torch.randn(n, K, P, generator=g, dtype=torch.float64) for n in (N, M))
    w0, y = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((P,), (N, K)))
    theta_dd, theta_td = (torch.einsum("akp,bjp->akbj", a, train) for a in (train, test))
    weights, lr = w0.clone().requires_grad_(), 0.5 * max_learning_rate(theta_dd, "mse")
    for _ in range(25):
        (gradient,) = torch.autograd.grad(torch.nn.functional.mse_loss(train @ weights, y), weights)
        weights = (weights - lr * gradient).detach().requires_grad_()
    spread = torch.linspace(0.1, 1, P, dtype=torch.float64)
    kernels = [torch.einsum("akp,bjp->akbj", a * spread, b * spread) for a, b in ((train, train), (test, train), (test, test))]
    flow = gradient_flow(
        theta_dd, y, theta_td, 25, lr=lr, loss="mse", discrete=True, f0_train=train @ w0, f0_test=test @ w0,
        **dict(zip(("k_dd", "k_td", "k_tt"), kernels, strict=True)),
    )  # fmt: skip
    torch.testing.assert_close(flow.train, (train @ weights).detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.test, (test @ weights).detach(), rtol=0, atol=1e-9)
    rows, scale = train.reshape(-1, P), 2 / (N * K)
    moved = torch.matrix_power(torch.eye(P).double() - lr * scale * rows.T @ rows, 25)
    jacobian = test.reshape(-1, P) @ moved * spread
    assert flow.test_covariance.shape == (M, K, M, K)
    torch.testing.assert_close(flow.test_covariance.reshape(M * K, M * K), jacobian @ jacobian.T, rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.predict(theta_td, test @ w0), flow.test)
    assert len(flow.rows()) == 1


def test_one_time_drops_the_time_axis_and_flat_targets_the_output_axis(model: Linear) -> None:
    theta_dd, theta_td, theta_tt = model.theta
    flow = gradient_flow(theta_dd, model.y[:, 0], theta_td, 3.0, kind="ntkgp", k_tt=theta_tt)
    assert (flow.train.shape, flow.test.shape, flow.test_covariance.shape, flow.losses.shape) == ((N,), (M,), (M, M), ())
    several = gradient_flow(theta_dd, model.y, theta_td, [3.0, 1.0])
    torch.testing.assert_close(several.test[0, :, 0], flow.test)
    torch.testing.assert_close(several.predict(theta_td), several.test)
    error = several.test_error(torch.zeros(M, K))
    torch.testing.assert_close(error, several.test.square().mean((1, 2)))
    with pytest.raises(KernelError, match="expected one made with theta_td"):
        gradient_flow(theta_dd, model.y).test_error(model.y)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_below_the_largest_learning_rate_training_converges_and_above_it_diverges(
    model: Linear, loss: str, momentum: float
) -> None:
    bound = max_learning_rate(model.theta[0], loss, momentum, outputs=K)
    below, above = (model.descend(loss, factor * bound, momentum, [0, 400])[0] for factor in (0.97, 1.05))
    losses = [float(LOSSES[loss](f[-1], model.y)) / float(LOSSES[loss](f[0], model.y)) for f in (below, above)]
    assert losses[0] < 0.95
    assert not losses[1] < 1e3
    with pytest.raises(KernelError, match=r"steps that diverge: the learning rate is 1\.01 times"):
        gradient_flow(model.theta[0], model.y, lr=1.01 * bound, loss=loss, momentum=momentum, discrete=True)


def test_the_limit_of_steps_with_momentum_is_refused_from_twice_one_plus_momentum_on() -> None:
    theta, y, m = torch.diag(torch.tensor([1.0, 4.0])), torch.tensor([1.0, 2.0]), 0.9
    last = {"t": math.inf, "momentum": m, "discrete": True}
    bound = 2 * (1 + m) / 4
    assert torch.allclose(gradient_flow(theta, y, lr=0.99 * bound, **last).train, y.double())
    with pytest.raises(KernelError, match="steps that diverge: the learning rate is 1.01 times"):
        gradient_flow(theta, y, lr=1.01 * bound, **last)


def test_the_largest_learning_rate_of_an_operator_is_that_of_its_matrix(model: Linear) -> None:
    class Product:
        shape = (N, N)

        def matvec(self, v: Tensor) -> Tensor:
            return model.train @ (model.train.T @ v)

    assert max_learning_rate(Product(), "mse", outputs=K) == pytest.approx(
        max_learning_rate(model.theta[0], "mse", outputs=K), rel=1e-9
    )
    assert max_learning_rate(torch.zeros(2, 2)) == math.inf
    assert max_learning_rate(Dense(torch.zeros(5, 5))) == math.inf


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"theta": -torch.eye(3)}, "indefinite Gram matrix theta"),
        ({"theta": torch.diag(torch.tensor([1.0, -3.0]))}, "indefinite Gram matrix theta"),
        ({"theta": -torch.eye(4).reshape(2, 2, 2, 2)}, "indefinite Gram matrix theta"),
        ({"theta": Dense(torch.diag(torch.tensor([1.0, -3.0])))}, "indefinite Gram matrix theta"),
        ({"theta": Dense(torch.diag(torch.tensor([1.0, 2.0, 0.5, -3.0])))}, "indefinite operator theta"),
        ({"ridge": -5.0}, "got ridge -5.0"),
        ({"ridge": math.nan}, "got ridge nan"),
        ({"ridge": math.inf}, "got ridge inf"),
        ({"loss": "mse", "outputs": 0}, "got outputs = 0, expected a whole number of at least 1"),
        ({"outputs": math.nan}, "got outputs = nan"),
        ({"outputs": "3"}, "got outputs = '3'"),
        ({"momentum": "0"}, "got momentum '0'"),
        ({"momentum": 1.0}, "got momentum 1.0"),
        ({"loss": ["sum"]}, r"got loss \['sum'\]"),
    ],
)
def test_a_largest_rate_that_means_nothing_is_refused(change: dict, complaint: str) -> None:
    with pytest.raises(KernelError, match=complaint):
        max_learning_rate(**({"theta": torch.eye(3)} | change))


def test_what_rounding_leaves_below_zero_is_no_indefinite_theta() -> None:
    x = torch.randn(40, 2, dtype=torch.float32)
    theta = x @ x.T
    assert float(torch.linalg.eigvalsh(theta)[0]) < 0
    assert max_learning_rate(theta, ridge=1.0) == pytest.approx(2 / (float(torch.linalg.matrix_norm(x, 2)) ** 2 + 1), rel=1e-5)


def test_early_stopping_fits_each_mode_in_its_own_time(model: Linear) -> None:
    theta_dd, times = model.theta[0], [0.0, 1.0, 10.0, math.inf]
    stop = early_stopping(theta_dd, times, lr=0.5, loss="mean")
    values = torch.linalg.eigvalsh(theta_dd).flip(0)
    for row, t in zip(stop.filter, times[:3], strict=False):
        torch.testing.assert_close(row, 1 - torch.exp(-0.5 / N * t * values), rtol=0, atol=1e-12)
    torch.testing.assert_close(stop.filter[3], torch.ones(N).double())
    torch.testing.assert_close(stop.ridge, torch.tensor([math.inf, 2 * N, 0.2 * N, 0.0]).double())
    torch.testing.assert_close(stop.degrees_of_freedom, stop.filter.sum(1))
    assert stop.rows()[1]["ridge"] == pytest.approx(2 * N)
    assert "ridge" in str(stop)
    assert float(early_stopping(theta_dd, [1.0], loss="mse", outputs=K).ridge) == pytest.approx(N * K / 2)
    heavy = early_stopping(theta_dd, [1000.0], lr=1e-3, momentum=0.9)  # momentum m trains 1/(1-m) times as fast
    assert float(heavy.ridge) == pytest.approx(0.1)
    plain = early_stopping(theta_dd, [1000.0], lr=1e-2)
    torch.testing.assert_close(heavy.filter, plain.filter, rtol=0, atol=0.01)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_early_stopping_refuses_steps_that_diverge(momentum: float) -> None:
    theta = torch.diag(torch.tensor([2.0, 1.0]))
    bound = max_learning_rate(theta, "mean", momentum)
    stable = early_stopping(theta, [0, 300], 0.99 * bound, "mean", momentum, discrete=True)
    assert float(stable.degrees_of_freedom[-1]) == pytest.approx(2, abs=0.1)
    with pytest.raises(KernelError, match=rf"got lr {1.5 * bound:g} .* expected one below {bound:g}"):
        early_stopping(theta, [0, 3], 1.5 * bound, "mean", momentum, discrete=True)
    assert float(early_stopping(theta, [0, 300], 1.5 * bound, "mean", momentum).degrees_of_freedom[-1]) == pytest.approx(2)


def test_the_equivalent_ridge_lets_through_nearly_what_stopping_does() -> None:
    values = torch.logspace(-6, 3, 200, dtype=torch.float64)
    ridge = equivalent_ridge(torch.tensor([2.5], dtype=torch.float64))
    stopped, ridged = 1 - torch.exp(-values * 2.5), values / (values + ridge)
    assert bool((stopped >= ridged).all())
    assert float((stopped / ridged).max()) < 1.2985  # the bound of Ali et al. 2019, lemma 7


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"t": -1.0}, "expected none that is negative or NaN"),
        ({"t": [0.0, math.nan]}, "negative or NaN"),
        ({"t": []}, "expected a number or a list"),
        ({"t": 1.5, "discrete": True}, "whole numbers of steps"),
        ({"t": 2.0**53, "discrete": True}, "whole numbers of steps"),
        ({"lr": 0.0}, "expected a learning rate"),
        ({"momentum": 1.0}, "at least 0 and below 1"),
        ({"lr": "3"}, "got lr '3', expected a learning rate"),
        ({"lr": torch.ones(2)}, "expected a learning rate"),
        ({"momentum": [0.5]}, r"got momentum \[0.5\]"),
        ({"ridge": None}, "got ridge None"),
        ({"loss": ["sum"]}, r"got loss \['sum'\]"),
        ({"loss": "l1"}, "expected one of sum, mean, mse"),
        ({"ridge": -1.0}, "got ridge"),
        ({"kind": "nngp"}, "expected one of ntk, ntkgp, readout"),
        ({"kind": "readout", "k_dd": torch.eye(N)}, "expected theta alone"),
        ({"theta_dd": -torch.eye(N)}, "indefinite Gram matrix theta_dd"),
        ({"theta_dd": torch.eye(N + 1)}, "expected one for 6 training samples"),
        ({"theta_td": torch.ones(N, M)}, "transpose it"),
        ({"f0_train": torch.zeros(N + 1, K), "f0_test": torch.zeros(M, K)}, "got f0_train of shape"),
        ({"f0_train": torch.zeros(N, K), "f0_test": torch.zeros(N + 1, K)}, "got f0_test of shape"),
        ({"f0_train": torch.zeros(N, K)}, "got f0_train without f0_test"),
        ({"f0_test": torch.zeros(M, K), "theta_td": None}, "f0_test without theta_td"),
        ({"k_tt": torch.eye(M)}, "got k_tt, expected k_dd alone"),
        ({"k_tt": torch.eye(M), "theta_td": None, "kind": "ntkgp"}, "without theta_td"),
        ({"t": 1e5, "lr": 100.0, "discrete": True}, "diverge beyond floating point"),
        ({"k_dd": torch.eye(N), "k_td": torch.ones(M - 1, N), "k_tt": torch.eye(M)}, "the same test inputs"),
    ],
)
def test_bad_flows_are_refused_in_words(model: Linear, change: dict, complaint: str) -> None:
    given = {"theta_dd": model.theta[0], "y": model.y, "theta_td": model.theta[1], "t": 1.0} | change
    with pytest.raises(KernelError, match=complaint):
        gradient_flow(**given)


def test_a_flow_prints_as_a_table(model: Linear) -> None:
    text = str(gradient_flow(model.theta[0], model.y, t=[0, 5], discrete=True, lr=0.1, momentum=0.9))
    assert text.splitlines()[0] == "gradient descent on 6 samples, loss sum, lr 0.1, momentum 0.9"
    assert len(text.splitlines()) == 3
    assert np.isfinite(float(text.splitlines()[2].split()[-1]))


@pytest.mark.parametrize(
    ("times", "rate"), [([1.0], -1.0), ([1.0], 0.0), ([1.0], math.nan), ([1.0], "1"), ([math.nan], 1.0), ([-1.0], 1.0)]
)
def test_an_equivalent_ridge_that_means_nothing_is_refused(times: list[float], rate: float) -> None:
    with pytest.raises(KernelError, match="rate|times"):
        equivalent_ridge(torch.tensor(times), rate)


def test_weight_decay_is_scaled_as_the_loss_in_the_largest_rate():
    theta = torch.diag(torch.tensor([1.0, 4.0]))
    assert max_learning_rate(theta, loss="mean", ridge=1.0) == pytest.approx(2 / ((4.0 + 1.0) / 2))
