"""The exact symmetry of abc-parameterisations, trained by hand in float64, and the plan's own gauges."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import PlanError
from lazyrich.scaling.readout import readouts, unfollowed

WIDTH, INPUTS, BATCH, STEPS = 23, 5, 7, 10
EXACT, CLEARLY_DIFFERENT = 1e-10, 1e-3


def rows_of(scheme, entrywise, depth):
    """One row of exponents a weight matrix: input, depth - 1 hidden ones, readout."""
    layers = scheme.layers(entrywise)
    return [layers.input, *[layers.hidden] * (depth - 1), layers.output]


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64)
    y = torch.randn(BATCH, 2, generator=generator, dtype=torch.float64)
    return x, y


def outputs_of(rows, optimizer, lr, n=WIDTH, steps=STEPS, eps=0.1):
    """f_t on the training inputs of an MLP W^l = n^-a w^l, w^l = n^-b z^l, that is trained by hand; z is always the same."""
    generator = torch.Generator().manual_seed(0)
    sizes = [INPUTS] + [n] * (len(rows) - 1) + [2]
    z = [torch.randn(q, p, generator=generator, dtype=torch.float64) for p, q in zip(sizes[:-1], sizes[1:], strict=True)]
    w = [(draw * n**-row.b).requires_grad_() for draw, row in zip(z, rows, strict=True)]
    first, second = [torch.zeros_like(v) for v in w], [torch.zeros_like(v) for v in w]
    x, y = data()
    found = []
    for step in range(steps + 1):
        h = x
        for row, v in zip(rows, w, strict=True):
            h = (torch.tanh(h) if v is not w[0] else h) @ (n**-row.a * v).T
        found.append(h.detach())
        grads = torch.autograd.grad((h - y).square().mean(), w)
        for row, v, grad, m1, m2 in zip(rows, w, grads, first, second, strict=True):
            if optimizer == "sgd":
                update = grad
            else:
                g = n**row.d * grad
                m1.mul_(0.9).add_(0.1 * g)
                m2.mul_(0.99).add_(0.01 * g * g)
                update = (m1 / (1 - 0.9 ** (step + 1))) / ((m2 / (1 - 0.99 ** (step + 1))).sqrt() + eps)
            with torch.no_grad():
                v.sub_(lr * n**-row.c * update)
    return torch.stack(found)


def difference(one, two):
    return float((one - two).abs().max() / one.abs().max())


SCHEMES = {
    "mup": lzr.mup(),
    "ntk": lzr.ntk(),
    "richness(0.25)": lzr.richness(0.25),
    "standard": lzr.standard(max_stable=True),
    "mean_field": lzr.mean_field(),
}
THETAS = [0.5, -0.3, 1.0, (0.5, 0.0, 0.0), (0.0, -0.4, 0.0), (0.0, 0.0, 0.7), (-0.5, 0.25, 1.0)]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", SCHEMES)
def test_training_is_the_same_in_every_gauge_at_finite_width(name, optimizer):
    scheme, entrywise = SCHEMES[name], optimizer == "adam"
    lr = 0.05 if entrywise else 0.3
    plain = outputs_of(rows_of(scheme, entrywise, 3), optimizer, lr)
    assert difference(plain[0], plain[-1]) > 1e-2, "nothing trained, so nothing was compared"
    for theta in THETAS:
        moved = outputs_of(rows_of(scheme.shift(theta), entrywise, 3), optimizer, lr)
        assert difference(plain, moved) < EXACT, theta


@pytest.mark.parametrize(("optimizer", "forgotten"), [("sgd", "c"), ("sgd", "b"), ("adam", "c"), ("adam", "d"), ("adam", "b")])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_shift_that_forgets_one_exponent_changes_the_training(optimizer, forgotten, layer):
    from dataclasses import replace

    entrywise = optimizer == "adam"
    rows = rows_of(lzr.mup(), entrywise, 2)
    right = rows[layer].shifted(0.5, entrywise)
    wrong = [*rows]
    wrong[layer] = replace(right, **{forgotten: getattr(rows[layer], forgotten)})
    lr = 0.05 if entrywise else 0.3
    assert difference(outputs_of(rows, optimizer, lr), outputs_of(wrong, optimizer, lr)) > CLEARLY_DIFFERENT


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_plan_does_not_see_the_gauge(optimizer):
    family = lzr.Family(lzr.zoo.residual_mlp, base=16)
    plain = lzr.plan(family, lzr.mup(), optimizer).settings(80)
    for theta in THETAS:
        moved = lzr.plan(family, lzr.mup().shift(theta), optimizer).settings(80)
        for name, setting in plain.items():
            for field in ("std", "lr", "weight_decay", "eps"):
                assert math.isclose(getattr(setting, field), getattr(moved[name], field), rel_tol=1e-12), (name, field, theta)


def train(plan, model, lr, x, y, groups=None, **options):
    optimizer = plan.optimizer(model, lr, **options) if groups is None else groups(model)
    found = []
    for _ in range(STEPS):
        out = model(x)
        found.append(out.detach())
        optimizer.zero_grad()
        (out - y).square().mean().backward()
        optimizer.step()
    return torch.stack([*found, model(x).detach()])


def pair(factory, scheme, optimizer, width):
    """The network in both gauges, in float64, with the same effective weights."""
    family = lzr.Family(factory, base=16)
    plans = [lzr.plan(family, scheme, optimizer, gauge=gauge) for gauge in ("plain", "multipliers")]
    plain, multiplied = (plan.build(width).double() for plan in plans)
    effective = dict(plain.named_parameters())
    multipliers = {name: s.multiplier for name, s in plans[1].settings(width).items()}
    with torch.no_grad():
        for name, parameter in multiplied.named_parameters():
            assert torch.allclose(parameter * multipliers[name], effective[name], rtol=1e-5, atol=0)
            parameter.copy_(effective[name] / multipliers[name])
    assert any(m != 1 for m in multipliers.values()), "the gauges are the same, so nothing was compared"
    return plans, plain, multiplied


def embedding_net(n):
    return nn.Sequential(nn.Embedding(9, n), nn.Flatten(), nn.Linear(3 * n, n), nn.Tanh(), nn.Linear(n, 10))


FACTORIES = {
    "mlp": (lzr.zoo.mlp, lambda g: torch.randn(6, 64, generator=g, dtype=torch.float64)),
    "convnet": (lzr.zoo.convnet, lambda g: torch.randn(6, 16, generator=g, dtype=torch.float64)),
    "embedding": (embedding_net, lambda g: torch.randint(9, (6, 3), generator=g)),
}
RUNS = [
    ("sgd", 0.05, {}),
    ("sgd", 0.05, {"weight_decay": 0.1}),
    ("momentum", 0.02, {}),
    ("adam", 0.01, {"eps": 1e-2}),
    ("adamw", 0.01, {"eps": 1e-2, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(
    ("optimizer", "lr", "options"), RUNS, ids=[f"{r[0]}{'-' if r[2] else ''}{'-'.join(r[2])}" for r in RUNS]
)
@pytest.mark.parametrize("name", FACTORIES)
def test_multipliers_train_the_same_function_as_the_plain_gauge(name, optimizer, lr, options):
    factory, inputs = FACTORIES[name]
    for scheme in (lzr.mup(), lzr.ntk()):
        (plan, other), plain, multiplied = pair(factory, scheme, optimizer, 40)
        generator = torch.Generator().manual_seed(2)
        x, y = inputs(generator), torch.randn(6, 10, generator=generator, dtype=torch.float64)
        one, two = train(plan, plain, lr, x, y, **options), train(other, multiplied, lr, x, y, **options)
        assert torch.isfinite(one).all() and difference(one[0], one[-1]) > 1e-2
        assert difference(one, two) < EXACT, scheme.name


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_multipliers_with_the_other_gauges_groups_train_another_function(optimizer):
    (plan, other), plain, multiplied = pair(lzr.zoo.mlp, lzr.ntk(), optimizer, 40)
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(6, 64, generator=generator, dtype=torch.float64), torch.randn(6, 10, dtype=torch.float64)
    one = train(plan, plain, 0.01, x, y)
    two = train(other, multiplied, 0.01, x, y, groups=lambda model: plan.optimizer(model, 0.01))
    assert difference(one, two) > CLEARLY_DIFFERENT


@pytest.mark.parametrize("r", [0.0, 0.25, 0.5])
def test_the_table_of_richness_is_the_shifted_scheme(r):
    """g_l = A, A / sqrt(n), 1 / sqrt(n), sigma_l = 1/A and one learning rate, from width 64 to 1024; A = n^r."""
    family = lzr.Family(lambda n: lzr.zoo.MLP(n, 2, 4, 1), base=64)
    plan = lzr.plan(family, lzr.richness(r).shift(-r), "sgd", gauge="multipliers")
    small, large = plan.settings(64), plan.settings(1024)
    a = 16**r
    for name, g in (("hidden.0.weight", a), ("hidden.1.weight", a / 4), ("readout.weight", 1 / 4)):
        assert large[name].multiplier / small[name].multiplier == pytest.approx(g)
        assert large[name].std / small[name].std == pytest.approx(1 / a)
        assert large[name].lr == pytest.approx(small[name].lr)


class Low(nn.Module):
    """A bottleneck in the trunk, experts of plain parameters that a gate weighs, and two heads."""

    def __init__(self, n):
        super().__init__()
        self.first, self.down, self.up = nn.Linear(5, n), nn.Linear(n, 4), nn.Linear(4, n)
        self.gate, self.experts = nn.Linear(n, 3), nn.Parameter(torch.randn(3, n, n) / n**0.5)
        self.one, self.two = nn.Linear(n, 1), nn.Linear(n, 1, bias=False)

    def forward(self, x):
        h = torch.tanh(self.up(self.down(torch.tanh(self.first(x)))))
        mixed = torch.einsum("bn,enm,be->bm", h, self.experts, self.gate(h).softmax(-1))
        return torch.cat([self.one(mixed), self.two(h)], 1)


class Parts(nn.Module):
    """Takes its inputs apart, and has two heads."""

    def __init__(self, n):
        super().__init__()
        self.one, self.two = nn.Linear(3, n), nn.Linear(2, n)
        self.left, self.right = nn.Linear(n, 1), nn.Linear(n, 1)

    def forward(self, x):
        h = torch.tanh(self.one(x[:, :3]) + self.two(x[:, 3:]))
        return torch.cat([self.left(h), self.right(h)], 1)


ENDS = {
    "parts of the inputs": Parts,
    "bottleneck, gate, two heads": Low,
    "fixed layer first": lambda n: nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, n), nn.Tanh(), nn.Linear(n, 2)),
    "fixed layer last": lambda n: nn.Sequential(nn.Linear(5, n), nn.Tanh(), nn.Linear(n, 4), nn.Tanh(), nn.Linear(4, 2)),
    "weight norm": lambda n: nn.Sequential(nn.Linear(5, n), nn.Tanh(), nn.utils.parametrizations.weight_norm(nn.Linear(n, 2))),
    "tied autoencoder": lambda n: lzr.zoo.tied_autoencoder(n, inputs=5, code=3),
    "tied autoencoder inside": lambda n: nn.Sequential(lzr.zoo.tied_autoencoder(n, inputs=5, code=3), nn.Linear(5, 2)),
    "autoencoder": lambda n: nn.Sequential(lzr.zoo.autoencoder(n, inputs=5), nn.Linear(5, 2)),
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("which", ENDS)
def test_the_constant_of_richness_divides_the_output_and_nothing_inside(which, optimizer):
    """At the base width: the plain network with f/gamma, all rates times gamma^2, or gamma and epsilon over gamma."""
    gamma, lr = 4.0, 0.01
    plan = lzr.plan(lzr.Family(ENDS[which], base=16), lzr.richness(0.5, gamma=gamma), optimizer)
    torch.manual_seed(0)
    raw = ENDS[which](16).double()
    reference, (x, y) = copy.deepcopy(raw), data()
    model = plan.meet_(plan.apply_(raw))
    y = x if reference(x).shape == x.shape else y
    rates = {"sgd": {"lr": lr * gamma**2}, "adam": {"lr": lr * gamma, "eps": 0.1 / gamma}}[optimizer]
    trained = (
        (model, plan.optimizer(model, lr=lr, eps=0.1), 1.0),
        (reference, {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](reference.parameters(), **rates), gamma),
    )
    start = reference(x).detach() / gamma
    for _ in range(STEPS):
        for net, steps, divisor in trained:
            steps.zero_grad()
            (net(x) / divisor - y).square().mean().backward()
            steps.step()
    found = [(net(x) / divisor).detach() for net, _, divisor in trained]
    assert difference(found[1], start) > 0.01
    assert difference(*found) < 1e-5  # a weight norm's gains are written as norms in single precision


class Mirror(nn.Module):
    """Reads out with the weight of its first layer."""

    def __init__(self, n):
        super().__init__()
        self.first, self.code = nn.Linear(5, n), nn.Linear(n, 3)

    def forward(self, x):
        return torch.tanh(torch.tanh(self.code(torch.tanh(self.first(x)))) @ self.code.weight) @ self.first.weight


def test_what_a_network_is_read_out_with_is_asked_where_it_does_not_tell():
    class Two(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.first, self.down, self.up, self.last = nn.Linear(5, n), nn.Linear(n, 4), nn.Linear(4, n), nn.Linear(n, 2)

        def forward(self, x, *, scale):
            return self.last(self.up(self.down(self.first(x)))) * scale

    family = lzr.Family(Two, base=16)
    assert lzr.plan(family, lzr.richness(0.5), "sgd").settings(32)["down.weight"].lr == 0.5
    with pytest.raises(PlanError, match="gamma other than 1.*'down.weight', 'last.weight'.*divide the output by gamma in"):
        lzr.plan(family, lzr.richness(0.5, gamma=2.0), "sgd")
    with pytest.raises(PlanError, match="nothing that tells what it is read out with, of 'code.weight'.*Expected a layer"):
        lzr.plan(lzr.Family(Mirror, base=16), lzr.richness(0.5, gamma=2.0), "sgd")


class Ways(nn.Module):
    """Hands its output on in some way; ``numbers`` cannot run without any."""

    def __init__(self, way):
        super().__init__()
        self.way, self.first, self.last = way, nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        y = self.last(torch.tanh(self.first(x)))
        out = torch.zeros(y.shape, device=y.device)
        if self.way == "numbers":
            return y * float(y.detach().abs().max() > 0)
        if self.way == "written":
            out[:, :] = y
        return {"dict": {"logits": y}, "written": out}.get(self.way) if self.way != "added" else out.add_(y)


@pytest.mark.parametrize("way", ["written", "added", "dict", "numbers"])
def test_the_last_weight_is_found_however_the_output_is_handed_on(way):
    assert unfollowed(Ways(way), {"first.weight", "last.weight"}) == {"last.weight"}


def test_a_fixed_matrix_of_ones_own_is_the_readout_behind_a_bottleneck():
    class Own(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.first, self.down, self.last = nn.Linear(5, n), nn.Linear(n, 4), nn.Parameter(torch.randn(4, 2))

        def forward(self, x):
            return torch.tanh(self.down(torch.tanh(self.first(x)))) @ self.last

    assert readouts(lzr.Family(Own, base=16)) == {"last"}


def test_a_tied_readout_is_one_beside_a_bottleneck():
    class Tied(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.table, self.down, self.up = nn.Embedding(7, n), nn.Linear(n, 4), nn.Linear(4, n)
            self.last = nn.Linear(n, 7)
            self.last.weight = self.table.weight

        def forward(self, tokens):
            return self.last(self.up(self.down(self.table(tokens))))

    plain, rich = (lzr.plan(lzr.Family(Tied, base=16), lzr.richness(0.5, gamma=g), "sgd").settings(16) for g in (1.0, 2.0))
    assert {name: s.lr for name, s in rich.items() if s.lr != 4} == {"last.bias": 1}
    assert {name for name, s in rich.items() if s.std != plain[name].std} == {"last.bias"}
