"""The check tells schemes apart, agrees with theory, names the culprit, and says when it cannot tell."""

import dataclasses
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import LazyrichError, StoreError, UsageError
from lazyrich.measure import predict
from lazyrich.measure.departure import departures
from lazyrich.measure.predict import unit_exponents
from lazyrich.measure.slope import Slope, fit_slope
from lazyrich.measure.trunk import bottlenecks_beside
from lazyrich.measure.verdict import TOLERANCE, Cause, Line, overall, stretch, with_mend, word_for
from lazyrich.scaling.power import Power

WIDTHS = (64, 128, 256, 512)
RATES = {"sgd": 0.1, "adam": 0.003}


def check(scheme, optimizer="adam", factory=lzr.zoo.mlp, data="digits", **options):
    plan = lzr.plan(lzr.Family(factory, base=64), scheme, optimizer)
    options = {"lr": RATES[optimizer], "batch": 128, "probe": 32, "seeds": 4, **options}
    return lzr.check(plan, data, options.pop("widths", WIDTHS), **options)


def line(result, layer):
    return next(x for x in result.updates if x.layer == layer)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("scheme", "word"),
    [
        (lzr.mup(), "well-behaved"),
        (lzr.mean_field(), "well-behaved"),
        (lzr.spectral(), "well-behaved"),
        (lzr.ntk(), "lazy"),
        (lzr.richness(0.25), "lazy"),
        (lzr.standard(), "exploding"),
    ],
)
def test_every_scheme_gets_its_word_and_its_slopes(scheme, word, optimizer):
    result = check(scheme, optimizer)
    assert result.verdict.word == word
    if word != "exploding":
        assert all(x.agrees for x in result.updates), str(result)
        for layer in ("hidden.0", "hidden.1"):  # the layer's own term moves as theory says, also apart from the total
            own = next(x for x in result.lines if x.layer == layer and x.quantity == "layer" and x.step == 5)
            assert abs(own.slope.value - own.predicted) < TOLERANCE + own.slope.half_width


def test_the_readout_of_a_standard_network_is_named_with_its_mend():
    result = check(lzr.standard(), "sgd")
    worst = line(result, "readout")
    assert worst.verdict == "exploding"
    assert "its learning rate must fall as 1/width" in worst.mend
    assert "initial weights must shrink by a further 1/sqrt(width) (now 1/sqrt(width), mup(): 1/width)" in worst.mend
    assert worst.mend in result.verdict.mends


def test_one_wrong_rate_is_found_and_blamed_alone():
    wrong = lzr.mup().entrywise.hidden
    rows = lzr.mup().entrywise
    scheme = lzr.abc(
        a=[r.a for r in rows], b=[r.b for r in rows], c=(rows.input.c, wrong.c - 1, rows.output.c), d=[r.d for r in rows]
    )
    result = check(scheme, "adam")
    assert line(result, "hidden.0").verdict == "well-behaved"
    blamed = line(result, "hidden.1")
    assert blamed.verdict == "exploding"
    assert "learning rate must fall as 1/width" in blamed.mend
    assert "initial weights" not in blamed.mend


def test_a_layer_that_the_limit_freezes_is_called_frozen():
    result = check(lzr.standard(max_stable=True), "sgd")
    assert result.verdict.word == "frozen"
    assert line(result, "hidden.0").verdict == "frozen"
    assert line(result, "hidden.0").slope.value == pytest.approx(-1.5, abs=0.15)


class Half(nn.Module):
    """A perceptron whose first layer, or the one after it, does not learn: by its own flag, or because its gradient is cut."""

    def __init__(self, width, which=0, flag=True):
        super().__init__()
        self.body = lzr.zoo.mlp(width)
        self.body.hidden[which].requires_grad_(not flag)
        self.flag = flag

    def forward(self, x):
        h = torch.tanh(self.body.hidden[0](x))
        return self.body.readout(torch.tanh(self.body.hidden[1](h if self.flag else h.detach())))


def climbing(width):
    net = lzr.zoo.mlp(width)
    net.hidden[0].weight.register_hook(lambda gradient: -gradient)
    return net


def test_a_layer_that_learns_the_wrong_way_is_named():
    plan = lzr.plan(lzr.Family(climbing, base=32), lzr.mup(), "sgd")
    found = lzr.check(plan, "digits", widths=[32, 64], steps=1, seeds=2, lr=0.01)
    assert found.harmful[0] == "hidden.0"
    assert "raises the loss with its first step: hidden.0" in str(found)
    plain = lzr.check(lzr.plan(lzr.Family(lzr.zoo.mlp, base=32), lzr.mup(), "sgd"), "digits", widths=[32, 64], steps=1, seeds=1)
    assert plain.harmful == []


