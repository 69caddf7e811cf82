"""Vectors that a forward sums over: readouts by what they do, which no shape tells."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lazyrich.errors import UsageError
from lazyrich.family import Role
from lazyrich.family.family import seeded
from lazyrich.family.role import giving_all
from lazyrich.scaling import Plan

PRODUCTS = ("matmul", "__matmul__", "mm", "mv", "bmm", "dot", "vdot")
ALONG_LAST = ("linear", "inner")
TIMES = ("mul", "__mul__", "__rmul__", "multiply")
VIEWS = ("view", "reshape", "unsqueeze", "squeeze", "expand", "expand_as", "t", "transpose", "permute", "flatten", "unflatten",
         "__getitem__", "__get__", "to", "contiguous", "clone", "broadcast_to", "repeat")  # fmt: skip


def refuse_contracted(plan: Plan, x: Any, width: int) -> None:
    """Refuse a plan that scales as a vector what the network's forward sums over, as it would a readout.

    Raises:
        UsageError: naming the tensors and their role; one whose role a person gave is taken as it is.
    """
    if plan.family is None or plan.scheme.global_rate:
        return
    asked = [n for n, t in plan.tensors.items() if t.role is Role.VECTOR and len(t.grows) == 1 and not plan.family.given(n)]
    found: list[str] = []
    with suppress(Exception):  # a forward that does not take the data is refused with more words where it is trained
        found = summed_over(plan, asked, x, width)
    if found:
        raise UsageError(
            f"the plan takes {', '.join(map(repr, found))} for vectors, but the forward of '{plan.family.name}' sums over their "
            f"growing axis, as a readout does: give {giving_all(dict.fromkeys(found, Role.OUTPUT))}, and plan again (or "
            "'vector', if that sum is divided by the width)"
        )


def summed_over(plan: Plan, names: list[str], x: Any, width: int) -> list[str]:
    """Those of the vectors of a plan over whose growing axis one forward sums: in a product of matrices, or entry by entry.

    Example:
        >>> import lazyrich as lzr
        >>> plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=8), lzr.mup())
        >>> summed_over(plan, ["hidden.0.bias"], torch.ones(1, 64), 8)
        []
    """
    model = plan.build(width)
    watch = _Watch()
    for name, parameter in model.named_parameters():
        if name in names:
            watch.know(parameter, name, plan.tensors[name].grows[0] - parameter.dim(), False)
    with seeded(0), torch.no_grad(), watch:
        model(x)
    return [name for name in names if name in watch.found]


class _Watch(TorchFunctionMode):
    """Follows vectors through views and through one product with features, up to a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._known: dict[int, tuple[Tensor, str, int, bool]] = {}

    def know(self, tensor: Tensor, name: str, axis: int, product: bool) -> None:
        """Follow a tensor: its growing axis is counted from the end."""
        self._known[id(tensor)] = (tensor, name, axis, product)  # the tensor itself, so that its id stays its own

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and id(arg) in self._known]
        name = getattr(func, "__name__", "")
        if name == "einsum":
            self._einsum(args)
        elif isinstance(out, Tensor):
            for place in places:
                self._follow(name, place, args, kwargs or {}, out)
        return out

    def _follow(self, op: str, place: int, args: Any, kwargs: Any, out: Tensor) -> None:
        tensor, name, axis, product = self._known[id(args[place])]
        if op in ALONG_LAST or op in PRODUCTS:
            over = -1 if op in ALONG_LAST or place == 0 or tensor.dim() == 1 else -2
            if not product and axis == over and place < 2:
                self.found.add(name)
        elif op == "sum":
            over = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
            several = range(tensor.dim()) if over is None else over if isinstance(over, (tuple, list)) else [over]
            if axis % tensor.dim() in [i % tensor.dim() for i in several]:
                self.found.add(name)
            else:
                self._again(tensor, name, axis, product, out)
        elif op in TIMES and len(args) == 2:
            other = args[1 - place]
            wide = isinstance(other, Tensor) and other.dim() >= -axis and other.shape[axis] == tensor.shape[axis]
            if not (product and wide):
                self.know(out, name, axis, product or wide)
        elif op in VIEWS:
            self._again(tensor, name, axis, product, out)

    def _again(self, tensor: Tensor, name: str, axis: int, product: bool, out: Tensor) -> None:
        """Follow another view, if its shape tells which axis is which."""
        places = [i - out.dim() for i, size in enumerate(out.shape) if size == tensor.shape[axis]]
        if len(places) == 1:
            self.know(out, name, places[0], product)

    def _einsum(self, args: Any) -> None:
        if not args or not isinstance(args[0], str) or "->" not in args[0] or "..." in args[0]:
            return
        left, _, result = args[0].replace(" ", "").partition("->")
        for letters, tensor in zip(left.split(","), args[1:], strict=False):
            if id(tensor) in self._known and len(letters) == tensor.dim():
                _, name, axis, product = self._known[id(tensor)]
                if not product and letters[axis] not in result:
                    self.found.add(name)
