"""What a linear classifier reads from features."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.amount import counted
from lazyrich.errors import MetricError
from lazyrich.measure.feature.rows import columns, rows, targets


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
        MetricError: for other lengths, fewer than two samples a fold, and targets that are all equal.

    Example:
        >>> y = torch.arange(60) % 3
        >>> linear_probe(torch.eye(3)[y], y)
        1.0
    """
    x, folds = rows(h), counted("folds", folds, 2, MetricError)
    n, given = len(x), targets(y, len(x))
    if n < 2 * folds:
        raise MetricError(f"got {n} features and targets and {folds} folds, expected two samples a fold; take fewer folds")
    classes = not given.is_floating_point()
    if classes and given.numel() != n:
        raise MetricError(f"got classes of shape {tuple(given.shape)}, expected one a sample, ({n},)")
    wanted = columns(given.reshape(n) if classes else given, n)
    if not float((wanted - wanted.mean(0)).abs().max()) > 0:
        raise MetricError("all targets are equal, so there is nothing to read; give samples of different targets")
    order, guess = torch.randperm(n, generator=torch.Generator().manual_seed(seed)), torch.zeros_like(wanted)
    for fold in range(folds):
        out = order[fold::folds]
        kept = torch.ones(n, dtype=torch.bool).index_fill_(0, out, False)
        mean, size = x[kept].mean(0), x[kept].std(0).clamp_min(1e-12)
        a, b, middle = (x[kept] - mean) / size, (x[out] - mean) / size, wanted[kept].mean(0)
        gram = a.T @ a + ridge * len(a) * torch.eye(a.shape[1], dtype=a.dtype)
        guess[out] = b @ torch.linalg.solve(gram, a.T @ (wanted[kept] - middle)) + middle
    if classes:
        return float((guess.argmax(1) == given.reshape(n)).double().mean())
    return float(1 - (guess - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())
