"""A metric's value beside its null; what is undefined says why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lazyrich.errors import LazyrichError, MetricError
from lazyrich.measure.feature.agop import cosine_of
from lazyrich.measure.feature.metric import METRICS, Metric
from lazyrich.measure.feature.rows import shaped, targets


@dataclass(frozen=True)
class Reading:
    """A value beside its null.

    Attributes:
        name: of the metric.
        value: None where it is undefined.
        null: mean over permutations (``METRICS[name].null`` says of what); None where none were asked for.
        spread: standard deviation over permutations.
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
        other: features of the same samples, or targets, for metrics that compare.
        permutations: draws of the null; fewer than two give none.
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
    metric = metric_for(name)
    if metric.against == "layer":
        raise MetricError(f"'{name}' wants the network: read_layer('{name}', model, x, layer)")
    sets = _sets(metric, h, other)

    def redrawn(draw: torch.Generator) -> tuple[Tensor, ...]:
        if len(sets) == 1:
            return (torch.stack([column[torch.randperm(len(column), generator=draw)] for column in sets[0].T], 1),)
        return sets[0], sets[1][torch.randperm(len(sets[1]), generator=draw)]

    return _read(name, metric.function, sets, redrawn, permutations, seed)


def read_layer(
    name: str, model: nn.Module, x: Tensor, layer: str, start: Tensor | None = None, permutations: int = 20, seed: int = 0
) -> Reading:
    """One metric of a dense layer of a network, with its null.

    Args:
        name: in ``METRICS``, against a layer.
        model: the network.
        x: samples.
        layer: path of an ``nn.Linear``.
        start: its weight before training, for centred metrics.
        permutations: draws of the null.
        seed: of the permutations.

    Example:
        >>> print(read_layer("feature ansatz", nn.Sequential(nn.Linear(3, 2, bias=False)), torch.randn(5, 3), "0", permutations=0))
        feature ansatz: 1
    """
    metric = metric_for(name)
    if metric.against != "layer":
        raise MetricError(f"'{name}' is one of features: read('{name}', features)")
    try:
        a, b = metric.function(model, x, layer, start)
    except LazyrichError as error:
        return Reading(name, None, note=str(error))

    def redrawn(draw: torch.Generator) -> tuple[Tensor, ...]:
        order = torch.randperm(len(a), generator=draw)
        return a[order][:, order], b

    return _read(name, cosine_of, (a, b), redrawn, permutations, seed)


def metric_for(name: str) -> Metric:
    """A metric by its name.

    Raises:
        MetricError: for a name that is not known.

    Example:
        >>> metric_for("cka").against
        'features'
    """
    if name not in METRICS:
        raise MetricError(f"got metric '{name}', expected one of {', '.join(map(repr, METRICS))}")
    return METRICS[name]


def _sets(metric: Metric, h: Tensor, other: Tensor | None) -> tuple[Tensor, ...]:
    """What the metric is a function of, checked for number."""
    x = shaped(h).double()
    if metric.against == "itself":
        return (x,)
    if other is None:
        what = "features with targets" if metric.against == "targets" else "two sets of features"
        raise MetricError(f"'{metric.name}' compares {what}; give the second as other=")
    if metric.against == "targets":
        return x, targets(other, len(x))
    second = shaped(other, "features of the second set").double()
    if len(x) != len(second):
        raise MetricError(f"got {len(x)} and {len(second)} samples, expected the same samples in both sets")
    return x, second


def _read(
    name: str,
    function: Callable[..., float],
    sets: tuple[Tensor, ...],
    redrawn: Callable[[torch.Generator], tuple[Tensor, ...]],
    permutations: int,
    seed: int,
) -> Reading:
    """The value and its null, or why there is none."""
    for s in sets:
        if s.is_floating_point() and not bool(torch.isfinite(s).all()):
            return Reading(name, None, note="some features are not finite")
        if len(s) < 2 or float((s - s[0]).abs().max()) == 0:
            return Reading(name, None, note="all samples have the same features")
    try:
        value = function(*sets)
    except (LazyrichError, torch.linalg.LinAlgError) as error:
        return Reading(name, None, note=str(error))
    if not math.isfinite(value):
        return Reading(name, None, note="the features have no variance that it could see")
    if permutations < 2:
        return Reading(name, value)
    draw, nulls = torch.Generator().manual_seed(seed), []
    for _ in range(permutations):
        try:
            nulls.append(function(*redrawn(draw)))
        except LazyrichError:  # a permutation on which it is undefined says nothing
            continue
    found = torch.tensor([v for v in nulls if math.isfinite(v)])
    return Reading(name, value, float(found.mean()), float(found.std())) if len(found) > 1 else Reading(name, value)
