"""How well tangent kernels point at the targets, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.errors import TangentError
from lazyrich.layer import shown, spoken
from lazyrich.tangent.function import NetworkFunction
from lazyrich.tangent.ntk import ntk_of, refuse_large
from lazyrich.tangent.refusals import refuse_untensored

KINDS = ("centred", "uncentred", "unbiased")


def target_alignment(kernel: Tensor, y: Tensor, kind: str = "centred") -> float:
    """How much of a kernel is the targets' own Gram Y Y^T: a cosine between matrices.

    With H = I - 11^T/N: "centred" is <H K H, H Y Y^T H> / (||H K H|| ||H Y Y^T H||) (Cortes, Mohri & Rostamizadeh 2012,
    arXiv:1203.0550; along training Baratin et al. 2021, arXiv:2008.00938), "uncentred" the same without H (Cristianini et al.
    2001), which classes lift to about 1/sqrt(C) for nothing. Both read high for few samples and kernels of high rank;
    "unbiased" replaces all three products by their unbiased estimates (HSIC_1 of Song et al. 2012), so that a kernel of
    independent features has mean 0.

    Args:
        kernel: Gram (N, N).
        y: targets: classes (N,) of whole numbers, which become one-hot columns, or numbers (N,) or (N, K).
        kind: "centred", "uncentred" or "unbiased".

    Returns:
        In [0, 1] for positive semi-definite kernels, "unbiased" also below; 0 for a kernel that centring takes away.

    Raises:
        TangentError: for shapes that do not fit, a kernel that is not finite, targets that are all equal, or too few samples.

    Example:
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> ideal = (labels[:, None] == labels[None, :]).double()
        >>> target_alignment(ideal, labels), round(target_alignment(torch.eye(4), labels), 4)
        (1.0, 0.5774)
    """
    if kind not in KINDS:
        raise TangentError(f"got kind '{kind}', expected one of {', '.join(KINDS)}")
    _refuse_odd(kernel, "a kernel")
    return _product(kernel.detach().double(), _target_gram(y, len(kernel), kind).to(kernel.device), kind)


def _refuse_odd(kernel: Tensor, what: str) -> None:
    """What is no Gram of finite real numbers."""
    if not isinstance(kernel, Tensor):
        raise TangentError(f"got {what} of type {type(kernel).__name__}, expected a tensor (N, N); torch.as_tensor makes one")
    if kernel.dim() != 2 or kernel.shape[0] != kernel.shape[1]:
        raise TangentError(f"got {what} of shape {tuple(kernel.shape)}, expected (N, N); ntk_of(outputs='trace') gives one")
    if kernel.is_complex():
        raise TangentError(
            f"got {what} of {kernel.dtype}, expected real numbers; a Gram of complex features is (H @ H.mH).real"
        )
    if not bool(kernel.isfinite().all()):
        where = "the kernel" if what == "a kernel" else what
        raise TangentError(f"{where} has entries that are not finite: training has diverged, or the network's outputs overflow")


def _product(kernel: Tensor, target: Tensor, kind: str) -> float:
    """The cosine of two Grams under the product of that kind."""
    if kind == "unbiased":
        both, own, other = (float(hsic(a, b)) for a, b in ((kernel, target), (kernel, kernel), (target, target)))
        return both / (own * other) ** 0.5 if own > 0 and other > 0 else 0.0
    a, b = (kernel, target) if kind == "uncentred" else (centre(kernel), centre(target))
    scale = float(a.norm() * b.norm())
    return min(float((a * b).sum()) / scale, 1.0) if scale > 1e-14 * float(kernel.norm() * target.norm()) else 0.0


def centre(kernel: Tensor) -> Tensor:
    """H K H, with H = I - 11^T/N: a Gram as of features without their mean.

    Example:
        >>> centre(torch.eye(2)).tolist()
        [[0.5, -0.5], [-0.5, 0.5]]
    """
    return kernel - kernel.mean(0, keepdim=True) - kernel.mean(1, keepdim=True) + kernel.mean()


def hsic(k: Tensor, other: Tensor) -> Tensor:
    """HSIC_1, the unbiased estimate of tr(K H L H) / (N - 1)^2 from Grams (..., N, N), N > 3 (Song et al. 2012, JMLR 13).

    Example:
        >>> hsic(torch.eye(5), torch.eye(5)).item()
        0.0
    """
    n = k.shape[-1]
    a, b = (m - torch.diag_embed(m.diagonal(dim1=-2, dim2=-1)) for m in (k, other))
    ones = (a.sum((-2, -1)) * b.sum((-2, -1))) / ((n - 1) * (n - 2))
    cross = 2 / (n - 2) * (a.sum(-2) * b.sum(-2)).sum(-1)
    return ((a * b).sum((-2, -1)) + ones - cross) / (n * (n - 3))


def _target_gram(y: Tensor, samples: int, kind: str) -> Tensor:
    """Y Y^T in float64."""
    columns = _columns(y, samples, kind)
    return columns @ columns.T


def _columns(y: Tensor, samples: int, kind: str) -> Tensor:
    """Y in float64, checked; of classes those that occur, so that they may be any numbers from 0."""
    if not isinstance(y, Tensor):
        raise TangentError(f"got targets of type {type(y).__name__}, expected a tensor; torch.as_tensor(y) makes one")
    if y.dim() < 1 or len(y) != samples:
        got = f"{len(y)} targets" if y.dim() else "targets without an axis"
        raise TangentError(f"got {got} for {samples} samples, expected one a sample")
    least = 4 if kind == "unbiased" else 2
    if samples < least:
        raise TangentError(f"got {samples} samples, expected at least {least} for the {kind} alignment")
    whole = not (y.is_floating_point() or y.is_complex()) and y.numel() and int(y.min()) >= 0
    if whole:
        found, y = y.unique(return_inverse=True)
        refuse_large(
            8 * len(found) * y.numel(), f"one-hot rows of {len(found)} classes", "numbers (y.float()), or fewer samples"
        )
    columns = targets_of(y).to(torch.float64)
    if not torch.isfinite(columns).all():
        raise TangentError("y has entries that are not finite; remove those samples")
    varies = columns.std(0).max() > 0 if kind != "uncentred" else columns.any()
    if not bool(varies):
        raise TangentError("all targets are equal, so there is nothing to align with; give samples of different targets")
    return columns


def targets_of(y: Tensor, classes: int = -1) -> Tensor:
    """Targets as columns (N, K): classes of whole numbers become one-hot rows, side by side for several positions; numbers stay.

    Example:
        >>> targets_of(torch.tensor([0, 1])).tolist(), targets_of(torch.tensor([0.5, 1.0])).shape
        ([[1.0, 0.0], [0.0, 1.0]], torch.Size([2, 1]))
    """
    if y.is_complex():
        raise TangentError(f"got targets of {y.dtype}, expected real numbers; give their parts, torch.view_as_real(y)")
    if y.is_floating_point():
        return y.detach().reshape(len(y), -1)
    if y.dim() >= 1 and int(y.min()) < 0:
        raise TangentError(
            f"got targets of {y.dtype} with {int(y.min())} among them, expected classes from 0; numbers are y.float()"
        )
    if y.dim() < 1:
        raise TangentError(f"got targets of {y.dtype} and shape {tuple(y.shape)}, expected classes (N, ...) from 0, or numbers")
    return torch.nn.functional.one_hot(y.long(), classes if classes > int(y.max()) else -1).double().flatten(1)


@dataclass(frozen=True)
class LayerAlignment:
    """One layer's tangent kernel against the targets.

    Attributes:
        layer: module path that owns the tensors; empty where the network itself owns them.
        centred: alignment with both Grams centred.
        uncentred: without centring.
        unbiased: centred, free of the bias of few samples; None below four samples.
        share: of the trace of the whole tangent kernel.
        speed: how fast the loss 1/(2N) sum (f - y)^2 would fall with this layer alone trained by gradient flow,
            sum_t rate_t ||dL/dtheta_t||^2 = r^T K_l r / N^2; None for targets of another shape than the outputs.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> first = layer_alignment(net, torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])).layers[0]
        >>> first.layer, 0 < first.share < 1, first.speed > 0
        ('0', True, True)
    """

    layer: str
    centred: float
    uncentred: float
    unbiased: float | None
    share: float
    speed: float | None


@dataclass(frozen=True)
class Alignments:
    """Alignment of every layer's tangent kernel, in the network's order, and of the whole.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> found = layer_alignment(net, torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1]))
        >>> [layer.layer for layer in found.layers], found.peak in ("0", "2")
        (['0', '2'], True)
    """

    layers: tuple[LayerAlignment, ...]
    whole: LayerAlignment

    @property
    def peak(self) -> str:
        """The layer whose kernel is aligned best (centred)."""
        return max(self.layers, key=lambda layer: layer.centred).layer

    @property
    def centred(self) -> tuple[float, ...]:
        """The centred alignments, in the network's order."""
        return tuple(layer.centred for layer in self.layers)

    def rows(self) -> list[dict[str, Any]]:
        """One record a layer, and one named ``(whole)``."""
        return [dict(vars(layer)) for layer in (*self.layers, self.whole)]

    def __str__(self) -> str:
        rows = self.rows()
        size = max(len(shown(row["layer"])) for row in rows)
        header = f"{'layer':<{size}}  {'centred':>8}  {'uncentred':>9}  {'unbiased':>8}  {'share':>6}  {'speed':>9}"
        lines = [header, "-" * len(header)]
        for row in rows:
            cells = [shown(row["layer"]).ljust(size)]
            for name, wide, form in (("centred", 8, ".3f"), ("uncentred", 9, ".3f"), ("unbiased", 8, ".3f"), ("share", 6, ".1%"),
                                     ("speed", 9, ".3g")):  # fmt: skip
                cells.append(f"{'' if row[name] is None else format(row[name], form):>{wide}}")
            lines.append("  ".join(cells))
        return "\n".join([*lines, f"peak: {spoken(self.peak)}"])


