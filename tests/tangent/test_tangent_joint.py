"""The joint model and its regularisers against explicit Jacobians, and the ordering that they are for."""

from pathlib import Path

import pytest
import torch
from torch.autograd.functional import jacobian

from lazyrich.errors import TangentError
from lazyrich.reference import resolve
from lazyrich.tangent import NtkOperator, QuadNTK, contracted, linearize, ntk_of, taylor
from lazyrich.tangent.joint import JointModel, TangentDirections, tangent_kernel

TOP = 3


@pytest.fixture
def case():
    model = JointModel(4, 10, seed=1).double()
    torch.nn.init.normal_(model.weight)
    x, fresh = torch.randn(9, 4).double(), torch.randn(6, 4).double()
    rows = jacobian(lambda w: model.linear(x, w)[:, 0], model.weight.detach()).reshape(9, -1)
    return model, x, fresh, rows


def test_the_model_is_the_taylor_polynomial_of_its_network(case):
    model, x, _, _ = case
    assert torch.equal(model(x), model.linear(x) + model.quadratic(x))
    assert torch.equal(model(model.features(x)), model(x))
    torch.testing.assert_close(model.w0.norm(dim=1), torch.ones(10, dtype=torch.float64))
    size = 1e-3 * model.weight.detach()
    gap = model.network(x, size) - model.linear(x, size) - model.quadratic(x, size)
    assert 0 < float(gap.norm()) < 1e-2 * float(model.quadratic(x, size).norm())
    assert float(JointModel(4, 10)(torch.randn(5, 4)).detach().abs().max()) == 0


def test_the_tangent_kernel_is_that_of_the_jacobian(case):
    model, x, _, rows = case
    torch.testing.assert_close(tangent_kernel(model.features(x), model.features(x)), rows @ rows.T)


def test_the_regularisers_are_those_of_the_singular_vectors(case):
    model, x, fresh, rows = case
    directions = TangentDirections(model, x, TOP)
    u, s, v = torch.linalg.svd(rows, full_matrices=False)
    w = model.weight.detach().flatten()
    large = rows - u[:, :TOP] @ torch.diag(s[:TOP]) @ v[:TOP]
    assert directions.outside_train().item() == pytest.approx(float((large @ w).square().sum() / 9), rel=1e-9)
    off = (w - v[:TOP].T @ (v[:TOP] @ w)).view_as(model.weight)
    assert directions.outside(fresh).item() == pytest.approx(float(model.linear(fresh, off).square().mean()), rel=1e-9)
    assert directions.outside(model.features(fresh)).item() == directions.outside(fresh).item()


def test_their_gradients_leave_the_top_directions_alone(case):
    model, x, fresh, rows = case
    directions = TangentDirections(model, x, TOP)
    _, _, v = torch.linalg.svd(rows, full_matrices=False)
    for penalty in (directions.outside_train(), directions.outside(fresh)):
        (grad,) = torch.autograd.grad(penalty, model.weight)
        assert float(grad.norm()) > 1e-3
        assert float((v[:TOP] @ grad.flatten()).norm()) < 1e-9 * float(grad.norm())


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_any_optimizer_trains_it(optimizer):
    model, x = JointModel(4, 64).double(), torch.randn(30, 4).double()
    y, top = x[:, :1].square() - 1 + x[:, :1], TangentDirections(model, x, 4)
    descent, losses = optimizer(model.parameters(), lr=1.0 if optimizer is torch.optim.SGD else 0.05), []
    for _ in range(300):
        descent.zero_grad()
        loss = (model(x) - y).square().mean()
        (loss + 0.1 * top.outside_train() + 0.1 * top.outside(torch.randn(20, 4).double())).backward()
        descent.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_it_is_its_own_expansion_and_has_every_kernel(case):
    model, x, _, _ = case
    expanded, kernel = taylor(model, 2), ntk_of(model, x).reshape(9, 9)
    with torch.no_grad():
        expanded.get_parameter("weight").add_(0.3)
        model.weight.add_(0.3)
        torch.testing.assert_close(expanded(x), model(x))
        model.weight.sub_(0.3)
    one = torch.ones(9, 1, dtype=x.dtype)
    torch.testing.assert_close(NtkOperator(model, x).matvec(one), kernel @ one)
    torch.testing.assert_close(contracted(model, x, one, order=2), kernel @ one)
    assert linearize(QuadNTK(4, 8).eval())(torch.randn(3, 4)).shape == (3, 1)


def test_directions_that_do_not_exist_are_refused(case):
    model, x, _, _ = case
    with pytest.raises(TangentError, match="got top=0, expected 1 to 9"):
        TangentDirections(model, x, 0)
    with pytest.raises(TangentError, match="got top=6, expected 1 to 5.*5 inputs"):
        TangentDirections(model, x[:5], 6)
    with pytest.raises(TangentError, match="got top=2.5, expected 1 to 9"):
        TangentDirections(model, x, 2.5)
    with pytest.raises(TangentError, match="got top=True"):
        TangentDirections(model, x, True)
    with pytest.raises(TangentError, match="expected 1 to 1"):
        TangentDirections(model, x[:1].repeat(3, 1), 2)
    with pytest.raises(TangentError, match=r"got x of shape \(9, 2\)"):
        TangentDirections(model, x[:, :2], 2)


def study(function):
    return resolve(f"{Path(__file__).parents[2] / 'studies' / 'joint.py'}:{function}")


@pytest.mark.slow
def test_the_test_error_falls_from_linear_over_joint_to_regularised():
    found = [[study("errors")(recipe, seed)[1] for seed in (0, 1)] for recipe in study("ORDERED").values()]
    tests = [sum(row) / len(row) for row in found]
    assert tests == sorted(tests, reverse=True)
    assert tests[0] - tests[1] > 0.05
    assert tests[1] - tests[-1] > 0.05


@pytest.mark.slow
def test_a_network_needs_about_d_squared_samples_where_its_kernel_needs_more():
    for d in (20, 30, 40):
        n = study("samples_needed")(d)
        assert n <= 7 * d**2
        assert study("kernel_error")(d, n) > 0.5