def test_a_layer_that_does_not_train_is_called_frozen():
    result = check(lzr.mup(), factory=lambda n: Half(n, flag=False), widths=(64, 128), seeds=2)
    assert line(result, "body.hidden.0").verdict == "frozen"
    assert "did not move" in line(result, "body.hidden.0").mend


@pytest.mark.parametrize("which", [0, 1])
def test_a_layer_that_the_network_keeps_from_training_is_no_defect(which):
    result = check(lzr.mup(), factory=lambda n: Half(n, which), widths=(64, 128, 256), seeds=4)
    assert "frozen" not in {result.verdict.word, *(x.verdict for x in result.updates)}
    assert f"requires_grad=False: body.hidden.{which}.)" in result.verdict.sentence
    assert [x.layer for x in result.updates] == [
        f"body.{x}" for x in ("hidden.0", "hidden.1", "readout") if x != f"hidden.{which}" or which
    ]


def one(quantity, slope, verdict="", half=0.05, predicted=0.0):
    return Line(
        "head", ("head.weight",), "output", quantity, 5, Slope(slope, slope - half, slope + half, 12), predicted, verdict
    )


def mend_of(update, first=0.0, layer=None, **cause):
    through, cause = one("passthrough", -0.3), Cause(**{"rate": 0, "init": 0, "readout": 0, **cause})
    return with_mend(update, one("update", first), layer or one("layer", 0.1), through, cause, False).mend


def test_what_vanishes_is_quoted_with_its_own_slope():
    assert mend_of(one("update", -0.3, "vanishing")).startswith("head: update falls as width^-0.30")
    assert "did not move" in mend_of(one("update", 0.11, "frozen"), 0.1, one("update", 0.11))


def test_a_slope_that_is_surely_not_zero_asks_for_widths_and_not_for_seeds():
    update = one("update", -0.18, "inconclusive", 0.08)
    assert "falls slightly, as width^-0.18 ± 0.08, probably a drift" in mend_of(update)
    assert "take wider widths" in mend_of(update)
    verdict = overall([update], diverged=(), moved=1.0, lr=0.1, regime="", scheme="mup()")
    assert verdict.sentence == "Updates of head drift slightly with the width; wider widths tell whether that fades."
    assert "more seeds or more widths" in mend_of(one("update", -0.18, "inconclusive", 0.2))
    assert "more seeds or more widths" in mend_of(one("update", -0.18, "inconclusive", 0.08, predicted=-0.2))


def test_mends_say_what_is_there_already():
    update = one("update", -0.5, "vanishing")
    assert "rate must rise by sqrt(width) (now 1/width, mup(): 1/sqrt(width))" in mend_of(update, rate=-0.5, rate_now=1.0)
    assert "rate must fall by a further 1/width (now 1/width, mup(): width^-2)" in mend_of(update, rate=1.0, rate_now=1.0)
    assert "rate must fall as 1/width;" in mend_of(update, rate=1.0)


def test_numbers_that_are_not_the_schemes_are_named_where_something_is_wrong():
    """The layer's bias hides that its weight does not learn, so its own line looks well."""
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=32), lzr.mup())
    weight = plan.tensors["hidden.1.weight"]
    slow = replace(weight, rule=replace(weight.rule, lr=Power(fan_in=-2.0)))
    wrong = replace(plan, tensors={**plan.tensors, "hidden.1.weight": slow})
    said = "hidden.1.weight: the plan has its learning rate go as width^-2, mup() as width^-1"
    assert [str(d) for d in departures(wrong)] == [said]
    free = replace(plan, tensors={**plan.tensors, "hidden.1.weight": replace(weight, rule=replace(weight.rule, lr=Power()))})
    assert [(d.plan, d.aligned) for d in departures(free)] == [(0.0, True)], "more than an assumption on alignment gives"
    lines = [one("update", -0.3, "vanishing")]
    options = {"diverged": (), "moved": 1.0, "lr": 0.1, "regime": "", "scheme": "mup()", "departures": [said]}
    assert overall(lines, **options).mends == (said,)
    assert overall([one("update", 0.0, "well-behaved")], **options).mends == ()
    asked = departures(lzr.plan(lzr.Family(lzr.zoo.mlp, base=32), lzr.mup(), alignment="none"))
    assert [(d.tensor, d.plan - d.scheme, d.aligned) for d in asked] == [
        (f"{x}.weight", 0.5, False) for x in ("hidden.1", "readout")
    ]
    assert "right only where updates do not align" in str(asked[0])
    assert "but those of hidden.1.weight are not the scheme's" in mend_of(lines[0], astray=("hidden.1.weight",))
    result = lzr.check(wrong, "digits", widths=(32, 64, 128), seeds=3, lr=0.003)
    assert result.verdict.word == "well-behaved" or result.verdict.mends[0] == said


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon", "adafactor"])
def test_plans_that_follow_their_scheme_depart_nowhere(optimizer):
    family = lzr.Family(lzr.zoo.autoencoder, base=32)
    for scheme in (lzr.mup(), lzr.ntk(), lzr.standard(), lzr.spectral(), lzr.richness(0.25)):
        for gauge in ("plain", "multipliers"):
            assert departures(lzr.plan(family, scheme, optimizer, gauge=gauge, overrides={"*.weight": {"lr": 2.0}})) == []


