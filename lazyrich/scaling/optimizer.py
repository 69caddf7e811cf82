"""Which scaling rule each optimizer follows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import UsageError
from lazyrich.scaling.muon import MuonAdamW, loss_of
from lazyrich.scaling.native import ADJUST, LAWLESS, MATRIX

GRADIENT = ("sgd", "momentum")
MOMENTUM = 0.9  # of "momentum", unless an option says otherwise
ENTRYWISE = ("adam", "adamw", "signsgd", "lion", "adafactor", *MATRIX)


def is_entrywise(optimizer: str) -> bool:
    """Whether an optimizer's step has a size of its own, whatever the gradient's size.

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
    if optimizer in LAWLESS:
        raise UsageError(f"got optimizer '{optimizer}', of which no one law in the width is known: {LAWLESS[optimizer]}")
    raise UsageError(f"got optimizer '{optimizer}', expected one of {', '.join(GRADIENT + ENTRYWISE)}")


def optimizer_name(optimizer: Any) -> str:
    """The name of an optimizer given by name, in any case, or as the class that torch has for it.

    Example:
        >>> optimizer_name("AdamW"), optimizer_name(torch.optim.Adam)
        ('adamw', 'adam')
    """
    name = optimizer.__name__ if isinstance(optimizer, type) else optimizer
    name = name.lower() if isinstance(name, str) else str(name)
    is_entrywise(name)
    return name


def refuse_unshipped(optimizer: str) -> None:
    """Raise a UsageError for an optimizer that plans know and torch does not have."""
    if optimizer in MATRIX and optimizer not in ADJUST:
        raise UsageError(
            f"torch has no '{optimizer}'; pass the groups to your own class: "
            f"{optimizer.title()}(plan.param_groups(model, lr=...)). "
            "What trains here wants one that torch has, such as 'muon', which steps hidden matrices too"
        )


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
        loss = loss_of(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * (p.grad.sign() + group["weight_decay"] * p))
        return loss


class Lion(torch.optim.Optimizer):
    """Sign of a momentum that looks ahead (Chen et al. 2023, arXiv:2302.06675), with decoupled decay.

    w <- w - lr (sign(b1 m + (1 - b1) g) + weight_decay w), then m <- b2 m + (1 - b2) g.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0])); w.grad = torch.tensor([3.0])
        >>> Lion([w], lr=0.5).step(); w.item()
        0.5
    """

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:  # type: ignore[override]
        """One step on every tensor that has a gradient."""
        loss = loss_of(closure)
        for group in self.param_groups:
            ahead, behind = group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                direction = torch.lerp(p.grad, momentum, ahead).sign()
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * direction)
                momentum.lerp_(p.grad, 1 - behind)
        return loss


def group_of(
    optimizer: str,
    matrix: bool,
    rates: tuple[float, float],
    weight_decay: float,
    eps: float,
    floors: tuple[float | None, float],
) -> dict[str, Any]:
    """What a parameter group of an optimizer says: its rate, decay and, where it has one, epsilon.

    Args:
        optimizer: its name.
        matrix: whether the tensor is stepped as a matrix.
        rates: learning rates of matrices and of everything else.
        weight_decay: of the tensor.
        eps: Adam's, of the tensor.
        floors: Adafactor's two epsilons: of gradients (None for torch's own), and the size that a tensor has at least.
    """
    group: dict[str, Any] = {"lr": rates[0] if matrix else rates[1], "weight_decay": weight_decay}
    if optimizer in MATRIX:
        group = {"optimizer": optimizer if matrix else "adamw", **group}
    if matrix and optimizer in ADJUST:
        group["adjust_lr_fn"] = ADJUST[optimizer]
    if optimizer == "adafactor":
        group["eps"] = floors
    elif optimizer in ("adam", "adamw") or (optimizer in MATRIX and not matrix):
        group["eps"] = eps
    return group


def gradient_floor(parameter: Tensor, factor: float) -> float | None:
    """Adafactor's first epsilon, where the tensor's gradients are to be compared with ``factor`` times what they are at the base.

    Of tensors with several axes torch holds it against squares of gradients, of vectors against gradients. By default it is
    the resolution of the tensor's numbers, 1.2e-7 of single precision, which gradients of 3e-4 meet.

    Example:
        >>> gradient_floor(torch.zeros(3), 1.0), gradient_floor(torch.zeros(3, 2), 0.5) == torch.finfo(torch.float32).eps / 4
        (None, True)
    """
    return None if factor == 1 else torch.finfo(parameter.dtype).eps * factor ** (2 if parameter.dim() > 1 else 1)


def momentum_of(optimizer: str) -> float:
    """Of the heavy ball that ``plan.optimizer`` makes unless an option says otherwise; 0 for all but "momentum".

    Example:
        >>> momentum_of("momentum"), momentum_of("sgd")
        (0.9, 0.0)
    """
    return MOMENTUM if optimizer == "momentum" else 0.0


def make_optimizer(optimizer: str, groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    """The plain torch optimizer of a name, over ready parameter groups.

    Raises:
        UsageError: for an optimizer that torch does not ship (its groups still come from ``plan.param_groups``), for an option
            that its class does not take, and for groups of nothing, as of a network that is wholly frozen.
    """
    is_entrywise(optimizer)
    refuse_unshipped(optimizer)
    if not groups:
        raise UsageError(
            "got a model without a tensor that trains, expected at least one: none of its parameters has requires_grad; mend with "
            "parameter.requires_grad_()"
        )
    if optimizer in GRADIENT:
        options = {"momentum": momentum_of(optimizer), **options}
    kind = CLASSES.get(optimizer, MuonAdamW)
    known = inspect.signature(kind).parameters
    unknown = [name for name in options if name not in known]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        takes = [name for name in known if name not in ("params", "lr", "weight_decay", "eps")]
        raise UsageError(
            f"got {', '.join(map(repr, unknown))} for {optimizer}, which {kind.__name__} does not take; expected some of "
            f"{', '.join(takes) or 'none'}, or plan for another optimizer"
        )
    return kind(groups, **options)


CLASSES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "signsgd": SignSGD,
    "lion": Lion,
    "adafactor": torch.optim.Adafactor,
}
