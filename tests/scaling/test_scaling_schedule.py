"""Which schedulers keep the ratios between a plan's parameter groups."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

import lazyrich as lzr
from lazyrich.errors import PlanError
from lazyrich.scaling.schedule import _exhausted

STEPS = 40
KEEP = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda step: 1 / (1 + step)),
    "warm-up": lambda o: schedulers.LinearLR(o, 0.1, 1.0, 10),
    "StepLR": lambda o: schedulers.StepLR(o, 7, 0.5),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "cosine to 0": lambda o: schedulers.CosineAnnealingLR(o, STEPS),
    "cosine to 0 and past it": lambda o: schedulers.CosineAnnealingLR(o, STEPS // 3),
    "sequence": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, 1.0, 5), schedulers.CosineAnnealingLR(o, STEPS)], [5]
    ),
    "OneCycleLR with a rate a group": lambda o: schedulers.OneCycleLR(
        o, [10 * g["lr"] for g in o.param_groups], total_steps=STEPS, cycle_momentum=False
    ),
}
FLATTEN = {
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=STEPS, cycle_momentum=False),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.001, 0.1, 5, cycle_momentum=False),
    "cosine to a floor": lambda o: schedulers.CosineAnnealingLR(o, STEPS, eta_min=1e-3),
    "warm restarts to a floor": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 8, eta_min=1e-3),
}


def planned():
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.mup())
    return plan.optimizer(plan.build(64), lr=0.1)


def true_spread(optimizer, schedule, steps):
    """The referee: run the scheduler on the real optimizer and look at its rates."""
    starts, scheduler, spread = [g["lr"] for g in optimizer.param_groups], schedule(optimizer), 1.0
    for _ in range(steps):
        relative = [g["lr"] / start for g, start in zip(optimizer.param_groups, starts, strict=True)]
        if max(relative) > 0:
            spread = max(spread, max(relative) / min(relative)) if min(relative) > 0 else float("inf")
        optimizer.step()
        scheduler.step()
    return spread


@pytest.mark.parametrize("name", KEEP)
def test_a_scheduler_that_multiplies_keeps_the_ratios(name):
    found = lzr.flattens(planned(), KEEP[name], STEPS - 1)
    assert found.kept and found.step is None and found.spread == pytest.approx(1, abs=1e-6)
    assert true_spread(planned(), KEEP[name], STEPS - 1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", FLATTEN)
def test_a_scheduler_with_absolute_rates_flattens_them(name):
    found = lzr.flattens(planned(), FLATTEN[name], STEPS - 1)
    assert not found.kept and found.spread > 1.05
    assert found.spread == pytest.approx(true_spread(planned(), FLATTEN[name], STEPS - 1))
    assert str(found.step) in str(found) and "LambdaLR" in str(found)


def test_the_step_is_the_first_at_which_the_ratios_change():
    late = lzr.flattens(planned(), lambda o: schedulers.MultiplicativeLR(o, lambda step: 0.5), 20)
    assert late.kept

    def drops(o):
        return schedulers.LambdaLR(o, [(lambda s, i=i: 1.0 if s < 7 or i else 0.1) for i in range(len(o.param_groups))])

    found = lzr.flattens(planned(), drops, 20)
    assert (found.kept, found.step, found.spread) == (False, 7, pytest.approx(10))


def test_the_optimizer_itself_is_left_alone():
    optimizer = planned()
    before = [dict(g) for g in optimizer.param_groups]
    weights = [p.detach().clone() for g in optimizer.param_groups for p in g["params"]]
    lzr.flattens(optimizer, FLATTEN["OneCycleLR"], 100)  # more steps than the schedule has
    for group, old in zip(optimizer.param_groups, before, strict=True):
        assert set(group) == set(old) and group["lr"] == old["lr"]
    assert all(
        torch.equal(p, q) for p, q in zip((p for g in optimizer.param_groups for p in g["params"]), weights, strict=True)
    )


@pytest.mark.parametrize(("floor", "kept"), [(0.0, True), (1e-3, False)])
def test_a_scheduler_that_waits_for_a_plateau_multiplies_unless_it_has_a_floor(floor, kept):
    found = lzr.flattens(planned(), lambda o: schedulers.ReduceLROnPlateau(o, patience=2, min_lr=floor), 400)
    assert found.kept == kept


def test_changes_that_a_plateaus_eps_ignores_are_not_followed():
    """Below it the smallest rate stays while the others fall on: that flattens what no training still sees."""
    found = lzr.flattens(planned(), lambda o: schedulers.ReduceLROnPlateau(o, factor=0.5, patience=0), 60)
    assert found.kept
    optimizer = planned()
    rates, plateau = [g["lr"] for g in optimizer.param_groups], schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    for _ in range(60):
        plateau.step(1.0)
    last = [g["lr"] / rate for g, rate in zip(optimizer.param_groups, rates, strict=True)]
    assert max(last) / min(last) > 1.5, "torch's own scheduler does so"


@pytest.mark.parametrize("steps", [-1, 0, 1.5, "3"])
def test_steps_that_are_none_are_refused(steps):
    with pytest.raises(PlanError, match="got steps = .*expected a whole number"):
        lzr.flattens(torch.optim.SGD([torch.zeros(1)], lr=0.1), lambda o: schedulers.ExponentialLR(o, 0.9), steps)


def test_what_is_no_optimizer_or_no_schedule_is_refused():
    with pytest.raises(PlanError, match="got NoneType and function, expected a torch optimizer"):
        lzr.flattens(None, lambda o: o)
    with pytest.raises(PlanError, match="got SGD and str"):
        lzr.flattens(torch.optim.SGD([torch.zeros(1)], lr=0.1), "cosine")


@pytest.mark.parametrize(("lr", "left"), [(2e-7, False), (0.9e-7, True)])
def test_a_rate_is_exhausted_where_torch_leaves_it_be(lr, left):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    plateau = schedulers.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, eps=1e-7)
    assert _exhausted(plateau, optimizer) is left
    for _ in range(3):
        plateau.step(1.0)
    assert (optimizer.param_groups[0]["lr"] == lr) is left
