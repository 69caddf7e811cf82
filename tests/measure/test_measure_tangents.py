"""The tangent study: its numbers against explicit training, Jacobians and closed forms."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

import lazyrich as lzr
from lazyrich.errors import TangentError, UsageError
from lazyrich.measure.few import few_predictions
from lazyrich.measure.tangents import tangents
from lazyrich.report import render


def plan(base: int = 16, scheme: lzr.Scheme | None = None, outputs: int = 10) -> lzr.Plan:
    family = lzr.Family(lambda n: lzr.zoo.MLP(n, 2, outputs=outputs), base=base)
    return lzr.plan(family, scheme or lzr.ntk(), "sgd")


SMALL = {"samples": 14, "test": 20, "few": 4, "steps": 30}
SMALLER = {"samples": 14, "test": 4, "few": 2, "steps": 30}


@pytest.fixture(scope="module")
def found():
    return tangents(plan(), "digits", 32, **SMALL)


def jacobian(model: nn.Module, x: torch.Tensor, rates: dict[str, float]) -> torch.Tensor:
    """(N K, entries), weighed by the root of the rates."""
    own = {name: p.detach() for name, p in model.named_parameters()}
    found = jacrev(lambda p: functional_call(model, p, (x,)))(own)
    return torch.cat([rates[name] ** 0.5 * j.flatten(2) for name, j in found.items()], 2).flatten(0, 1)


def problem(width: int, samples: int, test: int):
    data = lzr.data.load("digits").subset(samples + test, 0)
    made = plan()
    model = made.build(width, 0).double()
    rates = {name: setting.lr for name, setting in made.settings(width).items()}
    y = torch.nn.functional.one_hot(data.y, 10).double() - 0.1
    return made, model, rates, data.x.double(), y


def test_losses_movement_and_linearisation_are_those_of_explicit_descent(found) -> None:
    made, model, rates, x, y = problem(32, 14, 20)
    jac = jacobian(model, x, rates)
    f0, m = model(x).detach(), 14 * 10
    theta = jac @ jac[:m].T
    lr = 0.5 / float(torch.linalg.eigvalsh(theta[:m]).max() / 14)
    linear = f0.flatten().clone()
    for _ in range(30):
        linear = linear - lr / 14 * theta @ (linear[:m] - y[:14].flatten())
    start = torch.einsum("nkp,mkp->nm", *(2 * [jac[:m].reshape(14, 10, -1)]))
    optimizer = torch.optim.SGD(made.param_groups(model, lr))
    for _ in range(30):
        optimizer.zero_grad()
        ((model(x[:14]) - y[:14]).square().sum() / 28).backward()
        optimizer.step()
    last, now = found.moments[-1], jacobian(model, x[:14], rates).reshape(14, 10, -1)
    f = model(x).detach()
    after = torch.einsum("nkp,mkp->nm", now, now)
    assert last["step"] == 30
    assert last["loss"] == pytest.approx(float((f[:14] - y[:14]).square().sum() / 28), rel=1e-6)
    assert last["accuracy"] == pytest.approx(float((f[14:].argmax(1) == y[14:].argmax(1)).double().mean()))
    assert last["linear_loss"] == pytest.approx(float((linear[:m] - y[:14].flatten()).square().sum() / 28), rel=1e-6)
    assert last["ntk_movement"] == pytest.approx(float((after - start).norm() / start.norm()), rel=1e-6)
    off = (linear[m:] - f[14:].flatten()).norm() / (f[14:] - f0[14:]).norm()
    assert last["test_error"] == pytest.approx(float(off), rel=1e-6)
    assert found.settings["lr"] == pytest.approx(lr, rel=1e-3)


def test_the_finite_kernel_is_near_its_limit_and_comes_nearer(found) -> None:
    wide = tangents(plan(), "digits", 256, **{**SMALLER, "steps": 1})
    assert found.limit["reason"] == wide.limit["reason"] == ""
    assert wide.limit["distance"] < 0.7 * found.limit["distance"] < 0.5


def test_wider_networks_are_lazier() -> None:
    lazy = tangents(plan(), "digits", 256, **SMALLER)
    rich = tangents(plan(scheme=lzr.mup()), "digits", 256, **SMALLER)
    assert lazy.word == "lazy"
    assert rich.moments[-1]["ntk_movement"] > 3 * lazy.moments[-1]["ntk_movement"]
    assert "muP" in rich.limit["reason"] or "kernel" in rich.limit["reason"]


def test_the_hierarchy_improves_on_the_tangent_kernel() -> None:
    _, model, rates, x, y = problem(64, 40, 0)
    few = few_predictions(model, x, y, y.argmax(1), 6, rates)
    assert few["samples"] == 6
    assert few["what"].startswith("class ")
    assert few["at_half"][2] < few["at_half"][0] / 5  # theory 8: p = 4 against p = 2
    assert few["errors"][0][0] is None
    assert few["losses"][0] == pytest.approx(few["predicted"][0][0])


def test_a_loss_of_which_a_part_cannot_be_learnt_is_followed_to_what_can() -> None:
    """A linear model of two inputs and one offset cannot fit six samples."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(2, 1).double(), torch.randn(6, 2).double(), torch.randn(6, 1).double()
    few = few_predictions(model, x, y, None, 6, {})
    design = torch.cat([x, torch.ones(6, 1).double()], 1)
    floor = float((y - design @ torch.linalg.lstsq(design, y).solution).square().mean() / 2)
    parts = [(loss - floor) / (few["losses"][0] - floor) for loss in few["losses"]]
    assert floor > 0.1 * few["losses"][0]
    assert parts[-1] == pytest.approx(0.05, rel=1e-3)
    assert parts[few["times"].index(few["half"])] <= 0.5 < parts[few["times"].index(few["half"]) - 1]


