"""Weights of samples: how many samples each of them stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_array

from lazyrich.errors import LazyrichError

Weighted = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def weighted(x: np.ndarray, y: np.ndarray, sample_weight: Any, refusal: type[LazyrichError]) -> Weighted:
    """The samples that count with their weights: None where all count alike, and none of zero, which is noise without end.

    Raises:
        LazyrichError: ``refusal``, for weights that do not fit, are below zero, or leave no sample.

    Example:
        >>> from lazyrich.errors import KernelError
        >>> x, y, weights = weighted(np.eye(3), np.arange(3), [1.0, 0.0, 2.0], KernelError)
        >>> y.tolist(), weights.tolist()
        ([0, 2], [1.0, 2.0])
    """
    if sample_weight is None:
        return x, y, None
    try:
        weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    except (TypeError, ValueError) as error:
        raise refusal(f"got sample_weight that does not fit: {error}") from error
    if weights.shape != (len(x),) or (weights < 0).any():
        low = f", at least {weights.min():g}" if weights.size else ""
        raise refusal(f"got sample_weight of shape {weights.shape}{low}, expected {len(x)} numbers of at least zero")
    counts = weights > 0
    if not counts.any():
        raise refusal("every sample_weight is zero, expected a sample that counts")
    return x[counts], y[counts], weights[counts]
