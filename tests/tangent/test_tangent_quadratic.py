"""The second-order expansion of a two-layer network against autograd, and training with randomised signs."""

import copy
import itertools
import pickle
from pathlib import Path

import pytest
import torch
from torch.func import jvp

from lazyrich.errors import TangentError
from lazyrich.reference import resolve
from lazyrich.tangent.quadratic import CURVED, QuadNTK, TwoLayerExpansion, curved, penalty_2_4


def moved(kind=TwoLayerExpansion, inputs=4, width=6, activation="shifted_sigmoid", **options):
    """A model off its start, whose units differ also within a pair."""
    model = kind(inputs, width, activation, **options).double()
    torch.nn.init.normal_(model.weight)
    return model, torch.randn(7, inputs).double()


@pytest.mark.parametrize("activation", sorted(CURVED))
def test_the_terms_are_the_first_two_derivatives_along_the_weights(activation):
    model, x = moved(activation=activation)
    zero, step = torch.zeros_like(model.weight), model.weight.detach()

    def first(w):
        return jvp(lambda v: model.network(x, v), (w,), (step,))[1]

    torch.testing.assert_close(model.linear(x), first(zero), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model.quadratic(x), jvp(first, (zero,), (step,))[1] / 2, rtol=1e-10, atol=1e-12)
    at = model.features(x)
    assert torch.equal(model.quadratic(at), model.quadratic(x))
    assert torch.equal(model.linear(at, 2 * step), model.linear(x, 2 * step))


@pytest.mark.parametrize("activation", sorted(CURVED))
def test_models_can_be_pickled(activation):
    model, x = moved(QuadNTK, activation=activation)
    assert torch.equal(pickle.loads(pickle.dumps(model)).network(x), model.network(x))


def test_the_network_is_the_formula_and_starts_at_zero():
    model, x = moved()
    units = torch.sigmoid(x @ (model.w0 + model.weight).T - 1)
    torch.testing.assert_close(model.network(x), (units @ model.a / 6**0.5)[:, None])
    assert float(model.network(x, torch.zeros_like(model.weight)).abs().max()) < 1e-15
    whole = model.linear(x) + model.quadratic(x) + model.remainder(x)
    torch.testing.assert_close(model.network(x), whole, rtol=1e-12, atol=1e-14)


def test_the_remainder_is_of_third_order():
    model, x = moved()
    small = [float(model.remainder(x, e * model.weight.detach()).detach().norm()) for e in (0.02, 0.01)]
    assert small[0] / small[1] == pytest.approx(8, rel=0.05)


def test_over_all_signs_the_network_is_its_quadratic_term_to_fourth_order():
    model, x = moved(QuadNTK)
    patterns = torch.tensor(list(itertools.product([1.0, -1.0], repeat=6)), dtype=torch.float64)

    def gap(size):
        weight = size * model.weight.detach()
        mean = torch.stack([model.network(x, s[:, None] * weight) for s in patterns]).mean(0)
        return float((mean - model.quadratic(x, weight)).norm())

    assert gap(0.1) / gap(0.05) == pytest.approx(16, rel=0.05)
    for s in patterns[:5]:
        signed = s[:, None] * model.weight
        torch.testing.assert_close(model.quadratic(x, signed), model.quadratic(x))


def test_training_draws_fresh_signs_and_evaluation_is_the_quadratic_term():
    model, x = moved(QuadNTK, width=64)
    again = copy.deepcopy(model)
    outputs = [model(x) for _ in range(3)]
    assert not torch.equal(outputs[0], outputs[1])
    assert all(torch.equal(again(x), out) for out in outputs)  # from the seed alone
    resumed = QuadNTK(4, 64, seed=7).double()
    resumed.load_state_dict(model.state_dict())
    assert torch.equal(resumed(x), model(x))
    assert torch.equal(model.eval()(x), model.quadratic(x))
    assert not torch.equal(QuadNTK(4, 64, seed=1).signs(), QuadNTK(4, 64, seed=2).signs())


def test_signs_are_fair_and_independent():
    model = QuadNTK(2, 200)
    drawn = torch.stack([model.signs() for _ in range(400)])
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert float(drawn.mean(0).abs().max()) < 0.25  # 5 standard deviations
    assert float((drawn[1:] * drawn[:-1]).mean().abs()) < 0.02


def test_rows_start_at_the_scale_of_the_theory():
    norms = [float(QuadNTK(50, m, start=2.0).weight.detach().norm(dim=1).square().mean().sqrt()) * m**0.25 for m in (64, 1024)]
    assert norms == pytest.approx([2.0, 2.0], rel=0.05)


def test_the_penalty_is_the_eighth_power_of_the_2_4_norm():
    weight = torch.randn(5, 3).double().requires_grad_()
    rows = [sum(float(v) ** 2 for v in row) ** 0.5 for row in weight.detach()]
    assert float(penalty_2_4(weight).detach()) == pytest.approx(sum(r**4 for r in rows) ** 2)
    model = QuadNTK(3, 8)
    model.penalty().backward()
    assert float(model.weight.grad.abs().min()) > 0


def test_a_low_rank_target_is_learnt():
    found = study("learnt")(width=256, steps=150)
    assert found["f_Q"][1] < 0.2
    assert found["f_Q"][1] < found["network with signs"][1]


@pytest.mark.parametrize("activation", [torch.sigmoid, torch.tanh, torch.erf, torch.relu, torch.nn.Identity(), torch.sin])
def test_activations_without_mean_curvature_are_refused_with_the_mend(activation):
    with pytest.raises(TangentError, match=r"second derivative has mean.*sigmoid\(z - 1\).*relu_squared.*softplus"):
        QuadNTK(3, 8, activation)
    assert curved(torch.cos)(torch.zeros(1)) == 1


def test_what_does_not_fit_is_refused():
    model = QuadNTK(3, 8)
    for call, says in [
        (lambda: QuadNTK(3, 7), "width=7.*even"),
        (lambda: QuadNTK(0, 8), "inputs=0"),
        (lambda: QuadNTK(3, 8, "sigmoid"), "got activation 'sigmoid', expected one of"),
        (lambda: model(torch.ones(5, 4)), r"got x of shape \(5, 4\), expected a tensor \(N, 3\)"),
        (lambda: model(torch.ones(5, 3).numpy()), "got x of type ndarray"),
        (lambda: QuadNTK(3.0, 8), "got inputs=3.0, .*whole numbers"),
        (lambda: QuadNTK(3, "8"), "width='8'"),
        (lambda: QuadNTK(3, 8, start=0), "got start=0, expected a positive size"),
        (lambda: QuadNTK(3, 8, seed=2**62), "got seed=4611686018427387904, expected a whole number up to"),
        (lambda: model(torch.ones(5, 3, 1)), "flatten"),
        (lambda: model(torch.ones(5, 3).double()), "model.to"),
    ]:
        with pytest.raises(TangentError, match=says):
            call()


def study(function):
    return resolve(f"{Path(__file__).parents[2] / 'studies' / 'quadratic.py'}:{function}")


@pytest.mark.slow
def test_the_terms_grow_as_the_theory_says():
    expected = study("EXPECTED")
    assert {name: slope.value for name, (slope, _) in study("slopes")().items()} == pytest.approx(expected, abs=0.08)
