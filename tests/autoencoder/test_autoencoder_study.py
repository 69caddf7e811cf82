"""The study: comparisons that are right about known tables, starts that keep the plan's sizes, resumable trainings, its page."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.autoencoder import METRICS, STARTS, Pair, Trained, start_for, study
from lazyrich.autoencoder.metric import code_dimension, delay, measured, probe_accuracy, radius, unexplained
from lazyrich.autoencoder.result import summarise
from lazyrich.cli import main
from lazyrich.errors import AutoencoderError, LazyrichError, Unfinished
from lazyrich.scaling.native import ADJUST, MATRIX
from lazyrich.scaling.optimizer import ENTRYWISE, GRADIENT

SMALL = {"starts": ["default", "cascading"], "schemes": ["mup"], "widths": [8, 16], "seeds": 2, "steps": 8, "samples": 200,
         "test": 90, "lrs": [0.01]}  # fmt: skip


def numbers(result):
    return [(row["start"], row["width"], row["seed"], row["unexplained"], row["probe"]) for row in result.rows()]


@pytest.mark.parametrize("name", [*STARTS, "transposed(0.3)"])
def test_starts_keep_the_size_that_the_plan_gave_every_tensor(name):
    family = lzr.Family(lzr.zoo.autoencoder, base=16)
    plan, x = lzr.plan(family, lzr.mup(), "adam"), lzr.data.load("digits").x[:200]
    model, plain = plan.build(64, 3), plan.build(64, 3)
    start_for(name)(model, x, 3)
    for (tensor, after), before in zip(model.named_parameters(), plain.parameters(), strict=True):
        if after.dim() > 1:
            assert float((after.square().mean() / before.square().mean()).detach()) == pytest.approx(1.0, rel=0.12), tensor
        else:
            assert torch.equal(after, before)


def test_the_cascade_fills_the_code_and_tells_a_delay_from_none():
    """Under muP a wide network's code is of order n^(-1/2) at the start; the cascade makes it of order one."""
    plan, x = lzr.plan(lzr.Family(lzr.zoo.autoencoder, base=16), lzr.mup(), "sgd"), lzr.data.load("digits").x[:300]
    sizes = {}
    for name in ("default", "transposed", "cascading"):
        for width in (64, 1024):
            model = plan.build(width, 0)
            start_for(name)(model, x, 0)
            torch.nn.init.zeros_(model.encoder.readout.bias)
            sizes[name, width] = float(model.encoder(x).detach().square().mean().sqrt())
    assert sizes["default", 1024] < 0.4 * sizes["default", 64]
    assert sizes["transposed", 1024] < 0.4 * sizes["transposed", 64]
    assert 0.7 < sizes["cascading", 1024] / sizes["cascading", 64] < 1.4


class Keeping(nn.Module):
    """It holds the code of its last forward pass, which copy.deepcopy refuses."""

    def __init__(self, width):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, width), nn.Linear(width, 64)

    def forward(self, x):
        self.code = self.encoder(x)
        return self.decoder(self.code)


def test_a_network_that_holds_its_last_code_is_studied():
    few = {"starts": ["default"], "schemes": ["mup"], "widths": [8, 16], "seeds": 1, "steps": 2, "samples": 60, "test": 30}
    found = study(Keeping, "digits", **few, lrs=[0.01])
    assert all(math.isfinite(row["unexplained"]) for row in found.rows())
    assert len(found.rows()) == 2


class Shaky(nn.Module):
    """Dropout and batch normalisation in both halves."""

    def __init__(self, width, inputs=64, code=4):
        super().__init__()
        body = nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.Dropout(0.2), nn.Tanh()
        self.encoder = nn.Sequential(*body, nn.Linear(width, code))
        self.decoder = nn.Sequential(nn.Linear(code, width), nn.Dropout(0.2), nn.Tanh(), nn.Linear(width, inputs))

    def forward(self, x):
        return self.decoder(self.encoder(x))