def test_a_learning_rate_too_small_to_tell_is_inconclusive_not_well_behaved():
    for scheme in (lzr.mup(), lzr.standard()):
        result = check(scheme, "sgd", lr=1e-5)
        assert result.verdict.word == "inconclusive"
        assert "raise the learning rate" in result.verdict.mends[0]


def test_a_diverging_run_is_a_verdict():
    result = check(lzr.mup(), "sgd", lr=1e38, widths=(64, 128), seeds=1)
    assert result.verdict.word == "exploding"
    assert "lower the learning rate" in " ".join(result.verdict.mends) or result.verdict.mends
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("lr", "word", "says"), [(1e30, "exploding", "Updates stopped being finite at width"),
                                                  (1e9, "inconclusive", "times its own size, too much")])  # fmt: skip
def test_a_rate_that_is_far_too_large_asks_for_a_smaller_one(lr, word, says):
    """One step: the loss was taken before it and is finite."""
    result = check(lzr.mup(), widths=[64, 128], seeds=2, steps=1, lr=lr)
    assert result.verdict.word == word
    assert says in result.verdict.sentence
    assert result.verdict.mends == (f"lower the learning rate (now {lr:g}) and check again",)
    assert "nan" not in str(result)


@pytest.mark.parametrize(("optimizer", "decay"), [("adamw", 1e38), ("sgd", 1e4)])
def test_a_weight_decay_that_is_far_too_large_asks_for_a_smaller_one(optimizer, decay):
    """Updates that are not finite are no layers that do not train, and no learning rate is to blame."""
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=64), lzr.mup(), optimizer)
    result = lzr.check(plan, "digits", (64, 128), steps=2, seeds=1, lr=0.01, weight_decay=decay)
    assert result.verdict.mends == (
        f"lower the weight decay (now {decay:g}): with the learning rate 0.01 a step takes {0.01 * decay:.3g} times its own size "
        "off every weight, expected less than once",
    )
    assert "frozen" not in str(result)


def test_exponents_that_differ_from_theory_are_named_beside_its_word():
    result = check(lzr.standard())
    sentence, off = result.verdict.sentence, line(result, "hidden.1")
    assert off.agrees is False
    assert f"hidden.1 ({off.slope.value:+.2f}, theory +1.00)" in sentence
    assert "hidden.0" not in sentence
    assert "This is what theory says of mup()." in check(lzr.mup()).verdict.sentence


def test_an_autoencoder_keeps_its_code_and_is_judged_beyond_its_bottleneck():
    data = lzr.data.load("digits", target="input")
    rich = check(lzr.mup(), "adam", lzr.zoo.autoencoder, data)
    assert rich.verdict.word == "well-behaved"
    lazy = check(lzr.ntk(), "adam", lzr.zoo.autoencoder, data)
    assert line(lazy, "encoder.hidden.0").verdict == "lazy"
    # the latents move at every scheme, and the decoder's features with them: the dichotomy stops at a finite bottleneck
    assert line(lazy, "encoder.readout").verdict == "well-behaved"
    assert line(lazy, "decoder.hidden.0").verdict == "well-behaved"
    assert line(lazy, "decoder.hidden.0").predicted == 0
    assert check(lzr.standard(), "adam", lzr.zoo.autoencoder, data).verdict.word == "exploding"


def tied_mlp(width):
    """Labels in, labels out: an embedding of 16 grey levels whose table is also the readout."""
    return Tied(width)


