"""The pi-limit against finite networks whose gradients are projected, and against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.measure.slope import fit_slope
from lazyrich.rich import Layer, Network, ProjectedLimit
from lazyrich.rich.objective import LOSSES

STEPS, LR, RANK = 8, 0.15, 5
NETWORK = Network(
    4,
    (Layer(2.0, 0.3, bias_rate=0.5), Layer(2.0, 0.1, weight_rate=1.5, bias_rate=0.4), Layer(1.0, bias_rate=0.2)),
    "relu",
    outputs=2,
    gamma0=1.3,
)


def data():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return x, torch.randn(6, 2, generator=generator, dtype=torch.float64).sign()


def limit_of(network=NETWORK, **options):
    return ProjectedLimit(network, RANK, **({"dtype": torch.float64, "seed": 1} | options))


def projected(limit, x, y, width, seed, loss="squared", momentum=0.0, batches=None, lr=LR):
    """A finite network drawn from a fresh limit, its gradients projected to the directions that it was drawn with."""
    generator = torch.Generator().manual_seed(seed)
    omegas = [torch.randn(width, RANK, generator=generator).to(torch.float64) for _ in range(limit.network.depth)]
    model, rates = limit.sample(width, seed), limit.rates(width, lr)
    layers = [m for m in model if isinstance(m, nn.Linear)]
    groups = []
    for layer, (weight, bias) in zip(layers, rates, strict=True):
        groups += [{"params": [layer.weight], "lr": weight}, {"params": [layer.bias], "lr": bias}]
    optimizer, outputs = torch.optim.SGD(groups, lr=lr, momentum=momentum), []
    for step in range(STEPS + 1):
        f = model(x)
        outputs.append(f.detach())
        chosen = torch.arange(len(x)) if batches is None or step == STEPS else batches(step)
        optimizer.zero_grad()
        LOSSES[loss](f[chosen], y[chosen]).backward()
        for layer, omega in zip(layers[:-1], omegas, strict=True):
            for p in layer.parameters():
                p.grad = omega @ (omega.T @ p.grad) / width
        optimizer.step()
    return torch.stack(outputs), model


@pytest.mark.parametrize(("loss", "momentum", "batch"), [("squared", 0.0, None), ("logistic", 0.6, 4)])
def test_finite_projected_networks_approach_the_limit_as_one_over_the_root_of_the_width(loss, momentum, batch):
    x, y = data()
    options = {"lr": LR, "loss": loss, "momentum": momentum, "batch": batch}
    path = []
    for steps in range(STEPS + 1):
        limit = limit_of()
        if steps:
            limit.fit((x, y), steps, **options)
        path.append(limit(x))
    wanted = torch.stack(path)
    order = lzr.data.ArrayData(torch.arange(6), torch.arange(6))
    batches = (lambda step: order.batch(batch, step, 0)[0]) if batch else None
    widths = (96, 384, 1536)
    found = [[projected(limit_of(), x, y, n, seed, loss, momentum, batches) for n in widths] for seed in range(4)]
    errors = [[float((outputs - wanted).norm()) for outputs, _ in row] for row in found]
    slope = fit_slope(widths, errors)
    assert slope.value == pytest.approx(-0.5, abs=0.2), str(slope)
    mean = torch.stack([row[-1][0] for row in found]).mean(0)
    assert float((mean - wanted).norm() / wanted.norm()) < 0.05
    still, moved = limit_of().features(2, x), limit_of()
    moved.fit((x, y), STEPS + 1, **options)
    kernels = [hidden(model, x) for model in (row[-1][1] for row in found)]
    off = float((torch.stack(kernels).mean(0) - moved.features(2, x)).norm())
    assert off < 0.2 * float((moved.features(2, x) - still).norm())
    assert float((moved.features(2, x) - still).norm() / still.norm()) > 0.2


def hidden(model, x):
    """The last hidden layer's feature kernel."""
    h = model[:-1](x).detach()
    return h @ h.T / h.shape[1]