def test_networks_that_are_random_in_training_are_measured_in_evaluation_mode():
    found = study(Shaky, "digits", **{**SMALL, "starts": ["transposed"]})
    for row in found.rows():
        known = (
            "unexplained",
            "encoder moved",
            "mirror before",
            "mirror after",
            "mirror shared",
            "stretch",
            "radius",
            "settled",
        )
        assert {name for name in known if row[name] is None} == set()
    net, data = Shaky(8), lzr.data.load("digits").x[:60]
    run = Trained(net, net, net, (1.0,) * 5, data[:30], None, data[30:])
    first, again = measured(run, METRICS), measured(run, METRICS)
    assert first == again
    assert net.training
    assert not net.encoder[1].running_mean.any()


def test_convolutional_mirrors_are_coupled_too():
    net = Pair(nn.Conv2d(1, 6, 3), nn.ConvTranspose2d(6, 1, 3))
    start_for("transposed")(net, torch.zeros(1, 1, 8, 8), 0)
    ratio = net.decoder.weight / net.encoder.weight
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))
    with pytest.raises(AutoencoderError, match="got start 'tied'"):
        start_for("tied")
    with pytest.raises(AutoencoderError, match="correlation = 2"):
        start_for("transposed(2)")


class Square(nn.Module):
    def forward(self, x):
        return x**2


def run_of(model, x, labels=None, losses=(1.0, 0.5, 0.25, 0.2, 0.2, 0.2)):
    return Trained(model, model, model, tuple(losses), x, labels, x)


