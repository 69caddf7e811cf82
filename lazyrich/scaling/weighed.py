"""Which of its own tensors a network's code multiplies features with: what no layer's kind tells of plain calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lazyrich.scaling.attention import ended, inputs

PRODUCTS = ("matmul", "__matmul__", "mm")


def weighed(module: nn.Module) -> set[tuple[str, int]]:
    """Matrices that a module multiplies with, each with the axis that is summed over; its layers' own among them.

    It is run on inputs of our own, on the meta device; of one that takes none of them nothing is known.

    Example:
        >>> weighed(nn.Linear(3, 5))
        {('weight', 1)}
    """
    found: set[tuple[str, int]] = set()
    for args in inputs(module, None):
        if ended(module, args, None, lambda twin: _Watch(twin, found)):
            break
    return found


class _Watch(TorchFunctionMode):
    """While it is entered, notes products with the parameters of a module."""

    def __init__(self, module: nn.Module, found: set[tuple[str, int]]) -> None:
        super().__init__()
        self.found = found
        self._known = {_address(parameter): (name, parameter) for name, parameter in module.named_parameters()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given, name = [*args, *(kwargs or {}).values()], getattr(func, "__name__", "")
        if name in ("linear", *PRODUCTS) and len(given) > 1:
            self._note(given[1], -1 if name == "linear" else -2)
        return func(*args, **(kwargs or {}))

    def _note(self, tensor: Any, summed: int) -> None:
        if not isinstance(tensor, Tensor) or tensor.dim() != 2:
            return
        name, parameter = self._known.get(_address(tensor), ("", tensor))
        if name and tensor.numel() == parameter.numel() and (stride := tensor.stride(summed)) in parameter.stride():
            self.found.add((name, parameter.stride().index(stride)))  # a transposed view has the same strides elsewhere


def _address(tensor: Tensor) -> int:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()._cdata
