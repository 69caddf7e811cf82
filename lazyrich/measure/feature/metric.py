"""Estimators of feature learning by name: what each estimates, its bias, its null and its cost, and a reading with that null."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.errors import MetricError
from lazyrich.measure.feature.cka import cka
from lazyrich.measure.feature.dimension import two_nn
from lazyrich.measure.feature.isotropy import iso_score, mean_cosine
from lazyrich.measure.feature.rank import effective_rank, participation_ratio, stable_rank
from lazyrich.measure.feature.subspace import mean_correlation
from lazyrich.measure.feature.uniformity import alignment, uniformity

Estimate = Callable[..., float]


@dataclass(frozen=True)
class Metric:
    """An estimator, and what a reader must know of it.

    Attributes:
        name: by which it is asked for.
        function: of features (samples, units), and of a second argument of as many samples where ``paired``.
        paired: whether it compares two sets of features, whose null is a permutation of the samples of one.
        estimator: what is computed.
        bias: how far it is off, and where.
        cost: in samples N and units p.
    """

    name: str
    function: Estimate
    paired: bool
    estimator: str
    bias: str
    cost: str


METRICS = {
    m.name: m
    for m in (
        Metric("cka", cka, True, "linear CKA from HSIC_1 (Song et al. 2012) in all three places", "ratio of unbiased terms: "
               "mean about 0 for independent features at any N > 3", "N^2 p"),
        Metric("cka, biased", lambda h, g: cka(h, g, unbiased=False), True, "linear CKA, plug-in (Kornblith et al. 2019)",
               "towards 1 as p grows past N, whatever the features", "N^2 p"),
        Metric("svcca", mean_correlation, True, "mean canonical correlation of directions with 99 % of the variance",
               "upwards by about the square root of their number over N; 1 where there are N of them", "N p min(N, p)"),
        Metric("pwcca", lambda h, g: mean_correlation(h, g, weighted=True), True, "the same, weighted by what h projects on",
               "as svcca, less for weak directions", "N p min(N, p)"),
        Metric("alignment", alignment, True, "mean squared distance of pairs on the sphere (Wang & Isola 2020)", "none",
               "N p"),
        Metric("effective rank", effective_rank, False, "exp of the entropy of the covariance's eigenvalues",
               "downwards, to at most N - 1", "N p min(N, p)"),
        Metric("stable rank", stable_rank, False, "||h||_F^2 / ||h||_2^2 of centred features", "downwards, for p near N",
               "N p min(N, p)"),
        Metric("participation ratio", participation_ratio, False, "(tr C)^2 / tr C^2 from U-statistics over distinct samples",
               "ratio of unbiased terms; scatter of order p / N", "N^2 p"),
        Metric("uniformity", uniformity, False, "log of the mean of exp(-2 |z - z'|^2) over distinct pairs on the sphere",
               "log of an unbiased mean", "N^2 p"),
        Metric("mean cosine", mean_cosine, False, "mean cosine of distinct pairs", "none", "N p"),
        Metric("isoscore", iso_score, False, "IsoScore (Rudman et al. 2022)", "downwards unless N >> p", "N p^2"),
        Metric("intrinsic dimension", two_nn, False, "TwoNN, maximum likelihood (Facco et al. 2017)",
               "downwards in high dimensions; duplicates are left out", "N^2 p"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """A value beside its null.

    Attributes:
        name: of the metric.
        value: None where it is undefined.
        null: mean under permutation of the samples; None for metrics of one set of features.
        spread: standard deviation under permutation.
        note: why it is undefined; empty otherwise.
    """

    name: str
    value: float | None
    null: float | None = None
    spread: float | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: undefined, {self.note}"
        beside = "" if self.null is None else f" (null {self.null:.3g} ± {self.spread or 0.0:.2g})"
        return f"{self.name}: {self.value:.4g}{beside}"


def read(name: str, h: Tensor, other: Tensor | None = None, permutations: int = 20, seed: int = 0) -> Reading:
    """One metric of features, with its permutation null; what is undefined says why instead of NaN.

    Args:
        name: in ``METRICS``.
        h: features (samples, ...), flattened.
        other: features of the same samples, for metrics that compare.
        permutations: of the samples of ``other``.
        seed: of the permutations.

    Raises:
        MetricError: for an unknown name, a missing second set, or sets of different length.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> h = torch.randn(64, 512, generator=draw)
        >>> found = read("cka", h, h)
        >>> round(found.value, 3), abs(found.null) < 0.05
        (1.0, True)
        >>> print(read("effective rank", torch.ones(5, 3)))
        effective rank: undefined, all samples have the same features
    """
    if name not in METRICS:
        raise MetricError(f"got metric '{name}', expected one of {', '.join(METRICS)}")
    metric = METRICS[name]
    if metric.paired and other is None:
        raise MetricError(f"'{name}' compares two sets of features; give the second as other=")
    sets = [h.detach().flatten(1).double()] + (
        [other.detach().flatten(1).double()] if metric.paired and other is not None else []
    )
    if len({len(s) for s in sets}) > 1:
        raise MetricError(f"got {len(sets[0])} and {len(sets[1])} samples, expected the same samples in both sets")
    for s in sets:
        if not bool(torch.isfinite(s).all()):
            return Reading(name, None, note="some features are not finite")
        if len(s) < 2 or float((s - s[0]).abs().max()) == 0:
            return Reading(name, None, note="all samples have the same features")
    try:
        value = metric.function(*sets)
    except MetricError as error:
        return Reading(name, None, note=str(error))
    if not math.isfinite(value):
        return Reading(name, None, note="the features have no variance that it could see")
    if not metric.paired or permutations < 2:
        return Reading(name, value)
    draw = torch.Generator().manual_seed(seed)
    nulls = torch.tensor(
        [metric.function(sets[0], sets[1][torch.randperm(len(h), generator=draw)]) for _ in range(permutations)]
    )
    return Reading(name, value, float(nulls.mean()), float(nulls.std()))
