"""The tangent kernel of a finite network, from activations and backward signals instead of Jacobians."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lazyrich.errors import TangentError
from lazyrich.tangent.function import NetworkFunction
from lazyrich.tangent.inner import inner
from lazyrich.tangent.tape import Misfit, Probe, Tape, Use, probe, tape

Outputs = Literal["full", "trace", "diagonal"]
BUDGET = 2**26  # entries of the largest temporary array of a block
MOVED = 60  # products that take as long as one number to memory and back, measured
MET = 2**20  # entries of signals that met activations, worked on at a time: they stay in the caches
STRIPS = 4  # of a diagonal block, of which only what lies right of the diagonal is multiplied
MOST = 2**32  # bytes of a result beyond which it is refused


def ntk_of(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None = None,
    outputs: Outputs = "full",
    *,
    per: Literal["tensor", "layer"] | None = None,
    rates: Mapping[str, float] | None = None,
    block: int | None = None,
) -> Any:
    """The empirical tangent kernel Theta_kl(x, x') = sum_t rate_t <df_k/dtheta_t(x), df_l/dtheta_t(x')>.

    For a dense layer a tensor's part is the activations' Gram times the backward signals' Gram, (a a') (delta_k delta_l');
    where weights are shared over positions, or read several times, it is the Gram of per-sample gradients, a slice of the
    tensor at a time. Whatever reads a parameter in another way (norm gains, positions, custom products) gets per-sample
    gradients by autograd. The generalised Gauss-Newton matrix of the squared loss (1/2) sum ||f - y||^2 is J^T J: it has the same
    eigenvalues beyond zeros as this J J^T.

    Args:
        model: any module that treats samples one by one; it stays as it is.
        x1: samples (N1, ...).
        x2: samples (N2, ...); x1 itself by default, then half of the blocks are computed.
        outputs: "full" for all pairs of outputs, "trace" for the sum of equal ones, "diagonal" for each of these.
        per: "tensor" for a dictionary by tensor name, "layer" by module path; their sum is the whole.
        rates: learning-rate factor by tensor name, 1 where it is not given: the kernel that a plan trains with.
        block: samples a block; by default so many that temporary arrays stay below half a gigabyte.

    Returns:
        (N1, N2, K, K), (N1, N2) or (N1, N2, K), in the parameters' dtype.

    Raises:
        TangentError: for networks that mix samples or draw at random, inputs that do not fit, names that are no tensors, and
            results that do not fit in memory, with what they need.

    Example:
        >>> net = nn.Linear(3, 2)
        >>> ntk_of(net, torch.eye(3)).shape, ntk_of(net, torch.eye(3), outputs="trace")[0].tolist()
        (torch.Size([3, 3, 2, 2]), [4.0, 2.0, 2.0])
    """
    if outputs not in ("full", "trace", "diagonal") or per not in (None, "tensor", "layer"):
        raise TangentError(f"got outputs={outputs!r}, per={per!r}; outputs is full, trace or diagonal, per is tensor or layer")
    if block is not None and (not isinstance(block, int) or isinstance(block, bool) or block < 1):
        raise TangentError(f"got block={block!r}, expected a number of samples, at least 1")
    function = NetworkFunction(model)
    function.real()
    function.check(x1, "x1")
    if x2 is not None:
        function.check(x2, "x2")
        if x2.shape[1:] != x1.shape[1:]:
            raise TangentError(f"got x1 of shape {tuple(x1.shape)} and x2 of shape {tuple(x2.shape)}, expected equal samples")
    factors = function.rates(rates)
    keys = {name: _key(name, per) for name in factors}
    found = probe(function, x1)
    while True:
        try:
            whole = _blocks(function, x1, x2, outputs, keys, factors, found, block)
            return whole if per else whole[""]
        except Misfit as odd:  # seen only now, as some samples go another way than the first few
            found = replace(found, unknown=found.unknown | odd.names)


def _blocks(
    function: NetworkFunction, x1: Tensor, x2: Tensor | None, outputs: Outputs, keys: Mapping[str, str],
    factors: Mapping[str, float], found: Probe, block: int | None,
) -> dict[str, Tensor]:  # fmt: skip
    """The result by key, block by block; of one batch with itself the blocks on and above the diagonal."""
    k, other = found.outputs, x1 if x2 is None else x2
    width = k if outputs == "full" else 1  # rows and columns that a sample has in the result
    whole = _room(len(x1), len(other), k, outputs, list(dict.fromkeys(keys.values())), function)
    size = block or _block(function, found, max(len(x1), len(other)))
    for i in range(0, len(x1), size):
        rows = tape(function, x1[i : i + size], found.unknown)
        for j in range(i if x2 is None else 0, len(other), size):
            columns = rows if x2 is None and i == j else tape(function, other[j : j + size], found.unknown)
            if [use.names for use in rows.uses] != [use.names for use in columns.uses]:  # the blocks go other ways
                raise Misfit(frozenset().union(*(use.names for use in (*rows.uses, *columns.uses))))
            at = (slice(i * width, (i + rows.shape[0]) * width), slice(j * width, (j + columns.shape[0]) * width))
            parts = {key: array[at] for key, array in whole.items()}
            _add(parts, rows, columns, factors, keys, outputs)
            for key, part in parts.items() if x2 is None else ():
                if i == j:
                    _mirror(part, width)
                else:
                    whole[key][at[1], at[0]] = part.transpose(0, 1)
    if outputs == "full":
        whole = {key: array.view(len(x1), k, len(other), k).transpose(1, 2) for key, array in whole.items()}
    return whole


def _add(
    parts: Mapping[str, Tensor],
    rows: Tape,
    columns: Tape,
    factors: Mapping[str, float],
    keys: Mapping[str, str],
    outputs: Outputs,
) -> None:
    """Add every tensor's part of a block, times its rate, to the array of its key; of a diagonal block perhaps the upper half."""
    reads = Counter(name for use in rows.uses for name in use.names)
    products = set()
    for first, second in zip(rows.uses, columns.uses, strict=True):
        if first.linear and first.a.dim() == 2 and all(reads[name] == 1 for name in first.names):
            products |= first.names
            rates: dict[str, list[float]] = {}  # by key, of the weight and of the bias, which share the signals' Gram
            for i, name in enumerate((first.weight, first.bias)):
                if name is not None and factors[name]:
                    rates.setdefault(keys[name], [0.0, 0.0])[i] = factors[name]
            if rates:
                _add_product(parts, first, second, rates, outputs)
    for name, factor in factors.items():
        if name in products or factor == 0:
            continue
        first, second = _read(rows, name), _read(columns, name)
        if name in rows.rest:
            part = _gram([(rows.rest[name], columns.rest[name])], outputs)
        elif _pairs_pay(name, first, outputs):
            part = _pairs(first, second, outputs)
        else:
            part = _gram(_slices(name, first, second), outputs)
        if part is not None:
            parts[keys[name]].add_(part, alpha=factor)


def _read(record: Tape, name: str) -> list[Use]:
    return [use for use in record.uses if name in use.names]


def _add_product(
    parts: Mapping[str, Tensor], first: Use, second: Use, rates: Mapping[str, Sequence[float]], outputs: Outputs
) -> None:
    """Add (rate_w a a' + rate_b) (delta_k delta_l') for a dense layer of vectors."""
    gram = first.a @ second.a.T
    factor = {key: gram * weight + bias for key, (weight, bias) in rates.items()}
    if outputs == "diagonal":
        signals = torch.einsum("kno,kmo->nmk", first.delta, second.delta)
        for key, by in factor.items():
            parts[key].addcmul_(signals, by[..., None])
        return
    d1 = first.delta.transpose(0, 1).flatten(1)  # (n, K O)
    d2 = d1 if first is second else second.delta.transpose(0, 1).flatten(1)
    k = first.delta.shape[0] if outputs == "full" else 1
    d1, d2 = d1.reshape(len(d1) * k, -1), d2.reshape(len(d2) * k, -1)
    strip = -(-len(gram) // STRIPS) if first is second else len(gram)
    for low in range(0, len(gram), strip):
        high, right = low + strip, low if first is second else 0
        signals = inner(d1[low * k : high * k], d2[right * k :])
        for key, by in factor.items():
            part = parts[key][low * k : high * k, right * k :]
            by = by[low:high, right:].repeat_interleave(k, 1)
            part.unflatten(0, (-1, k)).addcmul_(signals.unflatten(0, (-1, k)), by[:, None])


def _mirror(part: Tensor, width: int) -> None:
    """The lower half of a diagonal block from its upper one, in the strips in which products are added."""
    step = -(-len(part) // width // STRIPS) * width
    for low in range(0, len(part), step):
        part[low + step :, low : low + step] = part[low : low + step, low + step :].transpose(0, 1)


def _pairs_pay(name: str, uses: list[Use], outputs: Outputs) -> bool:
    """Whether pairs of positions cost less than gradients of the size of the tensor.

    In products a pair of n samples, for a matrix O x I read at P places: P K O (P + K) + P^2 I, and ``MOVED`` for each of the
    P K O numbers that are written on the way; against K^2 O I, K P O I / n, and ``MOVED`` for K O I / n numbers.
    """
    sums = all(use.weight == name and (use.linear or (use.window is not None and use.window[3] == 1)) for use in uses)
    if outputs == "diagonal" or not uses or not sums:
        return False
    (k, n), o = uses[0].delta.shape[:2], uses[0].shape_of_weight[0]
    i, p = math.prod(uses[0].shape_of_weight[1:]), sum(use.delta[0, 0].numel() for use in uses) // o
    kept = k if outputs == "full" else 1
    return p * k * o * (p + kept + MOVED) + p * p * i < k * o * i * (kept + (p + MOVED) / n)


def _pairs(first: list[Use], second: list[Use], outputs: Outputs) -> Tensor:
    """Sum over pairs of positions of (a_p a'_q) (delta_kp delta'_lq): (n K, m K), or (n, m) for the trace.

    The activations' Gram acts on the second signals, one matrix a sample, and what comes out meets the first signals.
    """
    a1, d1 = _positions(first)
    a2, d2 = (a1, d1) if first[0] is second[0] else _positions(second)
    k, p, o = d1.shape[1:]
    m = len(d2)
    spread = d2.transpose(1, 2).reshape(m, p, k * o)
    found = []
    for a, d in zip(*(t.split(max(1, MET // (m * p * k * o))) for t in (a1, d1)), strict=True):
        gram = (a.flatten(0, 1) @ a2.flatten(0, 1).T).view(-1, m, p).transpose(0, 1)  # (m, c p, q)
        met = (gram @ spread).view(m, len(a), p, k, o).permute(1, 0, 3, 2, 4)  # (c, m, l, p, o)
        if outputs == "trace":
            found.append((met * d[:, None]).sum((2, 3, 4)))
        else:
            found.append((d.flatten(2) @ met.reshape(len(a), m * k, p * o).mT).flatten(0, 1))
    return torch.cat(found)


def _positions(uses: list[Use]) -> tuple[Tensor, Tensor]:
    """What a matrix met at every place where it was read, (n, P, I), and the signals that came back there, (n, K, P, O)."""
    met, signals = [], []
    for use in uses:
        if use.linear:
            met.append(use.a.flatten(1, -2) if use.a.dim() > 2 else use.a[:, None])
            delta = use.delta if use.delta.dim() > 3 else use.delta.unsqueeze(2)
            signals.append(delta.flatten(2, -2).transpose(0, 1))
        else:
            met.append(_unfolded(use).mT)
            signals.append(use.delta.flatten(3).permute(1, 0, 3, 2))
    return torch.cat(met, 1), torch.cat(signals, 2)


def _slices(name: str, first: list[Use], second: list[Use]) -> Iterator[tuple[Tensor, Tensor]]:
    """Per-sample gradients (n, K, entries) of both sides, a slice of the tensor at a time, summed over its uses."""
    if not first:
        return
    if all(use.linear and use.weight == name for use in first):
        k, n = first[0].delta.shape[:2]
        width = first[0].a.shape[-1]
        step = max(1, BUDGET // (k * max(n, second[0].delta.shape[1]) * width))
        for low in range(0, first[0].delta.shape[-1], step):
            yield _both(first, second, lambda use, low=low: _dense(use, low, low + step))  # type: ignore[misc]
    else:
        yield _both(first, second, lambda use: _local(use, name))


def _both(first: list[Use], second: list[Use], gradient: Callable[[Use], Tensor]) -> tuple[Tensor, Tensor]:
    """A tensor's gradients on both sides, summed over all places where it is read."""
    one = sum((gradient(use) for use in first[1:]), gradient(first[0]))
    if first[0] is second[0]:
        return one, one
    return one, sum((gradient(use) for use in second[1:]), gradient(second[0]))


def _bias(use: Use) -> Tensor:
    """Backward signals summed over positions, (n, K, O)."""
    delta = use.delta if use.linear else use.delta.movedim(2, -1)
    return delta.flatten(2, -2).sum(2).transpose(0, 1) if delta.dim() > 3 else delta.transpose(0, 1)


def _rows(use: Use, untrained: int) -> Tensor:
    """Gradients of a table: each signal falls on the row that its position looked up, (n, K, entries)."""
    k, n, size = use.delta.shape[0], len(use.a), use.shape_of_weight[1]
    index = use.a.reshape(n, 1, -1, 1).expand(n, k, -1, size)
    delta = use.delta.transpose(0, 1).reshape(n, k, -1, size)
    table = delta.new_zeros(n, k, *use.shape_of_weight).scatter_add_(2, index, delta)
    if untrained >= 0:
        table[:, :, untrained] = 0
    return table.flatten(2)


def _entries(use: Use) -> Tensor:
    """Gradients of a gain or an offset, summed over the axes along which it is spread, (n, K, entries)."""
    delta = (use.delta * use.a if use.weight else use.delta).transpose(0, 1)  # (n, K, ...)
    shape = (1,) * (delta.dim() - 2 - len(use.shape_of_weight)) + use.shape_of_weight[-(delta.dim() - 2) :]
    spread = [i + 2 for i, size in enumerate(shape) if size == 1 and delta.shape[i + 2] > 1]
    return (delta.sum(spread, keepdim=True) if spread else delta).flatten(2)


def _dense(use: Use, low: int, high: int) -> Tensor:
    """Gradients of some rows of a dense weight, (n, K, rows * I)."""
    a, delta = _positions([use])
    return torch.einsum("nkpo,npi->nkoi", delta[..., low:high], a).flatten(2)


def _local(use: Use, name: str) -> Tensor:
    """Gradients through the operation itself, sample by sample, (n, K, entries): convolutions, and mixed uses."""
    if use.entrywise:
        return _entries(use)
    if use.lookup is not None:
        return _rows(use, use.lookup)
    if use.bias == name:
        return _bias(use)
    if use.linear:
        return _dense(use, 0, use.delta.shape[-1])
    if use.window is not None:
        return _patches(use)
    weight_shape = use.shape_of_weight

    def one(a: Tensor, delta: Tensor) -> Tensor:
        pull = torch.func.vjp(lambda w: use.call(a[None], w)[0], a.new_zeros(weight_shape))[1]
        return torch.func.vmap(lambda d: pull(d)[0])(delta)

    return torch.func.vmap(one)(use.a, use.delta.transpose(0, 1)).flatten(2)


def _patches(use: Use) -> Tensor:
    """Gradients of a convolution's weight, (n, K, O * I * taps): signals times the patches that each position reads."""
    read, groups = _unfolded(use), use.window[3]  # type: ignore[index]
    k, n, o = use.delta.shape[:3]
    delta = use.delta.reshape(k, n, groups, o // groups, -1).permute(1, 2, 0, 3, 4).reshape(n * groups, k * o // groups, -1)
    found = delta @ read.reshape(n * groups, -1, read.shape[-1]).mT
    return found.reshape(n, groups, k, -1).transpose(1, 2).flatten(2)


def _unfolded(use: Use) -> Tensor:
    """The patches that a convolution reads, (n, I * taps, P)."""
    stride, padding, dilation, _ = use.window  # type: ignore[misc]
    one = use.a.dim() == 3  # a convolution over one axis is one over two of which the first has a single place
    taps = use.shape_of_weight[2:]
    sizes = [(fill, *_each(v, 1)) if one else _each(v, 2) for v, fill in ((taps, 1), (dilation, 1), (padding, 0), (stride, 1))]
    return torch.nn.functional.unfold(use.a.unsqueeze(2) if one else use.a, *sizes)


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return (int(value),) * axes if isinstance(value, int) else tuple(int(v) for v in value)


def _gram(pairs: Any, outputs: Outputs) -> Tensor | None:
    """Gram of per-sample gradients (n, K, P), summed over slices: (n K, m K), (n, m) or (n, m, K)."""
    total: Tensor | None = None
    for g1, g2 in pairs:
        if outputs == "diagonal":
            part = torch.einsum("nkp,mkp->nmk", g1, g2)
        else:
            g1, g2 = (g.flatten(1) if outputs == "trace" else g.flatten(0, 1) for g in (g1, g2))
            part = inner(g1, g2)
        total = part if total is None else total.add_(part)
    return total


def _key(name: str, per: str | None) -> str:
    return "" if per is None else name if per == "tensor" else name.rpartition(".")[0]


def _room(n1: int, n2: int, k: int, outputs: Outputs, keys: list[str], function: NetworkFunction) -> dict[str, Tensor]:
    """Space for the result, a matrix of samples (and outputs), refused where it cannot fit."""
    shape = {"full": (n1 * k, n2 * k), "trace": (n1, n2), "diagonal": (n1, n2, k)}[outputs]
    like = next(iter(function.parameters.values()))
    needed = math.prod(shape) * like.element_size() * len(keys)
    smaller = "outputs='trace' or 'diagonal', " if outputs == "full" and k > 1 else ""
    parts = f" for {len(keys)} parts" if len(keys) > 1 else ""
    what = f"the kernel of shape {(n1, n2, k, k) if outputs == 'full' else shape}{parts}"
    refuse_large(needed, what, f"{smaller}fewer samples at a time, or its products with vectors")
    return {key: like.new_zeros(shape) for key in keys}


def refuse_large(needed: int, what: str, instead: str) -> None:
    """Results that do not fit in memory, with what they need and what to ask for instead."""
    if needed > MOST:
        raise TangentError(f"{what} needs {needed / 2**30:.1f} GiB; ask for {instead}")


def _block(function: NetworkFunction, found: Probe, samples: int) -> int:
    """Samples a block: per-sample gradients of the largest tensor that needs them, and backward signals, within the budget."""
    whole = [function.parameters[name].numel() for name in (*found.unknown, *found.gradients)]
    like = next(iter(function.parameters.values()))
    needed = found.outputs * max([found.signals, *whole, 1]) * like.element_size()
    if needed > MOST:
        raise TangentError(
            f"one sample's gradients of {found.outputs} outputs need {needed / 2**30:.1f} GiB; wrap the network so that it returns "
            "fewer outputs at a time, or ask for products with vectors (NtkOperator)"
        )
    return max(1, min(samples, 512, BUDGET // (found.outputs * max([found.signals, *whole, 1]))))
