"""Families: what they build, what they leave alone, and what they refuse."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import FamilyError

ZOO = {
    "mlp": lzr.zoo.mlp,
    "convnet": lzr.zoo.convnet,
    "residual_mlp": lzr.zoo.residual_mlp,
    "transformer": lzr.zoo.transformer,
    "tied_transformer": lzr.zoo.tied_transformer,
    "autoencoder": lzr.zoo.autoencoder,
}


def crashing(width):
    raise ZeroDivisionError("no such width")


def growing_depth(width):
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(width // 4)))


def growing_rank(width):
    net = nn.Linear(3, width)
    net.extra = nn.Parameter(torch.zeros(*[2] * (1 if width == 8 else 2)))
    return net


BAD = [
    ("crashes", crashing, r"'crashing' failed at width 8: ZeroDivisionError: no such width"),
    (
        "named only",
        lambda *, n: nn.Linear(3, n),
        r"called by position, as factory\(width\): .* lambda width: factory\(NAME=width\)",
    ),
    ("returns None", lambda n: None, r"returned NoneType at width 8, expected an nn\.Module"),
    ("returns a tensor", lambda n: torch.zeros(n), r"returned Tensor"),
    ("returns a class", lambda n: nn.Linear, r"returned type"),
    ("ignores its width", lambda n: nn.Linear(3, 4), r"the factory ignores its width"),
    ("lazy module", lambda n: nn.LazyLinear(n), r"'weight' belongs to a lazy module"),
    (
        "complex weights",
        lambda n: nn.Linear(3, n, dtype=torch.cfloat),
        r"'weight' is torch\.complex64, expected real .*view_as_real",
    ),
    ("no parameters", lambda n: nn.ReLU(), r"no parameters"),
    ("depth grows", growing_depth, r"builds at widths 8 and 16 hold different tensors"),
    ("rank grows", growing_rank, r"'extra' has 1 axes at width 8, 2 at 16"),
    ("rows grow", lambda n: nn.Embedding(n, 4), r"'weight' grows in rows \(8 -> 16\)"),
    ("rows of a bag grow", lambda n: nn.EmbeddingBag(n, 4), r"'weight' grows in rows \(8 -> 16\)"),
    ("rows and columns grow", lambda n: nn.Embedding(n, n), r"'weight' grows in rows"),
]


@pytest.mark.parametrize(("factory", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_factory_that_is_no_family_is_refused_in_words(factory, words):
    with pytest.raises(FamilyError, match=words):
        _ = lzr.Family(factory, base=8).roles


@pytest.mark.parametrize(
    ("base", "probe"), [(0, None), (-3, None), (8, 8), (8, 4), (float("nan"), None), ("64", None), (8.5, None), (8, "x")]
)
def test_widths_out_of_order_are_refused(base, probe):
    with pytest.raises(FamilyError, match="expected 1 <= base < probe|got base width|got probe"):
        lzr.Family(lzr.zoo.mlp, base=base, probe=probe)


def test_a_crash_keeps_its_cause():
    with pytest.raises(FamilyError) as caught:
        lzr.Family(crashing, base=8).build(8)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_factory_that_cannot_be_built_on_meta_is_built_for_real():
    def needs_numbers(n):
        net = nn.Linear(3, n)
        with torch.no_grad():
            net.weight.div_(net.weight.abs().max().item())  # meta tensors have no values
        return net

    family = lzr.Family(needs_numbers, base=8)
    assert str(family.roles["weight"]) == "input"
    assert abs(family.build(32).weight.abs().max().item() - 1) < 1e-6


@pytest.mark.parametrize("name", ZOO)
def test_a_seed_decides_a_build(name):
    family = lzr.Family(ZOO[name], base=16)
    one, same, other = (dict(family.build(24, seed).named_parameters()) for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def states():
    return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()


def noisy(n):
    net = nn.Linear(3, n)
    net.scale = float(np.random.randn()) + random.random()
    return net


def test_global_generators_are_left_as_they_were():
    torch.manual_seed(5), np.random.seed(6), random.seed(7)
    before = states()
    family = lzr.Family(noisy, base=8)
    family.build(16, seed=1)
    _ = family.roles, family.laws(16), family.shapes(16)
    with pytest.raises(FamilyError):
        lzr.Family(crashing, base=8).build(8, seed=2)
    after = states()
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]


def test_a_seed_decides_numpy_and_python_draws_too():
    family = lzr.Family(noisy, base=8)
    assert family.build(8, seed=1).scale == family.build(8, seed=1).scale != family.build(8, seed=2).scale


def test_a_build_is_the_factory_itself():
    family = lzr.Family(lzr.zoo.mlp, base=8)
    torch.manual_seed(11)
    plain = lzr.zoo.mlp(32)
    built = family.build(32, seed=11)
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), built.parameters(), strict=True))


def test_depth_reaches_the_factory():
    family = lzr.Family(lzr.zoo.mlp, base=8, depth=5)
    assert len(family.build(8).hidden) == 5


@pytest.mark.parametrize("name", ZOO)
def test_shapes_are_those_of_the_real_network(name):
    family = lzr.Family(ZOO[name], base=16)
    assert family.shapes(48) == {key: tuple(p.shape) for key, p in ZOO[name](48).named_parameters()}


def test_shapes_of_a_huge_network_cost_no_memory():
    assert lzr.Family(lzr.zoo.mlp, base=8).shapes(2**20)["hidden.1.weight"] == (2**20, 2**20)  # 4 TiB for real


@pytest.mark.parametrize("name", ZOO)
def test_two_builds_tell_the_same_roles_as_the_factory(name):
    whole = lzr.Family(ZOO[name], base=16)
    pair = lzr.Family.from_builds(ZOO[name](16), ZOO[name](32), base=16)
    assert pair.roles == whole.roles
    assert {k: v.axes for k, v in pair.tensors.items()} == {k: v.axes for k, v in whole.tensors.items()}


def test_two_builds_cannot_build_a_third_but_plan_for_one():
    pair = lzr.Family.from_builds(lzr.zoo.mlp(16), lzr.zoo.mlp(32), base=16)
    for call in (lambda: pair.build(64), lambda: pair.shapes(64), lambda: pair.laws(64)):
        with pytest.raises(FamilyError, match="made from two builds"):
            call()
    model = lzr.zoo.mlp(64)
    before = model.readout.weight.detach().clone()
    plan = lzr.plan(pair, lzr.mup())
    plan.apply_(model)
    # fan-in 16 -> 64: the readout's std falls from 1/sqrt(64) to 1/64 of the base's 1/sqrt(16)
    assert torch.allclose(model.readout.weight, before / 2, rtol=0.15, atol=0)
    rates = {name: group["lr"] for group in plan.param_groups(model, lr=1.0) for name in group["tensors"]}
    assert (rates["hidden.0.weight"], rates["hidden.1.weight"], rates["readout.weight"]) == (1.0, 0.25, 0.25)


def test_two_builds_take_overrides_and_widths():
    pair = lzr.Family.from_builds(nn.Linear(3, 8), nn.Linear(3, 24), base=8, probe=24, roles={"weight": "vector"})
    assert str(pair.roles["weight"]) == "vector"
    assert (pair.base, pair.probe, pair.name) == (8, 24, "two builds")


def test_two_builds_of_different_networks_are_refused():
    with pytest.raises(FamilyError, match="different tensors"):
        _ = lzr.Family.from_builds(lzr.zoo.mlp(8), lzr.zoo.mlp(16, 3), base=8).roles


def test_a_lambda_is_named_by_its_place():
    family = lzr.Family(lambda n: nn.Linear(3, n), base=8)
    assert family.name.startswith("lambda at test_family_builds.py:") and repr(family) == "Family(<lambda>, base=8)"
    with pytest.raises(FamilyError, match=r"the factory 'lambda at test_family_builds.py:\d+' failed"):
        lzr.Family(lambda n: 1 / 0, base=8).tensors  # noqa: B018
