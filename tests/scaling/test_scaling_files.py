"""Plans as files, and models that come back from files, copies and wrappers."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import LazyrichError, PlanError

PLANS = {
    "mup": lambda: lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.mup()),
    "standard": lambda: lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.standard(max_stable=True), "sgd"),
    "tied, unscaled, gamma": lambda: lzr.plan(
        lzr.Family(lzr.zoo.tied_transformer, base=16), lzr.richness(0.3, gamma=1.7), "adam", weight_decay="unscaled"
    ),
    "overridden, spectral": lambda: lzr.plan(
        lzr.Family(lzr.zoo.convnet, base=16),
        lzr.spectral(),
        init={"readout.*": 0.1},
        overrides={"hidden.*.bias": {"lr": 2.0, "weight_decay": 0.0}},
    ),
    "residual, multipliers": lambda: lzr.plan(
        lzr.Family(lzr.zoo.residual_mlp, base=16),
        lzr.mup(),
        "sgd",
        gauge="multipliers",
        branches=["blocks.*"],
        base_depth=1,
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_reads_back_as_it_was_written(name, tmp_path):
    plan = PLANS[name]()
    path = plan.save(tmp_path / "plan.json")
    assert lzr.Plan.load(path) == replace(plan, family=None)
    assert lzr.Plan.load(path, family=plan.family) == plan
    json.loads(path.read_text())  # strict JSON, no NaN or Infinity


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_without_its_family_serves_a_model(name, tmp_path):
    plan = PLANS[name]()
    loaded = lzr.Plan.load(plan.save(tmp_path / "plan.json"))
    model, other = plan.build(48, seed=4), plan.family.build(48, seed=4)
    loaded.apply_(other)
    for (key, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), key
    one, two = plan.param_groups(model, lr=0.1), loaded.param_groups(other, lr=0.1)
    assert [{k: v for k, v in g.items() if k != "params"} for g in one] == [
        {k: v for k, v in g.items() if k != "params"} for g in two
    ]
    with pytest.raises(PlanError, match="loaded without its family"):
        loaded.build(48)
    with pytest.raises(PlanError, match="loaded without its family"):
        loaded.settings(48)


def test_a_plan_with_another_family_is_refused(tmp_path):
    path = PLANS["mup"]().save(tmp_path / "plan.json")
    with pytest.raises(PlanError, match="other tensors than the plan"):
        lzr.Plan.load(path, family=lzr.Family(lzr.zoo.convnet))


@pytest.mark.parametrize("text", ["[]", "{}", '"mup"', "null", '{"lazyrich plan": 2}', "not json", "", "\x00", '{"a": '])
def test_a_file_that_holds_no_plan_is_refused(text, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(LazyrichError, match=r"plan\.json"):
        lzr.Plan.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(LazyrichError, match="cannot read"):
        lzr.Plan.load(tmp_path / "nothing.json")
    with pytest.raises(LazyrichError, match="cannot read"):
        lzr.Plan.load(tmp_path)


def _plan_data():
    from lazyrich.scaling.serial import to_dict

    return json.loads(json.dumps(to_dict(PLANS["residual, multipliers"]())))


KEYS = ["scheme", "optimizer", "base", "reference", "decay_policy", "gauge", "tensors", "obligations"]
TENSOR_KEYS = ["name", "role", "shape", "contracted", "produced", "grows", "mean", "std", "own", "rule", "decay"]
VALUES = ["gone", None, 3.5, "nonsense", [], {}]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_damaged_plan_is_refused(key, value, tmp_path):
    data = _plan_data()
    if value == "gone":
        del data[key]
    else:
        data[key] = value
    if (key, value) == ("obligations", []):
        return  # a plan may owe nothing
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data))
    with pytest.raises(PlanError, match=r"plan\.json is a damaged plan"):
        lzr.Plan.load(path)


@pytest.mark.parametrize("key", TENSOR_KEYS)
@pytest.mark.parametrize("value", ["gone", "nonsense", {}], ids=str)
def test_a_damaged_tensor_is_refused(key, value, tmp_path):
    data = _plan_data()
    row = data["tensors"][0]
    if value == "gone":
        if key in ("decay", "rule"):  # they have plain values to fall back on
            return
        del row[key]
    elif (key, value) == ("name", "nonsense"):
        return
    else:
        row[key] = value
    if (key, value) == ("rule", {}):
        return
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data))
    with pytest.raises(PlanError, match=r"plan\.json is a damaged plan"):
        lzr.Plan.load(path)


def test_a_reference_to_a_tensor_that_is_not_there_is_refused(tmp_path):
    for reference in (["nothing.weight", 0], ["embed.weight", 9]):
        data = {**_plan_data(), "reference": reference}
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(data))
        with pytest.raises(PlanError, match="damaged plan"):
            lzr.Plan.load(path)


# --- models that come from elsewhere --------------------------------------------------------------------------------------


def same_groups(one, two):
    return [{k: v for k, v in g.items() if k != "params"} for g in one] == [
        {k: v for k, v in g.items() if k != "params"} for g in two
    ]


def from_state(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = lzr.zoo.mlp(64)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def from_pickle(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "state_dict": from_state,
    "whole pickle": from_pickle,
    "averaged": lambda m: torch.optim.swa_utils.AveragedModel(m),
    "module.": nn.DataParallel,
    "_orig_mod.": lambda m: torch.compile(m, backend="eager"),
    "both": lambda m: nn.DataParallel(torch.compile(m, backend="eager")),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_plan_knows_its_tensors_in_every_guise(name):
    plan = PLANS["mup"]()
    model = plan.build(64)
    other = COPIES[name](model)
    assert same_groups(plan.param_groups(model, lr=0.1), plan.param_groups(other, lr=0.1))
    before = [p.detach().clone() for p in other.parameters()]
    plan.apply_(other)
    assert all(torch.equal(p, q) for p, q in zip(other.parameters(), before, strict=True))
    assert plan.table(other) == plan.table(model)


@pytest.mark.parametrize("name", ["module.", "_orig_mod.", "both"])
def test_a_fresh_model_is_planned_behind_its_wrapper(name):
    plan = PLANS["mup"]()
    model = plan.family.build(64, seed=2)
    plan.apply_(COPIES[name](model))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), plan.build(64, seed=2).parameters(), strict=True))


class Wrapper(nn.Module):
    """A network whose own part is called ``module``."""

    def __init__(self, n):
        super().__init__()
        self.module = lzr.zoo.mlp(n)


def test_a_part_that_is_itself_called_module_keeps_its_name():
    plan = lzr.plan(lzr.Family(Wrapper, base=16), lzr.mup())
    model = plan.build(64)
    names = {name for g in plan.param_groups(model, lr=0.1) for name in g["tensors"]}
    assert names == {name for name, _ in model.named_parameters()}
    assert same_groups(plan.param_groups(model, lr=0.1), plan.param_groups(nn.DataParallel(model), lr=0.1))


def test_an_optimizer_reads_its_state_back():
    plan = PLANS["mup"]()
    model = plan.build(64)
    optimizer = plan.optimizer(model, lr=0.1)
    model(torch.ones(2, 64)).sum().backward()
    optimizer.step()
    again = plan.optimizer(copy.deepcopy(model), lr=0.5)
    again.load_state_dict(optimizer.state_dict())
    assert [g["lr"] for g in again.param_groups] == [g["lr"] for g in optimizer.param_groups]
