"""Attentions of one's own: which modules are some, how large their heads are, and by which law they scale their logits.

No attribute says so in every code, so a module is run by itself on inputs of our own and what it does is watched: for the size of
its heads on the meta device, for its law with weights that give queries and keys entries of size one.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NAMES = ("head_dim", "head_size", "attention_head_size", "d_head", "dim_head", "dim_per_head", "d_k", "d_kv", "qk_head_dim")
TORCHS = "scaled_dot_product_attention"
PRODUCTS = ("matmul", "__matmul__", "bmm", "baddbmm", "einsum")
MOVES = {
    *PRODUCTS,
    "transpose",
    "permute",
    "swapaxes",
    "mT",
    "rearrange",
}  # one of them stands in any product of queries and keys
LARGEST = 2**24  # parameters of a module that is run with real numbers
BATCH, TOKENS, DRAWS = 8, 8, 16
MASKED = 1e4  # logits beyond it are masks


@dataclass(frozen=True)
class Heads:
    """What was seen of an attention: the size of a head, the root mean square of its logits (0 if not run), and who made them.

    ``scaled`` where torch made them with a scale of the caller's own.
    """

    size: int
    logits: float
    by_hand: bool
    scaled: bool = False


NONE = Heads(0, 0.0, False)


def head_size(module: nn.Module) -> int | None:
    """The size of a module's heads: its ``head_dim``, else what it does on the meta device, else a usual name; None if none tells.

    Example:
        >>> head_size(nn.MultiheadAttention(8, 2)), head_size(nn.Linear(2, 2))
        (4, None)
    """
    if (size := _number(module, NAMES[0])) is not None:
        return size
    if not attends(module):
        return None
    seen = watched(module) or watched(module, real=True)  # a forward that fetches numbers has none on the meta device
    named = next((size for name in NAMES if (size := _number(module, name)) is not None), None)
    return named if seen is None else seen.size or None


def attends(module: nn.Module) -> bool:
    """Whether a module's own forward may be an attention's: by what it and the functions that it calls speak of.

    Example:
        >>> attends(nn.Linear(2, 2))
        False
    """
    if type(module).__module__.partition(".")[0] == "torch":
        return False
    names = _names(type(module))
    soft = "softmax" in names or any(isinstance(child, nn.Softmax) for child in module.children())
    return TORCHS in names or (soft and bool(MOVES & names))


def refuses(module: nn.Module) -> bool:
    """Whether a module that may attend takes none of our inputs, or goes around its call to torch's attention with them."""
    seen = watched(module) or watched(module, real=True)
    if not attends(module):
        return False
    return not _routes(module) if seen is None else seen == NONE and TORCHS in _names(type(module))


def watched(module: nn.Module, real: bool = False, seed: int = 0) -> Heads | None:
    """Run a module by itself on inputs of our own, and see its attention: ``NONE`` if it has none, None if it takes other inputs.

    Args:
        module: is left as it is.
        real: with numbers, of which the logits are; else only shapes are made.
        seed: of the numbers.
    """
    if real and sum(p.numel() for p in module.parameters()) > LARGEST:
        return None
    generator, found = torch.Generator().manual_seed(seed), None
    for args in inputs(module, generator if real else None):
        watch = _run(module, args, generator if real else None)
        if watch.found:
            return watch.found
        found = NONE if watch.ended else found
    return found


def _run(module: nn.Module, args: tuple[Tensor, ...], generator: torch.Generator | None) -> _Watch:
    """What was seen of a copy of a module on some inputs, to its end or until it raised something."""
    watch = _Watch()
    watch.ended = ended(module, args, generator, lambda twin: watch)
    return watch


def ended(
    module: nn.Module,
    args: tuple[Tensor, ...],
    generator: torch.Generator | None,
    watch: Callable[[nn.Module], TorchFunctionMode],
) -> bool:
    """Whether a copy of a module comes to its end on some inputs, under a watch that is made for the copy."""
    try:
        twin = twin_of(module, generator)
        with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.device("cpu" if generator else "meta"), watch(twin):
            twin(*args)
    except Exception:  # somebody's forward may raise anything on inputs that are not its own
        return False
    return True


