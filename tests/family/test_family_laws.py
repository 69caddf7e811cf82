"""Laws: the mean and standard deviation that each tensor is drawn from, recorded exactly or else measured."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.family import Law
from lazyrich.family.law import LawRecorder, measured_law

ZOO = {
    "mlp": lzr.zoo.mlp,
    "convnet": lzr.zoo.convnet,
    "residual_mlp": lzr.zoo.residual_mlp,
    "transformer": lzr.zoo.transformer,
    "tied_transformer": lzr.zoo.tied_transformer,
    "autoencoder": lzr.zoo.autoencoder,
}


def recorded(factory, width):
    recorder = LawRecorder()
    with recorder, torch.device("meta"):
        model = factory(width)
    return {name: recorder.law(p) for name, p in model.named_parameters()}


def drawn(factory, width, seeds=6):
    """The referee: all entries of each tensor over real builds, in float64."""
    pools = {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        for name, p in factory(width).named_parameters():
            pools.setdefault(name, []).append(p.detach().double().flatten())
    return {name: torch.cat(pool) for name, pool in pools.items()}


def agrees(law, entries):
    """Mean and std within five standard errors of the sample (uniform and normal laws have kurtosis at most 3)."""
    n = len(entries)
    if law.std == 0:
        return bool((entries - law.mean).abs().max() <= 1e-7 * max(1.0, abs(law.mean)))
    mean_off = abs(float(entries.mean()) - law.mean) / (law.std / math.sqrt(n))
    std_off = abs(float((entries - law.mean).square().mean().sqrt()) / law.std - 1) * math.sqrt(2 * n)
    return mean_off < 5 and std_off < 5


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("width", [16, 32])
def test_every_law_of_the_zoo_is_recorded_and_is_the_one_that_torch_draws_from(name, width):
    laws, pools = recorded(ZOO[name], width), drawn(ZOO[name], width)
    assert set(laws) == set(pools)
    for key, law in laws.items():
        assert law is not None, f"{key} was not followed"
        assert agrees(law, pools[key]), (key, law, float(pools[key].mean()), float(pools[key].std()))


class Own(nn.Module):
    """A parameter, filled by ``fill``."""

    def __init__(self, shape, fill):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape))
        with torch.no_grad():
            made = fill(self.weight)
        if made is not None and made is not self.weight:
            self.weight = nn.Parameter(made)


EXACT = [
    ("randn times a scale", lambda w: torch.randn(w.shape) * 0.02, (0.0, 0.02)),
    ("a scale times randn", lambda w: 0.3 * torch.randn(w.shape), (0.0, 0.3)),
    ("randn over a root", lambda w: torch.randn(w.shape) / math.sqrt(w.shape[1]), (0.0, 0.25)),
    ("randn, scaled and shifted", lambda w: torch.randn(w.shape).mul_(-2).add_(3), (3.0, 2.0)),
    ("shifted, then scaled", lambda w: (torch.rand(w.shape) - 0.5) * 4, (0.0, 4 / math.sqrt(12))),
    ("rand", lambda w: torch.rand(w.shape), (0.5, 1 / math.sqrt(12))),
    ("normal_", lambda w: nn.init.normal_(w, 1.0, 0.5), (1.0, 0.5)),
    ("uniform_", lambda w: nn.init.uniform_(w, -2.0, 4.0), (1.0, 6 / math.sqrt(12))),
    ("xavier uniform", lambda w: nn.init.xavier_uniform_(w), (0.0, math.sqrt(2 / (24 + 16)))),
    ("xavier normal with a gain", lambda w: nn.init.xavier_normal_(w, 3.0), (0.0, 3 * math.sqrt(2 / (24 + 16)))),
    ("kaiming normal", lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"), (0.0, math.sqrt(2 / 16))),
    ("kaiming fan out", lambda w: nn.init.kaiming_uniform_(w, mode="fan_out", nonlinearity="linear"), (0.0, 24**-0.5)),
    ("ones", lambda w: nn.init.ones_(w), (1.0, 0.0)),
    ("zeros", lambda w: nn.init.zeros_(w), (0.0, 0.0)),
    ("a constant", lambda w: nn.init.constant_(w, 0.7), (0.7, 0.0)),
    ("torch.full", lambda w: torch.full(w.shape, 1.5), (1.5, 0.0)),
    ("torch.normal of two numbers", lambda w: torch.normal(0.5, 0.2, tuple(w.shape)), (0.5, 0.2)),
    ("filled twice", lambda w: nn.init.normal_(nn.init.ones_(w), 0.0, 0.1), (0.0, 0.1)),
    ("a constant shifted with alpha", lambda w: nn.init.normal_(w).add_(1.0, alpha=3), (3.0, 1.0)),
    ("copied from a scaled draw", lambda w: w.copy_(torch.randn(w.shape) * 0.4), (0.0, 0.4)),
]


@pytest.mark.parametrize(("fill", "known"), [case[1:] for case in EXACT], ids=[case[0] for case in EXACT])
def test_the_law_of_a_fill_is_its_textbook_law(fill, known):
    family = lzr.Family(lambda n: nn.Sequential(nn.Linear(3, n), Own((24, 16), fill)), base=8)
    law = family.laws(8)["1.weight"]
    assert math.isclose(law.mean, known[0], abs_tol=0.1 * max(known[1], 1e-9))
    assert math.isclose(law.std, known[1], rel_tol=0.05, abs_tol=1e-9)
    assert agrees(Law(*known), drawn(lambda n: Own((24, 16), fill), 8)["weight"])  # the textbook itself


MUST_BE_FOLLOWED = [name for name, *_ in EXACT if name not in ("torch.normal of two numbers", "a constant shifted with alpha")]


@pytest.mark.parametrize("name", MUST_BE_FOLLOWED)
def test_plain_fills_are_followed_exactly(name):
    fill, known = next(case[1:] for case in EXACT if case[0] == name)
    law = recorded(lambda n: Own((24, 16), fill), 8)["weight"]
    assert math.isclose(law.mean, known[0], abs_tol=1e-12)
    assert math.isclose(law.std, known[1], rel_tol=1e-12, abs_tol=1e-12)


def rows_of_two_kinds(w):
    nn.init.normal_(w)
    w[:12].zero_()


UNFOLLOWED = [
    ("orthogonal", lambda w: nn.init.orthogonal_(w)),
    ("truncated normal", lambda w: nn.init.trunc_normal_(w, std=0.02)),
    ("a part is overwritten", rows_of_two_kinds),
    ("clamped", lambda w: nn.init.normal_(w).clamp_(-0.5, 0.5)),
    ("squared", lambda w: torch.randn(w.shape) ** 2),
    ("divided and floored", lambda w: torch.div(torch.randn(w.shape), 0.7, rounding_mode="floor")),
    ("concatenated", lambda w: torch.cat([torch.randn(12, 16), torch.zeros(12, 16)])),
    ("subtracted from one", lambda w: 1 - torch.rand(w.shape) * 3),
    ("times a tensor", lambda w: torch.randn(w.shape) * torch.linspace(0, 2, 16)),
]


@pytest.mark.parametrize("fill", [case[1] for case in UNFOLLOWED], ids=[case[0] for case in UNFOLLOWED])
def test_what_cannot_be_followed_is_measured(fill):
    def factory(n):
        return nn.Sequential(nn.Linear(3, n), Own((24, 16), fill))

    assert recorded(factory, 8)["1.weight"] is None
    law, entries = lzr.Family(factory, base=8).laws(8)["1.weight"], drawn(factory, 8, seeds=12)["1.weight"]
    assert abs(law.std / float(entries.std()) - 1) < 0.1
    assert abs(law.mean - float(entries.mean())) < 0.15 * float(entries.std())


def test_a_table_with_a_padding_row_is_measured():
    def factory(n):
        return nn.Embedding(4, n, padding_idx=0)

    assert recorded(factory, 16)["weight"] is None
    law = lzr.Family(factory, base=16).laws(64)["weight"]
    assert abs(law.std - 1.0) < 0.12  # three of four rows are N(0, 1); the fourth is no draw


def test_rows_beside_padding_get_the_size_that_was_asked_for():
    class Net(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.tok, self.out = nn.Embedding(8, n, padding_idx=0), nn.Linear(n, 3)

    plan = lzr.plan(lzr.Family(Net, base=64), lzr.mup(), init={"tok.weight": 0.02})
    for width in (64, 1024):
        table = plan.build(width).tok.weight.detach()
        assert not table[0].any() and abs(float(table[1:].std()) / 0.02 - 1) < 0.1
    again = plan.apply_(plan.build(1024))
    assert torch.equal(again.tok.weight.detach(), table)


def test_a_numpy_draw_is_measured():
    import numpy as np

    def factory(n):
        net = nn.Linear(64, n)
        net.weight = nn.Parameter(torch.from_numpy(np.random.standard_normal((n, 64)).astype("float32") * 0.3))
        return net

    assert abs(lzr.Family(factory, base=16).laws(32)["weight"].std - 0.3) < 0.02


def test_laws_of_a_huge_network_cost_no_memory():
    law = lzr.Family(lzr.zoo.mlp, base=8).laws(2**18)["hidden.1.weight"]
    assert math.isclose(law.std, 1 / math.sqrt(3 * 2**18), rel_tol=1e-9)


class DrawsLate(nn.Module):
    """Draws its own entries in real memory only, as Hugging Face's models do."""

    def __init__(self, n):
        super().__init__()
        self.first, self.last = nn.Linear(4, n), nn.Linear(n, 2, bias=False)
        if not self.first.weight.is_meta:
            for weight in (self.first.weight, self.last.weight):
                nn.init.normal_(weight, std=0.02)


