"""Looking at a network in evaluation mode, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluated(model: object) -> Iterator[None]:
    """Every module of a model in evaluation mode, each put back into its own afterwards; a map that is no module stays.

    Dropout would make another map of every call, and batch normalisation would move its statistics by being looked at.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout().eval())
        >>> with evaluated(net):
        ...     inside = net.training
        >>> inside, net.training, net[1].training
        (False, True, False)
    """
    whole = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)  # of a bound method its module
    modes = [(module, module.training) for module in whole.modules()] if isinstance(whole, nn.Module) else []
    try:
        if isinstance(whole, nn.Module) and any(mode for _, mode in modes):
            whole.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
