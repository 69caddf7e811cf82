"""Whether a learning-rate scheduler keeps the ratios between a plan's parameter groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lazyrich.amount import counted
from lazyrich.errors import PlanError


@dataclass(frozen=True)
class Flattening:
    """What a scheduler does to the ratios of the groups' learning rates.

    ``kept`` is False when some group's rate, relative to its own start, departs from the others' by more than 1 part in 10^6;
    ``step`` is the first step at which it does and ``spread`` the largest departure as a ratio.
    """

    kept: bool
    step: int | None
    spread: float

    def __str__(self) -> str:
        if self.kept:
            return "the scheduler keeps the ratios between the groups"
        return (
            f"the scheduler changes the ratios between the groups from step {self.step} on (by up to {self.spread:.3g}x): "
            "use one that multiplies each group's own rate (LambdaLR, cosine to 0), or give min_lr/max_lr per group"
        )


def flattens(optimizer: torch.optim.Optimizer, schedule: Callable[[Any], Any], steps: int = 1000) -> Flattening:
    """Run a scheduler on a stand-in for the optimizer and watch the ratios of the groups' rates.

    Schedulers that add a floor or set absolute rates (OneCycleLR, CyclicLR, cosine with eta_min > 0) silently erase the
    per-tensor rates of a plan. ``ReduceLROnPlateau`` multiplies; it is followed on a plateau, down to the changes that its ``eps``
    ignores.

    Args:
        optimizer: the optimizer made from ``plan.param_groups``; it is not stepped.
        schedule: ``schedule(optimizer) -> scheduler``, for example ``lambda o: CosineAnnealingLR(o, 100)``.
        steps: how many steps to follow.

    Raises:
        PlanError: for what is no optimizer or no schedule, and steps that are none.

    Example:
        >>> w, v = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
        >>> opt = torch.optim.SGD([{"params": [w], "lr": 0.1}, {"params": [v], "lr": 0.01}])
        >>> flattens(opt, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50), 40).kept
        True
        >>> flattens(opt, lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=50), 40).kept
        False
    """
    if not hasattr(optimizer, "param_groups") or not callable(schedule):
        raise PlanError(
            f"got {type(optimizer).__name__} and {type(schedule).__name__}, expected a torch optimizer and a function "
            "optimizer -> scheduler, such as lambda o: CosineAnnealingLR(o, 100)"
        )
    steps = counted("steps", steps, refusal=PlanError)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": float(g["lr"])} for g in optimizer.param_groups]
    starts = [group["lr"] for group in groups]
    stand_in = torch.optim.SGD(groups, momentum=0.9)
    scheduler = schedule(stand_in)
    spread, first = 1.0, None
    for step in range(steps):
        relative = [float(g["lr"]) / start for g, start in zip(stand_in.param_groups, starts, strict=True) if start > 0]
        ratio = max(relative) / min(relative) if min(relative) > 0 else (1.0 if max(relative) == 0 else float("inf"))
        if ratio > 1 + 1e-6 and first is None:
            first = step
        spread = max(spread, ratio)
        stand_in.step()
        if isinstance(scheduler, ReduceLROnPlateau) and _exhausted(scheduler, stand_in):
            break
        try:
            _advance(scheduler)
        except ValueError:  # OneCycleLR counts its steps and stops at the end
            break
    return Flattening(first is None, first, spread)


def _advance(scheduler: Any) -> None:
    """One step; of a scheduler that waits for a plateau, one on a plateau."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(1.0)
    else:
        scheduler.step()


def _exhausted(scheduler: ReduceLROnPlateau, optimizer: torch.optim.Optimizer) -> bool:
    """Whether the smallest rate is so small that the scheduler leaves it be while it still lowers others."""
    return min(float(group["lr"]) for group in optimizer.param_groups) * (1 - scheduler.factor) <= scheduler.eps