def test_a_factory_that_draws_in_real_memory_only_is_recorded_there():
    family = lzr.Family(DrawsLate, base=16)
    for width in (16, 32):
        laws = family.laws(width)
        assert (laws["first.weight"].std, laws["last.weight"].std) == (0.02, 0.02)
        assert laws["first.weight"].noise == 0.0
    plan = lzr.plan(family, lzr.mup(), "adamw")
    assert plan.settings(64)["last.weight"].std == pytest.approx(0.02 / 4)
    assert float(plan.build(64).last.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.2)


def test_a_handful_of_entries_is_no_evidence_of_a_mean():
    assert measured_law(torch.tensor([0.50, 0.51])).mean == 0.0
    near = measured_law(torch.tensor([0.50, 0.51]))
    assert near.std == pytest.approx(0.505, abs=1e-3) and near.entries == pytest.approx(2)
    torch.manual_seed(0)
    many = measured_law(0.5 + 0.1 * torch.randn(4000))
    assert many.mean == pytest.approx(0.5, abs=0.01) and many.std == pytest.approx(0.1, rel=0.05)
    assert measured_law(torch.full((3,), 0.5)) == Law(0.5, 0.0) and math.isinf(measured_law(torch.zeros(1)).entries)
    assert measured_law(torch.tensor([0.3])).entries == pytest.approx(1)
    false = sum(measured_law(torch.randn(n)).mean != 0 for n in (2, 3, 4) for _ in range(300))
    assert false == 0


def test_a_draw_fits_a_law_by_its_mean_its_deviation_and_the_range_that_it_fills():
    generator = torch.Generator().manual_seed(0)
    even = torch.rand(10_000, generator=generator, dtype=torch.float64) - 0.5
    normal = torch.randn(10_000, generator=generator, dtype=torch.float64) / math.sqrt(12)
    flat, bell = Law(0.0, 1 / math.sqrt(12), uniform=True), Law(0.0, 1 / math.sqrt(12))
    assert flat.fits(even) and bell.fits(normal)
    assert not flat.fits(normal), "it leaves the range"
    assert not flat.fits(1.002 * even), "its deviation may be chance, the range may not"
    assert not flat.fits(0.998 * even), "it does not fill the range"
    narrow = 0.97 * even
    narrow[0] = 0.4999
    assert not flat.fits(narrow), "the deviation of an even draw varies less than a normal one's"
    assert not bell.fits(1.05 * normal) and not bell.fits(normal + 0.02)
    assert Law(1.0, 0.0).fits(torch.ones(3)) and not Law(1.0, 0.0).fits(torch.tensor([1.0, 1.0, 1.1]))