def _routes(module: nn.Module) -> bool:
    """Whether all softmaxes of a module choose between what one linear map gives, as those of routers of experts do."""
    for args in inputs(module, None):
        for given in (args, tuple(one[:, 0] for one in args)):
            watch = _run(module, given, None)
            if watch.ended and watch.chosen:
                return all(watch.chosen)
    return False


def twin_of(module: nn.Module, generator: torch.Generator | None) -> nn.Module:
    """A copy with stand-ins for all tensors, so that whatever a forward leaves behind is left on the copy."""
    memo: dict[int, Any] = {}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        other = _stand_in(name, tensor, generator) if generator else tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(other, requires_grad=False) if isinstance(tensor, nn.Parameter) else other
    return copy.deepcopy(module, memo)


def law(small: nn.Module, large: nn.Module) -> float | None:
    """The power of the heads' size by which logits of queries and keys of size one grow: 0 for 1/sqrt(d), -1/2 for 1/d."""
    a, b = watched(small, real=True), watched(large, real=True)
    if not a or not b or a.size == b.size:
        return None
    sizes = _logits(small), _logits(large)
    return math.log(sizes[1] / sizes[0]) / math.log(b.size / a.size) if 0.0 not in sizes else None


def _logits(module: nn.Module) -> float:
    """Root mean square of a module's logits, over several draws of small weights, which scatter; 0 where nothing is seen."""
    draws = max(1, min(DRAWS, 2**18 // max(1, sum(p.numel() for p in module.parameters()))))
    seen = [watched(module, real=True, seed=seed) for seed in range(draws)]
    return math.sqrt(sum(one.logits**2 for one in seen if one) / draws) if all(seen) else 0.0


def source_of(module: nn.Module) -> str:
    """A module's forward with its file and line, without folders."""
    code = inspect.unwrap(type(module).forward).__code__
    return f"{type(module).__name__}.forward, {Path(code.co_filename).name}:{code.co_firstlineno}"


class _Watch(TorchFunctionMode):
    """While it is entered, notes the first attention."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Heads | None = None
        self.ended = False
        self.chosen: list[bool] = []  # of every softmax, whether it is of one linear map
        self._summed: int | None = None
        self._linear: dict[int, Tensor] = {}  # what one linear map gave; held, for an id may come again

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == TORCHS:
            self.chosen.append(False)
            self.found = self.found or _of_torchs(args, kwargs)
        elif name in PRODUCTS:
            self._summed = _summed(name, args) or self._summed
        elif name == "softmax":
            logits = [*args, *kwargs.values()][0]
            self.chosen.append(id(logits) in self._linear)
            if self.found is None and self._summed and not self.chosen[-1]:
                self.found = Heads(self._summed, _size(logits), True)
        out = func(*args, **kwargs)
        self._follow(name, (*args, *kwargs.values()), out)
        return out

    def _follow(self, name: str, given: Sequence[Any], out: Any) -> None:
        """A linear map's output stays one until it meets another activation."""
        met = sum(isinstance(one, Tensor) and id(one) in self._linear for one in given)
        if name == "linear" or (met == 1 and name not in PRODUCTS):
            several = out if isinstance(out, (tuple, list)) else [out]
            self._linear |= {id(one): one for one in several if isinstance(one, Tensor)}


def _of_torchs(args: Any, kwargs: dict[str, Any]) -> Heads:
    """The heads of a call to torch's attention."""
    q, k = [*args, *(kwargs[name] for name in ("query", "key")[len(args) :])][:2]
    scale = kwargs.get("scale")
    if q.dim() > 3 and k.shape[-3] < q.shape[-3]:  # grouped queries
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
    own = q.shape[-1] ** -0.5
    given = scale is not None and not math.isclose(scale, own, rel_tol=1e-6)
    return Heads(q.shape[-1], _size((q @ k.mT) * (own if scale is None else scale)), False, given)


def _summed(name: str, args: Any) -> int | None:
    """What a product of two activations sums over; a matrix of two axes is a weight."""
    if name == "einsum":
        return _summed_by_einsum(*args) if isinstance(args[0], str) and len(args) == 3 else None
    first, second = args[1:3] if name == "baddbmm" else args[:2]
    return first.shape[-1] if min(first.dim(), second.dim()) > 2 else None


def _summed_by_einsum(text: str, first: Tensor, second: Tensor) -> int | None:
    left, _, out = text.replace(" ", "").replace("...", "").partition("->")
    a, _, b = left.partition(",")
    if min(first.dim(), second.dim()) < 3:
        return None
    return math.prod(first.shape[i - len(a)] for i, letter in enumerate(a) if letter in b and letter not in out)


def _size(logits: Tensor) -> float:
    """Root mean square of what is not masked; 0 where there are no numbers."""
    if logits.is_meta:
        return 0.0
    kept = logits[logits.isfinite() & (logits.abs() < MASKED)]
    return float(kept.square().mean().sqrt()) if len(kept) else 0.0


def _stand_in(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Weights that keep entries at size one, norms and masks that do nothing."""
    shape = tensor.shape
    if not tensor.is_floating_point():
        return torch.zeros(shape, dtype=tensor.dtype)
    if len(shape) < 2 or shape.numel() == 0:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    if not isinstance(tensor, nn.Parameter):
        return torch.ones(shape)
    return torch.randn(shape, generator=generator) / math.sqrt(shape[1:].numel())


def inputs(module: nn.Module, generator: torch.Generator | None) -> Iterator[tuple[Tensor, ...]]:
    """What a module may take: tokens, vectors in a row, pictures; once, or as query, key and value."""
    shapes: dict[tuple[int, ...], None] = {}
    for child in module.modules():
        weight = getattr(child, "weight", None)
        if isinstance(child, nn.Embedding):
            tokens = torch.zeros(BATCH, TOKENS, dtype=torch.long)
            yield (tokens if generator else tokens.to("meta"),)
        elif isinstance(child, nn.Conv2d):
            shapes[BATCH, child.in_channels, 4, TOKENS // 4] = None
        elif isinstance(weight, Tensor) and weight.dim() in (1, 2):
            shapes[BATCH, TOKENS, weight.shape[-1]] = None
    for parameter in module.parameters():
        shapes |= {(BATCH, TOKENS, size): None for size in parameter.shape[:2]} if parameter.dim() > 1 else {}
    for shape in shapes:
        make = lambda s=shape: torch.randn(s, generator=generator) if generator else torch.empty(s, device="meta")  # noqa: E731
        yield (make(),)
        yield (make(), make(), make())


def _number(module: nn.Module, name: str) -> int | None:
    size = getattr(module, name, None)
    return size if isinstance(size, int) and not isinstance(size, bool) else None


def _names(kind: type[nn.Module]) -> set[str]:
    """All names in a class's forward and in the functions that it calls, its own and those of its file."""
    found: set[str] = set()
    left, done = [getattr(inspect.unwrap(kind.forward), "__code__", None)], set()
    known = getattr(inspect.unwrap(kind.forward), "__globals__", {})
    while left:
        code = left.pop()
        if not isinstance(code, CodeType) or code in done:
            continue
        done.add(code)
        found |= set(code.co_names)
        holders = [*(vars(one) for one in kind.__mro__), known]  # also what super() reaches
        called = [holder.get(name) for name in code.co_names for holder in holders]
        own = [f for f in called if isinstance(f, FunctionType) and f.__module__.partition(".")[0] != "torch"]
        left += [*(f.__code__ for f in own), *code.co_consts]
    return found