class Tied(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embed = nn.Embedding(16, width)
        self.mix = nn.Linear(width, width)
        self.readout = nn.Linear(width, 16, bias=False)
        self.readout.weight = self.embed.weight

    def forward(self, x):
        tokens = ((x.flatten(1) + 3) / 6 * 16).long().clamp(0, 15)
        return self.readout(torch.tanh(self.mix(self.embed(tokens).mean(1))))


def test_an_unmet_obligation_explodes_and_meeting_it_mends():
    unmet = check(lzr.mup(), "adam", tied_mlp, seeds=3)
    assert unmet.verdict.word == "exploding"
    assert "obligation" in line(unmet, "readout").mend
    assert line(unmet, "readout").predicted == pytest.approx(1.0)
    met = check(lzr.mup(), "adam", tied_mlp, seeds=3, meet=True)
    assert met.verdict.word == "well-behaved"
    assert line(met, "readout").predicted == pytest.approx(0.0)


def test_predictions_agree_with_the_classification():
    family = lzr.Family(lzr.zoo.mlp, base=64)
    for scheme in (lzr.ntk(), lzr.mup(), lzr.richness(0.1), lzr.richness(0.3), lzr.mean_field(), lzr.standard(True)):
        for optimizer in ("sgd", "adam"):
            verdict = scheme.classify(optimizer)
            found = predict(lzr.plan(family, scheme, optimizer), ["hidden.0", "hidden.1", "readout"], [64, 512])
            assert found["hidden.1"].update == pytest.approx(-verdict.r)
            assert found["hidden.0"].layer == pytest.approx(-verdict.layer_r[0])
            assert found["hidden.1"].layer == pytest.approx(-verdict.layer_r[1])
            assert found["readout"].update == pytest.approx(0.0)  # stable and nontrivial


def test_multipliers_are_predicted_like_the_plain_gauge():
    family = lzr.Family(lzr.zoo.mlp, base=64)
    order = ["hidden.0", "hidden.1", "readout"]
    for optimizer in ("sgd", "adam"):
        plain, gauge = (
            predict(lzr.plan(family, lzr.ntk(), optimizer, gauge=g), order, [64, 256]) for g in ("plain", "multipliers")
        )
        for layer in order:
            assert gauge[layer].update == pytest.approx(plain[layer].update)


def test_whether_a_slope_is_as_predicted_stays_open_where_its_interval_cannot_tell():
    def agrees(value, half, verdict=""):
        return Line("a", (), "hidden", "update", 5, Slope(value, value - half, value + half, 12), 0.0, verdict).agrees

    assert [agrees(0.1, 0.05), agrees(0.22, 0.54), agrees(0.22, 0.02), agrees(-0.3, 0.18)] == [True, None, False, None]
    assert agrees(0.05, 0.6, "inconclusive") is None


def test_layers_that_are_bare_numbers_are_spoken_of_as_layers():
    def judged(word, value):
        line = Line("2", ("2.weight",), "hidden", "update", 5, Slope(value, value - 0.01, value + 0.01, 12), 0.0, word)
        return with_mend(line, line, line, line, Cause(0.5, 0.0, 0.0), False)

    for word, value, said in (("exploding", 0.5, "in layer 2;"), ("frozen", -1.0, "Layer 2 stop training")):
        line = judged(word, value)
        found = overall([line], diverged=[], moved=0.5, lr=0.1, regime="feature learning", scheme="mup()", still=["layer 4"])
        assert said in found.sentence and line.mend.startswith("layer 2: ")


def test_layers_beyond_those_that_are_named_are_counted():
    def judged(layer, word):
        return Line(layer, (f"{layer}.weight",), "hidden", "update", 5, Slope(0.5, 0.2, 0.8, 12), 0.0, word)

    lines = [judged("worst", "exploding"), *(judged(f"layer{i}", "inconclusive") for i in range(6))]
    found = overall(lines, diverged=[], moved=0.5, lr=0.1, regime="feature learning", scheme="mup()")
    assert "(Too uncertain to judge: layer0, layer1, layer2, layer3 and 2 more.)" in found.sentence


def test_a_layer_of_a_fixed_number_of_features_is_not_told_to_look_before_it():
    slope = Slope(-0.5, -0.52, -0.48, 12)
    fading = Line("k", ("k.weight",), "output", "update", 5, slope, 0.0, "vanishing")
    says = (
        "but it gives others a fixed number of features, which start as width^-0.5 and reach size one only as they are learnt"
    )
    assert says in with_mend(fading, fading, fading, fading, Cause(0.0, 0.0, 0.0, narrow="k", level=-0.5), False).mend
    norm = dataclasses.replace(fading, layer="kn", role="fixed")
    assert "but k gives others" in with_mend(norm, norm, norm, norm, Cause(0.0, 0.0, 0.0, narrow="k", level=-0.5), False).mend
    alone, fed = (
        with_mend(fading, fading, fading, fading, Cause(0.0, 0.0, 0.0, before=b), False).mend for b in ((), ("a", "b"))
    )
    assert "the layers before it are well-behaved" in alone and fed.endswith("fed by what is not well-behaved: a, b")
    plan = lzr.plan(lzr.Family(Adapted, base=16), lzr.mup(), "sgd")
    mends = {row.layer: row.mend for row in lzr.check(plan, "digits", [16, 64, 256], steps=2, seeds=6).updates}
    assert "but it gives others" in mends["a"] and "gives others" not in mends["next"]


def test_mup_is_no_mend_of_itself():
    """Sides that grow unlike the width have other powers of it, which are right; another alignment is said to be the plan's."""

    def mend(net, lr=0.1, **options):
        found = lzr.check(lzr.plan(lzr.Family(net, base=16), lzr.mup(), "adam", **options), "digits", [16, 64, 256], 3, 2, lr)
        return " ".join(line.mend for line in found.updates)

    class Summed(nn.Module):
        def __init__(self, n):
            super().__init__()
            more = 8 * int(n**1.5 / 8)
            self.first, self.wide, self.last = nn.Linear(64, n), nn.Linear(n, more), nn.Linear(more, 10)

        def forward(self, x):
            h = self.wide(torch.tanh(self.first(x.flatten(1))))
            return self.last(torch.tanh(h) * h.shape[1] ** 0.5)

    said = mend(Summed, 0.01)
    assert "own numbers are those of mup()" in said and "scheme mup() does" not in said
    unaligned = mend(lambda n: nn.Sequential(nn.Flatten(), lzr.zoo.mlp(n)), alignment="none")
    assert "mup() does so by itself, without the plan's alignment=" in unaligned and "scheme mup()" not in unaligned


def test_words_follow_updates_and_their_intervals():
    def s(value, half=0.05):
        return Slope(value, value - half, value + half, 12)

    assert word_for(s(0.5), s(0.5), True, True) == "exploding"
    assert word_for(s(0.17, 0.1), s(0.0), True, True) == "inconclusive"  # beyond the tolerance, not surely
    assert word_for(s(0.0, 0.4), s(0.0), True, True) == "inconclusive"
    assert word_for(s(-0.5), s(-0.5), True, True) == "lazy"
    assert word_for(s(-0.5), s(-0.5), False, True) == "vanishing"  # a function that dies out is not lazy
    assert word_for(s(-0.1), s(-1.5), True, True) == "frozen"  # carried along by the layers below
    assert word_for(s(0.0), s(0.0), True, False) == "frozen"
    assert word_for(s(0.0), s(0.0), True, True, first=s(0.9)) == "exploding"  # later steps hid it
    assert word_for(Slope(math.nan, math.nan, math.nan, 0), s(0.0), True, True) == "inconclusive"


def test_of_many_layers_that_are_as_they_may_be_few_studies_say_that_one_explodes():
    draw, alarms, layers, strict = np.random.default_rng(0).standard_normal, [0, 0], 24, stretch(24, 8)
    for _ in range(60):
        tables = np.exp(TOLERANCE * np.log(WIDTHS) + 0.2 * draw((layers, 3, len(WIDTHS))))
        slopes = [fit_slope(WIDTHS, table, bent=False) for table in tables]
        for i, by in enumerate((1.0, strict)):
            alarms[i] += any(word_for(slope, slope, True, True, strict=by) == "exploding" for slope in slopes)
    assert alarms[0] >= 20 and alarms[1] <= 6
    assert word_for(Slope(0.5, 0.45, 0.55, 12), Slope(0.5, 0.45, 0.55, 12), True, True, strict=strict) == "exploding"


def test_a_run_folder_continues_and_gives_the_same_result(tmp_path, monkeypatch):
    module = sys.modules["lazyrich.measure.check"]  # the room's attribute of that name is the function
    calls = []
    real = module.run_trial
    monkeypatch.setattr(module, "run_trial", lambda *a: calls.append(a[1:]) or real(*a))
    options = {"widths": (64, 128), "seeds": 2, "folder": tmp_path / "run"}
    first = check(lzr.mup(), **options)
    (tmp_path / "run" / "trials" / "width128-seed1.json").write_text("{ damaged")
    second = check(lzr.mup(), **options)
    assert calls == [(64, 0), (64, 1), (128, 0), (128, 1), (128, 1)]
    assert json.dumps(first.to_dict()) == json.dumps(second.to_dict())
    with pytest.raises(StoreError, match="another run \\(lr"):
        check(lzr.mup(), lr=0.1, **options)


def test_a_changed_network_is_another_run(tmp_path):
    options = {"widths": (64, 128), "seeds": 1, "folder": tmp_path / "run"}
    check(lzr.mup(), factory=lambda n: lzr.zoo.MLP(n, depth=2), **options)
    with pytest.raises(StoreError, match="another run"):
        check(lzr.mup(), factory=lambda n: lzr.zoo.MLP(n, depth=3), **options)


def test_a_changed_loss_is_another_run(tmp_path):
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=8), lzr.mup())
    options = {"widths": (8, 16), "seeds": 1, "steps": 1, "folder": tmp_path / "run"}
    halves, thirds = (lambda out, y: out.square().mean() / 2), (lambda out, y: out.square().mean() / 3)
    lzr.check(plan, "digits", loss=halves, **options)
    with pytest.raises(StoreError, match="another run .code of the loss"):
        lzr.check(plan, "digits", loss=thirds, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (64,)}, "at least two"),
        ({"widths": (128, 64)}, "increasing"),
        ({"widths": (64, 64)}, "increasing"),
        ({"widths": (32, 64)}, "below the base width 64"),
        ({"widths": (64, "a")}, "expected whole numbers"),
        ({"widths": (64, 128.5)}, "expected whole numbers"),
        ({"widths": 64}, "at least two"),
        ({"lr": "x"}, "lr = 'x'"),
        ({"seeds": "x"}, "seeds = 'x'"),
        ({"steps": 2.5}, "steps = 2.5"),
        ({"seeds": 0}, "seeds = 0"),
        ({"steps": 0}, "steps = 0"),
        ({"lr": -1.0}, "positive"),
        ({"lr": math.inf}, "lr = inf, expected a positive number"),
        ({"lr": "3"}, "lr = '3', expected a positive number"),
        ({"weight_decay": "x"}, "weight_decay = 'x'"),
        ({"loss": "hinge"}, "got loss 'hinge'"),
    ],
)
def test_what_makes_no_check_is_refused(options, message):
    with pytest.raises(LazyrichError, match=message):
        check(lzr.mup(), **options)


