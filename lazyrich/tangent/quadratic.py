"""A two-layer network expanded to second order around its start, and the training that sees only its second order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lazyrich.errors import TangentError
from lazyrich.gaussian.quadrature import Integrand, expectation

Activation = Callable[[Tensor], Tensor]


def _shifted_sigmoid(z: Tensor) -> Tensor:  # functions with names, so that models can be pickled
    return torch.sigmoid(z - 1)


def _softplus(z: Tensor) -> Tensor:
    return torch.logaddexp(z, torch.zeros_like(z))


def _relu_squared(z: Tensor) -> Tensor:
    return z.clamp(min=0).square() / 2


def _derivative(function: Activation) -> Activation:
    """Of a function that acts entry by entry; within a transform of torch.func (an expansion of the model) by its means alone."""
    plain = Integrand(function).derivative

    def slope(z: Tensor) -> Tensor:
        if torch._C._functorch.peek_interpreter_stack() is None:
            return plain(z)
        value, back, *_ = torch.func.vjp(function, z)
        return back(torch.ones_like(value))[0]

    return slope


CURVED: dict[str, Activation] = {  # by name: those whose second derivative has a mean
    "shifted_sigmoid": _shifted_sigmoid,
    "softplus": _softplus,
    "relu_squared": _relu_squared,
    "gelu": F.gelu,
    "silu": F.silu,
}
LARGEST = 2**42  # seed, a million times which, with the number of a forward, is one of 64 bits
VANISHES = 1e-3  # of the second derivative's own size


@dataclass(frozen=True)
class Features:
    """What the expansion takes from inputs alone, computed once where many steps see the same inputs.

    Attributes:
        x: inputs (N, d).
        slope: m^{-1/2} a_r sigma'(w0_r . x), (N, m).
        bend: m^{-1/2} a_r sigma''(w0_r . x) / 2, (N, m).
    """

    x: Tensor
    slope: Tensor
    bend: Tensor


class TwoLayerExpansion(nn.Module):
    """f_W(x) = m^{-1/2} sum_r a_r sigma((w0_r + w_r) . x) in powers of W: f_0 + f_L + f_Q + remainder.

    Only ``weight`` = W, (m, d), is trained; ``w0`` and the signs ``a`` are fixed. Units come in pairs of equal w0 and opposite
    a, so f_0 = 0 at every x.

    Args:
        inputs: d.
        width: m, even.
        activation: a name (shifted_sigmoid, softplus, relu_squared, gelu, silu) or a function that acts entry by entry.
        seed: of w0 ~ N(0, I) and of whatever else the model draws.

    Raises:
        TangentError: for an activation without mean curvature, an odd width, or inputs that do not fit.

    Example:
        >>> model, x = TwoLayerExpansion(3, 8), torch.randn(5, 3)
        >>> _ = nn.init.normal_(model.weight)
        >>> torch.allclose(model.network(x), model.linear(x) + model.quadratic(x) + model.remainder(x), atol=1e-6)
        True
    """

    w0: Tensor
    a: Tensor

    def __init__(self, inputs: int, width: int, activation: str | Activation = "shifted_sigmoid", seed: int = 0) -> None:
        super().__init__()
        whole = all(isinstance(number, Integral) for number in (inputs, width, seed))
        if not whole or inputs < 1 or width < 2 or width % 2:
            raise TangentError(
                f"got inputs={inputs!r}, width={width!r}, seed={seed!r}, expected whole numbers: at least one input and an even "
                "width (units in pairs)"
            )
        if abs(seed) > LARGEST:
            raise TangentError(
                f"got seed={seed!r}, expected a whole number up to {LARGEST}: streams of signs are counted from it"
            )
        self.activation = curved(activation)
        dtype = torch.get_default_dtype()
        half = torch.randn(width // 2, inputs, generator=torch.Generator().manual_seed(int(seed)), dtype=torch.float64)
        self.register_buffer("w0", torch.cat([half, half]).to(dtype))
        self.register_buffer("a", torch.ones(width, dtype=dtype).index_fill_(0, torch.arange(width // 2, width), -1.0))
        self.weight = nn.Parameter(torch.zeros(width, inputs, dtype=dtype))

    def network(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """f_W(x), the network itself, (N, 1); ``weight`` instead of W where given."""
        self._check(x)
        weight = self.weight if weight is None else weight
        return self._scaled(self.activation(x @ (self.w0 + weight).T)).sum(1, keepdim=True)

    def features(self, x: Tensor) -> Features:
        """Slopes and bends of the units at x, to be given to ``linear`` and ``quadratic`` instead of x."""
        self._check(x)
        slope = _derivative(self.activation)
        z = x @ self.w0.T
        return Features(x, self._scaled(slope(z)), self._scaled(_derivative(slope)(z)) / 2)

    def linear(self, x: Tensor | Features, weight: Tensor | None = None) -> Tensor:
        """f_L = m^{-1/2} sum_r a_r sigma'(w0_r . x) (w_r . x), (N, 1)."""
        at = x if isinstance(x, Features) else self.features(x)
        return (at.slope * self._moved(at, weight)).sum(1, keepdim=True)

    def quadratic(self, x: Tensor | Features, weight: Tensor | None = None) -> Tensor:
        """f_Q = (1/2) m^{-1/2} sum_r a_r sigma''(w0_r . x) (w_r . x)^2, (N, 1)."""
        at = x if isinstance(x, Features) else self.features(x)
        return (at.bend * self._moved(at, weight).square()).sum(1, keepdim=True)

    def remainder(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """f_W - f_0 - f_L - f_Q, (N, 1): third order and up."""
        at = self.features(x)
        start = self.network(x, torch.zeros_like(self.weight))
        return self.network(x, weight) - start - self.linear(at, weight) - self.quadratic(at, weight)

    def _moved(self, at: Features, weight: Tensor | None) -> Tensor:
        return at.x @ (self.weight if weight is None else weight).T

    def _scaled(self, units: Tensor) -> Tensor:
        return units * (self.a / math.sqrt(len(self.a)))

    def _check(self, x: Tensor) -> None:
        inputs = self.w0.shape[1]
        if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != inputs:
            got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
            raise TangentError(f"got x of {got}, expected a tensor (N, {inputs}); flatten inputs with x.flatten(1)")
        if x.dtype != self.w0.dtype:
            raise TangentError(
                f"x is {x.dtype} but the model is {self.w0.dtype}; call x.to({self.w0.dtype}) or model.to({x.dtype})"
            )


class QuadNTK(TwoLayerExpansion):
    """The network that randomised signs train as its own second order (Bai & Lee 2019, arXiv:1910.01619).

    While W moves by ||w_r|| ~ m^{-1/4}, f_Q ~ 1 but f_L ~ m^{1/4} drowns it. With fresh signs s_r = +-1 at every forward,
    w_r -> s_r w_r, f_L has mean 0 and size m^{-1/4}, f_Q is unchanged, and the remainder is m^{-1/2}: minimising
    E_s[L(f_{W0 + WS})] + lambda ||W||_{2,4}^8 trains f_Q.

    In training mode the module is f_{W0 + WS}, in evaluation mode f_Q. Signs come from ``seed`` and the count of forwards
    so far (``draws``), which are in the state dict: a loaded model draws on where it stopped.

    Args:
        inputs: d; inputs of norm about 1, as in the paper.
        width: m, even.
        activation: a name or a function; its second derivative must not vanish on average.
        seed: of w0, of W's start and of the signs.
        start: W starts with rows of norm about start m^{-1/4}; W = 0 would be a saddle of f_Q. Learning rates are of order
            sqrt(m): that is what moves a row by m^{-1/4}.

    Raises:
        TangentError: for an activation without mean curvature, an odd width, or inputs that do not fit.

    Example:
        >>> model, x = QuadNTK(3, 64), torch.eye(3)
        >>> bool((model(x) == model(x)).all()), bool((model.eval()(x) == model.quadratic(x)).all())
        (False, True)
    """

    draws: Tensor
    seed: Tensor

    def __init__(
        self, inputs: int, width: int, activation: str | Activation = "shifted_sigmoid", seed: int = 0, start: float = 1.0
    ) -> None:
        super().__init__(inputs, width, activation, seed)
        if not isinstance(start, Real) or not 0 < start < math.inf:
            raise TangentError(f"got start={start!r}, expected a positive size of W's rows: W = 0 is a saddle of f_Q")
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seed", torch.tensor(int(seed)))
        scale = start * width**-0.25 / math.sqrt(inputs)
        drawn = torch.randn(width, inputs, generator=self._generator(0), dtype=torch.float64)
        self.weight.data = (scale * drawn).to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """f_{W0 + WS}(x) with fresh signs S in training mode, f_Q(x) in evaluation mode; (N, 1)."""
        return self.network(x, self.signs()[:, None] * self.weight) if self.training else self.quadratic(x)

    def signs(self) -> Tensor:
        """The next s, (m,), of entries +-1."""
        self.draws += 1
        drawn = torch.randint(0, 2, (len(self.a),), generator=self._generator(int(self.draws)))
        return (2 * drawn - 1).to(self.a)

    def penalty(self) -> Tensor:
        """||W||_{2,4}^8."""
        return penalty_2_4(self.weight)

    def _generator(self, count: int) -> torch.Generator:
        return torch.Generator().manual_seed((int(self.seed) + 1) * 1_000_003 + count)  # apart from w0's own seed


def penalty_2_4(weight: Tensor) -> Tensor:
    """||W||_{2,4}^8 = (sum_r ||w_r||^4)^2 of the rows w_r: what bounds f_Q's capacity (Bai & Lee 2019, arXiv:1910.01619).

    Example:
        >>> penalty_2_4(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))  # (5^4 + 1)^2
        tensor(391876.)
    """
    return weight.square().sum(1).square().sum().square()


def curved(activation: str | Activation) -> Activation:
    """A function by name or as it is, refused if E[sigma''(g)], g ~ N(0, 1), vanishes beside its size: f_Q would be nothing.

    Example:
        >>> curved("softplus")(torch.zeros(1))
        tensor([0.6931])
        >>> curved(torch.sigmoid)
        Traceback (most recent call last):
        ...
        lazyrich.errors.TangentError: got an activation whose second derivative has mean ...
    """
    if isinstance(activation, str) and activation not in CURVED:
        raise TangentError(
            f"got activation '{activation}', expected one of {', '.join(CURVED)}, or a function tensor -> tensor"
        )
    found = CURVED[activation] if isinstance(activation, str) else activation
    bend = Integrand(found).derivative.derivative
    one = torch.ones((), dtype=torch.float64)
    mean = float(expectation(bend, one))
    size = math.sqrt(float(expectation(Integrand(lambda z: bend(z).square()), one)))
    if not abs(mean) > VANISHES * size:
        raise TangentError(
            f"got an activation whose second derivative has mean {mean:.1e} (size {size:.1e}), expected one whose mean does not "
            "vanish, or the quadratic term is nothing (odd and piecewise linear functions); use sigmoid(z - 1) "
            "('shifted_sigmoid'), relu(z)^2 / 2 ('relu_squared') or 'softplus'"
        )
    return found
