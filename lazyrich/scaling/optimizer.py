"""Which scaling rule each optimizer follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import UsageError

GRADIENT = ("sgd", "momentum")
ENTRYWISE = ("adam", "adamw", "signsgd", "lion")


def is_entrywise(optimizer: str) -> bool:
    """Whether an optimizer's update has entries of size one whatever the gradient's size.

    Raises:
        UsageError: for an optimizer without a rule.

    Example:
        >>> is_entrywise("adamw"), is_entrywise("sgd")
        (True, False)
    """
    if optimizer in ENTRYWISE:
        return True
    if optimizer in GRADIENT:
        return False
    raise UsageError(f"got optimizer '{optimizer}', expected one of {', '.join(GRADIENT + ENTRYWISE)}")


class SignSGD(torch.optim.Optimizer):
    """The simplest entrywise optimizer: w <- w - lr (sign(gradient) + weight_decay w).

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0])); w.grad = torch.tensor([3.0])
        >>> SignSGD([w], lr=0.5).step(); w.item()
        0.5
    """

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:  # type: ignore[override]
        """One step on every tensor that has a gradient."""
        loss = closure() if closure else None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * (p.grad.sign() + group["weight_decay"] * p))
        return loss


def make_optimizer(optimizer: str, groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    """The plain torch optimizer of a name, over ready parameter groups.

    Raises:
        UsageError: for an optimizer that torch does not ship; its groups still come from ``plan.param_groups``.
    """
    is_entrywise(optimizer)
    if optimizer == "sgd":
        return torch.optim.SGD(groups, **options)
    if optimizer == "momentum":
        return torch.optim.SGD(groups, momentum=options.pop("momentum", 0.9), **options)
    if optimizer == "adam":
        return torch.optim.Adam(groups, **options)
    if optimizer == "adamw":
        return torch.optim.AdamW(groups, **options)
    if optimizer == "signsgd":
        return SignSGD(groups, **options)
    raise UsageError(
        f"torch has no '{optimizer}'; pass the groups to your own class: {optimizer.title()}(plan.param_groups(model, lr=...))"
    )
