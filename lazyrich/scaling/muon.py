"""Muon on the hidden matrices and AdamW on everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """``torch.optim.Muon`` and ``torch.optim.AdamW`` behind one ``step``; its groups and its state are those of both.

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
        adam = {key: options.pop(key) for key in ("betas",) if key in options}
        self.options, self.parts = {"adamw": adam, "muon": options}, []  # a part without groups is refused by torch
        super().__init__(sorted(groups, key=_by_adam), {})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Hand a group to who steps it.

        Raises:
            UsageError: where it does not say who, or Muon does not step such tensors.
        """
        if "optimizer" not in param_group:
            raise UsageError(
                f"got a group with {', '.join(map(repr, param_group))}, expected also 'optimizer': 'adamw', or 'muon' for hidden "
                "matrices, as the groups of plan.param_groups say"
            )
        super().add_param_group(param_group)
        try:
            self._take(self.param_groups[-1])
        except ValueError as error:
            shapes = ", ".join(str(tuple(p.shape)) for p in self.param_groups.pop()["params"])
            raise UsageError(
                f"got a group for '{param_group['optimizer']}' with tensors of shape {shapes}, which torch refuses: {error}"
            ) from error

    def _take(self, group: dict[str, Any]) -> None:
        """Its part steps the very dictionary, so whatever changes a rate changes it for whoever steps; states are shared too."""
        kind = torch.optim.AdamW if _by_adam(group) else torch.optim.Muon
        part = kind([group], **self.options["adamw" if _by_adam(group) else "muon"])  # also fills the group with its options
        for known in self.parts:
            if type(known) is kind:
                known.param_groups.append(group)
                return
        part.state = self.state
        self.parts.append(part)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:  # type: ignore[override]
        """One step of both."""
        loss = loss_of(closure)
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: Any) -> None:
        """Take back what ``state_dict`` gave, or a list of both states, as older files have it."""
        super().load_state_dict(_joined(state_dict["parts"]) if "parts" in state_dict else state_dict)
        for part in self.parts:
            adam = isinstance(part, torch.optim.AdamW)
            own = [group for group in self.param_groups if _by_adam(group) == adam]
            part.__setstate__({"state": self.state, "param_groups": own})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "parts": self.parts, "options": self.options}


def _by_adam(group: Mapping[str, Any]) -> bool:
    return group.get("optimizer") == "adamw"


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """States of several optimizers as that of one, whose tensors are counted on."""
    state: dict[int, Any] = {}
    groups: list[dict[str, Any]] = []
    for part in parts:
        before = sum(len(group["params"]) for group in groups)
        state |= {before + i: one for i, one in part["state"].items()}
        groups += [{**group, "params": [before + i for i in group["params"]]} for group in part["param_groups"]]
    return {"state": state, "param_groups": groups}
