"""What two models must share to be one function of their parameters."""

from __future__ import annotations

from typing import Any

from torch import nn

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
