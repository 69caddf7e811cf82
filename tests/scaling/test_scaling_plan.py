"""Plans: what they say at the base, how their numbers grow, what they do to a model and what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import LazyrichError, PlanError

ZOO = {
    "mlp": lzr.zoo.mlp,
    "convnet": lzr.zoo.convnet,
    "residual_mlp": lzr.zoo.residual_mlp,
    "transformer": lzr.zoo.transformer,
    "tied_transformer": lzr.zoo.tied_transformer,
    "autoencoder": lzr.zoo.autoencoder,
}
SCHEMES = (
    lzr.standard(),
    lzr.standard(max_stable=True),
    lzr.ntk(),
    lzr.mean_field(),
    lzr.mup(),
    lzr.richness(0.25),
    lzr.spectral(),
    lzr.abc(a=(0, 0.5, 1), b=(0, 0, 0), c=-1),
)
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "signsgd", "lion")


@cache
def family_of(name):
    return lzr.Family(ZOO[name], base=16)


def settings(name, scheme, optimizer, width, **options):
    return lzr.plan(family_of(name), scheme, optimizer, **options).settings(width)


def slope(values, widths):
    """Least-squares slope of log value on log width."""
    x, y = [math.log(w) for w in widths], [math.log(v) for v in values]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


# --- at the base ----------------------------------------------------------------------------------------------------------


def xavier(n):
    """Its input layer's std, sqrt(2 / (64 + n)), is no power of the width."""
    net = lzr.zoo.mlp(n)
    for p in net.parameters():
        if p.dim() > 1:
            nn.init.xavier_uniform_(p)
    return net


@pytest.mark.parametrize("gauge", ["plain", "multipliers"])
@pytest.mark.parametrize("name", [*ZOO, "xavier"])
def test_at_the_base_every_plan_is_the_plain_network_with_one_rate(name, gauge):
    family = lzr.Family(xavier, base=16) if name == "xavier" else family_of(name)
    plain = dict(family.build(16, seed=3).named_parameters())
    for scheme in SCHEMES:
        for optimizer in OPTIMIZERS:
            plan = lzr.plan(family, scheme, optimizer, gauge=gauge)
            model = plan.build(16, seed=3, meet=True)
            assert all(torch.equal(p, plain[key]) for key, p in model.named_parameters()), (scheme.name, optimizer)
            assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
            decay = 0.0 if optimizer == "adam" else 0.1
            groups = plan.param_groups(model, lr=0.01, weight_decay=decay, eps=1e-6)
            assert [(g["lr"], g["weight_decay"], g.get("eps", 1e-6)) for g in groups] == [(0.01, decay, 1e-6)]


# --- how the numbers grow -------------------------------------------------------------------------------------------------

WIDTHS = (16, 32, 128, 1024)
# Table 3 of Yang et al. 2022: exponents in the width of the initial variance, SGD's and Adam's learning rate
TABLE_3 = {
    "hidden.0.weight": (0, 1, 0),  # fan-in is fixed
    "hidden.0.bias": (0, 1, 0),
    "hidden.1.weight": (-1, 0, -1),
    "hidden.1.bias": (0, 1, 0),
    "readout.weight": (-2, -1, -1),
    "readout.bias": (0, 0, 0),
}


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_mup_is_table_3(name):
    sgd, adam = (lzr.plan(family_of(name), lzr.mup(), optimizer) for optimizer in ("sgd", "adam"))
    for tensor, expected in TABLE_3.items():
        values = [(sgd.settings(n)[tensor], adam.settings(n)[tensor]) for n in WIDTHS]
        found = (
            slope([s.std**2 for s, _ in values], WIDTHS),
            slope([s.lr for s, _ in values], WIDTHS),
            slope([a.lr for _, a in values], WIDTHS),
        )
        assert found == pytest.approx(expected, abs=1e-9), tensor
        assert all(s.std == a.std for s, a in values)


def test_adams_epsilon_falls_with_the_gradients_that_it_is_compared_with():
    """Measured: the slope of the gradients' RMS in the planned network is the slope of the planned epsilon."""
    family = lzr.Family(lambda n: lzr.zoo.MLP(n, depth=3, outputs=1), base=32)
    widths, x = (32, 64, 128, 256, 512), torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    for scheme in (lzr.mup(), lzr.ntk(), lzr.richness(0.25)):
        plan = lzr.plan(family, scheme, "adam")
        sizes = {}
        for n in widths:
            for seed in range(6):
                model = plan.build(n, seed)
                model(x).mean().backward()
                for name, p in model.named_parameters():
                    sizes.setdefault(name, {}).setdefault(n, []).append(math.log(float(p.grad.square().mean().sqrt())))
        for name in ("hidden.0.weight", "hidden.1.weight", "hidden.2.weight", "readout.weight"):
            measured = slope([math.exp(sum(sizes[name][n]) / 6) for n in widths], widths)
            planned = slope([plan.settings(n)[name].eps for n in widths], widths)
            assert abs(measured - planned) < 0.15, (scheme.name, name, measured, planned)


