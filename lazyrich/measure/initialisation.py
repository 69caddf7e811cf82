"""What an initialisation does to signals: levels, correlations and gradients by layer, drawn and predicted."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import torch
from torch import Tensor

from lazyrich import __version__
from lazyrich.amount import counted
from lazyrich.data import load
from lazyrich.errors import KernelError, TangentError
from lazyrich.family import Law
from lazyrich.layer import shown, spoken
from lazyrich.lazy import Kernel
from lazyrich.lazy.weights import Weights
from lazyrich.measure.phase import Phase, PhasePoint, phase_of
from lazyrich.measure.table import table
from lazyrich.measure.watch import capture, columns, state_of
from lazyrich.scaling import Plan, as_plan, ntk
from lazyrich.tangent.ntk import ntk_of

GROWS = 10.0  # factor between levels of layers from which a signal is said to explode, to vanish or to be uneven
EVEN = 3.0  # factor up to which levels are said to be kept
ALIKE = 0.99  # correlation of different inputs, above which the network cannot tell them apart


@dataclass(frozen=True)
class SignalLine:
    """One layer at initialisation: measured (means over draws and inputs, with the draws' standard deviation) and predicted.

    Attributes:
        layer: path of the module.
        level: mean square of its output a coordinate, drawn; ``level_spread`` over draws; ``level_predicted``, NaN without.
        correlation: mean over pairs of different inputs, likewise.
        gradient: mean square norm of one output's gradient with respect to its tensors, likewise.
    """

    layer: str
    level: float
    level_spread: float
    level_predicted: float
    correlation: float
    correlation_spread: float
    correlation_predicted: float
    gradient: float
    gradient_spread: float
    gradient_predicted: float


@dataclass(frozen=True)
class SignalResult:
    """The result of ``lzr.signals``: a table when printed, records by ``rows()``, a page by ``lazyrich.render``.

    Attributes:
        title: network, scheme, width and data.
        lines: layers in the network's order.
        inputs: mean square and mean correlation of the inputs themselves.
        reason: why there is no prediction; empty where there is one.
        phase: where the hidden layers stand in the plane of their activation, or why they have no place.
        settings: of the run.
        command, date, versions: how, when and with what, for the page.
    """

    title: str
    lines: tuple[SignalLine, ...]
    inputs: tuple[float, float]
    reason: str
    phase: Phase | str
    settings: Mapping[str, Any]
    command: str = ""
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def hidden(self) -> tuple[SignalLine, ...]:
        """All layers but the last, whose size is the readout's own matter."""
        return self.lines[:-1] or self.lines

    @property
    def word(self) -> str:
        """One of exploding or vanishing (from the first layer to the last hidden one), uneven, collapsing and steady.

        Uneven: two hidden layers' levels differ by ``GROWS``. Collapsing: different inputs become alike.
        """
        levels = [line.level for line in self.hidden]
        if not all(map(math.isfinite, levels)) or levels[-1] >= GROWS * levels[0] > 0:
            return "exploding"
        if levels[-1] <= levels[0] / GROWS:
            return "vanishing"
        if max(levels) >= GROWS * min(levels):
            return "uneven"
        return "collapsing" if self.hidden[-1].correlation > ALIKE and self.inputs[1] < ALIKE else "steady"

    @property
    def sentence(self) -> str:
        """The conclusion in words."""
        first, last = self.hidden[0], self.hidden[-1]
        said = {
            "exploding": "Signals explode",
            "vanishing": "Signals vanish",
            "uneven": "Signals are uneven on the way",
            "collapsing": "Different inputs become alike",
            "steady": "Signals keep their size" if self._even else f"Signals change by less than a factor of {GROWS:g}",
        }[self.word]
        return (
            f"{said}: from {spoken(first.layer)} to {spoken(last.layer)} the mean square goes from {first.level:.3g} to "
            f"{last.level:.3g}"
            f"{self._extremes()}, and the correlation of inputs from {first.correlation:.2f} to {last.correlation:.2f}. "
            f"{self._against()} {'' if isinstance(self.phase, str) else self.phase.sentence}"
        ).strip()

    @property
    def _even(self) -> bool:
        levels = [line.level for line in self.hidden]
        return max(levels) <= EVEN * min(levels)

    def _extremes(self) -> str:
        """The smallest and the largest level of hidden layers, and what counts as much."""
        low, high = (end(self.hidden, key=lambda line: line.level) for end in (min, max))
        if len(self.hidden) < 2 or not low.level > 0:
            return ""
        return (
            f" (smallest {low.level:.3g} at {spoken(low.layer)}, largest {high.level:.3g} at {spoken(high.layer)}: a factor of "
            f"{high.level / low.level:.3g}, where {GROWS:g} is judged to be too much)"
        )

    def _against(self) -> str:
        if self.reason:
            return f"There is no prediction: {self.reason}."
        off = [abs(line.level / line.level_predicted - 1) for line in self.lines if line.level_predicted > 0]
        return f"The infinite-width prediction of the levels is met within {max(off):.1%}." if off else ""

    def rows(self) -> list[dict[str, Any]]:
        """One flat record a layer."""
        return [dict(vars(line)) for line in self.lines]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; what was not predicted is None."""
        rows = [{key: None if isinstance(v, float) and math.isnan(v) else v for key, v in row.items()} for row in self.rows()]
        return {
            "kind": "signals", "title": self.title, "word": self.word, "sentence": self.sentence, "lines": rows,
            "phase": None if isinstance(self.phase, str) else self.phase.to_dict(),
            "no_phase": self.phase if isinstance(self.phase, str) else "",
            "inputs": [None if math.isnan(v) else v for v in self.inputs], "reason": self.reason, "settings": dict(self.settings),
            "command": self.command, "date": self.date, "versions": dict(self.versions),
        }  # fmt: skip

    def __str__(self) -> str:
        header = ["layer", "mean square", "predicted", "correlation", "predicted", "gradient^2", "predicted"]
        places: dict[str, PhasePoint] = {} if isinstance(self.phase, str) else {p.layer: p for p in self.phase.points}
        header += ["chi_perp", "chi_par"] if places else []
        rows = [["inputs", f"{self.inputs[0]:.3g}", "", f"{self.inputs[1]:+.3f}", "", "", "", *([""] * (len(header) - 7))]]
        rows += [
            [
                shown(line.layer), f"{line.level:.3g} ± {line.level_spread:.1g}", _shown(line.level_predicted),
                f"{line.correlation:+.3f} ± {line.correlation_spread:.1g}", _shown(line.correlation_predicted, "+.3f"),
                f"{line.gradient:.3g} ± {line.gradient_spread:.1g}", _shown(line.gradient_predicted),
                *([f"{p.chi_perp:.3f}", f"{p.chi_parallel:.3f}"] if (p := places.get(line.layer)) else [""] * (len(header) - 7)),
            ]
            for line in self.lines
        ]  # fmt: skip
        return "\n".join([self.title, self.sentence, "", *table(header, rows, numbers=False)])


def signals(
    plan: Plan,
    data: Any = "digits",
    width: int | None = None,
    *,
    samples: int = 12,
    seeds: int = 8,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    command: str = "",
) -> SignalResult:
    """Draw a plan's network at a width and follow inputs and gradients through it, beside the infinite-width prediction.

    Predicted are the covariances of every layer's output by the rules of ``lzr.kernel`` (Poole et al. 2016, arXiv:1606.05340;
    Schoenholz et al. 2017, arXiv:1611.01232, for any traced network), and gradients by the tangent kernel of each tensor alone.

    Args:
        plan: with its family, of any scheme.
        data: whatever ``lazyrich.data.load`` reads; only inputs count.
        width: of the network; the plan's base by default.
        samples: inputs.
        seeds: networks drawn.
        seed: of inputs and networks.
        progress: called with (networks done, in all, what is next).
        command: how a person repeats this, for the page.

    Raises:
        UsageError: for too few samples or seeds.
        TangentError: for a network that draws random numbers in evaluation mode.

    Example:
        >>> import lazyrich as lzr
        >>> family = lzr.Family(lambda n: lzr.zoo.MLP(n, depth=4, activation="relu"), base=64)
        >>> found = signals(lzr.plan(family, lzr.ntk(), "sgd"), width=256, samples=6, seeds=2)
        >>> found.word, [line.layer for line in found.lines][:2]
        ('vanishing', ['hidden.0', 'hidden.1'])
    """
    as_plan(plan)
    for name, value in (("samples", samples), ("seeds", seeds)):
        counted(name, value, 2)
    if width is not None:
        counted("width", width)
    known = load(data)
    chosen = known.subset(min(samples, len(known)), seed)
    width = plan.base if width is None else width
    x = chosen.x.double() if chosen.x.is_floating_point() else chosen.x
    drawn: list[dict[str, tuple[float, float, float]]] = []
    for i in range(seeds):
        if progress:
            progress(i, seeds, f"network {i + 1} of {seeds}")
        drawn.append(_drawn(plan, width, seed + i, x))
    predicted, reason, phase = _predicted(plan, width, x)
    nothing = (math.nan,) * 3
    lines = []
    for layer in drawn[0]:
        found = torch.tensor([one[layer] for one in drawn], dtype=torch.float64)
        mean, spread, wanted = found.mean(0).tolist(), found.std(0).tolist(), predicted.get(layer, nothing)
        lines.append(SignalLine(layer, *(value for i in range(3) for value in (mean[i], spread[i], wanted[i]))))
    if progress:
        progress(seeds, seeds, "done")
    name = plan.family.name if plan.family else "network"
    settings = {
        "family": repr(plan.family), "network": plan.family.fingerprint if plan.family else "", "scheme": plan.scheme.name,
        "plan": plan.fingerprint, "base": plan.base, "width": width, "data": known.name, "fingerprint": chosen.fingerprint(),
        "samples": len(x), "seeds": seeds, "seed": seed,
    }  # fmt: skip
    versions = {"lazyrich": __version__, "torch": torch.__version__, "python": platform.python_version()}
    own = _square_and_correlation(_second(x.double())) if x.is_floating_point() else (math.nan, math.nan)
    title = f"{name} at width {width} · {plan.scheme.name} · {known.name}"
    said = command or "lazyrich.signals(plan, data, ...) with the settings below"
    return SignalResult(title, tuple(lines), own, reason, phase, settings, said, date.today().isoformat(), versions)


def _drawn(plan: Plan, width: int, seed: int, x: Tensor) -> dict[str, tuple[float, float, float]]:
    model = plan.build(width, seed).double().eval()
    _, calls = capture(model, state_of(model), x)
    with torch.no_grad():
        first, again = (columns(model(x)) for _ in range(2))
    if not torch.allclose(first, again, equal_nan=True):
        raise TangentError(
            f"{type(model).__name__} draws random numbers in evaluation mode too, so its outputs on equal inputs differ, expected "
            "one function of the inputs; let forward draw only `if self.training`, and else take the mean of what it draws"
        )
    outputs = again.shape[1]
    tensors = ntk_of(model, x, outputs="trace", per="layer")
    norms = {path: float(gram.diagonal().mean()) / outputs for path, gram in tensors.items()}
    return {
        path: (*_square_and_correlation(_second(call.output)), norms.get(path, 0.0))
        for path, call in calls.items()
        if "#" not in path
    }


def _predicted(plan: Plan, width: int, x: Tensor) -> tuple[dict[str, tuple[float, float, float]], str, Phase | str]:
    """From the laws of the plan's tensors at this width, with their place in the phase plane; the reason where there is none."""
    if dependent := plan.dependent():
        said = f"the entries of '{next(iter(dependent))}' are no independent draws"
        return {}, said, said
    laws = {name: Law(plan.tensors[name].mean, setting.std) for name, setting in plan.settings(width).items()}
    try:
        model = plan.build(width).double().eval()
        frozen = frozenset(name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad)
        wide = Kernel(model, Weights(laws, {}, ntk(), False, frozen))  # laws measured on one draw would only be thrown away
        seconds, gradients = wide.layers(x), wide.gradients(x)
        phase = phase_of(plan, width, wide, x, seconds)
    except KernelError as error:
        return {}, str(error), str(error)
    norms: dict[str, float] = {}
    for name, values in gradients.items():
        path = name.rpartition(".")[0]
        norms[path] = norms.get(path, 0.0) + float(values.flatten(1).mean(1).mean() if values.dim() > 1 else values.mean())
    return {path: (*_square_and_correlation(k), norms.get(path, math.nan)) for path, k in seconds.items()}, "", phase


def _second(h: Tensor) -> Tensor:
    """Mean products a coordinate of all pairs of samples, (N, N)."""
    flat = columns(h.detach())
    return flat @ flat.T / flat.shape[1]


def _square_and_correlation(second: Tensor) -> tuple[float, float]:
    """Mean square, and mean correlation of different samples."""
    size = second.diagonal()
    scale = (size[:, None] * size[None]).sqrt()
    others = ~torch.eye(len(second), dtype=torch.bool)
    return float(size.mean()), float((second / scale.clamp(min=1e-300))[others].mean())


def _shown(value: float, form: str = ".3g") -> str:
    return "" if math.isnan(value) else format(value, form)
