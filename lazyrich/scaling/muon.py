"""Muon on the hidden matrices and AdamW on everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import UsageError


def loss_of(closure: Callable[[], Any] | None) -> Any:
    """What a step's closure returns; it runs backward, so it needs gradients although the step has none."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class MuonAdamW(torch.optim.Optimizer):
    """``torch.optim.Muon`` and ``torch.optim.AdamW`` behind one ``step``; schedulers see the groups of both.

    Args:
        groups: from ``plan.param_groups``; a group's ``optimizer`` says who steps it.
        options: ``betas`` go to AdamW, the rest to Muon.

    Raises:
        UsageError: where this torch has no Muon (it came with 2.9).

    Example:
        >>> w, b = torch.nn.Parameter(torch.eye(2)), torch.nn.Parameter(torch.zeros(2))
        >>> groups = [{"params": [w], "optimizer": "muon", "lr": 0.1}, {"params": [b], "optimizer": "adamw", "lr": 0.01}]
        >>> [type(part).__name__ for part in MuonAdamW(groups).parts]
        ['Muon', 'AdamW']
    """

    def __init__(self, groups: list[dict[str, Any]], **options: Any) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise UsageError(f"got torch {torch.__version__}, which has no Muon; expected torch 2.9 or newer")
        super().__init__(groups, {})
        for_adam = {key: options.pop(key) for key in ("betas",) if key in options}
        mine = [group for group in self.param_groups if group["optimizer"] != "adamw"]
        rest = [group for group in self.param_groups if group["optimizer"] == "adamw"]
        self.parts: list[torch.optim.Optimizer] = []  # a part without groups is refused by torch
        if mine:
            self.parts.append(torch.optim.Muon(mine, **options))
        if rest:
            self.parts.append(torch.optim.AdamW(rest, **for_adam))
        self._share()

    def _share(self) -> None:
        """The groups are the parts' own dictionaries, so whatever changes a rate changes it for whoever steps."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:  # type: ignore[override]
        """One step of both."""
        loss = loss_of(closure)
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """The states of both, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Any) -> None:
        """Take back what ``state_dict`` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "parts": self.parts}
