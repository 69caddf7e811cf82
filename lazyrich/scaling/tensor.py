"""What a plan says of one tensor, and how it is applied to it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from lazyrich.errors import PlanError
from lazyrich.family import Axes, Role
from lazyrich.family.family import growth as grown_by
from lazyrich.family.law import without_padding
from lazyrich.init import Initialiser, Sides, formed
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
    falls with the width, None where it is no power. ``start`` is the rule that replaces the factory's law, if there is one. Of the
    gains of a weight norm ``norm_of`` names the directions whose norms they start as. ``taps``, ``each``, ``gap``,
    ``block`` and ``spread`` are those of ``Axes``.
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
    start: Initialiser | None = None
    norm_of: str = ""
    taps: tuple[int, ...] = ()
    each: int = 0
    gap: int = 1
    block: int = 1
    spread: int = 1

    @property
    def axes(self) -> Axes:
        """What its axes do."""
        window = {"each": self.each, "gap": self.gap, "block": self.block, "spread": self.spread}
        return Axes(self.produced, self.contracted, taps=self.taps, **window)

    @property
    def lawless(self) -> bool:
        """Whether the factory's own standard deviation is no known power of the width."""
        return self.own is None and self.std != 0 and not self.norm_of

    @property
    def keeps(self) -> bool:
        """Whether the plan leaves the factory's own standard deviation."""
        return self.rule.std is None and self.asked_std(self.shape) is None

    def plain_std(self, shape: tuple[int, ...], width: float) -> float:
        """Standard deviation of the plain network at a shape: by the rule that was given, else the factory's."""
        if (asked := self.asked_std(shape)) is not None:
            return asked
        return self.std * width ** -(self.own or 0.0)

    def asked_std(self, shape: tuple[int, ...]) -> float | None:
        """What the rule that was given says of a shape; None where it says nothing."""
        if self.start is None:
            return None
        return self.start.weight_std(*self.axes.fans(shape)) if self.axes.summed else self.start.bias_std


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
    anchor = tensor.plain_std(tensor.shape, 1.0)
    std = tensor.plain_std(shape, width) if rule.std is None else anchor * rule.std(growth)
    if rule.taper:
        std *= _taper(shape, tensor) / _taper(tensor.shape, tensor)
    shrink = std / anchor if anchor else (rule.std(growth) if rule.std else 1.0)
    native = native_step(optimizer, tensor.role, shape, tensor.shape, shrink)
    lr = rule.lr(growth) / (1.0 if rule.std is None else native)  # the plain network's one rate is left to the optimizer
    decay = tensor.decay * (1 / lr if lr and decay_policy == "constant_rate" else 1.0)  # at a rate of 0 nothing decays
    return Setting(std, lr, decay, rule.eps(growth), rule.multiplier(growth), growth, lr * native, shrink)


def _taper(shape: tuple[int, ...], tensor: TensorPlan) -> float:
    fan_in, fan_out = tensor.axes.fans(shape)
    return init_std(fan_out, fan_in) * math.sqrt(fan_in)


@torch.no_grad()
def rescale_(entries: Iterable[tuple[nn.Parameter, TensorPlan, Setting]], fresh: bool = False) -> None:
    """Bring a fresh model's draws to their planned standard deviations and forms; a model that is already there stays as it is.

    What this process has planned is remembered tensor by tensor. Of other models all tensors are asked together: a bias of
    ten entries cannot tell by itself whether it is fresh. Nothing is touched unless everything fits.

    Args:
        entries: each parameter with its plan and its numbers.
        fresh: the model is known to be freshly built.
    """
    entries = list(entries)
    draws = [draw for entry in entries if (draw := _draw(*entry)) and _PLANNED.get(draw.parameter) != draw.mark]
    planned_already = not fresh and sum(draw.evidence for draw in draws) > ENOUGH
    for draw in draws:
        _check_law(draw, planned_already)
    if not planned_already:
        if not fresh:
            _check_constants(entries, draws)
        known = {tensor.name: (parameter, tensor) for parameter, tensor, _ in entries}
        drawn = {draw.tensor.name for draw in draws}
        gains = [(p, known[tensor.norm_of]) for p, tensor, _ in entries if tensor.norm_of in drawn]
        for gain, (v, tensor) in gains:
            _check_gain(gain, _norms(v, gain), tensor.name)
        for draw in draws:
            _resize_(draw)
        _form_(draws, known)
        for gain, (v, _) in gains:
            gain.copy_(_norms(v, gain))
    for draw in draws:
        _PLANNED[draw.parameter] = (_found(draw.parameter, draw.tensor), draw.setting.std)