def test_an_optimizer_that_torch_does_not_have_is_refused_before_anything_is_built():
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=64), lzr.mup(), "shampoo")
    with pytest.raises(UsageError, match="torch has no 'shampoo'.*such as 'muon'"):
        lzr.check(plan, "no data of that name")


def test_a_plan_without_a_factory_is_refused():
    family = lzr.Family.from_builds(lzr.zoo.mlp(8), lzr.zoo.mlp(16), base=8)
    with pytest.raises(LazyrichError, match="give a factory"):
        lzr.check(lzr.plan(family, lzr.mup()), widths=(8, 16))


def test_the_result_prints_and_flattens():
    result = check(lzr.mup(), widths=(64, 128), seeds=2)
    assert "readout" in str(result)
    assert {"layer", "quantity", "slope", "predicted", "agrees"} <= set(result.rows()[0])
    assert result.slopes["readout", "update"].points == 4
    assert isinstance(UsageError("x"), LazyrichError)


def test_a_changed_plan_does_not_continue_another_ones_run(tmp_path):
    family = lzr.Family(lzr.zoo.mlp, base=64)
    options = {"widths": (64, 128), "seeds": 1, "steps": 1}
    lzr.check(lzr.plan(family, lzr.mup()), "digits", folder=tmp_path / "run", **options)
    other = lzr.plan(family, lzr.mup(), init={"*.weight": lzr.init.orthogonal()})
    with pytest.raises(lzr.LazyrichError, match="plan"):
        lzr.check(other, "digits", folder=tmp_path / "run", **options)
    assert lzr.plan(family, lzr.mup()).fingerprint == lzr.plan(family, lzr.mup()).fingerprint != other.fingerprint


