"""Calling a module with other tensors in the place of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


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

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> with as_they_were([layer]):
        ...     layer.last = torch.ones(2)
        >>> hasattr(layer, "last")
        False
    """
    before = [{name: value for name, value in vars(module).items() if isinstance(value, Tensor)} for module in modules]
    try:
        yield
    finally:
        for module, kept in zip(modules, before, strict=True):
            own = vars(module)
            for name in [name for name, value in own.items() if isinstance(value, Tensor) and name not in kept]:
                del own[name]
            own.update(kept)
