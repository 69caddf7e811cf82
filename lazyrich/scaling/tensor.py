"""What a plan says of one tensor, and how it is applied to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from lazyrich.errors import PlanError
from lazyrich.family import Role
from lazyrich.family.family import growth as grown_by
from lazyrich.scaling.power import Growth
from lazyrich.scaling.rule import Rule
from lazyrich.scaling.table.spectral import init_std


@dataclass(frozen=True)
class TensorPlan:
    """What the plan says of one tensor: its shape and law at the base width, and how each number scales from there.

    ``own`` is the exponent with which the factory's own standard deviation falls with the width, None where it is no power.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    contracted: tuple[int, ...]
    produced: tuple[int, ...]
    mean: float
    std: float
    own: float | None
    rule: Rule
    decay: float = 1.0


@dataclass(frozen=True)
class Setting:
    """The numbers of one tensor in one model: initial std, factors on learning rate, decay and epsilon, multiplier."""

    std: float
    lr: float
    weight_decay: float
    eps: float
    multiplier: float
    growth: Growth


def setting_of(tensor: TensorPlan, shape: tuple[int, ...], width: float, decay_policy: str) -> Setting:
    """The numbers of a tensor of a given shape in a network grown by ``width``."""
    growth = Growth(grown_by(shape, tensor.shape, tensor.contracted), grown_by(shape, tensor.shape, tensor.produced), width)
    rule = tensor.rule
    lr = rule.lr(growth)
    decay = tensor.decay * (1 / lr if decay_policy == "constant_rate" else 1.0)
    own = tensor.std * width ** -(tensor.own or 0.0)
    std = own if rule.std is None else tensor.std * rule.std(growth)
    if rule.taper:
        std *= _taper(shape, tensor) / _taper(tensor.shape, tensor)
    return Setting(std, lr, decay, rule.eps(growth), rule.multiplier(growth), growth)


def _taper(shape: tuple[int, ...], tensor: TensorPlan) -> float:
    fan_in = math.prod(shape[i] for i in tensor.contracted)
    fan_out = math.prod(shape[i] for i in tensor.produced)
    return init_std(fan_out, fan_in) * math.sqrt(fan_in)


@torch.no_grad()
def rescale_(parameter: nn.Parameter, tensor: TensorPlan, setting: Setting) -> None:
    """Bring a fresh draw to the planned standard deviation; a tensor that is already there stays as it is."""
    if tensor.rule.std is None or tensor.std == 0 or parameter.is_meta:
        return
    drawn = float(parameter.double().std(correction=0))
    own = drawn if tensor.own is None else tensor.std * setting.growth.width**-tensor.own
    if drawn == 0 or own == setting.std:
        return
    planned_already = abs(math.log(drawn / setting.std)) < abs(math.log(drawn / own))
    if tensor.own is not None:
        _check_law(tensor, parameter.numel(), drawn, own, setting.std, planned_already)
    if not planned_already:
        parameter.sub_(tensor.mean).mul_(setting.std / own).add_(tensor.mean)


def check_shape(tensor: TensorPlan, shape: tuple[int, ...]) -> None:
    """Refuse a shape that differs from the base shape elsewhere than on its width axes."""
    fits = len(shape) == len(tensor.shape) and all(
        got == base or i in tensor.contracted + tensor.produced
        for i, (got, base) in enumerate(zip(shape, tensor.shape, strict=False))
    )
    if not fits:
        raise PlanError(
            f"tensor '{tensor.name}' has shape {shape}, but {tensor.shape} at the base width and only its width axes may grow"
        )


def _check_law(tensor: TensorPlan, entries: int, drawn: float, own: float, planned: float, planned_already: bool) -> None:
    """A fresh draw's standard deviation lies within six standard errors of the law it came from."""
    law = planned if planned_already else own
    if abs(drawn / law - 1) > 6 * math.sqrt(0.5 / entries) + 0.02:
        raise PlanError(
            f"tensor '{tensor.name}' has standard deviation {drawn:.4g}; a fresh one has {own:.4g} and a planned one "
            f"{planned:.4g}. A plan is applied to a freshly built model, before training or loading weights"
        )
