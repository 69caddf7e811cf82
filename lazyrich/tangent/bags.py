"""Bags of rows of a table, written out in looking up and reducing: torch's have no forward derivative (2.13)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def bag(
    input: Tensor, weight: Tensor, offsets: Any = None, max_norm: Any = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, per_sample_weights: Any = None,
    include_last_offset: bool = False, padding_idx: Any = None,
) -> Tensor:  # fmt: skip
    """Of one length, a row of ``input`` a bag; bags that follow one another in one row, by offsets, go to torch.

    Example:
        >>> table = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
        >>> bag(torch.tensor([[0, 1], [1, 1]]), table).tolist()
        [[2.0, 3.5], [3.0, 5.0]]
    """
    weighted = per_sample_weights is not None and mode != "sum"  # which torch refuses
    if input.dim() != 2 or not input.shape[1] or offsets is not None or max_norm is not None or scale_grad_by_freq or weighted:
        return F.embedding_bag(
            input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse, per_sample_weights,
            include_last_offset, padding_idx,
        )  # fmt: skip
    rows, read = F.embedding(input, weight), torch.ones_like(input, dtype=torch.bool)
    if padding_idx is not None:
        read = input != padding_idx % len(weight)
    read = read.unsqueeze(-1)
    some = read.any(1)
    if mode == "max":
        return torch.where(some, rows.masked_fill(~read, -torch.inf).max(1).values, 0)
    rows = rows if per_sample_weights is None else rows * per_sample_weights.unsqueeze(-1)
    total = torch.where(read, rows, 0).sum(1)
    return total if mode == "sum" else total / read.sum(1).clamp_min(1)


WRITTEN: dict[Any, Any] = {F.embedding_bag: bag}
