"""Jumps of nonlinearities: training moves what they do, and no derivative, so no tangent kernel either, knows of it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from lazyrich.gaussian import Dual
from lazyrich.gaussian.jump import jumps
from lazyrich.gaussian.quadrature import REACH
from lazyrich.lazy.field import Curve

if TYPE_CHECKING:
    from lazyrich.lazy.rule.table import Call


def tell(call: Call, curve: Curve, known: Dual) -> None:
    """Warn, once a nonlinearity, that a tangent kernel is asked for which trained networks do not follow.

    Raises:
        KernelError: where the slope is infinite for equal inputs: of sign and the step function it counts the jump, or at a root.
    """
    told, key = call.run.duals, f"{curve.key}.jump"
    if key in told or call.run.averaged:
        return
    q = call.run.first[curve.key][0].detach().double().max()
    endless = bool(known.derivative_variance(q).isinf())
    if endless and bool(known.slope_variance(q).isfinite()):
        warnings.warn(
            f"got the nonlinearity '{call.node.op}' at {call.node.place}, which jumps: its tangent kernel counts what gradients "
            "see, which is not the jump, and training of wide networks does not follow it; expected a continuous one. The nngp "
            "kernel is right, k.nngp(x)",
            stacklevel=2,
        )
    elif endless and bool(known.variance(q).isfinite()) and jumps(curve.function, REACH * float(q) ** 0.5):
        raise call.refuse(
            "it jumps, or is as steep as a root, so its derivative has no finite second moment and the tangent kernel of an input "
            "with itself is infinite",
            "take a continuous nonlinearity; the nngp kernel alone is known, k.nngp(x)",
        )
    told[key] = known
