"""What a two-layer network is while training begins: a linear model of the inputs and their norm."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lazyrich.amount import counted, real, unsigned
from lazyrich.errors import TangentError
from lazyrich.gaussian.jump import jumps
from lazyrich.gaussian.quadrature import REACH, Integrand, expectation

Layers = Literal["first", "second", "both"]
NAMED: dict[str, tuple[Callable[[Tensor], Tensor], tuple[float, ...]]] = {  # function, and where it is not smooth
    "erf": (torch.erf, ()),
    "tanh": (torch.tanh, ()),
    "relu": (torch.relu, (0.0,)),
    "sigmoid": (torch.sigmoid, ()),
    "gelu": (nn.functional.gelu, ()),
    "silu": (nn.functional.silu, ()),
    "softplus": (nn.functional.softplus, ()),
}
SCALED = 2.0  # how far the mean of ||x||^2 / d may be from 1


@dataclass(frozen=True)
class Averages:
    """Gaussian averages of an activation, g ~ N(0, 1).

    Attributes:
        zeta: E[phi'(g)].
        rise: E[g phi'(g)].
        th0: E[phi(g)].
        th2: E[(g^3/2 - g) phi'(g)].
    """

    zeta: float
    rise: float
    th0: float
    th2: float


def averages(activation: str | Callable[[Tensor], Tensor], kinks: tuple[float, ...] = ()) -> Averages:
    """The averages by quadrature, split where a function of your own is not smooth: at ``kinks``, or where it is found to jump.

    Example:
        >>> abs(averages("erf").zeta - 2 / math.sqrt(3 * math.pi)) < 1e-12
        True
        >>> abs(averages(lambda g: g.clamp(-1, 1)).zeta - math.erf(math.sqrt(0.5))) < 1e-9
        True
    """
    phi = integrand(activation, kinks)
    if not isinstance(activation, str) and not phi.kinks:
        phi = replace(phi, kinks=tuple(sorted({*jumps(phi, REACH), *jumps(phi.derivative, REACH)})))
    slope = phi.derivative

    def mean(of: Callable[[Tensor], Tensor]) -> float:
        return float(expectation(Integrand(of, phi.kinks), torch.ones((), dtype=torch.float64)))

    return Averages(mean(slope), mean(phi.radial), mean(phi), mean(lambda g: (g**3 / 2 - g) * slope(g)))


def integrand(activation: str | Callable[[Tensor], Tensor], kinks: tuple[float, ...] = ()) -> Integrand:
    """A function by name or as it is, ready to be integrated.

    Example:
        >>> integrand("relu").kinks
        (0.0,)
    """
    if not isinstance(kinks, (tuple, list)) or not all(math.isfinite(real(k)) for k in kinks):
        raise TangentError(f"got kinks = {kinks!r}, expected the places where the function is not smooth, such as (0.0,)")
    kinks = tuple(real(k) for k in kinks)
    if callable(activation) and not isinstance(activation, type):
        return Integrand(activation, kinks)
    if not isinstance(activation, str) or activation not in NAMED:
        raise TangentError(f"got activation {activation!r}, expected one of {', '.join(NAMED)}, or a function tensor -> tensor")
    return Integrand(*NAMED[activation])


@dataclass(frozen=True)
class EarlyModel:
    """The linear model that a wide two-layer network follows early in training (Hu et al. 2020, arXiv:2006.14599).

    It is beta . psi(x), with features psi from the data's covariance and the activation alone.

    With s = ||x||/sqrt(d) - 1, q = th0 + rise s + th2 s^2 and nu = E[g phi'(g)] sqrt(Tr Sigma^2 / d):
    first layer (zeta x, nu)/sqrt(d); second (zeta x/sqrt(d), nu/sqrt(2d), q); both (sqrt(2/d) zeta x, sqrt(3/(2d)) nu, q).
    It is linear in x and ||x||: not the network's own linearisation, and it needs far less width, n, m >= d^{1 + alpha}, for
    up to d log(d) / lr steps.

    Attributes:
        averages: of the activation.
        layers: which layers are trained.
        inputs: d.
        nu: as above.

    Example:
        >>> model = early_model(torch.randn(200, 10), "erf", "first")
        >>> model.features(torch.randn(3, 10)).shape, abs(model.nu) < 1e-12  # erf is odd
        (torch.Size([3, 11]), True)
    """

    averages: Averages
    layers: Layers
    inputs: int
    nu: float

    def features(self, x: Tensor) -> Tensor:
        """psi(x), (N, d + 1) for the first layer, (N, d + 2) otherwise; dtype and device of x."""
        d, a = self.inputs, self.averages
        _refuse_others(x, d)
        one = torch.ones_like(x[:, :1])
        if self.layers == "first":
            return torch.cat([a.zeta * x, self.nu * one], 1) / math.sqrt(d)
        s = x.norm(dim=1, keepdim=True) / math.sqrt(d) - 1
        q = a.th0 + a.rise * s + a.th2 * s.square()
        slope, constant = (1.0, 0.5) if self.layers == "second" else (2.0, 1.5)
        return torch.cat([math.sqrt(slope / d) * a.zeta * x, math.sqrt(constant / d) * self.nu * one, q], 1)

    def kernel(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """psi(x1) . psi(x2), (N1, N2): what the tangent kernel is close to in spectral norm, as n grows."""
        left = self.features(x1)
        return left @ (left if x2 is None else self.features(x2)).T

    def train(self, x: Tensor, y: Tensor, lr: float) -> EarlyTraining:
        """Gradient descent on 1/(2n) sum_i ||beta . psi(x_i) - y_i||^2 from beta = 0, solved for any step.

        Args:
            x: inputs (n, d).
            y: targets (n,) or (n, K).
            lr: the network's learning rate, per step.

        Raises:
            TangentError: for targets that do not fit, or a rate at which the descent diverges.
        """
        psi = self.features(x)
        if not isinstance(y, Tensor) or y.dim() < 1:
            raise TangentError(f"got y of {_kind(y)}, expected a tensor (n,) or (n, K) of targets; pass torch.as_tensor(...)")
        targets = (y.flatten(1) if y.dim() > 1 else y[:, None]).to(x)
        if len(targets) != len(x) or not len(x):
            raise TangentError(f"got {len(x)} inputs and {len(targets)} targets, expected one target for every input")
        if not torch.isfinite(targets).all():
            raise TangentError("y has entries that are not finite; remove those samples")
        values, vectors = torch.linalg.eigh(psi.double().T @ psi.double() / len(x))
        largest, rate = float(values[-1]), real(lr)
        if not 0 < rate * largest < 2:
            raise TangentError(
                f"got lr={lr!r}, expected 0 < lr < {2 / largest:.4g}: gradient descent diverges from twice the inverse of the "
                f"features' largest curvature, {largest:.4g}"
            )
        pull = vectors.T @ (psi.double().T @ targets.double()) / len(x)
        return EarlyTraining(self, rate, values.clamp_min(0), vectors, pull)


@dataclass(frozen=True)
class EarlyTraining:
    """The early-time model under gradient descent: its coefficients and outputs at any step, without taking the steps.

    Attributes:
        model: whose training it is.
        lr: learning rate.
        values: eigenvalues of Psi^T Psi / n, float64.
        vectors: their eigenvectors, in columns.
        pull: Psi^T y / n in that basis, (p, K).

    Example:
        >>> x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
        >>> training = early_model(x, "erf").train(x, x[:, :1], lr=0.5)
        >>> training.beta(0).abs().max().item(), training.beta(10).shape[1]
        (0.0, 1)
    """

    model: EarlyModel
    lr: float
    values: Tensor
    vectors: Tensor
    pull: Tensor

    def beta(self, step: int) -> Tensor:
        """Coefficients after ``step`` steps, (p, K), float64: (1 - (1 - lr lambda)^step) / lambda along each eigenvector."""
        step = counted("step", step, 0, TangentError)
        rates = self.lr * self.values
        slow = -torch.expm1(step * torch.log1p(-rates.clamp(max=0.5)))  # keeps its digits where the rate is small
        learnt = torch.where(rates < 0.5, slow, 1 - (1 - rates) ** step)
        grown = torch.where(rates > 1e-300, learnt / rates.clamp_min(1e-300), float(step))
        return self.vectors @ (self.lr * grown[:, None] * self.pull)

    def predict(self, x: Tensor, step: int) -> Tensor:
        """Outputs on x after ``step`` steps, (N, K), in x's dtype."""
        return self.model.features(x) @ self.beta(step).to(x)


def early_model(
    x: Tensor,
    activation: str | Callable[[Tensor], Tensor] = "erf",
    layers: Layers = "both",
    *,
    trace: float | None = None,
    kinks: tuple[float, ...] = (),
) -> EarlyModel:
    """The early-time model of a two-layer network on inputs like x.

    Args:
        x: inputs (n, d), centred, entries of variance about 1 (Tr Sigma = d).
        activation: a name (erf, tanh, relu, sigmoid, gelu, silu, softplus) or a function that acts entry by entry.
        layers: which layers are trained: "first", "second" or "both".
        trace: Tr Sigma^2 where it is known; otherwise the mean of (x_i . x_j)^2 over pairs, which estimates it without bias.
        kinks: where a function of your own is not smooth; by default the places where it or its slope is found to jump.

    Raises:
        TangentError: for inputs that are not on that scale, and names that are not known.

    Example:
        >>> model = early_model(torch.randn(200, 10), "relu", "both")
        >>> model.kernel(torch.randn(3, 10)).shape
        torch.Size([3, 3])
    """
    if layers not in get_args(Layers):
        raise TangentError(f"got layers={layers!r}, expected one of {', '.join(get_args(Layers))}")
    if not isinstance(x, Tensor) or x.dim() != 2 or len(x) < 2 or not x.shape[1]:
        raise TangentError(f"got x of {_kind(x)}, expected a tensor (n, d) with n at least 2; flatten inputs with x.flatten(1)")
    _refuse_whole(x)
    if not torch.isfinite(x).all():
        raise TangentError("x has entries that are not finite; remove those samples")
    d = x.shape[1]
    scale = float(x.double().square().sum(1).mean()) / d
    if not 1 / SCALED < scale < SCALED:
        raise TangentError(
            f"got inputs whose mean of ||x||^2 / d is {scale:.3g}, expected about 1; centre them, then divide by "
            f"{math.sqrt(scale):.3g}"
        )
    off = float(x.double().mean(0).square().sum()) / d
    if off > 0.1 + 3 / len(x):
        raise TangentError(f"got inputs with a mean of ||mean||^2 / d = {off:.2g}, expected centred ones; subtract x.mean(0), then "
                           "divide by the root of the mean of ||x||^2 / d")  # fmt: skip
    found = averages(activation, kinks)
    nu = found.rise * math.sqrt((_trace_of_square(x) if trace is None else unsigned("trace", trace, TangentError)) / d)
    return EarlyModel(found, layers, d, nu)


def _kind(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"


def _refuse_others(x: Any, inputs: int) -> None:
    if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != inputs:
        raise TangentError(f"got x of {_kind(x)}, expected a tensor (N, {inputs}); flatten inputs with x.flatten(1)")
    _refuse_whole(x)


def _refuse_whole(x: Tensor) -> None:
    if not x.is_floating_point():
        raise TangentError(f"got x of {x.dtype}, expected real numbers with a floating point; pass x.float()")


def _trace_of_square(x: Tensor) -> float:
    """Mean over pairs i != j of (x_i . x_j)^2, whose expectation is Tr Sigma^2 for centred independent samples."""
    x = x.double()
    total = (x.T @ x).square().sum() - x.square().sum(1).square().sum()
    return float(total) / (len(x) * (len(x) - 1))


class EarlyNetwork(nn.Module):
    """f(x) = m^{-1/2} sum_r v_r phi(w_r . x / sqrt(d)), w ~ N(0, I), v = +-1, in pairs of equal w and opposite v: f = 0 at first.

    The network that the early-time model describes, with the same learning rate on the same layers.

    Args:
        inputs: d.
        width: m, even.
        activation: a name or a function.
        layers: which layers are trained; the other's parameters do not require gradients.
        seed: of w and of the signs.

    Raises:
        TangentError: for an odd width, and names that are not known.

    Example:
        >>> net = EarlyNetwork(10, 64, "erf", "first")
        >>> [name for name, p in net.named_parameters() if p.requires_grad], float(net(torch.randn(5, 10)).detach().abs().max())
        (['w'], 0.0)
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        activation: str | Callable[[Tensor], Tensor] = "erf",
        layers: Layers = "both",
        seed: int = 0,
    ) -> None:
        super().__init__()
        inputs, width = counted("inputs", inputs, 1, TangentError), counted("width", width, 2, TangentError)
        if width % 2:
            raise TangentError(f"got width = {width}, expected an even width: units come in pairs")
        if layers not in get_args(Layers):
            raise TangentError(f"got layers={layers!r}, expected one of {', '.join(get_args(Layers))}")
        self.phi = integrand(activation).function
        if not isinstance(seed, Integral) or not -(2**63) <= seed < 2**63:
            raise TangentError(f"got seed = {seed!r}, expected a whole number of 64 bits, such as 0")
        draw, dtype = torch.Generator().manual_seed(int(seed)), torch.get_default_dtype()
        w = torch.randn(width // 2, inputs, generator=draw, dtype=torch.float64).to(dtype)
        v = (2 * torch.randint(0, 2, (width // 2,), generator=draw) - 1).to(dtype)
        self.w = nn.Parameter(torch.cat([w, w]), requires_grad=layers != "second")
        self.v = nn.Parameter(torch.cat([v, -v]), requires_grad=layers != "first")

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, 1)."""
        d, m = self.w.shape[1], len(self.v)
        _refuse_others(x, d)
        # the halves apart, so that they cancel exactly while they are equal
        one, other = (self.phi(x @ w.T / math.sqrt(d)) @ v for w, v in zip(self.w.chunk(2), self.v.chunk(2), strict=True))
        return ((one + other) / math.sqrt(m))[:, None]
