"""Weights of samples: how many samples each of them stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight

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
        weights = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
    except ValueError as error:
        raise refusal(f"got sample_weight that does not fit: {error}") from error
    counts = weights > 0
    if not counts.any():
        raise refusal("got sample_weight without a positive number, expected a sample that counts")
    return x[counts], y[counts], weights[counts]