@pytest.mark.parametrize("r", [0, 0.25, 0.5])
def test_richness_keeps_the_invariants_of_its_table(r):
    """g sigma and g^2 eta of g = (A/sqrt(n_0), A/sqrt(n), 1/sqrt(n)), sigma = 1/A, eta = 1, A = n^r: in every gauge."""
    tensors = ("hidden.0.weight", "hidden.1.weight", "readout.weight")
    values = [lzr.plan(family_of("mlp"), lzr.richness(r), "sgd").settings(n) for n in WIDTHS]
    stds = [slope([v[t].std for v in values], WIDTHS) for t in tensors]
    rates = [slope([v[t].lr for v in values], WIDTHS) for t in tensors]
    assert stds == pytest.approx([0, -0.5, -0.5 - r], abs=1e-9)
    assert rates == pytest.approx([2 * r, 2 * r - 1, -1], abs=1e-9)


@pytest.mark.parametrize(("optimizer", "power"), [("sgd", 2), ("adamw", 1)])
def test_constant_richness_divides_the_readout_and_speeds_up_the_features(optimizer, power):
    one = settings("mlp", lzr.richness(0.5), optimizer, 64)
    three = settings("mlp", lzr.richness(0.5, gamma=3.0), optimizer, 64)
    assert three["readout.weight"].std == pytest.approx(one["readout.weight"].std / 3)
    assert three["readout.weight"].lr == pytest.approx(one["readout.weight"].lr)
    for tensor in ("hidden.0.weight", "hidden.1.weight", "hidden.0.bias"):
        assert three[tensor].lr == pytest.approx(one[tensor].lr * 3**power)
        assert three[tensor].std == one[tensor].std


def test_the_ends_of_the_richness_scale_are_ntk_and_mup():
    for optimizer in OPTIMIZERS:
        for r, end in ((0, lzr.ntk()), (0.5, lzr.mup())):
            one, two = (settings("residual_mlp", s, optimizer, 64) for s in (lzr.richness(r), end))
            for tensor, setting in one.items():
                for field in ("std", "lr", "weight_decay", "eps"):
                    assert getattr(setting, field) == pytest.approx(getattr(two[tensor], field), rel=1e-12), (tensor, field)


def test_the_standard_plan_changes_nothing_but_the_one_rate():
    plain = dict(family_of("mlp").build(128, seed=2).named_parameters())
    for max_stable, optimizer, rate in ((False, "sgd", 1), (False, "adam", 1), (True, "sgd", 1 / 8), (True, "adam", 8**-1.5)):
        plan = lzr.plan(family_of("mlp"), lzr.standard(max_stable=max_stable), optimizer)
        model = plan.build(128, seed=2)
        assert all(torch.equal(p, plain[key]) for key, p in model.named_parameters())
        assert [group["lr"] for group in plan.param_groups(model, lr=1.0)] == pytest.approx([rate])


def test_sides_that_grow_alike_and_sides_that_do_not():
    def factory(n):  # the middle layer reads 4n units and makes n**2 / 16
        return nn.Sequential(
            nn.Linear(3, 4 * n), nn.Tanh(), nn.Linear(4 * n, n * n // 16), nn.Tanh(), nn.Linear(n * n // 16, 2)
        )

    family = lzr.Family(factory, base=16)
    sgd, adam = (lzr.plan(family, lzr.mup(), o).settings(64) for o in ("sgd", "adam"))
    assert sgd["2.weight"].lr == pytest.approx(4.0)  # fan_out/fan_in, as the spectral condition says: 16 / 4
    assert adam["2.weight"].lr == pytest.approx(1 / 4)
    assert sgd["2.weight"].std == pytest.approx(sgd["2.weight"].std)
    base = lzr.plan(family, lzr.mup(), "sgd").settings(16)
    assert sgd["2.weight"].std / base["2.weight"].std == pytest.approx(1 / 2)
    assert sgd["4.weight"].std / base["4.weight"].std == pytest.approx(1 / 16)  # 1/fan_in, which grew by 16
    assert sgd["4.weight"].lr == pytest.approx(1 / 16)


# --- decay ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_the_decay_rate_is_constant_or_the_decay_is(name):
    family = family_of(name)
    for optimizer in ("sgd", "adamw", "signsgd", "lion"):
        for scheme in (lzr.mup(), lzr.ntk(), lzr.standard(max_stable=True)):
            groups = lzr.plan(family, scheme, optimizer).param_groups(family.build(64), lr=0.02, weight_decay=0.3)
            assert [g["lr"] * g["weight_decay"] for g in groups] == pytest.approx([0.006] * len(groups))
            unscaled = lzr.plan(family, scheme, optimizer, weight_decay="unscaled")
            groups = unscaled.param_groups(family.build(64), lr=0.02, weight_decay=0.3)
            assert {g["weight_decay"] for g in groups} == {0.3}
            assert len({g["lr"] for g in groups}) > 1 or scheme.global_rate


def test_a_tensor_at_a_rate_of_zero_stays_as_it_is():
    family = lzr.Family(lambda n: nn.Sequential(nn.Linear(3, n), nn.ReLU(), nn.Linear(n, 1)), base=16)
    plan = lzr.plan(family, lzr.mup(), "adamw", overrides={"0.weight": {"lr": 0.0}})
    model = plan.build(32)
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.1, weight_decay=0.1))
    model(torch.ones(4, 3)).square().mean().backward()
    optimizer.step()
    moved = {name: not torch.equal(p, before[name]) for name, p in model.named_parameters()}
    assert moved == {"0.weight": False, "0.bias": True, "2.weight": True, "2.bias": True}


