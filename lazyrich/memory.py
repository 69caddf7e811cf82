"""Memory of large arrays, whose paging in takes as long as what is done with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def keep_freed_memory() -> None:
    """Let the C allocator keep what is freed between two blocks of work, instead of giving it back and paging it in afresh.

    glibc keeps up to twice the largest block that it has seen freed, and learns from blocks of at most 32 MiB. This one is
    never touched, so it costs no memory. Worth a third of the time of convolutional kernels at infinite width, and a twentieth
    of those of finite networks.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def large_pages(like: Tensor, shape: Sequence[int]) -> Tensor:
    """An empty array; on CPUs in large pages, which NumPy asks for: paging in 32 MB of small ones takes 13 ms.

    Example:
        >>> large_pages(torch.ones(2), (3, 2)).shape
        torch.Size([3, 2])
    """
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, str(like.dtype).removeprefix("torch.")))