def _norms(v: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """The norms that a weight norm takes: over all axes along which there is one gain."""
    return v.square().sum([i for i, (n, m) in enumerate(zip(v.shape, gain.shape, strict=True)) if n != m], keepdim=True).sqrt()


def _check_gain(gain: torch.Tensor, norms: torch.Tensor, name: str) -> None:
    if not torch.allclose(gain, norms.to(gain.dtype), rtol=1e-2):
        raise PlanError(
            f"the gains of the weight norm of '{name}' are not its norms, as those of a fresh model are. A plan is applied to a "
            "freshly built model, before training or loading weights"
        )


def _resize_(draw: _Draw) -> None:
    if draw.found == 0:  # constant in the factory: there is nothing to rescale
        draw.parameter.normal_(draw.tensor.mean, draw.setting.std)
    elif draw.own != draw.setting.std:
        mean = draw.tensor.mean
        draw.parameter.sub_(mean).mul_(draw.setting.std / draw.own).add_(mean)


def _form_(draws: list[_Draw], known: dict[str, tuple[nn.Parameter, TensorPlan]]) -> None:
    """Give weights their forms, those that are coupled to another last."""
    asked = [(d, form) for d in draws if d.tensor.axes.summed and d.tensor.start and (form := d.tensor.start.form)]
    for draw, form in sorted(asked, key=lambda pair: bool(pair[1].of)):
        parameter, std = draw.parameter, draw.setting.std
        if std == 0:
            continue
        if hasattr(parameter, "placements"):
            raise PlanError(f"'{draw.tensor.name}' is sharded and its form, {form.name}, wants it whole; plan before sharding")
        other = known[form.of] if form.of else None
        mirror = (other[0], _sides(other[1])) if other else (None, None)
        made = std * formed(form, parameter, _sides(draw.tensor), *mirror)
        if not torch.allclose(made, parameter, rtol=1e-5, atol=1e-5 * std):  # what has the form is left bit by bit
            parameter.copy_(made)


def _sides(tensor: TensorPlan) -> Sides:
    if tensor.taps:
        return Sides(tuple(i for i in range(len(tensor.shape)) if i not in tensor.taps), tensor.taps)
    return Sides(tensor.produced, tensor.contracted)


ENOUGH = 4.0  # log-likelihood ratio for "already planned": a fresh model reaches it with probability below exp(-4)
ROUNDING = 1e-6  # of a constant, in a standard deviation
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
        if self.tensor.own is None or self.found == 0:
            return 0.0
        if self.setting.std == 0:
            return -math.inf
        if self.parameter.numel() == 1:  # which has no deviation of its own: the ratio of the two laws at the entry itself
            return (
                0.5 * (self.found / self.own) ** 2
                - 0.5 * (self.found / self.setting.std) ** 2
                + math.log(self.own / self.setting.std)
            )
        return self.parameter.numel() * (math.log(self.found / self.own) ** 2 - math.log(self.found / self.setting.std) ** 2)


def _draw(parameter: nn.Parameter, tensor: TensorPlan, setting: Setting) -> _Draw | None:
    if (tensor.rule.std is None and tensor.start is None) or parameter.is_meta or tensor.norm_of:
        return None
    found = _found(parameter, tensor)
    if tensor.std == 0 and found == 0 and setting.std > 0:
        return _Draw(parameter, tensor, setting, 0.0, 0.0)
    if tensor.std == 0 or found == 0:
        return None
    if setting.growth.is_base and setting.std == tensor.std:
        own = setting.std  # the base network is left exactly as it is, also where its law is only measured
    else:
        own = found if tensor.own is None else tensor.std * setting.growth.width**-tensor.own
    return _Draw(parameter, tensor, setting, found, own)


def _found(parameter: nn.Parameter, tensor: TensorPlan) -> float:
    """The standard deviation of the entries; one entry of a known law has none, and only its distance from the mean tells."""
    if parameter.numel() == 1 and tensor.std != 0 and tensor.own is not None:
        return abs(float(parameter.detach()) - tensor.mean)
    return _std(parameter)


def _std(parameter: nn.Parameter) -> float:
    return float(without_padding(parameter).double().std(correction=0))


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
    if draw.tensor.own is None or draw.found == 0:
        return
    law = draw.setting.std if planned_already else draw.own
    entries = min(draw.parameter.numel(), math.prod(draw.tensor.shape))  # the law itself may be measured at the base
    if law == 0 or abs(draw.found / law - 1) > 6 * math.sqrt(0.5 / entries) + 0.02:
        raise PlanError(
            f"tensor '{draw.tensor.name}' has standard deviation {draw.found:.4g}; a fresh one has {draw.own:.4g} and a "
            f"planned one {draw.setting.std:.4g}. A plan is applied to a freshly built model, before training or loading "
            "weights"
        )


def _check_constants(entries: Iterable[tuple[nn.Parameter, TensorPlan, Setting]], draws: list[_Draw]) -> None:
    """Gains and biases that the factory leaves constant differ long before training shows in the deviations of weights.

    They need not be what they were at the base, where a factory may take them from its width; only they are all equal.
    """
    if all(draw.found and draw.own == draw.setting.std for draw in draws):
        return  # nothing is resized
    for parameter, tensor, setting in entries:
        told = tensor.std == 0 and math.prod(tensor.shape) > 1 and not tensor.norm_of and not parameter.is_meta
        found = _std(parameter) if told else 0.0
        if found > ROUNDING * abs(tensor.mean) and _PLANNED.get(parameter) != (found, setting.std):
            raise PlanError(
                f"tensor '{tensor.name}' has entries that differ (standard deviation {found:.2g}); a fresh one is constant, at the "
                f"base width {tensor.mean:g}. A plan is applied to a freshly built model, before training or loading weights; "
                "values of your own belong into the factory, or are set after apply_"
            )
