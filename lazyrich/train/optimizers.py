"""Several optimizers of one kind as one, over stacked tensors, so that a fused step serves many members."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import groupby
from operator import is_
from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import TrainError
from lazyrich.train.refusal import take_step

# what a member's entries do does not depend on their neighbours, so members with equal settings may share one tensor
ENTRYWISE = ("SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Adamax", "NAdam", "RAdam", "Adadelta", "Rprop")


class StackedOptimizer:
    """One optimizer for tensors that hold one slice a member, each slice with its member's own settings and state.

    Neighbouring members with equal settings are stepped as one tensor where the optimizer works entry by entry, and the step is
    fused where the kind of optimizer can.

    Args:
        optimizers: one a member, all of one kind; their settings and states are taken over, ``give_back`` returns the states.
        tensors: each stacked tensor (members, ...) with the members' own parameters.

    Raises:
        TrainError: if the optimizers are of different kinds.

    Example:
        >>> parts = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
        >>> whole = torch.ones(3, 2)
        >>> each = [torch.optim.SGD([p], lr=lr) for p, lr in zip(parts, (0.1, 0.1, 0.2))]
        >>> StackedOptimizer(each, [(whole, parts)]).step([torch.ones(3, 2)])
        >>> whole[:, 0].tolist() == [0.8999999761581421, 0.8999999761581421, 0.800000011920929]
        True
    """

    def __init__(
        self, optimizers: Sequence[torch.optim.Optimizer], tensors: Sequence[tuple[Tensor, Sequence[torch.nn.Parameter]]]
    ) -> None:
        self._optimizers, self._tensors = optimizers, tensors
        self._build()

    def _build(self) -> None:
        """Take over settings and states as they are now."""
        optimizers, tensors = self._optimizers, self._tensors
        kinds = {type(optimizer) for optimizer in optimizers}
        if len(kinds) != 1:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise TrainError(f"optimizers that step together must be of one kind, got {names}")
        self._kind = kinds.pop()
        if not all(optimizer.defaults for optimizer in optimizers):
            raise TrainError(f"{self._kind.__name__} joins several optimizers, which do not step together; take engine='loop'")
        self._states = [optimizer.state for optimizer in optimizers]
        settings = [{p: s for p, s in settings_of(optimizer).items() if p.requires_grad} for optimizer in optimizers]
        self._pieces = [
            (at, span, whole.detach()[_index(span)], [parts[i] for i in span])
            for at, (whole, parts) in enumerate(tensors)
            for span in self._spans(
                [settings[i].get(parts[i]) for i in range(len(optimizers))],
                [_age(self._states[i].get(parts[i], {})) for i in range(len(optimizers))],
            )
        ]
        self._look()
        self._inner = self._make(
            [(settings[span[0]][parts[0]], _age(self._states[span[0]].get(parts[0], {}))) for _, span, _, parts in self._pieces]
        )
        for _, span, tensor, parts in self._pieces:
            state = _joined([self._states[i].get(p, {}) for i, p in zip(span, parts, strict=True)])
            if state:
                self._inner.state[tensor] = state

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One step along gradients of the stacked tensors, with the settings that the members' optimizers have now."""
        if self._changed():  # a schedule has changed a learning rate
            self.give_back()
            self._build()
        for at, span, tensor, _ in self._pieces:
            gradient = gradients[at]  # fused steps read raw memory: a transposed gradient would be taken for another one
            tensor.grad = None if gradient is None else gradient[_index(span)].contiguous()
        take_step(self._inner)
        for optimizer in self._optimizers:
            if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
                optimizer._opt_called = True  # type: ignore[missing-attribute]  # what torch notes in a step, so that schedules see that one was made

    def give_back(self) -> None:
        """Hand every optimizer the state of its own tensors."""
        for _, span, tensor, parts in self._pieces:
            state = self._inner.state.get(tensor, {})
            for k, (i, p) in enumerate(zip(span, parts, strict=True)):
                if state:
                    self._states[i][p] = {key: _own(value, tensor, k, len(span)) for key, value in state.items()}

    def _look(self) -> None:
        """Keep the settings of every group of every member, and what is trained, to see whether they change."""
        self._parts = [part for _, parts in self._tensors for part in parts]
        self._trained = [part.requires_grad for part in self._parts]
        self._keys = [tuple(optimizer.defaults) for optimizer in self._optimizers]
        self._settings = [
            [tuple(map(group.get, keys)) for group in optimizer.param_groups]
            for optimizer, keys in zip(self._optimizers, self._keys, strict=True)
        ]

    def _changed(self) -> bool:
        """Whether they have; the very objects that were kept, as in most steps, are not compared by value."""
        if [part.requires_grad for part in self._parts] != self._trained:
            return True
        for optimizer, keys, kept in zip(self._optimizers, self._keys, self._settings, strict=True):
            groups = optimizer.param_groups
            if len(groups) != len(kept):
                return True
            for group, old in zip(groups, kept, strict=True):
                if not all(map(is_, map(group.get, keys), old)) and not _equal(tuple(map(group.get, keys)), old):
                    return True
        return False

    def _spans(self, settings: Sequence[Any], ages: Sequence[Any]) -> list[list[int]]:
        """Runs of neighbouring members with equal settings and as many steps behind them; those without are not trained."""
        members = [i for i, s in enumerate(settings) if s is not None]
        if self._kind.__module__.startswith("torch.optim") and self._kind.__name__ in ENTRYWISE:
            return [list(run) for _, run in groupby(members, key=lambda i: (key_of(settings[i]), ages[i]))]
        return [[i] for i in members]

    def _make(self, settings: Sequence[tuple[dict[str, Any], Any]]) -> torch.optim.Optimizer:
        groups: dict[Any, dict[str, Any]] = {}  # fused steps want tensors of a group to have the same states
        for (_, _, tensor, _), (own, age) in zip(self._pieces, settings, strict=True):
            groups.setdefault((key_of(own), repr(age)), {**own, "params": []})["params"].append(tensor)
        made = list(groups.values())
        takes = inspect.signature(self._kind).parameters
        needed = {"lr": made[0]["lr"]} if "lr" in takes else {}
        if "fused" in takes and _can_fuse(made):
            made = [{**group, "fused": True, "foreach": None} for group in made]
            needed["fused"] = True
        return self._kind(made, **needed)  # type: ignore[arg-type]