def test_adam_with_l2_is_refused_unless_the_decay_is_unscaled():
    model = family_of("mlp").build(32)
    with pytest.raises(PlanError, match="plan for 'adamw'"):
        lzr.plan(family_of("mlp"), lzr.mup(), "adam").param_groups(model, lr=0.1, weight_decay=0.1)
    groups = lzr.plan(family_of("mlp"), lzr.mup(), "adam", weight_decay="unscaled").param_groups(model, 0.1, 0.1)
    assert {g["weight_decay"] for g in groups} == {0.1}


# --- on models ------------------------------------------------------------------------------------------------------------


def pooled(plan, width, seeds):
    pools = {}
    for seed in range(seeds):
        for name, p in plan.build(width, seed).named_parameters():
            pools.setdefault(name, []).append(p.detach().double().flatten())
    return {name: torch.cat(pool) for name, pool in pools.items()}


@pytest.mark.parametrize("scheme", [lzr.mup(), lzr.ntk(), lzr.richness(0.25, gamma=2.0), lzr.spectral()], ids=lambda s: s.name)
@pytest.mark.parametrize("name", [*ZOO, "one output", "xavier"])
def test_built_models_are_drawn_as_the_table_says(name, scheme):
    own = {"one output": lambda n: lzr.zoo.MLP(n, outputs=1), "xavier": xavier}
    family = lzr.Family(own[name], base=16) if name in own else family_of(name)
    plan = lzr.plan(family, scheme, "adamw")
    for width, seeds in ((24, 12), (64, 3)):
        table = plan.settings(width)
        for tensor, entries in pooled(plan, width, seeds).items():
            planned, mean = table[tensor].std, plan.tensors[tensor].mean
            if planned == 0:
                assert entries.std() == 0
                continue
            found = float((entries - mean).square().mean().sqrt())
            measured_base = 0.0 if plan.tensors[tensor].own is not None else 0.03
            assert abs(found / planned - 1) < 5 * math.sqrt(0.5 / len(entries)) + measured_base, (tensor, width, found, planned)


@pytest.mark.parametrize("name", [*ZOO, "xavier"])
def test_applying_twice_is_applying_once(name):
    family = lzr.Family(xavier, base=16) if name == "xavier" else family_of(name)
    for width in (24, 64):
        plan = lzr.plan(family, lzr.mup())
        once = plan.apply_(family.build(width, seed=1))
        before = {key: p.detach().clone() for key, p in once.named_parameters()}
        assert any(not torch.equal(p, before[key]) for key, p in family.build(width, seed=1).named_parameters())
        plan.apply_(once)
        assert all(torch.equal(p, before[key]) for key, p in once.named_parameters())
        built = plan.build(width, seed=1)
        assert all(torch.equal(p, before[key]) for key, p in built.named_parameters())


def test_a_planned_model_from_elsewhere_is_known_by_its_draws():
    """A copy (or a pickle) has new parameters, which this process has not planned: only statistics can tell."""
    import copy

    family = family_of("mlp")
    plan = lzr.plan(family, lzr.mup())
    for seed in range(8):
        model = copy.deepcopy(plan.build(64, seed))
        before = [p.detach().clone() for p in model.parameters()]
        plan.apply_(model)
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_every_bias_of_a_fresh_model_is_planned_however_few_entries_it_has():
    family = lzr.Family(lzr.zoo.mlp, base=64)
    plan = lzr.plan(family, lzr.mup())
    for seed in range(25):
        raw, model = family.build(80, seed), family.build(80, seed)
        plan.apply_(model)
        # a fixed tensor keeps its base size; the factory's own shrinks as 1/sqrt(fan-in)
        assert torch.allclose(model.readout.bias, raw.readout.bias * math.sqrt(80 / 64), rtol=1e-5, atol=0)


def one_output(n):
    return nn.Sequential(nn.Linear(4, n), nn.ReLU(), nn.Linear(n, 1))


def test_a_bias_of_one_entry_has_its_planned_size():
    """One entry has no deviation: its own law is the factory's recorded one."""
    family = lzr.Family(one_output, base=16)
    plan = lzr.plan(family, lzr.ntk(), "sgd")
    for width in (16, 256, 1024):
        built = [plan.build(width, seed)[2].bias for seed in range(3)]
        own = [family.build(width, seed)[2].bias for seed in range(3)]
        assert torch.allclose(torch.cat(built), torch.cat(own) * math.sqrt(width / 16), rtol=1e-5, atol=0)
        assert width > 16 or all(torch.equal(a, b) for a, b in zip(built, own, strict=True))
    model = plan.build(1024, seed=1)
    before = model[2].bias.detach().clone()
    plan.apply_(model)
    assert torch.equal(model[2].bias, before)


