"""Training one layer at a time: what each layer can do alone, from the same start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import nn

from lazyrich.errors import TangentError, TrainError
from lazyrich.layer import shown
from lazyrich.tangent.function import copied
from lazyrich.train.loop import Batches, train
from lazyrich.train.loss import Loss
from lazyrich.train.probe import Probe, Run

Optimize = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def layers_of(model: nn.Module) -> list[str]:
    """Paths of the modules that own trainable tensors, in the network's order.

    Example:
        >>> layers_of(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)))
        ['0', '2']
    """
    return list(dict.fromkeys(name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad))


@contextmanager
def only(model: nn.Module, *layers: str) -> Iterator[list[nn.Parameter]]:
    """Within it only the tensors that some layers own can train; yields them. What was trainable before is again after.

    Frozen tensors still count in the forward pass; tangent kernels leave them out.

    Raises:
        TrainError: for a path that is no layer with trainable tensors; "(network)" stands for the network itself.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> with only(net, "1"):
        ...     [name for name, p in net.named_parameters() if p.requires_grad]
        ['1.weight', '1.bias']
    """
    known, layers = layers_of(model), tuple("" if layer == shown("") else layer for layer in layers)
    unknown = [layer for layer in layers if layer not in known]
    if unknown or not layers:
        got = f"'{unknown[0]}'" if unknown else "no layer"
        raise TrainError(f"got {got}, expected layers with trainable tensors: {', '.join(map(shown, known)) or 'none is left'}")
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    try:
        for name, p in model.named_parameters():
            p.requires_grad_(before[name] and name.rpartition(".")[0] in layers)
        yield [p for p in model.parameters() if p.requires_grad]
    finally:
        for name, p in model.named_parameters():
            p.requires_grad_(before[name])


@dataclass(frozen=True)
class Alone:
    """Runs of one network from one start, each with a single layer trained.

    Attributes:
        runs: by layer, in the network's order; ``run.model`` is that layer's trained copy. What the network itself owns is
            "(network)".
        whole: with every layer trained.

    Example:
        >>> from lazyrich.train.probe import Run
        >>> run = lambda *losses: Run(nn.Linear(1, 1), losses=list(losses))
        >>> Alone({"0": run(1.0, 0.7), "2": run(1.0, 0.4)}, run(1.0, 0.2)).best
        '2'
    """

    runs: Mapping[str, Run]
    whole: Run

    @property
    def best(self) -> str:
        """The layer that brings the loss down farthest by itself."""
        return min((run.diverged, run.losses[-1], layer) for layer, run in self.runs.items())[2]

    def rows(self) -> list[dict[str, Any]]:
        """One record a layer, and one named ``(all)``: ``layer``, loss before the ``first`` and the ``last`` step, ``diverged``."""
        return [
            {"layer": layer, "first": run.losses[0], "last": run.losses[-1], "diverged": run.diverged}
            for layer, run in (*self.runs.items(), ("(all)", self.whole))
        ]

    def __str__(self) -> str:
        rows = self.rows()
        size = max(len(row["layer"]) for row in rows)
        lines = [f"{'trained':<{size}}  {'first loss':>10}  {'last loss':>10}"]
        for row in rows:
            last = "diverged" if row["diverged"] else f"{row['last']:.4g}"
            lines.append(f"{row['layer']:<{size}}  {row['first']:>10.4g}  {last:>10}")
        return "\n".join(lines)


def train_alone(
    model: nn.Module,
    optimizer: Optimize,
    batches: Batches,
    loss: Loss,
    steps: int,
    *,
    layers: Sequence[str] | None = None,
    probes: Callable[[str], Sequence[Probe]] | None = None,
    seed: int = 0,
) -> Alone:
    """Train copies of a network, each with all layers but one frozen, and one with none frozen.

    The first step lowers the loss in proportion to r^T K_l r, with r the residuals and K_l that layer's tangent kernel
    (the ``speed`` of ``tangent.layer_alignment``), so layers that are aligned with the targets learn fast alone.

    Args:
        model: the start; it is left as it is.
        optimizer: makes an optimizer for a list of parameters, such as ``lambda p: torch.optim.SGD(p, lr=0.1)``.
        batches: ``batches(step) -> (x, y)``, the same for every copy.
        loss: ``loss(model(x), y) -> scalar``.
        steps: at least 1.
        layers: module paths, "(network)" for tensors of the network itself; all that own trainable tensors by default.
        probes: makes the probes of a layer's run; called with the layer's name in ``runs``, and with "" for the whole.
        seed: of random layers.

    Raises:
        TrainError: for a path that is no layer, a network that cannot be copied, or one that does not take the data.

    Example:
        >>> import lazyrich as lzr
        >>> data, net = lzr.data.load("digits").subset(64), lzr.zoo.mlp(16)
        >>> found = train_alone(net, lambda p: torch.optim.SGD(p, lr=0.1), lambda step: (data.x, data.y),
        ...                     nn.functional.cross_entropy, steps=20)
        >>> list(found.runs), all(run.losses[-1] < run.losses[0] for run in found.runs.values())
        (['hidden.0', 'hidden.1', 'readout'], True)
    """
    if not isinstance(steps, Integral) or steps < 1:
        raise TrainError(f"got steps = {steps!r}, expected a whole number of at least 1")
    if isinstance(layers, str) or (layers is not None and not layers):
        names = [shown(layer) for layer in layers_of(model)]
        raise TrainError(f"got layers={layers!r}, expected a list of module paths such as {names[:1]}")
    chosen = list(layers_of(model) if layers is None else layers)

    def run(name: str, kept: Sequence[str]) -> Run:
        start = _copy(model)
        with only(start, *kept) as parameters:
            watch = probes(name) if probes else ()
            try:
                return train(start, optimizer(parameters), batches, loss, steps, probes=watch, seed=seed)
            except TrainError as error:
                raise TrainError(f"with '{name}' trained alone: {error}" if name else str(error)) from error

    return Alone({shown(layer): run(shown(layer), [layer]) for layer in chosen}, run("", layers_of(model)))


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copied(model)
    except TangentError as error:
        raise TrainError(str(error)) from error
