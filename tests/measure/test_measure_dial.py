"""From lazy to rich: laws that hold exactly, thresholds of known curves, and what a kill leaves."""

import itertools
import math
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import UsageError
from lazyrich.measure.dial import Centred
from lazyrich.measure.dial_law import LAWS, POWERS, Law
from lazyrich.measure.dial_result import summarise
from lazyrich.measure.scatter import Scatter
from lazyrich.measure.slope import Slope
from lazyrich.measure.verdict import TOLERANCE
from lazyrich.report.page import typeset

FEW = {"seeds": 1, "steps": 20, "samples": 100, "test": 60, "batch": 32}


def mlp(base=16):
    return lzr.Family(
        lambda n: nn.Sequential(nn.Linear(64, n), nn.Tanh(), nn.Linear(n, n), nn.Tanh(), nn.Linear(n, 10)), base=base
    )


def point(richness, distance, width=64, r=0.5, seed=0, **more):
    return {"r": r, "width": width, "seed": seed, "richness": richness, "linearisation": distance, "loss": 1.0,
            "test_loss": 1.0, "linear_test_loss": 2.0} | more  # fmt: skip


def summed(points, richness, widths=(64,), r=(0.5,)):
    return summarise(
        "net", points, {"r": list(r), "widths": list(widths), "richness": list(richness), "base": 64, "data": "d"}, {}
    )


def test_a_lazy_network_follows_its_linearisation_and_a_rich_one_does_not():
    found = lzr.dial(mlp(), "digits", [1e-4, 1e-2, 1.0], widths=[16], **FEW)
    lazy, middle, rich = found.points
    assert lazy["linearisation"] < 1e-2 < middle["linearisation"] < 0.5 < rich["linearisation"]
    assert lazy["linear_loss"] == middle["linear_loss"]
    assert lazy["loss"] == pytest.approx(lazy["linear_loss"], rel=1e-2)
    for name in ("features", "feature_kernel", "kernel", "kernel_distance"):
        assert lazy[name] < middle[name] < rich[name]
    assert lazy["alignment"] == pytest.approx(lazy["alignment_before"], abs=1e-3)
    assert set(rich["layers"]) == {"0", "2"}


def test_far_in_the_lazy_end_movement_is_proportional_to_richness():
    found = lzr.dial(mlp(), "digits", [1e-5, 1e-4], widths=[16], **FEW)
    small, large = found.points
    for name, power in (("features", 1), ("linearisation", 1), ("kernel_distance", 2)):
        assert math.log10(large[name] / small[name]) == pytest.approx(power, abs=0.05)


def test_a_network_that_holds_results_of_its_last_pass_is_centred():
    """copy.deepcopy refuses them."""
    net, x = nn.Linear(3, 2), torch.ones(1, 3)
    net.last = net(x)
    assert Centred(net)(x).abs().max() == 0
    assert net.last.requires_grad


@pytest.mark.parametrize("init", [None, {"*.weight": "orthogonal", "4.weight": 0.3}])
def test_the_plain_point_is_the_plain_network_with_its_start_taken_off(init):
    torch.manual_seed(0)
    family = mlp()
    found = lzr.dial(family, "digits", [0.125, 0.25], widths=[16], lr=0.05, init=init, **FEW)
    plan = lzr.plan(family, lzr.ntk(), "sgd", init=init)
    model = Centred(plan.build(16, 0).double())
    optimizer = torch.optim.SGD(model.network.parameters(), lr=0.05)
    whole = lzr.data.load("digits").subset(160, seed=0)
    data = type(whole)(whole.x[:100].double(), whole.y[:100], "digits")
    for step in range(20):
        x, y = data.batch(32, step, 0)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    loss = float(nn.functional.cross_entropy(model(data.x), data.y).detach())
    plain = summarise("n", found.points, found.settings, {}).plain
    assert plain == 0.25
    assert found.points[1]["loss"] == pytest.approx(loss, rel=1e-9)