def trained(model, steps=300, lr=0.5):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 64, generator=generator), torch.randint(10, (32,), generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("width", [16, 64])
def test_a_trained_model_is_refused_and_left_alone(width):
    plan = lzr.plan(family_of("mlp"), lzr.mup())
    for model in (trained(family_of("mlp").build(width)), trained(plan.build(width))):
        before = [p.detach().clone() for p in model.parameters()]
        with pytest.raises(PlanError, match=r"standard deviation .* freshly built"):
            plan.apply_(model)
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def zeroed_biases(n):
    model = nn.Sequential(nn.Linear(64, n), nn.ReLU(), nn.Linear(n, 10))
    for layer in (model[0], model[2]):
        nn.init.zeros_(layer.bias)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_step_is_told_by_what_the_factory_leaves_constant(dtype):
    plan = lzr.plan(lzr.Family(zeroed_biases, base=16), lzr.mup())
    plan.apply_(zeroed_biases(64).to(dtype))
    model = trained(zeroed_biases(64), steps=1, lr=1e-2).to(dtype)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(PlanError, match=r"tensor '0.bias' has entries that differ .*; a fresh one is constant.*freshly built"):
        plan.apply_(model)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_constants_of_ones_own_are_set_after_a_plan_or_belong_to_the_factory():
    plan = lzr.plan(lzr.Family(zeroed_biases, base=16), lzr.mup())
    model = plan.apply_(zeroed_biases(64))
    with torch.no_grad():
        model[2].bias.copy_(torch.arange(10.0))
    plan.apply_(model)  # nothing is left to do
    assert torch.equal(model[2].bias, torch.arange(10.0))
    drawn = lzr.plan(lzr.Family(zeroed_biases, base=16), lzr.mup(), init={"*": lzr.init.critical("tanh", bias=0.05)})
    again = drawn.apply_(drawn.apply_(zeroed_biases(64)))
    assert again[0].bias.std() > 0
    again[2].reset_parameters()  # a new readout alone
    nn.init.zeros_(again[2].bias)
    assert float(drawn.apply_(again)[2].weight.detach().std()) == pytest.approx(drawn.settings(64)["2.weight"].std, rel=0.1)

    def larger(n):  # a constant that goes with the width is one too
        made = zeroed_biases(n)
        nn.init.constant_(made[0].bias, n**-0.5)
        return made

    lzr.plan(lzr.Family(larger, base=16), lzr.mup()).apply_(larger(64))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", ZOO)
def test_a_fresh_model_is_never_refused(name, seed):
    for width in (16, 24, 48):
        lzr.plan(family_of(name), lzr.mup()).apply_(family_of(name).build(width, seed))


def test_a_measured_mean_that_is_only_noise_does_not_stay_in_the_weights():
    """Otherwise it would outlive the shrinking of a readout and grow to dominate it."""
    pair = lzr.Family.from_builds(lzr.zoo.mlp(16), lzr.zoo.mlp(32), base=16)
    model = lzr.zoo.mlp(512)
    raw = model.readout.weight.detach().clone()
    lzr.plan(pair, lzr.mup()).apply_(model)
    ratio = model.readout.weight.detach() / raw
    assert float(ratio.std() / ratio.mean()) < 1e-4, "the readout was scaled and nothing else"


@pytest.mark.parametrize("seed", [40, 165])
def test_two_small_builds_do_not_pretend_to_know_how_the_factory_scales(seed):
    """With these seeds the ten biases of two builds look like a law that falls as 1/width; it falls as 1/sqrt(width)."""
    torch.manual_seed(seed)
    pair = lzr.Family.from_builds(lzr.zoo.mlp(16), lzr.zoo.mlp(32), base=16)
    plan, model = lzr.plan(pair, lzr.mup()), lzr.zoo.mlp(512)
    plan.apply_(model)
    assert float(model.readout.bias.detach().std(correction=0)) == pytest.approx(plan.settings(model)["readout.bias"].std)


def test_another_familys_model_is_refused_by_the_names_of_its_tensors():
    plan = lzr.plan(family_of("mlp"), lzr.mup())
    for call in (plan.apply_, plan.settings, lambda m: plan.param_groups(m, lr=1.0), plan.table):
        with pytest.raises(PlanError, match=r"blocks\.0\.down\.bias.*hidden\.0\.bias") as caught:
            call(family_of("residual_mlp").build(16))
        assert "does not know" in str(caught.value)


def test_a_model_on_the_meta_device_is_refused():
    plan = lzr.plan(family_of("mlp"), lzr.mup())
    with torch.device("meta"):
        model = lzr.zoo.mlp(64)
    with pytest.raises(PlanError, match=r"'hidden.0.weight' is on the meta device.*after model.to_empty"):
        plan.apply_(model)


def test_what_is_no_model_is_refused_in_words():
    plan = lzr.plan(family_of("mlp"), lzr.mup())
    for call in (
        plan.apply_,
        plan.meet_,
        plan.release_,
        lambda m: plan.param_groups(m, lr=1.0),
        lambda m: plan.optimizer(m, 1.0),
    ):
        for value in (None, "x"):
            with pytest.raises(PlanError, match=f"got {type(value).__name__}, expected a model"):
                call(value)


def test_an_option_that_an_optimizer_does_not_take_is_refused_in_words():
    for name, words in (
        ("adamw", "'momentum' for adamw, which AdamW does not take; expected some of betas"),
        ("lion", "of betas,"),
    ):
        plan = lzr.plan(family_of("mlp"), lzr.mup(), name)
        with pytest.raises(LazyrichError, match=words):
            plan.optimizer(plan.build(32), lr=1e-3, momentum=0.9)
    assert plan.optimizer(plan.build(32), lr=1e-3, betas=(0.5, 0.5)).defaults["betas"] == (0.5, 0.5)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_width_at_which_a_tensor_has_nothing_left_is_refused_by_its_name():
    family = lzr.Family(lambda n: nn.Sequential(nn.Linear(3, n), nn.Linear(n, n // 32 * 4), nn.Linear(n // 32 * 4, 2)), base=64)
    plan = lzr.plan(family, lzr.mup())
    for call in (plan.table, plan.settings):
        with pytest.raises(PlanError, match=r"'1.weight' has shape \(0, 16\) at this width.*take a wider"):
            call(16)


def test_a_shape_that_differs_off_the_width_is_refused():
    plan = lzr.plan(family_of("mlp"), lzr.mup())
    with pytest.raises(PlanError, match=r"'hidden\.0\.weight' has shape \(32, 65\), but \(16, 64\) at the base"):
        plan.apply_(lzr.zoo.MLP(32, inputs=65))


def test_frozen_tensors_are_left_out_and_all_others_are_in_once():
    plan, model = lzr.plan(family_of("tied_transformer"), lzr.mup()), family_of("tied_transformer").build(32)
    model.position.requires_grad_(False)
    model.norm.bias.requires_grad_(False)
    groups = plan.param_groups(model, lr=0.1)
    names = [name for g in groups for name in g["tensors"]]
    params = dict(model.named_parameters())
    assert sorted(names) == sorted(set(params) - {"position", "norm.bias"})
    assert [id(p) for g in groups for p in g["params"]] == [id(params[name]) for name in names]


def test_groups_carry_each_tensors_own_numbers():
    plan, model = lzr.plan(family_of("transformer"), lzr.mup(), "adamw"), family_of("transformer").build(32)
    table = plan.settings(model)
    for group in plan.param_groups(model, lr=0.1, weight_decay=0.2, eps=1e-5):
        for name in group["tensors"]:
            s = table[name]
            assert (group["lr"], group["weight_decay"], group["eps"]) == pytest.approx(
                (0.1 * s.lr, 0.2 * s.weight_decay, 1e-5 * s.eps), rel=1e-10
            )


def test_a_learning_rate_in_a_tensor_is_not_changed():
    plan, model = lzr.plan(family_of("mlp"), lzr.mup()), family_of("mlp").build(64)
    lr = torch.tensor(0.1)
    groups = plan.param_groups(model, lr=lr)
    assert float(lr) == pytest.approx(0.1)
    assert len({group["lr"] for group in groups}) == 2 and all(isinstance(group["lr"], float) for group in groups)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw", "signsgd"])
def test_the_optimizer_is_plain_torch_over_the_groups(optimizer):
    plan, model = lzr.plan(family_of("mlp"), lzr.mup(), optimizer), family_of("mlp").build(64)
    made = plan.optimizer(model, lr=0.1)
    assert [g["lr"] for g in made.param_groups] == [g["lr"] for g in plan.param_groups(model, lr=0.1)]
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.ones(2, 64)).sum().backward()
    made.step()
    assert all(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_an_optimizer_that_torch_lacks_is_left_to_its_own_class():
    plan, model = lzr.plan(family_of("mlp"), lzr.mup(), "shampoo"), family_of("mlp").build(64)
    with pytest.raises(LazyrichError, match=r"Shampoo\(plan\.param_groups\(model"):
        plan.optimizer(model, lr=0.1)
    assert {group["optimizer"] for group in plan.param_groups(model, lr=0.1)} == {"shampoo", "adamw"}


# --- options --------------------------------------------------------------------------------------------------------------


def test_init_gives_the_standard_deviation_at_the_base():
    plan = lzr.plan(family_of("mlp"), lzr.mup(), init={"readout.weight": 0.5, "hidden.*.weight": 0.25})
    base, wide = plan.settings(16), plan.settings(64)
    assert (base["readout.weight"].std, base["hidden.1.weight"].std) == pytest.approx((0.5, 0.25))
    assert (wide["readout.weight"].std, wide["hidden.1.weight"].std) == pytest.approx((0.125, 0.125))
    assert base["hidden.1.bias"].std == lzr.plan(family_of("mlp"), lzr.mup()).settings(16)["hidden.1.bias"].std
    for width in (16, 64):
        assert float(plan.build(width).readout.weight.detach().std()) == pytest.approx(8 / width, rel=0.15)


def test_init_may_silence_a_readout():
    plan = lzr.plan(family_of("mlp"), lzr.mup(), init={"readout.*": 0.0})
    for width in (16, 64):
        model = plan.build(width)
        plan.apply_(model)
        assert model(torch.ones(2, 64)).abs().max() == 0


def test_overrides_are_constant_factors():
    plan = lzr.plan(
        family_of("mlp"), lzr.mup(), overrides={"readout.*": {"lr": 3.0, "weight_decay": 2.0}, "hidden.1.weight": {"std": 2.0}}
    )
    plain = lzr.plan(family_of("mlp"), lzr.mup())
    for width in (16, 64):
        one, two = plain.settings(width), plan.settings(width)
        assert two["readout.weight"].lr == pytest.approx(3 * one["readout.weight"].lr)
        assert two["readout.weight"].lr * two["readout.weight"].weight_decay == pytest.approx(2)
        assert two["hidden.1.weight"].std == pytest.approx(2 * one["hidden.1.weight"].std)
        assert two["hidden.0.weight"] == one["hidden.0.weight"]


REFUSED = [
    ({"init": {"nothing": 1.0}}, "init= pattern 'nothing' matches no tensor"),
    ({"overrides": {"hidden.9.*": {"lr": 2.0}}}, r"overrides= pattern 'hidden\.9\.\*' matches no tensor"),
    ({"overrides": {"readout.weight": {"momentum": 2.0}}}, "got override 'momentum'.*expected 'lr', 'std' or 'weight_decay'"),
    ({"alignment": "half"}, "got alignment='half', expected one of full, none"),
    ({"weight_decay": "none"}, "got weight_decay='none', expected one of constant_rate, unscaled"),
    ({"gauge": "mup"}, "got gauge='mup', expected one of plain, multipliers"),
    ({"optimizer": "rmsprop"}, "got optimizer 'rmsprop', expected one of sgd"),
    ({"branches": ("nothing",)}, "branches= pattern 'nothing' matches no module"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[str(case[0]) for case in REFUSED])
def test_an_option_that_is_not_known_is_refused(options, words):
    with pytest.raises(LazyrichError, match=words):
        lzr.plan(family_of("mlp"), lzr.mup(), **options)


def test_the_std_of_a_constant_cannot_be_scaled():
    for options in ({"overrides": {"norm.weight": {"std": 2.0}}}, {"init": {"norm.weight": 0.1}}):
        with pytest.raises(PlanError, match="constant at initialisation"):
            lzr.plan(family_of("residual_mlp"), lzr.mup(), **options)


def test_the_table_names_every_tensor_with_its_numbers():
    plan = lzr.plan(family_of("mlp"), lzr.mup(), "sgd")
    lines = plan.table(64).splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(plan.tensors)
    assert lines == plan.table(plan.build(64)).splitlines()
    rows = {row["tensor"]: row for row in plan.rows(64)}
    assert rows["hidden.0.weight"]["shape"] == (64, 64) and rows["hidden.0.weight"]["lr x"] == 4.0
    assert rows["readout.weight"]["role"] == "output" and rows["readout.weight"]["lr x"] == 0.25


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": math.nan}, "lr = nan"),
        ({"lr": -1.0}, "lr = -1.0"),
        ({"lr": "x"}, "lr = 'x'"),
        ({"lr": 1.0, "rest_lr": math.inf}, "rest_lr = inf"),
        ({"lr": 1.0, "eps": -1}, "eps = -1"),
        ({"lr": 1.0, "weight_decay": -0.1}, "weight_decay = -0.1"),
    ],
)
def test_rates_that_are_none_are_refused(options, said):
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.mup())
    with pytest.raises(lzr.LazyrichError, match=said):
        plan.param_groups(plan.build(16), **options)


@pytest.mark.parametrize("width", [0, -3, 48.5, "x", None, True, math.inf])
def test_widths_that_are_none_are_refused(width):
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.mup())
    for use in (plan.settings, plan.rows, plan.build):
        with pytest.raises(lzr.LazyrichError, match="expected a whole number of at least 1"):
            use(width)


def test_an_optimizer_is_known_in_any_case_and_by_torchs_class():
    family = lzr.Family(lzr.zoo.mlp, base=16)
    for given in ("AdamW", "ADAMW", torch.optim.AdamW):
        assert lzr.plan(family, lzr.mup(), given).optimizer_name == "adamw"
    for given in ("AdamX", torch.optim.Rprop, 3):
        with pytest.raises(lzr.LazyrichError, match="expected one of sgd"):
            lzr.plan(family, lzr.mup(), given)


# --- words of a plan ------------------------------------------------------------------------------------------------------


def test_a_rule_of_initialisation_is_taken_by_its_name():
    family = family_of("mlp")
    named, made = (lzr.plan(family, lzr.mup(), init={"*.weight": rule}) for rule in ("he(tanh)", lzr.init.he("tanh")))
    assert named.fingerprint == made.fingerprint != lzr.plan(family, lzr.mup()).fingerprint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"init": {"*": "zz"}}, "got 'zz', expected a standard deviation or one of"),
        ({"init": {"*": None}}, r"got init= None for '\*', expected a rule"),
        ({"init": {"*": float("nan")}}, r"got init= nan for '\*', expected a rule"),
        ({"init": "lecun"}, "got init = 'lecun', expected {tensor pattern: rule}"),
        ({"overrides": {"readout.weight": 0.1}}, "got overrides = 0.1 for 'readout.weight', expected"),
        ({"overrides": 3}, "got overrides = 3, expected"),
        ({"overrides": {"readout.weight": {"lr": "x"}}}, "override 'lr' of 'readout.weight' = 'x', expected"),
        ({"overrides": {"readout.weight": {"lr": -1.0}}}, "= -1.0, expected a number that is finite and not negative"),
        ({"depth_exponent": "x"}, "got depth_exponent = 'x', expected"),
        ({"base_depth": "x"}, "got base_depth = 'x', expected"),
        ({"readout_alignment": "x"}, "got readout_alignment = 'x', expected"),
        ({"branches": 3}, "got branches = 3, expected patterns"),
    ],
)
def test_words_that_make_no_plan_are_refused(options, words):
    with pytest.raises(lzr.LazyrichError, match=words):
        lzr.plan(family_of("mlp"), lzr.mup(), "adam", **options)


