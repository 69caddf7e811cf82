"""A metric over more samples than fit: means of unbiased terms where there are some, a reservoir of samples where not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lazyrich.errors import LazyrichError, MetricError
from lazyrich.measure.feature.reading import Reading, metric_for, read
from lazyrich.measure.feature.rows import shaped, targets

KEPT = 2048  # samples of a reservoir


class Stream:
    """Takes in batches, and reads one metric of all of them.

    Where a metric is a function of means over pairs (``METRICS[name].terms``), those are averaged over batches, weighted by their
    samples, and are as unbiased as one batch's (for CKA: Nguyen, Raghu & Kornblith 2021, arXiv:2010.15327). Of other metrics an
    even sample of at most ``kept`` rows is kept (Vitter 1985, algorithm R).

    Args:
        name: in ``METRICS``.
        kept: rows of the reservoir.
        seed: of it.
        layer: (model, path, weight at the start or None) of a metric against a layer; it must stay as it is meanwhile.

    Raises:
        MetricError: for an unknown metric, or one against a layer without it.

    Example:
        >>> draw, total = torch.Generator().manual_seed(0), Stream("cka")
        >>> for _ in range(10):
        ...     h = torch.randn(16, 4, generator=draw)
        ...     total.add(h, h @ torch.eye(4).flip(0))
        >>> print(total.reading)
        cka: 1
    """

    def __init__(
        self, name: str, kept: int = KEPT, seed: int = 0, layer: tuple[nn.Module, str, Tensor | None] | None = None
    ) -> None:
        self.metric, self.layer = metric_for(name), layer
        if (self.metric.against == "layer") != (layer is not None):
            raise MetricError(
                f"got layer={layer and layer[1]} for '{name}', expected (model, path, start) for metrics of a layer alone"
            )
        self.kept, self.samples = kept, 0
        self._draw = torch.Generator().manual_seed(seed)
        self._total: Tensor | None = None
        self._rows: list[Tensor] = []

    def add(self, h: Tensor, other: Tensor | None = None) -> None:
        """Take in one batch, (samples, ...), with the second set or the targets where the metric compares; of a layer, the inputs.

        Raises:
            MetricError: for a second set that is missing or has other samples, or a batch too small for the metric.
        """
        if self.layer:
            model, path, start = self.layer
            sets = list(self.metric.function(model, h, path, start))
        else:
            sets = [shaped(h)]
        if self.metric.against not in ("itself", "layer"):
            if other is None or len(other) != len(h):
                raise MetricError(f"'{self.metric.name}' compares; give {len(h)} rows of the second set with this batch")
            sets.append(targets(other, len(h)) if self.metric.against == "targets" else shaped(other))
        if self.metric.terms:
            terms = len(h) * self.metric.terms[0](*sets)
            self._total = terms if self._total is None else self._total + terms
            self.samples += len(h)
        else:
            self._keep(sets)

    @property
    def reading(self) -> Reading:
        """The metric of everything so far, without a null; undefined with its reason before there is enough."""
        name = self.metric.name
        if self.samples == 0:
            return Reading(name, None, note="no batch has come yet")
        if not self.metric.terms:
            return read(name, *(rows[: self.samples] for rows in self._rows), permutations=0)
        assert self._total is not None
        try:
            return Reading(name, self.metric.terms[1](self._total / self.samples))
        except (LazyrichError, ValueError) as error:
            return Reading(name, None, note=str(error))

    def _keep(self, sets: list[Tensor]) -> None:
        if not self._rows:
            self._rows = [s.new_empty((self.kept, *s.shape[1:])) for s in sets]
        for i in range(len(sets[0])):
            place = self.samples
            if place >= self.kept:
                place = int(torch.randint(self.samples + 1, (), generator=self._draw))
            if place < self.kept:
                for rows, s in zip(self._rows, sets, strict=True):
                    rows[place] = s[i]
            self.samples += 1
