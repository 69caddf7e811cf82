"""Optimizers beyond SGD and Adam: what a plan tells them, and that networks then move alike at every width."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

import lazyrich as lzr
from lazyrich.errors import LazyrichError, PlanError
from lazyrich.family import Role
from lazyrich.scaling.native import by_matrix, native_step
from lazyrich.scaling.optimizer import gradient_floor

OWN = ("muon", "muon_rms", "adafactor", "lion")
# exponents in the width of the learning rate of (input, hidden, output) under muP; matrices by the spectral condition
EXPONENTS = {
    "lion": (0, -1, -1),
    "adafactor": (0, -0.5, 0),
    "muon": (0, 0, -1),
    "muon_rms": (0, -0.5, -1),
    "shampoo": (0, 0, -1),
}


def family():
    return lzr.Family(lzr.zoo.mlp, base=16)


@pytest.mark.parametrize("optimizer", EXPONENTS)
def test_mup_rates(optimizer):
    settings = lzr.plan(family(), lzr.mup(), optimizer).settings(64)
    found = [settings[name].lr for name in ("hidden.0.weight", "hidden.1.weight", "readout.weight")]
    assert found == pytest.approx([4.0**k for k in EXPONENTS[optimizer]], rel=1e-9)


@pytest.mark.parametrize(("alignment", "exponents"), [("full", (0, -1, -1)), ("none", (0, -0.5, -0.5))])
def test_alignment_is_everetts_table(alignment, exponents):
    for scheme in (lzr.mup(), lzr.abc(a=(0, 0, 0), b=(0, 0.5, 0.5), c=(0, 1, 1))):
        settings = lzr.plan(family(), scheme, "adam", alignment=alignment).settings(64)
        found = [settings[name].lr for name in ("hidden.0.weight", "hidden.1.weight", "readout.weight")]
        assert found == pytest.approx([4.0**k for k in exponents], rel=1e-9)


@pytest.mark.parametrize(("readout", "power"), [(1.0, -1.0), (0.75, -0.75), (0.5, -0.5)])
def test_the_readouts_own_alignment(readout, power):
    for alignment, hidden in (("full", -1.0), ("none", -0.5)):
        settings = lzr.plan(family(), lzr.mup(), "adamw", alignment=alignment, readout_alignment=readout).settings(64)
        found = [settings[name].lr for name in ("hidden.0.weight", "hidden.1.weight", "readout.weight")]
        assert found == pytest.approx([1.0, 4.0**hidden, 4.0**power], rel=1e-9)


@pytest.mark.parametrize("readout", [0.4, 1.1])
def test_alignments_that_are_none_are_refused(readout):
    with pytest.raises(PlanError, match="expected 1/2"):
        lzr.plan(family(), lzr.mup(), "adamw", readout_alignment=readout)
    with pytest.raises(PlanError, match="the layers' rates depend on each other"):
        lzr.plan(family(), lzr.mup(), "sgd", readout_alignment=0.5)


def test_soap_has_no_law():
    """Measured with its reference algorithm, outputs move as n^1 at two steps of four samples and as n^.4 at twelve of 64."""
    for name in ("soap", "SOAP", type("SOAP", (torch.optim.Optimizer,), {})):
        with pytest.raises(LazyrichError, match="'soap', of which no one law in the width is known.*Plan for 'adamw'"):
            lzr.plan(family(), lzr.mup(), name)


def test_adafactors_epsilon_follows_the_gradients():
    """It floors squares of gradients of tensors with several axes, and gradients of vectors."""
    plan = lzr.plan(family(), lzr.mup(), "adafactor")
    first = {}
    for group in plan.param_groups(plan.build(64), lr=1.0):
        first |= dict.fromkeys(group["tensors"], group["eps"][0])
    one = torch.finfo(torch.float32).eps
    names = ("hidden.0.weight", "hidden.0.bias", "hidden.1.weight")
    assert [first[name] for name in names] == pytest.approx([one / 16, one / 4, one / 16])
    assert first["readout.weight"] is None and {g["eps"][0] for g in plan.param_groups(plan.build(16), lr=1.0)} == {None}


@pytest.mark.parametrize("axes", [1, 3])
def test_small_gradients_meet_adafactors_epsilon_alike_at_every_width(axes):
    """Of gradients that fall as the plan takes them to, the step does not change, also where they are of epsilon's size."""
    sizes = torch.tensor([1e-5, 1e-4, 1e-3, 1e-2]).reshape(4, *[1] * (axes - 1)) * (1e-4 if axes == 1 else 1.0)
    steps = []
    for factor in (1.0, 1 / 4):
        p = nn.Parameter(torch.full((4,) * axes, 0.5))
        optimizer = torch.optim.Adafactor([{"params": [p], "lr": 0.01, "eps": (gradient_floor(p, factor), 1e-3)}])
        p.grad = factor * sizes * torch.ones_like(p)
        optimizer.step()
        steps.append(0.5 - p.detach())
    assert steps[0].flatten()[0] != steps[0].flatten()[-1]
    torch.testing.assert_close(*steps, rtol=1e-3, atol=0)


