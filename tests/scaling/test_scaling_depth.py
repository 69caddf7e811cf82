"""Plans over depth: what residual branches and their rates keep, measured from 4 to 64 branches."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import PlanError
from lazyrich.measure.slope import fit_slope
from lazyrich.scaling.skip import skips

DEPTHS, WIDTH, STEPS = (4, 16, 64), 128, 3
RATES = {"signsgd": 2e-3, "sgd": 0.05, "muon": 0.02}


class Stream(nn.Module):
    """One linear map behind a norm and tanh a branch."""

    def __init__(self, n, depth):
        super().__init__()
        self.embed = nn.Linear(8, n)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(n), nn.Tanh(), nn.Linear(n, n)) for _ in range(depth))
        self.readout = nn.Linear(n, 4)

    def stream(self, x):
        h = self.embed(x)
        for block in self.blocks:
            h = h + block(h)
        return h

    def forward(self, x):
        return self.readout(self.stream(x))


@functools.cache
def planned(depth, optimizer, exponent):
    family = lzr.Family(Stream, base=WIDTH, depth=depth)
    options = {} if exponent is None else {"branches": ["blocks.*"], "base_depth": 1, "depth_exponent": exponent}
    return lzr.plan(family, lzr.mup(), optimizer, **options)


def measured(depth, optimizer, exponent, seed):
    """RMS of the stream and of its change; the middle layer's own update relative to its weights, after a few steps."""
    plan = planned(depth, optimizer, exponent)
    model = plan.build(WIDTH, seed=seed, meet=True)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 8, generator=generator), torch.randn(16, 4, generator=generator)
    start, middle = model.stream(x).detach(), model.blocks[depth // 2]
    weight, inside = middle[2].weight.detach().clone(), middle[1](middle[0](start)).detach()
    chosen = plan.optimizer(model, lr=RATES[optimizer])
    for _ in range(STEPS):
        chosen.zero_grad()
        (model(x) - y).square().mean().backward()
        chosen.step()
    moved = (model.stream(x) - start).detach()
    ratio = (inside @ (middle[2].weight.detach() - weight).T).norm() / (inside @ weight.T).norm()
    return [float(start.square().mean().sqrt()), float(moved.square().mean().sqrt()), float(ratio)]


def slopes(optimizer, exponent):
    table = torch.tensor([[measured(d, optimizer, exponent, seed) for d in DEPTHS] for seed in range(3)])
    return [fit_slope(DEPTHS, table[:, :, i].tolist()).value for i in range(3)]


PAIRS = [("signsgd", 0.75), ("sgd", 0.5), ("muon", 1.0)]
OTHERS = [pair for pair in itertools.product(("signsgd", "sgd", "muon"), (0.5, 0.75, 1.0)) if pair not in PAIRS]


@pytest.mark.parametrize(("optimizer", "exponent"), [*PAIRS, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in OTHERS)])
def test_the_stream_moves_alike_at_every_depth(optimizer, exponent):
    """Slopes in the number of branches: 0 of the stream and of its change, exponent - 1 of a layer's update in its weights."""
    size, change, ratio = slopes(optimizer, exponent)
    assert abs(size) < 0.05
    assert abs(change) < (0.1 if optimizer == "sgd" else 0.06)
    assert ratio == pytest.approx(exponent - 1, abs=0.1)


@pytest.mark.parametrize("optimizer", ["signsgd", "sgd", "muon"])
def test_without_them_it_grows(optimizer):
    """The referee of the test above."""
    size, change, _ = slopes(optimizer, None)
    assert size > 0.35
    assert change > 0.3


@pytest.mark.parametrize(
    ("optimizer", "exponent"), [("sgd", 0.5), ("sgd", 1.0), ("adamw", 0.5), ("adamw", 1.0), ("adamw", 0.75)]
)
def test_rates_and_epsilon_are_the_published_ones(optimizer, exponent):
    """Sixteen branches tuned as four; embedding and readout are not touched."""
    made = [
        lzr.plan(
            lzr.Family(Stream, base=32, depth=16),
            lzr.mup(),
            optimizer,
            branches=["blocks.*"],
            base_depth=base,
            depth_exponent=exponent,
        ).settings(64)
        for base in (4, 16)
    ]
    deep, plain = made
    rate = 4.0 ** (2 * exponent - 1) if optimizer == "sgd" else 4.0 ** (exponent - 1)
    for name in deep:
        inside = name.startswith("blocks.")
        assert deep[name].lr == pytest.approx(plain[name].lr * (rate if inside else 1.0))
        assert deep[name].std == plain[name].std
        if optimizer == "adamw":
            assert deep[name].eps == pytest.approx(plain[name].eps * (4.0**-exponent if inside else 1.0))
            assert deep[name].lr * deep[name].weight_decay == pytest.approx(1.0)