def test_trainings_of_another_start_are_kept_apart(tmp_path):
    own, again, others = (
        lzr.dial(mlp(), "digits", [0.1, 1.0], widths=[8], folder=tmp_path, init=init, **FEW)
        for init in ({"*": 0.1}, {"*": 0.1}, {"*": 0.2})
    )
    assert own.points == again.points != others.points
    assert "1 finished trials of other settings" in others.reproduce["notes"][0] and not again.reproduce["notes"]


def test_at_r_one_half_richness_is_kept_as_the_width_grows_and_at_zero_it_is_not():
    found = lzr.dial(mlp(), "digits", [0.1, 0.3], widths=[16, 64, 256], r=[0.0, 0.5], **{**FEW, "seeds": 3})
    moved = {law.r: law.measured for law in found.laws if law.quantity == "features"}
    assert moved[0.0].value == pytest.approx(-0.5, abs=0.12)
    assert moved[0.5].value == pytest.approx(0, abs=0.12)


def test_the_threshold_is_where_the_curve_crosses_a_tenth():
    found = summed([point(0.01, 0.01), point(0.1, 0.1 * 10**0.5), point(1.0, 1.0)], (0.01, 0.1, 1.0))
    assert found.curves[0].leaves == pytest.approx(10 ** (-2 + 1 / 1.5), rel=1e-9)
    assert "lazy up to gamma_0 = 0.046" in found.sentence
    assert "the plain network, at 0.12, is not lazy" in found.sentence
    assert "never lazy" in summed([point(0.01, 0.2), point(1.0, 1.0)], (0.01, 1.0)).sentence
    lazy = summed([point(0.01, 0.001), point(1.0, 0.01)], (0.01, 1.0))
    assert math.isinf(lazy.curves[0].leaves)
    assert "at 0.12, is lazy" in lazy.sentence


def test_a_diverged_training_is_a_result():
    x = torch.randn(160, 64)
    blown = lzr.dial(mlp(), (x, x[:, :10]), [0.1, 1.0], widths=[16], lr=1e4, **{**FEW, "steps": 60})
    assert [p["diverged"] for p in blown.points] == [True, True]
    assert "every training diverged; give a smaller lr" in blown.sentence
    gone = point(1.0, None) | {"loss": None, "diverged": True}
    found = summed([point(0.01, 0.01), gone], (0.01, 1.0))
    assert "—" in str(found)
    assert found.to_dict()["curves"][0]["values"]["loss"]["mean"] == [1.0, None]
    dead = summed([gone | {"richness": g} for g in (0.01, 1.0)], (0.01, 1.0))
    assert "every training diverged" in dead.sentence


@pytest.mark.parametrize(("lr", "steps"), [(1e6, 5), (1e6, 1), (1e160, 1)])
def test_a_finite_loss_of_features_that_are_gone_is_a_diverged_training(lr, steps):
    """A step too large leaves ReLU networks with dead units and a finite loss, or a last step that no loss has seen."""
    family = lzr.Family(
        lambda n: nn.Sequential(nn.Linear(64, n), nn.ReLU(), nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 10)), base=16
    )
    found = lzr.dial(family, "digits", [0.1, 1.0], widths=[16], lr=lr, **{**FEW, "steps": steps})
    assert [(p["diverged"], p["loss"]) for p in found.points] == [(True, None)] * 2
    assert "every training diverged" in found.sentence


def test_how_many_trainings_diverged_is_told_and_they_bound_no_laziness():
    lost = [point(1.0, None, seed=s, start=2.0) | {"loss": None, "test_loss": None, "diverged": True} for s in (0, 1)]
    kept = [point(g, 0.01, seed=s, start=2.0) for g, s in ((0.1, 0), (0.1, 1))]
    said = summed([*kept, *lost], (0.1, 1.0)).sentence
    assert "is lazy up to gamma_0 = 0.1;" in said
    assert "Trainings diverged and are left out at gamma_0 = 1 (2 of 2); a smaller lr (--lr) keeps them" in said
    one = summed([*kept, lost[0], point(1.0, 0.02, seed=1, start=2.0)], (0.1, 1.0)).sentence
    assert "at gamma_0 = 1 (1 of 2)" in one and "diverged" not in summed([*kept], (0.1,)).sentence