def _equal(values: Sequence[Any], others: Sequence[Any]) -> bool:
    """Equal settings; a tensor only equals itself, since what it holds may change while nobody looks."""
    return all(
        a is b or not (isinstance(a, Tensor) or isinstance(b, Tensor)) and a == b for a, b in zip(values, others, strict=True)
    )


def settings_of(optimizer: torch.optim.Optimizer) -> dict[Tensor, dict[str, Any]]:
    """Of every parameter the settings of its group."""
    return {p: {k: group[k] for k in optimizer.defaults} for group in optimizer.param_groups for p in group["params"]}


def _age(state: dict[str, Any]) -> Any:
    """What of a state is one number for a whole tensor, such as the count of steps, and which others there are."""
    return [(key, None if isinstance(value, Tensor) and value.dim() else float(value)) for key, value in sorted(state.items())
            if isinstance(value, (int, float, Tensor))]  # fmt: skip


def key_of(settings: dict[str, Any]) -> str:
    """Equal for equal settings."""
    return repr([(key, id(value) if isinstance(value, Tensor) else value) for key, value in sorted(settings.items())])


def _index(span: Sequence[int]) -> int | slice:
    return span[0] if len(span) == 1 else slice(span[0], span[-1] + 1)


def _can_fuse(groups: Sequence[dict[str, Any]]) -> bool:
    floats = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    return floats and not any(group.get("differentiable") or group.get("fused") is False for group in groups)


def _joined(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """States of neighbours as one: entries stacked, counters shared (members of one stack have done the same steps)."""
    if len(states) == 1 or not states[0]:
        return dict(states[0])
    return {
        key: torch.stack([s[key] for s in states]) if isinstance(value, Tensor) and value.dim() else value
        for key, value in states[0].items()
    }


def _own(value: Any, tensor: Tensor, k: int, count: int) -> Any:
    """A member's part of a state; clones, since the stack goes on with its own."""
    if not isinstance(value, Tensor):
        return value
    return (value[k] if count > 1 and value.shape == tensor.shape else value).clone()