@pytest.mark.parametrize("rate", [-1, float("nan"), "3", None])
def test_a_rate_of_another_kind_is_refused(rate):
    plan = lzr.plan(family_of("mlp"), lzr.mup())
    with pytest.raises(PlanError, match="got lr = .*expected a number"):
        plan.optimizer(plan.build(16), lr=rate)


def test_one_pattern_of_branches_is_read_as_one():
    family = family_of("residual_mlp")
    one, several = (lzr.plan(family, lzr.mup(), branches=given, base_depth=1) for given in ("blocks.*", ["blocks.*"]))
    assert one.fingerprint == several.fingerprint


# --- factories whose own sizes are no powers of the width -------------------------------------------------------------------------


def two_xaviers(n):
    """The size of the first layer falls from a constant to the root of the width."""
    net = nn.Sequential(nn.Linear(100, n, bias=False), nn.ReLU(), nn.Linear(n, 100, bias=False))
    for layer in (net[0], net[2]):
        nn.init.xavier_uniform_(layer.weight)
    return net


def test_sizes_that_are_no_powers_of_the_width_are_told_as_the_factory_draws_them(tmp_path):
    plan = lzr.plan(lzr.Family(two_xaviers, base=32), lzr.standard(), "adam")
    for width in (32, 1024):
        assert [row["init std"] for row in plan.rows(width)] == pytest.approx([(2 / (100 + width)) ** 0.5] * 2)
        assert [row["init std"] for row in plan.rows(plan.build(width))] == pytest.approx([(2 / (100 + width)) ** 0.5] * 2)
    alone = lzr.Plan.load(plan.save(tmp_path / "plan.json"))  # without a family nothing tells
    assert all(math.isnan(row["init std"]) for row in alone.rows(two_xaviers(64)))
    assert [row["init std"] for row in alone.rows(two_xaviers(32))] == pytest.approx([(2 / 132) ** 0.5] * 2)


