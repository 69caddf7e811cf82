"""What every parameter did in a forward pass: the inputs that it met, and the gradients that come back to its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lazyrich.errors import TangentError, out_of_memory
from lazyrich.tangent.dense import DenseLayer, dense_row, dense_signals
from lazyrich.tangent.function import STILL, NetworkFunction, differentiable, unremarked
from lazyrich.tangent.mixing import differ, refuse_other, spread
from lazyrich.tangent.path import Owner, inside, past

# torch's function -> place of the weight among its arguments, and its name
WEIGHTED: dict[Callable[..., Any], tuple[int, str]] = {
    F.linear: (1, "weight"),
    F.conv1d: (1, "weight"),
    F.conv2d: (1, "weight"),
    F.conv3d: (1, "weight"),
    F.conv_transpose1d: (1, "weight"),
    F.conv_transpose2d: (1, "weight"),
    F.conv_transpose3d: (1, "weight"),
    torch.conv1d: (1, "weight"),
    torch.conv2d: (1, "weight"),
    torch.conv3d: (1, "weight"),
}
TABLES = (F.embedding, torch.embedding)
WINDOWED = (F.conv1d, F.conv2d, torch.conv1d, torch.conv2d)
SCALED = (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
SHIFTED = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
MOVING = ("argsort", "sort", "msort", "topk", "gather", "take_along_dim", "index_select", "scatter", "index_add", "unique")
TOGETHER = 2**22  # entries of a layer's signals that go back together: they stay in the caches
PROBED = 4  # samples on which a network is tried
SINGLE = (Tensor, int, float, str, torch.dtype)
SILENT = ("__get__", "size", "dim", "numel", "is_floating_point", "requires_grad", "detach")


@dataclass
class Use:
    """One call of a weighted operation: out = call(a, weight) + bias.

    Attributes:
        weight: name of its weight, or None where that is no parameter.
        bias: name of its bias, or None.
        linear: whether it is a dense layer.
        call: the operation without bias, ``call(a, weight)``.
        a: its input (N, ...), detached.
        out: its output (N, ...), in the graph; channels are its last axis for dense layers, else its second.
        delta: gradients of the outputs, (K, N, ...).
        shape_of_weight: of the weight.
        window: stride, padding, dilation and groups of a convolution over one or two axes, else None.
        lookup: for an embedding, the index whose entry is not trained (-1 for none), else None.
        entrywise: the parameter multiplies the input, or is added to it, entry by entry; the same for all samples.
    """

    weight: str | None
    bias: str | None
    linear: bool
    call: Callable[[Tensor, Tensor], Tensor]
    a: Tensor
    out: Tensor
    delta: Tensor
    shape_of_weight: tuple[int, ...]
    window: tuple[Any, ...] | None = None
    lookup: int | None = None
    entrywise: bool = False

    @property
    def sums(self) -> bool:
        """Whether the weight's gradient is the sum over places of signal times activation: dense, and ungrouped windows."""
        return self.linear or (self.window is not None and self.window[3] == 1)

    @property
    def vectors(self) -> bool:
        """Whether it is a dense layer that reads one vector a sample."""
        return self.linear and self.a.dim() == 2

    @property
    def names(self) -> frozenset[str]:
        """Of its parameters."""
        return frozenset(name for name in (self.weight, self.bias) if name is not None)


