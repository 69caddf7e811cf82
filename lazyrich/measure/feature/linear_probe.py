"""What a linear classifier reads from features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lazyrich.errors import MetricError


def linear_probe(h: Tensor, y: Tensor, ridge: float = 1e-3, folds: int = 5, seed: int = 0) -> float:
    """Held-out accuracy of a ridge classifier (classes) or R^2 (numbers), over folds of the samples.

    Features are standardised on the training folds; the ridge is in units of their number. No bias from training on the test
    fold; low by the folds' smaller size.

    Args:
        h: (samples, units).
        y: classes (samples,) of whole numbers, or numbers (samples,) or (samples, outputs).
        ridge: of the regression.
        folds: at least two.
        seed: of the split.

    Raises:
        MetricError: for other lengths or fewer samples than folds.

    Example:
        >>> y = torch.arange(60) % 3
        >>> linear_probe(F.one_hot(y).float(), y)
        1.0
    """
    n = len(h)
    if len(y) != n or folds < 2 or n < 2 * folds:
        raise MetricError(
            f"got {n} features, {len(y)} targets and {folds} folds, expected as many of each and two samples a fold"
        )
    classes = not y.is_floating_point()
    targets = F.one_hot(y.long()).double() if classes else y.double().reshape(n, -1)
    order, x, guess = (
        torch.randperm(n, generator=torch.Generator().manual_seed(seed)),
        h.flatten(1).double(),
        torch.zeros_like(targets),
    )
    for fold in range(folds):
        out = order[fold::folds]
        kept = torch.ones(n, dtype=torch.bool).index_fill_(0, out, False)
        mean, size = x[kept].mean(0), x[kept].std(0).clamp_min(1e-12)
        a, b, middle = (x[kept] - mean) / size, (x[out] - mean) / size, targets[kept].mean(0)
        gram = a.T @ a + ridge * len(a) * torch.eye(a.shape[1], dtype=a.dtype)
        guess[out] = b @ torch.linalg.solve(gram, a.T @ (targets[kept] - middle)) + middle
    if classes:
        return float((guess.argmax(1) == y).double().mean())
    return float(1 - (guess - targets).square().sum() / (targets - targets.mean(0)).square().sum())
