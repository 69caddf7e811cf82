"""Few terms: a first layer's sums over few inputs, and any layer's biases, follow the law of their entries, Gaussian or not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazyrich.family.law import UNIFORM
from lazyrich.lazy.field import Curve

if TYPE_CHECKING:
    from lazyrich.lazy.rule.table import Call
    from lazyrich.lazy.weights import Drawn

OFF = 0.05  # of the kernel, above which users are told
FOURTH = 0.05  # excess kurtosis of a sum, below which it is taken for Gaussian unseen
MANY = 64  # inputs that are drawn for so many or more
DRAWS = 2**15


def tell(call: Call, curve: Curve) -> None:
    """Warn where a nonlinearity sees that the sums below it are no Gaussians: of few inputs, or with biases that are not normal."""
    run, base = call.run, curve.base
    weights = [source.name for source in base.sources if "matrix" in run.ways.get(source.name, "")]
    if len(weights) != 1 or not run.alone:
        return
    drawn, fan_in = run.used[weights[0]][0], max(1, round(run.used[weights[0]][1]))
    excess = drawn.excess if abs(drawn.excess) >= FOURTH * fan_in else 0.0
    names = [source.name for source in base.sources if source.name not in weights]
    added = {name: run.used[name][0] for name in names if name in run.used}  # a rule of a user's own may draw what it likes
    variances = base.own_diagonal().detach().double().flatten().cpu()
    sizes = float(variances.median()), float(variances.max())
    bias = sum(one.variance for one in added.values())
    kurtosis = 0.0 if base.origin is None else _joint(added.values(), sizes[0])  # behind a norm its share is not known
    if not excess and not kurtosis:
        return
    inputs = fan_in if excess else min(fan_in, 8)
    off = max(effect(curve, excess, inputs, q, bias, kurtosis) for q in sizes)
    if off > OFF:
        warnings.warn(_said(call, (weights[0], fan_in) if excess else None, sorted(added), off), stacklevel=2)


def _joint(added: Iterable[Drawn], whole: float) -> float:
    """The kurtosis beyond a normal law's of the sum of independent terms; zero where the sum of all hardly has any of it."""
    terms = list(added)
    bias, fourth = sum(one.variance for one in terms), sum(one.excess * one.variance**2 for one in terms)
    return fourth / bias**2 if bias and abs(fourth) >= FOURTH * whole**2 else 0.0


def _said(call: Call, weight: tuple[str, int] | None, biases: list[str], off: float) -> str:
    if weight:
        why, more = (
            f"'{weight[0]}', which sums {weight[1]} input(s) with entries that are not normal, so the sums",
            "more inputs",
        )
    else:
        why, more = f"'{', '.join(biases)}', whose entries are not normal, so the sums that they are added to", "smaller ones"
    return (
        f"got {why} are not either: behind {call.node.op} at {call.node.place} the kernel is off by about {off:.0%} at every "
        f"width; expected normal entries, or {more}. Draw them with torch.nn.init.normal_, or ask for the kernel of normal entries "
        "by init=lzr.init.variance(w, b)"
    )


def effect(curve: Curve, excess: float, fan_in: int, variance: float, bias: float = 0.0, of_bias: float = 0.0) -> float:
    """How far E[phi(u) phi(v)] is from that of Gaussians, relative, for a few inputs drawn as normal.

    Args:
        curve: phi.
        excess: kurtosis of the entries beyond a Gaussian's.
        fan_in: how many of them are summed.
        variance: of u, on average.
        bias: its part that a bias has.
        of_bias: the bias's own kurtosis beyond a Gaussian's.

    Example:
        >>> from lazyrich.lazy.field import Field
        >>> from lazyrich.lazy.layout import Layout
        >>> field = Field(Layout(()), (), torch.ones(1, 1), None, False, frozenset())
        >>> waves, ramp = (Curve(field, "", f) for f in (torch.sin, torch.relu))
        >>> effect(waves, UNIFORM, 1, 30.0) > 0.1, effect(ramp, UNIFORM, 1, 30.0) < 0.05, effect(waves, UNIFORM, 64, 30.0) < 0.05
        (True, True, True)
    """
    excess, fan_in = excess * min(1.0, MANY / fan_in), min(fan_in, MANY)  # the sum has the same kurtosis, excess / fan_in
    x = torch.randn(8, fan_in, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x * math.sqrt(max(variance - bias, 0.0) / fan_in)

    def gram(kurtosis: float, other: float) -> Tensor:
        w = _entries(kurtosis, fan_in + 1)
        b = w[:, :1] if other == kurtosis else _entries(other, fan_in + 1)[:, :1]
        phi = curve.curve(w[:, 1:] @ x.T + math.sqrt(bias) * b)
        return phi.T @ phi / DRAWS

    with torch.no_grad():
        found, normal = gram(excess, of_bias), gram(0.0, 0.0)
    distance = float((found - normal).norm() / normal.norm())
    return distance if math.isfinite(distance) else 0.0  # all zero, or a kernel that is refused elsewhere


def _entries(excess: float, many: int) -> Tensor:
    """Draws of variance one with an excess kurtosis: of normal, uniform, two-valued or sparse normal entries, mixed."""
    generator = torch.Generator().manual_seed(0)
    normal, flat = (f(DRAWS, many, generator=generator, dtype=torch.float64) for f in (torch.randn, torch.rand))
    chosen = torch.rand(DRAWS, many, generator=generator, dtype=torch.float64)
    if excess > 0:
        kept = 3 / (3 + excess)
        return torch.where(chosen < kept, normal / math.sqrt(kept), 0.0)
    uniform = (2 * flat - 1) * math.sqrt(3)
    if excess >= UNIFORM:
        return torch.where(chosen < excess / UNIFORM, uniform, normal)
    return torch.where(chosen < (excess - UNIFORM) / (-2 - UNIFORM), uniform.sign(), uniform)
