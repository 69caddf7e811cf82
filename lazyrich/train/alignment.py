"""Alignment of every layer's tangent kernel with the targets, through training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from numbers import Integral
from typing import Any

from torch import Tensor

from lazyrich.errors import TrainError
from lazyrich.tangent.alignment import Alignments, layer_alignment
from lazyrich.train.probe import Run


class AlignmentProbe:
    """Records ``layer_alignment`` on fixed samples, before training and after chosen steps.

    Args:
        x: inputs (N, ...) to look at.
        y: their targets: classes (N,) or numbers (N, K).
        every: look after each step that is a multiple of it.
        at: look after these steps instead.
        rates: learning-rate factor by tensor name, as in ``layer_alignment``.

    Attributes:
        records: ``{step: Alignments}``; step 0 is the untrained network.

    Raises:
        TrainError: for ``every`` below 1, and ``at`` that is no collection of steps.
        TangentError: in training, for a network that has no tangent kernel on these samples.

    Example:
        >>> import torch, lazyrich as lzr
        >>> from lazyrich.train import train
        >>> data, net = lzr.data.load("digits").subset(32), lzr.zoo.mlp(16)
        >>> probe = AlignmentProbe(data.x, data.y, every=10)
        >>> run = train(net, torch.optim.SGD(net.parameters(), lr=0.5), lambda step: (data.x, data.y),
        ...                 torch.nn.functional.cross_entropy, steps=20, probes=[probe])
        >>> list(probe.records), probe.records[20].whole.centred > probe.records[0].whole.centred
        ([0, 10, 20], True)
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        every: int = 1,
        at: Collection[int] | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(every, Integral) or every < 1:
            raise TrainError(f"got every = {every!r}, expected a number of steps of at least 1")
        if at is not None and (isinstance(at, str) or not isinstance(at, Collection)):
            raise TrainError(f"got at = {at!r}, expected the steps to look after, as ({at!r},)")
        self.x, self.y, self.every, self.at, self.rates = x, y, every, at, rates
        self.records: dict[int, Alignments] = {}

    def begin(self, run: Run) -> None:
        """Look at the untrained network."""
        self.records = {0: layer_alignment(run.model, self.x, self.y, self.rates)}

    def after(self, run: Run) -> None:
        """Look after ``run.step`` steps, where asked."""
        wanted = run.step % self.every == 0 if self.at is None else run.step in self.at
        if wanted:
            self.records[run.step] = layer_alignment(run.model, self.x, self.y, self.rates)

    def rows(self) -> list[dict[str, Any]]:
        """One record a step and layer."""
        return [{"step": step, **row} for step, found in self.records.items() for row in found.rows()]
