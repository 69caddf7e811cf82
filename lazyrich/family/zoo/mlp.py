"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "linear": lambda x: x,
}


class MLP(nn.Module):
    """``depth`` hidden layers of ``width`` units and a linear readout; inputs are flattened.

    Example:
        >>> MLP(32, inputs=64, outputs=10)(torch.zeros(5, 64)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        width: int,
        depth: int = 2,
        inputs: int = 64,
        outputs: int = 10,
        activation: str = "tanh",
        bias: bool = True,
    ) -> None:
        super().__init__()
        sizes = [inputs] + [width] * depth
        self.hidden = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.readout = nn.Linear(sizes[-1], outputs, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ...) inputs to (batch, outputs)."""
        phi, h = ACTIVATIONS[self.activation], x.flatten(1)
        for layer in self.hidden:
            h = phi(layer(h))
        return self.readout(h)


def mlp(width: int, depth: int = 2) -> MLP:
    """A tanh MLP for the 8x8 digits: 64 inputs, ``depth`` hidden layers, 10 outputs."""
    return MLP(width, depth)


def two_class(width: int, depth: int = 2) -> MLP:
    """A tanh MLP for two classes of the 8x8 digits: 64 inputs, ``depth`` hidden layers, one output.

    Example:
        >>> two_class(16)(torch.zeros(5, 64)).shape
        torch.Size([5, 1])
    """
    return MLP(width, depth, outputs=1)
