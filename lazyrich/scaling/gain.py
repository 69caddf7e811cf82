"""The rule of the gains of a weight norm, W = g v/|v|: they carry the size of the weight, the directions v its movement.

A plan draws v as the plain weight and sets g to |v|, so at the start W is v, and v follows the plain weight's rates. A step of g
moves the layer's output by the share that it moves g by, times the output itself. That output goes as n^g at the start (g being as
large as the weight's standard deviation times the root of its fan-in) and as n^-r once the layer has learned; the step shall not
move it by more than the scheme lets the layer move, n^-r. So an entrywise rate goes as n^min(g, -r); a gradient step, whose size
is the plain weight's divided by the fan-in and by the square of g, as the plain weight's rate times fan_in n^(2 min(0, g + r)).
"""

from __future__ import annotations

from dataclasses import replace

from lazyrich.family import Role
from lazyrich.scaling.optimizer import is_entrywise
from lazyrich.scaling.power import Power
from lazyrich.scaling.rule import Rule
from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.tensor import TensorPlan


def gain_rule(direction: TensorPlan, scheme: Scheme, optimizer: str, read: bool) -> Rule:
    """The rule of the gains of a weight norm, from that of the directions that they multiply; ``read`` out with or not."""
    rule, role = direction.rule, direction.role
    if scheme.global_rate or role is Role.FIXED:
        return replace(rule, std=None)
    std, eps = (None if power is None else _by_width(power) for power in (rule.std, rule.eps))
    lr = _rate(role, scheme, optimizer, read)
    return Rule(std, lr, eps or Power())


def gained(tensors: dict[str, TensorPlan]) -> dict[str, TensorPlan]:
    """The tensors, with the initial size of every gain as that of its directions says, whatever rule draws them."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.norm_of:
            v = tensors[tensor.norm_of]
            ratio = v.plain_std(v.shape, 1.0) / v.std if v.std else 1.0
            std = None if v.rule.std is None else _by_width(v.rule.std)
            found[name] = replace(tensor, std=tensor.std * ratio, own=v.own, rule=replace(tensor.rule, std=std))
    return found


def _rate(role: Role, scheme: Scheme, optimizer: str, read: bool) -> Power:
    entrywise = is_entrywise(optimizer)
    layers, moves = scheme.layers(entrywise), scheme.classify(optimizer).layer_r
    at = {Role.HIDDEN: 1, Role.OUTPUT: 2}.get(role, 0)
    row, summed = list(layers)[at], float(at > 0)
    size, moved = summed / 2 - float(row.init), -float(moves[at])
    gamma = 1.0 if read else scheme.gamma  # a readout's rate is that of the undivided one, times gamma^2, over gamma^2
    if entrywise:
        power = min(size, moved) - (summed / 2 if optimizer == "adafactor" else 0.0)  # its own step is as large as the entries
        return _along(role, gamma, power)
    return _along(role, gamma**2, summed - float(row.rate(False)) + 2 * min(0.0, size - moved))


def _along(role: Role, constant: float, power: float) -> Power:
    """A power of the layer's outputs, or of the width where these do not grow."""
    return Power(constant, width=power) if role is Role.OUTPUT else Power(constant, fan_out=power)


def _by_width(power: Power) -> Power:
    """A power of the fan-in, which gains have none of, as one of the width."""
    return Power(power.constant, 0.0, power.fan_out, power.width + power.fan_in)
