"""The truncated hierarchy as an equation of motion, against its exact lowest order and against trained networks."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import TangentError
from lazyrich.reference import resolve
from lazyrich.tangent import higher_kernels, ntk_velocity


def small(width=12, outputs=1, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(3, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, outputs)
    ).double()
    return model, torch.randn(3, 3).double(), torch.randn(3, outputs).double(), torch.randn(2, 3).double()


def trained(model, x, y, inputs, times, steps_a_unit, rates=None):
    """Outputs under gradient flow on 1/(2N) sum, by fourth-order Runge-Kutta on the parameters themselves."""
    named = dict(model.named_parameters())
    state = [p.detach().clone() for p in named.values()]
    scales = [(rates or {}).get(name, 1.0) for name in named]

    def outputs(theta, x):
        return torch.func.functional_call(model, dict(zip(named, theta, strict=True)), (x,))

    def velocity(theta):
        theta = [p.detach().requires_grad_() for p in theta]
        loss = (outputs(theta, x) - y).square().sum() / (2 * len(x))
        return [-s * g for s, g in zip(scales, torch.autograd.grad(loss, theta), strict=True)]

    def moved(h, k):
        return [p + h * v for p, v in zip(state, k, strict=True)]

    found, now = [], 0.0
    for time in times:
        steps = max(1, round((time - now) * steps_a_unit))
        h = (time - now) / steps
        for _ in range(steps if time > now else 0):
            k1 = velocity(state)
            k2 = velocity(moved(h / 2, k1))
            k3 = velocity(moved(h / 2, k2))
            k4 = velocity(moved(h, k3))
            state = moved(h / 6, [a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True)])
        now = time
        found.append(outputs(state, inputs).detach())
    return torch.stack(found)


@pytest.mark.parametrize("loss", ["mean", "sum", "mse"])
def test_order_two_is_the_linearised_network_in_every_normalisation(loss):
    model, x, y, _ = small(outputs=2)
    kernels = higher_kernels(model, x, order=2)
    theta, times = kernels.k2.reshape(3, 2, 3, 2), [0.0, 0.5, 3.0]
    got = lzr.hierarchy(model, x, y, 2, times=times, loss=loss, lr=0.3)
    want = lzr.gradient_flow(theta, y, t=times, lr=0.3, loss=loss, f0_train=model(x).detach())
    torch.testing.assert_close(got.train, want.train, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(got.losses, want.losses, rtol=1e-6, atol=1e-9)
    assert got.valid_until == 3.0


def test_each_order_is_one_power_of_time_better():
    """With K_p frozen the outputs agree with gradient flow up to t^(p-1), so their error starts as t^p."""
    model, x, y, x_test = small(outputs=2)
    rates = {"0.weight": 2.0, "4.bias": 0.5}
    kernels = higher_kernels(model, x, x_test, rates=rates)
    times = [0.02, 0.04]
    truth = trained(model, x, y, torch.cat([x, x_test]), times, 400, rates)
    for order in (2, 3, 4):
        got = lzr.hierarchy(model, x, y, order, times=times, x_test=x_test, kernels=kernels)
        errors = (torch.cat([got.train, got.test], 1) - truth).flatten(1).norm(dim=1)
        assert float((errors[1] / errors[0]).log2()) == pytest.approx(order, abs=0.15)


def test_order_four_is_the_best_prediction_of_training():
    model, x, y, x_test = small(width=48)
    kernels, times = higher_kernels(model, x, x_test), [0.0, 4.0]
    truth = trained(model, x, y, x_test, times, 20)
    errors = [
        float((lzr.hierarchy(model, x, y, p, times=times, x_test=x_test, kernels=kernels).test - truth)[1].norm())
        for p in (2, 3, 4)
    ]
    assert errors[2] < errors[0] / 5
    assert errors[2] < errors[1] / 2


def test_the_kernel_starts_moving_as_k3_says():
    model, x, y, _ = small()
    found = lzr.hierarchy(model, x, y, 4, times=[0.0, 1e-5], lr=0.7)
    velocity = (found.ntk[1] - found.ntk[0]) / 1e-5
    torch.testing.assert_close(velocity, ntk_velocity(model, x, y, lr=0.7), rtol=1e-3, atol=1e-4)


def test_a_prediction_that_contradicts_itself_ends_and_says_why():
    model, x, y, _ = small(width=3)
    found = lzr.hierarchy(model, x, 40 * y, 4, times=[0.0, 0.01, 50.0])
    assert 0 < found.valid_until < 50
    assert found.reason in str(found)
    assert "moved by its own norm" in found.reason
    start, end = lzr.hierarchy(model, x, 40 * y, 4, times=[0.0, 0.999 * found.valid_until]).ntk
    assert float((end - start).norm() / start.norm()) == pytest.approx(1, abs=0.01)
    assert torch.isfinite(found.train[0]).all()
    assert torch.isnan(found.train[2]).all()
    assert torch.isnan(found.losses[2])
    assert torch.isnan(found.ntk[2]).all()
    falling = found.losses[torch.isfinite(found.losses)]
    assert bool((falling.diff() < 0).all())


def test_a_prediction_that_has_learnt_everything_ends_well():
    model, x, y, _ = small(width=64)
    found = lzr.hierarchy(model, x, y, 4, times=[0.0, 400.0])
    assert found.reason is None
    assert float(found.losses[1]) < 1e-10 * float(found.losses[0])


def test_rows_and_words():
    model, x, y, _ = small()
    found = lzr.hierarchy(model, x, y.squeeze(1), 3, times=[0.0, 1.0])
    assert [set(row) for row in found.rows()] == [{"time", "train_loss", "ntk_movement"}] * 2
    assert str(found).startswith("hierarchy to order 3 on 3 samples, loss mean, lr 1")
    assert found.rows()[0]["ntk_movement"] == 0 < found.rows()[1]["ntk_movement"]
    assert found.test is None


def shifted(module):
    for p in module.parameters(recurse=False):
        p.data += 0.1


def test_what_does_not_fit_is_refused_with_the_mend():
    model, x, y, x_test = small(outputs=2)
    kernels = higher_kernels(model, x, order=2)
    other = higher_kernels(copy.deepcopy(model).apply(shifted), x, order=2)
    dead = nn.Sequential(nn.Linear(x.shape[1], 4), nn.ReLU(), nn.Linear(4, 1, bias=False)).to(x)
    dead[0].bias.data.fill_(-100.0)
    for call, says in [
        (lambda: lzr.hierarchy(model, x, y, 5, times=[1.0]), "got order 5"),
        (
            lambda: lzr.hierarchy(model, x, y[:, 0], times=[1.0]),
            r"got y of shape \(3,\), expected the outputs' \(3, 2\).*one-hot",
        ),
        (lambda: lzr.hierarchy(model, x, y, 2.0, times=[1.0]), "got order 2.0"),
        (lambda: lzr.hierarchy(model, x, y, times=[1.0], lr="a"), "got lr 'a'"),
        (lambda: lzr.hierarchy(model, x, y * torch.nan, times=[1.0]), "y has entries that are not finite"),
        (lambda: lzr.hierarchy(model, x, y, times=[1.0, float("inf")]), "infinite time"),
        (lambda: lzr.hierarchy(model, x, y, times=[2.0, 1.0]), "expected increasing"),
        (lambda: lzr.hierarchy(model, x, y, times=[1.0], lr=-1.0), "got lr -1.0"),
        (lambda: lzr.hierarchy(model, x, y, 3, times=[1.0], kernels=kernels), "kernels up to K2 for order 3"),
        (lambda: lzr.hierarchy(model, x, y, 2, times=[1.0], x_test=x_test, kernels=kernels), "expected the 5 of x and x_test"),
        (lambda: lzr.hierarchy(model, x, y, 2, times=[1.0], kernels=other), "kernels of other outputs.*leave kernels out"),
        (lambda: lzr.hierarchy(model, x.tolist(), y, 2, times=[1.0], kernels=kernels), "x: got list"),
        (lambda: lzr.hierarchy(dead, x, y[:, :1], times=[1.0]), "no parameter moves the outputs at these inputs"),
        (lambda: lzr.hierarchy(model, x.flip(0), y, 2, times=[1.0], kernels=kernels), "on x and x_test in this order"),
    ]:
        with pytest.raises(TangentError, match=says):
            call()


def study(function):
    return resolve(f"{Path(__file__).parents[2] / 'studies' / 'hierarchy.py'}:{function}")


@pytest.mark.slow
def test_the_terms_above_the_kernel_fall_as_one_over_the_width():
    found = study("slopes")()
    assert found["std K3"].slope == pytest.approx(-1, abs=0.1)
    assert found["E K4"].slope == pytest.approx(-1, abs=0.1)


@pytest.mark.slow
def test_the_kernel_moves_along_gradient_flow_as_k3_says():
    assert study("identity")() < 1e-4


@pytest.mark.slow
def test_order_four_predicts_five_times_better_than_order_two():
    two, _, four = study("errors")(seeds=6)
    assert four < two / 5
