"""Signals at initialisation: draws against the infinite-width prediction, the prediction against the maps of mean field."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from pathlib import Path

import pytest
import torch

import lazyrich as lzr
from lazyrich.cli import main
from lazyrich.errors import TangentError
from lazyrich.gaussian import signal
from lazyrich.report.signal_figure import plane
from lazyrich.report.signal_result import read_signals

CASES = {
    "relu": (lambda n: lzr.zoo.MLP(n, depth=4, activation="relu"), True),
    "tanh": (lambda n: lzr.zoo.MLP(n, depth=3), True),
    "conv": (lzr.zoo.convnet, False),
    "residual": (lzr.zoo.residual_mlp, True),
}


def found_for(factory, flat=True, scheme=None, width=256, **options):
    init = options.pop("init", None)
    plan = lzr.plan(lzr.Family(factory, base=64), scheme or lzr.standard(), "sgd", init=init)
    return lzr.signals(plan, lzr.data.load("digits", flatten=flat), width, **({"samples": 6, "seeds": 12} | options))


@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize("scheme", [lzr.standard(), lzr.mup()], ids=str)
def test_draws_are_as_predicted(which, scheme):
    factory, flat = CASES[which]
    found = found_for(factory, flat, scheme, width=128 if which == "conv" else 256)
    assert found.reason == ""
    for line in found.lines:
        for what in ("level", "correlation", "gradient"):
            drawn, spread, wanted = (getattr(line, f"{what}{end}") for end in ("", "_spread", "_predicted"))
            error = spread / math.sqrt(12)
            assert drawn == pytest.approx(wanted, abs=4.5 * error + 0.03 * abs(wanted)), (line.layer, what)
            assert error < 0.2 * abs(drawn)


def test_the_prediction_is_the_mean_field_recursion():
    """Referee: variance and covariance maps by `gaussian/`, layer after layer."""
    factory, _ = CASES["tanh"]
    plan = lzr.plan(lzr.Family(factory, base=64), lzr.standard(), "sgd")
    x = lzr.data.load("digits").subset(4).x.double()
    layers = lzr.kernel(plan.build(256)).layers(x)
    laws = {name: setting.std**2 for name, setting in plan.settings(256).items()}
    second = 64 * laws["hidden.0.weight"] * (x @ x.T) / 64 + laws["hidden.0.bias"]
    assert torch.allclose(layers["hidden.0"], second)
    for name in ("hidden.1", "hidden.2", "readout"):
        maps = signal("tanh", weight=256 * laws[f"{name}.weight"], bias=laws[f"{name}.bias"])
        q = second.diagonal()
        second = maps.covariance_map(second, q[:, None].expand(4, 4), q[None].expand(4, 4))
        assert torch.allclose(layers[name], second, rtol=1e-6), name


@pytest.mark.parametrize(("gain", "depth", "word"), [(4.0, 6, "exploding"), (0.3, 6, "vanishing"), (2**0.5, 12, "collapsing")])
def test_words(gain, depth, word):
    """Weights of a gain over the root of the fan-in: rectifiers keep their level at the root of two, and forget directions."""
    init = {"hidden.*.weight": gain / 8, "*.bias": 0.0}
    found = found_for(lambda n: lzr.zoo.MLP(n, depth=depth, activation="relu"), init=init, seeds=3, width=512)
    last = found.lines[-2]
    if word == "collapsing":
        assert found.word in ("collapsing", "steady")
        assert last.correlation > found.inputs[1] + 0.3
    else:
        assert found.word == word
        assert found.sentence.startswith({"exploding": "Signals explode", "vanishing": "Signals vanish"}[word])
        levels = [abs(line.level / line.level_predicted - 1) for line in found.lines[:-1]]
        assert max(levels) < 0.2


def test_a_layer_that_falls_on_the_way_is_named():
    """The ends agree, a layer between them has a fiftieth of their mean square."""
    init = {"hidden.*.weight": 1 / 8, "hidden.1.weight": 0.02, "hidden.2.weight": 0.8, "*.bias": 0.0}
    found = found_for(lambda n: lzr.zoo.MLP(n, depth=4, activation="linear"), init=init, seeds=3)
    assert found.word == "uneven"
    low = found.lines[1]
    assert f"smallest {low.level:.3g} at hidden.1" in found.sentence
    assert "where 10 is judged to be too much" in found.sentence
    calm = found_for(lambda n: lzr.zoo.MLP(n, depth=4), init={"*": lzr.init.critical("tanh", bias=0.05)}, seeds=3)
    assert calm.word == "steady" and calm.sentence.startswith("Signals keep their size")
    falls = [vars(calm.hidden[0]) | {"level": level} for level in (1.0, 0.4, 0.2)]
    falling = dataclasses.replace(calm, lines=tuple(type(calm.lines[0])(**line) for line in (*falls, falls[0])))
    assert falling.word == "steady" and falling.sentence.startswith("Signals change by less than a factor of 10")
    assert "where 10 is judged to be too much" in calm.sentence


def test_a_network_without_a_rule_is_measured_and_says_why():
    found = found_for(lzr.zoo.transformer, seeds=2, width=64, samples=3)
    assert "softmax" in found.reason or "scaled_dot_product_attention" in found.reason
    assert all(math.isnan(line.level_predicted) and line.level > 0 for line in found.lines)
    assert found.to_dict()["lines"][0]["level_predicted"] is None
    assert "There is no prediction" in str(found)


PLACES = [
    ("tanh", lzr.init.critical("tanh", bias=0.05), "critical", 0.570),
    ("tanh", lzr.init.variance(4.0, 0.05), "chaotic", None),
    ("tanh", lzr.init.variance(0.5, 0.05), "ordered", None),
    ("relu", lzr.init.he(), "critical", 1.0),
    ("relu", lzr.init.variance(3.0, 0.1), "unbounded", math.inf),
    ("gelu", lzr.init.critical("gelu", variance=3.56155), "critical", None),
]


@pytest.mark.parametrize(("activation", "rule", "word", "level"), PLACES, ids=lambda v: str(v)[:12])
def test_a_stack_has_its_place_in_the_phase_plane(activation, rule, word, level):
    found = found_for(lambda n: lzr.zoo.MLP(n, depth=5, activation=activation), init={"*": rule}, seeds=2, width=64).phase
    assert found.word == word
    assert (found.weight, found.bias) == (pytest.approx(rule.w), pytest.approx(rule.b))
    assert [p.layer for p in found.points] == [f"hidden.{i}" for i in range(1, 5)]
    if level is not None:
        assert found.variance == pytest.approx(level, abs=2e-3)
    beyond = {"ordered": found.edge_weight > rule.w, "chaotic": found.edge_weight < rule.w}
    assert beyond.get(word, True)
    assert word in found.sentence or word == "unbounded"
    if word != "unbounded" and activation != "gelu":
        near = signal(activation, rule.w, rule.b)
        assert found.depth_scales == pytest.approx(near.depth_scales())
        q = torch.tensor(found.variance).double()
        assert found.points[-1].chi_perp == pytest.approx(float(near.chi_perp(q)), rel=0.2)


@pytest.mark.parametrize(
    ("activation", "weight", "bias", "edge", "beyond"),
    [("tanh", 2.0, 1e-4, 1.0864, "chaotic"), ("relu", 3.0, 0.1, 2.0, "unbounded"), ("gelu", 3.0, 0.0, math.nan, "unbounded"),
     ("gelu", 1.5, 0.05, math.nan, "unbounded")],
)  # fmt: skip
def test_the_edge_is_that_of_its_own_bias_and_none_where_variances_leave_it(activation, weight, bias, edge, beyond):
    rule = lzr.init.variance(weight, bias)
    result = found_for(lambda n: lzr.zoo.MLP(n, depth=3, activation=activation), init={"*": rule}, seeds=2, width=64)
    found, drawn = result.phase, plane(read_signals(result.to_dict()), "k")
    assert found.edge_weight == pytest.approx(edge, abs=1e-3, nan_ok=True) and found.beyond == beyond
    if found.word == "unbounded":
        assert found.sentence.endswith(f"lower sigma_w^2{'' if math.isnan(edge) else ' below 2'}.")
    assert not drawn or (found.beyond in drawn and ("chaotic" in drawn) == (beyond == "chaotic"))
    assert ("The edge of chaos" in found.sentence) == (activation == "tanh")


def test_a_network_far_from_its_fixed_point_is_told_what_its_own_layers_do():
    """GELU at sigma_w^2 = 2 without biases: variances go to zero, where chi_perp is a half, but not within five layers."""
    rule = lzr.init.variance(2.0, 0.0)
    result = found_for(lambda n: lzr.zoo.MLP(n, depth=5, activation="gelu"), init={"*": rule}, seeds=2, width=64)
    found, far = result.phase, signal("gelu", 2.0)
    q = torch.tensor(found.points[0].level).double()
    for layer in range(found.settles):
        assert float(far.chi_perp(q)) > 0.55, layer
        q = far.variance_map(q)
    assert float(far.chi_perp(q)) == pytest.approx(0.5, rel=0.1) and found.settles > 10
    assert f"once variances have decayed, behind about {found.settles} layers, signals and gradients vanish" in found.sentence
    assert "own levels chi_perp is 0.9" in found.sentence and "differences can be told" not in found.sentence
    inside = result.phase.border[0]
    assert inside[1] == 0 and found.weight < inside[0] and found.border[-1][1] == pytest.approx(found.edge[0][1])
    for weight, bias in found.border[::8]:
        at = [signal("gelu", k * weight, bias).fixed_variance(found.points[0].level) for k in (0.97, 1.01)]
        assert math.isfinite(at[0]) and math.isinf(at[1])
    assert "where variances begin to grow" in plane(read_signals(result.to_dict()), "k")


@pytest.mark.parametrize(("weight", "says"), [(0.9, "is chaotic"), (1.2, "without bound; lower sigma_w^2.")])
def test_a_stack_whose_activation_jumps_has_a_place_without_an_edge(weight, says):
    def factory(n):
        hidden = [layer for _ in range(2) for layer in (torch.nn.Hardshrink(), torch.nn.Linear(n, n))]
        return torch.nn.Sequential(torch.nn.Linear(64, n), *hidden, torch.nn.Hardshrink(), torch.nn.Linear(n, 10))

    found = found_for(factory, init={"*": lzr.init.variance(weight, 0.05)}, seeds=2, width=64).phase
    assert "nan" not in found.sentence and all(math.isinf(p.chi_perp) for p in found.points)
    assert says in found.sentence and not found.edge
    assert "Infinity" not in json.dumps(found.to_dict()) and found.to_dict()["points"][0]["chi_perp"] is None


@pytest.mark.parametrize(
    ("factory", "says"),
    [(lzr.zoo.residual_mlp, "layer_norm at"), (lambda n: lzr.zoo.MLP(n, depth=1), "no hidden layer"),
     (lzr.zoo.transformer, "softmax|scaled_dot_product_attention|layer_norm")],
    ids=["residual", "shallow", "attention"],
)  # fmt: skip
def test_a_network_without_a_place_says_why(factory, says):
    found = found_for(factory, seeds=2, width=64, samples=3)
    assert isinstance(found.phase, str)
    assert re.search(says, found.phase)
    assert found.to_dict()["phase"] is None


class Drawing(torch.nn.Module):
    """Of a variational kind: it draws in evaluation mode too, unless told better."""

    def __init__(self, n, always=True):
        super().__init__()
        self.inner, self.outer, self.always = torch.nn.Linear(64, n), torch.nn.Linear(n, 10), always

    def forward(self, x):
        h = self.inner(x)
        return self.outer(h + torch.randn_like(h) if self.always or self.training else h)


def test_a_network_that_draws_as_it_runs_is_refused_with_a_mend_for_its_code():
    with pytest.raises(TangentError, match="Drawing draws random numbers in evaluation mode too.*only `if self.training`"):
        found_for(Drawing, seeds=2, width=64, samples=3)
    assert found_for(lambda n: Drawing(n, always=False), seeds=2, width=64, samples=3).lines[0].level > 0


@pytest.mark.parametrize("wrap", [lambda out: (out, out), lambda out: {"logits": out}], ids=["tuple", "dict"])
def test_a_network_that_returns_no_tensor_is_refused(wrap):
    def factory(width):
        made = lzr.zoo.mlp(width)
        made.register_forward_hook(lambda module, args, out: wrap(out))
        return made

    with pytest.raises(
        lzr.LazyrichError, match=r"the network returns (tuple|dict), expected one tensor \(N, ...\); let the factory"
    ):
        lzr.signals(lzr.plan(lzr.Family(factory, base=8), lzr.ntk(), "sgd"), samples=2, seeds=2)


def test_coupled_weights_are_measured_and_not_predicted():
    family = lzr.Family(lzr.zoo.autoencoder, base=32)
    plan = lzr.plan(family, lzr.standard(), "sgd", init=lzr.autoencoder.coupled(family))
    found = lzr.signals(plan, "digits", 64, samples=4, seeds=2)
    assert "no independent draws" in found.reason
    assert found.lines[0].level > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 1}, "samples = 1"),
        ({"seeds": 1}, "seeds = 1"),
        ({"samples": "3"}, "samples = '3'"),
        ({"seeds": 2.5}, "seeds = 2.5"),
        ({"width": "3"}, "width = '3'"),
    ],
)
def test_bad_input_is_refused(options, words):
    with pytest.raises(lzr.LazyrichError, match=words):
        found_for(CASES["tanh"][0], **options)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    words = "init lazyrich.zoo:mlp --depth 2 --width 64 --seeds 2 --samples 4 --init 'hidden.*.weight=0.2' --out run"
    assert main(shlex.split(words)) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "mlp at width 64 · standard() · digits"
    assert {item.name for item in Path("run").iterdir()} == {"settings.json", "result.json", "report.html"}
    assert lines[-1] == "page: run/report.html"
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert page.count('<svg class="figure"') == 4
    assert "edge of chaos" in page
    assert "lazyrich init lazyrich.zoo:mlp" in page
    for name in ("base", "fingerprint", "plan", "init", "torch", "python"):
        assert f"<dt>{name}</dt>" in page, name
    assert "nan" not in page.lower().replace("nano", "").partition("<main")[2]
    assert main(["report", "run", "--out", "again.html"]) == 0
    assert Path("again.html").read_text(encoding="utf-8") == page
    assert len(json.loads(Path("run/result.json").read_text())["lines"]) == 3
    assert main(shlex.split(words.replace("--seeds 2", "--seeds 3"))) == 2
    assert "run holds another run (seeds: 2 there, 3 now)" in capsys.readouterr().err
    assert main(shlex.split(words.replace("--out run", "--out again.html"))) == 2
    assert "again.html exists and is no run folder" in capsys.readouterr().err
    assert main(shlex.split(words.replace("0.2", "much"))) == 2
    assert "got 'much', expected a standard deviation or one of" in capsys.readouterr().err
    assert main(shlex.split(words.replace("hidden.*", "nothing"))) == 2
    assert "matches no tensor" in capsys.readouterr().err
