"""An activation with its first two derivatives, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lazyrich.errors import RichError
from lazyrich.gaussian.activation import FUNCTIONS, SAME

Function = Callable[[Tensor], Tensor]
SPAN, NODES = 8.0, 16001
JUMP = 1e-3

NAMED: dict[str, Function] = {"identity": lambda x: x, **{name: function for function, name in reversed(FUNCTIONS.items())}}
NAMED |= {other: NAMED[name] for other, name in SAME.items() if name in NAMED}


@dataclass(frozen=True)
class Curve:
    """A function of one number.

    Attributes:
        name: for people.
        phi: the function, entry by entry.

    Example:
        >>> curve = curve_of("tanh")
        >>> value, slope, bend = curve.jet(torch.tensor([0.0], dtype=torch.float64))
        >>> float(value), float(slope), curve.smooth, curve_of("relu").smooth
        (0.0, 1.0, True, False)
    """

    name: str
    phi: Function

    def jet(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Phi(x), phi'(x), phi''(x)."""
        if self.phi is torch.tanh:
            y = torch.tanh(x)
            slope = 1 - y * y
            return y, slope, -2 * y * slope
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            y = self.phi(leaf)
            (slope,) = torch.autograd.grad(y.sum(), leaf, create_graph=True)
            bend = torch.zeros_like(x)
            if slope.requires_grad:
                found = _derivative(slope, leaf)
                bend = bend if found is None else found
        return y.detach(), slope.detach(), bend

    @cached_property
    def smooth(self) -> bool:
        """Whether phi and phi' are what their derivatives say: phi' of a rectifier jumps, and autograd does not see it."""
        x = torch.linspace(-SPAN, SPAN, NODES, dtype=torch.float64) + 1e-5
        value, slope, bend = self.jet(x)
        step = 2 * SPAN / (NODES - 1)
        gaps = [top.diff() - step * (low[1:] + low[:-1]) / 2 for top, low in ((value, slope), (slope, bend))]
        return bool(max(gap.abs().sum() for gap in gaps) < JUMP)


def _derivative(slope: Tensor, leaf: Tensor) -> Tensor | None:
    """Phi''; None where there is none, also where torch has none of its own (hardsigmoid), which is then seen to be missing."""
    try:
        return torch.autograd.grad(slope.sum(), leaf, allow_unused=True)[0]
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        return None


def curve_of(activation: str | Function) -> Curve:
    """The curve of a name or of a function.

    Raises:
        RichError: for a name that is not known, or a function that does not act entry by entry in float64.
    """
    if isinstance(activation, str):
        if activation not in NAMED:
            raise RichError(f"got activation '{activation}', expected one of {', '.join(sorted(NAMED))}, or a function")
        return Curve(activation, NAMED[activation])
    if not callable(activation):
        raise RichError(f"got {activation!r} as an activation, expected a name or a function tensor -> tensor")
    curve = Curve(getattr(activation, "__name__", type(activation).__name__), activation)
    x = torch.linspace(-2.9, 3.1, 12, dtype=torch.float64).reshape(3, 4)
    try:
        y, part = curve.phi(x), curve.phi(x[1:, :2])
    except Exception as error:
        raise RichError(f"activation '{curve.name}' fails on a float64 tensor: {error}") from error
    if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype or not torch.allclose(part, y[1:, :2]):
        raise RichError(f"activation '{curve.name}' does not act entry by entry in float64; only functions of one number do")
    return curve
