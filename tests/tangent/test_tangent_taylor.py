"""Expansions around initialisation, against explicit derivatives, kernels and trained networks."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev

import lazyrich as lzr
from lazyrich.errors import TangentError
from lazyrich.tangent import features, linearize, ntk_of, taylor
from lazyrich.tangent.written import smooth

DOUBLE = torch.float64


class Tied(nn.Module):
    """One matrix used twice, and a parameter and a buffer at the root."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.register_buffer("shift", torch.tensor(0.2))

    def forward(self, x):
        return self.scale * self.inner(torch.tanh(self.inner(x))) + self.shift


def conv():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.GELU(), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(12, 2))


NETWORKS = {
    "dense": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3)), (4,)),
    "tied": (Tied, (4,)),
    "conv": (conv, (1, 4, 4)),
    "attention": (lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation="gelu", batch_first=True), (3, 4)),
}


def moved(model, size, seed=5):
    """The same model with other parameters; every call moves them alike."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(size * torch.randn(p.shape, dtype=p.dtype, generator=draw))
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_the_quadratic_expansion_is_that_of_explicit_jacobians_and_hessians(name):
    build, shape = NETWORKS[name]
    model = build().to(DOUBLE)
    x = torch.randn(3, *shape, dtype=DOUBLE)
    theta = {n: p.detach() for n, p in model.named_parameters()}
    step = {n: p.detach() - theta[n] for n, p in moved(copy.deepcopy(model), 0.3).named_parameters()}
    flat, sizes = torch.cat([p.flatten() for p in theta.values()]), [p.numel() for p in theta.values()]

    def f(flat):
        parts = flat.split(sizes)
        named = {n: part.view_as(p) for (n, p), part in zip(theta.items(), parts, strict=True)}
        with smooth():
            return functional_call(model, named, (x,)).flatten()

    d = torch.cat([s.flatten() for s in step.values()])
    first = jacrev(f)(flat) @ d
    second = torch.einsum("kij,i,j->k", hessian(f)(flat), d, d)
    for order, wanted in enumerate((f(flat), f(flat) + first, f(flat) + first + second / 2)):
        found = moved(taylor(model, np.int64(order)), 0.3)(x)
        assert torch.allclose(found.flatten(), wanted, rtol=1e-10, atol=1e-10)
        assert found.shape == model(x).shape


def test_at_the_point_every_order_is_the_network_and_has_its_gradients():
    model = NETWORKS["dense"][0]().to(DOUBLE)
    x = torch.randn(6, 4, dtype=DOUBLE)
    model(x).square().sum().backward()
    for order in (1, 2, 4):
        expanded = taylor(model, order)
        assert torch.allclose(expanded(x), model(x), rtol=1e-12)
        expanded(x).square().sum().backward()
        for (name, p), q in zip(model.named_parameters(), expanded.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, rtol=1e-9, atol=1e-12), name


def test_a_linearised_network_trains_as_its_tangent_kernel_says():
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2)).to(DOUBLE)
    x, y = torch.randn(7, 4, dtype=DOUBLE), torch.randn(7, 2, dtype=DOUBLE)
    theta = ntk_of(model, x).transpose(1, 2).reshape(14, 14)
    rate, steps = 0.5 / float(torch.linalg.eigvalsh(theta)[-1]), 30
    lin = linearize(model)
    optimizer = torch.optim.SGD(lin.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (lin(x) - y).square().sum()).backward()
        optimizer.step()
    start = (model(x).detach() - y).flatten()
    decay = torch.linalg.matrix_power(torch.eye(14, dtype=DOUBLE) - rate * theta, steps)
    assert torch.allclose((lin(x) - y).flatten(), decay @ start, rtol=1e-9, atol=1e-9)


def test_higher_orders_follow_a_trained_network_more_closely():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1)).to(DOUBLE)
    x, y = torch.randn(12, 4, dtype=DOUBLE), torch.randn(12, 1, dtype=DOUBLE)
    trained = copy.deepcopy(model)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        (trained(x) - y).square().mean().backward()
        optimizer.step()
    errors = []
    for order in (1, 2, 3, 4):
        expanded = taylor(model, order)
        expanded.load_state_dict(trained.state_dict())
        errors.append(float((expanded(x) - trained(x)).detach().norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < errors[0] / 10


def test_the_network_is_left_alone_and_the_copy_stands_on_its_own():
    model = Tied()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    expanded = moved(taylor(model, 2), 0.1)
    assert list(expanded.state_dict()) == list(model.state_dict())
    assert [n for n, _ in expanded.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    x = torch.randn(3, 4)
    again = copy.deepcopy(expanded)
    assert torch.equal(again(x), expanded(x))
    moved(again, 1.0)
    assert not torch.allclose(again(x), expanded(x))
    wide = copy.deepcopy(expanded).to(DOUBLE)
    assert torch.allclose(wide(x.double()), expanded(x).double(), atol=1e-5)


def test_a_plan_of_the_network_serves_its_expansion():
    family = lzr.Family(lambda n: nn.Sequential(nn.Linear(4, n), nn.ReLU(), nn.Linear(n, 2)), base=8)
    plan, model = lzr.plan(family, lzr.mup(), "sgd"), family.build(32)
    groups = [{k: v for k, v in g.items() if k != "params"} for g in plan.param_groups(model, 0.1)]
    assert [{k: v for k, v in g.items() if k != "params"} for g in plan.param_groups(taylor(model, 1), 0.1)] == groups
    assert len({g["lr"] for g in groups}) > 1


def test_train_does_not_wake_dropout():
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1)).eval()
    expanded, x = taylor(model, 1).train(), torch.randn(4, 3)
    assert expanded.training
    assert torch.equal(expanded(x), expanded(x))
    with pytest.raises(TangentError, match=r"1 \(Dropout\).*eval"):
        taylor(model.train(), 1)


@pytest.mark.parametrize("order", [-1, 9, 1.5, "2", True])
def test_an_order_that_makes_no_expansion_is_refused(order):
    with pytest.raises(TangentError, match="from 0 to 8"):
        taylor(nn.Linear(2, 2), order)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.outer(self.inner(x)[0][:, -1])


def test_recurrent_networks_expand_in_either_precision():
    torch.manual_seed(0)
    model, x = Recurrent(), torch.randn(3, 6, 4)
    for net, inputs in ((model, x), (copy.deepcopy(model).double(), x.double())):
        expanded = taylor(net, 2)
        with torch.no_grad():
            for p in expanded.parameters():
                p.add_(0.01)
            moved = copy.deepcopy(net)
            for p in moved.parameters():
                p.add_(0.01)
        assert float((expanded(inputs) - moved(inputs)).detach().abs().max()) < 1e-4
    assert features(model, x, ["inner"])["inner"].shape == (3, 6, 5)


class Odd(nn.Module):
    """What no module's kind shows."""

    def __init__(self, way):
        super().__init__()
        self.way, self.layer = way, nn.Linear(3, 2)
        self.register_buffer("count", torch.zeros(2))

    def forward(self, x):
        h = self.layer(x)
        if self.way == "draws":
            return nn.functional.dropout(h, 0.5)
        if self.way == "mixes":
            return h - h.mean(0)
        if self.way == "counts":
            self.count += 1
        return {"logits": h} if self.way == "names" else h


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("draws", "draws at random.*eval"),
        ("mixes", "mixes samples"),
        ("counts", "changes 'count' in place"),
        ("names", "returns dict"),
    ],
)
def test_what_is_no_function_of_its_samples_is_refused_on_the_first_inputs(way, says):
    with pytest.raises(TangentError, match=says):
        linearize(Odd(way))(torch.randn(4, 3))