def test_a_deep_plan_survives_its_file(tmp_path):
    family = lzr.Family(Stream, base=32, depth=16)
    plan = lzr.plan(family, lzr.mup(), "adamw", branches=["blocks.*"], base_depth=4, depth_exponent=1.0)
    again = lzr.Plan.load(plan.save(tmp_path / "plan.json"), family)
    assert again.settings(64) == plan.settings(64)
    assert [o.factor(again.build(64)) for o in again.obligations] == [0.25]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"branches": ["blocks.*"], "depth_exponent": 0.3}, "got depth_exponent = 0.3, expected 1/2"),
        ({"branches": ["blocks.*"], "depth_exponent": 1.5}, "above, they learn nothing"),
        ({"branches": ["blocks.*", "blocks.*.2"]}, "lies inside branches of 'blocks.\\*' and of 'blocks.\\*.2'"),
        ({"branches": ["layers.*"]}, "matches no module"),
    ],
)
def test_bad_input_is_refused(options, words):
    with pytest.raises(lzr.LazyrichError, match=words):
        lzr.plan(lzr.Family(Stream, base=32, depth=4), lzr.mup(), "adamw", **options)


class Holds(nn.Module):
    """A block with its skip; ``after`` is what stands behind the sum."""

    def __init__(self, n, after=None):
        super().__init__()
        self.norm, self.mlp, self.after = nn.LayerNorm(n), nn.Sequential(nn.Linear(n, n), nn.Tanh(), nn.Linear(n, n)), after

    def forward(self, x):
        h = x + self.mlp(self.norm(x))
        return self.after(h) if self.after else h


def holding(n, after=None):
    return nn.Sequential(nn.Linear(3, n), nn.ModuleDict({"0": Holds(n, after), "1": Holds(n, after)}), nn.Linear(n, 2))


@pytest.mark.parametrize("after", [None, nn.ReLU()])
def test_a_block_that_holds_its_skip_is_no_branch(after):
    family = lzr.Family(lambda n: holding(n, after), base=16)
    with pytest.raises(PlanError, match=r"'1.\*' names blocks that hold the skip .* '1.0' \(Holds\).*such as '1.\*.mlp'"):
        lzr.plan(family, lzr.mup(), branches=["1.*"])
    assert len(lzr.plan(family, lzr.mup(), branches=["1.*.mlp"]).obligations) == 1


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (nn.TransformerEncoderLayer(8, 2, 8, norm_first=True), True),
        (nn.MultiheadAttention(8, 2), False),
        (nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)), False),
        (nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)), False),
        (nn.GRU(8, 8), False),
        (nn.Identity(), False),
        (nn.Embedding(8, 8), False),
    ],
)
def test_which_modules_hold_a_skip(module, found):
    before = [p.detach().clone() for p in module.parameters()]
    assert skips(module) == skips(module.to("meta") if found else module) == found
    assert found or all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))


class Passes(nn.Module):
    """A norm of one's own by running statistics, behind a dropout; it may return more than its stream."""

    def __init__(self, several=False, what="stream"):
        super().__init__()
        self.linear, self.several, self.what = nn.Linear(8, 8), several, what
        self.drop = nn.Dropout(0.5)
        self.register_buffer("scale", torch.full((8,), 3.0))
        self.register_buffer("steps", torch.full((), 7))

    def forward(self, x):
        branch = self.linear(x)
        out = {"stream": self.drop(x) * self.scale + branch, "branch": branch, "late": x * (self.steps == 0) + branch}[
            self.what
        ]
        return (out, branch) if self.several else out


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(("what", "found"), [("stream", True), ("branch", False), ("late", True)])
def test_a_stream_is_passed_on_as_if_nothing_had_happened_yet_and_nothing_were_dropped(what, found, several):
    module = Passes(several, what)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert skips(module) == found
    assert module.training and all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_a_module_without_weights_or_with_very_many_says_nothing():
    class Empty(nn.Module):
        """It tells which inputs it takes, and passes them on."""

        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.ones(8, 8))

        def forward(self, x):
            return x

    with torch.device("meta"):
        large = nn.TransformerEncoderLayer(8, 2, 2**20, norm_first=True)
    assert not skips(Empty())
    assert not skips(large)


def test_branches_are_counted_pattern_by_pattern():
    family = lzr.Family(lambda n: holding(n), base=16)
    plan = lzr.plan(family, lzr.mup(), branches=["1.*.norm", "1.*.mlp"], base_depth=2)
    assert [o.factor(family.sketch(16)) for o in plan.obligations] == [1.0, 1.0]
