"""Calling a module with other tensors in the place of its own."""

from __future__ import annotations

import operator
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

HOLDERS = (dict, OrderedDict, defaultdict, list, deque, set)
REGISTRIES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
HOOKS = vars(nn.Module()).keys() - set(REGISTRIES)  # what torch itself keeps besides


def functional_call(
    model: nn.Module, tensors: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
) -> Any:
    """The output of a module with ``tensors`` for its parameters and buffers of these names; the others stay.

    As ``torch.func.functional_call``, which loses the parameters of a module that is registered at two paths: it puts each
    tensor in twice, and takes the second for the original when it puts that back (torch 2.13). Here each place is filled once.
    A tensor that several modules share is replaced in all of them.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> twice = nn.Sequential(layer, layer)
        >>> out = functional_call(twice, {"0.weight": torch.eye(2), "0.bias": torch.ones(2)}, (torch.zeros(1, 2),))
        >>> out.tolist(), isinstance(layer.weight, nn.Parameter)
        ([[2.0, 2.0]], True)
    """
    known = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    new = {id(own): tensors[name] for name, own in known if name in tensors}
    places = {name: tensors[name] for name in tensors.keys() - dict(known).keys()}  # torch says that there are none of these
    for path, module in model.named_modules():
        for name, own in (*module._parameters.items(), *module._buffers.items()):
            if own is not None and id(own) in new:
                places[f"{path}.{name}" if path else name] = new[id(own)]
    hooked = [module for module in model.modules() if module._forward_pre_hooks]
    with as_they_were(hooked) if hooked else nullcontext():
        return torch.func.functional_call(model, places, args, kwargs, tie_weights=False)


@contextmanager
def as_they_were(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Take away what a forward leaves on its modules: old weight norms set ``weight`` anew, some networks keep their outputs.

    Tensors among a module's attributes, its registered buffers, and what its dictionaries, lists and sets hold (not what these
    hold in turn) are put back. Numbers stay as they are left, so that it shows where a network counts its calls.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> with as_they_were([layer]):
        ...     layer.last = torch.ones(2)
        ...     layer.register_buffer("angles", torch.ones(2))
        >>> hasattr(layer, "last"), list(layer.state_dict())
        (False, ['weight', 'bias'])
    """
    before = [{name: value for name, value in vars(module).items() if name not in HOOKS} for module in modules]
    held = {id(value): value for own in before for value in own.values() if type(value) in HOLDERS}
    contents = [(value, value.copy()) for value in held.values()]
    try:
        yield
    finally:
        for module, kept in zip(modules, before, strict=True):
            _put_back(vars(module), kept)
        for value, kept in contents:
            _refill(value, kept)


def _put_back(own: dict[str, Any], kept: dict[str, Any]) -> None:
    """The attributes that held tensors, or do now."""
    for name in [name for name in own.keys() - kept.keys() - HOOKS if _has_tensors(own[name])]:
        del own[name]
    for name, value in kept.items():
        now = own.get(name)
        if now is not value and (isinstance(value, (Tensor, *HOLDERS)) or _has_tensors(now)):
            own[name] = value


def _has_tensors(value: Any) -> bool:
    held = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set, deque)) else (value,)
    return any(isinstance(one, Tensor) for one in held)


def _refill(value: Any, kept: Any) -> None:
    """Its contents as they were; what did not change is not touched, as others may read it."""
    same = len(value) == len(kept)
    if same and isinstance(value, dict):
        same = [*value] == [*kept] and all(map(operator.is_, value.values(), kept.values()))
    elif same:
        same = value == kept if isinstance(value, set) else all(map(operator.is_, value, kept))
    if not same:
        value.clear()
        (value.extend if isinstance(value, (list, deque)) else value.update)(kept)