def test_tuned_rates_are_never_worse_than_the_law():
    law = lzr.dial(mlp(), "digits", [0.1, 10.0], widths=[16], **FEW)
    tuned = lzr.dial(mlp(), "digits", [0.1, 10.0], widths=[16], rates="tuned", **FEW)
    for a, b in zip(law.points, tuned.points, strict=True):
        assert b["loss"] <= a["loss"]
        assert math.log2(b["lr"] / a["lr"]) in (-3, -2, -1, 0, 1, 2)


def test_a_best_rate_at_an_end_of_the_octaves_is_marked(tmp_path):
    few = FEW | {"steps": 10}
    found = lzr.dial(mlp(), "digits", [0.1, 1.0], widths=[16], rates="tuned", lr=1e-4, **few)
    assert [p["edge"] for p in found.points] == [1, 1]
    assert "At gamma_0 = 0.1, 1 the best learning rate is the largest of its octaves (end of grid); a larger lr (--lr)" in str(
        found
    )
    assert str(found).count("(end of grid)") == 3
    assert lzr.render(found, tmp_path / "page.html").read_text().count("(end of grid)") >= 3
    law = lzr.dial(mlp(), "digits", [0.1, 1.0], widths=[16], lr=1e-4, **few)
    assert [p["edge"] for p in law.points] == [0, 0] and "end of grid" not in str(law)
    small = summed([point(g, 0.01, start=2.0, edge=-1 if g < 1 else 0) for g in (0.1, 1.0)], (0.1, 1.0))
    assert (
        "At gamma_0 = 0.1 the best learning rate is the smallest of its octaves (end of grid); a smaller lr" in small.sentence
    )


def test_an_alignment_stands_on_a_plain_axis_and_columns_say_what_they_hold(tmp_path):
    values = {
        "features": 0.1,
        "kernel": 0.1,
        "alignment": 0.9,
        "alignment_before": 0.3,
        "linear_test_error": 0.5,
        "test_error": 0.4,
    }
    found = summed([point(g, 0.01, start=2.0, lr=0.1, **values) for g in (0.1, 1.0)], (0.1, 1.0))
    found = replace(found, reproduce={"command": "lazyrich dial", "versions": {}, "notes": []})
    page = lzr.render(found, tmp_path / "page.html").read_text()
    drawn = page.partition("alignment of the tangent kernel with the targets")[2].partition("</figure>")[0]
    assert ">0.8<" in drawn and ">0<" in drawn and ">2<" not in drawn
    assert "linearised test error" in str(found) and ">linearised test error<" in page
    losses = summed([point(g, 0.01, start=2.0) for g in (0.1, 1.0)], (0.1, 1.0))
    assert "linearised test loss" in str(losses)


def test_a_killed_dial_continues_and_says_the_same(tmp_path):
    seen = []

    def kill(done, total, what):
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    axes = ([0.1, 1.0], [8, 16])
    with pytest.raises(KeyboardInterrupt):
        lzr.dial(mlp(8), "digits", *axes, folder=tmp_path / "run", progress=kill, **FEW)
    again = lzr.dial(mlp(8), "digits", *axes, folder=tmp_path / "run", **FEW)
    assert again.rows() == lzr.dial(mlp(8), "digits", *axes, **FEW).rows()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"richness": [1.0]}, "richness.*at least 2 increasing"),
        ({"richness": [1.0, 0.1]}, "richness.*increasing"),
        ({"richness": [0.1, "a"]}, "richness.*'a'.*increasing"),
        ({"widths": []}, "widths"),
        ({"widths": [16, "a"]}, "got widths .*'a'.*whole numbers"),
        ({"r": [0.7]}, "0 <= r <= 1/2"),
        ({"rates": "guess"}, "'law' or 'tuned'"),
        ({"seeds": 0}, "seeds = 0"),
        ({"optimizer": "muon"}, "'muon', whose rates have no known law.*sgd, momentum, adam, adamw, signsgd"),
        ({"optimizer": "lion"}, "'lion', whose rates have no known law"),
        ({"lr": -1.0}, "lr = -1"),
        ({"lr": math.inf}, "lr = inf, expected a positive number that is finite"),
    ],
)
def test_what_makes_no_study_is_refused(options, says):
    with pytest.raises(UsageError, match=says):
        lzr.dial(mlp(), "digits", **({"richness": [0.1, 1.0]} | options))


