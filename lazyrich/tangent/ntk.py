"""The tangent kernel of a finite network, from activations and backward signals instead of Jacobians."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lazyrich.amount import counted
from lazyrich.errors import TangentError
from lazyrich.memory import keep_freed_memory
from lazyrich.tangent.dense import dense_row
from lazyrich.tangent.function import NetworkFunction
from lazyrich.tangent.gradient import slices, summed
from lazyrich.tangent.inner import inner
from lazyrich.tangent.mixing import TOGETHER, refuse_mixed
from lazyrich.tangent.pairs import paired, pairs_pay
from lazyrich.tangent.tape import Misfit, Probe, Tape, Use, probe, tape

Outputs = Literal["full", "trace", "diagonal"]
BUDGET = 2**26  # entries of the largest temporary array of a block
STRIPS = 5  # of a diagonal block, of which only what lies right of the diagonal is multiplied
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

    Jacot, Gabriel & Hongler 2018 (arXiv:1806.07572), at finite width.

    For a dense layer a tensor's part is the activations' Gram times the backward signals' Gram, (a a') (delta_k delta_l');
    where weights are shared over positions, or read several times, it is the Gram of per-sample gradients, a slice of the
    tensor at a time. Whatever reads a parameter in another way (norm gains, positions, custom products) gets per-sample
    gradients by autograd. The generalised Gauss-Newton matrix of the squared loss (1/2) sum ||f - y||^2 is J^T J: it has the same
    eigenvalues beyond zeros as this J J^T. Under torch.autocast the passes run in its lower precision, and so do the entries, to
    three digits of bfloat16: call it outside of such a block.

    Args:
        model: any module that treats samples one by one; it stays as it is.
        x1: samples (N1, ...).
        x2: samples (N2, ...); x1 itself by default, then half of the blocks are computed.
        outputs: "full" for all pairs of outputs, "trace" for the sum of equal ones, "diagonal" for each of these.
        per: "tensor" for a dictionary by tensor name, "layer" by module path; their sum is the whole.
        rates: learning-rate factor by tensor name, 1 where it is not given: the kernel that a plan trains with.
        block: samples a block; by default so many that temporary arrays stay below half a gigabyte.

    Returns:
        (N1, N2, K, K), (N1, N2) or (N1, N2, K), in the parameters' dtype: the widest of those that train.

    Raises:
        TangentError: for networks that mix samples or draw at random, inputs that do not fit, names that are no tensors, and
            results that do not fit in memory, with what they need.

    Example:
        >>> net = nn.Linear(3, 2)
        >>> ntk_of(net, torch.eye(3)).shape, ntk_of(net, torch.eye(3), outputs="trace")[0].tolist()
        (torch.Size([3, 3, 2, 2]), [4.0, 2.0, 2.0])
    """
    for name, got, known in (("outputs", outputs, get_args(Outputs)), ("per", per, (None, "tensor", "layer"))):
        if got not in known:
            raise TangentError(f"got {name}={got!r}, expected {' or '.join(map(repr, known))}; leave it out for {known[0]!r}")
    if block is not None:
        block = counted("block", block, refusal=TangentError)
    function = NetworkFunction(model)
    function.real()
    for x, name in ((x1, "x1"), *([] if x2 is None else [(x2, "x2")])):
        function.check_input(x, name)
        if not dense_row(function.model, function.parameters, x):  # of which nothing has to be tried
            function.check_outputs(x, name)
    if x2 is not None and x2.shape[1:] != x1.shape[1:]:
        raise TangentError(f"got x1 of shape {tuple(x1.shape)} and x2 of shape {tuple(x2.shape)}, expected equal samples")
    x1, x2 = x1.detach(), None if x2 is None else x2.detach()
    factors = function.rates(rates)
    keys = {name: _key(name, per) for name in factors}
    keep_freed_memory()
    found = probe(function, x1)
    if found.looks_up:
        function.refuse_padding(x1)
    for x, name in ((x1, "x1"), (x2, "x2")):
        if block and x is not None and block < min(len(x), TOGETHER):  # else a tape tries it
            refuse_mixed(function, x, name, block)
    while True:
        try:
            whole = _blocks(function, x1, x2, outputs, keys, factors, found, block)
            if not any(bool(array[0].any()) or bool(array.any()) for array in whole.values()):  # mostly one row tells
                function.refuse_still(x1)
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
    n, m, same = rows.shape[0], columns.shape[0], rows is columns
    products = set()
    for first, second in zip(rows.uses, columns.uses, strict=True):
        if first.vectors and second.vectors and all(reads[name] == 1 for name in first.names):
            products |= first.names
            rates: dict[str, list[float]] = {}  # by key, of the weight and of the bias, which share the signals' Gram
            for i, name in enumerate((first.weight, first.bias)):
                if name is not None and factors[name]:
                    rates.setdefault(keys[name], [0.0, 0.0])[i] = factors[name]
            if rates:
                _add_product(parts, first, second, rates, outputs)
    left = [name for name in factors if name not in products and summed(name, _read(columns, name))]
    paying = [name for name in left if pairs_pay(name, _read(rows, name), outputs)]
    biases = {name: bias for name in paying if factors[name] and (bias := _bias_of(rows, name, keys))}
    for name, factor in factors.items():
        if name in products or name in biases.values() or factor == 0:
            continue
        first, second = _read(rows, name), _read(columns, name)
        strips = _strips(n, m, same)
        if name in paying:
            found = paired(first, second, outputs, strips, factors[biases[name]] / factor if name in biases else 0.0)
        else:
            given = [(rows.rest[name], columns.rest[name])] if name in rows.rest else slices(name, first, second)
            found = _grams(given, outputs, list(strips))
        width = rows.shape[1] if outputs == "full" else 1
        for i, j, part in found:
            parts[keys[name]][_wide(i, width), _wide(j, width)].add_(part, alpha=factor)


