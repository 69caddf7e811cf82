"""Metrics of chosen layers while a network trains."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lazyrich.measure.feature.metric import METRICS, Reading, read
from lazyrich.tangent.features import features
from lazyrich.train.probe import Run


class FeatureProbe:
    """Reads metrics of layers' features on fixed samples every few steps; comparing ones are with the features at the start.

    Works on single runs and on members of ensembles alike.

    Args:
        x: samples.
        layers: paths of modules.
        metrics: names in ``METRICS``.
        every: steps between readings.
        permutations: for the null of metrics that compare; none by default, since every one costs a metric.

    Example:
        >>> import torch
        >>> import lazyrich as lzr
        >>> data, net = lzr.data.load("digits"), lzr.zoo.mlp(16)
        >>> probe = FeatureProbe(data.x[:50], ["hidden.1"], ["cka", "effective rank"], every=5)
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> run = lzr.train.train(net, sgd, lambda s: data.batch(32, s), torch.nn.functional.cross_entropy, 10, probes=[probe])
        >>> [(row["step"], row["metric"]) for row in probe.rows()][:2]
        [(0, 'cka'), (0, 'effective rank')]
    """

    def __init__(
        self, x: Tensor, layers: Sequence[str], metrics: Sequence[str], every: int = 10, permutations: int = 0
    ) -> None:
        self.x, self.layers, self.metrics, self.every, self.permutations = x, list(layers), list(metrics), every, permutations
        self.readings: list[tuple[int, str, Reading]] = []

    def begin(self, run: Run) -> None:
        """Look at the untrained network."""
        self.start = features(run.model, self.x, self.layers)
        self._look(run, 0)

    def after(self, run: Run) -> None:
        """Look every few steps."""
        if run.step % self.every == 0:
            self._look(run, run.step)

    def _look(self, run: Run, step: int) -> None:
        for layer, h in features(run.model, self.x, self.layers).items():
            for name in self.metrics:
                other = self.start[layer] if name in METRICS and METRICS[name].paired else None
                self.readings.append((step, layer, read(name, h, other, self.permutations)))

    def rows(self) -> list[dict[str, object]]:
        """One record a reading."""
        return [
            {"step": s, "layer": layer, "metric": r.name, "value": r.value, "note": r.note} for s, layer, r in self.readings
        ]
