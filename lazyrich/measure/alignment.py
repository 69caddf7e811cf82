"""How far a layer's weights and their updates are aligned with what they meet, and how that goes with the width.

    A_w = ||W dx|| / (||W|| ||dx||),   A_dw = ||dW x|| / (||dW|| ||x||),   A_dd = ||dW dx|| / (||dW|| ||dx||)

with Euclidean norms over samples and Frobenius norms of matrices, where one is full alignment at any width and what is random to
each other falls as width^(-1/2): one less than the exponents of Everett et al. 2024 (arXiv:2407.05872), whose norms are root
mean squares. ``lazyrich.plan(alignment=...)`` assumes one or the other of updates. With spectral norms (Yang, Simon & Bernstein
2023, arXiv:2310.17813) the ratios say how much of the weights' largest gain is used; a random square matrix uses half of it at any
width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from lazyrich.errors import UsageError
from lazyrich.layer import shown
from lazyrich.measure.check import Setup, setup_of
from lazyrich.measure.slope import Slope, fit_slope
from lazyrich.measure.watch import Call, State, capture, state_of
from lazyrich.scaling import Plan, as_plan
from lazyrich.train import Loss, train

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
RATIOS = ("weight", "update", "both")
NORMS = ("frobenius", "spectral")


@dataclass(frozen=True)
class LayerRatios:
    """Alignment ratios of one layer, each between 0 and 1; NaN where nothing moved.

    Attributes:
        weight: A_w, of the weights with the change of their inputs.
        update: A_dw, of the weights' change with their inputs.
        both: A_dd, of both changes.
    """

    weight: float
    update: float
    both: float


def alignment_ratios(
    model: nn.Module, before: Mapping[str, Tensor], after: Mapping[str, Tensor], x: Any, norm: str = "frobenius"
) -> dict[str, LayerRatios]:
    """Alignment ratios of every dense layer, convolution (its patches) and table of a network, between two states.

    Attentions, recurrent networks, norms and parametrised weights are left out. Biases take no part.

    Args:
        model: the network; it is left as it is.
        before: its parameters and buffers by name.
        after: the same later in training.
        x: inputs to look at, as the network reads them.
        norm: of matrices, "frobenius" or "spectral".

    Raises:
        UsageError: for states that are not the network's, and another norm.
        TrainError: for inputs that it does not take.

    Example:
        >>> net = nn.Linear(3, 2, bias=False)
        >>> x, before = torch.eye(3)[:1], {"weight": torch.ones(2, 3)}
        >>> moved = alignment_ratios(net, before, {"weight": before["weight"] - torch.ones(2, 1) @ x}, x)
        >>> round(moved[""].update, 6)  # a gradient of one sample
        1.0
    """
    _refuse_norm(norm)
    own = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    for when, state in (("before", before), ("after", after)):
        if not isinstance(state, Mapping) or set(state) - own or {name for name, _ in model.named_parameters()} - set(state):
            raise UsageError(
                f"got {when} that is not the network's state, expected its tensors by name; pass model.state_dict()"
            )
    buffers = dict(model.named_buffers())
    old, new = ({**buffers, **{k: v.detach().clone() for k, v in state.items()}} for state in (before, after))
    first, last = (capture(model, state, x)[1] for state in (old, new))
    found = {}
    for key in first.keys() & last.keys():
        path = key.split("#")[0]
        module, name = model.get_submodule(path), f"{path}.weight" if path else "weight"
        if isinstance(module, (nn.Linear, nn.Embedding, *CONVOLUTIONS)) and not is_parametrized(module):
            found[key] = _ratios(module, old[name], new[name], first[key], last[key], norm)
    return {key: found[key] for key in first if key in found}


def _ratios(module: nn.Module, old: Tensor, new: Tensor, first: Call, last: Call, norm: str) -> LayerRatios:
    weight, change = old.double(), new.double() - old.double()
    x, later = (call.args[0] if call.args else call.kwargs["input"] for call in (first, last))
    if isinstance(module, nn.Embedding):
        return LayerRatios(math.nan, _ratio(module, change, x, norm), math.nan)
    x, moved = x.double(), later.double() - x.double()
    pairs = ((weight, moved), (change, x), (change, moved))
    return LayerRatios(*(_ratio(module, matrix, met, norm) for matrix, met in pairs))


def _ratio(module: nn.Module, weight: Tensor, x: Tensor, norm: str) -> float:
    """||op(W, x)|| / (||W|| ||x||), without the hooks of a plan, whose factors would enter once."""
    if isinstance(module, nn.Embedding):
        out, met = F.embedding(x, weight), float(x.numel())
    elif isinstance(module, nn.Linear):
        out, met = F.linear(x, weight), float(x.square().sum())
    else:  # an input counts as often as a patch holds it
        convolve: Any = module._conv_forward
        out = convolve(x, weight, None)
        each = convolve(x.square(), torch.ones_like(weight), None).movedim(-weight.dim() + 1, 0)
        met = float(each[:: len(weight) // module.groups].sum())
    size = float(weight.norm()) if norm == "frobenius" else _largest_gain(weight, getattr(module, "groups", 1))
    return float(out.norm()) / (size * math.sqrt(met)) if size > 0 and met > 0 else math.nan


def _largest_gain(weight: Tensor, groups: int) -> float:
    return float(torch.linalg.matrix_norm(weight.reshape(groups, len(weight) // groups, -1), 2).max())


def _refuse_norm(norm: str) -> None:
    if norm not in NORMS:
        raise UsageError(f"got norm = {norm!r}, expected one of {', '.join(map(repr, NORMS))}")


@dataclass(frozen=True)
class AlignmentLine:
    """One ratio of one layer: geometric means over seeds at every width, and the power of the width that it goes as.

    Example:
        >>> line = AlignmentLine("hidden.0", "update", (64, 256), (0.5, 0.5), Slope(0.0, -0.1, 0.1, 6))
        >>> line.slope.low < 0 < line.slope.high
        True
    """

    layer: str
    ratio: str
    widths: tuple[int, ...]
    values: tuple[float, ...]
    slope: Slope


@dataclass(frozen=True)
class AlignmentResult:
    """The alignment of every layer at some widths: a table when printed, records by ``rows()``."""

    title: str
    lines: tuple[AlignmentLine, ...]
    norm: str = "frobenius"

    @property
    def slopes(self) -> dict[tuple[str, str], Slope]:
        """Powers of the width by (layer, ratio); of Frobenius ratios 0 for full alignment, -1/2 for none."""
        return {(line.layer, line.ratio): line.slope for line in self.lines}

    def rows(self) -> list[dict[str, Any]]:
        """A record for every layer, ratio and width, for pandas or polars."""
        return [
            {"layer": line.layer, "ratio": line.ratio, "width": width, "value": value, "slope": line.slope.value,
             "low": line.slope.low, "high": line.slope.high}
            for line in self.lines
            for width, value in zip(line.widths, line.values, strict=True)
        ]  # fmt: skip

    def __str__(self) -> str:
        header = ["layer", *(f"{name} ~ width^" for name in RATIOS)]
        rows = []
        for layer in dict.fromkeys(line.layer for line in self.lines):
            cells = [self.slopes.get((layer, name)) for name in RATIOS]
            rows.append([shown(layer), *("" if cell is None else str(cell) for cell in cells)])
        sizes = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        table = ["  ".join(c.ljust(n) for c, n in zip(row, sizes, strict=True)).rstrip() for row in [header, *rows]]
        note = "0: fully aligned at any width; -0.5: as if random to each other"
        return "\n".join([self.title, *table, *([note] if self.norm == "frobenius" else [])])


def alignments(
    plan: Plan, data: Any = "digits", widths: Sequence[int] = (64, 128, 256, 512), steps: int = 5, seeds: int = 3,
    lr: float | None = None, *, batch: int = 64, probe: int = 16, loss: str | Loss | None = None, device: str = "cpu",
    meet: bool = False, norm: str = "frobenius",
) -> AlignmentResult:  # fmt: skip
    """The alignment that ``plan(alignment=...)`` assumes, measured: ratios between the start and the last step, and their slopes.

    Args:
        plan: from ``lazyrich.plan``, with its family.
        data: whatever ``lazyrich.data.load`` reads.
        widths: at least two, increasing, none below the plan's base.
        steps: of training.
        seeds: draws of initialisation and batches.
        lr: learning rate of the base-width network; as in ``lazyrich.check`` by default.
        batch: samples a step.
        probe: samples of the first batch on which is measured.
        loss: name or function, as in ``lazyrich.check``.
        device: where to train.
        meet: meet the plan's obligations by hooks.
        norm: of matrices, "frobenius" or "spectral".

    Raises:
        UsageError: for widths, steps or seeds that give no slope, and another norm.

    Example:
        >>> import lazyrich as lzr
        >>> plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=32), lzr.mup(), "adam")
        >>> found = alignments(plan, "digits", widths=[32, 64, 128], steps=3, seeds=2)
        >>> all(0 < row["value"] <= 1 for row in found.rows())
        True
    """
    _refuse_norm(norm)
    setup = setup_of(as_plan(plan), data, widths, steps, seeds, lr, 0.0, batch, probe, loss, device, meet)
    trials = {(width, seed): _trial(setup, width, seed, norm) for width in setup.widths for seed in range(seeds)}
    lines = []
    for layer in next(iter(trials.values())):
        for ratio in RATIOS:
            table = [[_of(trials[width, seed], layer, ratio) for width in setup.widths] for seed in range(seeds)]
            if any(value > 0 for row in table for value in row):
                means = tuple(_mean(column) for column in zip(*table, strict=True))
                lines.append(AlignmentLine(layer, ratio, setup.widths, means, fit_slope(setup.widths, table)))
    name = setup.plan.family.name if setup.plan.family else "network"
    return AlignmentResult(f"{name} · {setup.plan.scheme.name} · {setup.plan.optimizer_name}: alignment", tuple(lines), norm)


def _trial(setup: Setup, width: int, seed: int, norm: str) -> dict[str, LayerRatios]:
    model = setup.plan.build(width, seed, setup.device, meet=setup.met)
    start: State = state_of(model)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        x, y = setup.data.batch(setup.batch, step, seed)
        return x.to(setup.device), y.to(setup.device)

    train(model, setup.plan.optimizer(model, setup.lr), batches, setup.loss, setup.steps, seed=seed)
    return alignment_ratios(model, start, state_of(model), batches(0)[0][: setup.probe], norm)


def _of(trial: Mapping[str, LayerRatios], layer: str, ratio: str) -> float:
    return getattr(trial[layer], ratio) if layer in trial else math.nan


def _mean(values: Sequence[float]) -> float:
    """Geometric mean of what is positive."""
    logs = [math.log(value) for value in values if value > 0]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan
