"""What two models must share to be one function of their parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lazyrich.tangent.function import copy_of

_KEPT = ("_parameters", "_buffers", "_modules")
_PLAIN = (int, float, bool, str, bytes, complex, type(None), type)


def likeness(model: nn.Module) -> tuple[Any, ...]:
    """A key that two models share only if one's forward is the other's with other numbers in its tensors.

    Modules, shapes, dtypes, devices, ties, what is trained, and all plain attributes count. Other attributes count by identity, so
    two models that hold objects of their own are taken for different.

    Example:
        >>> likeness(nn.Linear(2, 3)) == likeness(nn.Linear(2, 3)), likeness(nn.ELU(0.5)) == likeness(nn.ELU(1.0))
        (True, False)
    """
    parts: list[Any] = []
    for path, module in model.named_modules():
        parts.append((path, type(module), _attributes(module)))
        tensors = [*module._parameters.items(), *module._buffers.items()]
        parts += [(name, t.shape, t.dtype, str(t.device), t.requires_grad) for name, t in tensors if t is not None]
    first: dict[int, str] = {}
    parts.append(tuple((name, first.setdefault(id(t), name)) for name, t in model.named_parameters(remove_duplicate=False)))
    return tuple(parts)


def changed(model: nn.Module, x: Any) -> str:
    """What a forward pass changes in a model beside the numbers in its tensors, such as a count of steps; nothing for most.

    Models that are stacked have one such state for all of them. Tried on a copy, with torch's random numbers left as they are.

    Example:
        >>> changed(nn.Linear(2, 3), torch.zeros(1, 2)), changed(nn.BatchNorm1d(2), torch.zeros(3, 2))
        ('', '')
    """
    tried = copy_of(model)
    before = {path: (_attributes(module), _buffers(module)) for path, module in tried.named_modules()}
    devices = {p.device for p in model.parameters() if p.is_cuda}
    with torch.no_grad(), torch.random.fork_rng(sorted(devices, key=str)):
        tried(x)
    for path, module in tried.named_modules():
        attributes, buffers = before[path]
        after = {*_attributes(module), *_buffers(module)}
        if names := sorted(str(key) for key, _ in after.symmetric_difference({*attributes, *buffers})):
            return f"'{names[0]}' of {path or 'the model'} ({type(module).__name__})"
    return ""


def _buffers(module: nn.Module) -> tuple[Any, ...]:
    return tuple((name, id(t)) for name, t in module._buffers.items())


def _attributes(module: nn.Module) -> tuple[Any, ...]:
    return tuple((key, _plain(value)) for key, value in sorted(vars(module).items()) if key not in _KEPT)


def _plain(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return (type(value).__name__, value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return (type(value).__name__, tuple(_plain(v) for v in value))
    if isinstance(value, dict):
        return ("dict", tuple((str(k), _plain(v)) for k, v in value.items()))
    return ("object", id(value))
