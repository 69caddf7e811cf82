"""Where a stack of layers stands in the plane of weight and bias variances: ordered, on the edge of chaos, or chaotic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.family import Role
from lazyrich.files import finite
from lazyrich.gaussian import Dual, Signal, critical
from lazyrich.gaussian.signal import scale_free
from lazyrich.graph import Graph
from lazyrich.lazy import Kernel
from lazyrich.scaling import Plan

NEAR = 0.02  # |chi_perp - 1| that counts as critical: a correlation then travels fifty layers
ALIKE = 0.2  # relative difference of a layer's level from its map, beyond which the stack is none
OTHERS = ("layer_norm", "rms_norm", "group_norm", "batch_norm", "scaled_dot_product_attention", "softmax", "cat")
LINE = 25  # points of the edge of chaos
SETTLED = 0.1  # relative difference of chi_perp from that at the fixed point, below which a layer is as deep ones are
MOST = 1000  # layers that are looked ahead
WIDEST = 1e8  # variance up to which growth without bound is looked for
RIGHT = 1.2  # of the largest sigma_w^2, where the plane is drawn on the right


@dataclass(frozen=True)
class PhasePoint:
    """A hidden layer in the plane.

    Attributes:
        layer: its path.
        weight: sigma_w^2, the variance of its weights times the fan-in.
        bias: sigma_b^2.
        chi_perp: sigma_w^2 E phi'^2 at the variance of what enters it: the growth of squared gradients and small angles; infinite
            where the activation jumps.
        chi_parallel: the growth of small changes of the variance.
        level: the variance of what enters it.
    """

    layer: str
    weight: float
    bias: float
    chi_perp: float
    chi_parallel: float
    level: float = math.nan


@dataclass(frozen=True)
class Phase:
    """A stack of layers of one activation, by its mean hidden layer (Poole et al. 2016; Schoenholz et al. 2017).

    Attributes:
        activation: its name.
        word: ordered, critical, chaotic, or unbounded (variances grow for ever).
        variance: q*, that layers settle at; infinite where they do not.
        correlation: c*, of different inputs at last.
        depth_scales: xi_q and xi_c in layers.
        points: the hidden layers.
        edge: (sigma_w^2, sigma_b^2) along the edge of chaos, where variances stay near its fixed point.
        edge_weight: sigma_w^2 on the edge of chaos at this sigma_b^2; NaN where there is no edge.
        beyond: chaotic or unbounded, what the plane is at large sigma_w^2.
        border: (sigma_w^2, sigma_b^2) where variances begin to grow without bound, at those sigma_b^2 that have no edge.
        chi: chi_perp at the fixed point.
        settles: layers until chi_perp is near ``chi``; no more than there are where the network is there itself.
    """

    activation: str
    word: str
    variance: float
    correlation: float
    depth_scales: tuple[float, float]
    points: tuple[PhasePoint, ...]
    edge: tuple[tuple[float, float], ...]
    edge_weight: float = math.nan
    beyond: str = "chaotic"
    border: tuple[tuple[float, float], ...] = ()
    chi: float = math.nan
    settles: int = 0

    @property
    def weight(self) -> float:
        """Mean sigma_w^2 of the hidden layers."""
        return sum(p.weight for p in self.points) / len(self.points)

    @property
    def bias(self) -> float:
        """Mean sigma_b^2 of the hidden layers."""
        return sum(p.bias for p in self.points) / len(self.points)

    @property
    def sentence(self) -> str:
        """What the place means, and where the edge is."""
        place = f"sigma_w^2 = {self.weight:.3g}, sigma_b^2 = {self.bias:.2g}"
        if self.word == "unbounded":
            to = f" below {self.edge_weight:.3g}" if self.edge_weight < self.weight else ""
            return f"At {place} variances of {self.activation} grow without bound; lower sigma_w^2{to}."
        edge = f" The edge of chaos at this sigma_b^2 is sigma_w^2 = {self.edge_weight:.3g}." if self.edge_weight > 0 else ""
        edge = "" if self.word == "critical" else edge
        return f"At {place} {self.activation} is {self.word}: {self._when()}{self._means()}{self._here()}.{edge}"

    def _when(self) -> str:
        """Deep layers' fate is not that of a network which ends long before variances settle."""
        if self.settles <= len(self.points):
            return "with depth "
        layers = f"about {self.settles} layers" if self.settles < MOST else f"more than {MOST} layers"
        return f"once variances have {'settled' if self.variance else 'decayed'}, behind {layers}, "

    def _means(self) -> str:
        if self.word == "ordered" and not self.variance:  # correlations of what vanishes have no limit of their own
            return f"signals and gradients vanish together, their squares by a factor of {self.chi:.2g} a layer (q* = 0)"
        scale = self.depth_scales[1]
        travels = "at any depth" if math.isinf(scale) else f"over about {max(scale, 0.1):.2g} layers"
        means = {
            "ordered": "gradients vanish and inputs become alike",
            "critical": "neither gradients nor differences of inputs grow or vanish",
            "chaotic": "gradients explode and near inputs are torn apart",
        }[self.word]
        return f"{means}; differences can be told {travels} (q* = {self.variance:.3g}, c* = {self.correlation:.2f})"

    def _here(self) -> str:
        """What a layer of this network does, where deep ones do something else."""
        if self.settles <= len(self.points):
            return ""
        low, high = (f"{end(p.chi_perp for p in self.points):.3g}" for end in (min, max))
        return f"; at this network's own levels chi_perp is {low if low == high else f'{low} to {high}'}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; what is infinite is None."""
        return {
            "activation": self.activation, "word": self.word, "variance": finite(self.variance),
            "correlation": finite(self.correlation), "depth_scales": [finite(v) for v in self.depth_scales],
            "points": [asdict(p) | {key: finite(getattr(p, key)) for key in ("chi_perp", "level")} for p in self.points],
            "edge": [list(p) for p in self.edge], "border": [list(p) for p in self.border],
            "beyond": self.beyond, "sentence": self.sentence,
        }  # fmt: skip


def phase_of(plan: Plan, width: int, kernel: Kernel, x: Tensor, seconds: Mapping[str, Tensor]) -> Phase | str:
    """The place of a plan's hidden layers, or why the network has none.

    Args:
        plan: with its family.
        width: of the network.
        kernel: of that network.
        x: inputs that it was traced on.
        seconds: covariances by layer (``Kernel.layers``).
    """
    traced = kernel.traced(x)
    if reason := _no_stack(traced.graph):
        return reason
    names = {phi.name for phi in traced.duals.values()}
    if len(names) != 1:
        return (
            f"it has {len(names) or 'no'} activations ({', '.join(sorted(names)) or 'none'}), and a phase is one activation's"
        )
    phi = next(iter(traced.duals.values()))
    points = _points(plan, width, phi, seconds)
    if not points:
        return "it has no hidden layer that reads another one"
    if isinstance(points, str):
        return points
    return _placed(phi, points)


def _no_stack(graph: Graph) -> str:
    """What makes a network no plain stack of layers; empty where nothing does."""
    random: set[str] = set()
    for node in graph:
        drawn = [name for name in node.inputs if name in random]
        if node.op in OTHERS and drawn:
            return f"it is no plain stack of layers: {node.op} at {node.place}"
        if node.op == "add" and len(set(drawn)) > 1:
            return f"it is no plain stack of layers: branches meet at {node.place}"
        if drawn or any(graph[name].op == "parameter" for name in node.inputs):
            random.add(node.name)
    return ""