def test_slopes_are_those_of_autograd():
    """The backward pass of a sum, against autograd through the closed form."""
    limit, (x, y) = limit_of(), data()
    limit.fit((x, y), 3, lr=LR)
    held = limit.sums[0]
    g = torch.randn(6, RANK, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    down = torch.randn(6, RANK, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, products = held.forward(limit.curve, g)
        found = held.backward(g, products, down)
    lengths = [t.square().sum(1) for t in (held.directions, g)]
    values = limit.curve.kernel(held.directions @ g.T, lengths[0][:, None], lengths[1][None])
    (wanted,) = torch.autograd.grad(((values.T @ held.terms) * down).sum(), g)
    assert torch.allclose(found, wanted, atol=1e-9)


def test_samples_are_the_limit_as_it_stands():
    limit, (x, y) = limit_of(), data()
    limit.fit((x, y), STEPS, lr=LR)
    errors = [[float((limit.sample(n, seed)(x).detach() - limit(x)).norm()) for n in (128, 2048)] for seed in range(8)]
    assert fit_slope((128, 2048), errors).value == pytest.approx(-0.5, abs=0.15)
    kernel = limit.features(2, x)
    kernels = torch.stack([hidden(limit.sample(2000, seed), x) for seed in range(8)])
    scatter = float(kernels.std(0).norm() / kernel.norm()) / 8**0.5
    assert scatter < 0.06
    assert float((kernels.mean(0) - kernel).norm() / kernel.norm()) < 3 * scatter


def test_a_start_has_the_lengths_of_the_network():
    x = torch.randn(20, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    network = Network(50, (Layer(2.0), Layer(2.0), Layer(2.0), Layer(1.0)), "relu")
    kernels = [ProjectedLimit(network, 200, start=400, seed=s, dtype=torch.float64).features(3, x).diagonal() for s in range(4)]
    wanted = x.square().sum(1) / 50  # E phi^2 = |h|^2 / 2, and 2 times that again layer by layer
    assert float((torch.stack(kernels).mean(0) / wanted).mean()) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ProjectedLimit(Network.uniform(3)), "got activation 'tanh', expected a rectifier"),
        (lambda: limit_of()(torch.zeros(2, 7)), "expected 4 numbers a sample"),
        (lambda: limit_of().features(3, data()[0]), "got layer 3, expected 1 to 2"),
        (lambda: limit_of().fit(data(), 2, lr=-1.0), "got lr = -1.0, expected a positive number"),
        (lambda: limit_of().fit(data(), 100, lr=50.0), "training diverges at step .* lower lr 50"),
        (lambda: limit_of().fit(data(), 100, lr=0.1, memory=1e4), "more than the 0.0 GB allowed; lower steps, batch or rank"),
        (lambda: limit_of().fit((data()[0], data()[0]), 2, lr=0.1), r"targets of shape \(6, 4\), expected \(6, 2\)"),
        (lambda: limit_of().fit(data(), 2, lr=0.1, loss="hinge"), "got loss 'hinge'"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(lzr.LazyrichError, match=words):
        call()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batch": -1}, "got batch = -1"),
        ({"steps": "1"}, "got steps = '1'"),
        ({"lr": "x"}, "got lr = 'x'"),
        ({"momentum": "x"}, "got momentum = 'x'"),
    ],
)
def test_a_fit_that_is_none_is_refused(wrong, words):
    limit = ProjectedLimit(Network.uniform(4, depth=2, activation="relu", weight=2.0), rank=4)
    with pytest.raises(lzr.LazyrichError, match=words):
        limit.fit((torch.ones(3, 4), torch.ones(3, 1)), **({"steps": 1, "lr": 0.1} | wrong))


def test_a_projected_limit_of_nothing_is_refused():
    network = Network.uniform(4, depth=2, activation="relu", weight=2.0)
    for call, words in [
        (lambda: ProjectedLimit(None), "got NoneType, expected a network of the limit"),
        (lambda: ProjectedLimit(network, rank="x"), "got rank = 'x'"),
        (lambda: ProjectedLimit(network, rank=4).sample("3"), "got width = '3'"),
        (lambda: ProjectedLimit(network, rank=4)("x"), "got inputs str"),
    ]:
        with pytest.raises(lzr.LazyrichError, match=words):
            call()