def test_metrics_of_networks_whose_answers_are_known():
    torch.manual_seed(0)
    labels = torch.arange(200) % 4
    x = torch.randn(200, 6) * 0.01
    x[torch.arange(200), labels] += 1.0
    eye = Pair(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    with torch.no_grad():
        eye.encoder.weight.copy_(torch.eye(6))
        eye.decoder.weight.copy_(0.5 * torch.eye(6))
    run = run_of(eye, x, labels)
    assert unexplained(run) == pytest.approx(0.25 * float(x.square().sum() / (x - x.mean(0)).square().sum()), rel=1e-5)
    assert radius(run) == pytest.approx(0.5)
    assert probe_accuracy(run) == 1.0
    assert probe_accuracy(run_of(eye, x, labels[torch.randperm(200)])) < 0.5
    assert code_dimension(run) == pytest.approx(3.0, rel=0.05)  # four corners of a simplex
    assert delay(run_of(eye, x, losses=[1.0] * 30 + [0.0] * 30)) == 30.0  # of five steps three are there
    assert delay(run_of(eye, x, losses=[1.0] * 30)) is None
    assert probe_accuracy(run_of(eye, x)) is None
    far = replace(run, seen=x + 1)  # a stranger's mean makes the variance larger, and the same error a smaller part of it
    assert unexplained(far) == pytest.approx(0.25 * float(x.square().sum() / (x - far.seen.mean(0)).square().sum()), rel=1e-5)
    bent = run_of(Pair(Square(), nn.Identity()), torch.tensor([[1.0], [2.0], [10.0]]))
    assert radius(bent) == pytest.approx(4.0)  # slopes of 2, 4 and 20


def test_undefined_numbers_are_none_and_said_so():
    x = torch.randn(50, 6)
    dead = Pair(nn.Linear(6, 2), nn.Linear(2, 6))
    with torch.no_grad():
        for p in dead.parameters():
            p.zero_()
    found = measured(run_of(dead, x), METRICS)
    assert found["dimension"] is None
    assert found["stretch"] is None
    assert all(v is None or v == v for v in found.values())
    cell = {"start": "a", "scheme": "mup", "optimizer": "adam", "width": 8, "code": None, "lr": 0.1, "edge": False,
            "seeds": [found], "curve": []}  # fmt: skip
    assert "undefined" in str(summarise([cell], {"None": 0.1}, {"network": "n", "data": "d"}, {"notes": []}))


def test_comparisons_are_paired_and_causes_are_ranked():
    cells = [
        {"start": start, "scheme": "mup", "optimizer": "adam", "width": width, "code": None, "lr": 0.1, "edge": False, "curve": [],
         "seeds": [{"unexplained": 0.5 + gain + noise * width / 100, "delay": 10 * gain + seed, "probe": None}
                   for seed, noise in enumerate((0.0, 0.01, 0.02))]}
        for start, gain in (("good", 0.0), ("bad", 0.1), ("worse", 0.2)) for width in (16, 32)
    ]  # fmt: skip
    found = summarise(cells, {"None": 0.1}, {"network": "n", "data": "d"}, {"notes": []})
    start, width = found.comparisons
    assert (start.better, start.worse, start.pairs) == ("good", "bad", 6)
    assert start.gain == pytest.approx(0.1)
    assert start.sure
    assert "good beats bad by 10" in start.sentence
    assert width.better == 16
    assert found.ranked[0]["start"] == "good"
    assert found.causes[0].name == "delay"
    assert found.causes[0].rank > 0.5


def cell_of(scheme, width, seeds, diverged=0, **more):
    seeds = [seed if isinstance(seed, dict) else {"unexplained": seed} for seed in seeds]
    return {"start": "default", "scheme": scheme, "optimizer": "sgd", "width": width, "code": None, "lr": 3.0, "edge": False,
            "curve": [], "diverged": diverged, "seeds": seeds, **more}  # fmt: skip


def summed(cells, **settings):
    return summarise(cells, {"None": 0.1}, {"network": "n", "data": "d", **settings}, {"notes": []})


def test_a_side_that_diverged_is_no_winner_and_ranks_last():
    cells = [cell_of("standard", 16, [0.1, 0.1, 0.1]), cell_of("standard", 64, [0.1], 2, trained=[1]),
             cell_of("mup", 16, [0.2, 0.22, 0.25]), cell_of("mup", 64, [0.2, 0.24, 0.2])]  # fmt: skip
    found = summed(cells)
    scheme = found.comparisons[0]
    assert (scheme.better, scheme.worse, scheme.diverged, scheme.pairs, scheme.sure) == ("mup", "standard", (0, 2), 4, False)
    assert scheme.gain == pytest.approx(-(0.1 + 0.12 + 0.15 + 0.14) / 4)  # the surviving seed meets its own partner
    assert "there is no winner: networks diverged, 2 of standard; where both trained, mup leaves 13 ± " in scheme.sentence
    assert "points more, 4 pairs" in scheme.sentence
    assert "beats standard" not in found.sentence
    assert "In 1 of 4 cells no learning rate trained all networks, and 2 diverged" in found.sentence
    assert (found.ranked[-1]["scheme"], found.ranked[-1]["width"]) == ("standard", 64)
    assert str(found).splitlines()[3].endswith("diverged")
    assert [r["seed"] for r in found.rows()][3:4] == [1]
    gone = summed([cell_of("standard", 16, [], 2), cell_of("mup", 16, [0.3, 0.2]), cell_of("ntk", 16, [0.5, 0.5])]).comparisons[
        0
    ]
    assert (gone.better, gone.worse) == ("mup", "ntk")  # the third level says nothing of the others
    alone = summed([cell_of("standard", 16, [], 2), cell_of("mup", 16, [0.3, 0.2])]).comparisons[0]
    assert "2 of standard; no pair is left of which both trained" in alone.sentence


def test_intervals_are_of_ninety_five_percent_and_causes_are_read_the_right_way_round():
    found = summed([cell_of("mup", 16, [0.1, 0.2, 0.3]), cell_of("ntk", 16, [0.2, 0.5, 0.3])]).comparisons[0]
    gaps = torch.tensor([0.1, 0.3, 0.0], dtype=torch.float64)
    assert found.half_width == pytest.approx(4.302653 * float(gaps.std()) / math.sqrt(3), rel=1e-5)
    for sign, side in ((1, "more"), (-1, "less")):
        seeds = [{"unexplained": 0.1 * i, "delay": sign * i} for i in range(1, 9)]
        assert f"the more of it, the {side} variance is left" in summed([cell_of("mup", 16, seeds)]).sentence


def test_what_the_sentence_names_has_a_column(tmp_path):
    seeds = [{"unexplained": 0.1 * i, "mirror shared": 0.9 - 0.07123 * i} for i in range(1, 9)]
    for named in (True, False):
        known = [seed if named else {**seed, "mirror shared": 0.5 + 0.01 * (i % 3)} for i, seed in enumerate(seeds)]
        found = summed([cell_of("mup", 16, known)])
        page = lzr.render(found.to_dict() | {"reproduce": {"command": "", "versions": {}, "date": "", "notes": []}},
                          tmp_path / f"{named}.html").read_text()  # fmt: skip
        assert ("'mirror shared'" in found.sentence) == named
        assert ("mirror shared" in str(found).splitlines()[3]) == named
        assert bool(re.search('<th scope="col"[^>]*>mirror shared</th>', page)) == named


def test_the_theory_beside_a_movement_is_that_of_the_first_layer():
    seeds = [{"unexplained": 0.5, "encoder early": 1.0}] * 2
    cells = [cell_of(scheme, width, seeds) for scheme in ("standard", "ntk", "mup") for width in (16, 64)]
    found = summed(cells)
    assert {scheme: theory for _, scheme, _, _, theory in found.movements} == {"standard": 0.0, "ntk": -0.5, "mup": 0.0}
    assert "theory without a bottleneck -0.00" not in str(found)


def test_a_network_that_all_schemes_share_stands_in_the_table_once():
    cells = [cell_of(scheme, width, [0.3]) for scheme in ("ntk", "mup") for width in (8, 16)]
    table = str(summed(cells, base=8)).splitlines()[4:7]
    assert sorted(row.split()[1] for row in table) == ["every", "mup", "ntk"]


def test_every_optimizer_has_its_own_usual_rates_and_two_rates_have_no_middle():
    words = {**SMALL, "starts": ["default"], "widths": [8], "seeds": 1, "steps": 2}
    lrs = {
        c["optimizer"]: c["lr"]
        for c in study(lzr.zoo.autoencoder, "digits", **{**words, "lrs": None}, optimizers=["adam", "sgd"]).cells
    }
    assert lrs["adam"] in (0.0015, 0.006, 0.024)
    assert lrs["sgd"] in (0.05, 0.2, 0.8)
    two = study(lzr.zoo.autoencoder, "digits", **{**words, "lrs": [0.01, 0.02]})
    assert two.settings["lrs"] == [0.01, 0.02]
    assert "end of the grid" not in two.sentence


def test_a_study_keeps_the_rate_at_which_the_fewest_networks_diverge():
    found = study(
        lzr.zoo.autoencoder,
        "digits",
        **{**SMALL, "starts": ["default"], "widths": [8], "lrs": [1e30, 0.01, 2e30]},
        optimizers=["sgd"],
    )
    assert [(c["lr"], c["diverged"], c["edge"], c["trained"]) for c in found.cells] == [(0.01, 0, True, [0, 1])]


def test_inputs_alone_are_enough_and_schemes_may_be_those_of_a_plan():
    words = {**SMALL, "starts": ["default"], "widths": [8], "seeds": 1, "steps": 2}
    alone = study(lzr.zoo.autoencoder, torch.rand(60, 64), **words)
    assert alone.title == "autoencoder · autoencoders of your own data"
    assert alone.cells[0]["labels"] == []
    pair = study(
        lzr.zoo.autoencoder, (torch.rand(60, 64), torch.arange(60) % 2), **{**words, "schemes": [lzr.mup(), lzr.richness(0.5)]}
    )
    assert [c["scheme"] for c in pair.cells] == ["mup", "richness(0.5)"]
    assert pair.title == alone.title
    assert pair.cells[0]["seeds"][0]["probe"] is not None


@pytest.mark.parametrize(("spread", "told"), [(0.5, False), (0.001, True)])
def test_a_movement_whose_interval_is_too_wide_is_no_finding(spread, told, tmp_path):
    cells = [
        {"start": "default", "scheme": "mup", "optimizer": "adam", "width": width, "code": None, "lr": 0.1, "edge": True,
         "curve": [], "diverged": 0, "seeds": [{"unexplained": 0.5, "mirror shared": 0.1, "encoder early": 1 + sign * spread * n}
                                               for sign in (1, -1)]}
        for n, width in enumerate((16, 32))
    ]  # fmt: skip
    found = summarise(
        cells, {"None": 0.1}, {"network": "n", "data": "d", "own code": {}}, {"command": "c", "versions": {}, "notes": []}
    )
    line = str(found).splitlines()[-1]
    assert line.startswith("encoder moves as n^(") is told
    assert ("cannot be told" in line) is not told
    assert found.to_dict()["movements"][0]["told"] is told
    page = lzr.render(found, tmp_path / "page.html").read_text()
    assert (">cannot be told <" in page) is not told
    assert '<table class="dense">' in page
    assert "</svg>best linear autoencoder</li>" in page and ">50%</td>" in page
    assert "own code" not in page
    assert "Mirror shared" not in page  # it stands among what goes with success, and that is not on this page
    for explained in ("no exact adjoint", "0.1 (end)"):
        assert explained in page


def test_a_network_that_all_schemes_share_counts_once():
    """At the base width every plan is the plain network: its pairs are no evidence on schemes, and it is one network of many."""
    found = study(lzr.zoo.autoencoder, "digits", **{**SMALL, "schemes": ["standard", "ntk", "mup"], "widths": [8, 16, 32]})
    rows = found.rows()
    for start in SMALL["starts"]:
        for seed in range(SMALL["seeds"]):
            alike = [r["unexplained"] for r in rows if (r["start"], r["width"], r["seed"]) == (start, 8, seed)]
            assert len(alike) == 3
            assert len(set(alike)) == 1
    pairs = {c.axis: c.pairs for c in found.comparisons}
    assert pairs["scheme"] == 2 * 2 * 2  # starts, widths above the base, seeds
    assert pairs["start"] == (1 + 3 + 3) * 2  # schemes at every width, seeds
    assert pairs["width"] == (2 * 2 if 8 in _compared_widths(found) else 3 * 2 * 2)
    assert max(cause.networks for cause in found.causes) == 2 * (1 + 3 + 3) * 2
    only = summarise([c for c in found.cells if c["width"] == 8], found.linear, found.settings, found.reproduce)
    assert [c.axis for c in only.comparisons] == ["start"]
    assert "under every scheme (one network at the base width)" in only.sentence


def _compared_widths(found):
    return next((c.better, c.worse) for c in found.comparisons if c.axis == "width")


def test_a_study_gives_the_same_numbers_stacked_single_in_processes_and_in_shards(tmp_path):
    whole = study(lzr.zoo.autoencoder, "digits", **SMALL)
    assert numbers(whole) == numbers(study(lzr.zoo.autoencoder, "digits", executor="processes", workers=1, **SMALL))
    loop = study(lzr.zoo.autoencoder, "digits", engine="loop", **SMALL)
    assert [row[3] for row in numbers(loop)] == pytest.approx([row[3] for row in numbers(whole)], rel=1e-3)
    for part in ("1/2", "2/2"):
        with pytest.raises(Unfinished):
            study(lzr.zoo.autoencoder, "digits", folder=tmp_path / "s", shard=part, **SMALL)
    done = []
    again = study(lzr.zoo.autoencoder, "digits", folder=tmp_path / "s", progress=lambda d, t, w: done.append(d), **SMALL)
    assert done == [8]
    assert numbers(again) == numbers(whole)
    assert 0 < whole.linear["None"] < 1


def readout_size(run):
    return float(run.before.decoder.readout.weight.detach().std())


def test_own_starts_and_metrics_are_a_few_lines(tmp_path):
    def half(model, x, seed):
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.5)

    found = study(lzr.zoo.autoencoder, "digits", **{**SMALL, "starts": ["half", "mine"], "widths": [8]},
                  more_starts={"mine": half}, more_metrics={"size": readout_size})  # fmt: skip
    assert {cell["start"] for cell in found.cells} == {"half", "mine"}
    sizes = {cell["start"]: cell["seeds"][0]["size"] for cell in found.cells}
    assert sizes["mine"] < 0.7 * sizes["half"]