def test_a_bottleneck_is_no_readout():
    """Divided by A too, it would make the linearised network depend on the richness."""
    data = lzr.data.load("digits", target="input")
    found = lzr.dial(lzr.Family(lzr.zoo.autoencoder, base=16), data, [0.01, 1.0], widths=[16], **FEW)
    assert found.points[0]["linearisation"] < 0.1


def test_a_network_that_does_not_end_in_its_readout_is_refused():
    def normed(n):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, n), nn.Tanh(), nn.Linear(n, 10), nn.LayerNorm(10))

    with pytest.raises(UsageError, match="sees the richness.*kernel changes in 1.weight.*end in its readout"):
        lzr.dial(lzr.Family(normed, base=16), "digits", [0.01, 1.0], widths=[16], **FEW)


class Shifted(nn.Module):
    """A norm takes its shift away, whose tangent kernel is rounding."""

    def __init__(self, width):
        super().__init__()
        self.inner, self.shift = nn.Linear(64, width), nn.Parameter(torch.ones(1))
        self.norm, self.outer = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x):
        return self.outer(self.norm(torch.tanh(self.inner(x)) + self.shift))


def test_a_shift_that_a_norm_takes_away_does_not_see_the_richness():
    found = lzr.dial(lzr.Family(Shifted, base=16), "digits", [0.03, 1.0], widths=[16], **FEW)
    assert found.points[0]["linearisation"] < found.points[1]["linearisation"]


class Words(nn.Module):
    """As many positions as it knows words."""

    def __init__(self, width):
        super().__init__()
        self.inner, self.hidden, self.outer = nn.Embedding(6, width), nn.Linear(width, width), nn.Linear(width, 6)

    def forward(self, x):
        return self.outer(torch.tanh(self.hidden(self.inner(x))))


def test_errors_of_sequences_count_words():
    x = torch.randint(6, (60, 5), generator=torch.Generator().manual_seed(0))
    found = lzr.dial(
        lzr.Family(Words, base=16), (x, x), [0.1, 1.0], widths=[16], **{**FEW, "steps": 60, "samples": 40, "test": 20}
    )
    assert [p["test_error"] for p in found.points] == sorted((p["test_error"] for p in found.points), reverse=True)
    assert found.points[1]["test_error"] < 0.6


class Placed(Words):
    """Adds a table of positions, which is no feature of a sample."""

    def __init__(self, width):
        super().__init__(width)
        self.places = nn.Embedding(5, width)

    def forward(self, x):
        return self.outer(torch.tanh(self.hidden(self.inner(x) + self.places(torch.arange(x.shape[1])))))


def test_a_table_of_positions_is_no_hidden_layer():
    x = torch.randint(6, (15, 5), generator=torch.Generator().manual_seed(0))
    given = {**FEW, "steps": 3, "samples": 10, "test": 5}
    found = lzr.dial(lzr.Family(Placed, base=16), (x, x), [0.1, 1.0], widths=[16], **given)
    assert [set(p["layers"]) for p in found.points] == [{"inner", "hidden"}] * 2


class Bare(nn.Module):
    """Tables alone."""

    def __init__(self, width):
        super().__init__()
        self.table, self.outer = nn.Embedding(5, width), nn.Linear(width, 6)

    def forward(self, x):
        return self.outer(self.table(torch.arange(x.shape[1]))).expand(len(x), -1, -1) + 0.0 * x[..., None]


def test_a_network_without_hidden_features_is_refused_before_training():
    x = torch.randint(6, (15, 5), generator=torch.Generator().manual_seed(0))
    with pytest.raises(UsageError, match="Bare has no hidden layer whose features could move"):
        lzr.dial(lzr.Family(Bare, base=16), (x, x), [0.1, 1.0], widths=[16], **FEW)


def test_no_law_is_read_where_no_width_is_near_its_linearisation():
    points = [point(g, 3.0, width, features=1.0, feature_kernel=1.0, kernel=1.0, kernel_distance=1.0) for g in (0.1, 1.0)
              for width in (64, 128)]  # fmt: skip
    assert summed(points, (0.1, 1.0), widths=(64, 128)).laws == ()


def seeded(richness, losses, width=64, r=0.5, distance=0.01, **more):
    """Points of several seeds: one row of test losses a richness."""
    return [point(g, distance, width, r, seed, start=2.0, test_loss=loss, **more) for g, row in zip(richness, losses, strict=True)
            for seed, loss in enumerate(row)]  # fmt: skip


def test_a_loss_that_grew_and_a_tie_are_told():
    grown = summed([point(g, 0.01, start=0.5) for g in (0.1, 1.0)], (0.1, 1.0))
    assert "larger loss than without any output; give a smaller lr" in grown.sentence
    tied = summed([point(g, 0.01, start=2.0) for g in (0.1, 1.0)], (0.1, 1.0))
    assert "generalises alike at every richness that was tried (test loss 1)" in tied.sentence
    better = summed(seeded((0.1, 1.0), [(1.0, 1.05), (0.5, 0.51)]), (0.1, 1.0))
    assert "generalises best at gamma_0 = 1, the largest that was tried (test loss 0.505)" in better.sentence
    first = summed(seeded((0.1, 1.0), [(0.5, 0.51), (1.0, 1.05)]), (0.1, 1.0))
    assert "generalises best at gamma_0 = 0.1, the smallest that was tried (test loss 0.505)" in first.sentence
    inside = summed(seeded((0.01, 0.1, 1.0), [(0.9, 0.91), (0.5, 0.51), (0.9, 0.91)]), (0.01, 0.1, 1.0))
    assert "generalises best at gamma_0 = 0.1 (test loss 0.505)" in inside.sentence


def test_what_lies_within_the_scatter_is_no_best_and_one_seed_tells_none():
    near = summed(seeded((0.1, 1.0), [(0.7, 0.73), (0.66, 0.7)]), (0.1, 1.0))
    assert (
        "No richness that was tried generalises better than another beyond the seeds' scatter (test loss 0.68 to 0.715)"
        in near.sentence
    )
    one = summed(seeded((0.1, 1.0), [(0.7,), (0.6,)]), (0.1, 1.0))
    assert (
        "test loss is lowest at gamma_0 = 1, the largest that was tried (0.6 to 0.7); one seed tells no scatter" in one.sentence
    )
    draw, alarms = random.Random(0), 0
    for _ in range(100):
        losses = [[draw.gauss(1, 0.1) for _ in range(2)] for _ in range(4)]
        alarms += "generalises best" in summed(seeded((0.01, 0.1, 1.0, 3.0), losses), (0.01, 0.1, 1.0, 3.0)).sentence
    assert alarms <= 10  # two standard errors: every other


@pytest.mark.parametrize("lost", [False, True])
def test_groups_that_scatter_differently_raise_few_false_alarms(lost):
    draw, alarms, deviations = np.random.default_rng(0).standard_normal, 0, np.array([1.0] * 6 + [10.0] * 2)
    for _ in range(100):
        table = 10 + 0.01 * deviations * draw((4, 8))
        table[0, 0] = math.nan if lost else table[0, 0]
        scatter, means = Scatter(list(table.T)), np.nanmean(table, 0)
        best = int(means.argmin())
        alarms += any(means[i] > means[best] + scatter.reach(i, best) for i in range(8) if i != best)
    assert alarms <= 10  # the scatter of all groups together: every fourth


def test_what_all_seeds_agree_on_is_found_whatever_levels_they_have():
    draw, found = np.random.default_rng(0).standard_normal, 0
    for _ in range(50):
        table = 1 + 0.1 * draw((3, 1)) + 0.05 * np.array([1, 1, 1, 0, 1, 1, 1, 1]) + 0.005 * draw((3, 8))
        scatter = Scatter(list(table.T))
        found += table[:, 0].mean() - table[:, 3].mean() > scatter.reach(0, 3)
    assert found >= 45  # beside the scatter of the seeds themselves: hardly ever
    assert math.isinf(Scatter([[1.0, math.nan], [2.0, 2.1]]).reach(0, 1)), "one seed tells no scatter"


def test_what_is_true_of_several_curves_is_said_once(tmp_path):
    rows, points = [(1.0, 1.05), (0.5, 0.51)], []
    for width, r, distance in ((64, 0.0, 0.5), (64, 0.5, 0.01), (128, 0.0, 0.01), (128, 0.5, 0.01)):
        points += seeded((0.1, 1.0), rows, width, r, distance)
    found = summed(points, (0.1, 1.0), (64, 128), (0.0, 0.5))
    assert found.sentences[1:] == (
        "Width 64, r = 0.5 and width 128 at every r: the network is lazy up to gamma_0 = 1; the plain network, at 0.12, is lazy.",
        "Width 64, r = 0: the network is never lazy down to gamma_0 = 0.1; the plain network, at 0.12, is not lazy.",
    )
    assert found.sentences[0].startswith("Everywhere: it generalises best")
    assert sum("generalises best" in text for text in found.sentences) == 1
    assert (
        "it generalises best at gamma_0 = 1, the largest that was tried (test loss 0.505); its tangent kernel" in found.sentence
    )
    found = replace(found, reproduce={"command": "lazyrich dial", "versions": {}, "notes": []})
    assert lzr.render(found, tmp_path / "page.html").read_text().count("generalises best") == 1


def test_sentence_and_table_round_alike_and_the_page_lists_what_is_said(tmp_path):
    errors = {"test_error": 0.1125, "linear_test_error": 0.1125, "lr": 0.1, "features": 0.1, "kernel": 0.1}
    points = [point(g, 0.01 * n, n, start=2.0, seed=s, **errors) for g in (0.1, 1.0) for n in (1, 20) for s in (0, 1)]
    found = replace(summed(points, (0.1, 1.0), (1, 20)), reproduce={"command": "c", "versions": {}, "notes": []})
    assert "(test error 11.3%)" in found.sentence and "reaches 11.3%" in found.sentence and " 0.113 " in str(found)
    page = lzr.render(found, tmp_path / "page.html").read_text()
    assert [f"<li>{typeset(text)}</li>" in page for text in found.sentences] == [True] * 3
    assert ">0.113<" in page and ">lr at A = 1<" in page and "the plan multiplies it by A" in page
    old = found.to_dict()
    old.pop("sentences")
    assert typeset(found.sentence) in lzr.render(old, tmp_path / "page.html").read_text()  # a result of an older version


def test_an_exponent_without_information_is_undetermined(tmp_path):
    def laws(spread):
        points = []
        for width, seed in itertools.product((64, 128), (0, 1)):
            moved = spread ** ((width == 64) * (-1) ** seed)
            values = dict.fromkeys(("features", "feature_kernel", "kernel", "kernel_distance"), moved)
            points += [point(g, 0.01, width, 0.5, seed, start=2.0, **values) for g in (0.1, 1.0)]
        return replace(summed(points, (0.1, 1.0), (64, 128)), reproduce={"command": "c", "versions": {}, "notes": []})

    vague, clear = laws(1.5), laws(1.001)
    assert "features: exponent undetermined at r = 0.5, gamma_0 = 1; expected +0.00; add seeds or widths" in str(vague)
    assert "features ~ n^(" not in str(vague) and "features ~ n^(" in str(clear)
    assert "undetermined" in lzr.render(vague, tmp_path / "page.html").read_text()
    assert "undetermined" not in lzr.render(clear, tmp_path / "page.html").read_text()


