"""From a scheme's exponents to the scaling of one tensor, in the multiplier-free gauge or with multipliers.

Only effective exponents enter (a+b for the initialisation, 2a+c or a+c for the learning rate), so every gauge of a scheme
gives the same rule. Where a tensor's two sides grow at different rates, a hidden learning rate n^-rate is read as
fan_in^-1 fan_out^(1-rate): the fan-in undoes the sum that the update is part of, the rest moves the layer's own output.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lazyrich.family import Role
from lazyrich.scaling.exponents import Exponents
from lazyrich.scaling.power import Power
from lazyrich.scaling.scheme import Scheme

PLAIN = Power()


@dataclass(frozen=True)
class Rule:
    """How one tensor's initial std, learning rate, epsilon and forward multiplier scale; std None leaves the factory's."""

    std: Power | None = PLAIN
    lr: Power = PLAIN
    eps: Power = PLAIN
    multiplier: Power = PLAIN
    taper: bool = False


def rule_for(scheme: Scheme, role: Role, entrywise: bool, read: bool | None = None) -> Rule:
    """The multiplier-free rule of a role: Table 3 of Yang et al. 2022 (arXiv:2203.03466) for ``mup``.

    The constant of richness divides what the output is read out with (``read``, by default what has the role of an output) and
    speeds up everything else: the network with its output divided by gamma, its rates times gamma^2 (entrywise: gamma).

    Example:
        >>> from lazyrich.scaling.table import mup
        >>> rule_for(mup(), Role.OUTPUT, entrywise=True).lr
        Power(constant=1.0, fan_in=-1.0, fan_out=0.0, width=0.0)
    """
    layers = scheme.layers(entrywise)
    if scheme.global_rate:
        return Rule(std=None, lr=Power(width=-float(layers.hidden.rate(entrywise))))
    gamma, read = scheme.gamma, role is Role.OUTPUT if read is None else read
    if role is Role.FIXED:
        return _enriched(PLAIN_RULE, gamma, read, entrywise)
    row = {Role.HIDDEN: layers.hidden, Role.OUTPUT: layers.output}.get(role, layers.input)
    std, lr, eps = _side(role, -row.init), _rate(role, row, entrywise), _side(role, row.a - row.d, grad=True)
    taper = scheme.taper and role in (Role.HIDDEN, Role.OUTPUT)
    rule = Rule(Power(fan_in=-0.5) if taper else std, lr, eps if entrywise else PLAIN, taper=taper)
    return _enriched(rule, gamma, read, entrywise)


def _enriched(rule: Rule, gamma: float, read: bool, entrywise: bool) -> Rule:
    """The rule in a network whose output is divided by a number and whose rates make up for it."""
    if gamma == 1:
        return rule
    if read:
        return replace(rule, std=(rule.std or PLAIN) * Power(1 / gamma))
    eps = rule.eps * Power(1 / gamma) if entrywise else rule.eps
    return replace(rule, lr=rule.lr * Power(gamma if entrywise else gamma**2), eps=eps)


def with_multiplier(rule: Rule, scheme: Scheme, role: Role, entrywise: bool) -> Rule:
    """The same training with the scheme's own forward multiplier n^-a: the exact symmetry, tensor by tensor."""
    if scheme.global_rate or role is Role.FIXED or rule.std is None:
        return rule
    layers = scheme.layers(entrywise)
    row = {Role.HIDDEN: layers.hidden, Role.OUTPUT: layers.output}.get(role, layers.input)
    multiplier = _side(role, -row.a)
    undo = multiplier**-1
    if entrywise:
        return Rule(rule.std * undo, rule.lr * undo, rule.eps * multiplier, multiplier, rule.taper)
    return Rule(rule.std * undo, rule.lr * undo * undo, PLAIN, multiplier, rule.taper)


PLAIN_RULE = Rule()


def _side(role: Role, exponent: float, grad: bool = False) -> Power:
    """n^exponent, n being the side of the tensor that the exponent speaks of (a gradient's size is its output's)."""
    exponent = float(exponent)
    if role is Role.OUTPUT or (role is Role.HIDDEN and not grad):
        return Power(fan_in=exponent)
    return Power(fan_out=exponent)


def _rate(role: Role, row: Exponents, entrywise: bool) -> Power:
    rate = float(row.rate(entrywise))
    if role is Role.HIDDEN:
        return Power(fan_in=-1.0, fan_out=1.0 - rate)
    return Power(fan_in=-rate) if role is Role.OUTPUT else Power(fan_out=-rate)