class Reversed(nn.Module):
    """A decoder that reads the encoder's weight and holds none."""

    def __init__(self, encoder):
        super().__init__()
        self.others, self.shift = [encoder], nn.Parameter(torch.zeros(64))

    def forward(self, z):
        return z @ self.others[0].weight + self.shift


def reversing(width):
    encoder = nn.Sequential(nn.Linear(64, width), nn.Tanh())
    return Pair(encoder, Reversed(encoder[0]))


def test_a_decoder_without_weights_of_its_own_has_no_early_movement_and_says_why():
    found = study(reversing, "digits", **{**SMALL, "starts": ["default"], "schemes": ["standard"], "widths": [8]})
    assert all(seed["decoder early"] is None and seed["encoder early"] > 0 for c in found.cells for seed in c["seeds"])
    assert "Metric 'decoder early' is undefined: the decoder has no layer that holds a weight" in found.sentence
    assert "mend it" not in found.sentence


upward = nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)))


def images(width):
    return Pair(nn.Sequential(nn.Conv2d(1, width, 3), nn.Flatten(), nn.Linear(36 * width, 4)), upward)


class Code(Pair):
    def forward(self, x):
        return self.encoder(x)


class Still(Pair):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


def halves_of(width):
    return nn.Linear(64, width), nn.Linear(width, 64)


