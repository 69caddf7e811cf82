"""Metrics of chosen layers while a network trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from lazyrich.amount import counted
from lazyrich.errors import MetricError
from lazyrich.measure.feature.reading import Reading, metric_for, read, read_layer
from lazyrich.measure.feature.rows import targets as fitting
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
        permutations: draws of the null; none by default, since every one costs a metric.
        targets: of the samples, for metrics against targets.

    Raises:
        MetricError: for an unknown metric, one against targets without them, and one path or name where a list is expected.

    Example:
        >>> import torch
        >>> import lazyrich as lzr
        >>> data, net = lzr.data.load("digits"), lzr.zoo.mlp(16)
        >>> names = ["cka", "kernel velocity", "target alignment", "feature ansatz"]
        >>> probe = FeatureProbe(data.x[:50], ["hidden.1"], names, every=5, targets=data.y[:50])
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> run = lzr.train.train(net, sgd, lambda s: data.batch(32, s), torch.nn.functional.cross_entropy, 10, probes=[probe])
        >>> [(row["step"], row["metric"]) for row in probe.rows()][:2]
        [(0, 'cka'), (0, 'kernel velocity')]
    """

    def __init__(
        self,
        x: Tensor,
        layers: Sequence[str],
        metrics: Sequence[str],
        every: int = 10,
        permutations: int = 0,
        targets: Tensor | None = None,
    ) -> None:
        for name, given in (("layers", layers), ("metrics", metrics)):
            if isinstance(given, str):
                raise MetricError(f"got {name}='{given}', expected a list of them: ['{given}']")
        self.x, self.layers, self.metrics, self.targets = x, list(layers), list(metrics), targets
        self.every = counted("every", every, 1, MetricError)
        self.permutations = counted("permutations", permutations, 0, MetricError)
        self.readings: list[tuple[int, str, Reading]] = []
        for name in self.metrics:
            if metric_for(name).against != "targets":
                continue
            if targets is None:
                raise MetricError(f"'{name}' compares features with targets; give the second as targets=")
            fitting(targets, len(x))  # whatever the samples are, words (samples,) among them

    def begin(self, run: Run) -> None:
        """Look at the untrained network."""
        self.start = self.before = features(run.model, self.x, self.layers)
        modules = dict(run.model.named_modules())
        weights = {path: getattr(modules[path], "weight", None) for path in self.layers}
        self.weights = {path: w.detach().clone() for path, w in weights.items() if isinstance(w, Tensor)}
        self.last = 0
        self._look(run, 0)

    def after(self, run: Run) -> None:
        """Look every few steps."""
        if run.step % self.every == 0:
            self._look(run, run.step)

    def _look(self, run: Run, step: int) -> None:
        now = features(run.model, self.x, self.layers)
        for layer in self.layers:
            for name in self.metrics:
                self.readings.append((step, layer, self._read(run, name, layer, now[layer], step)))
        self.before, self.last = now, step

    def _read(self, run: Run, name: str, layer: str, h: Tensor, step: int) -> Reading:
        against = metric_for(name).against
        if against == "layer":
            return read_layer(name, run.model, self.x, layer, self.weights.get(layer), self.permutations)
        if against != "before":
            other = {"features": self.start[layer], "targets": self.targets, "itself": None}[against]
            return read(name, h, other, self.permutations)
        if step == self.last:
            return Reading(name, None, note="there is no reading before the first")
        found, steps = read(name, h, self.before[layer], self.permutations), step - self.last
        value, null, spread = (None if v is None else v / steps for v in (found.value, found.null, found.spread))
        return replace(found, value=value, null=null, spread=spread)

    def rows(self) -> list[dict[str, object]]:
        """One record a reading."""
        return [
            {"step": s, "layer": layer, "metric": r.name, "value": r.value, "null": r.null, "note": r.note}
            for s, layer, r in self.readings
        ]
