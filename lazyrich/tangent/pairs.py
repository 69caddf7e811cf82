"""A matrix's part of the tangent kernel from pairs of the places where it is read, without gradients of its size.

With activations a_p and signals delta_kp at P places, sum_pq (a_p a'_q) (delta_kp delta'_lq). Where a matrix is read at few places
this costs less than the Gram of gradients sum_p delta_kp a_p'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lazyrich.tangent.gradient import positions, summed
from lazyrich.tangent.tape import Use

MET = 2**22  # entries of what is worked on at a time: it stays in the caches
FLAT = 4  # rows of a tile at most, as products of one matrix by many are the faster ones, measured
SLOW = 2  # of products of many small matrices, against one large product, measured
WRITTEN = 20  # small products that take as long as one number to memory and back, measured


def pairs_pay(name: str, uses: list[Use], outputs: str) -> bool:
    """Whether pairs of places cost less than gradients of the size of the tensor.

    In products a pair of n samples, for a matrix O x I read at P places: for all pairs of outputs P K O (P + K), of small
    matrices, and P^2 I; else P^2 (K O + I); against K^2 O I, or K O I, and K O I / n numbers made of P products each.
    """
    if not uses or not summed(name, uses):
        return False
    (k, n), o = uses[0].delta.shape[:2], uses[0].shape_of_weight[0]
    i, p = math.prod(uses[0].shape_of_weight[1:]), sum(use.delta[0, 0].numel() for use in uses) // o
    gradients = (k if outputs == "full" else 1) * k * o * i + SLOW * (p + WRITTEN) * k * o * i / n
    if outputs == "full" and k > 1:
        return SLOW * p * k * o * (p + k) + p * p * i < gradients
    return p * p * (k * o + i + WRITTEN) < gradients


def paired(
    first: list[Use], second: list[Use], outputs: str, strips: Iterator[tuple[slice, slice]], bias: float = 0.0
) -> Iterator[tuple[slice, slice, Tensor]]:
    """The part of the samples ``rows`` with ``columns``, tile by tile: (rows K, columns K), or (rows, columns[, K]).

    A bias is one more activation, which is its rate's root everywhere: ``bias`` times the part of its own is added.
    """
    meets = outputs == "full" and first[0].delta.shape[0] > 1
    a1, d1 = _laid(first, meets)
    a2, d2 = (a1, d1) if first[0] is second[0] else _laid(second, meets)
    (k, p, o), q = d1.shape[1:], d2.shape[2]  # a network may trim each block to its longest sample
    entries = k * q * o if meets else p * q * (k if outputs == "diagonal" else 1)  # a pair of samples
    tall = wide = _even(math.isqrt(MET // entries))
    if meets:
        tall = min(tall, FLAT)
        wide = _even(MET // (entries * tall))
    space = d1.new_empty(tall * wide * k * q * o if meets else 0)
    for rows, columns in strips:
        for i in _steps(rows, tall):
            for j in _steps(columns, wide):
                some = a1[i], d1[i], a2[j], d2[j]
                yield i, j, _meet(*some, bias, space) if meets else _multiply(*some, bias, outputs)


def _laid(uses: list[Use], meets: bool) -> tuple[Tensor, Tensor]:
    """Activations and signals, in memory as ``_meet`` or ``_multiply`` reads them; dense layers that meet have them so."""
    a, delta = positions(uses)
    return a.contiguous(), delta.transpose(0, 1).contiguous().transpose(0, 1) if meets else delta.contiguous()


def _even(size: int) -> int:
    """Products of even sizes are the faster ones."""
    return size // 4 * 4 or size // 2 * 2 or 1


def _steps(of: slice, size: int) -> Iterator[slice]:
    for low in range(of.start, of.stop, size):
        yield slice(low, min(low + size, of.stop))


def _multiply(a1: Tensor, d1: Tensor, a2: Tensor, d2: Tensor, bias: float, outputs: str) -> Tensor:
    """Gram of the activations times Gram of the signals, entry by entry, summed over places: (n, m), or (n, m, K)."""
    (n, k, p), (m, _, q) = d1.shape[:3], d2.shape[:3]
    met = (a1.flatten(0, 1) @ a2.flatten(0, 1).T).add_(bias).view(n, p, m, q)
    if outputs == "diagonal":
        signals = d1.transpose(0, 1).flatten(1, 2) @ d2.transpose(0, 1).flatten(1, 2).mT
        return (signals.view(k, n, p, m, q) * met).sum((2, 4)).movedim(0, -1)
    signals = d1.transpose(1, 2).flatten(2).flatten(0, 1) @ d2.transpose(1, 2).flatten(2).flatten(0, 1).T
    return (signals.view(n, p, m, q) * met).sum((1, 3))


def _meet(a1: Tensor, d1: Tensor, a2: Tensor, d2: Tensor, bias: float, space: Tensor) -> Tensor:
    """The activations' Gram acts on the first signals, a matrix a pair of samples, and what comes out meets the second ones.

    What comes out has a place in memory of its own, as fresh arrays of this size cost as much as the products.
    """
    (n, k, p, o), (m, _, q) = d1.shape, d2.shape[:3]
    gram = (a1.flatten(0, 1) @ a2.flatten(0, 1).T).add_(bias).view(n, p, m * q)
    met = space[: n * k * m * q * o].view(n, k, m * q, o)
    for a, delta, out in zip(gram, d1, met, strict=True):
        torch.bmm(a.T.expand(k, m * q, p), delta, out=out)
    there = d2.transpose(0, 1).flatten(1, 2).transpose(0, 1)  # (m q, k, o)
    return torch.bmm(there, met.view(n * k, m * q, o).permute(1, 2, 0)).view(m, q, k, n * k).sum(1).view(m * k, n * k).T
