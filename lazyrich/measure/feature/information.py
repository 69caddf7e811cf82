"""Bounds on mutual information. Deterministic networks have I(h; x) = infinity: ask about noisy ones, or not at all."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.errors import MetricError
from lazyrich.measure.feature.rows import rows


def info_nce(scores: Tensor) -> float:
    """InfoNCE: log N + E [s_ii - log sum_j exp s_ij] from scores of pairs (N, N), in nats (van den Oord et al. 2018).

    A lower bound of I for any scores, never above log N: with few samples it says nothing of large informations.

    Raises:
        MetricError: for scores that are no square table.

    Example:
        >>> round(info_nce(100 * torch.eye(8)), 4) == round(math.log(8), 4)
        True
    """
    if scores.dim() != 2 or scores.shape[0] != scores.shape[1]:
        raise MetricError(f"got scores of shape {tuple(scores.shape)}, expected one of every pair (N, N)")
    s = scores.double()
    return math.log(len(s)) + float((s.diagonal() - s.logsumexp(1)).mean())


def noisy_information(h: Tensor, noise: float) -> float:
    """An upper bound of I(h + eps; x), eps ~ N(0, noise^2): half the log-determinant of 1 + C / noise^2, in nats.

    Exact where h is Gaussian and C known, above the truth for all other features of covariance C (the Gaussian has most entropy).
    The covariance of the samples stands for C, and the log-determinant is concave: it reads low on average, by about units (units +
    1) / (4 samples) nats where the noise is small and samples many, and, at a noise of a tenth of the features, by a fifth for as
    many samples as units. Only many times more samples than units make it an upper bound.

    Raises:
        MetricError: for a noise that is not positive.

    Example:
        >>> h = torch.tensor([[1.0], [-1.0]])
        >>> round(noisy_information(h, 1.0), 4) == round(0.5 * math.log(2), 4)
        True
    """
    if not noise > 0:
        raise MetricError(f"got noise = {noise}, expected a positive deviation: without noise the information is infinite")
    x = rows(h)
    values = torch.linalg.svdvals(x - x.mean(0)).square() / len(x)
    return 0.5 * float(torch.log1p(values / noise**2).sum())
