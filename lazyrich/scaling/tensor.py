"""What a plan says of one tensor, and how it is applied to it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from lazyrich.errors import PlanError
from lazyrich.family import Role
from lazyrich.family.family import growth as grown_by
from lazyrich.scaling.native import native_step
from lazyrich.scaling.power import Growth
from lazyrich.scaling.rule import Rule
from lazyrich.scaling.table.spectral import init_std

DECAY_POLICIES = ("constant_rate", "unscaled")
GAUGES = ("plain", "multipliers")


@dataclass(frozen=True)
class TensorPlan:
    """What the plan says of one tensor: its shape and law at the base width, and how each number scales from there.

    ``grows`` are the axes that grow with the width. ``own`` is the exponent with which the factory's own standard deviation
    falls with the width, None where it is no power.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    contracted: tuple[int, ...]
    produced: tuple[int, ...]
    grows: tuple[int, ...]
    mean: float
    std: float
    own: float | None
    rule: Rule
    decay: float = 1.0


@dataclass(frozen=True)
class Setting:
    """The numbers of one tensor in one model: initial std, factors on learning rate, decay and epsilon, multiplier.

    ``step`` is the factor on the entrywise step that the learning rate makes the optimizer take, ``shrink`` the one on the
    initial standard deviation (of a constant tensor: on what it would have been).
    """

    std: float
    lr: float
    weight_decay: float
    eps: float
    multiplier: float
    growth: Growth
    step: float = 1.0
    shrink: float = 1.0


def setting_of(tensor: TensorPlan, shape: tuple[int, ...], width: float, decay_policy: str, optimizer: str) -> Setting:
    """The numbers of a tensor of a given shape in a network grown by ``width``."""
    growth = Growth(grown_by(shape, tensor.shape, tensor.contracted), grown_by(shape, tensor.shape, tensor.produced), width)
    rule = tensor.rule
    own = tensor.std * width ** -(tensor.own or 0.0)
    std = own if rule.std is None else tensor.std * rule.std(growth)
    if rule.taper:
        std *= _taper(shape, tensor) / _taper(tensor.shape, tensor)
    shrink = std / tensor.std if tensor.std else (rule.std(growth) if rule.std else 1.0)
    native = native_step(optimizer, tensor.role, shape, tensor.shape, shrink)
    lr = rule.lr(growth) / (1.0 if rule.std is None else native)  # the plain network's one rate is left to the optimizer
    decay = tensor.decay * (1 / lr if decay_policy == "constant_rate" else 1.0)
    return Setting(std, lr, decay, rule.eps(growth), rule.multiplier(growth), growth, lr * native, shrink)


def _taper(shape: tuple[int, ...], tensor: TensorPlan) -> float:
    fan_in = math.prod(shape[i] for i in tensor.contracted)
    fan_out = math.prod(shape[i] for i in tensor.produced)
    return init_std(fan_out, fan_in) * math.sqrt(fan_in)


@torch.no_grad()
def rescale_(entries: Iterable[tuple[nn.Parameter, TensorPlan, Setting]], fresh: bool = False) -> None:
    """Bring a fresh model's draws to their planned standard deviations; a model that is already there stays as it is.

    What this process has planned is remembered tensor by tensor. Of other models all tensors are asked together: a bias of
    ten entries cannot tell by itself whether it is fresh. Nothing is touched unless everything fits.

    Args:
        entries: each parameter with its plan and its numbers.
        fresh: the model is known to be freshly built.
    """
    draws = [draw for entry in entries if (draw := _draw(*entry)) and _PLANNED.get(draw.parameter) != draw.mark]
    planned_already = not fresh and sum(draw.evidence for draw in draws) > ENOUGH
    for draw in draws:
        _check_law(draw, planned_already)
    for draw in draws:
        if not planned_already and draw.own != draw.setting.std:
            mean = draw.tensor.mean
            draw.parameter.sub_(mean).mul_(draw.setting.std / draw.own).add_(mean)
        _PLANNED[draw.parameter] = (_std(draw.parameter), draw.setting.std)


ENOUGH = 4.0  # log-likelihood ratio for "already planned": a fresh model reaches it with probability below exp(-4)
_PLANNED: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # parameter -> its own and its planned std after planning


@dataclass(frozen=True)
class _Draw:
    """A parameter's standard deviation as found, and the one that a fresh build of its size has."""

    parameter: nn.Parameter
    tensor: TensorPlan
    setting: Setting
    found: float
    own: float

    @property
    def mark(self) -> tuple[float, float]:
        return self.found, self.setting.std

    @property
    def evidence(self) -> float:
        """How much likelier the planned std is than the fresh one (log-likelihood ratio of two normal laws, near them)."""
        if self.tensor.own is None:
            return 0.0
        return self.parameter.numel() * (math.log(self.found / self.own) ** 2 - math.log(self.found / self.setting.std) ** 2)


def _draw(parameter: nn.Parameter, tensor: TensorPlan, setting: Setting) -> _Draw | None:
    if tensor.rule.std is None or tensor.std == 0 or parameter.is_meta:
        return None
    found = _std(parameter)
    if found == 0:
        return None
    if setting.growth.is_base and setting.std == tensor.std:
        own = setting.std  # the base network is left exactly as it is, also where its law is only measured
    else:
        own = found if tensor.own is None else tensor.std * setting.growth.width**-tensor.own
    return _Draw(parameter, tensor, setting, found, own)


def _std(parameter: nn.Parameter) -> float:
    return float(parameter.detach().double().std(correction=0))


def check_shape(tensor: TensorPlan, shape: tuple[int, ...]) -> None:
    """Refuse a shape that differs from the base shape elsewhere than on its width axes."""
    fits = len(shape) == len(tensor.shape) and all(
        got == base or i in tensor.grows for i, (got, base) in enumerate(zip(shape, tensor.shape, strict=False))
    )
    if not fits:
        raise PlanError(
            f"tensor '{tensor.name}' has shape {shape}, but {tensor.shape} at the base width and only its width axes may grow"
        )


def _check_law(draw: _Draw, planned_already: bool) -> None:
    """A fresh draw's standard deviation lies within six standard errors of the law it came from."""
    if draw.tensor.own is None:
        return
    law = draw.setting.std if planned_already else draw.own
    entries = min(draw.parameter.numel(), math.prod(draw.tensor.shape))  # the law itself may be measured at the base
    if abs(draw.found / law - 1) > 6 * math.sqrt(0.5 / entries) + 0.02:
        raise PlanError(
            f"tensor '{draw.tensor.name}' has standard deviation {draw.found:.4g}; a fresh one has {draw.own:.4g} and a "
            f"planned one {draw.setting.std:.4g}. A plan is applied to a freshly built model, before training or loading "
            "weights"
        )