def moving(widths, richness, r, powers):
    """Points of two seeds whose kernels move by an odd term, gamma / sqrt(n), and a quadratic one, gamma^2, of given sizes."""
    points = []
    for n, g, seed in itertools.product(widths, richness, (0, 1)):
        gamma = (1 + 0.01 * seed * (n / 64 - 1)) * g * (n / 64) ** (r - 0.5)
        k = powers[0] * gamma * (n / 64) ** -0.5 + powers[1] * gamma**2
        moved = {"features": gamma, "feature_kernel": k, "kernel": k, "kernel_distance": k**2}
        points.append(point(g, g, n, r, seed, start=2.0, **moved))
    return summed(points, richness, widths, (r,))


@pytest.mark.parametrize(("r", "quadratic"), [(0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (0.25, 1e4), (0.5, 1e4)])
def test_an_exponent_out_of_its_law_s_regime_is_no_disagreement(tmp_path, r, quadratic):
    """Odd terms of a kernel's movement fall as n^(r - 1), not as n^(2 r - 1), and tell themselves by growing as gamma_0."""
    found = moving((64, 128, 256), (0.003, 0.01), r, (1.0, quadratic))
    said = {law.quantity: law.verdict for law in found.laws}
    inside = "agrees" if r == 0 or quadratic else "not in its regime"
    assert said == dict.fromkeys(("feature_kernel", "kernel", "kernel_distance"), inside) | {"features": "agrees"}
    outside = (
        f"kernel: not in the regime of the law at r = {r:g}, gamma_0 = 0.01 (it grows as gamma_0^1.0, not as gamma_0^2: needs"
    )
    assert (outside in str(found)) == (inside != "agrees")
    page = lzr.render(
        replace(found, reproduce={"command": "c", "versions": {}, "notes": []}), tmp_path / "page.html"
    ).read_text()
    assert page.count("agrees</td>") == 4 - page.count("not in its regime</td>") == (1 if inside != "agrees" else 4)


def test_an_exponent_beside_its_law_in_the_regime_disagrees():
    points = [point(g, g, n, seed=seed, start=2.0, features=g * n ** (-0.5 + 0.01 * seed)) for n in (64, 128, 256)
              for g in (0.01, 0.1) for seed in (0, 1)]  # fmt: skip
    (law,) = (law for law in summed(points, (0.01, 0.1), (64, 128, 256)).laws if law.quantity == "features")
    assert law.verdict == "disagrees" and str(law).endswith("at r = 0.5, gamma_0 = 0.1; expected +0.00: disagrees")
    alone = next(law for law in moving((64, 128), (0.1, 1.0), 0.5, (0.0, 1.0)).laws if law.quantity == "kernel")
    assert "no smaller richness shows how it grows: needs a smaller gamma_0" in str(alone)


@pytest.mark.parametrize("quantity", LAWS)
def test_how_wide_an_interval_tells_and_how_far_a_slope_may_be_off(quantity):
    """The way from the lazy end to the rich one is half a power of the width for every power of gamma_0."""
    full, expected = POWERS[quantity], POWERS[quantity] * (0.25 - 0.5)
    assert LAWS[quantity](0.25) == expected

    def verdict(off, half, power=full, r=0.25):
        at = LAWS[quantity](r) + off
        return Law(quantity, r, 1.0, Slope(at, at - half, at + half, 12), LAWS[quantity](r), power).verdict

    assert verdict(0.0, 0.49 * full) == "agrees"
    assert verdict(0.0, 0.51 * full) == verdict(0.0, math.nan) == "undetermined"
    assert verdict(0.5 * TOLERANCE, 0.01 * TOLERANCE) == "agrees"  # the interval alone does not hold the law
    assert verdict(1.5 * TOLERANCE, 0.01 * TOLERANCE) == verdict(-1.5 * TOLERANCE, 0.01 * TOLERANCE) == "disagrees"
    assert verdict(0.0, 0.1, 0.7 * full) == verdict(0.0, 0.1, math.nan) == ("agrees" if full == 1 else "not in its regime")
    assert verdict(0.0, 0.1, 0.8 * full) == verdict(0.0, 0.1, math.nan, r=0.0) == "agrees"


def test_laws_are_read_where_all_widths_are_near_and_by_the_growth_from_the_next_smaller_richness():
    def law(far, richness=(0.01, 0.1, 1.0)):
        points = []
        for g, n, seed in itertools.product(richness, (64, 128), (0, 1)):
            moved = (g if g < 0.1 else 0.01 * (g / 0.01) ** 2) * (1 + 0.01 * seed * n / 64)
            values = dict.fromkeys(LAWS, moved)
            points.append(point(g, far if (g, n) == (1.0, 128) else 0.01, n, 0.5, seed, start=2.0, **values))
        return next(law for law in summed(points, richness, (64, 128)).laws if law.quantity == "kernel")

    assert (law(0.01).richness, law(0.5).richness) == (1.0, 0.1)
    assert law(0.01).power == pytest.approx(2.0)
    assert law(0.5).power == pytest.approx(2.0)
    assert law(0.01, (0.01, 1.0)).power == pytest.approx(2.0)


def test_no_more_samples_are_trained_on_than_asked():
    found = lzr.dial(mlp(8), "digits", [0.1, 1.0], widths=[8], **{**FEW, "samples": 40, "test": 300})
    assert found.settings["train"] == 40


def test_what_diverged_is_neither_a_tie_nor_a_warning():
    lost = point(1.0, None, start=2.0) | {"loss": None, "test_loss": None, "diverged": True}
    found = summed([point(0.1, 0.01, start=2.0), lost], (0.1, 1.0))
    assert "generalises best at gamma_0 = 0.1" in found.sentence


def test_a_page_is_drawn_of_the_seeds_that_all_begun_widths_share(monkeypatch):
    """A second width with its first seed while the first width has two already."""
    module, seen = sys.modules["lazyrich.measure.dial"], []
    real = module.run_trainings

    def trained(*given, so_far, **more):
        done = real(*given, so_far=None, **more)
        for count in (1, 2, 3, 4):
            so_far(replace(done, values=done.values[:count]))
        return done

    monkeypatch.setattr(module, "run_trainings", trained)
    lzr.dial(mlp(), "digits", [1e-3, 1e-2], widths=[16, 32], **FEW | {"seeds": 2, "steps": 3}, so_far=seen.append)
    assert [len(result.points) for result in seen] == [2, 4, 4, 8]


class Swapped(nn.Module):
    """Layers that are assigned in another order than they run."""

    def __init__(self, n, names):
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(64 if name == "first" else n, n) for name in names})
        self.out = nn.Linear(n, 10)

    def forward(self, x):
        return self.out(torch.tanh(self.layers["second"](torch.tanh(self.layers["first"](x)))))


@pytest.mark.parametrize("names", [("first", "second"), ("second", "first")])
def test_the_last_layer_is_the_one_that_runs_last(names):
    found = lzr.dial(lzr.Family(lambda n: Swapped(n, names), base=16), "digits", [0.1, 1.0], widths=[16], **FEW)
    for point in found.points:
        assert list(point["layers"]) == ["layers.first", "layers.second"]
        assert point["features"] == point["layers"]["layers.second"]


class Attending(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.read, self.mix, self.head = nn.Linear(8, n), nn.MultiheadAttention(n, 2, batch_first=True), nn.Linear(n, 10)

    def forward(self, x):
        h = self.read(x.view(-1, 8, 8))
        return self.head((h + self.mix(h, h, h, need_weights=False)[0]).mean(1))


def test_an_unmet_obligation_is_said():
    found = lzr.dial(lzr.Family(Attending, base=8), "digits", [0.1, 1.0], [16], 1, steps=1, samples=40, test=20)
    (line,) = found.reproduce["notes"]
    assert line.startswith("unmet: attention at mix: its heads grow from 4 to ") and line in str(found)
    assert found.settings["obligations met"] == "no"