def test_another_loss_of_the_same_name_is_another_check(tmp_path):
    plan, options = lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.mup()), {"widths": [16, 32], "steps": 1, "seeds": 1}

    def scaled(factor):
        return lambda f, y: factor * torch.nn.functional.cross_entropy(f, y)

    lzr.check(plan, "digits", folder=tmp_path / "run", loss=scaled(1), **options)
    lzr.check(plan, "digits", folder=tmp_path / "run", loss=scaled(1), **options)
    with pytest.raises(LazyrichError, match="code of the loss"):
        lzr.check(plan, "digits", folder=tmp_path / "run", loss=scaled(2), **options)


class RootBottleneck(nn.Sequential):
    """A hidden layer of sqrt(width) features between two of the width."""

    def __init__(self, width):
        few = round(width**0.5)
        super().__init__(
            nn.Linear(64, width), nn.ReLU(), nn.Linear(width, few), nn.ReLU(), nn.Linear(few, width), nn.ReLU(),
            nn.Linear(width, 10),
        )  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_sums_over_features_that_grow_as_the_root_of_the_width_are_counted_as_such(optimizer):
    plan = lzr.plan(lzr.Family(RootBottleneck, base=64), lzr.mup(), optimizer)
    found = predict(plan, ["0", "2", "4", "6"], [64, 1024])
    assert [unit.update for unit in found.values()] == pytest.approx([0.0] * 4)
    assert [unit.uuc for unit in found.values()] == pytest.approx([0.0] * 4)
    assert [unit.passthrough for unit in found.values()][1:] == pytest.approx([0.0] * 3)