def test_a_trained_model_of_such_a_factory_is_refused():
    plan = lzr.plan(lzr.Family(two_xaviers, base=32), lzr.mup(), "adam")
    model = plan.apply_(two_xaviers(512))
    assert float(model[0].weight.detach().std()) == pytest.approx(plan.settings(512)["0.weight"].std, rel=0.05)
    before = model[0].weight.clone()
    plan.apply_(model)
    assert torch.equal(model[0].weight, before)
    trained = two_xaviers(512)
    with torch.no_grad():
        trained[0].weight.mul_(1.5)
        trained[2].weight.mul_(1.5)
    before = trained[0].weight.clone()
    with pytest.raises(PlanError, match="'0.weight' has standard deviation .* before training"):
        plan.apply_(trained)
    assert torch.equal(trained[0].weight, before)


# --- weight norms ---------------------------------------------------------------------------------------------------------------


class Normed(nn.Module):
    """Three layers, under a weight norm or plain."""

    def __init__(self, n, norm=nn.utils.parametrizations.weight_norm):
        super().__init__()
        self.first, self.middle, self.last = norm(nn.Linear(8, n)), norm(nn.Linear(n, n)), norm(nn.Linear(n, 3))

    def forward(self, x):
        return self.last(torch.tanh(self.middle(torch.tanh(self.first(x)))))

    def outputs(self, x):
        first = self.first(x)
        middle = self.middle(torch.tanh(first))
        return [value.detach() for value in (first, middle, self.last(torch.tanh(middle)))]


