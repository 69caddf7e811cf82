"""Honest estimators of feature learning: each says what it estimates, its bias, its null and its cost."""

from lazyrich.measure.feature.agop import agop, feature_ansatz
from lazyrich.measure.feature.cka import cka
from lazyrich.measure.feature.dimension import levina_bickel, two_nn
from lazyrich.measure.feature.information import info_nce, noisy_information
from lazyrich.measure.feature.isotropy import iso_score, mean_cosine, partition_ratio
from lazyrich.measure.feature.linear_probe import linear_probe
from lazyrich.measure.feature.metric import METRICS, Metric, target_alignment
from lazyrich.measure.feature.probe import FeatureProbe
from lazyrich.measure.feature.rank import effective_rank, participation_ratio, stable_rank
from lazyrich.measure.feature.reading import Reading, read, read_layer
from lazyrich.measure.feature.stream import Stream
from lazyrich.measure.feature.subspace import mean_correlation
from lazyrich.measure.feature.uniformity import alignment, uniformity

__all__ = [
    "METRICS",
    "FeatureProbe",
    "Metric",
    "Reading",
    "Stream",
    "agop",
    "alignment",
    "cka",
    "effective_rank",
    "feature_ansatz",
    "info_nce",
    "iso_score",
    "levina_bickel",
    "linear_probe",
    "mean_correlation",
    "mean_cosine",
    "noisy_information",
    "participation_ratio",
    "partition_ratio",
    "read",
    "read_layer",
    "stable_rank",
    "target_alignment",
    "two_nn",
    "uniformity",
]
