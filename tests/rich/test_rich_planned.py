"""The limit of a plan against the plan's own wide networks, trained by the plan's own optimizer; what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lazyrich as lzr

STEPS = 12
START = {"readout.bias": 0.0}


def family(activation="tanh", inputs=5, outputs=1):
    return lzr.Family(lambda n: lzr.zoo.MLP(n, inputs=inputs, outputs=outputs, activation=activation), base=64)


def data(outputs=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 5, generator=generator), torch.randn(3, outputs, generator=generator).sign()


def trained(plan, x, y, lr, width=1500, seeds=4):
    """Outputs at every step and the last hidden layer's feature kernel at the end, both means; the kernel's standard error."""
    found, kernels = [], []
    for seed in range(seeds):
        model = plan.build(width, seed=seed).double()
        optimizer, outputs, seen = plan.optimizer(model, lr=lr), [], []
        model.readout.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].detach()))
        for _ in range(STEPS + 1):
            f = model(x.double())
            outputs.append(f.detach())
            optimizer.zero_grad()
            ((f - y).square().sum(1).mean() / 2).backward()
            optimizer.step()
        found.append(torch.stack(outputs))
        kernels.append(seen[-1] @ seen[-1].T / width)
    kernel = torch.stack(kernels)
    return torch.stack(found).mean(0), kernel.mean(0), float(kernel.std(0).norm() / seeds**0.5)


def off(a, b):
    return float((a - b).norm() / b.norm())


class Straight(nn.Module):
    """Three linear layers and nothing between them."""

    def __init__(self, n, inputs, bias=True):
        super().__init__()
        self.first, self.mid, self.readout = (nn.Linear(a, b, bias) for a, b in ((inputs, n), (n, n), (n, 1)))

    def forward(self, x):
        return self.readout(self.mid(self.first(x)))


PLANS = {
    "mup": (family(), lzr.mup(), {}, 0.2),
    "richer": (family(), lzr.richness(0.5, gamma=2.0), {}, 0.1),
    "linear": (lzr.Family(lambda n: Straight(n, 5), base=64), lzr.mup(), {}, 0.05),
    "gelu, outputs": (family("gelu", outputs=2), lzr.mup(), {}, 0.2),
    "overridden": (family(), lzr.mup(), {"overrides": {"hidden.0.*": {"lr": 4.0}, "hidden.1.weight": {"std": 1.5}}}, 0.1),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_limit_is_that_of_the_plans_networks(name):
    nets, scheme, options, lr = PLANS[name]
    plan = lzr.plan(nets, scheme, "sgd", init=START, **options)
    x, y = data(nets.build(64).readout.out_features)
    limit, (f, kernel, scatter) = lzr.dmft(plan, (x, y), STEPS, lr=lr), trained(plan, x, y, lr)
    assert off(limit.outputs, f) < 0.03
    error = (scatter**2 + float(limit.features_error(2).norm()) ** 2) ** 0.5 / float(kernel.norm())
    assert off(limit.features(2), kernel) < 3 * error
    assert error < 0.05
    assert limit.movement(2) > 0.1


def test_a_constant_in_front_of_a_rate_is_seen():
    """The referee of the test above: the same networks with another plan's limit are far."""
    x, y = data()
    one, other = (lzr.plan(family(), lzr.richness(0.5, gamma=g), "sgd", init=START) for g in (1.0, 2.0))
    _, kernel, _ = trained(one, x, y, 0.1, width=500, seeds=2)
    assert off(lzr.dmft(other, (x, y), STEPS, lr=0.1).features(2), kernel) > 0.1


class Signs(nn.Module):
    """A first layer of plus and minus one, of which a neuron sums only two: far from Gaussian at every width."""

    def __init__(self, n):
        super().__init__()
        self.first, self.readout = nn.Linear(2, n, bias=False), nn.Linear(n, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.randn(n, 2).sign())

    def forward(self, x):
        return self.readout(self.first(x).tanh())


def test_entries_that_no_width_makes_gaussian_keep_their_law():
    plan = lzr.plan(lzr.Family(Signs, base=64), lzr.mup(), "sgd")
    x, y = data()
    x = 2 * x[:, :2]
    _, kernel, _ = trained(plan, x, y, 0.02, width=8000)
    assert off(lzr.dmft(plan, (x, y), STEPS, lr=0.02).features(1), kernel) < 0.02
    assert off(lzr.dmft(plan, (x, y), STEPS, lr=0.02, starts=None).features(1), kernel) > 0.04