class Strung(nn.EmbeddingBag):
    """Bags in one row, by offsets."""

    def forward(self, x):
        return super().forward(x.flatten(), torch.arange(0, x.numel(), x.shape[1]))


def test_inputs_that_do_not_fit_are_refused_by_name():
    expanded = linearize(Odd("plain"))
    for x, says in ((torch.randn(4, 5), "does not take x of shape"), (torch.randn(4, 3).double(), "x is torch.float64"),
                    (torch.full((4, 3), float("nan")), "not finite"), (torch.randn(4, 3).numpy(), "got ndarray")):  # fmt: skip
        with pytest.raises(TangentError, match=says):
            expanded(x)
    with pytest.raises(TangentError, match="without a forward derivative"):
        linearize(Strung(7, 5))(torch.randint(0, 7, (3, 3)))
    assert torch.vmap(expanded)(torch.randn(4, 1, 3)).shape == (4, 1, 2)


def test_what_was_frozen_at_the_point_cannot_train():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    expanded = linearize(model)
    expanded.get_submodule("0").requires_grad_(True)
    with pytest.raises(TangentError, match="'0.weight' was frozen when the network was expanded"):
        expanded(torch.randn(2, 3))


def test_derivatives_that_are_not_finite_at_the_point_are_refused():
    class Rooted(nn.Linear):
        def forward(self, x):
            h = super().forward(x)
            return h + (h - h.detach()).abs().pow(1.5)

    x = torch.randn(2, 3)
    assert torch.equal(linearize(Rooted(3, 1))(x).isfinite(), torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(TangentError, match="Rooted has derivatives that are not finite where it was expanded"):
        taylor(Rooted(3, 1), 2)(x)


def test_what_a_network_sets_anew_as_it_runs_is_put_back():
    class Running(nn.Linear):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.register_buffer("mean", torch.zeros(1))
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            h = super().forward(x).tanh()
            self.mean, self.count, self.last = 0.9 * self.mean + 0.1 * h.detach().mean(0), self.count + 1, h
            return h / (1 + self.count)

    net, x = Running(3, 1), torch.randn(5, 3)
    once, names = copy.deepcopy(net)(x), set(vars(net))
    quadratic = taylor(net, 2)
    for _ in range(3):
        torch.testing.assert_close(quadratic(x), once)
    assert torch.equal(copy.deepcopy(quadratic)(x), quadratic(x))
    assert not quadratic.get_buffer("count").any() and not quadratic.get_buffer("mean").any()
    ntk_of(net, x)
    assert set(vars(net)) == names and not net.count.any()
