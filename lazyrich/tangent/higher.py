"""The kernels above the tangent kernel, in full on small sets: dNTK, ddNTK, and K3, K4 of the neural tangent hierarchy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from lazyrich.errors import TangentError
from lazyrich.tangent.function import differentiable
from lazyrich.tangent.motion import moving_entries
from lazyrich.tangent.outputs import Outputs, Point, along
from lazyrich.tangent.refusals import refuse_untensored

LIMIT = 2e9  # bytes that the tensors of one call may take
CHUNK = 2.5e8  # bytes of directions that are followed at a time
ORDERS = (2, 3, 4)


@dataclass(frozen=True)
class HigherKernels:
    """Kernels of one network on m training outputs and M - m test outputs behind them, all float64.

    With u_a = grad f_a, H_a and T_a the second and third derivatives of output a (f_a the output n K + k):

    Attributes:
        outputs: f at the expansion point, (M,).
        k2: the tangent kernel <u_a, u_b>, (M, m).
        k3: <grad K2(a, b), u_c>, (M, m, m); None below order 3.
        k4: <grad K3(a, b, c), u_e>, (M, m, m, m), not symmetric in its last two indices; None below order 4.
        dntk: u_b^T H_a u_c at [a, b, c], (m, m, m): two derivatives on the first index; None below order 3.
        ddntk_one: T_a[u_b, u_c, u_e] at [a, b, c, e], (m, m, m, m); None below order 4.
        ddntk_two: <H_a u_c, H_b u_e> at [a, b, c, e], (m, m, m, m); None below order 4.
        shape: of the network's outputs on all inputs, training first, (N, K).
        samples: training inputs among them.

    Example:
        >>> found = higher_kernels(nn.Linear(2, 1), torch.eye(2))  # a linear model: nothing above the tangent kernel
        >>> found.k2.tolist(), float(found.k3.abs().max())
        ([[2.0, 1.0], [1.0, 2.0]], 0.0)
    """

    outputs: Tensor
    k2: Tensor
    k3: Tensor | None
    k4: Tensor | None
    dntk: Tensor | None
    ddntk_one: Tensor | None
    ddntk_two: Tensor | None
    shape: tuple[int, int]
    samples: int

    @property
    def order(self) -> int:
        """The highest kernel that is known."""
        return 2 if self.k3 is None else 3 if self.k4 is None else 4


def higher_kernels(
    model: nn.Module,
    x: Tensor,
    x_test: Tensor | None = None,
    order: int = 4,
    rates: Mapping[str, float] | None = None,
) -> HigherKernels:
    """K2, K3 and K4 of the neural tangent hierarchy (Huang & Yau 2019, arXiv:1909.08156), with their parts.

    K_{r+1}(a_1, ..., a_r, b) = <grad K_r(a_1, ..., a_r), grad f_b>. Under gradient flow on the loss
    c/2 sum (f - y)^2: df_a/dt = -c sum_b K2(a, b) (f_b - y_b) and dK_r/dt = -c sum_b K_{r+1}(.., b) (f_b - y_b).
    In the terms of Roberts, Yaida & Hanin (The Principles of Deep Learning Theory): dNTK(a; b, c) = u_b^T H_a u_c and

    K3(a, b, c) = dNTK(a; b, c) + dNTK(b; a, c),
    K4(a, b, c, e) = I(a; b, c, e) + I(b; a, c, e) + II(a, b; c, e) + II(b, a; c, e) + II(a, c; b, e) + II(b, c; a, e).

    Every entry is a nested forward pass along gradients, a block of entries at a time: beside the answer there are a few
    parameter-sized vectors an entry of the block, and never a Hessian. Time grows as M^2 m^(order - 2) forward passes;
    for large sets there is ``contracted``.

    Args:
        model: treats samples one by one; computed on a float64 copy.
        x: training inputs (N, ...). Several outputs count as further samples.
        x_test: test inputs, which residuals never touch.
        order: 2, 3 or 4.
        rates: learning-rate factor by tensor name (1 where not given), counted by every kernel.

    Raises:
        TangentError: for inputs or rates that do not fit, or an answer above 2 GB.

    Example:
        >>> kernels = higher_kernels(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), torch.eye(2))
        >>> kernels.k2.shape, kernels.k4.shape
        (torch.Size([2, 2]), torch.Size([2, 2, 2, 2]))
        >>> bool(torch.allclose(kernels.k3, kernels.dntk + kernels.dntk.transpose(0, 1)))
        True
    """
    if not isinstance(order, Integral) or order not in ORDERS:
        raise TangentError(f"got order {order!r}, expected one of {', '.join(map(str, ORDERS))}")
    everything = x if x_test is None else joined(x, x_test)
    outputs = Outputs(model, everything, rates, exact=True)
    total, train = math.prod(outputs.shape), len(x) * outputs.shape[1]
    _check_size(total, train, order)
    entries = moving_entries(outputs.function, outputs.x, outputs.rates) or _Entry(outputs)
    with differentiable(model):
        second = entries.second(train)
        third = entries.third(total, train) if order > 2 else None
        one, two = entries.fourth(total, train) if order > 3 else (None, None)
    return HigherKernels(
        outputs=outputs.start,
        k2=second,
        k3=None if third is None else third[:, :train] + third[:train].transpose(0, 1),
        k4=None if one is None or two is None else _k4(one, two, train),
        dntk=None if third is None else third[:train, :train],
        ddntk_one=None if one is None else one[:train, :train],
        ddntk_two=None if two is None else two[:train, :train].transpose(1, 2),
        shape=outputs.shape,
        samples=len(x),
    )


class _Entry:
    """Entries of the derivative tensors, each along gradients that are recomputed for it: no Jacobian is kept."""

    def __init__(self, outputs: Outputs) -> None:
        self.f, self.point = outputs, outputs.point
        self.basis = torch.eye(len(outputs.start)).to(outputs.start)
        chunk = max(1, int(CHUNK / (5 * 8 * outputs.weights)))
        self.each = partial(
            vmap, chunk_size=chunk, randomness="same"
        )  # draws from a generator of the network's own are the same

    def gradient(self, c: Tensor) -> Point:
        return self.f.pull(self.point, c)

    def second(self, train: int) -> Tensor:
        """<u_i, u_c> at [i, c]."""
        rows = self.each(lambda c: along(self.f, self.point, self.gradient(c)))(self.basis[:train])
        return rows.mT.contiguous()

    def third(self, total: int, train: int) -> Tensor:
        """D^2 F_i [u_j, u_c] at [i, j, c]; i and j run over everything, c over the training outputs."""

        def entry(j: Tensor, c: Tensor) -> Tensor:
            return along(self.f, self.point, self.gradient(j), self.gradient(c))

        j, c = self._grid(total, train)
        return self.each(entry)(j, c).T.reshape(total, total, train)

    def fourth(self, total: int, train: int) -> tuple[Tensor, Tensor]:
        """D^3 F_i [u_j, u_c, u_e] and D^2 F_i [u_j, H_c u_e] at [i, j, c, e]."""

        def entry(j: Tensor, c: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
            uj, uc, ue = self.gradient(j), self.gradient(c), self.gradient(e)
            bent = jvp(lambda point: self.f.pull(point, c), (self.point,), (ue,))[1]  # H_c u_e, forward over reverse
            return along(self.f, self.point, uj, uc, ue), along(self.f, self.point, uj, bent)

        one, two = self.each(entry)(*self._grid(total, train, train))
        shape = (total, total, train, train)
        return one.T.reshape(shape), two.T.reshape(shape)

    def _grid(self, *sizes: int) -> list[Tensor]:
        index = torch.cartesian_prod(*(torch.arange(size, device=self.basis.device) for size in sizes))
        return [self.basis[i] for i in index.T]


def _k4(one: Tensor, two: Tensor, train: int) -> Tensor:
    """K4[a, b, c, e] from D^3 F_i [u_j, u_c, u_e] and D^2 F_i [u_j, H_c u_e], using <H_a u, w> = D^2 F_a [u, w]."""
    a_first, b_first = two[:, :train], two[:train].transpose(0, 1)
    return (
        one[:, :train]
        + one[:train].transpose(0, 1)
        + a_first.transpose(1, 2)  # <H_a u_c, H_b u_e>
        + a_first.permute(0, 2, 3, 1)  # <H_b u_c, H_a u_e>
        + a_first  # <H_a u_b, H_c u_e>
        + b_first  # <H_b u_a, H_c u_e>
    )


def joined(x: Tensor, x_test: Tensor) -> Tensor:
    """Training inputs, and test inputs behind them.

    Example:
        >>> joined(torch.zeros(2, 3), torch.ones(4, 3)).shape
        torch.Size([6, 3])
    """
    refuse_untensored(x, "x")
    refuse_untensored(x_test, "x_test")
    if x.shape[1:] != x_test.shape[1:] or x.dtype != x_test.dtype or len(x_test) == 0:
        raise TangentError(
            f"got x_test of shape {tuple(x_test.shape)} and {x_test.dtype}, expected samples like x: "
            f"{tuple(x.shape)} and {x.dtype}"
        )
    return torch.cat([x, x_test])


def _check_size(total: int, train: int, order: int) -> None:
    needs = 8.0 * {2: total * train, 3: 2 * total**2 * train, 4: 3 * total**2 * train**2}[order]
    if needs > LIMIT:
        raise TangentError(
            f"K{order} of {train} training outputs and {total - train} test outputs needs {needs / 1e9:.3g} GB, more than "
            f"{LIMIT / 1e9:g}; give fewer inputs, or contract it with residuals: contracted(model, x, r, order={order})"
        )
