"""The truncated neural tangent hierarchy: a finite network's training predicted from its kernels at initialisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from lazyrich.errors import TangentError
from lazyrich.inference.normalisation import loss_scale
from lazyrich.inference.times import Times, times_of
from lazyrich.tangent.function import NetworkFunction, copy_of
from lazyrich.tangent.higher import ORDERS, HigherKernels, higher_kernels, joined
from lazyrich.tangent.outputs import refuse_unlike
from lazyrich.tangent.refusals import refuse_untensored

LEARNT = 1e-10  # of the initial residual: below it, rounding decides where the residual points


@dataclass(frozen=True)
class Hierarchy:
    """Training as the truncated hierarchy predicts it; all tensors float64, NaN after ``valid_until``.

    Attributes:
        order: p: K_p stays as it was at initialisation.
        times: (T,), in steps.
        train: outputs on the training inputs, (T, N, K).
        test: outputs on the test inputs, (T, M, K); None without any.
        ntk: tangent kernel of the training outputs, (T, N K, N K).
        losses: training loss, in the normalisation that was asked for, (T,).
        valid_until: the last time that was asked for, or the earlier one at which the prediction contradicts itself.
        reason: why it ends there; None where it does not.
        title: what was predicted, for people.
        first: tangent kernel of the training outputs at the start, (N K, N K).

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8, bias=False), nn.Tanh(), nn.Linear(8, 1, bias=False))
        >>> found = hierarchy(net, torch.eye(2), torch.tensor([1.0, -1.0]), times=[0, 1, 2])
        >>> found.ntk.shape, found.valid_until, found.reason is None
        (torch.Size([3, 2, 2]), 2.0, True)
    """

    order: int
    times: Tensor
    train: Tensor
    test: Tensor | None
    ntk: Tensor
    losses: Tensor
    valid_until: float
    reason: str | None
    title: str
    first: Tensor

    def ntk_movement(self) -> Tensor:
        """||Theta_t - Theta_0|| / ||Theta_0|| at each time."""
        return (self.ntk - self.first).flatten(1).norm(dim=1) / self.first.norm()

    def rows(self) -> list[dict[str, Any]]:
        """One record a time: ``time``, ``train_loss``, ``ntk_movement``."""
        columns = zip(self.times.tolist(), self.losses.tolist(), self.ntk_movement().tolist(), strict=True)
        return [{"time": time, "train_loss": loss, "ntk_movement": moved} for time, loss, moved in columns]

    def __str__(self) -> str:
        lines = [self.title]
        lines += ["  ".join(f"{name} {value:<10.4g}" for name, value in row.items()).rstrip() for row in self.rows()]
        return "\n".join([*lines, f"valid until {self.valid_until:.4g}: {self.reason}"] if self.reason else lines)


def hierarchy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    order: int = 4,
    *,
    times: Times,
    x_test: Tensor | None = None,
    loss: str = "mean",
    lr: float = 1.0,
    rates: Mapping[str, float] | None = None,
    kernels: HigherKernels | None = None,
) -> Hierarchy:
    """Outputs of a finite network under gradient flow, from the hierarchy with K_order frozen (Huang & Yau 2019).

    df_a/dt = -c sum_b K2(a, b) (f_b - y_b),  dK_r/dt = -c sum_b K_{r+1}(.., b) (f_b - y_b) for r < order,  dK_order/dt = 0,
    c being the scale of the loss (1/N for the default 1/(2N) sum) times lr. order=2 is the linearised network. At width n
    the first corrections are of relative size 1/n, and K4's mean is of that size as well as K3's fluctuation: order 3 alone
    does not improve the rate, order 4 does (arXiv:1909.08156; Dyer & Gur-Ari 2019, arXiv:1909.11304).

    The expansion holds while kernels have moved little. The solution is stopped, and what follows is NaN, where it
    contradicts itself: the training loss would rise, which gradient flow never does, or the tangent kernel has moved by its
    own norm.

    Args:
        model: treats samples one by one; computed on a float64 copy.
        x: training inputs (N, ...): a small set, since K4 has (N K)^4 entries.
        y: targets, (N, K), or (N,) for one output.
        order: 2, 3 or 4.
        times: one or several finite times, in steps.
        x_test: further inputs to predict on.
        loss: normalisation of the squared loss: "mean" is 1/(2N) sum, "sum" 1/2 sum, "mse" torch's mean over samples and
            outputs, "neural_tangents" 1/(2NK) sum.
        lr: learning rate, so that one unit of time is one step.
        rates: learning-rate factor by tensor name, as a plan's ``settings`` give them.
        kernels: ``higher_kernels`` of this network on x and x_test, of at least this order, to predict again without it.

    Raises:
        TangentError: for inputs that do not fit, a tangent kernel that is zero, or kernels too large for memory.

    Example:
        >>> x = torch.eye(2)
        >>> net = nn.Sequential(nn.Linear(2, 8, bias=False), nn.Tanh(), nn.Linear(8, 1, bias=False))
        >>> prediction = hierarchy(net, x, torch.tensor([1.0, -1.0]), times=[0, 1, 2])
        >>> prediction.train.shape, bool(prediction.losses[2] < prediction.losses[0])
        (torch.Size([3, 2, 1]), True)
    """
    when = _times(times)
    if not isinstance(lr, Real) or not 0 < lr < math.inf:
        raise TangentError(f"got lr {lr!r}, expected a learning rate: positive and finite")
    if not isinstance(order, Integral) or order not in ORDERS:
        raise TangentError(f"got order {order!r}, expected one of {', '.join(map(str, ORDERS))}")
    if kernels is not None and rates is not None:
        raise TangentError("got kernels and rates: rates are in the kernels already; give them to higher_kernels(rates=...)")
    given, kernels = kernels, kernels if kernels is not None else higher_kernels(model, x, x_test, order, rates)
    refuse_untensored(x, "x")
    _check_kernels(kernels, order, len(x) + (0 if x_test is None else len(x_test)))
    if given is not None:
        _refuse_other(given, model, x if x_test is None else joined(x, x_test))
    targets = _targets(y, kernels)
    refuse_still(kernels.k2[: len(targets)])
    scale = loss_scale(loss, kernels.samples, kernels.shape[1])
    system = _System(kernels, targets, lr * scale, order)
    found = solve_ivp(
        system.velocity,
        (0.0, max(float(when.max()), 1e-12)),
        system.start,
        method="DOP853",
        t_eval=when.numpy(),
        events=system.ends,
        rtol=1e-9,
        atol=1e-11 * system.size,
    )
    reason, until = _verdict(found, float(when.max()))
    states = np.full((len(when), len(system.start)), np.nan)
    if len(found.t):  # a solver that ends before the first time gives an empty list
        states[: found.y.shape[1]] = found.y.T
    outputs = np.stack([system.parts(state)[0] for state in states])
    ntk = np.stack([system.upper(state)[0][: system.train] for state in states])
    alive = np.isfinite(outputs).all(1)
    ntk[~alive] = np.nan
    everything = torch.from_numpy(outputs).reshape(len(when), *kernels.shape)
    return Hierarchy(
        order=order,
        times=when,
        train=everything[:, : kernels.samples],
        test=everything[:, kernels.samples :] if kernels.shape[0] > kernels.samples else None,
        ntk=torch.from_numpy(ntk),
        losses=torch.from_numpy(scale / 2 * np.square(outputs[:, : system.train] - targets).sum(1)),
        valid_until=until,
        reason=reason,
        first=kernels.k2[: system.train],
        title=f"hierarchy to order {order} on {kernels.samples} samples, loss {loss}, lr {lr:g}",
    )


def refuse_still(theta: Tensor) -> None:
    """Raise a TangentError for a tangent kernel that is zero, as of dead units.

    Example:
        >>> refuse_still(torch.eye(2))
    """
    if not bool(theta.any()):
        raise TangentError("no parameter moves the outputs at these inputs, so nothing will be learnt; give other inputs")


class _System:
    """The ordinary differential equation: f, K2, .., K_{p-1} move, K_p stays."""

    def __init__(self, kernels: HigherKernels, targets: np.ndarray, rate: float, order: int) -> None:
        known = [kernels.outputs, kernels.k2, kernels.k3, kernels.k4][:order]
        parts = [part.numpy() for part in known if part is not None]
        self.last, self.targets, self.rate = parts[-1], targets, rate
        self.train = len(targets)
        self.shapes = [part.shape for part in parts[:-1]]
        self.cuts = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        self.start = np.concatenate([part.ravel() for part in parts[:-1]])
        self.k2 = parts[1]
        self.norm = float(np.linalg.norm(self.k2[: self.train]))
        self.first = float(np.linalg.norm(parts[0][: self.train] - targets))
        self.size = np.concatenate([np.full(part.size, max(float(np.abs(part).max()), self.first)) for part in parts[:-1]])
        self.ends = [self.falling, self.near]

    def parts(self, state: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(shape) for part, shape in zip(np.split(state, self.cuts), self.shapes, strict=True)]

    def upper(self, state: np.ndarray) -> list[np.ndarray]:
        """K2, .., K_p."""
        return [*self.parts(state)[1:], self.last]

    def residual(self, state: np.ndarray) -> np.ndarray:
        return state[: self.train] - self.targets

    def velocity(self, _: float, state: np.ndarray) -> np.ndarray:
        r = self.residual(state)
        return np.concatenate([(-self.rate * (kernel @ r)).ravel() for kernel in self.upper(state)])

    def falling(self, _: float, state: np.ndarray) -> float:
        """Positive while the training loss falls: r^T K2 r against its scale."""
        r = self.residual(state)
        square = float(r @ r)
        if square <= (LEARNT * self.first) ** 2:
            return 1.0
        return float(r @ self.upper(state)[0][: self.train] @ r) / (square * self.norm) + 1e-12

    def near(self, _: float, state: np.ndarray) -> float:
        """Positive while the tangent kernel has moved by less than its own norm."""
        moved = self.upper(state)[0][: self.train] - self.k2[: self.train]
        return 1.0 - float(np.linalg.norm(moved)) / self.norm

    falling.terminal = near.terminal = True  # type: ignore[attr-defined]


REASONS = (
    "the predicted training loss would rise, which gradient flow never does",
    "the predicted tangent kernel has moved by its own norm, so an expansion around the start says nothing more",
)


def _verdict(found: Any, last: float) -> tuple[str | None, float]:
    hits = [(float(times[0]), reason) for times, reason in zip(found.t_events, REASONS, strict=True) if len(times)]
    if hits:
        until, reason = min(hits)
        return reason, until
    if found.status < 0:
        return f"the integration failed: {found.message}", float(found.t[-1]) if len(found.t) else 0.0
    return None, last


def _times(times: Times) -> Tensor:
    when = times_of(times, "times").reshape(-1)
    if not torch.isfinite(when).all():
        raise TangentError("got an infinite time, expected finite ones: the truncated hierarchy has no limit to go to")
    if not bool((when.diff() > 0).all()):
        raise TangentError(f"got times {when.tolist()}, expected increasing ones")
    return when


def _targets(y: Tensor, kernels: HigherKernels) -> np.ndarray:
    refuse_unlike(y, (kernels.samples, kernels.shape[1]), "y")
    return y.detach().cpu().double().flatten().numpy()


def _check_kernels(kernels: HigherKernels, order: int, samples: int) -> None:
    if kernels.order < order:
        raise TangentError(
            f"got kernels up to K{kernels.order} for order {order}; make them with higher_kernels(order={order})"
        )
    if kernels.shape[0] != samples:
        raise TangentError(f"got kernels of {kernels.shape[0]} inputs, expected the {samples} of x and x_test together")


def _refuse_other(kernels: HigherKernels, model: nn.Module, x: Tensor) -> None:
    """Kernels of another network or of other inputs, or of this network before it was trained: by the outputs at their start."""
    function = NetworkFunction(copy_of(model).double())
    exact = x.double() if x.is_floating_point() else x
    with torch.no_grad():
        found = function(function.parameters, exact).flatten().to(kernels.outputs)
    apart = float((found - kernels.outputs).abs().max()) if len(found) == len(kernels.outputs) else math.inf
    if not apart <= 1e-6 * float(kernels.outputs.abs().max()) + 1e-12:
        raise TangentError(
            f"got kernels of other outputs than those of {type(model).__name__} on these inputs (apart by {apart:.2g}), expected "
            "higher_kernels of this network as it is now, on x and x_test in this order; leave kernels out to make them"
        )
