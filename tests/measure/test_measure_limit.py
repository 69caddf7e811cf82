"""The limit of a plan beside its own networks in one call: rates, the kernel that stays, what is kept and what is refused."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.measure.limit_study import Study
from lazyrich.measure.slope import fit_slope

SMALL = {"steps": 8, "widths": (64, 256, 1024), "seeds": 3, "samples": 6, "test": 3, "neurons": 4000}


def pair():
    return lzr.data.load("digits").only([3, 8])


def plan_of(scheme, optimizer="sgd", factory=lzr.zoo.two_class):
    return lzr.plan(lzr.Family(factory, base=64), scheme, optimizer, init={"readout.bias": 0.0})


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    place = tmp_path_factory.mktemp("limit") / "run"
    return lzr.limit(plan_of(lzr.richness(0.5, gamma=2.0)), pair(), folder=place, **SMALL), place


def test_networks_approach_the_limit_and_not_the_kernel_that_stays(rich):
    found, _ = rich
    assert found.word in ("between", "rich")
    assert found.slope.value == pytest.approx(-0.5, abs=0.15), str(found.slope)
    assert found.theory["accuracy"] < 0.01
    assert found.widths[-1]["off"] < 0.05
    assert found.theory["fixed_off"] > 3 * found.widths[-1]["off"]
    kernels = [list(line["kernels"].values()) for line in found.widths]
    for layer in zip(*kernels, strict=True):
        assert fit_slope([64, 256, 1024], [layer]).value == pytest.approx(-0.5, abs=0.25)
    last, widest = found.theory["layers"][-1], found.widths[-1]["alignment"]["hidden.1"]
    assert last["alignment"] == pytest.approx(widest[0], abs=0.02)
    assert last["alignment"] > last["start_alignment"] + 0.1
    assert found.widths[-1]["test_loss"] == pytest.approx(found.theory["test_loss"], rel=0.1)
    for layer, seen in zip(found.theory["layers"], found.to_dict()["widest"]["layers"], strict=True):
        limit, network = (torch.tensor(of["after"]) for of in (layer, seen))
        step = layer["edges"][1] - layer["edges"][0]
        assert float(limit.sum()) * step == pytest.approx(1.0, abs=0.01)
        assert float((limit - network).abs().sum()) * step < 0.15  # twice the distance in total variation


def test_what_moves_is_told_of_the_training_samples_alone(rich):
    """Samples that are only watched are in the kernels, and in no number said of the training samples."""
    found, _ = rich
    count, moved = len(found.theory["targets"]), []
    assert len(found.theory["layers"][0]["kernel"]) > count
    for layer in found.theory["layers"]:
        start, end = (torch.tensor(layer[key], dtype=torch.float64)[:count, :count] for key in ("start", "kernel"))
        moved.append(layer["movement"] - float((end - start).norm() / start.norm()))
        networks = [run["layers"] for run in found.runs if run["width"] == 64]
        kernels = [
            torch.tensor(at["kernel"]).double()[:count, :count]
            for layers in networks
            for at, known in zip(layers, found.theory["layers"], strict=True)
            if known is layer
        ]
        off = sum(float((kernel - end).norm() / end.norm()) for kernel in kernels) / len(kernels)
        assert found.widths[0]["kernels"][layer["layer"]] == pytest.approx(off, rel=1e-5)
    assert moved == pytest.approx([0.0, 0.0], abs=1e-12)


def test_a_run_is_the_plans_own_training(rich):
    """Referee: the same network by hand."""
    found, _ = rich
    run = next(run for run in found.runs if (run["width"], run["seed"]) == (64, 1))
    plan, chosen = plan_of(lzr.richness(0.5, gamma=2.0)), pair().subset(9, 0)
    model, y = plan.build(64, seed=1).double(), 2.0 * chosen.y.double()[:, None] - 1
    optimizer, losses, seen = plan.optimizer(model, lr=found.theory["lr"]), [], []
    model.hidden[1].register_forward_hook(lambda _, given, out: seen.append(out.detach()))
    for _ in range(9):
        f = model(chosen.x.double())
        loss = (f[:6] - y[:6]).square().mean() / 2
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert run["loss"] == pytest.approx(losses, rel=1e-9)
    assert torch.tensor(run["outputs"][-1]).double() == pytest.approx(f.detach()[:, 0], abs=1e-6)
    kernel = seen[-1].tanh() @ seen[-1].tanh().T / 64
    assert torch.allclose(torch.tensor(run["layers"][1]["kernel"], dtype=torch.float64), kernel)


def test_the_same_call_continues_and_another_is_refused(rich):
    found, place = rich
    trials = {p.name: p.stat().st_mtime_ns for p in (place / "trials").iterdir()}
    assert len(trials) == 1 + 3 * 3
    gone = place / "trials" / "width64-seed1.json"
    gone.unlink()
    again = lzr.limit(plan_of(lzr.richness(0.5, gamma=2.0)), pair(), folder=place, **SMALL)
    assert again.to_dict() == json.loads(json.dumps(found.to_dict()))
    now = {p.name: p.stat().st_mtime_ns for p in (place / "trials").iterdir()}
    assert [name for name in trials if now[name] != trials[name]] == ["width64-seed1.json"]
    with pytest.raises(lzr.LazyrichError, match="holds another run"):
        lzr.limit(plan_of(lzr.mup()), pair(), folder=place, **SMALL)


def test_a_kernel_regime_has_a_limit_where_features_stay():
    found = lzr.limit(plan_of(lzr.ntk()), pair(), **SMALL | {"widths": (64, 1024)})
    assert found.word == "lazy"
    assert found.theory["fixed_off"] < 0.01
    assert found.settings["centred"]
    assert found.widths[1]["off"] < 0.06
    assert "a kernel that stays predicts the same" in found.sentence
    assert found.widths[0]["off"] > 2 * found.widths[1]["off"]


def test_outputs_losses_and_momentum_of_ones_own():
    nets = lzr.Family(lambda n: lzr.zoo.MLP(n, outputs=3, activation="gelu"), base=64)
    plan = lzr.plan(nets, lzr.mup(), "momentum", init={"readout.bias": 0.0})
    data = lzr.data.load("digits").only([0, 1, 2])
    found = lzr.limit(plan, data, loss="cross_entropy", lr=0.04, centred=True, **SMALL | {"widths": (64, 1024), "test": 0})
    assert found.widths[1]["off"] < 0.08
    assert found.widths[0]["off"] > 2.5 * found.widths[1]["off"]
    assert found.theory["test_loss"] is None
    assert found.rows()[1]["width"] == 1024


def test_networks_that_diverge_are_a_result(rich):
    found, _ = rich
    runs = [
        run if run["width"] > 64 else {"width": 64, "seed": run["seed"], "diverged": 3, "loss": [0.5]} for run in found.runs
    ]
    one = dataclasses.replace(found, runs=runs)
    assert one.widths[0]["diverged"] == 3
    assert "diverged" in str(one)
    assert one.slope.value == pytest.approx(-0.5, abs=0.3)
    exact = dataclasses.replace(found, theory=found.theory | {"accuracy": 3e-16})
    assert "± 0%" in str(exact)
    assert "± 0%" not in str(found)
    gone = dataclasses.replace(found, runs=[run for run in runs if run["width"] == 64])
    assert "diverged at this learning rate" in gone.sentence
    assert gone.to_dict()["widest"]["width"] is None


def test_a_rate_that_nobody_asked_for_is_lowered_until_the_limit_is_calm_and_known():
    """A quarter of the stable rate at initialisation lets the loss fall, and then come back up as noise, at this gamma."""
    few = SMALL | {"steps": 6, "widths": (64, 128), "seeds": 1, "neurons": 800}
    found = lzr.limit(plan_of(lzr.richness(0.5, gamma=10.0)), pair(), **few, centred=True)
    assert found.theory["lr"] < 0.1 * found.theory["stable_lr"]
    assert found.theory["accuracy"] < 0.05
    assert found.theory["loss"] == sorted(found.theory["loss"], reverse=True)
    plain = lzr.limit(plan_of(lzr.mup()), pair(), **few | {"steps": 1, "neurons": 400})
    assert plain.theory["lr"] == pytest.approx(0.25 * plain.theory["stable_lr"])


class Searched(Study):
    """A study whose limit has the losses and the accuracy that a test asks for at a fraction of the stable rate."""

    def __init__(self, **known):
        object.__setattr__(self, "steps", 2)
        object.__setattr__(self, "neurons", 400)
        object.__setattr__(self, "known", {float(key.replace("at", "0.")): value for key, value in known.items()})

    def _limit(self, steps, lr, neurons, show, rise):
        end, accuracy = self.known[lr]
        if end > rise:
            raise lzr.errors.DivergedError("diverges")
        return SimpleNamespace(loss=torch.tensor([1.0, 0.7, end]), accuracy=accuracy, steps=2, lr=lr)


@pytest.mark.parametrize(
    ("known", "rate"),
    [
        ({"at25": (0.1, 0.01)}, 0.25),
        ({"at25": (9.0, 0.01), "at08": (1.1, 0.01), "at02": (0.5, 0.01)}, 0.02),
        ({"at25": (0.5, 0.8), "at08": (0.5, 0.4), "at02": (0.5, 0.01)}, 0.02),
        ({"at25": (0.5, 0.2), "at08": (0.5, 0.19)}, 0.25),  # too few neurons, and no matter of the rate
    ],
)
def test_the_rate_searched_for_is_the_first_that_is_calm(known, rate):
    assert Searched(**known)._searched(1.0, print)[0] == rate


def test_a_limit_that_rises_at_every_rate_is_refused():
    every = dict.fromkeys(("at25", "at08", "at02", "at005", "at0015", "at0005"), (1.1, 0.01))
    with pytest.raises(lzr.LazyrichError, match="from 1 up to 1.1; lr 0.0005 is too large"):
        Searched(**every)._searched(1.0, print)


def test_a_limit_that_is_poorly_known_is_said_to_be(rich):
    found, _ = rich
    poor = dataclasses.replace(found, theory=found.theory | {"accuracy": 0.35}).sentence
    assert "the limit is known only to 35%: lower lr or raise neurons" in poor
    assert "approach" not in poor
    assert "known only" not in found.sentence


def test_layers_that_a_sequential_numbers_are_called_layers(rich):
    found, _ = rich
    layers = [layer | {"layer": str(2 * i)} for i, layer in enumerate(found.theory["layers"])]
    numbered = dataclasses.replace(found, theory=found.theory | {"layers": layers})
    assert "the feature kernel of layer 2 moves" in numbered.sentence
    assert "kernel layer 0" in str(numbered)
    assert "the feature kernel of hidden.1 moves" in found.sentence


@pytest.mark.parametrize(
    ("powers", "words"),
    [
        ((-0.5, -0.5, -0.5), "approach it as width^(-0.50 ± 0.00)"),
        ((0.2, 0.2, 0.2), "do not approach it: the distance goes as width^(+0.20 ± 0.00)"),
        ((-0.5, 0.5, 0.0), "; too few widths and seeds to tell how they approach it"),
    ],
)
def test_networks_approach_only_where_the_slope_says_so(rich, powers, words):
    found, _ = rich
    runs = [run | {"off": 0.1 * (run["width"] / 64) ** powers[run["seed"]]} for run in found.runs]
    assert words in dataclasses.replace(found, runs=runs).sentence
    one = [run for run in runs if run["seed"] == 0 and run["width"] > 64]
    assert "too few widths and seeds" in dataclasses.replace(found, runs=one).sentence


def test_initial_outputs_that_are_most_of_the_distance_are_named(rich):
    small = SMALL | {"steps": 3, "widths": (64, 128), "seeds": 1, "neurons": 400}
    plan = plan_of(lzr.richness(0.5, gamma=1e-3))
    found = lzr.limit(plan, pair(), **small)
    assert "times the limit's outputs away from them, most of it initial outputs" in found.sentence
    assert "--centred" in found.sentence
    assert "initial outputs" not in lzr.limit(plan, pair(), centred=True, **small).sentence
    assert "initial outputs" not in rich[0].sentence


class Bare(nn.Module):
    """The network of ``two_class`` without a module in it, whose outputs have no axis of their own."""

    def __init__(self, n):
        super().__init__()
        for name, drawn in zip("vbwcao", lzr.zoo.two_class(n).parameters(), strict=True):
            setattr(self, name, nn.Parameter(drawn.detach()))

    def forward(self, x):
        h = nn.functional.linear(x.flatten(1), self.v, self.b).tanh()
        h = nn.functional.linear(h, self.w, self.c).tanh()
        return nn.functional.linear(h, self.a, self.o).squeeze(-1)


def test_tensors_of_the_network_itself_are_layers_with_names():
    nets = lzr.Family(Bare, base=64, roles={"v": "input", "w": "hidden", "a": "output"})
    plan = lzr.plan(nets, lzr.mup(), "sgd", init={"o": 0.0})
    small = SMALL | {"steps": 3, "widths": (64, 128), "seeds": 1, "neurons": 400, "lr": 0.05}
    found = lzr.limit(plan, pair(), **small)
    assert [layer["layer"] for layer in found.theory["layers"]] == ["v", "w"]
    assert found.widths[0]["kernels"].keys() == {"v", "w"}
    model, x = plan.build(64, seed=0).double(), pair().subset(9, 0).x.double().flatten(1)
    h = nn.functional.linear(nn.functional.linear(x, model.v, model.b).tanh(), model.w, model.c).tanh().detach()
    run = found.runs[0]
    assert torch.allclose(torch.tensor(run["layers"][1]["start"], dtype=torch.float64), h @ h.T / 64)
    f = model(x).detach()
    assert run["outputs"][0] == pytest.approx(f.tolist())
    assert run["loss"][0] == pytest.approx(float((f[:6] - signs(6)).square().mean() / 2))


def signs(count):
    return 2.0 * pair().subset(9, 0).y[:count].double() - 1


def batch_normed(n):
    return nn.Sequential(nn.Linear(64, n), nn.BatchNorm1d(n), nn.Tanh(), nn.Linear(n, 1))


def skipping(n):
    return lzr.zoo.ResidualMLP(n, outputs=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": (64,)}, "expected two or more"),
        ({"widths": (16, 64)}, "none below the plan's base 64"),
        ({"steps": 0}, "steps = 0"),
        ({"samples": 400}, r"400 \+ 3 samples, but 'digits 3 8' has 357"),
        ({"lr": -1.0}, "lr = -1.0"),
        ({"lr": 5.0}, "training diverges at step .* largest stable one"),
        ({"loss": "hinge"}, "got loss 'hinge'"),
        ({"data": "digits"}, "10 classes for a network of 1 output;"),
        ({"data": (torch.randn(9, 64), torch.ones(9, 1))}, "same target"),
        ({"data": (torch.randn(9, 64), torch.randn(9, 2))}, "2 numbers for a network of 1 output;"),
        ({"plan": lambda: plan_of(lzr.mup(), factory=skipping)}, "covers fully connected"),
        ({"plan": lambda: plan_of(lzr.mup(), "adam")}, "the plan is for adam"),
        ({"plan": lambda: lzr.plan(lzr.Family(batch_normed), lzr.mup(), "sgd")}, "covers fully connected networks"),
        ({"plan": lambda: lzr.plan(lzr.Family(lzr.zoo.two_class), lzr.mup(), "sgd")}, "'readout.bias' starts at random"),
    ],
)
def test_bad_input_is_refused(change, words):
    given = {"plan": lambda: plan_of(lzr.mup()), "data": pair(), **SMALL, "neurons": 400} | change
    plan = given.pop("plan")()
    with pytest.raises(lzr.LazyrichError, match=words):
        lzr.limit(plan, given.pop("data"), **given)


def test_too_few_samples_for_the_accuracy_say_how_many_it_takes():
    plan, chosen = plan_of(lzr.mup()), pair().subset(4, 0)
    rough = lzr.dmft(plan, chosen, 4, lr=0.05, samples=400)
    with pytest.raises(lzr.LazyrichError, match="asked for; it takes about") as refused:
        lzr.dmft(plan, chosen, 4, lr=0.05, samples=400, accuracy=rough.accuracy / 2)
    needed = float(str(refused.value).split("about ")[1].split()[0])
    assert needed == pytest.approx(1600, rel=0.05)
    assert lzr.dmft(plan, chosen, 4, lr=0.05, samples=6400, accuracy=rough.accuracy / 2).accuracy < rough.accuracy / 2
