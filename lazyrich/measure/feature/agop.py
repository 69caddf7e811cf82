"""The average gradient outer product of a layer, and the neural feature ansatz (Radhakrishnan et al. 2024, arXiv:2212.13881)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from lazyrich.errors import RAISED, MetricError
from lazyrich.functional import functional_call
from lazyrich.train.refusal import refusal

CHUNK = 32


def agop(model: nn.Module, x: Tensor, layer: str | None = None) -> Tensor:
    """G = E_x [J^T J], J the Jacobian of the outputs in what enters a dense layer, (units, units), in float64.

    Args:
        model: treats samples one by one.
        x: samples.
        layer: path of an ``nn.Linear``; the network's own input by default.

    Raises:
        MetricError: for a path that is no dense layer, samples that the model does not take, and slopes that are not finite.

    Example:
        >>> net = nn.Linear(3, 2, bias=False)
        >>> torch.allclose(agop(net, torch.randn(5, 3)), (net.weight.T @ net.weight).double())
        True
    """
    if not isinstance(x, Tensor) or x.dim() < 1 or len(x) == 0:
        got = f"of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"of type {type(x).__name__}"
        raise MetricError(f"got x {got}, expected a tensor of samples")
    try:
        found = _agop(model, x, layer)
    except RAISED as error:
        raise MetricError(str(refusal("the model does not take the samples", error, inputs=x))) from error
    if not bool(torch.isfinite(found).all()):
        raise MetricError("the outputs' slopes are not finite: training has diverged, or samples are not finite")
    return found


def _agop(model: nn.Module, x: Tensor, layer: str | None) -> Tensor:
    state = {name: t.detach() for name, t in [*model.named_parameters(), *model.named_buffers()]}
    if layer is None:
        slopes = vmap(jacrev(lambda v: functional_call(model, state, (v.unsqueeze(0),)).flatten()), chunk_size=CHUNK)(x)
        rows = slopes.flatten(0, 1).flatten(1).double()
        return (rows.T @ rows / len(x)).detach()
    found = dict(model.named_modules()).get(layer)
    if not isinstance(found, nn.Linear):
        raise MetricError(f"got layer '{layer}', a {type(found).__name__}; expected an nn.Linear of the model")
    # in what leaves the layer, the Jacobian is E; in what enters it, E W
    shift = torch.zeros(found.out_features, dtype=x.dtype, device=x.device)

    def output(move: Tensor, sample: Tensor) -> Tensor:
        hook = found.register_forward_hook(lambda _, args, out: out + move)
        try:
            return functional_call(model, state, (sample.unsqueeze(0),)).flatten()
        finally:
            hook.remove()

    slopes = vmap(jacrev(output), in_dims=(None, 0), chunk_size=CHUNK)(shift, x)
    rows = slopes.flatten(0, 1).double() @ found.weight.detach().double()
    return (rows.T @ rows / len(x)).detach()


def feature_ansatz(model: nn.Module, x: Tensor, layer: str, start: Tensor | None = None, power: float = 1.0) -> float:
    """Cosine of W^T W with G^power at a dense layer; with ``start`` of (W - W_0)^T (W - W_0), which lazy networks want.

    Args:
        model: trained.
        x: samples.
        layer: path of an ``nn.Linear``.
        start: its weight before training.
        power: of the AGOP, 1 or 1/2.

    Example:
        >>> net = nn.Linear(3, 2, bias=False)
        >>> round(feature_ansatz(nn.Sequential(net), torch.randn(5, 3), "0"), 6)
        1.0
    """
    return cosine_of(*ansatz_pair(model, x, layer, start, power))


def ansatz_pair(
    model: nn.Module, x: Tensor, layer: str, start: Tensor | None = None, power: float = 1.0
) -> tuple[Tensor, Tensor]:
    """W^T W, or (W - W_0)^T (W - W_0), and G^power of a dense layer, (units, units) each.

    Example:
        >>> [m.shape for m in ansatz_pair(nn.Sequential(nn.Linear(3, 2)), torch.randn(5, 3), "0")]
        [torch.Size([3, 3]), torch.Size([3, 3])]
    """
    g = agop(model, x, layer)
    if power != 1.0:
        values, vectors = torch.linalg.eigh(g)
        g = vectors * values.clamp_min(0) ** power @ vectors.T
    weight = dict(model.named_modules())[layer].weight
    assert isinstance(weight, Tensor)
    w = weight.detach().double() - (0 if start is None else start.detach().double())
    return w.T @ w, g


def cosine_of(a: Tensor, b: Tensor) -> float:
    """<A, B> / (||A|| ||B||).

    Raises:
        MetricError: if one of them is zero.

    Example:
        >>> round(cosine_of(torch.eye(2), 3 * torch.eye(2)), 6)
        1.0
    """
    scale = float(a.norm() * b.norm())
    if scale == 0:
        raise MetricError("the layer's weight has not moved, or the outputs do not depend on it")
    return float((a * b).sum() / (a.norm() * b.norm()))
