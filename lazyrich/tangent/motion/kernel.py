"""Time derivatives of a tangent kernel, from those of activations and of backward signals instead of Jacobians."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.tangent.inner import inner
from lazyrich.tangent.motion.network import Jets, Motion, Pass, as_computed
from lazyrich.tangent.motion.operation import Curve, Jet, Map, Operation, Place, Product, entries, leibniz, matrices, same

READS = 8  # of one tensor


class OtherOperation(Exception):
    """One whose gradients, sample by sample, are no products of an activation and a signal."""


@dataclass(frozen=True)
class Reading:
    """What meets one reading of a dense layer's weight or bias: the derivatives of a (N, I), and of signals (N, K, O)."""

    a: Jet
    delta: Jet


Readings = dict[tuple[str, bool], list[Reading]]  # by the tensor's name, and whether its transpose is read


@torch.no_grad()
def moving_kernel(moved: Motion, rates: Mapping[str, float], times: int) -> list[Tensor] | None:
    """The tangent kernel and its derivatives in time along a motion.

    A dense layer's part of the kernel is, entry by entry, the product of its activations' and its signals' Gram matrices (see
    ``ntk_of``), so the part's derivatives are those of the two matrices by Leibniz, and theirs those of activations and signals.

    Args:
        moved: the network's motion, of order ``times`` or higher.
        rates: learning-rate factor by tensor name, which the kernel counts.
        times: the highest derivative.

    Returns:
        The kernel and its derivatives, (N K, N K) each; None where something else than dense layers of vectors reads parameters.

    Example:
        >>> from lazyrich.tangent.motion.network import NetworkFunction, motion
        >>> net, x, rates = torch.nn.Linear(3, 2), torch.ones(5, 3), {"weight": 1.0, "bias": 1.0}
        >>> kernel, speed = moving_kernel(motion(NetworkFunction(net), x, torch.ones(5, 2), 1, rates), rates, 1)
        >>> kernel[0, :2].tolist(), bool(speed.any())
        ([4.0, 0.0], False)
    """
    with as_computed(moved.passed.out):
        try:
            read = readings(moved.passed, moved.jets, times)
        except OtherOperation:
            return None
        return gram(moved.passed.out, read, read, rates, times)


@torch.no_grad()
def gram(out: Tensor, rows: Readings, columns: Readings, rates: Mapping[str, float], times: int) -> list[Tensor]:
    """The Gram matrix of gradients, by their rates, of one motion with those of another, and its derivatives: (N K, N K) each."""
    n, k = out.shape
    found = out.new_zeros(times + 1, n, k, n, k)
    for (name, side), reads in rows.items():
        for one in reads:
            for other in columns[name, side]:  # of a weight that is read twice, each with each
                _add(found, one, other, rates[name])
    return list(found.view(times + 1, n * k, n * k))


def _add(found: Tensor, one: Reading, other: Reading, rate: float) -> None:
    """Add the part of two readings, of every order."""
    orders, (n, k) = range(len(found)), found.shape[1:3]
    a = [leibniz(_gram, i, one.a, other.a) for i in orders]
    delta = [leibniz(_gram, i, one.delta, other.delta) for i in orders]
    for order in orders:
        for i in range(order + 1):
            if (first := a[i]) is not None and (second := delta[order - i]) is not None:
                times = rate * math.comb(order, i)
                found[order].addcmul_(first[:, None, :, None], second.view(n, k, n, k), value=times)


def _gram(x: Tensor, y: Tensor, into: Tensor | None = None, times: float = 1) -> Tensor:
    """Inner products of all rows, added up."""
    found = inner(x.flatten(0, -2), y.flatten(0, -2))
    return found if into is None else into.add_(found, alpha=times)


def readings(passed: Pass, jets: Jets, times: int) -> Readings:
    """What meets every reading of every parameter along a motion.

    Raises:
        OtherOperation: where something else than dense layers of vectors reads parameters.
    """
    n, k = passed.out.shape
    seed = torch.eye(k, dtype=passed.out.dtype, device=passed.out.device).expand(n, k, k)
    deltas: dict[Place, list[Tensor | None]] = {passed.operations[-1].place: [seed, *[None] * times]}
    found: Readings = {}
    for operation in reversed(passed.operations):
        if (delta := deltas.pop(operation.place, None)) is None:  # no row of samples, as a weight's transpose
            continue
        if isinstance(operation, Product) and operation.term is matrices:
            for key, a in _weights(operation, passed, jets):
                found.setdefault(key, []).append(Reading(a, delta))
        for place, part in _back(operation, delta, jets):
            if isinstance(place, str):
                raise OtherOperation
            deltas[place] = part if place not in deltas else list(map(_sum, deltas[place], part))
    if len({name for name, _ in found}) < len(found) or any(len(reads) > READS for reads in found.values()):
        raise OtherOperation  # read as it is and transposed, or so often that pairs of readings outgrow it
    return found


def _weights(operation: Product, passed: Pass, jets: Jets) -> Iterator[tuple[tuple[str, bool], Jet]]:
    """The parameters that a product reads, and the activations that they meet."""
    a, _ = operation.factors(jets)
    _, at, bias = operation.reads
    if at is not None:
        name = at if isinstance(at, str) else _transposed(at, passed)
        if name is None:
            raise OtherOperation
        yield (name, at is not name), a
    if bias is not None:
        yield (bias, False), [passed.out.new_ones(len(passed.out), 1)]


def _transposed(node: Place, passed: Pass) -> str | None:
    """The parameter whose transpose it is."""
    (reads,) = (operation.reads for operation in passed.operations if operation.place == node)
    known = not isinstance(node, tuple) and node.name() == "TBackward0" and isinstance(reads[0], str)
    return reads[0] if known else None


def _back(operation: Operation, delta: Jet, jets: Jets) -> Iterator[tuple[Place, list[Tensor | None]]]:
    """The derivatives of the gradients (N, K, O) of the rows that an operation takes."""
    orders, first = range(len(delta)), operation.reads[0]
    if isinstance(operation, Curve):
        slopes = _wide([operation.moving(1, i, jets[first]) for i in orders])
        yield first, [leibniz(entries, i, slopes, delta) for i in orders]
    elif isinstance(operation, Product) and operation.term is entries and operation.to_a is operation.to_b is entries:
        a, b = map(_wide, operation.factors(jets))
        for place, other in ((first, b), (operation.reads[1], a)):
            if place is not None:
                yield place, [leibniz(entries, i, other, delta) for i in orders]
    elif isinstance(operation, Product) and operation.term is matrices:
        if first is not None:
            _, b = operation.factors(jets)
            yield first, [leibniz(_behind, i, delta, b) for i in orders]
    elif isinstance(operation, Map) and all(back is same for back in operation.back):
        yield from ((place, list(delta)) for place in operation.reads if place is not None)
    else:
        raise OtherOperation


def _wide(jet: Jet) -> list[Tensor | None]:
    """(N, 1, O), for all outputs; what is constant may have fewer axes."""
    return [t if t is None or t.dim() < 2 else t[:, None] for t in jet]


def _behind(delta: Tensor, matrix: Tensor, into: Tensor | None = None, times: float = 1) -> Tensor:
    """Signals (N, K, O) before a matrix, added up."""
    found = matrices(delta.flatten(0, 1), matrix.t(), None if into is None else into.flatten(0, 1), times)
    return found.unflatten(0, delta.shape[:2])


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
