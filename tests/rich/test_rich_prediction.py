"""The map of limits: the scheme's own prediction against networks, and what lies between the limits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.measure.slope import fit_slope
from lazyrich.rich.fixed import descend
from lazyrich.rich.objective import Objective

STEPS, LR = 10, 0.05


class Normal(lzr.zoo.MLP):
    """Normal entries: a sum over five uniform ones is not Gaussian, and the tangent kernel by `lazy/` takes it to be."""

    def __init__(self, n, outputs=1):
        super().__init__(n, inputs=5, outputs=outputs, bias=False)
        for weight in self.parameters():
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)


def family(outputs=1):
    return lzr.Family(lambda n: Normal(n, outputs), base=64)


def data(outputs=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 5, generator=generator), torch.randn(4, outputs, generator=generator).sign()


def centred(plan, x, y, width, seed, loss, steps=STEPS, lr=LR):
    """A network trained with its initial outputs taken off: outputs, and the last layer's feature kernel at both ends."""
    model = plan.build(width, seed=seed).double()
    optimizer, start, kernels = plan.optimizer(model, lr=lr), model(x).detach(), []
    model.readout.register_forward_pre_hook(lambda _, given: kernels.append(given[0].detach() @ given[0].detach().T / width))
    found = []
    for _ in range(steps + 1):
        f = model(x) - start
        found.append(f.detach())
        optimizer.zero_grad()
        loss(f, y).backward()
        optimizer.step()
    return torch.stack(found), kernels[0], kernels[-1]


LOSSES = {
    "squared": lambda f, y: (f - y).square().sum(1).mean() / 2,
    "logistic": lambda f, y: nn.functional.softplus(-y * f).sum(1).mean(),
}


def off(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scheme", [lzr.ntk(), lzr.richness(0.0), lzr.mup(), lzr.richness(0.5, gamma=2.0)], ids=str)
def test_the_prediction_is_that_of_wide_networks(scheme, loss):
    plan, (x, y) = lzr.plan(family(outputs=2), scheme, "sgd"), data(2)
    found = lzr.rich.predict(plan, (x, y), STEPS, lr=LR, loss=loss)
    lazy = scheme in (lzr.ntk(), lzr.richness(0.0))
    assert found.regime == ("kernel" if lazy else "feature learning")
    f = torch.stack([centred(plan, x.double(), y.double(), 1024, seed, LOSSES[loss])[0] for seed in range(4)])
    scatter = float(f.std(0).norm() / f.mean(0).norm()) / 2
    assert scatter < 0.02
    assert off(found.training.outputs, f.mean(0)) < 3 * scatter
    assert float(found.training.loss[-1]) < 0.8 * float(found.training.loss[0])


def test_the_rooms_agree_where_they_meet():
    """The tangent kernel by `lazy/`, and the rich solver at the vanishing richness of a kernel-regime scheme."""
    plan, (x, y) = lzr.plan(family(), lzr.ntk(), "sgd"), data()
    lazy = lzr.rich.predict(plan, (x, y), STEPS, lr=LR).training
    rich = lzr.dmft(plan, (x, y), STEPS, lr=LR, width=2**24, samples=8000)
    assert rich.movement(2) < 1e-4
    again = descend(rich.tangent(0), Objective("squared", y.double(), len(x)), STEPS, LR)
    error = float(rich.outputs_error.norm() / rich.outputs.norm())
    assert error < 0.005
    assert off(rich.outputs, lazy.outputs) < 3 * error
    assert off(rich.outputs, again.outputs) < 3 * error


def test_between_the_limits_features_move_as_the_limit_at_the_networks_own_richness():
    """Mean movement of feature kernels at r = 1/4: size and slope 2r - 1 of centred networks, by the solver at gamma_0(n)."""
    plan, (x, y) = lzr.plan(family(), lzr.richness(0.25), "sgd"), data()
    widths, loss = (64, 256, 1024), LOSSES["squared"]
    measured, errors, predicted = [], [], []
    for width in widths:
        pairs = [centred(plan, x.double(), y.double(), width, seed, loss)[1:] for seed in range(24)]
        moves = torch.stack([end - start for start, end in pairs])
        limit = lzr.dmft(plan, (x, y), STEPS, lr=LR, width=width, samples=4000)
        wanted = limit.features(2, -1) - limit.features(2, 0)
        measured.append(float(moves.mean(0).norm()))
        errors.append(float(moves.std(0).norm()) / len(pairs) ** 0.5)
        predicted.append(float(wanted.norm()))
        assert off(moves.mean(0), wanted) < 0.05 + 3 * errors[-1] / predicted[-1]
    assert errors[-1] < 0.1 * measured[-1]
    assert fit_slope(widths, [predicted]).value == pytest.approx(-0.5, abs=0.06)
    assert fit_slope(widths, [measured]).value == pytest.approx(-0.5, abs=0.1)


def test_momentum_is_the_plans_in_both_regimes():
    x, y = data()
    for scheme in (lzr.ntk(), lzr.mup()):
        plan = lzr.plan(family(), scheme, "momentum")
        f = torch.stack([centred(plan, x.double(), y.double(), 1024, seed, LOSSES["squared"], lr=0.02)[0] for seed in range(4)])
        found = lzr.rich.predict(plan, (x, y), STEPS, lr=0.02).training.outputs
        plain = lzr.rich.predict(lzr.plan(family(), scheme, "sgd"), (x, y), STEPS, lr=0.02).training.outputs
        scatter = float(f.std(0).norm() / f.mean(0).norm()) / 2
        assert off(found, f.mean(0)) < 3 * scatter < 0.1
        assert off(plain, f.mean(0)) > 0.3


def test_a_kernel_that_does_not_move_is_a_linear_model():
    """Referee: torch's own SGD with momentum on features, three outputs, minibatches."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    y = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    batches = [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([1, 3])]
    weight = nn.Parameter(torch.zeros(9, 3, dtype=torch.float64))
    optimizer, wanted = torch.optim.SGD([weight], lr=0.3, momentum=0.5), []
    for batch in [*batches, torch.arange(4)]:
        wanted.append((features @ weight).detach())
        optimizer.zero_grad()
        LOSSES["squared"]((features @ weight)[batch], y[batch]).backward()
        optimizer.step()
    gram = features @ features.T
    for kernel in (gram, torch.kron(gram, torch.eye(3, dtype=torch.float64))):
        found = descend(kernel, Objective("squared", y, 6, batches), 3, 0.3, momentum=0.5)
        assert torch.allclose(torch.cat([found.outputs, found.test_outputs], 1), torch.stack(wanted))


@pytest.mark.parametrize(
    ("scheme", "optimizer", "words"),
    [
        (lzr.abc((0, 0, 0), (0, 0, 0), 0), "sgd", "is unstable .* no limit describes its training"),
        (lzr.mup(), "adam", "the plan is for adam; limits are predicted of gradient descent"),
    ],
)
def test_schemes_without_a_limit_are_refused(scheme, optimizer, words):
    with pytest.raises(lzr.LazyrichError, match=words):
        lzr.rich.predict(lzr.plan(family(), scheme, optimizer), data(), 3, lr=0.1)