GAIN = "parametrizations.weight.original0"


@pytest.mark.parametrize("init", [None, {"*": "lecun"}])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("scheme", [lzr.mup(), lzr.ntk(), lzr.standard()])
def test_a_weight_norm_starts_as_the_plain_weight_at_every_width(scheme, optimizer, init):
    normed = lzr.plan(lzr.Family(Normed, base=16), scheme, optimizer, init=init)
    plain = lzr.plan(lzr.Family(lambda n: Normed(n, lambda layer: layer), base=16), scheme, optimizer, init=init)
    for width in (16, 128):
        a, b = normed.build(width, seed=1), plain.build(width, seed=1)
        for name, weight in b.named_parameters():
            torch.testing.assert_close(a.get_parameter(name) if "bias" in name else a.get_submodule(name[:-7]).weight, weight)
        for layer in ("first", "middle", "last"):
            s = normed.settings(width)[f"{layer}.{GAIN}"].std
            assert 0.2 < a.get_parameter(f"{layer}.{GAIN}").std() / s < 5
            (mean,) = (row["init mean"] for row in normed.rows(width) if row["tensor"] == f"{layer}.{GAIN}")
            assert float(a.get_parameter(f"{layer}.{GAIN}").detach().mean()) == pytest.approx(mean, rel=0.2)
        assert all("init mean" not in row for row in plain.rows(width))
        state = {name: p.clone() for name, p in a.named_parameters()}
        normed.apply_(a)
        assert all(torch.equal(p, state[name]) for name, p in a.named_parameters())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_gains_of_a_weight_norm_follow_their_layers(optimizer):
    def rates(scheme):
        return [lzr.plan(lzr.Family(Normed, base=16), scheme, optimizer).settings(256)[f"{x}.{GAIN}"].lr for x in PARTS]

    PARTS = ("first", "middle", "last")
    expected = {"adam": ([1, 1, 1 / 4], [1 / 4, 1 / 4, 1]), "sgd": ([16, 16, 1 / 16], [1, 1, 1])}[optimizer]
    assert rates(lzr.mup()) == pytest.approx(expected[0])
    assert rates(lzr.ntk()) == pytest.approx(expected[1])
    # of a network that is rich by gamma, the readout and so its gain begin smaller by gamma, and step as ever
    gamma, power = 4.0, {"adam": 1, "sgd": 2}[optimizer]
    rich, plain = rates(replace(lzr.mup(), gamma=gamma)), rates(lzr.mup())
    assert [a / b for a, b in zip(rich, plain, strict=True)] == pytest.approx([gamma**power, gamma**power, 1])


