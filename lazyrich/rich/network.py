"""What the rich limit's solver covers: fully connected networks, as numbers that no longer depend on a width."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import Tensor

from lazyrich.amount import counted, unsigned
from lazyrich.errors import RichError

Activation = str | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
    """One affine map: how wide its entries are drawn and how fast they learn, in the units in which nothing grows.

    Attributes:
        weight: sigma_w^2, the variance of a weight times its fan-in.
        bias: sigma_b^2, the variance of a bias.
        weight_rate: kappa_w, what the weights add to the tangent kernel per unit of feature kernel; ``weight`` by default,
            as in the NTK parameterisation.
        bias_rate: kappa_b, what the biases add to it; ``bias`` by default. No bias: both are 0.

    Example:
        >>> Layer(weight=2.0).weight_rate, Layer(bias=0.1, bias_rate=1.0).bias_rate
        (2.0, 1.0)
    """

    weight: float = 1.0
    bias: float = 0.0
    weight_rate: float | None = None
    bias_rate: float | None = None

    def __post_init__(self) -> None:
        for name, of in (("weight_rate", self.weight), ("bias_rate", self.bias)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, of)
        for name in ("weight", "bias", "weight_rate", "bias_rate"):
            unsigned(f"{name} of a layer", getattr(self, name), RichError)

    @property
    def rates(self) -> tuple[float, float]:
        """(kappa_w, kappa_b)."""
        assert self.weight_rate is not None
        assert self.bias_rate is not None
        return self.weight_rate, self.bias_rate


@dataclass(frozen=True)
class Network:
    """A fully connected network at infinite width, in the parameterisation whose features move.

    With n hidden units, biases b^l and w ~ N(0, 1) everywhere (Bordelon & Pehlevan 2022, arXiv:2205.09653, section 2)

        h^1 = s_0 W^0 x / sqrt(d) + b^1,   h^{l+1} = s_l W^l phi(h^l) / sqrt(n) + b^{l+1},   f = s_L W^L phi(h^L) / (gamma_0 n) + b,

    s_l^2 = ``layers[l].weight``, trained by w <- w - lr gamma_0^2 n dLoss/dw. So ``gamma_0`` -> 0 is the tangent-kernel limit
    with kernel sum_l (kappa_w^l Phi^l + kappa_b^l) G^{l+1}, and lr is the learning rate in function space. The output bias
    starts at zero (its law would vanish with the width) and learns at ``layers[-1].bias_rate``.

    Any network in muP is one of these. From its entries' standard deviations s and learning rates eta a tensor at a width n:
    sigma_w^2 = fan_in s^2 and kappa_w = fan_in eta / (n gamma_0^2 lr) of the hidden layers, kappa_b = eta / (n gamma_0^2 lr) of
    their biases; of the output, with sigma_L = 1 chosen, gamma_0 = 1 / (n s), kappa_w = n eta / lr and kappa_b = eta / lr; lr is
    any unit of rates.

    Attributes:
        inputs: d, dimension of the inputs.
        layers: L + 1 affine maps, from the inputs to the outputs.
        activation: phi, a name or a function tensor -> tensor that acts entry by entry.
        outputs: C.
        gamma0: the richness; 0 < gamma0.

    Example:
        >>> Network.uniform(inputs=3, depth=2, activation="tanh", gamma0=1.5).depth
        2
    """

    inputs: int
    layers: tuple[Layer, ...]
    activation: Activation = "tanh"
    outputs: int = 1
    gamma0: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.layers, (tuple, list)) or not all(isinstance(layer, Layer) for layer in self.layers):
            raise RichError(f"got layers = {self.layers!r}, expected a tuple of Layer, one an affine map")
        if len(self.layers) < 2:
            raise RichError(f"got {len(self.layers)} affine maps, expected at least 2: one hidden layer and the outputs")
        counted("inputs", self.inputs, refusal=RichError)
        counted("outputs", self.outputs, refusal=RichError)
        if not (isinstance(self.gamma0, Real) and math.isfinite(self.gamma0) and self.gamma0 > 0):
            raise RichError(
                f"got gamma0 = {self.gamma0}, expected a positive number; for the lazy limit itself use lazyrich.kernel, "
                "or a small gamma0 such as 0.01"
            )
        for i, layer in enumerate(self.layers):
            if layer.weight == 0:
                raise RichError(f"got weight = 0 at layers[{i}], expected a positive variance: no signal passes through it")

    @classmethod
    def uniform(
        cls,
        inputs: int,
        depth: int = 2,
        *,
        activation: Activation = "tanh",
        outputs: int = 1,
        gamma0: float = 1.0,
        weight: float = 1.0,
        bias: float = 0.0,
    ) -> Network:
        """The same variances in all layers, rates as in the NTK parameterisation."""
        depth = counted("depth", depth, refusal=RichError)
        layers = (Layer(weight, bias),) * (depth + 1)
        return cls(inputs, layers, activation, outputs, gamma0)

    @property
    def depth(self) -> int:
        """L, the number of hidden layers."""
        return len(self.layers) - 1

    @property
    def activation_name(self) -> str:
        """For people."""
        return self.activation if isinstance(self.activation, str) else getattr(self.activation, "__name__", "custom")

    def __str__(self) -> str:
        bias = " with biases" if any(layer.bias or layer.bias_rate for layer in self.layers) else ""
        return (
            f"{self.depth} hidden layers of {self.activation_name}{bias}, {self.inputs} inputs, {self.outputs} outputs, "
            f"gamma0 {self.gamma0:g}"
        )


def as_network(value: Any) -> Network:
    """The value, if it is a network of the rich limit.

    Raises:
        RichError: if it is something else, such as a plan.

    Example:
        >>> as_network("tanh")
        Traceback (most recent call last):
        ...
        lazyrich.errors.RichError: got str, expected a network of the limit, such as Network.uniform(...) or network_of(plan, x)
    """
    if not isinstance(value, Network):
        raise RichError(
            f"got {type(value).__name__}, expected a network of the limit, such as Network.uniform(...) or network_of(plan, x)"
        )
    return value