def _read(record: Tape, name: str) -> list[Use]:
    return [use for use in record.uses if name in use.names]


def _bias_of(record: Tape, weight: str, keys: Mapping[str, str]) -> str | None:
    """The bias that is added wherever the weight is read and nowhere else, and goes to the same key."""
    uses = _read(record, weight)
    bias = uses[0].bias
    alike = bias is not None and all(use.bias == bias for use in uses) and len(_read(record, bias)) == len(uses)
    return bias if alike and keys[bias] == keys[weight] else None


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
    factor = {key: by.repeat_interleave(k, 1)[:, None] for key, by in factor.items()}
    for i, j in _strips(*gram.shape[:2], same=first is second):
        signals = inner(d1[_wide(i, k)], d2[_wide(j, k)])
        for key, by in factor.items():
            part = parts[key][_wide(i, k), _wide(j, k)]
            part.unflatten(0, (-1, k)).addcmul_(signals.unflatten(0, (-1, k)), by[i, :, _wide(j, k)])


def _strips(n: int, m: int, same: bool) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of a block: all of it, or of one on the diagonal what lies right of the diagonal, in strips."""
    step = _strip(n) if same else n
    for low in range(0, n, step):
        yield slice(low, min(low + step, n)), slice(low if same else 0, m)


def _strip(n: int) -> int:
    """Samples a strip, a multiple of four, with which products are faster."""
    return 4 * -(-n // (4 * STRIPS))


def _wide(samples: slice, k: int) -> slice:
    """Rows of a matrix that has k for a sample."""
    return slice(samples.start * k, samples.stop * k)


def _mirror(part: Tensor, width: int) -> None:
    """The lower half of a diagonal block from its upper one, in the strips in which products are added."""
    step = _strip(len(part) // width) * width
    for low in range(0, len(part), step):
        part[low + step :, low : low + step] = part[low : low + step, low + step :].transpose(0, 1)


def _grams(
    pairs: Iterable[tuple[Tensor, Tensor]], outputs: Outputs, strips: Sequence[tuple[slice, slice]]
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Gram of per-sample gradients (n, K, P), slice by slice and strip by strip: (n K, m K), (n, m) or (n, m, K)."""
    for g1, g2 in pairs:
        for i, j in strips:
            if outputs == "diagonal":
                yield i, j, torch.einsum("nkp,mkp->nmk", g1[i], g2[j])
            else:
                one, other = (g.flatten(1) if outputs == "trace" else g.flatten(0, 1) for g in (g1[i], g2[j]))
                yield i, j, inner(one, other)


def _key(name: str, per: str | None) -> str:
    return "" if per is None else name if per == "tensor" else name.rpartition(".")[0]


def _room(n1: int, n2: int, k: int, outputs: Outputs, keys: list[str], function: NetworkFunction) -> dict[str, Tensor]:
    """Space for the result, a matrix of samples (and outputs), refused where it cannot fit."""
    shape = {"full": (n1 * k, n2 * k), "trace": (n1, n2), "diagonal": (n1, n2, k)}[outputs]
    like = next(iter(function.parameters.values()))
    needed = math.prod(shape) * function.dtype.itemsize * len(keys)
    smaller = "outputs='trace' or 'diagonal', " if outputs == "full" and k > 1 else ""
    parts = f" for {len(keys)} parts" if len(keys) > 1 else ""
    what = f"the kernel of shape {(n1, n2, k, k) if outputs == 'full' else shape}{parts}"
    refuse_large(needed, what, f"{smaller}fewer samples at a time, or its products with vectors")
    return {key: like.new_zeros(shape, dtype=function.dtype) for key in keys}


def refuse_large(needed: int, what: str, instead: str) -> None:
    """Results that do not fit in memory, with what they need and what to ask for instead."""
    if needed > MOST:
        raise TangentError(f"{what} needs {needed / 2**30:.1f} GiB; ask for {instead}")


def _block(function: NetworkFunction, found: Probe, samples: int) -> int:
    """Samples a block: per-sample gradients of the largest tensor that needs them, and backward signals, within the budget."""
    whole = [function.parameters[name].numel() for name in (*found.unknown, *found.gradients)]
    needed = found.outputs * max([found.signals, *whole, 1]) * function.dtype.itemsize
    if needed > MOST:
        raise TangentError(
            f"one sample's gradients of {found.outputs} outputs need {needed / 2**30:.1f} GiB; wrap the network so that it returns "
            "fewer outputs at a time, or ask for products with vectors (NtkOperator)"
        )
    most = max(1, min(512, BUDGET // (found.outputs * max([found.signals, *whole, 1]))))
    return -(-samples // -(-samples // most))  # blocks of one size