class Misfit(Exception):
    """Some samples go through other operations than others: the parameters whose gradients must be taken sample by sample."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(names)))
        self.names = names


@dataclass(frozen=True)
class Tape:
    """One pass of N samples.

    Attributes:
        uses: of the parameters that only weighted operations read.
        rest: per-sample gradients (N, K, entries) of the others by name.
        shape: (N, K).
    """

    uses: tuple[Use, ...]
    rest: Mapping[str, Tensor]
    shape: tuple[int, int]


def tape(function: NetworkFunction, x: Tensor, unknown: frozenset[str] | None = None) -> Tape:
    """Forward once, backward once for all K outputs together.

    Args:
        function: the network.
        x: samples.
        unknown: names whose gradients are taken sample by sample; None finds them out.
    """
    if row := dense_row(function.model, function.parameters, x):
        return _dense(function, row, x)
    uses, found, out, did = _forward(function, x)
    unknown = found if unknown is None else unknown
    if found - unknown:  # these samples take another course than those that were tried
        raise Misfit(found - unknown)
    uses = [use for use in uses if use.names - unknown]
    if odd := frozenset().union(*(use.names for use in uses if not len(use.a) == len(x) == len(use.out))):
        raise Misfit(odd)
    for at in () if function.plain(x) else _again(len(x), did.moves):
        if odd := _elsewhere(function, x, at, uses, unknown, out.detach()):
            raise Misfit(odd)
    with differentiable(function.model), unremarked():
        deltas = _backward(out, [use.out for use in uses])
    for use, delta in zip(uses, deltas, strict=True):
        use.delta = delta
        use.out = use.out.detach()
        use.weight = None if use.weight in unknown else use.weight
        use.bias = None if use.bias in unknown else use.bias
    n, k = out.shape
    return Tape(tuple(uses), _rest(function, x, sorted(unknown)), (n, k))


def _dense(function: NetworkFunction, row: Sequence[DenseLayer], x: Tensor) -> Tape:
    """The record of dense layers and curves in a row."""
    out, layers = dense_signals(row, x)
    if not torch.isfinite(out).all():
        raise TangentError(f"{type(function.model).__name__} gives outputs that are not finite on some of these samples")
    uses = [
        Use(*layer.names, True, F.linear, a, z, delta.transpose(0, 1), tuple(layer.weight.shape))
        for layer, a, z, delta in layers
    ]
    return Tape(tuple(use for use in uses if use.names), {}, (out.shape[0], out.shape[1]))


def _again(n: int, moves: bool) -> list[list[int]]:
    """Which samples are run again: some without the others, and all in reverse where places are looked up.

    The first goes more than once behind some, which a network that turns or shifts its samples would not leave there; never as
    many as before go together, so that nothing else is taken for samples, and fewer beyond what has been checked.
    """
    some = [*spread(n), *[0] * (n if n < 5 else 1 if n == 5 else 2)]
    return [some, list(range(n))[::-1]] if moves and n > 1 else [some]


def _elsewhere(
    function: NetworkFunction, x: Tensor, at: list[int], uses: list[Use], unknown: frozenset[str], out: Tensor
) -> frozenset[str]:
    """Parameters whose operation does not hold a sample at its own place of axis 0: samples sorted by their data, other axes."""
    found, _, again, _ = _forward(function, x[at])
    if differ(out[at], again.detach()):
        refuse_other(function, x)
    other = [use for use in found if use.names - unknown]
    if [use.names for use in other] != [use.names for use in uses]:  # its course depends on the data
        return frozenset().union(*(use.names for use in (*uses, *other)))
    pairs = zip(uses, other, strict=True)
    return frozenset().union(*(use.names for use, there in pairs if not _agree(use.a[at], there.a)))


def _agree(a: Tensor, b: Tensor) -> bool:
    """Equal rows up to rounding, which depends on how many samples go together; each row has a scale of its own."""
    if a.shape != b.shape:
        return False
    a, b = (torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in (a, b))
    a, b = (t.reshape(len(t), -1) for t in (a, b))
    if a.is_floating_point() and a.shape[1]:  # mostly all is finite, which is told in a tenth of the time
        apart, size = _widest(a - b), _widest(b)
        if bool(((apart <= 1e-3 * size) & size.isfinite()).all()):
            return True
    a, b = a.double(), b.double()
    scale = b.nan_to_num(posinf=0.0, neginf=0.0).abs().amax(1, keepdim=True)
    return bool(((a == b) | ((a - b).abs() <= 1e-3 * scale)).all())


def _widest(rows: Tensor) -> Tensor:
    return torch.maximum(rows.amax(1), rows.amin(1).neg())


@dataclass(frozen=True)
class Probe:
    """What a network does with its parameters, found out on a few samples.

    Attributes:
        unknown: parameters that something else than a weighted operation reads.
        gradients: weights whose gradients are taken sample by sample, as wholes.
        outputs: number of outputs.
        signals: entries of all backward signals of one sample and output.
        looks_up: whether it reads tables, as embeddings do.
    """

    unknown: frozenset[str]
    gradients: frozenset[str]
    outputs: int
    signals: int
    looks_up: bool


def probe(function: NetworkFunction, x: Tensor) -> Probe:
    """Try out how each parameter is read, on samples spread over the whole batch, as the first few may be alike."""
    if row := dense_row(function.model, function.parameters, x):
        sizes = [len(layer.weight) for layer in row]
        return Probe(frozenset(), frozenset(), sizes[-1], sum(sizes), False)
    some = x[[i * len(x) // PROBED for i in range(PROBED)]] if len(x) > PROBED else x
    uses, unknown, out, did = _forward(function, some)
    known = [use for use in uses if use.names - unknown]
    gradients = frozenset(use.weight for use in known if use.weight and not use.sums)
    return Probe(unknown, gradients, out.shape[1], sum(use.out.numel() // len(some) for use in known), did.looks_up)


def _forward(function: NetworkFunction, x: Tensor) -> tuple[list[Use], frozenset[str], Tensor, _Recorder]:
    """The uses, the parameters read in another way, the outputs, and what else was recorded."""
    live = {name: p.detach().requires_grad_() for name, p in function.parameters.items()}
    with torch.enable_grad(), _Recorder(live) as recorder:
        out = function(live, x)
    unknown = recorder.unknown | past(out, recorder.names, recorder.owners)
    return recorder.uses, frozenset(unknown), out, recorder


class _Recorder(TorchFunctionMode):
    def __init__(self, live: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = {id(p): name for name, p in live.items()}
        self.live = live
        self.uses: list[Use] = []
        self.owners: dict[Any, Owner] = {}
        self.unknown: set[str] = set()
        self.moves = False  # samples to other places, by their data
        self.looks_up = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.moves = self.moves or _moves(func, args)
        self.looks_up = self.looks_up or func in TABLES
        out = func(*args, **kwargs)
        given = _leaves(*args, *kwargs.values())
        read = [name for t in given if (name := self.names.get(id(t))) is not None]
        if not read:
            return out
        made = [t for t in _leaves(out) if isinstance(t, Tensor)]
        wrapped = any(map(is_functorch_wrapped_tensor, made))  # a derivative or a map of torch.func inside of the network
        if made and not wrapped and not any(t.requires_grad for t in made):  # no_grad, or the forward of an autograd.Function
            return out
        use = None if wrapped else self._use(func, args, kwargs, out, read)
        if use is not None:
            self.uses.append(use)
            self.owners.update((node, (out.grad_fn, use.names)) for node in inside(out, given))
            return out.clone()  # operations in place behind it do not reach the record
        if getattr(func, "__name__", "") not in SILENT or isinstance(out, Tensor):
            self.unknown.update(read)
        return out

    def _use(self, func: Any, args: Any, kwargs: Any, out: Tensor, read: list[str]) -> Use | None:
        """The record of an operation whose gradients are known."""
        if func in WEIGHTED:
            return self._weighted(func, args, kwargs, out)
        if func is F.embedding and len(read) == 1 and _is_plain(args, kwargs):
            return self._lookup(read[0], args, kwargs, out)
        if len(read) == 1 and (func in SCALED or func in SHIFTED) and not kwargs and self._is_entrywise(args, out):
            return self._entrywise(func in SCALED, read[0], args, out)
        return None

    def _lookup(self, name: str, args: Any, kwargs: Any, out: Tensor) -> Use:
        padding = kwargs.get("padding_idx", args[2] if len(args) > 2 else None)
        size, untrained = tuple(self.live[name].shape), -1 if padding is None else padding % len(self.live[name])
        return Use(name, None, False, F.embedding, args[0], out, out, size, lookup=untrained)

    def _is_entrywise(self, args: Any, out: Tensor) -> bool:
        p, a = sorted(args, key=lambda t: id(t) not in self.names)
        if not isinstance(a, Tensor) or a.dim() != out.dim() or out.dim() < 2:
            return False
        return len(a) == len(out) and (p.dim() < out.dim() or (p.dim() == out.dim() and len(p) == 1))

    def _entrywise(self, scaled: bool, name: str, args: Any, out: Tensor) -> Use:
        a = next(t for t in args if id(t) not in self.names).detach()
        weight, bias = (name, None) if scaled else (None, name)
        shape = tuple(self.live[name].shape)
        return Use(weight, bias, False, torch.mul if scaled else torch.add, a, out, out, shape, entrywise=True)

    def _weighted(self, func: Any, args: Any, kwargs: Any, out: Tensor) -> Use | None:
        place, key = WEIGHTED[func]
        a, weight = (args[0] if args else kwargs["input"]), (args[place] if len(args) > place else kwargs[key])
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        rest, more = args[3:], {k: v for k, v in kwargs.items() if k not in ("input", "weight", "bias")}
        name = self.names.get(id(weight))
        if id(a) in self.names or (bias is not None and id(bias) not in self.names and bias.requires_grad):
            return None
        if func is F.linear and (weight.dim() < 2 or (bias is not None and bias.shape != weight.shape[:1])):
            return None  # torch takes a vector for a weight, and spreads a bias of other shapes over outputs and places

        def call(a: Tensor, weight: Tensor) -> Tensor:
            return func(a, weight, None, *rest, **more)

        bias_name = None if bias is None else self.names.get(id(bias))
        window = _window(rest, more) if func in WINDOWED else None
        return Use(name, bias_name, func is F.linear, call, a.detach(), out, out, tuple(weight.shape), window)


def _leaves(*given: Any) -> Sequence[Any]:
    """What there is within lists and the like; mostly there are none, which is told ten times quicker than torch walks a tree."""
    return given if all(t is None or isinstance(t, SINGLE) for t in given) else tree_leaves(given)


def _moves(func: Any, args: Any) -> bool:
    """Whether it may put samples elsewhere by their data."""
    if func is Tensor.__getitem__:
        return any(isinstance(t, (Tensor, list)) for t in (args[1] if isinstance(args[1], tuple) else args[1:]))
    return getattr(func, "__name__", "") in MOVING


def _is_plain(args: Any, kwargs: Any) -> bool:
    """An embedding without renormalisation or scaling by frequency, which read or write the whole table."""
    places = {"max_norm": 3, "scale_grad_by_freq": 5}
    max_norm, by_frequency = (kwargs.get(key, args[at] if len(args) > at else None) for key, at in places.items())
    return max_norm is None and not by_frequency and args[0].dim() > 1


def _window(rest: tuple[Any, ...], more: Mapping[str, Any]) -> tuple[Any, ...] | None:
    names = ("stride", "padding", "dilation", "groups")
    found = dict(zip(names, (1, 0, 1, 1), strict=True)) | dict(zip(names, rest, strict=False)) | dict(more)
    return None if isinstance(found["padding"], str) else tuple(found[name] for name in names)


def _backward(out: Tensor, at: list[Tensor]) -> list[Tensor]:
    """Gradients of every output at some tensors, (K, N, ...); samples do not mix, so the sum over them is taken."""
    if not at:
        return []
    if not out.requires_grad:
        raise TangentError(STILL)
    reached = [t for t in at if t.requires_grad]
    if len(reached) < len(at):  # what was computed under no_grad
        found = iter(_backward(out, reached))
        return [next(found) if t.requires_grad else t.new_zeros(out.shape[1], *t.shape) for t in at]
    k = out.shape[1]
    seeds = torch.eye(k, dtype=out.dtype, device=out.device)[:, None, :].expand(k, *out.shape)
    passes = min(k, -(-k * max(t.numel() for t in at) // TOGETHER))
    if passes == 1:
        found = _gradients(out, at, seeds)
        return [t.new_zeros(k, *t.shape) if g is None else g.detach() for g, t in zip(found, at, strict=True)]
    deltas = [t.new_zeros(k, *t.shape) for t in at]
    for rows in torch.arange(k).tensor_split(passes):
        some = slice(int(rows[0]), int(rows[-1]) + 1)
        for delta, g in zip(deltas, _gradients(out, at, seeds[some]), strict=True):
            if g is not None:
                delta[some] = g
    return deltas


def _gradients(out: Tensor, at: list[Tensor], seeds: Tensor) -> tuple[Tensor | None, ...]:
    """Of some outputs, (k, N, ...); None where they do not depend on a tensor."""
    if len(seeds) > 1:
        try:
            return torch.autograd.grad(out, at, seeds, is_grads_batched=True, allow_unused=True, retain_graph=True)
        except RuntimeError as error:  # some backward has no batched form
            if out_of_memory(error):
                raise
    single = [torch.autograd.grad(out, at, seed, allow_unused=True, retain_graph=True) for seed in seeds]
    return tuple(None if g[0] is None else torch.stack(g) for g in zip(*single, strict=True))


@unremarked()
def _rest(function: NetworkFunction, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Per-sample gradients (N, K, entries) of some tensors."""
    if not names:
        return {}
    chosen = {name: function.parameters[name] for name in names}
    try:
        each = torch.func.vmap(torch.func.jacrev(lambda p, one: function.one(p, one)), (None, 0))(chosen, x)
    except (RuntimeError, TangentError) as error:  # an operation without a batched form, such as a recurrent layer
        if out_of_memory(error):
            raise
        each = _one_by_one(function, x, chosen)
    return {name: g.reshape(*g.shape[:2], -1) for name, g in each.items()}


def _one_by_one(function: NetworkFunction, x: Tensor, chosen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    live = {name: p.detach().requires_grad_() for name, p in chosen.items()}
    rows: dict[str, list[Tensor]] = {name: [] for name in live}
    for one in x:
        with torch.enable_grad():
            out = function.one(live, one)
        if not out.requires_grad:  # a sample that meets none of them
            found: Any = [(None,) * len(live)] * len(out)
        else:
            found = [torch.autograd.grad(f, list(live.values()), retain_graph=True, allow_unused=True) for f in out]
        for (name, p), *grads in zip(live.items(), *found, strict=True):
            rows[name].append(torch.stack([torch.zeros_like(p) if g is None else g for g in grads]))
    return {name: torch.stack(found) for name, found in rows.items()}
