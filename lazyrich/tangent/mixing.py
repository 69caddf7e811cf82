"""Whether samples change one another's outputs where many go together, as with experts of limited capacity."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.errors import TangentError
from lazyrich.tangent.function import MIXES, NetworkFunction, copy_of

TOGETHER = 256  # samples that are tried together where a block is smaller, so that no answer depends on it
FEW = 4  # of which ``NetworkFunction.check`` has tried all


def refuse_mixed(function: NetworkFunction, x: Tensor, name: str = "x", block: int | None = None) -> None:
    """Refuse a network whose outputs on many samples are others than on some of them.

    Args:
        function: the network, which has been checked on a few samples.
        x: samples (N, ...).
        name: theirs, in messages.
        block: samples that go together; None for all.

    Raises:
        TangentError: where the outputs differ.

    Example:
        >>> refuse_mixed(NetworkFunction(torch.nn.Linear(3, 2)), torch.randn(100, 3))
    """
    if function.plain(x):
        return
    for some in x.split(max(block, TOGETHER) if block else max(1, len(x))):
        if len(some) > FEW and _mixed(function, some, name):
            refuse_other(function, some, name)


def spread(n: int) -> list[int]:
    """Places of some of n samples, which are tried without the others: the last first, every second, of many every fourth.

    Example:
        >>> spread(6), len(spread(512))
        ([5, 3, 1], 128)
    """
    return list(range(n - 1, -1, -2 if n < TOGETHER else -4))


def refuse_other(function: NetworkFunction, x: Tensor, name: str = "x") -> None:
    """Refuse outputs that differ, unless they agree in float64: rounding may throw over a comparison of scores or a sign.

    Example:
        >>> refuse_other(NetworkFunction(torch.nn.Linear(3, 2)), torch.randn(100, 3))
    """
    if _surely(function, x, name):
        raise TangentError(
            f"{type(function.model).__name__} mixes samples where many go together: its outputs on {len(x)} of {name} are others "
            f"than on some of these, {MIXES}, and experts of a capacity that no batch exceeds"
        )


def differ(together: Tensor, apart: Tensor) -> bool:
    """Whether outputs (n, K) of the same samples are others beyond rounding.

    Example:
        >>> differ(torch.ones(2, 1), torch.ones(2, 1)), differ(torch.ones(2, 1), torch.zeros(2, 1))
        (False, True)
    """
    if together.shape != apart.shape or not together.numel():
        return together.shape != apart.shape
    close = 1e-3 if together.dtype == torch.float64 else max(1e-2, 16 * torch.finfo(together.dtype).eps)
    scale = together.abs().nan_to_num(posinf=0.0)
    wide = (together - apart).abs() > close * scale.amax(1, keepdim=True) + 1e-5 * scale.max()
    return bool((wide | (together.isfinite() != apart.isfinite())).any())


def _mixed(function: NetworkFunction, x: Tensor, name: str) -> bool:
    at = spread(len(x))
    together, apart = function.tried([x, x[at]], name)
    return len(together) != len(x) or differ(together[at], apart)


def _surely(function: NetworkFunction, x: Tensor, name: str) -> bool:
    try:
        exact = NetworkFunction(copy_of(function.model).double())
        return _mixed(exact, x.double() if x.is_floating_point() else x, name)
    except (RuntimeError, TypeError, ValueError, TangentError):  # a network that fixes its precision
        return True
