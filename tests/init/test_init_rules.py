"""Rules of initialisation: sizes against torch's own, forms by what defines them, and their life in a plan at every width."""

import copy
import math

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import InitError, KernelError, PlanError, RichError
from lazyrich.init import Form, Sides, formed, parse
from lazyrich.init.form import mixed

rules = lzr.init
DENSE, CONV, TURNED = Sides((0,), (1,)), Sides((0,), (1, 2, 3)), Sides((1,), (0, 2, 3))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mlp_plan(rule, scheme=None, base=64, factory=lzr.zoo.mlp, pattern="*"):
    return lzr.plan(lzr.Family(factory, base=base), scheme or lzr.standard(), "sgd", init={pattern: rule})


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        (rules.lecun(), lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear")),
        (rules.he(), lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
        (rules.he(distribution="uniform"), lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu")),
        (rules.he("relu", "fan_out"), lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu")),
        (rules.xavier(), nn.init.xavier_uniform_),
        (rules.xavier(5 / 3, "normal"), lambda w: nn.init.xavier_normal_(w, gain=5 / 3)),
        (rules.orthogonal(1.5), lambda w: nn.init.orthogonal_(w, 1.5)),
    ],
    ids=["lecun", "he", "he uniform", "he fan_out", "xavier", "xavier normal", "orthogonal"],
)
@pytest.mark.parametrize("factory", [lzr.zoo.mlp, lzr.zoo.convnet])
def test_sizes_and_shapes_of_the_draw_are_torchs(rule, theirs, factory):
    plan = mlp_plan(rule, factory=factory)
    for width in (64, 160):
        for name, weight in plan.build(width, 1).named_parameters():
            if weight.dim() == 1:
                assert not weight.any()
                continue
            if rule.form.name == "orthogonal" and weight.shape[0] > weight[0].numel():
                continue  # torch keeps the rows' size there, we the level of what passes through
            other = torch.empty_like(weight, dtype=torch.float64)
            sizes = []
            for _ in range(20):
                theirs(other)
                sizes.append(float(other.square().mean()))
            expected = sum(sizes) / len(sizes)
            assert float(weight.detach().square().mean()) == pytest.approx(
                expected, rel=5 * math.sqrt(2 / (20 * weight.numel()))
            ), name
            if rule.form.name != "orthogonal" and weight.numel() > 1000:
                mine, others = (
                    float((w.detach().double() ** 4).mean() / w.detach().double().square().mean() ** 2) for w in (weight, other)
                )
                assert mine == pytest.approx(1.8 if rule.form.name == "uniform" else 3.0, abs=0.1), name
                assert others == pytest.approx(mine, abs=0.6)


def test_he_keeps_the_level_of_any_activation_and_fan_out_keeps_gradients():
    z = normal(400_000)
    for name, phi in (("tanh", torch.tanh), ("gelu", nn.functional.gelu), ("relu", torch.relu)):
        at = z.clone().requires_grad_()
        (slope,) = torch.autograd.grad(phi(at).sum(), at)
        assert rules.he(name).w == pytest.approx(1 / float(phi(z).square().mean()), rel=0.01)
        assert rules.he(name, "fan_out").w == pytest.approx(1 / float(slope.square().mean()), rel=0.01)
    for name, fan, says in (("sign", "fan_out", "at unit variance is inf;"), (lambda x: 0 * x, "fan_in", "is 0;")):
        with pytest.raises(InitError, match=says):
            rules.he(name, fan)


def test_spectral_weights_have_the_norm_that_they_are_named_for():
    plan = mlp_plan(rules.spectral(), factory=lambda n: lzr.zoo.MLP(n, inputs=200, outputs=100), base=300)
    for name, w in plan.build(600).named_parameters():
        if w.dim() == 2:
            found = float(torch.linalg.matrix_norm(w.detach(), 2))
            assert found == pytest.approx(math.sqrt(w.shape[0] / w.shape[1]), rel=0.06), name


def test_orthogonal_networks_keep_every_direction_where_gaussian_ones_do_not():
    """Singular values of a deep linear network's Jacobian: all one, against a spread that grows with depth."""
    family = lzr.Family(lambda n: lzr.zoo.MLP(n, depth=20, inputs=n, outputs=n, activation="linear", bias=False), base=32)
    spreads = {}
    for name, rule in (("orthogonal", rules.orthogonal(1.0)), ("gaussian", rules.lecun())):
        net = lzr.plan(family, lzr.standard(), init={"*": rule}).build(64).double()
        values = torch.linalg.svdvals(net(torch.eye(64, dtype=torch.float64)).detach())
        spreads[name] = float(values.max() / values.min())
    assert spreads["orthogonal"] == pytest.approx(1.0, abs=1e-4)
    assert spreads["gaussian"] > 1e3


def test_delta_orthogonal_convolutions_keep_norms_position_by_position():
    conv = nn.Conv2d(6, 6, 3, padding=1, bias=False).double()
    own = conv.weight.detach().clone()
    made = formed(Form("delta_orthogonal"), own, CONV)
    assert float(made.square().mean()) == pytest.approx(1.0)
    x = normal(2, 6, 5, 5)
    with torch.no_grad():
        conv.weight.copy_(made * rules.delta_orthogonal().weight_std(54, 54))
        torch.testing.assert_close(conv(x).norm(dim=1), x.norm(dim=1))
    same = nn.functional.pad(x, (0, 1, 1, 2))  # what padding="same" does for an even kernel
    even = nn.functional.conv2d(same, formed(Form("delta_orthogonal"), normal(6, 6, 4, 2), CONV)).norm(dim=1)
    torch.testing.assert_close(even / even[0, 0, 0], x.norm(dim=1) / x.norm(dim=1)[0, 0, 0])  # each position reads itself
    turned = formed(Form("delta_orthogonal"), normal(6, 4, 3, 3), TURNED)
    assert float(turned.square().mean()) == pytest.approx(1.0)
    assert int((turned.abs().sum((0, 1)) > 0).sum()) == 1
    with pytest.raises(InitError, match="expected a convolution's"):
        formed(Form("delta_orthogonal"), normal(6, 6), DENSE)


LAYERS = {
    "dense": (nn.Linear(5, 7, bias=False), nn.Linear(7, 5, bias=False), DENSE, DENSE, (5,), (7,)),
    "conv": (nn.Conv2d(2, 3, 3, bias=False), nn.ConvTranspose2d(3, 2, 3, bias=False), CONV, TURNED, (2, 6, 6), (3, 4, 4)),
    "strided": (nn.Conv2d(2, 3, 2, stride=2, bias=False), nn.ConvTranspose2d(3, 2, 2, stride=2, bias=False), CONV, TURNED,
                (2, 6, 6), (3, 3, 3)),
    "two convs": (nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.Conv2d(3, 2, 3, padding=1, bias=False), CONV, CONV, (2, 6, 6),
                  (3, 6, 6)),
}  # fmt: skip


@pytest.mark.parametrize("which", LAYERS)
def test_a_transposed_layer_is_the_adjoint_map(which):
    """<A x, y> = <x, B y> for all x, y."""
    down, up, sides, others, inner, outer = (copy.deepcopy(part) for part in LAYERS[which])
    down, up = down.double(), up.double()
    with torch.no_grad():
        made = formed(Form("transposed", "down"), up.weight, others, down.weight, sides)
        up.weight.copy_(made * down.weight.square().mean().sqrt())
        x, y = normal(4, *inner), normal(4, *outer, seed=1)
        torch.testing.assert_close((down(x) * y).flatten(1).sum(1), (x * up(y)).flatten(1).sum(1))


@pytest.mark.parametrize("correlation", [-1.0, 0.0, 0.3, 1.0])
def test_correlations_are_as_asked_and_sizes_the_plans(correlation):
    family = lzr.Family(lzr.zoo.autoencoder, base=32)
    plan = lzr.plan(family, lzr.mup(), init=lzr.autoencoder.coupled(family, correlation))
    for width in (32, 200):
        net, table = plan.build(width, 3), plan.settings(width)
        for a, b in (("encoder.hidden.0", "decoder.readout"), ("encoder.readout", "decoder.hidden.0")):
            u, v = net.get_submodule(a).weight.detach(), net.get_submodule(b).weight.detach()
            assert float((u.T * v).sum() / u.norm() / v.norm()) == pytest.approx(correlation, abs=1e-5)
            assert float(v.square().mean().sqrt()) == pytest.approx(table[f"{b}.weight"].std, rel=1e-4)


def test_inverse_and_principal_weights_do_what_they_say():
    x = lzr.data.load("digits").x[:200].double()
    family = lzr.Family(lzr.zoo.autoencoder, base=32)
    init = {
        "encoder.hidden.0.weight": rules.principal(x, 5),
        "decoder.hidden.0.weight": rules.inverse("encoder.readout.weight"),
    }
    net = lzr.plan(family, lzr.standard(), init=init).build(64).double()
    product = (net.encoder.readout.weight @ net.decoder.hidden[0].weight).detach()
    torch.testing.assert_close(product / product.trace() * 8, torch.eye(8, dtype=torch.float64), atol=1e-4, rtol=0)
    assert int((torch.linalg.svdvals(net.encoder.hidden[0].weight.detach()) > 1e-5).sum()) == 5
    rest = torch.linalg.svd(x - x.mean(0)).Vh[5:]
    assert float((net.encoder.hidden[0].weight.detach() @ rest.T).abs().max()) < 1e-5
    with pytest.raises(InitError, match="components = 65"):
        rules.principal(x, 65)
    equal = torch.full((20, 5), 0.1, dtype=torch.float64)  # whose mean rounds
    for odd, says in (
        (x.numpy(), "ndarray"),
        (x[:0], r"\(0, 64\)"),
        (x[:, 0], r"x\[:, None\]"),
        (x / 0, "finite"),
        (equal, "all the same"),
    ):
        with pytest.raises(InitError, match=says):
            rules.principal(odd, 1)
    with pytest.raises(InitError, match="components = 1.5"):
        rules.principal(x, 1.5)


RULES = {
    "he": ("*", rules.he("tanh")), "lecun uniform": ("*", rules.lecun("uniform")), "orthogonal": ("*.weight", rules.orthogonal()),
    "critical": ("*", rules.critical("tanh", bias=0.05, form="orthogonal")), "xavier": ("*", rules.xavier()),
    "zero": ("readout.*", rules.zero()),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("scheme", [lzr.standard(), lzr.mup(), lzr.spectral(), lzr.richness(0.25)], ids=str)
def test_plans_with_rules_survive_copies_files_and_second_applications(name, scheme, tmp_path):
    pattern, rule = RULES[name]
    family = lzr.Family(lzr.zoo.mlp, base=32)
    plan = lzr.plan(family, scheme, init={pattern: rule})
    again = lzr.Plan.load(plan.save(tmp_path / "plan.json"), family)
    assert again.tensors == plan.tensors
    for width in (32, 96):
        net = plan.build(width, 2)
        kept = [p.detach().clone() for p in net.parameters()]
        for model in (
            again.build(width, 2),
            plan.apply_(net),
            plan.apply_(copy.deepcopy(net)),
            plan.apply_(family.build(width, 2)),
        ):
            for (tensor, p), before in zip(model.named_parameters(), kept, strict=True):
                if tensor.endswith("bias") and not plan.tensors[tensor].std and rule.b:
                    continue  # drawn anew from torch's own generator
                torch.testing.assert_close(p.detach(), before, rtol=1e-4, atol=1e-6)
        table = plan.settings(width)
        for tensor, p in net.named_parameters():
            size = float(p.detach().square().mean().sqrt())
            assert size == pytest.approx(table[tensor].std, rel=6 * math.sqrt(0.5 / p.numel()) + 1e-3), tensor


def test_the_scheme_scales_what_the_rule_sized_at_the_base():
    base = mlp_plan(rules.he("tanh"), lzr.mup(), base=64)
    for width in (64, 256):
        table = base.settings(width)
        assert table["hidden.0.weight"].std == pytest.approx(math.sqrt(rules.he("tanh").w / 64))
        assert table["hidden.1.weight"].std == pytest.approx(math.sqrt(rules.he("tanh").w / width))
        assert table["readout.weight"].std == pytest.approx(math.sqrt(rules.he("tanh").w / 64) * 64 / width)
    plain = mlp_plan(rules.xavier(), lzr.standard(), base=64)
    assert plain.settings(256)["hidden.0.weight"].std == pytest.approx(math.sqrt(2 / (64 + 256)))  # asked anew at every width


def test_what_the_factory_leaves_at_zero_is_drawn_where_a_rule_says_so():
    def silent(n):
        net = lzr.zoo.MLP(n)
        nn.init.zeros_(net.readout.weight)
        return net

    family = lzr.Family(silent, base=32)
    plan = lzr.plan(family, lzr.mup(), init={"readout.weight": rules.lecun()})
    net = plan.build(64, 1)
    assert float(net.readout.weight.detach().std()) == pytest.approx(plan.settings(64)["readout.weight"].std, rel=0.1)
    assert torch.equal(net.readout.weight, plan.build(64, 1).readout.weight)
    assert not torch.equal(net.readout.weight, plan.build(64, 2).readout.weight)
    assert lzr.plan(family, lzr.mup(), init={"readout.weight": 0.0}).settings(64)["readout.weight"].std == 0
    with pytest.raises(PlanError, match="give a rule that draws it"):
        lzr.plan(family, lzr.mup(), init={"readout.weight": 0.1})


def test_limits_know_sizes_and_refuse_what_is_no_independent_draw():
    x = lzr.data.load("digits").x[:5].double()
    family = lzr.Family(lzr.zoo.mlp, base=64)
    for rule in (
        rules.lecun(),
        rules.he("tanh"),
        rules.critical("tanh", 0.05),
        rules.critical("tanh", 0.05, form="orthogonal"),
    ):
        from_plan = lzr.kernel(lzr.plan(family, lzr.ntk(), "sgd", init={"*": rule})).nngp(x)
        module = lzr.kernel(lzr.zoo.mlp(64), init=rules.variance(rule.w, rule.b)).nngp(x)
        torch.testing.assert_close(from_plan, module)
    pair = lzr.Family(lzr.zoo.autoencoder, base=32)
    plan = lzr.plan(pair, lzr.ntk(), "sgd", init=lzr.autoencoder.coupled(pair))
    with pytest.raises(KernelError, match=r"'decoder\.hidden\.0\.weight' are no independent draws \(transposed\)"):
        lzr.kernel(plan)
    with pytest.raises(KernelError, match=r"lzr\.plan\(family"):
        lzr.kernel(lzr.zoo.mlp(64), init=rules.xavier())
    rich = lzr.plan(family, lzr.mup(), "sgd", init={"*": rules.orthogonal(1.0)})
    with pytest.raises(RichError, match="starts orthogonal"):
        lzr.dmft(rich, (x, torch.zeros(5, 10).double()), 2, lr=0.1)


@pytest.mark.parametrize(
    ("init", "says"),
    [
        ({"*.norm": rules.he()}, "matches no tensor"),
        ({"*.bias": rules.orthogonal()}, r"says nothing of .*no weights or biases.*init=\{'\*.bias': 0.02\}"),
        ({"hidden.1.weight": rules.transposed("nothing")}, "'nothing', which is no tensor"),
        ({"hidden.1.weight": rules.transposed("hidden.1.weight")}, "is coupled itself"),
        (
            {"hidden.1.weight": rules.transposed("readout.weight"), "readout.weight": rules.inverse("hidden.0.weight")},
            "is coupled itself",
        ),
    ],
)
def test_rules_that_fit_nothing_are_refused_by_name(init, says):
    with pytest.raises(PlanError, match=says):
        lzr.plan(lzr.Family(lzr.zoo.mlp, base=32), lzr.mup(), init=init)


def test_couplings_of_other_shapes_are_refused_when_they_are_drawn():
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=32), lzr.mup(), init={"hidden.1.weight": rules.transposed("readout.weight")})
    with pytest.raises(InitError, match="expected mirror images"):
        plan.build(32)


@pytest.mark.parametrize("text", ["best", "he(tanh", "he(1, 2, 3, 4)", "lecun(round)", "transposed()", "variance(-1)"])
def test_words_that_are_no_rule_are_refused(text):
    with pytest.raises(lzr.LazyrichError, match="got"):
        parse(text)


class Times(nn.Module):
    """x @ w, an own parameter of which the shape alone does not tell which side is summed over."""

    def __init__(self, *shape):
        super().__init__()
        self.w = nn.Parameter(torch.randn(*shape))


class Told(Times):
    pass


def times(kind, *experts):
    return lzr.Family(lambda n: nn.Sequential(nn.Linear(3, n), kind(*experts, n, 4 * n), nn.Linear(4 * n, 3)), base=32)


@pytest.mark.parametrize("experts", [(), (3,)])
def test_a_rule_that_asks_for_a_fan_is_refused_where_nothing_tells_which_axis_is_summed_over(experts):
    family, axis = times(Times, *experts), len(experts)
    with pytest.raises(
        PlanError, match=rf"'1.w' .*sum over axis {axis} \(as x @ w does\).*gives 0.25 or 0.125.*register\(Times"
    ):
        lzr.plan(family, lzr.mup(), init={"*": rules.he()})
    plan = lzr.plan(family, lzr.mup(), init={"*": rules.he(), "1.w": 0.25})  # a number asks for no fan
    assert plan.settings(32)["1.w"].std == pytest.approx(0.25)
    lzr.plan(family, lzr.mup(), init={"*": rules.xavier()})  # the same either way
    lzr.family.register(Told, lambda module, name, shape: lzr.family.Axes((axis + 1,), (axis,)))
    cube = lzr.Family(lambda n: nn.Sequential(nn.Linear(3, n), Times(n, n, n)), base=32, roles={"1.w": "hidden"})
    with pytest.raises(PlanError, match=r"'1.w' .*sum over axis 0 .* or 1, 2 \(as"):
        lzr.plan(cube, lzr.mup(), init={"*": rules.he()})
    told = lzr.plan(times(Told, *experts), lzr.mup(), init={"*": rules.he()})
    assert told.settings(32)["1.w"].std == pytest.approx(0.25)
    assert told.settings(128)["1.w"].std == pytest.approx(0.125)


def test_words_are_rules():
    assert parse("xavier(gain=2, distribution=normal)") == rules.xavier(2.0, "normal")
    assert parse("orthogonal") == rules.orthogonal()
    assert parse("critical(gelu, variance=3.56155)").b == pytest.approx(0.17292, abs=1e-4)


def test_the_last_of_overlapping_patterns_counts_and_overrides_come_on_top():
    family = lzr.Family(lzr.zoo.mlp, base=32)
    plan = lzr.plan(family, lzr.mup(), init={"*": rules.he(), "hidden.1.weight": 0.3, "readout.weight": rules.zero()},
                    overrides={"hidden.0.weight": {"std": 2.0}})  # fmt: skip
    table = plan.settings(32)
    assert table["hidden.1.weight"].std == pytest.approx(0.3)
    assert table["readout.weight"].std == 0
    assert table["hidden.0.weight"].std == pytest.approx(2 * math.sqrt(2 / 64))
    twice = lzr.plan(family, lzr.mup(), init={"hidden.*": 0.1, "hidden.1.weight": 0.3}).settings(32)
    assert twice["hidden.1.weight"].std == pytest.approx(0.3)


def test_a_variance_that_carries_a_gradient_is_refused_and_a_plain_one_is_a_number():
    w = torch.tensor(1.5, requires_grad=True)
    with pytest.raises(InitError, match=r"got w = 1.5 as a tensor that carries a gradient"):
        rules.variance(w)
    with pytest.raises(InitError, match=r"give float\(b\)"):
        rules.variance(2.0, w * 2)
    with torch.no_grad():
        assert rules.variance(w).w == 1.5
    assert rules.variance(w.detach()).w == 1.5


def test_a_draw_that_is_the_copy_already_is_no_noise_beside_it():
    copy = torch.tensor([[3.0, -3.0], [3.0, 3.0]])
    for correlation, sign in ((0.5, 1), (-0.5, -1)):
        assert torch.equal(mixed(copy, 2 * copy, correlation), sign * copy / 3)
    for correlation in (1.5, -1.01):
        with pytest.raises(InitError, match=f"got correlation = {correlation:g}"):
            rules.transposed("encoder.0.weight", correlation)


def test_uniform_weights_are_centred_and_no_value_of_the_cube_is_left_out():
    made = formed(Form("uniform"), normal(3, 7), DENSE).flatten().sort().values
    torch.testing.assert_close(made, -made.flip(0))  # ranks stand in the middle of their cells
    torch.testing.assert_close(made.diff(), made.diff()[:1].expand(20))


WINDOWS = {
    "conv": lambda n: nn.Conv2d(n, n, 3, bias=False),
    "strided": lambda n: nn.ConvTranspose2d(n, n, 2, stride=2, bias=False),
    "gaps": lambda n: nn.ConvTranspose2d(n, n, 3, stride=(2, 1), bias=False),
    "groups transposed": lambda n: nn.ConvTranspose2d(n, n, 2, stride=2, groups=4, bias=False),
    "groups": lambda n: nn.Conv2d(n, 2 * n, 3, groups=4, bias=False),
    "strided, plain": lambda n: nn.Conv2d(n, 2 * n, 2, stride=2, bias=False),
    "groups that grow": lambda n: nn.Conv2d(n, n, 3, groups=n // 8, bias=False),
    "groups that grow transposed": lambda n: nn.ConvTranspose2d(n, 2 * n, 2, stride=2, groups=n // 8, bias=False),
    "depthwise": lambda n: nn.Conv2d(n, n, 3, groups=n, bias=False),
    "two filters a channel": lambda n: nn.Conv2d(n, 2 * n, 3, groups=n, bias=False),
    "depthwise transposed": lambda n: nn.ConvTranspose2d(n, 2 * n, 4, stride=4, groups=n, bias=False),
}


class Windowed(nn.Module):
    def __init__(self, n, which):
        super().__init__()
        self.first, self.middle = nn.Conv2d(2, n, 1), WINDOWS[which](n)
        self.last = nn.Conv2d(self.middle.out_channels, 2, 1)

    def forward(self, x):
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


@pytest.mark.parametrize("which", WINDOWS)
def test_he_keeps_signals_through_windows(which, tmp_path):
    """The mean over positions, inside the border, of what enters and leaves a rectifier's layer; and the kernel says the same."""
    family = lzr.Family(lambda n: Windowed(n, which), base=64)
    rule = rules.he("relu")
    plan = lzr.plan(family, lzr.ntk(), "sgd", init={"*.weight": rule, "*.bias": 0.0})
    x = normal(8, 64, 12, 12).float()
    y = plan.build(64).middle(torch.relu(x)).detach()
    y = y[..., 4:-4, 4:-4] if min(y.shape[2:]) > 8 else y
    single = "channel" in which or "depthwise" in which
    assert float(y.square().mean() / x.square().mean()) == pytest.approx(
        1.0, abs=0.25 if single else 0.12 if "grow" in which else 0.08
    )
    assert lzr.Plan.load(plan.save(tmp_path / "plan.json")).tensors == plan.tensors
    if single or "grow" in which:
        return  # a nonlinearity right behind single channels has no limit
    images = normal(2, 2, 5, 5)
    planned, own = lzr.kernel(plan), lzr.kernel(family.build(64).double(), init=rule)
    torch.testing.assert_close(planned.layers(images)["middle"], own.layers(images)["middle"], rtol=1e-5, atol=0)


BACKWARD = ["groups", "strided, plain", "groups that grow", "groups that grow transposed", "strided", "two filters a channel"]


@pytest.mark.parametrize("which", BACKWARD)
@pytest.mark.parametrize("width", [64, 128])
def test_he_of_the_fan_out_keeps_gradients_through_windows(which, width, tmp_path):
    """The mean square of what enters and leaves on the way back, linear layers, inside the border."""
    plan = lzr.plan(lzr.Family(lambda n: Windowed(n, which), base=64), lzr.ntk(), init={"*": rules.he("linear", fan="fan_out")})
    assert lzr.Plan.load(plan.save(tmp_path / "plan.json")).tensors == plan.tensors
    tensor, layer = plan.tensors["middle.weight"], plan.build(64).middle
    x = normal(8, 64, 12, 12).float().requires_grad_()
    pull = torch.randn(layer(x).shape, generator=torch.Generator().manual_seed(1))
    back = torch.autograd.grad(layer(x), x, pull)[0][..., 4:-4, 4:-4]
    assert float(back.square().mean()) == pytest.approx(1.0, abs=0.25 if "channel" in which or "grow" in which else 0.08)
    wide = WINDOWS[which](width)
    skipped = math.prod(wide.stride) if isinstance(wide, nn.Conv2d) else 1
    assert tensor.axes.fans(tuple(wide.weight.shape))[1] == wide.weight.numel() / wide.in_channels / skipped


def test_spectral_weights_of_groups_have_the_norm():
    net = lambda n: nn.Sequential(nn.Conv2d(3, n, 1), nn.Conv2d(n, n, 1, groups=4, bias=False), nn.Conv2d(n, 3, 1))  # noqa: E731
    weight = lzr.plan(lzr.Family(net, base=256), lzr.ntk(), init={"*": "spectral"}).build(256)[1].weight.detach()
    assert float(torch.linalg.matrix_norm(weight[:64, :, 0, 0], 2)) == pytest.approx(1.0, abs=0.06)


def test_rules_reach_depthwise_kernels_by_their_name_and_by_patterns():
    family = lzr.Family(lambda n: Windowed(n, "two filters a channel"), base=8)
    for pattern in ("*", "*.weight", "middle.weight"):
        plan = lzr.plan(family, lzr.mup(), init={pattern: rules.he("relu")})
        assert [plan.settings(n)["middle.weight"].std for n in (8, 32)] == pytest.approx([math.sqrt(2 / 9)] * 2)
        assert float(plan.build(32).middle.weight.detach().std()) == pytest.approx(math.sqrt(2 / 9), rel=0.1)
    plan = lzr.plan(family, lzr.mup(), init={"middle.weight": rules.he("relu", fan="fan_out")})
    assert plan.settings(8)["middle.weight"].std == pytest.approx(math.sqrt(2 / 18))
    assert lzr.plan(family, lzr.mup(), init={"*.weight": rules.orthogonal(1.0)}).build(32).middle.weight.detach().std() > 0.3
    with pytest.raises(PlanError, match="'middle.weight', a depthwise kernel, the form delta_orthogonal.*give it a size"):
        lzr.plan(family, lzr.mup(), init={"*.weight": rules.delta_orthogonal()})
    with pytest.raises(PlanError, match="coupled to 'middle.weight', a depthwise kernel"):
        lzr.plan(family, lzr.mup(), init={"last.weight": rules.transposed("middle.weight")})