def test_labels_of_two_classes_are_signs_and_a_family_is_planned_by_mup():
    x, _ = data()
    signs = torch.tensor([[-1.0], [1.0], [1.0]])
    plan = lzr.plan(family(), lzr.mup(), "sgd", init=START)
    by_labels, by_signs = (lzr.dmft(plan, (x, y), 3, lr=0.1, samples=400) for y in (torch.tensor([0, 1, 1]), signs))
    assert torch.equal(by_labels.outputs, by_signs.outputs)
    bare = lzr.Family(lambda n: nn.Sequential(nn.Linear(5, n), nn.ReLU(), nn.Linear(n, 1, bias=False)), base=32)
    assert lzr.dmft(bare, (x, signs), 2, lr=0.05, samples=400).network.depth == 1


class Residual(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.first, self.mid, self.last = nn.Linear(5, n), nn.Linear(n, n), nn.Linear(n, 1, bias=False)

    def forward(self, x):
        h = self.first(x).tanh()
        return self.last(h + self.mid(h).tanh())


class Tied(Residual):
    def forward(self, x):
        return self.last(self.mid(self.mid(self.first(x).tanh()).tanh()).tanh())


def layers(*between):
    return lambda n: nn.Sequential(nn.Linear(5, n), *between, nn.Linear(n, 1, bias=False))


def deep(n, first, second, between=None):
    m = between or n
    return nn.Sequential(nn.Linear(5, n), first, nn.Linear(n, m), second, nn.Linear(m, 1, bias=False))


class Wider(nn.Module):
    """Four hidden units for one of the width, which is not what the width is called after."""

    def __init__(self, n, second=4):
        super().__init__()
        self.first, self.mid, self.readout = (
            nn.Linear(5, 4 * n),
            nn.Linear(4 * n, second * n),
            nn.Linear(second * n, 1, bias=False),
        )

    def forward(self, x):
        return self.readout(self.mid(self.first(x).tanh()).tanh())


def test_the_width_of_a_limit_is_that_of_the_hidden_layers():
    x, y = data()
    one = lzr.plan(lzr.Family(Wider, base=16), lzr.mup(), "sgd")
    same = lzr.Family(lambda n: Wider(n // 4), base=64)
    other = lzr.plan(same, lzr.mup(), "sgd")
    a, b = (lzr.rich.network_of(plan, x) for plan in (one, other))
    assert a.gamma0 == pytest.approx(b.gamma0)
    for mine, its in zip(a.layers, b.layers, strict=True):
        assert (mine.weight, *mine.rates) == pytest.approx((its.weight, *its.rates))
    f, _, _ = trained(one, x, y, 0.1, width=250)
    assert off(lzr.dmft(one, (x, y), STEPS, lr=0.1).outputs, f) < 0.03
    with pytest.raises(
        lzr.LazyrichError, match="different widths \\(at width 16: 64 at 'first.weight', 128 at 'mid.weight'\\)"
    ):
        lzr.rich.network_of(lzr.plan(lzr.Family(lambda n: Wider(n, 8), base=16), lzr.mup(), "sgd"), x)


def test_neurons_are_drawn_at_the_width_that_has_so_many():
    x, y = data()
    halved = lzr.Family(lambda n: lzr.zoo.MLP(n // 2, inputs=5, outputs=1), base=128)
    plans = [lzr.plan(nets, lzr.mup(), "sgd", init=START) for nets in (family(), halved)]
    one, other = (lzr.dmft(plan, (x, y), 3, lr=0.1, samples=400) for plan in plans)
    assert torch.allclose(one.outputs, other.outputs)


def test_dropout_passes_where_it_drops_nothing():
    x, y = data()
    plain, still, none = (
        lzr.plan(lzr.Family(factory, base=16), lzr.mup(), "sgd")
        for factory in (
            layers(nn.Tanh()),
            lambda n: layers(nn.Tanh(), nn.Dropout(0.5))(n).eval(),
            layers(nn.Tanh(), nn.Dropout(0.0)),
        )
    )
    limits = [lzr.rich.network_of(plan, x) for plan in (plain, still, none)]
    assert [(limit.gamma0, limit.layers, limit.activation) for limit in limits[1:]] == 2 * [
        (limits[0].gamma0, limits[0].layers, "tanh")
    ]
    assert not still.build(32).training


class Written(nn.Module):
    """A function of one number, once by its name and once by hand, with constants of its own."""

    def __init__(self, n):
        super().__init__()
        self.first, self.mid, self.readout = nn.Linear(5, n), nn.Linear(n, n), nn.Linear(n, 1, bias=False)
        self.register_buffer("slope", torch.tensor(1.0))

    def forward(self, x):
        h = self.mid(nn.functional.silu(self.first(x)))
        return self.readout(h * torch.sigmoid(self.slope * h) * torch.tensor(1.0))


class Backwards(Written):
    def forward(self, x):
        h = self.first(x)
        return self.readout(nn.functional.silu(self.mid(h * h.sigmoid())))


def test_what_is_one_function_of_one_number_may_be_written_out():
    x, _ = data()
    one, other = (lzr.rich.network_of(lzr.plan(lzr.Family(f, base=16), lzr.mup(), "sgd"), x) for f in (Written, Backwards))
    assert one.activation == "silu"
    assert other.activation_name == "sigmoid and mul"
    h = torch.linspace(-3, 3, 7, dtype=torch.float64)
    assert torch.allclose(other.activation(h), nn.functional.silu(h))


def test_linear_networks_are_exact():
    """One hidden layer: weights stay in the span of their start, W_t = W_0 A + w_0 b, w_t = W_0 c + w_0 e."""
    x, y = data()
    nets = lzr.Family(lambda n: nn.Sequential(nn.Linear(5, n, bias=False), nn.Identity(), nn.Linear(n, 1, bias=False)), base=16)
    plan = lzr.plan(nets, lzr.richness(0.5, gamma=2.0), "sgd")
    limit = lzr.dmft(plan, (x, y), STEPS, lr=0.05, samples=400)
    (first, last), gamma = limit.network.layers, limit.network.gamma0
    inner, outer, f = torch.eye(6, 5).double(), torch.eye(6).double()[5], []
    size = (first.weight * last.weight / 5) ** 0.5 / gamma  # of f = size w W x
    for _ in range(STEPS + 1):
        f.append(size * x.double() @ (inner.T @ outer))
        pull = 0.05 * gamma**2 * size * (y[:, 0] - f[-1]) @ x.double() / len(x)
        turned = inner @ pull * last.rates[0] / last.weight
        inner, outer = inner + torch.outer(outer, pull) * first.rates[0] / first.weight, outer + turned
    assert off(limit.outputs[:, :, 0], torch.stack(f)) < 1e-6
    assert limit.movement(1) > 0.05


def test_deep_linear_networks_are_exact():
    """Two hidden layers: a Gaussian matrix W is, from each vector that it starts at, an infinite bidiagonal matrix of ones.

    That is the Golub-Kahan form of Catalan moments u.(W'W)^k u, u any column of the first layer; W' has it from the readout.
    So the limit is gradient descent on a small network whose W is a block for each, longer than training reaches.
    """
    x, y = data()
    plan = lzr.plan(lzr.Family(lambda n: Straight(n, 5, bias=False), base=64), lzr.richness(0.5, gamma=2.0), "sgd")
    limit = lzr.dmft(plan, (x, y), STEPS, lr=0.05, samples=400)
    length, f = 3 * STEPS, []
    chain = torch.eye(length).double() + torch.eye(length).double().roll(1, 1).triu()
    middle = torch.block_diag(*5 * [chain], chain.T)
    first, readout = torch.eye(len(middle)).double()[:, : 5 * length : length], torch.eye(len(middle)).double()[5 * length]
    gamma, layers = limit.network.gamma0, limit.network.layers
    sizes = [layer.weight**0.5 for layer in layers]
    rates = [0.05 * gamma * layer.rates[0] / layer.weight for layer in layers]
    inputs = sizes[0] * x.double().T / 5**0.5
    for _ in range(STEPS + 1):
        below = first @ inputs
        above = sizes[1] * middle @ below
        f.append(sizes[2] * readout @ above / gamma)
        pull = sizes[2] * (y[:, 0] - f[-1]) / len(x)
        back = sizes[1] * middle.T @ readout
        steps = torch.outer(back, inputs @ pull), sizes[1] * torch.outer(readout, below @ pull), above @ pull
        first, middle, readout = (w + r * s for w, r, s in zip((first, middle, readout), rates, steps, strict=True))
    assert off(limit.outputs[:, :, 0], torch.stack(f)) < 1e-6
    assert torch.allclose(limit.features(2), above.T @ above, rtol=1e-5)
    assert limit.movement(2) > 0.5


def test_momentum_is_the_plans():
    x, y = data()
    plan = lzr.plan(family(), lzr.mup(), "momentum", init=START)
    f, _, _ = trained(plan, x, y, 0.03)
    assert off(lzr.dmft(plan, (x, y), STEPS, lr=0.03).outputs, f) < 0.03
    assert off(lzr.dmft(plan, (x, y), STEPS, lr=0.03, momentum=0.0).outputs, f) > 0.2


REFUSED = [
    (Residual, {}, "joins or branches; the rich limit covers fully connected networks"),
    (Tied, {}, "'mid.weight' is used twice"),
    (layers(nn.Softmax(-1)), {}, "does not act entry by entry"),
    (layers(nn.LayerNorm(16, elementwise_affine=False)), {}, "layer_norm.* at module '1' .* does not act entry by entry"),
    (layers(nn.Tanh(), nn.PReLU()), {}, "prelu at module '2' .* reads a parameter"),
    (lambda n: nn.Sequential(nn.Linear(5, n)), {}, "found 1 linear layer;"),
    (lambda n: nn.Sequential(nn.Tanh(), *layers(nn.Tanh())(n)), {}, "tanh at module '0' .* before the first linear layer"),
    (lambda n: nn.Sequential(*layers(nn.Tanh())(n), nn.Tanh()), {}, "tanh at module '3' .* behind the readout '2.weight'"),
    (lambda n: deep(n, nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)), {}, r"leaky_relu\(0.1\) at .* and leaky_relu\(0.2\) at"),
    (lambda n: deep(n, nn.Tanh(), nn.Identity()), {}, "tanh at module '1' .* and no activation behind module '2'"),
    (
        lambda n: deep(n, nn.Tanh(), nn.Tanh(), 4),
        {},
        "'2.weight' makes 4 numbers at every width, a bottleneck.*lazy.bottleneck",
    ),
    (layers(nn.Tanh(), nn.Dropout(0.5)), {}, r"dropout at module '2' .* draws at random .* model.eval\(\), or with p = 0"),
    (layers(nn.Tanh(), nn.Dropout(0.5)), {"scheme": lzr.ntk()}, "draws at random"),
    (
        lambda n: nn.Sequential(nn.Linear(5, n), nn.Tanh(), nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 1)),
        {},
        "same one everywhere",
    ),
    (lambda n: nn.Sequential(nn.Linear(5, n), nn.Tanh(), nn.Linear(n, 1)), {}, "'2.bias' starts at random numbers"),
    (layers(nn.Tanh()), {"scheme": lzr.ntk()}, "whose limit is lzr.kernel"),
    (layers(nn.Tanh()), {"optimizer": "adam"}, "the plan is for adam"),
    (layers(nn.Tanh()), {"gauge": "multipliers"}, "plan with gauge='plain'"),
]


@pytest.mark.parametrize(("factory", "options", "words"), REFUSED, ids=[case[2][:24] for case in REFUSED])
def test_what_is_not_covered_is_refused(factory, options, words):
    plan = lzr.plan(lzr.Family(factory, base=16), **({"scheme": lzr.mup(), "optimizer": "sgd"} | options))
    with pytest.raises(lzr.LazyrichError, match=words):
        lzr.dmft(plan, data(), 3, lr=0.1, samples=400)


def test_what_is_no_plan_or_no_input_is_refused():
    plan = lzr.plan(lzr.Family(lambda n: lzr.zoo.MLP(n, inputs=5, bias=False), base=16), lzr.mup(), "sgd")
    for call in (lzr.rich.network_of, lzr.rich.hidden_layers, lzr.rich.random_offset):
        with pytest.raises(lzr.LazyrichError, match="got NoneType, expected a plan"):
            call(None, torch.zeros(2, 5))
        with pytest.raises(lzr.LazyrichError, match="got inputs NoneType"):
            call(plan, None)
