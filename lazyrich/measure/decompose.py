"""The update of a layer's output, split into what its own weights did and what came from below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp

from lazyrich.errors import RAISED, UsageError
from lazyrich.family.family import seeded
from lazyrich.functional import functional_call
from lazyrich.measure.movement import relative
from lazyrich.measure.watch import first_float, fresh_buffers, moved_inputs
from lazyrich.train.refusal import refusal


@dataclass(frozen=True)
class Decomposition:
    """layer + passthrough + interaction = total, the change of a block's output.

    Example:
        >>> import lazyrich as lzr
        >>> old, new = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> x0, x1 = torch.randn(5, 3), torch.randn(5, 3)
        >>> d = decompose(old, dict(old.named_parameters()), dict(new.named_parameters()), x0, x1)
        >>> torch.allclose(d.layer + d.passthrough + d.interaction, d.total, atol=1e-12)
        True
    """

    layer: Tensor
    passthrough: Tensor
    interaction: Tensor
    total: Tensor

    @property
    def error(self) -> float:
        """||layer + passthrough + interaction - total|| / ||total||; 0 where nothing moved."""
        rest = self.layer + self.passthrough + self.interaction - self.total
        return relative(rest, self.total)

    def through(self, phi: Callable[[Tensor], Tensor], before: Tensor) -> Decomposition:
        """The terms behind a nonlinearity phi that acts entry by entry on the output y, of which ``before`` is the old one.

        Each term is taken times the secant slope (phi(y + dy) - phi(y)) / dy, so that they sum to phi(y + dy) - phi(y) exactly;
        where dy is lost in the rounding of y, times phi'(y).

        Example:
            >>> y, part = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
            >>> d = Decomposition(part, part / 2, -part / 4, part + part / 2 - part / 4).through(torch.tanh, y)
            >>> d.error < 1e-12, torch.allclose(y.tanh() + d.total, (y + 1.25 * part).tanh())
            (True, True)
        """
        y, dy = before.detach(), self.total
        moved = phi(y + dy) - phi(y)
        still = dy.abs() <= y.abs().clamp(min=1) * torch.finfo(y.dtype).eps ** 0.5
        slope = torch.where(still, _derivative(phi, y), moved / dy.masked_fill(still, 1.0))
        return Decomposition(self.layer * slope, self.passthrough * slope, self.interaction * slope, dy * slope)

    def past(self, skip: Tensor) -> Decomposition:
        """The branch of a residual block x + B(x) alone, where ``skip`` is the change of x, which goes past it.

        Example:
            >>> old, new = nn.Linear(3, 3), nn.Linear(3, 3)
            >>> state = lambda layer: {f"0.{name}": p for name, p in layer.named_parameters()}
            >>> class Residual(nn.Sequential):
            ...     def forward(self, x):
            ...         return x + super().forward(x)
            >>> x0, x1 = torch.randn(5, 3).double(), torch.randn(5, 3).double()
            >>> whole = decompose(Residual(old), state(old), state(new), x0, x1)
            >>> branch = decompose(old, dict(old.named_parameters()), dict(new.named_parameters()), x0, x1)
            >>> torch.allclose(whole.past(x1 - x0).passthrough, branch.passthrough)
            True
        """
        return replace(self, passthrough=self.passthrough - skip, total=self.total - skip)


def decompose(
    block: nn.Module,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    x_before: Any,
    x_after: Any,
    *,
    dtype: torch.dtype | None = torch.float64,
    seed: int = 0,
) -> Decomposition:
    """Split the update of any block y = B(x; theta) by four evaluations.

    layer = B(x, theta') - B(x, theta), passthrough = B(x', theta) - B(x, theta), interaction = the rest: for a block bilinear
    in weights and input (dense, convolution, embedding) these are g dW x, g W dx and g dW dx of Karkada 2024
    (arXiv:2404.19719, Sec. 2). They sum to the total exactly, for any block.

    Args:
        block: any module; a layer, an attention, a residual branch or a whole network.
        before: its parameters (and buffers, if they changed) by name before the update.
        after: the same after it.
        x_before: its input before, a tensor or a tuple of arguments.
        x_after: its input after.
        dtype: floating type of the evaluation; float64 keeps small differences exact, None takes the tensors' own.
        seed: of the block's random layers, the same in all four evaluations.

    Returns:
        The three terms and the total, shaped like the block's (first floating) output.

    Raises:
        UsageError: for states that are not the block's.
        TrainError: for inputs that it does not take.

    Example:
        >>> block, x = nn.Linear(3, 2, bias=False), torch.ones(1, 3)
        >>> before, after = {"weight": torch.zeros(2, 3)}, {"weight": torch.ones(2, 3)}
        >>> parts = decompose(block, before, after, x, 2 * x)  # W = 0: nothing passes through
        >>> parts.layer.tolist(), parts.passthrough.tolist(), parts.interaction.tolist()
        ([[3.0, 3.0]], [[0.0, 0.0]], [[3.0, 3.0]])
    """
    _refuse(block, {"before": before, "after": after})
    old_x, new_x = moved_inputs(_as_args(x_before), _as_args(x_after), dtype)
    old, new = ({k: _cast(v, dtype) for k, v in state.items()} for state in (before, after))
    constant = {k: _cast(v, dtype) for k, v in block.named_buffers() if k not in old}

    def evaluate(state: Mapping[str, Tensor], args: tuple[Any, ...]) -> Tensor:
        full = fresh_buffers(block, {**constant, **state})
        with seeded(seed), torch.no_grad():
            try:
                return first_float(functional_call(block, full, args))
            except RAISED as error:
                raise refusal(f"the block {type(block).__name__} does not take its input", error, inputs=args) from error

    y00, y11 = evaluate(old, old_x), evaluate(new, new_x)
    if y00.shape != y11.shape:
        raise UsageError(
            f"got outputs {tuple(y00.shape)} before and {tuple(y11.shape)} after, expected equal shapes: give the same samples "
            "to both"
        )
    return from_corners(y00, evaluate(new, old_x), evaluate(old, new_x), y11)


def _derivative(phi: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    return jvp(phi, (y,), (torch.ones_like(y),))[1]


def _refuse(block: Any, states: Mapping[str, Any]) -> None:
    """Refuse what is no module, and tensors that are not its own."""
    if not isinstance(block, nn.Module):
        raise UsageError(f"got block {type(block).__name__}, expected a module")
    own = {**dict(block.named_parameters(remove_duplicate=False)), **dict(block.named_buffers(remove_duplicate=False))}
    for when, state in states.items():
        if not isinstance(state, Mapping):
            raise UsageError(f"got {when} {type(state).__name__}, expected its tensors by name: dict(block.named_parameters())")
        lacking = [name for name, _ in block.named_parameters() if name not in state]
        odd = [name for name in state if name not in own or state[name].shape != own[name].shape]
        if lacking or odd:
            said = f"lacks '{lacking[0]}'" if lacking else f"has another name or shape for '{odd[0]}'"
            raise UsageError(f"{when} {said}; expected the block's tensors: {', '.join(own)}")


def from_corners(y00: Tensor, y10: Tensor, y01: Tensor, y11: Tensor) -> Decomposition:
    """The decomposition from B(x, theta), B(x, theta'), B(x', theta), B(x', theta')."""
    return Decomposition(y10 - y00, y01 - y00, (y11 - y01) - (y10 - y00), y11 - y00)


def _as_args(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def _cast(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    value = value.detach()
    return value.to(dtype) if dtype and value.is_floating_point() else value
