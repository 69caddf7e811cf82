"""Blocks that add their input to what they compute: a factor on their output would scale the stream that they pass on."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.scaling.attention import LARGEST, inputs


def skips(module: nn.Module) -> bool:
    """Whether a module passes its input on: with weights of zero it returns it, as it is or rectified.

    It is run by itself on inputs of our own; of one that takes none of them nothing is said.

    Example:
        >>> skips(nn.TransformerEncoderLayer(8, 2, 8, norm_first=True)), skips(nn.Linear(8, 8))
        (True, False)
    """
    entries = sum(p.numel() for p in module.parameters())
    if not 0 < entries <= LARGEST:  # without weights it may be a place for a branch, such as an Identity
        return False
    generator = torch.Generator().manual_seed(0)
    return any(_returns(module, args) for args in inputs(module, generator) if args[0].is_floating_point())


def _returns(module: nn.Module, args: tuple[Tensor, ...]) -> bool:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.device("cpu"):
            out = _zeroed(module)(*args)
    except Exception:  # somebody's forward may raise anything on inputs that are not its own
        return False
    out = out[0] if isinstance(out, (tuple, list)) and out else out
    return isinstance(out, Tensor) and any(torch.equal(out, passed) for passed in (args[0], args[0].relu()))


def _zeroed(module: nn.Module) -> nn.Module:
    """A copy whose parameters are zero, its buffers and hooks as if nothing had happened yet."""
    memo: dict[int, Any] = {id(p): nn.Parameter(torch.zeros(p.shape), requires_grad=False) for p in module.parameters()}
    for buffer in module.buffers():
        memo[id(buffer)] = (
            torch.ones(buffer.shape) if buffer.is_floating_point() else torch.zeros(buffer.shape).to(buffer.dtype)
        )
    return copy.deepcopy(module, memo).eval()