def test_policies_of_epsilon():
    names = ("hidden.0.weight", "hidden.1.weight", "readout.weight")
    eps = {p: [lzr.plan(family(), lzr.mup(), epsilon=p).settings(64)[n].eps for n in names]
           for p in ("gradient", "hidden", "unscaled")}  # fmt: skip
    assert eps == {"gradient": [0.25, 0.25, 1.0], "hidden": [1.0, 0.25, 1.0], "unscaled": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize("optimizer", OWN)
@pytest.mark.parametrize("sides", [(64, 64), (64, 16), (16, 64)])
def test_a_hidden_step_moves_the_output_alike_at_every_width(optimizer, sides):
    """The referee: one real step on a random gradient of rank one, the output's movement on the aligned input."""

    class Net(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.first, self.mid = nn.Linear(4, sides[1] * n, bias=False), nn.Linear(sides[1] * n, sides[0] * n, bias=False)

    plan = lzr.plan(lzr.Family(Net, base=1, probe=2), lzr.mup(), optimizer)
    moves = []
    for n in (1, 8):
        model = plan.build(n)
        generator = torch.Generator().manual_seed(0)
        out, inp = (torch.randn(k * n, generator=generator).sign() for k in sides)
        model.mid.weight.grad = torch.outer(out, inp) / n
        before = model.mid.weight.detach().clone()
        plan.optimizer(model, lr=0.01).step()
        moves.append(float(((model.mid.weight.detach() - before) @ inp).square().mean().sqrt()))
    assert moves[1] / moves[0] == pytest.approx(1, abs=0.08)


def test_standard_leaves_one_rate_to_the_optimizer():
    for optimizer in OWN:
        plan = lzr.plan(family(), lzr.standard(), optimizer)
        assert {setting.lr for setting in plan.settings(64).values()} == {1.0}


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 64, generator=generator), torch.randint(10, (32,), generator=generator)


def losses(model, optimizer, steps):
    x, y = data()
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x.double()), y)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("optimizer", OWN)
def test_training_goes_on_from_a_checkpoint_and_from_a_copy(optimizer):
    plan = lzr.plan(family(), lzr.mup(), optimizer)
    model = plan.build(32).double()
    stepper = plan.optimizer(model, lr=0.01)
    losses(model, stepper, 3)
    saved = copy.deepcopy((model.state_dict(), stepper.state_dict()))
    twin, twin_stepper = copy.deepcopy((model, stepper))
    expected = losses(model, stepper, 3)
    assert losses(twin, twin_stepper, 3) == expected
    other = plan.build(32, seed=1).double()
    fresh = plan.optimizer(other, lr=0.01)
    other.load_state_dict(saved[0])
    fresh.load_state_dict(saved[1])
    assert losses(other, fresh, 3) == expected
    assert expected[-1] < expected[0]


def test_muon_takes_hidden_matrices_and_a_scheduler_reaches_both_parts():
    plan = lzr.plan(family(), lzr.mup(), "muon")
    model = plan.build(32)
    groups = plan.param_groups(model, lr=0.02, rest_lr=0.003)
    matrices = [name for group in groups if group["optimizer"] == "muon" for name in group["tensors"]]
    assert matrices == ["hidden.1.weight"]
    assert {g["lr"] for g in groups} == {0.02, 0.003, 0.0015}
    optimizer = plan.optimizer(model, lr=0.02)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    model(data()[0]).sum().backward()
    optimizer.step()
    scheduler.step()
    assert [part.param_groups[0]["lr"] for part in optimizer.parts][0] == pytest.approx(0.01)
    assert all(g["lr"] == pytest.approx(0.5 * g["initial_lr"]) for part in optimizer.parts for g in part.param_groups)