@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 1e-2), ("sgd", 0.3)])
@pytest.mark.parametrize("gains_alone", [True, False])
def test_updates_under_a_weight_norm_do_not_grow_with_the_width(optimizer, lr, gains_alone):
    """Measured, with the gains alone and with all tensors: of every layer's output, between width 32 and 1024."""
    plan, moved = lzr.plan(lzr.Family(Normed, base=32), lzr.mup(), optimizer), []
    x, y = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
    for width in (32, 1024):
        model = plan.build(width)
        for name, p in model.named_parameters():
            p.requires_grad_(not gains_alone or GAIN in name)
        trainer, before = plan.optimizer(model, lr=lr), model.outputs(x)
        for _ in range(3):
            trainer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            trainer.step()
        moved.append([float((b - a).square().mean().sqrt()) for a, b in zip(before, model.outputs(x), strict=True)])
    ratios = [b / a for a, b in zip(*moved, strict=True)]
    assert all(0.4 < ratio < 1.5 for ratio in ratios[:2])
    assert (0.1 if gains_alone else 0.5) < ratios[2] < 1.5


def test_a_trained_weight_norm_is_refused():
    plan = lzr.plan(lzr.Family(Normed, base=16), lzr.mup(), "adam")
    model = Normed(64)
    with torch.no_grad():
        model.get_parameter(f"middle.{GAIN}").mul_(1.2)
    with pytest.raises(PlanError, match="'middle.*original1' are not its norms"):
        plan.apply_(model)


def test_a_plan_of_a_weight_norm_is_read_as_it_was_written(tmp_path):
    plan = lzr.plan(lzr.Family(Normed, base=16), lzr.mup(), "adam")
    again = lzr.Plan.load(plan.save(tmp_path / "plan.json"))
    assert again.tensors == plan.tensors


def test_widths_at_which_the_factory_builds_other_layers_are_refused_for_numbers_too():
    def deepening(n):
        return nn.Sequential(nn.Linear(4, n), *[nn.Linear(n, n) for _ in range(1 if n < 64 else 2)], nn.Linear(n, 2))

    plan = lzr.plan(lzr.Family(deepening, base=16), lzr.mup())
    for ask in (plan.settings, plan.rows, plan.table, plan.build):
        with pytest.raises(PlanError, match=r"not of the plan's family: it has \['3.bias', '3.weight'\]"):
            ask(64)
