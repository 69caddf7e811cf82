"""Few inputs: a first layer's sums over them follow the law of its entries, which is Gaussian only where these are normal."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazyrich.family.law import UNIFORM
from lazyrich.lazy.field import Curve

if TYPE_CHECKING:
    from lazyrich.lazy.rule.table import Call

OFF = 0.05  # of the kernel, above which users are told
FOURTH = 0.05  # excess kurtosis of a sum, below which it is taken for Gaussian unseen
MANY = 64  # inputs, above which only heavy tails would tell
DRAWS = 2**15


def tell(call: Call, curve: Curve) -> None:
    """Warn where a nonlinearity of the first layer sees that its sums are no Gaussians."""
    run, base = call.run, curve.base
    weights = [source.name for source in base.sources if "matrix" in run.ways.get(source.name, "")]
    if len(weights) != 1 or not run.alone:
        return
    drawn, fan_in = run.used[weights[0]][0], max(1, round(run.used[weights[0]][1]))
    if fan_in > MANY or abs(drawn.excess) < FOURTH * fan_in:
        return
    bias = sum(run.used[source.name][0].variance for source in base.sources if source.name not in weights)
    variances = base.own_diagonal().detach().double().flatten().cpu()
    off = max(effect(curve, drawn.excess, fan_in, q, bias) for q in (float(variances.median()), float(variances.max())))
    if off > OFF:
        warnings.warn(
            f"got '{weights[0]}', which sums {fan_in} input(s) with entries that are not normal, so the sums are not either: "
            f"behind {call.node.op} at {call.node.place} the kernel is off by about {off:.0%} at every width; expected normal "
            "entries, or more inputs. Draw it with torch.nn.init.normal_, or ask for the kernel of normal entries by "
            "init=lzr.init.variance(w, b)",
            stacklevel=2,
        )


def effect(curve: Curve, excess: float, fan_in: int, variance: float, bias: float = 0.0) -> float:
    """How far E[phi(u) phi(v)] is from that of Gaussians, relative, for a few inputs drawn as normal.

    Args:
        curve: phi.
        excess: kurtosis of the entries beyond a Gaussian's.
        fan_in: how many of them are summed.
        variance: of u, on average.
        bias: its part that a bias has, of the same law.

    Example:
        >>> from lazyrich.lazy.field import Field
        >>> from lazyrich.lazy.layout import Layout
        >>> field = Field(Layout(()), (), torch.ones(1, 1), None, False, frozenset())
        >>> waves, ramp = (Curve(field, "", f) for f in (torch.sin, torch.relu))
        >>> effect(waves, UNIFORM, 1, 30.0) > 0.1, effect(ramp, UNIFORM, 1, 30.0) < 0.05, effect(waves, UNIFORM, 64, 30.0) < 0.05
        (True, True, True)
    """
    x = torch.randn(8, fan_in, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x * math.sqrt(max(variance - bias, 0.0) / fan_in)

    def gram(kurtosis: float) -> Tensor:
        w = _entries(kurtosis, fan_in + 1)
        phi = curve.curve(w[:, 1:] @ x.T + math.sqrt(bias) * w[:, :1])
        return phi.T @ phi / DRAWS

    with torch.no_grad():
        found, normal = gram(excess), gram(0.0)
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