def _points(plan: Plan, width: int, phi: Dual, seconds: Mapping[str, Tensor]) -> list[PhasePoint] | str:
    assert plan.family is not None
    settings, shapes = plan.settings(width), plan.family.shapes(width)
    found, before = [], None
    for path, second in seconds.items():
        name, q = f"{path}.weight", second.diagonal().mean()
        tensor = plan.tensors.get(name)
        if tensor is not None and tensor.role is Role.HIDDEN and before is not None:
            fan_in = tensor.axes.fans(shapes[name])[0]
            bias = settings[f"{path}.bias"].std ** 2 if f"{path}.bias" in settings else 0.0
            here = Signal(phi, fan_in * settings[name].std ** 2, bias)
            if abs(float(here.variance_map(before) / q) - 1) > ALIKE:
                return f"the level of '{path}' does not follow from the one before it, as in a plain stack"
            chis = float(here.chi_perp(before)), float(here.chi_parallel(before))
            found.append(PhasePoint(path, here.weight, here.bias, *chis, float(before)))
        before = q
    return found


def _placed(phi: Dual, points: list[PhasePoint]) -> Phase:
    weight, bias = (sum(getattr(p, what) for p in points) / len(points) for what in ("weight", "bias"))
    start = 1.0 if scale_free(phi) else points[0].level  # several fixed points: the one that this network's levels flow to
    signal = Signal(phi, weight, bias, start)
    edge = tuple(_edge(phi, max(bias, 0.1)))
    border = tuple(_border(phi, edge, start))
    right = RIGHT * max([weight, *(w for w, _ in (*edge, *border))])
    beyond = "unbounded" if _word(Signal(phi, right, bias, start)) == "unbounded" else "chaotic"
    word = _word(signal)
    drawn = (tuple(points), edge, _edge_weight(phi, bias), beyond, border)
    if word == "unbounded":
        return Phase(phi.name, word, math.inf, math.nan, (math.nan, math.nan), *drawn)
    chi = float(signal.chi_perp(torch.tensor(signal.variance, dtype=torch.float64)))
    settles = _settles(signal, points[0].level, chi)
    return Phase(phi.name, word, signal.variance, signal.correlation, signal.depth_scales(), *drawn, chi, settles)


def _settles(signal: Signal, level: float, chi: float) -> int:
    """Layers behind the first until chi_perp is what it is at the fixed point; none where it is infinite at all levels."""
    q = torch.tensor(level, dtype=torch.float64)
    for layer in range(MOST):
        if not math.isfinite(chi) or abs(float(signal.chi_perp(q)) - chi) <= SETTLED * chi:
            return layer
        q = signal.variance_map(q)
    return MOST


def _word(signal: Signal) -> str:
    if not math.isfinite(signal.variance):
        return "unbounded"
    chi = float(signal.chi_perp(torch.tensor(signal.variance, dtype=torch.float64)))
    return "critical" if abs(chi - 1) < NEAR else ("ordered" if chi < 1 else "chaotic")


def _edge(phi: Dual, bias: float) -> list[tuple[float, float]]:
    """The edge of chaos for biases up to twice the asked one; a vertical line for activations without a scale."""
    if not any(math.isfinite(_edge_weight(phi, b)) for b in (2 * bias, bias)):  # a search in vain takes long
        return []
    biases = torch.linspace(0, 1, LINE, dtype=torch.float64).square().mul(2 * bias).tolist()
    return [(weight, b) for b in biases if math.isfinite(weight := _edge_weight(phi, b))]


def _border(phi: Dual, edge: tuple[tuple[float, float], ...], start: float) -> list[tuple[float, float]]:
    """Where the ordered phase ends below the lowest point of the edge: no variance from ``start`` on is then a fixed point."""
    lowest = min((b for _, b in edge), default=0.0)
    if lowest <= 0:
        return []
    q = torch.logspace(math.log10(start), math.log10(WIDEST), 400, dtype=torch.float64)
    size = phi.variance(q)
    biases = torch.linspace(0, lowest, LINE, dtype=torch.float64).tolist()
    ends = [(float(((q - b) / size).max()), b) for b in biases]
    return [(w, b) for w, b in ends if w > 0 and _word(Signal(phi, (1 - NEAR) * w, b, start)) in ("ordered", "critical")]


def _edge_weight(phi: Dual, bias: float) -> float:
    """NaN where no fixed point is critical, or none that variances stay near, as of GELU below its half-stable point."""
    try:
        return critical(phi, bias=0.0 if scale_free(phi) else bias).weight
    except KernelError:
        return math.nan
