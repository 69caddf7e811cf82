"""What a network's output is read out with: the weights that a division of the output goes into, with their biases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lazyrich.errors import PlanError
from lazyrich.family import Family, Role, TensorInfo
from lazyrich.family.parametrized import place
from lazyrich.scaling.attention import BATCH, LARGEST, ended, inputs

LOOKUPS = ("Embedding", "EmbeddingBag")
SIDES = (8, 28, 32, 64)  # of pictures


def readouts(family: Family) -> frozenset[str]:
    """Tensors of fixed outputs that no other weight follows: of several the network tells, run on inputs of our own.

    Tables that are read out with too, tied, are among them.

    Raises:
        PlanError: if several may be readouts and the network takes none of our inputs, or none of them is the last.

    Example:
        >>> net = lambda n: nn.Sequential(nn.Linear(3, n), nn.Linear(n, 4), nn.Linear(4, n), nn.Tanh(), nn.Linear(n, 2))
        >>> sorted(readouts(Family(net, base=8)))
        ['4.bias', '4.weight']
    """
    infos = family.tensors
    narrow = [name for name, info in infos.items() if Role.OUTPUT in (info.role, *info.uses) and not info.norm_of]
    small = [name for name, info in infos.items() if info.role is Role.FIXED and _sums(info)]
    model = family.sketch(family.base)
    last = unfollowed(model, {name for name, info in infos.items() if _sums(info)})
    found = set(narrow) if last is None else last & {*narrow, *small}
    if narrow and (not found or (last is None and len(narrow) > 1)):
        raise PlanError(UNTOLD.format(", ".join(f"'{name}'" for name in narrow), type(model).__name__))
    owners = {place(one)[0] for name in found for one in (name, *infos[name].aliases)}
    biases = {n for n, info in infos.items() if info.role is Role.FIXED and place(n)[1] == "bias" and place(n)[0] in owners}
    gains = {name for name, info in infos.items() if info.norm_of in found}
    return frozenset(found | biases | gains)


UNTOLD = (
    "got gamma other than 1, which divides the network's output, and nothing that tells what it is read out with, of {0}. Expected "
    "a layer of its own at the end of a {1} that runs on one input of tokens, vectors or pictures. Take gamma = 1 and divide "
    "the output by gamma in the network's own forward, with rates times gamma^2 (gamma for optimizers whose steps have a size of "
    "their own), which is the same"
)


def _sums(info: TensorInfo) -> bool:
    return bool(info.axes.summed or not info.axes.known) and (info.kind not in LOOKUPS or Role.OUTPUT in info.uses)


def unfollowed(module: nn.Module, weights: set[str]) -> frozenset[str] | None:
    """Those of a module's weights that reach its output and meet no other on the way; None if it takes none of our inputs.

    Example:
        >>> unfollowed(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), {"0.weight", "2.weight"})
        frozenset({'2.weight'})
    """
    small = sum(p.numel() for p in module.parameters()) <= LARGEST
    for generator in (None, *([torch.Generator().manual_seed(0)] if small else [])):
        for args in (*_flat(module, generator), *inputs(module, generator)):
            watches: list[_Watch] = []

            def watch(twin: nn.Module, args: Any = args, watches: list[_Watch] = watches) -> _Watch:
                watches.append(_Watch(twin, weights, args))
                return watches[-1]

            if ended(module, args, generator, watch) and watches[-1].reached:
                return watches[-1].reached - watches[-1].followed
    return None


def _flat(module: nn.Module, generator: torch.Generator | None) -> Iterator[tuple[Tensor, ...]]:
    """Vectors by themselves, also of two parts that the network takes apart, and pictures and rows of usual sizes."""
    shapes: dict[tuple[int, ...], None] = {}
    sizes: dict[int, None] = {}
    for child in module.modules():
        if isinstance(child, (nn.Linear, nn.Bilinear)):
            sizes[child.weight.shape[1]] = None
        elif isinstance(child, nn.Unflatten):
            sizes[math.prod(child.unflattened_size)] = None
        elif isinstance(child, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            shapes |= {(BATCH, child.in_channels, *[side] * (child.weight.dim() - 2)): None for side in SIDES}
    several = list(sizes)[:8]
    sizes |= {a + b: None for i, a in enumerate(several) for b in several[:i]}
    for shape in [*((BATCH, size) for size in sizes), *shapes]:
        yield (torch.randn(shape, generator=generator) if generator else torch.empty(shape, device="meta"),)


class _Watch(TorchFunctionMode):
    """While it is entered, follows which weights what comes from the inputs has met."""

    def __init__(self, module: nn.Module, weights: set[str], args: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.followed, self.reached, self._sum = frozenset[str](), frozenset[str](), weights
        names = module.named_parameters()
        self._held: list[Any] = [*args]  # an id may come again
        self._loose = {id(parameter): frozenset([name]) for name, parameter in names}  # of what no input has met
        self._met = dict.fromkeys(map(id, args), frozenset[str]())
        module.register_forward_hook(self._end)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given, name = [*_tensors((args, kwargs or {}))], getattr(func, "__name__", "")
        changed = [*_tensors(out), *(given[:1] if name == "__setitem__" or name.rstrip("_") + "_" == name else [])]
        self._held += changed
        met = [self._met[id(one)] for one in given if id(one) in self._met]
        loose = frozenset().union(*(self._loose.get(id(one), ()) for one in given if id(one) not in self._met))
        if not met:
            self._loose |= {id(one): loose for one in changed if loose}
            return out
        before, summed = frozenset().union(*met), loose & self._sum
        if summed:
            self.followed = (self.followed | before) - summed  # of a weight that is used twice its last use counts
        for one in changed:
            self._met[id(one)] = before | summed
        return out

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        self.reached = frozenset().union(*(self._met.get(id(one), ()) for one in _tensors(output)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, Mapping)):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(one)