def layer_alignment(model: nn.Module, x: Tensor, y: Tensor, rates: Mapping[str, float] | None = None) -> Alignments:
    """Alignment with the targets of K_l(x, x') = sum_k <df_k(x)/dtheta_l, df_k(x')/dtheta_l>, for every layer l.

    Across the depth of a trained network it rises and falls again; ``equilibrium`` says where it should peak (Lou, Mingard,
    Nam & Hayou 2022, arXiv:2110.11749).

    Args:
        model: treats samples one by one; tensors that are frozen (``requires_grad=False``) are left out.
        x: inputs (N, ...).
        y: classes (N,), or numbers (N, K) like the outputs.
        rates: learning-rate factor by tensor name, 1 where it is not given, as in ``ntk_of``.

    Raises:
        TangentError: for a network or inputs that have no tangent kernel, or targets that do not fit.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> found = layer_alignment(net, torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1]))
        >>> round(sum(layer.share for layer in found.layers), 6)
        1.0
    """
    refuse_untensored(x, "x")
    _columns(y, len(x), "centred")  # refuses early
    return align(layer_kernels(model, x, rates), y, _speeds(model, x, y, rates or {}))


def layer_kernels(model: nn.Module, x: Tensor, rates: Mapping[str, float] | None = None) -> dict[str, Tensor]:
    """Every layer's tangent kernel, traced over outputs, by module path in the order of their first calls.

    Example:
        >>> kernels = layer_kernels(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(6, 3))
        >>> [(layer, tuple(kernel.shape)) for layer, kernel in kernels.items()]
        [('0', (6, 6)), ('2', (6, 6))]
    """
    found = ntk_of(model, x, outputs="trace", per="layer", rates=rates)
    return {layer: found[layer] for layer in _order(model, x) if layer in found}


