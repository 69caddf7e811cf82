"""A factory where a family is wanted, a family where a plan is wanted: the first mistakes that people make."""

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import FamilyError, PlanError

PAIR = (torch.zeros(2, 64), torch.zeros(2, 10))
WANTS_A_PLAN = {
    "check": lzr.check,
    "transfer": lzr.transfer,
    "signals": lzr.signals,
    "tangents": lzr.tangents,
    "limit": lambda plan: lzr.limit(plan, PAIR, 2),
    "predict": lambda plan: lzr.rich.predict(plan, PAIR, 2, lr=0.1),
}
WANTS_A_FAMILY = {"plan": lambda family: lzr.plan(family, lzr.mup()), "dial": lzr.dial}


@pytest.mark.parametrize("name", WANTS_A_PLAN)
def test_what_is_no_plan_is_refused_with_how_to_make_one(name):
    for got in (lzr.Family(lzr.zoo.mlp, base=8), lzr.zoo.mlp, "mup"):
        with pytest.raises(PlanError, match=f"got {type(got).__name__}, expected a plan: lazyrich.plan"):
            WANTS_A_PLAN[name](got)


@pytest.mark.parametrize("name", WANTS_A_FAMILY)
def test_what_is_no_family_is_refused_with_how_to_make_one(name):
    for got in (lzr.zoo.mlp, lzr.zoo.mlp(8), "lazyrich.zoo:mlp"):
        with pytest.raises(FamilyError, match=f"got {type(got).__name__}, expected a family: lazyrich.Family"):
            WANTS_A_FAMILY[name](got)


def test_a_limit_takes_a_family_or_a_plan():
    with pytest.raises(PlanError, match="got function, expected a plan"):
        lzr.dmft(lzr.zoo.mlp, PAIR, steps=2, lr=0.1)


def test_a_scheme_by_name_and_a_network_for_a_factory_are_refused():
    with pytest.raises(PlanError, match=r"got scheme 'mup', expected one such as lazyrich.mup\(\)"):
        lzr.plan(lzr.Family(lzr.zoo.mlp, base=8), "mup")
    with pytest.raises(FamilyError, match="got Sequential, expected a function that makes the network for a width"):
        lzr.Family(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), base=8)
