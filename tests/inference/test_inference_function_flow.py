"""Training on any loss in function space against training the weights of a linear model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torch.nn import functional as F

from lazyrich.errors import KernelError
from lazyrich.inference import function_flow, gradient_flow

N, M, K, P = 7, 3, 3, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TRAIN, TEST, W0, NUMBERS = draw(N, P), draw(M, P, seed=1), draw(P, K, seed=2), draw(N, K, seed=3)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 2])
SIGNS = torch.where(NUMBERS > 0, 1.0, -1.0).double()
CASES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
    "cross_entropy": (F.cross_entropy, LABELS),
    "huber": (F.huber_loss, 3 * NUMBERS),
    "logistic": (lambda f, y: F.binary_cross_entropy_with_logits(f, (y + 1) / 2), SIGNS),
    "mse": (F.mse_loss, NUMBERS),
}
GIVEN = {"f0_train": TRAIN @ W0, "f0_test": TEST @ W0}


def descend(loss: Callable, y: Tensor, lr: float, momentum: float, steps: int) -> Tensor:
    weights = torch.nn.Parameter(W0.clone())
    optimizer = torch.optim.SGD([weights], lr=lr, momentum=momentum)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(TRAIN @ weights, y).backward()
        optimizer.step()
    return weights.detach()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_torchs_sgd(name: str, momentum: float) -> None:
    loss, y = CASES[name]
    flow = function_flow(
        TRAIN @ TRAIN.T, y, TEST @ TRAIN.T, [40, 3], lr=0.1, loss=name, momentum=momentum, discrete=True, **GIVEN
    )
    for at, steps in enumerate((40, 3)):
        weights = descend(loss, y, 0.1, momentum, steps)
        torch.testing.assert_close(flow.train[at], TRAIN @ weights, rtol=0, atol=1e-10)
        torch.testing.assert_close(flow.test[at], TEST @ weights, rtol=0, atol=1e-10)
        assert float(flow.losses[at]) == pytest.approx(float(loss(TRAIN @ weights, y)), abs=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_the_flow_is_the_gradient_flow_of_the_weights(name: str) -> None:
    loss, y = CASES[name]

    def velocity(_: float, state) -> Tensor:
        weights = torch.as_tensor(state).reshape(P, K).clone().requires_grad_()
        return -0.5 * torch.autograd.grad(loss(TRAIN @ weights, y), weights)[0].reshape(-1)

    found = solve_ivp(velocity, (0, 8), W0.reshape(-1).numpy(), "DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    weights = torch.as_tensor(found).reshape(P, K)
    flow = function_flow(TRAIN @ TRAIN.T, y, TEST @ TRAIN.T, [0.0, 8.0], lr=0.5, loss=name, **GIVEN)
    torch.testing.assert_close(flow.train[1], TRAIN @ weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(flow.test[1], TEST @ weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(flow.test[0], TEST @ W0)
    torch.testing.assert_close(flow.predict(TEST @ TRAIN.T, TEST @ W0), flow.test)


@pytest.mark.parametrize("loss", ["sum", "mean", "mse", "neural_tangents"])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("discrete", [False, True])
def test_the_squared_losses_are_those_of_the_closed_form(loss: str, momentum: float, discrete: bool) -> None:
    given = {"loss": loss, "lr": 0.02, "momentum": momentum, "discrete": discrete, "t": [0, 2, 9]} | GIVEN
    ode = function_flow(TRAIN @ TRAIN.T, NUMBERS, TEST @ TRAIN.T, **given)
    exact = gradient_flow(TRAIN @ TRAIN.T, NUMBERS, TEST @ TRAIN.T, **given)
    for name in ("train", "test", "losses"):  # modes without an eigenvalue leave the dual coefficients free
        torch.testing.assert_close(getattr(ode, name), getattr(exact, name), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["LSODA", "DOP853"])
def test_other_solvers_agree(method: str) -> None:
    given = {"loss": "cross_entropy", "t": 20.0, **GIVEN}
    one, other = (function_flow(TRAIN @ TRAIN.T, LABELS, TEST @ TRAIN.T, method=m, **given).test for m in ("RK45", method))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_any_function_and_a_full_kernel_and_flat_targets() -> None:
    def fourth(f: Tensor, y: Tensor) -> Tensor:
        return (f - y).pow(4).sum()

    theta = TRAIN @ TRAIN.T
    full = torch.einsum("ab,kj->akbj", theta, torch.eye(K, dtype=torch.float64))
    shared, whole = (function_flow(k, NUMBERS, t=2.0, lr=0.01, loss=fourth) for k in (theta, full))
    torch.testing.assert_close(whole.train, shared.train, rtol=0, atol=1e-7)
    assert shared.title.startswith("gradient flow on 7 samples, loss fourth")
    flat = function_flow(theta, NUMBERS[:, 0], t=2.0, lr=0.01, loss=fourth)
    torch.testing.assert_close(flat.train, shared.train[:, 0], rtol=0, atol=1e-7)
    assert flat.losses.shape == ()


def test_logistic_takes_labels_of_either_kind_and_cross_entropy_probabilities() -> None:
    theta = TRAIN @ TRAIN.T
    signs, bits = (function_flow(theta, y, loss="logistic") for y in (SIGNS[:, 0], (SIGNS[:, 0] > 0).long()))
    torch.testing.assert_close(signs.train, bits.train)
    for dtype in (torch.bool, torch.uint8):
        same = function_flow(theta, (SIGNS[:, 0] > 0).to(dtype), loss="logistic")
        torch.testing.assert_close(same.train, bits.train)
    two = (SIGNS[:, 0] > 0, (SIGNS[:, 0] > 0).long())
    torch.testing.assert_close(*(function_flow(theta, y).train for y in two))
    hard = function_flow(theta, LABELS)
    soft = function_flow(theta, F.one_hot(LABELS).double())
    torch.testing.assert_close(hard.train, soft.train, rtol=0, atol=1e-8)
    assert function_flow(theta, LABELS, outputs=5).train.shape == (N, 5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"t": float("inf")}, "expected finite times"),
        ({"t": 0.5, "discrete": True}, "whole numbers of steps"),
        ({"loss": "hinge"}, "expected one of cross_entropy, logistic, huber"),
        ({"loss": "logistic"}, "expected 0 and 1, or -1 and 1"),
        ({"loss": "huber", "y": NUMBERS * torch.nan}, "y with values that are not finite"),
        ({"y": LABELS - 1}, "got label -1"),
        ({"f0_train": torch.zeros(N, 2)}, "got label 2 for outputs"),
        ({"f0_train": torch.zeros(N + 1, K)}, "8 initial outputs for 7 targets"),
        ({"loss": lambda f, y: 2 * f}, "not a differentiable scalar"),
        ({"loss": lambda f, y: torch.tensor(1.0)}, "not a differentiable scalar"),
        ({"loss": lambda f, y: (f @ y).sum()}, "a loss that fails on outputs"),
        ({"loss": lambda f, y: (f * torch.nan).sum()}, "gradient of the loss with .* not finite"),
        ({"loss": ["huber"]}, r"got loss \['huber'\]"),
        ({"lr": None}, "got lr None"),
        ({"method": "Euler"}, "expected one of RK45"),
        ({"y": LABELS[:0]}, r"got y of shape \(0,\)"),
        ({"y": torch.tensor(1)}, r"got y of shape \(\)"),
        ({"f0_train": torch.tensor(1.0)}, r"got f0_train of shape \(\)"),
        ({"f0_train": torch.zeros(N, K), "outputs": "3"}, "got outputs = '3', expected a whole number"),
        ({"f0_train": torch.zeros(N, K), "outputs": K + 1}, "as f0_train has them"),
        ({"loss": lambda f, y: -f.pow(4).sum(), "f0_train": torch.ones(N, K), "t": 1e3}, "not finite|could not follow"),
    ],
)
def test_bad_flows_are_refused_in_words(change: dict, complaint: str) -> None:
    with pytest.raises(KernelError, match=complaint):
        function_flow(**({"theta_dd": TRAIN @ TRAIN.T, "y": LABELS, "t": 1.0} | change))
