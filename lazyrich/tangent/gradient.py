"""Per-sample gradients of a tensor, from what it met and the signals that came back: (n, K, entries)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lazyrich.tangent.tape import Use

SLICE = 2**22  # entries of an array of gradients: it stays in the caches


def slices(name: str, first: list[Use], second: list[Use]) -> Iterator[tuple[Tensor, Tensor]]:
    """Per-sample gradients (n, K, entries) of both sides, a slice of the tensor at a time, summed over its uses."""
    if not first:
        return
    same = first[0] is second[0]
    if summed(name, first) and summed(name, second):  # blocks may go other ways
        a1, d1 = positions(first)
        a2, d2 = (a1, d1) if same else positions(second)
        step = max(1, SLICE // (d1.shape[1] * max(len(a1), len(a2)) * a1.shape[-1]))
        for low in range(0, d1.shape[-1], step):
            one = _outer(a1, d1[..., low : low + step])
            yield one, one if same else _outer(a2, d2[..., low : low + step])
    else:
        one = _whole(first, name)
        yield one, one if same else _whole(second, name)


def summed(name: str, uses: list[Use]) -> bool:
    """Whether all uses of a matrix give sums over places of signal times activation."""
    return all(use.sums and use.weight == name for use in uses)


def _whole(uses: list[Use], name: str) -> Tensor:
    """A tensor's gradients, summed over all places where it is read."""
    return sum((_local(use, name) for use in uses[1:]), _local(uses[0], name))


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
    delta = use.delta * use.a.conj() if use.weight else use.delta
    delta = (delta.real if delta.is_complex() else delta).transpose(0, 1)  # (n, K, ...); the parameter is real
    shape = (1,) * (delta.dim() - 2 - len(use.shape_of_weight)) + use.shape_of_weight[-(delta.dim() - 2) :]
    spread = [i + 2 for i, size in enumerate(shape) if size == 1 and delta.shape[i + 2] > 1]
    return (delta.sum(spread, keepdim=True) if spread else delta).flatten(2)


def _outer(a: Tensor, delta: Tensor) -> Tensor:
    """Gradients of some rows of a weight, sums over places of signal times activation, (n, K, rows * I)."""
    return torch.einsum("nkpo,npi->nkoi", delta, a).flatten(2)


def _local(use: Use, name: str) -> Tensor:
    """Gradients through the operation itself, sample by sample, (n, K, entries): convolutions, and mixed uses."""
    if use.entrywise:
        return _entries(use)
    if use.lookup is not None:
        return _rows(use, use.lookup)
    if use.bias == name:
        return _bias(use)
    if use.sums:
        return _outer(*positions([use]))
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


def positions(uses: list[Use]) -> tuple[Tensor, Tensor]:
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
    if len(uses) == 1:
        return met[0], signals[0]
    return torch.cat(met, 1), torch.cat(signals, 2)
