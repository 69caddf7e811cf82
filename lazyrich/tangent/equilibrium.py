"""Where along the depth tangent kernels align with the targets: the balance of what is forgotten forwards and backwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import KernelError, TangentError
from lazyrich.gaussian import Dual, Signal, critical, dual, half_stable
from lazyrich.gaussian.signal import TINY

START = 0.0  # correlation of the inputs


@dataclass(frozen=True)
class Equilibrium:
    """Two losses along the depth, and where they balance.

    Attributes:
        depth: L, hidden layers.
        memory: 1 - c_l for l = 1 .. L, (L,): how far two inputs are still apart at layer l; falls with l.
        backward: correlation of two inputs' gradients at layer l = 1 .. L, (L,); rises to its value at the top.
        balance: l*, where the two curves cross, interpolated; 1 or L where they do not.
        title: what was computed, for people.

    Example:
        >>> found = equilibrium("relu", 30)
        >>> found.memory.shape, bool(found.memory[0] > found.memory[-1]), 1 < found.balance < 30
        (torch.Size([30]), True, True)
    """

    depth: int
    memory: Tensor
    backward: Tensor
    balance: float
    title: str

    @property
    def fraction(self) -> float:
        """l* / L."""
        return self.balance / self.depth

    def rows(self) -> list[dict[str, Any]]:
        """One record a layer: ``layer``, ``memory``, ``backward``."""
        columns = zip(range(1, self.depth + 1), self.memory.tolist(), self.backward.tolist(), strict=True)
        return [{"layer": layer, "memory": memory, "backward": backward} for layer, memory, backward in columns]

    def __str__(self) -> str:
        shown = sorted({1, self.depth, *(round(self.depth ** (i / 6)) for i in range(7))})
        lines = [f"{self.title}: balance at layer {self.balance:.3g} of {self.depth}"]
        for row in (self.rows()[layer - 1] for layer in shown):
            lines.append("  ".join(f"{name} {value:<10.4g}" for name, value in row.items()).rstrip())
        return "\n".join(lines)


def equilibrium(
    activation: str | Callable[[Tensor], Tensor] | Dual | Signal,
    depth: int,
    *,
    correlation: float = START,
    residual: float | None = None,
) -> Equilibrium:
    """The layer at which the tangent kernel's alignment with the targets should peak, at infinite width.

    A layer's tangent kernel is the covariance of what comes in times that of the gradients that come back. Going up, inputs
    grow alike: their distance 1 - c_l is the memory that is left. Going down, gradients of different inputs decorrelate: with
    q the variance,

        b_l = prod_{k=l}^{L} E[phi'(u_k) phi'(v_k)] / E[phi'(u_k)^2],   (u_k, v_k) ~ N(0, q_k [[1, c_k], [c_k, 1]]).

    The Equilibrium Hypothesis (Lou, Mingard, Nam & Hayou 2022, arXiv:2110.11749) puts the peak where both losses balance;
    here 1 - c_l = b_l, our reading of it. On the edge of chaos a ReLU net has 1 - c_l ~ 9 pi^2 / (2 l^2) and b_l ~ (l/L)^3,
    so l* ~ L^(3/5); smooth activations 1/l and (l/L)^2, so l* ~ L^(2/3): a vanishing fraction of the depth. With residual
    branches divided by sqrt(L) both are functions of l/L, so l* ~ L.

    Args:
        activation: a name, function or dual, taken at its edge of chaos without biases (``gaussian.critical``), or a ``Signal``
            with variances of your own: smooth activations keep no variance without biases, so they need one, as
            ``critical("tanh", bias=0.05).signal``. A residual branch is as in ``x + a L^(-1/2) W phi(x)``.
        depth: L, hidden layers or residual blocks.
        correlation: of the two inputs, in [-1, 1).
        residual: a for residual branches a L^(-1/2); None for a plain feed-forward net.

    Raises:
        TangentError: for a depth below 2, a correlation that tells nothing, or an initialisation at which signals vanish.
        KernelError: for an activation that is not known, or has no edge of chaos.

    Example:
        >>> found = equilibrium("relu", 100)
        >>> round(found.balance), bool(found.memory[50] < found.backward[50])
        (27, True)
        >>> round(equilibrium("relu", 100, residual=1.0).fraction, 2) == round(equilibrium("relu", 400, residual=1.0).fraction, 2)
        True
    """
    if not isinstance(depth, Integral) or depth < 2:
        raise TangentError(f"got depth {depth!r}, expected a whole number, at least 2 layers to balance between")
    if not isinstance(correlation, Real) or not -1 <= correlation < 1:
        raise TangentError(f"got correlation {correlation!r}, expected one in [-1, 1): equal inputs cannot be told apart")
    if residual is not None and (not isinstance(residual, Real) or not 0 < residual < math.inf):
        raise TangentError(f"got residual {residual!r}, expected a branch factor: positive and finite, or None for a plain net")
    net, q = _net(activation)
    if not 0 < q < math.inf:
        raise TangentError(
            f"variances of {net.phi.name} go to {q:g} at sigma_w^2 = {net.weight:g}, sigma_b^2 = {net.bias:g}, so nothing is left "
            "to balance; give a Signal with a finite variance, for instance critical('tanh', bias=0.05).signal"
        )
    share = None if residual is None else residual**2 / depth
    correlations, factors = _walk(net, q, correlation, depth, share)
    memory = 1 - correlations
    backward = factors.flip(0).cumprod(0).flip(0)
    kind = f"{net.phi.name}, sigma_w^2 {net.weight:.4g}, sigma_b^2 {net.bias:.4g}"
    return Equilibrium(
        depth=depth,
        memory=memory,
        backward=backward,
        balance=_crossing(memory, backward),
        title=kind if residual is None else f"{kind}, residual branches {residual:g}/sqrt(L)",
    )


def _net(activation: Any) -> tuple[Signal, float]:
    """Layer map and the variance that it keeps."""
    if isinstance(activation, Signal):
        return activation, activation.fixed_variance()
    phi = activation if isinstance(activation, Dual) else dual(activation)
    try:
        point = critical(phi)
    except KernelError as error:
        raise KernelError(
            f"{phi.name} has no edge of chaos without biases that its variances stay at, expected an activation that has one, as "
            f"relu, or a Signal; give {_instead(activation, phi)}"
        ) from error
    return point.signal, point.variance


def _instead(activation: Any, phi: Dual) -> str:
    """A signal with biases: at the half-stable point where there is one."""
    said = repr(activation) if isinstance(activation, str) else "phi"
    try:
        half_stable(phi)
    except KernelError:
        return f"lazyrich.gaussian.signal({said}, weight, bias) with variances of your own"
    return f"lazyrich.gaussian.half_stable({said}).signal"


def _walk(net: Signal, q: float, rho: float, depth: int, share: float | None) -> tuple[Tensor, Tensor]:
    """Correlations of the pre-activations at layers 1 .. L, and what each takes from the correlation of gradients."""
    variance, covariance = (torch.tensor(v, dtype=torch.float64) for v in (q, rho * q))
    correlations, factors = [], []
    for _ in range(depth):
        inner = net.covariance_map(covariance, variance, variance), net.variance_map(variance)
        if share is None:
            covariance, variance = inner
        else:
            covariance, variance = covariance + share * inner[0], variance + share * inner[1]
        correlations.append(covariance / variance)
        # of gradients, which see no jumps
        across = net.weight * net.phi.slope(covariance, variance, variance)
        along = net.weight * net.phi.slope_variance(variance.clamp(min=TINY))
        factors.append(across / along if share is None else (1 + share * across) / (1 + share * along))
    return torch.stack(correlations), torch.stack(factors)


def _crossing(memory: Tensor, backward: Tensor) -> float:
    """The first layer with backward >= memory, between layers on logarithmic scales."""
    above = (backward >= memory).nonzero()
    if len(above) == 0:
        return float(len(memory))
    i = int(above[0])
    if i == 0:
        return 1.0
    gap = torch.log(backward[i - 1 : i + 1].clamp_min(1e-300)) - torch.log(memory[i - 1 : i + 1].clamp_min(1e-300))
    part = float(-gap[0] / (gap[1] - gap[0]))
    return i * ((i + 1) / i) ** part
