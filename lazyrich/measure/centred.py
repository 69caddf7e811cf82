"""A network minus itself at initialisation."""

from __future__ import annotations

from torch import Tensor, nn

from lazyrich.tangent.function import copied


class Centred(nn.Module):
    """f - f_0: a network minus itself at initialisation, which a small richness would blow up.

    Raises:
        TangentError: for a network that cannot be copied.

    Example:
        >>> import torch
        >>> net = nn.Linear(3, 2)
        >>> Centred(net)(torch.ones(1, 3)).tolist()
        [[0.0, 0.0]]
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.start = copied(network).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """The change of the output since initialisation."""
        return self.network(x) - self.start(x)