def test_a_few_samples_that_no_parameter_moves_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False)).double()
    model[0].weight.data.abs_().neg_()
    with pytest.raises(TangentError, match="no parameter moves the outputs"):
        few_predictions(model, torch.rand(4, 2).double(), torch.randn(4, 1).double(), None, 4, {})


def test_spectra_alignment_and_rows(found) -> None:
    for s in found.spectra:
        assert s["eigenvalues"] == sorted(s["eigenvalues"], reverse=True)
        assert s["cumulative"][-1] == pytest.approx(1)
    first, last = found.moments[0], found.moments[-1]
    assert first["ntk_movement"] == first["error"] == 0
    assert [row["layer"] for row in last["alignment"]] == ["hidden.0", "hidden.1", "readout", "(whole)"]
    assert list(last["features"]) == ["hidden.0", "hidden.1", "readout"]
    assert found.peak in last["features"]
    row = found.rows()[-1]
    assert row["alignment.readout"] == last["alignment"][2]["centred"]
    assert row["features.hidden.0"] == last["features"]["hidden.0"]
    text = str(found)
    assert found.sentence in text
    assert re.search(
        "while the training loss fell from .* and on test samples the linearised network is off by", found.sentence
    )
    assert f"peak: {found.peak}" in text


def test_the_page_holds_every_part(found, tmp_path) -> None:
    page = render(found, tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('<svg class="figure"') == 8
    for title in ("Alignment by layer", "What moves", "Corrections to the tangent kernel", "lies ", found.sentence):
        assert title in page
    again = json.loads(json.dumps(found.to_dict()))
    assert render(again, tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_fewer_samples_than_were_asked_for_are_told() -> None:
    result = tangents(plan(), "digits", samples=6, test=4, few=8, steps=5)
    assert result.few["samples"] < 8
    assert result.few["what"].endswith("; fewer than few = 8, for want of more")
    assert f"{result.few['samples']} samples ({result.few['what']})" in str(result)


def test_a_regression_and_a_network_of_one_output() -> None:
    x = torch.randn(30, 64)
    result = tangents(plan(outputs=1), (x, x[:, :1]), samples=10, test=20, few=2, steps=5)
    assert result.few["what"] == "the output"
    assert result.moments[-1]["accuracy"] is None
    wide = tangents(plan(outputs=3), (x, x[:, :3]), samples=10, test=20, few=2, steps=5)
    assert wide.few["what"] == "the main direction of the targets"


def test_a_network_of_one_output_tells_two_classes_by_its_sign() -> None:
    """Referee: descent by hand on targets -1 and 1."""
    pair, made = lzr.data.load("digits").only([3, 8]), plan(outputs=1)
    result = tangents(made, pair, samples=10, test=20, few=4, steps=8, seed=0)
    chosen, model, lr = pair.subset(30, 0), made.build(16, 0).double(), result.settings["lr"]
    x, y = chosen.x.double(), 2.0 * chosen.y.double() - 1
    optimizer = torch.optim.SGD(made.param_groups(model, lr))
    for _ in range(8):
        optimizer.zero_grad()
        ((model(x[:10])[:, 0] - y[:10]).square().sum() / 20).backward()
        optimizer.step()
    with torch.no_grad():
        out, last = model(x)[:, 0], result.moments[-1]
    assert last["loss"] == pytest.approx(float((out[:10] - y[:10]).square().sum() / 20), rel=1e-3)
    assert last["accuracy"] == pytest.approx(float(((out[10:] > 0) == (y[10:] > 0)).double().mean()))
    assert result.few["what"] == "the output" and result.limit["accuracy"] is not None
    with pytest.raises(TangentError, match="a network with 1 output for .* with 10"):
        tangents(made, "digits", **SMALL)


class Flat(nn.Module):
    """Its outputs are (N,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = lzr.zoo.MLP(width, 2, outputs=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).squeeze(-1)


def test_a_network_that_returns_a_number_a_sample() -> None:
    data = (x := torch.randn(30, 64), x[:, 0])
    options = {"samples": 10, "test": 20, "few": 2, "steps": 5}
    flat = tangents(lzr.plan(lzr.Family(Flat, base=16), lzr.ntk(), "sgd"), data, **options)
    known = tangents(plan(outputs=1), data, **options)
    assert flat.limit["reason"] == ""
    assert flat.moments[-1]["test_error"] == pytest.approx(known.moments[-1]["test_error"])
    assert flat.few["losses"] == pytest.approx(known.few["losses"])
    assert flat.limit["distance"] == pytest.approx(known.limit["distance"])
    assert lzr.signals(lzr.plan(lzr.Family(Flat, base=16), lzr.ntk(), "sgd"), data, samples=4, seeds=2).lines


def test_outputs_without_an_axis_of_samples_are_refused() -> None:
    family = lzr.Family(lambda n: nn.Sequential(nn.Linear(64, n), nn.Tanh(), nn.Linear(n, 10), nn.Flatten(0)), base=16)
    with pytest.raises(TangentError, match="1 output for"):
        tangents(lzr.plan(family, lzr.ntk(), "sgd"), "digits", **SMALL)


def test_a_run_folder_continues(tmp_path, found) -> None:
    first = tangents(plan(), "digits", 32, **SMALL, folder=tmp_path / "run")
    assert first.moments == found.moments
    assert sorted(p.stem for p in (tmp_path / "run" / "trials").iterdir()) == ["few", "limit", "training"]
    (tmp_path / "run" / "trials" / "training.json").write_text(json.dumps({"moments": [], "spectra": [], "lr": 1.0}))
    assert tangents(plan(), "digits", 32, **SMALL, folder=tmp_path / "run").moments == []


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"samples": 2}, UsageError, "samples = 2"),
        ({"samples": "3"}, UsageError, "samples = '3'"),
        ({"test": None}, UsageError, "test = None"),
        ({"width": "3"}, UsageError, "width = '3'"),
        ({"lr": "x"}, UsageError, "lr = 'x'"),
        ({"few": 1}, UsageError, "few = 1"),
        ({"few": 100}, UsageError, "few = 100"),
        ({"steps": 0}, UsageError, "steps = 0"),
        ({"lr": -1.0}, UsageError, "lr = -1"),
        ({"lr": 1e9}, UsageError, "diverges at learning rate 1e.09"),
        ({"width": 8}, UsageError, "width 8"),
        ({"samples": 1797}, UsageError, "1797"),
        ({"samples": 500}, UsageError, "at most 400 samples"),
        ({"data": (torch.randn(40, 64), torch.randn(40, 2))}, TangentError, "10 outputs for .* with 2"),
        ({"data": (torch.randn(40, 3), torch.randn(40, 10))}, TangentError, "does not take"),
    ],
)
def test_bad_input(options: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        tangents(plan(), **{"data": "digits", **SMALL, **options})