def muon():
    plan = lzr.plan(family(), lzr.mup(), "muon")
    model = plan.build(32).double()
    return model, plan.optimizer(model, lr=0.02)


def test_a_group_added_to_muon_is_stepped_by_its_part_or_refused():
    model, optimizer = muon()
    added = {kind: nn.Parameter(torch.eye(3)) for kind in ("adamw", "muon")}
    for kind, tensor in added.items():
        optimizer.add_param_group({"params": tensor, "optimizer": kind, "lr": 0.1, "weight_decay": 0.0})
        tensor.grad = torch.ones(3, 3)
    optimizer.step()
    assert not any(torch.equal(tensor.detach(), torch.eye(3)) for tensor in added.values())
    groups = len(optimizer.param_groups)
    for wrong, words in (({}, "expected also 'optimizer'"), ({"optimizer": "muon"}, r"of shape \(3,\), which torch refuses")):
        with pytest.raises(lzr.LazyrichError, match=words):
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))], "lr": 0.1, **wrong})
    assert len(optimizer.param_groups) == groups == sum(len(part.param_groups) for part in optimizer.parts)


def test_muons_state_is_in_torchs_format_for_one_optimizer_and_older_files_are_read():
    model, optimizer = muon()
    losses(model, optimizer, 2)
    state = copy.deepcopy(optimizer.state_dict())
    assert set(state) == {"state", "param_groups"}
    assert len(state["state"]) == len(list(model.parameters())) == len(optimizer.state)
    weights, expected = copy.deepcopy(model.state_dict()), losses(model, optimizer, 2)
    for saved in (state, {"parts": old_parts(state)}):
        other, fresh = muon()
        other.load_state_dict(weights)
        fresh.load_state_dict(copy.deepcopy(saved))  # torch takes the tensors themselves
        assert losses(other, fresh, 2) == expected
        assert all(group in fresh.param_groups for part in fresh.parts for group in part.param_groups)


def old_parts(state):
    """A state by parts, each with its own count of tensors."""
    found, before = [], 0
    for kind in ("muon", "adamw"):
        groups = [g for g in state["param_groups"] if g["optimizer"] == kind]
        n = sum(len(g["params"]) for g in groups)
        moved = [{**g, "params": [i - before for i in g["params"]]} for g in groups]
        found.append({"state": {i: state["state"][before + i] for i in range(n)}, "param_groups": moved})
        before += n
    return found


def test_muons_state_is_read_by_torchs_checkpoints():
    model, optimizer = muon()
    losses(model, optimizer, 2)
    state = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    assert set(state["state"]) == {name for name, _ in model.named_parameters()}
    other, fresh = muon()
    other.load_state_dict(model.state_dict())
    set_optimizer_state_dict(other, fresh, state)
    assert losses(other, fresh, 2) == losses(model, optimizer, 2)


def test_what_has_no_rule_is_refused():
    with pytest.raises(PlanError, match="alignment='none'"):
        lzr.plan(family(), lzr.mup(), "sgd", alignment="none")
    with pytest.raises(PlanError, match="no one largest rate"):
        lzr.plan(family(), lzr.standard(max_stable=True), "muon")
    with pytest.raises(PlanError, match="epsilon='all'"):
        lzr.plan(family(), lzr.mup(), epsilon="all")


def test_muons_step_where_rows_and_columns_grow_apart():
    """Spectral norm sqrt(max(1, rows/columns)) shared by sqrt(fan_in fan_out); kernels are no matrices and stay on AdamW."""
    hidden = Role.HIDDEN
    assert native_step("muon", hidden, (64, 256), (16, 64), 0.5) == pytest.approx(1 / 4)
    assert native_step("muon", hidden, (16, 256), (16, 64), 0.5) == pytest.approx(1 / 2), "norm one at both shapes"
    assert native_step("muon", hidden, (256, 16), (64, 16), 0.5) == pytest.approx(1.0)
    assert not by_matrix("muon", hidden, (64, 64, 3, 3))
    assert native_step("muon", hidden, (64, 64, 3, 3), (16, 16, 3, 3), 0.5) == 1.0


def test_the_decay_of_lion_is_multiplied_by_its_rate():
    p = nn.Parameter(torch.tensor([2.0, -1.0]))
    p.grad = torch.tensor([0.3, 0.2])
    lzr.scaling.optimizer.Lion([p], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(p.detach(), torch.tensor([2.0 * 0.95 - 0.1, -0.95 - 0.1]))
