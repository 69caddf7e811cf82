"""Entries of the derivative tensors of a dense network, along gradients that move its activations and signals."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lazyrich.tangent.function import NetworkFunction
from lazyrich.tangent.motion.kernel import OtherOperation, gram, readings
from lazyrich.tangent.motion.network import Jets, Pass, known_pass, rated

Direction = Mapping[str, Tensor | None]


class MovingEntries:
    """What ``higher_kernels`` is made of, with u_i = grad f_i and H_i, D^3 F_i the next derivatives of output i.

    A gradient's derivative along a direction, times another gradient, is an entry of the Gram matrix of gradients that move with
    gradients that do not, which dense layers have from activations and signals (see ``moving_kernel``).

    Args:
        passed: the network's pass.
        rates: learning-rate factor by tensor name.

    Raises:
        OtherOperation: where something else than dense layers of vectors reads parameters.

    Example:
        >>> entries = moving_entries(NetworkFunction(torch.nn.Linear(3, 2)), torch.ones(1, 3), {"weight": 1.0, "bias": 1.0})
        >>> entries.second(2).tolist(), entries.third(2, 2).abs().max()  # a linear network: a tangent kernel alone
        ([[4.0, 0.0], [0.0, 4.0]], tensor(0.))
    """

    def __init__(self, passed: Pass, rates: Mapping[str, float]) -> None:
        self._passed, self._rates = passed, rates
        self._still = readings(passed, passed.still()[0], 0)

    def second(self, train: int) -> Tensor:
        """<u_i, u_c> at [i, c]; i runs over everything, c over the training outputs."""
        return gram(self._passed.out, self._still, self._still, self._rates, 0)[0][:, :train].contiguous()

    @torch.no_grad()
    def third(self, total: int, train: int) -> Tensor:
        """D^2 F_i [u_j, u_c] at [i, j, c]."""
        return torch.stack([self._bent(self._gradient(c), 1) for c in range(train)], -1)

    @torch.no_grad()
    def fourth(self, total: int, train: int) -> tuple[Tensor, Tensor]:
        """D^3 F_i [u_j, u_c, u_e] and D^2 F_i [u_j, H_c u_e] at [i, j, c, e]."""
        one, two = (self._passed.out.new_zeros(total, total, train, train) for _ in range(2))
        for e in range(train):
            last = self._gradient(e)
            for c in range(train):
                two[:, :, c, e] = self._bent(self._gradient(c, last), 1)
            for c in range(e + 1):  # a symmetric form, from its values along sums and differences
                both = [self._bent(_combined(self._gradient(c), last, sign), 2) for sign in (1, -1)]
                one[:, :, c, e] = one[:, :, e, c] = (both[0] - both[1]) / 4
        return one, two

    def _gradient(self, c: int, along: Direction | None = None) -> Direction:
        """u_c times the rates, or its derivative along a direction."""
        seed = torch.zeros_like(self._passed.out)
        seed.view(-1)[c] = 1
        jets, deltas = self._moved(along, 1) if along else self._passed.still()
        self._passed.backward(0, deltas, jets, seed)
        if along:
            self._passed.backward(1, deltas, jets, None)
        return {name: rated(deltas[name][-1], self._rates[name]) for name in self._passed.names}

    def _moved(self, along: Direction, order: int) -> tuple[Jets, Jets]:
        """Derivatives of the parameters and values on a straight line."""
        jets, deltas = self._passed.still()
        for k in range(1, order + 1):
            for name in self._passed.names:
                jets[name].append(along[name] if k == 1 else None)
            self._passed.forward(k, jets)
        return jets, deltas

    def _bent(self, along: Direction, order: int) -> Tensor:
        """D^(order + 1) F_i [u_j, v, ..] at [i, j] along a direction v."""
        jets, _ = self._moved(along, order)
        return gram(self._passed.out, readings(self._passed, jets, order), self._still, self._rates, order)[order]


@torch.no_grad()
def moving_entries(function: NetworkFunction, x: Tensor, rates: Mapping[str, float]) -> MovingEntries | None:
    """The entries of a network on some inputs; None where it is no dense network of known operations."""
    passed = known_pass(function, x, rates)
    try:
        return None if passed is None else MovingEntries(passed, rates)
    except OtherOperation:
        return None


def _combined(a: Direction, b: Direction, sign: int) -> Direction:
    """A sum, or a difference."""
    return {name: _plus(one, b[name], sign) for name, one in a.items()}


def _plus(a: Tensor | None, b: Tensor | None, sign: int) -> Tensor | None:
    if a is None or b is None:
        return a if b is None else sign * b
    return torch.add(a, b, alpha=sign)