@pytest.mark.parametrize(
    ("order", "widths", "words"),
    [
        (["zz"], [16, 32], "got 'zz', expected layers that own tensors of the plan: hidden.0"),
        (None, [16, 32], "got order None"),
        (["readout"], [], "expected at least two different ones"),
        (["readout"], [16, 16], "expected at least two different ones"),
        (["readout"], [0, 16], "got a width = 0"),
        (["readout"], 64, "expected at least two different ones"),
    ],
)
def test_what_cannot_be_predicted_is_refused(order, widths, words):
    with pytest.raises(UsageError, match=words):
        predict(lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.mup()), order, widths)


class Wraps(nn.Module):
    """Returns its logits inside of something."""

    def __init__(self, n, kind):
        super().__init__()
        self.body, self.kind = nn.Sequential(nn.Linear(8, n), nn.Tanh(), nn.Linear(n, 3)), kind

    def forward(self, x):
        return self.kind(self.body(x))


class Output:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (lambda h: {"scores": h}, r"out\['scores'\]"),
        (lambda h: {"hidden": h, "logits": h}, r"out\['logits'\]"),
        (lambda h: (None, h), r"out\[1\]"),
        (Output, r"out\.logits"),
    ],
)
def test_an_output_that_is_no_tensor_is_refused_with_the_loss_that_takes_one_out_of_it(kind, part):
    plan = lzr.plan(lzr.Family(lambda n: Wraps(n, kind), base=16), lzr.mup())
    with pytest.raises(LazyrichError, match=rf"loss=lambda out, t: .*cross_entropy\({part}, t\).*--loss FILE.py"):
        lzr.check(plan, POINTS, (16, 32))


def test_such_an_output_is_checked_with_that_loss():
    plan = lzr.plan(lzr.Family(lambda n: Wraps(n, lambda h: {"scores": h}), base=16), lzr.mup())
    loss = lambda out, t: nn.functional.cross_entropy(out["scores"], t)  # noqa: E731
    assert lzr.check(plan, POINTS, (16, 32), steps=2, seeds=1, loss=loss).verdict


def nowhere(width):
    made = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))
    made.register_forward_hook(lambda module, args, out: out / 0.0)
    return made


def test_a_network_that_is_not_finite_before_any_step_is_refused_and_not_said_to_explode():
    plan = lzr.plan(lzr.Family(nowhere, base=16), lzr.mup())
    with pytest.raises(
        LazyrichError, match=r"loss of 'nowhere' is nan before any step \(width 16, seed 0\), expected a finite"
    ):
        lzr.check(plan, POINTS, (16, 32), steps=1, seeds=1)


class Scores(nn.Module):
    """Pools features with scores that one vector gives, as attentions over graphs do; ``how`` it is summed over, if it is."""

    def __init__(self, n, how, shape=(-1,)):
        super().__init__()
        self.enter, self.leave, self.how = nn.Linear(8, n), nn.Linear(n, 3), how
        self.q = nn.Parameter(torch.randn(n).reshape(*shape) / n**0.5)
        self.gain = nn.Parameter(torch.ones(n))

    def forward(self, x):
        h = torch.tanh(self.enter(x)) * self.gain
        return self.leave(h * self.how(h, self.q))