def broken(model, x, seed):
    raise ZeroDivisionError("by zero\nand more")


def lost_metric(run):
    raise KeyError("nowhere\nand more")


def test_a_metric_that_fails_costs_no_training_and_is_named():
    words = {**SMALL, "starts": ["default"], "widths": [8], "steps": 2}
    found = study(lzr.zoo.autoencoder, "digits", **words, more_metrics={"mine": lost_metric})
    assert [(s["mine"], s["unexplained"] > 0) for s in found.cells[0]["seeds"]] == [(None, True)] * 2
    assert "Metric 'mine' fails (KeyError: 'nowhere" in found.sentence


def test_metrics_may_return_any_kind_of_number_or_none():
    trained = Trained(*[nn.Linear(2, 2)] * 3, (), torch.zeros(2, 2), None, torch.zeros(2, 2), nn.Linear(2, 2))
    given = {"tensor": torch.ones(1), "flag": True, "whole": 3, "none": None, "infinite": math.inf}
    found = measured(trained, {name: lambda _, value=value: value for name, value in given.items()})
    assert found == {"tensor": 1.0, "flag": 1.0, "whole": 3.0, "none": None, "infinite": None}


@pytest.mark.parametrize("verb", ["autoencoder", "check", "depth", "transfer"])
def test_the_help_names_every_optimizer_that_trains(capsys, verb):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    known = [name for name in GRADIENT + ENTRYWISE if name not in MATRIX or name in ADJUST]
    for text, start, end in (
        (re.sub(r"[\s│|]+", " ", capsys.readouterr().out), "--optimizer ", r"[.;(]"),
        (study.__doc__, "optimizers: ", "codes:"),
    ):
        named = re.search(f"{start}.*?(sgd.*?){end}", text, re.DOTALL)[1]
        assert re.findall(r"\w+", named.replace(" or ", " ")) == known


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"starts": []}, "got an empty axis"),
        ({"starts": ["tied"]}, "got start 'tied'"),
        ({"schemes": ["best"]}, "best"),
        ({"lrs": [-1.0]}, "expected positive ones"),
        ({"codes": [100]}, "the code has 100 numbers a sample, more than the data's 64"),
        ({"steps": 0}, "got steps = 0"),
        ({"steps": "3"}, "got steps = '3', expected a whole number"),
        ({"seeds": None}, "got seeds = None"),
        ({"samples": math.inf}, "got samples = inf"),
        ({"widths": ["a"]}, "got width = 'a'"),
        ({"lrs": ["a"]}, "expected positive ones"),
        ({"lrs": []}, "got an empty axis, lrs"),
        ({"schemes": [None]}, "got None among schemes"),
        ({"schemes": [replace(lzr.mup(), name="mine")]}, "got the scheme 'mine', whose name does not give it back"),
        ({"data": torch.rand(60)}, r"got data of shape \(60,\), expected \(samples, ...\)"),
        ({"factory": images}, r"begin with nn.Unflatten\(1, \(1, 8, 8\)\)"),
        (
            {"factory": lambda width: Pair(nn.Linear(64, 4), upward)},
            r"of shape \(1, 8, 8\), expected \(64,\).*end it with nn.Flatten",
        ),
        (
            {"factory": lambda width: Code(*halves_of(width))},
            r"the model returns .*let its forward return decoder\(encoder\(x\)\)",
        ),
        ({"factory": lambda width: Still(*halves_of(width))}, r"^the loss depends on nothing that trains .*no_grad"),
        ({"factory": lambda width: Pair(*halves_of(width)).requires_grad_(False)}, "^the loss depends on nothing that trains"),
        ({"optimizers": [3]}, "got 3 among optimizers"),
        ({"starts": [None]}, "got start None, expected a name"),
        ({"data": (torch.ones(50, 8), torch.zeros(50, dtype=torch.int64))}, "all samples are equal"),
        ({"data": (torch.randn(5, 8), torch.zeros(5, dtype=torch.int64))}, "got 5 samples"),
        ({"factory": lzr.zoo.mlp}, "expected the modules 'encoder' and 'decoder'"),
        ({"widths": [8, 16, 8]}, "^widths has 8 twice, expected every value once"),
        ({"starts": ["default", "half", "default"]}, "^starts has default twice"),
        ({"lrs": [0.01, 0.02, 0.01]}, "^lrs has 0.01 twice"),
        (
            {"starts": ["mine"], "more_starts": {"mine": broken}},
            "start 'mine' fails on this network .ZeroDivisionError: by zero",
        ),
        (
            {"starts": ["mine"], "more_starts": {"mine": 3}},
            "start 'mine' fails on this network .TypeError: .*expected a function",
        ),
        ({"more_metrics": {"mine": lambda trained: "text"}}, "metric 'mine' returned 'text' of type str, expected a number"),
        ({"more_metrics": {"mine": lambda trained: trained.x}}, r"metric 'mine' returned tensor\(.* of type Tensor"),
    ],
)
def test_what_is_no_study_is_refused_before_anything_is_trained(changes, says, tmp_path):
    words = {"factory": lzr.zoo.autoencoder, "data": "digits", **SMALL, **changes}
    with pytest.raises(LazyrichError, match=says):
        study(words.pop("factory"), words.pop("data"), folder=tmp_path / "s", **words)
    assert not (tmp_path / "s").exists()


