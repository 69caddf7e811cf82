"""How the higher kernels start, and initialisations at which they start at a wanted size."""

from pathlib import Path

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import PlanError, TangentError
from lazyrich.family.zoo import MLP
from lazyrich.reference import resolve
from lazyrich.tangent import design, higher_kernels, onset
from lazyrich.tangent.design import initialisation


def data(samples=4, inputs=4):
    x = torch.randn(samples, inputs).double()
    return x, torch.tensor([1.0, -1.0] * (samples // 2)).double()


def family(depth=2, activation="tanh", inputs=4):
    return lzr.Family(lambda n: MLP(n, depth, inputs=inputs, outputs=1, activation=activation), base=16)


def rated(plan, width):
    return {name: setting.lr for name, setting in plan.settings(width).items()}


@pytest.mark.parametrize("centred", [False, True])
def test_the_onset_is_the_hierarchy_along_the_summed_residual(centred):
    x, y = data()
    plan = lzr.plan(family(), lzr.richness(0.25, 2.0), "sgd")
    model, rates = plan.build(24).double(), rated(plan, 24)
    found = onset(model, x, y, rates=rates, learnt=0.7, centred=centred)
    kernels = higher_kernels(model, x, rates=rates)
    start = -y if centred else model(x).detach().squeeze(1) - y
    flow = torch.linalg.matrix_exp(-found.time * kernels.k2) @ start
    assert float(flow.square().sum() / start.square().sum()) == pytest.approx(0.3, abs=1e-6)
    total = torch.linalg.solve(kernels.k2, start - flow)
    third, fourth = -kernels.k3 @ total, kernels.k4 @ total @ total / 2
    assert found.third == pytest.approx(float(third.norm() / kernels.k2.norm()), rel=1e-6)
    assert found.fourth == pytest.approx(float(fourth.norm() / kernels.k2.norm()), rel=1e-6)
    assert found.size == pytest.approx(float((third + fourth).norm() / kernels.k2.norm()), rel=1e-6)


def test_the_onset_knows_no_unit_of_the_learning_rate():
    x, y = data()
    model = family().build(16).double()
    one, other = onset(model, x, y), onset(model, x, y, rates={name: 7.0 for name, _ in model.named_parameters()})
    assert one.size == pytest.approx(other.size, rel=1e-8)
    assert one.time == pytest.approx(7 * other.time, rel=1e-8)


def test_it_predicts_what_a_little_training_moves():
    """Gradient descent until a tenth of the loss is learnt, on a network wide enough to stay near its start."""
    x, y = data()
    model = family().build(256).double()
    found = onset(model, x, y, learnt=0.1, features=["hidden.1"])
    seen = {}
    model.hidden[1].register_forward_hook(lambda _module, _args, out: seen.update(h=out.detach()))
    before, h = higher_kernels(model, x, order=2).k2, (model(x), seen["h"])[1]
    steps, sgd = 200, torch.optim.SGD(model.parameters(), lr=found.time / 200)
    for _ in range(steps):
        sgd.zero_grad()
        ((model(x).squeeze(1) - y).square().sum() / 2).backward()
        sgd.step()
    moved = higher_kernels(model, x, order=2).k2 - before
    model(x)
    assert found.size == pytest.approx(float(moved.norm() / before.norm()), rel=0.05)
    assert found.features["hidden.1"] == pytest.approx(float((seen["h"] - h).norm() / h.norm()), rel=0.05)


def test_features_that_are_zero_and_stay_so_have_not_moved():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    nn.init.constant_(model[0].bias, -9.0)
    assert onset(model, torch.zeros(2, 4), torch.ones(2), features=["1"]).features == {"1": 0.0}


def test_richness_enters_every_order_by_one_more_power():
    x, y = data()
    plain, rich = (lzr.plan(family(), lzr.richness(0.25, gamma), "sgd") for gamma in (1.0, 3.0))
    want = onset(plain.build(32), x, y, rates=rated(plain, 32), centred=True, features=["hidden.0"]).enriched(3.0)
    got = onset(rich.build(32), x, y, rates=rated(rich, 32), centred=True, features=["hidden.0"])
    for name in ("third", "fourth", "cosine", "size"):  # a float32 build rounds its scaled readout
        assert getattr(got, name) == pytest.approx(getattr(want, name), rel=1e-4)
    assert got.features["hidden.0"] == pytest.approx(want.features["hidden.0"], rel=1e-4)


def test_a_designed_network_starts_at_the_wanted_size():
    x, y = data()
    found = design(family(), x, y, 0.2, width=48, sigma_w=[1.0, 1.6], sigma_b=[None, 0.1], r=[0.0, 0.5], seeds=2)
    assert len(found.candidates) == 8
    for candidate in found.candidates:
        sizes = [
            onset(candidate.plan.build(48, seed), x, y, rates=rated(candidate.plan, 48), centred=True).size for seed in (0, 1)
        ]
        assert torch.tensor(sizes).square().mean().sqrt() == pytest.approx(0.2, rel=1e-3)
    assert len({round(c.gamma, 3) for c in found.candidates}) == 8
    weights = found.candidates[-1].plan.build(48).hidden[1].weight.detach()
    assert float(weights.std()) == pytest.approx(1.6 / 48**0.5, rel=0.05)
    assert "tangent kernel to move by 0.2 at width 48" in str(found)
    assert found.rows()[0]["sigma_w"] == 1.0


def test_a_design_takes_the_share_that_is_learnt_and_foretells_features():
    x, y = data()
    (found,) = design(family(1), x, y, 0.2, learnt=0.2, features=["hidden.0"], seeds=1).candidates
    want = onset(found.plan.build(16, 0), x, y, rates=rated(found.plan, 16), learnt=0.2, centred=True, features=["hidden.0"])
    assert want.size == pytest.approx(0.2, rel=1e-3)
    assert found.features("hidden.0") == pytest.approx(want.features["hidden.0"], rel=1e-3)


def test_sigmas_are_those_of_layers_at_the_base_width():
    assert initialisation(family(), 2.0, 0.5) == {
        "hidden.0.weight": 1.0,
        "hidden.0.bias": 0.5,
        "hidden.1.weight": 0.5,
        "hidden.1.bias": 0.5,
        "readout.weight": 0.5,
        "readout.bias": 0.5,
    }


def test_what_cannot_be_designed_is_refused_with_the_mend():
    x, y = data()

    def unbiased(n):
        model = MLP(n, 1, inputs=4, outputs=1)
        nn.init.zeros_(model.hidden[0].bias)
        return model

    def bare(n):
        return nn.Sequential(nn.Linear(4, n, bias=False), nn.Tanh(), nn.Linear(n, 1, bias=False))

    model = family().build(16)
    for call, says in [
        (lambda: design(family(), x, y, 0.0), "got size 0.0"),
        (lambda: design(family(), x, y, 0.1, seeds=0), "got seeds = 0"),
        (lambda: design(family(), x, y, 0.1, seeds=1.5), "got seeds = 1.5, expected a whole number"),
        (lambda: design(family(), x, y, "0.1"), "got size '0.1', expected a relative movement"),
        (lambda: design(model, x, y, 0.1), "got family of type MLP, expected .*lzr.Family"),
        (lambda: design(family(), x, y, 0.1, sigma_w=["1"]), r"got sigma_w=\['1'\], expected standard deviations"),
        (lambda: design(family(), x, y, 0.1, r=torch.tensor(0.5)), "expected a list"),
        (lambda: onset(model, x, y, learnt=1.0), "got learnt = 1.0"),
        (lambda: onset(model, x, y, features=["hidden.7"]), "got features 'hidden.7'.*hidden.0"),
        (lambda: onset(model, torch.ones(4, 4).double(), y, centred=True), "distinct inputs"),
        (lambda: onset(model, x, torch.zeros(4).double(), centred=True), "residual is zero"),
        (lambda: design(lzr.Family(lambda n: Random(n), base=4), x, y, 0.1, seeds=1), "does not move"),
        (lambda: design(family(), x, y, 0.1, sigma_w=[-1.0]), r"got sigma_w=\[-1.0\], expected standard deviations"),
        (lambda: design(family(), x, y, 0.1, sigma_b=[float("inf")]), "got sigma_b=.*finite"),
        (lambda: design(family(), x, y, 0.1, sigma_w=1.0), "got sigma_w=1.0, expected a list"),
        (lambda: design(family(), x, y, 0.1, sigma_w=[]), "at least one value"),
        (lambda: design(family(), x, y, 0.1, width=0), "got width = 0"),
        (lambda: design(lzr.Family(bare, base=16), x, y, 0.1, sigma_b=[0.5]), "no biases"),
        (lambda: onset(model, x, y, features="hidden.0"), "expected a list of paths"),
        (lambda: onset(model, x, y, learnt="a"), "got learnt = 'a'"),
        (lambda: onset(model, x, y.numpy()), "got y of type ndarray"),
        (
            lambda: onset(nn.Linear(4, 1).double(), torch.randn(40000, 4).double(), torch.randn(40000).double()),
            "GiB; ask for fewer",
        ),
    ]:
        with pytest.raises(TangentError, match=says):
            call()
    with pytest.raises(PlanError, match="constant at initialisation"):
        design(lzr.Family(unbiased, base=16), x, y, 0.1, sigma_b=[0.1])


class Random(nn.Module):
    """Fixed random features below a trained readout: a linear model."""

    def __init__(self, width):
        super().__init__()
        self.inner, self.readout = nn.Linear(4, width).requires_grad_(False), nn.Linear(width, 1)

    def forward(self, x):
        return self.readout(torch.tanh(self.inner(x)))


def study(function):
    return resolve(f"{Path(__file__).parents[2] / 'studies' / 'design.py'}:{function}")


@pytest.mark.slow
def test_predicted_and_measured_feature_movement_rank_alike():
    settings = study("SETTINGS")
    assert len(settings) >= 12
    found = study("correlations")(study("table")())
    assert found["predicted with measured feature movement"] > 0.9
    assert found["dNTK size with feature movement"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("r", [0.0, 0.25, 0.5])
def test_the_terms_start_as_powers_of_the_width(r):
    third, fourth = study("starts")(r)
    assert third.value == pytest.approx(r - 1, abs=0.25)  # K3 fluctuates: its slope has an interval of that size
    assert fourth.value == pytest.approx(2 * r - 1, abs=0.1)