SUMS = {
    "matrix times vector": (lambda h, q: (h @ q)[:, None], (-1,)),
    "linear": (nn.functional.linear, (1, -1)),
    "einsum": (lambda h, q: torch.einsum("bn,n->b", h, q)[:, None], (-1,)),
    "product and sum": (lambda h, q: (h * q[None, 0]).sum(-1, keepdim=True), (1, -1)),
    "turned": (lambda h, q: h @ q.T, (1, -1)),
}
NO_SUMS = {
    "entry by entry": lambda h, q: q,
    "a gain before a sum of squares": lambda h, q: (h * q).pow(2).sum(-1, keepdim=True).rsqrt(),
    "gains of queries and keys": lambda h, q: ((h * q) * h).sum(-1, keepdim=True),
    "a sum over other axes": lambda h, q: (h * q).sum(0),
    "a mean": lambda h, q: (h * q).mean(-1, keepdim=True),
    "before a matrix": lambda h, q: (h * q) @ torch.ones(h.shape[1], 1),
}
POINTS = (torch.randn(32, 8, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3)


@pytest.mark.parametrize("kind", SUMS)
def test_a_vector_that_is_summed_over_is_refused_with_its_role(kind):
    make = lambda n: Scores(n, *SUMS[kind])  # noqa: E731
    with pytest.raises(UsageError, match=r"'q' for vectors, but the forward .* --roles 'q=output'"):
        lzr.check(lzr.plan(lzr.Family(make, base=16), lzr.mup()), POINTS, (16, 32))
    for role in ("output", "vector"):  # what a person says counts
        plan = lzr.plan(lzr.Family(make, base=16, roles={"q": role}), lzr.mup())
        assert lzr.check(plan, POINTS, (16, 32), steps=1, seeds=1).verdict


@pytest.mark.parametrize("kind", NO_SUMS)
def test_a_vector_that_acts_entry_by_entry_is_one(kind):
    plan = lzr.plan(lzr.Family(lambda n: Scores(n, NO_SUMS[kind]), base=16), lzr.mup())
    assert lzr.check(plan, POINTS, (16, 32), steps=1, seeds=1).verdict


class Adapted(nn.Module):
    """A layer with a bottleneck beside it, or in series behind it, or a readout of its own beside it."""

    def __init__(self, width, where="beside"):
        super().__init__()
        self.where = where
        self.inp, self.base = nn.Linear(64, width), nn.Linear(width, width)
        self.a, self.b = nn.Linear(width, 4), nn.Linear(4, width)
        self.next, self.out = nn.Linear(width, width), nn.Linear(width, 10)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        h = torch.relu(self.inp(x))
        z = self.base(h)
        few = self.a(z if self.where == "serial" else h)
        if self.where != "readout":
            z = self.b(few) + (z if self.where == "beside" else 0)
        out = self.out(torch.relu(self.next(torch.relu(z))))
        return out + few.sum() if self.where == "readout" else out


@pytest.mark.parametrize("where", ["beside", "serial", "readout"])
def test_a_bottleneck_beside_a_trunk_is_told_from_others(where):
    plan = lzr.plan(lzr.Family(lambda n: Adapted(n, where), base=16), lzr.mup(), "sgd")
    order = [key for key in ("inp", "base", "a", "b", "next", "out") if where != "readout" or key != "b"]
    found = bottlenecks_beside(plan, unit_exponents(plan, order, [16, 64]), torch.ones(2, 64), 16)
    assert found == ({"a"} if where == "beside" else frozenset())


def test_nothing_is_predicted_of_gradient_descent_from_a_bottleneck_beside_a_trunk_on():
    order = ["inp", "base", "a", "b", "next", "out"]
    for optimizer in ("sgd", "adam"):
        plan = lzr.plan(lzr.Family(Adapted, base=16), lzr.mup(), optimizer)
        found = [unit.update for unit in predict(plan, order, [16, 64], beside={"a"}).values()]
        assert found[:2] == pytest.approx([0.0, 0.0])
        assert found[2:] == pytest.approx([0.0 if optimizer == "adam" else math.nan] * 4, nan_ok=True)
    ntk = predict(lzr.plan(lzr.Family(Adapted, base=16), lzr.ntk(), "adam"), order, [16, 64], beside={"a"})
    assert [ntk[key].update for key in order] == pytest.approx([-0.5, -0.5, 0.0, -0.5, -0.5, 0.0])
    checked = lzr.check(lzr.plan(lzr.Family(Adapted, base=16), lzr.mup(), "sgd"), "digits", [16, 32], steps=2, seeds=1)
    assert [row.layer for row in checked.updates if row.predicted is None or math.isnan(row.predicted)] == order[2:]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_hidden_layer_that_starts_at_zero_is_as_large_as_its_first_updates(optimizer):
    def net(n):
        layers = nn.Sequential(nn.Linear(64, n), nn.Linear(n, n), nn.Linear(n, n), nn.Linear(n, 10))
        nn.init.zeros_(layers[2].weight)
        return layers

    found = predict(lzr.plan(lzr.Family(net, base=16), lzr.mup(), optimizer), ["0", "1", "2", "3"], [16, 64])
    assert [unit.update for unit in found.values()] == pytest.approx([0.0] * 4)