def test_one_width_rate_start_or_scheme_is_a_list_of_one():
    words = {"seeds": 1, "steps": 2, "samples": 40, "test": 20, "lrs": 0.01}
    found = study(lzr.zoo.autoencoder, "digits", "default", "mup", 16, **words)
    assert [(c["start"], c["scheme"], c["width"], c["lr"]) for c in found.cells] == [("default", "mup", 16, 0.01)]


@pytest.mark.parametrize(
    ("samples", "test", "trained", "held"), [(50, 1000, 50, 350), (200, 90, 200, 90), (9000, 1000, 1198, 599)]
)
def test_no_more_samples_are_trained_on_or_held_out_than_asked_for(samples, test, trained, held):
    found = study(lzr.zoo.autoencoder, "digits", **{**SMALL, "steps": 2, "widths": [8], "samples": samples, "test": test})
    assert (found.settings["training samples"], found.settings["held out"]) == (trained, held)


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 4))
        self.decoder = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 64))
    def forward(self, x):
        return self.decoder(self.encoder(x))

@torch.no_grad()
def coupled(model, x, seed):
    model.decoder[2].weight.copy_(model.encoder[0].weight.T)

def norm(trained):
    return float(trained.after.encoder[0].weight.norm())
"""


def test_the_command_line_takes_a_network_a_start_and_a_metric_of_ones_own(tmp_path, capsys):
    (tmp_path / "net.py").write_text(OWN)
    out, place = tmp_path / "run", str(tmp_path / "net.py")
    words = ["autoencoder", f"{place}:Net", "--start", "default", "--scheme", "mup", "--widths", "8", "16", "--steps", "10",
             "--samples", "100", "--seeds", "1", "--lrs", "0.01", "--add-start", f"mine={place}:coupled",
             "--add-metric", f"norm={place}:norm", "--out", str(out)]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "Best: start" in said
    assert said.splitlines()[-1] == f"page: {out / 'report.html'}"
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64") == 4
    assert "widest direction of the codes" in page
    assert ">norm</th>" in page
    assert json.loads((out / "result.json").read_text())["kind"] == "autoencoder"
    assert main(words) == 0
    assert main(["report", str(out)]) == 0
    assert main(["autoencoder", "lazyrich.zoo:mlp", "--out", str(tmp_path / "no")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
