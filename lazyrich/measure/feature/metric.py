"""Estimators of feature learning by name: what each estimates, its bias, its null and its cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lazyrich.measure.feature.agop import ansatz_pair, cosine_of
from lazyrich.measure.feature.cka import cka, cka_of, cka_terms
from lazyrich.measure.feature.dimension import levina_bickel, two_nn
from lazyrich.measure.feature.information import info_nce, noisy_information
from lazyrich.measure.feature.isotropy import iso_score, mean_cosine, partition_ratio
from lazyrich.measure.feature.linear_probe import linear_probe
from lazyrich.measure.feature.rank import effective_rank, participation_ratio, ratio_of, stable_rank, trace_terms
from lazyrich.measure.feature.rows import columns, pair, rows
from lazyrich.measure.feature.subspace import mean_correlation
from lazyrich.measure.feature.uniformity import alignment, uniformity
from lazyrich.measure.movement import feature_movement, kernel_distance, kernel_movement
from lazyrich.tangent.features import feature_gram

Against = Literal["itself", "features", "before", "targets", "layer"]
Terms = tuple[Callable[..., Tensor], Callable[[Tensor], float]]
NOISE = 0.1  # of the bound on information, in parts of the features' root mean square
SHARP = 0.1  # temperature of the scores of InfoNCE

NULLS = {
    "itself": "every unit's samples permuted by themselves: units as they are, unrelated to each other",
    "features": "samples of the second set permuted",
    "before": "samples of the second set permuted",
    "targets": "targets permuted",
    "layer": "the units that enter the layer permuted in one of the two matrices",
}


@dataclass(frozen=True)
class Metric:
    """An estimator, and what a reader must know of it.

    Attributes:
        name: by which it is asked for.
        function: of features (samples, units); with a second set of as many samples ("features": a probe gives those at the
            start; "before": those at its last reading, and the value is a rate a step); with "targets"; or, of a "layer", of
            (model, samples, path, weight at the start), to two matrices whose cosine is the value.
        against: which of these.
        estimator: what is computed.
        bias: how far it is off, and where.
        cost: in samples N and units p.
        terms: means over batches of these, and what makes the metric of them, where batches need nothing of each other; other
            metrics stream by a reservoir of samples.
    """

    name: str
    function: Callable[..., Any]
    against: Against
    estimator: str
    bias: str
    cost: str
    terms: Terms | None = None

    @property
    def null(self) -> str:
        """What the value is set against."""
        return NULLS[self.against]


def target_alignment(h: Tensor, y: Tensor) -> float:
    """Unbiased CKA of features with targets: classes as one-hot columns, numbers as they are.

    Example:
        >>> y = torch.arange(12) % 3
        >>> round(target_alignment(F.one_hot(y).float(), y), 6)
        1.0
    """
    x = rows(h)
    return cka(x, columns(y, len(x)))


def gaussian_bound(h: Tensor) -> float:
    """``noisy_information`` at a noise of a tenth of the features' root mean square, in nats.

    Example:
        >>> h = torch.tensor([[1.0], [-1.0]])
        >>> round(gaussian_bound(h), 4) == round(0.5 * math.log(101), 4)
        True
    """
    x = rows(h)
    return noisy_information(x, NOISE * float((x - x.mean(0)).square().mean().sqrt()))


def shared_information(h: Tensor, g: Tensor) -> float:
    """InfoNCE of two sets of features of one number of units, by their cosines over a temperature of 0.1, in nats.

    Example:
        >>> round(shared_information(torch.eye(8), torch.eye(8)), 2)
        2.08
    """
    z, w = (F.normalize(f, dim=1) for f in pair(h, g, same_units=True))
    return info_nce(z @ w.T / SHARP)


def _moved(movement: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor], float]:
    """A movement from the second set to the first, of kernels."""
    return lambda h, before: movement(*(feature_gram(f, f) for f in reversed(pair(h, before))))


def _movement(h: Tensor, before: Tensor) -> float:
    now, start = pair(h, before, same_units=True)
    return feature_movement(start, now)


def _mean(
    function: Callable[..., float], into: Callable[[float], float] = float, back: Callable[[float], float] = float
) -> Terms:
    """Terms of a metric that is a mean, or a function of one."""
    return (lambda *sets: torch.tensor([into(function(*sets))], dtype=torch.float64)), (lambda terms: back(float(terms[0])))


# of the two matrices of a layer, whose second is a mean over samples
ANSATZ: Terms = (lambda a, b: torch.stack([a, b])), (lambda terms: cosine_of(terms[0], terms[1]))

METRICS = {
    m.name: m
    for m in (
        Metric("cka", cka, "features", "linear CKA from HSIC_1 (Song et al. 2012) in all three places", "ratio of unbiased terms: "
               "mean about 0 for independent features at any N > 3", "N^2 p", (cka_terms, cka_of)),
        Metric("cka, biased", lambda h, g: cka(h, g, unbiased=False), "features", "linear CKA, plug-in (Kornblith et al. 2019)",
               "towards 1 as p grows past N, whatever the features", "N^2 p"),
        Metric("svcca", mean_correlation, "features", "mean canonical correlation of directions with 99 % of the variance",
               "upwards by about the square root of their number over N; 1 where there are N of them", "N p min(N, p)"),
        Metric("pwcca", lambda h, g: mean_correlation(h, g, weighted=True), "features", "the same, weighted by what h projects on",
               "as svcca, less for weak directions", "N p min(N, p)"),
        Metric("alignment", alignment, "features", "mean squared distance of pairs on the sphere (Wang & Isola 2020)", "none",
               "N p", _mean(alignment)),
        Metric("movement", _movement, "features", "RMS of the change over RMS at the start",
               "none", "N p"),
        Metric("kernel movement", _moved(kernel_movement), "features", "||K - K_0|| / ||K_0||, K = h h^T / p", "upwards by the "
               "noise of the kernels, of order 1 / sqrt(p)", "N^2 p"),
        Metric("kernel distance", _moved(kernel_distance), "features", "1 - <K, K_0> / (||K|| ||K_0||) (Fort et al. 2020)",
               "upwards by order 1 / p", "N^2 p"),
        Metric("kernel velocity", _moved(kernel_distance), "before", "kernel distance to the last reading, a step (Fort et al.)",
               "as the distance; depends on the time between readings, which it is no derivative of: distances are squares",
               "N^2 p"),
        Metric("shared information", shared_information, "features", "InfoNCE of cosines (van den Oord et al. 2018), in nats",
               "a lower bound, never above log N", "N^2 p"),
        Metric("target alignment", target_alignment, "targets", "unbiased CKA of features and targets (classes as one-hot)",
               "as cka", "N^2 p", (lambda h, y: cka_terms(h, columns(y, len(h))), cka_of)),
        Metric("linear probe", linear_probe, "targets", "held-out accuracy, or R^2, of a ridge regression over five folds",
               "low, by the folds' smaller size", "N p min(N, p)"),
        Metric("effective rank", effective_rank, "itself", "exp of the entropy of the covariance's eigenvalues",
               "downwards, to at most N - 1", "N p min(N, p)"),
        Metric("stable rank", stable_rank, "itself", "||h||_F^2 / ||h||_2^2 of centred features", "downwards, by a factor of "
               "(1 + sqrt(p / N))^2 where no direction stands out", "N p min(N, p)"),
        Metric("participation ratio", participation_ratio, "itself", "(tr C)^2 / tr C^2 from U-statistics over distinct samples",
               "ratio of unbiased terms; scatter of order p / N", "N^2 p", (trace_terms, ratio_of)),
        Metric("uniformity", uniformity, "itself", "log of the mean of exp(-2 |z - z'|^2) over distinct pairs on the sphere",
               "log of an unbiased mean", "N^2 p", _mean(uniformity, math.exp, math.log)),
        Metric("mean cosine", mean_cosine, "itself", "mean cosine of distinct pairs", "none", "N p", _mean(mean_cosine)),
        Metric("isoscore", iso_score, "itself", "IsoScore (Rudman et al. 2022)", "downwards unless N >> p", "N p^2"),
        Metric("partition ratio", partition_ratio, "itself", "min / max over eigenvectors c of sum exp(c.h) (Mu & Viswanath 2018)",
               "downwards for few samples; depends on the features' scale", "N p^2"),
        Metric("intrinsic dimension", two_nn, "itself", "TwoNN, maximum likelihood (Facco et al. 2017)",
               "downwards in high dimensions; duplicates are left out", "N^2 p"),
        Metric("intrinsic dimension, ten neighbours", levina_bickel, "itself", "maximum likelihood (Levina & Bickel 2004)",
               "downwards in high dimensions and where density varies over ten neighbours", "N^2 p"),
        Metric("information bound", gaussian_bound, "itself", "log det(1 + C / s^2) / 2, s a tenth of the features' size, in nats",
               "downwards, by about p (p + 1) / 4 N nats; an upper bound on I(h + noise; x) only for N >> p", "N p min(N, p)"),
        Metric("feature ansatz", lambda model, x, layer, start: ansatz_pair(model, x, layer), "layer", "cosine of W^T W with the "
               "layer's AGOP (Radhakrishnan et al. 2024)", "lazy networks read that of their start, which is not 0",
               "N p outputs", ANSATZ),
        Metric("feature ansatz, centred", ansatz_pair, "layer", "cosine of (W - W_0)^T (W - W_0) with the layer's AGOP",
               "none known; undefined before the first step", "N p outputs", ANSATZ),
    )
}  # fmt: skip