def _order(model: nn.Module, x: Tensor) -> list[str]:
    """Layers in the order of their first calls; those that are not called themselves stay behind the one before them."""
    function = NetworkFunction(model)
    model = function.model
    registered = dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters())
    modules, called = dict(model.named_modules()), dict[int, int]()

    def note(module: nn.Module, _: Any) -> None:
        called.setdefault(id(module), len(called))

    hooks = [modules[layer].register_forward_pre_hook(note) for layer in registered]
    try:
        with torch.no_grad():
            function(function.parameters, x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    places, place = {}, -1
    for layer in registered:
        places[layer] = place = called.get(id(modules[layer]), place)
    return sorted(registered, key=places.__getitem__)


def align(kernels: Mapping[str, Tensor], y: Tensor, speeds: Mapping[str, float] | None = None) -> Alignments:
    """Alignment of kernels by layer, each (N, N), and of their sum; ``layer_alignment`` makes them from a network.

    Raises:
        TangentError: for kernels and targets that do not fit.

    Example:
        >>> round(align({"a": torch.eye(4), "b": 3 * torch.eye(4)}, torch.tensor([0, 0, 1, 1])).whole.uncentred, 6)
        0.707107
    """
    _refuse_unlike(kernels)
    exact = {layer: kernel.detach().double() for layer, kernel in kernels.items()}
    whole = torch.stack(list(exact.values())).sum(0)
    samples, trace = len(whole), float(whole.trace())
    kinds = KINDS if samples >= 4 else KINDS[:2]
    target = _target_gram(y, samples, "centred").to(whole.device)

    def line(layer: str, kernel: Tensor, speed: float | None) -> LayerAlignment:
        found = {kind: _product(kernel, target, kind) for kind in kinds}
        share = float(kernel.trace()) / trace if trace > 0 else 0.0
        return LayerAlignment(layer, found["centred"], found["uncentred"], found.get("unbiased"), share, speed)

    layers = tuple(line(layer, kernel, (speeds or {}).get(layer)) for layer, kernel in exact.items())
    known = [layer.speed for layer in layers if layer.speed is not None]
    return Alignments(layers, line("(whole)", whole, sum(known) if known else None))


def _refuse_unlike(kernels: Mapping[str, Tensor]) -> None:
    """What are no Grams of one set of samples, by layer."""
    if not isinstance(kernels, Mapping):
        raise TangentError(
            f"got kernels {type(kernels).__name__}, expected a dictionary of them by layer; layer_kernels makes one"
        )
    if not kernels:
        raise TangentError("got no kernels, expected one a layer; is every tensor frozen?")
    for layer, kernel in kernels.items():
        _refuse_odd(kernel, f"the kernel of '{layer}'")
    sizes = {layer: len(kernel) for layer, kernel in kernels.items()}
    first = next(iter(sizes))
    if odd := [layer for layer, size in sizes.items() if size != sizes[first]]:
        raise TangentError(
            f"got kernels of {sizes[first]} samples for '{first}' and {sizes[odd[0]]} for '{odd[0]}', expected those of one set; "
            "make all of them from the same x"
        )


def _speeds(model: nn.Module, x: Tensor, y: Tensor, rates: Mapping[str, float]) -> dict[str, float]:
    """-dL/dt with one layer trained alone."""
    function = NetworkFunction(model)
    rates = function.rates(rates)
    parameters = {name: p.detach().requires_grad_() for name, p in function.parameters.items()}
    with torch.enable_grad():
        outputs = function(parameters, x)
        if not y.is_floating_point() and int(y.max()) >= outputs.shape[1]:  # perhaps ids, of which one-hot rows have no room
            return {}
        columns = targets_of(y, outputs.shape[1]).to(outputs)
        if columns.shape != outputs.shape:
            return {}
        loss = (outputs - columns).square().sum() / (2 * len(x))
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    found: dict[str, float] = {}
    for name, gradient in zip(parameters, gradients, strict=True):
        layer = name.rpartition(".")[0]
        square = 0.0 if gradient is None else rates[name] * float(gradient.double().square().sum())
        found[layer] = found.get(layer, 0.0) + square
    return found
