"""Operations that nested derivatives repeat, done once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

Found = TypeVar("Found")
PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.bmm.default)
LOOKS = (torch.ops.aten.is_same_size.default, torch.ops.aten._has_same_storage_numel.default)
SCALAR = (
    torch.ops.aten.mul.Scalar,
    torch.ops.aten.add.Scalar,
)  # of a derivative that is zero, under a mode: torch 2.13 crashes


def once(compute: Callable[[], Found]) -> Found:
    """What a computation returns, with no operation done twice on the same tensors.

    Nested forward passes along one direction, and the gradient that every level follows anew, repeat many of their products:
    of nine products a layer for a second derivative, three. What was computed is held until the end, as a backward pass does.
    A computation that changes a tensor in place is done again, plainly.

    Example:
        >>> a = torch.ones(2, 2)
        >>> product, again = once(lambda: (torch.mm(a, a), torch.mm(a, a)))
        >>> product.data_ptr() == again.data_ptr()
        True
    """
    with _Once() as mode:
        found = compute()
    return compute() if mode.changed else found


class _Once(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.changed = False
        self._known: dict[Hashable, tuple[Any, Any]] = {}
        self._kinds: dict[int, str] = {}  # by identity, as an operation's own hash costs as much as a small one itself

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would wrap each of a thousand calls, so that nothing is compiled in them; nothing is."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = self._kinds.get(id(func)) or self._kinds.setdefault(id(func), _kind(func))
        if kind == "change":
            self.changed = True  # two results may share the memory that now has other values
        given = tuple(map(_filled, args)) if func in SCALAR else args
        if self.changed or kind == "view":
            return func(*given, **(kwargs or {}))
        key = (id(func), _name(args), _name(tuple(kwargs.items())) if kwargs else None)
        if key in self._known:
            known = self._known[key][0]
            return _fresh(known) if isinstance(known, Tensor) else tree_map(_fresh, known)
        found = _nothing(args) if func in PRODUCTS and not kwargs else None
        found = func(*given, **(kwargs or {})) if found is None else found
        self._known[key] = found, args  # the arguments are held, so that their memory names them alone
        return found


def _nothing(args: Any) -> Tensor | None:
    """A product with a derivative that is zero everywhere (that of the data), which comes as one zero read many times."""
    a, b = args
    if any(t.layout != torch.strided for t in args):
        return None
    if not any(t.numel() > 1 and not any(t.stride()) and not t.flatten()[0] for t in (a, b)):
        return None
    return a.new_zeros((*a.shape[:-1], b.shape[-1]))


def _filled(value: Any) -> Any:
    """A zero that torch keeps without memory, with some."""
    return value.clone() if isinstance(value, Tensor) and value._is_zerotensor() else value


@cache
def _kind(func: Any) -> str:
    """A view costs nothing, nor does a profiler's mark or a look; a change makes names worthless; the rest are values."""
    if func.namespace == "profiler" or func in LOOKS:
        return "view"
    if func._schema.is_mutable or torch.Tag.nondeterministic_seeded in func.tags:
        return "change"
    return "view" if any(argument.alias_info is not None for argument in func._schema.arguments) else "value"


def _name(value: Any) -> Hashable:
    """What tells an argument from every other: for a tensor its place in memory and how it is read."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:  # it has no one place in memory
            return id(value), value.shape
        place = 0 if value._is_zerotensor() else value.data_ptr()
        return place, value.shape, value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple(map(_name, value))
    return type(value), value


def _fresh(found: Any) -> Any:
    """The same memory as a tensor of its own, which autograd may write its notes on."""
    return found.detach() if isinstance(found, Tensor) else found
