"""Dense layers and curves in a row: both passes written out, so that each signal lies where the next product reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyrich.tangent.plain import is_plain


@dataclass(frozen=True)
class DenseLayer:
    """h -> phi(W h + b).

    Attributes:
        names: of the weight and of the bias; None for what does not train, and for no bias.
        weight: W, (O, I).
        bias: b, (O,), or None.
        curves: phi, one module after another.
    """

    names: tuple[str | None, str | None]
    weight: Tensor
    bias: Tensor | None
    curves: list[nn.Module]


def dense_row(model: nn.Module, parameters: Mapping[str, Tensor], x: Tensor) -> list[DenseLayer]:
    """The layers of a network that is torch's own dense layers and curves in a row and takes these vectors; of others none.

    Args:
        model: any module.
        parameters: what trains, by name.
        x: samples (N, I).

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> [layer.names for layer in dense_row(net, dict(net.named_parameters()), torch.ones(5, 3))]
        [('0.weight', '0.bias'), ('2.weight', '2.bias')]
        >>> dense_row(nn.LayerNorm(3), {}, torch.ones(5, 3))
        []
    """
    if x.dim() != 2 or torch.is_autocast_enabled(x.device.type) or not is_plain(model, x):
        return []
    names = {id(p): name for name, p in model.named_parameters() if name in parameters}
    row: list[DenseLayer] = []
    for layer in _in_a_row(model):
        if isinstance(layer, nn.Linear):
            weight, bias = layer.weight, layer.bias
            row.append(DenseLayer((names.get(id(weight)), names.get(id(bias))), weight, bias, []))
        elif row:
            row[-1].curves.append(layer)
        else:
            return []
    return row if _takes(row, x) else []


def _in_a_row(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.Sequential):
        for layer in module:
            yield from _in_a_row(layer)
    else:
        yield module


def _takes(row: Sequence[DenseLayer], x: Tensor) -> bool:
    """Whether each layer takes what the one before it gives, in one precision and place."""
    width = x.shape[1]
    for layer in row:
        given = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        shapes = [(len(layer.weight), width), (len(layer.weight),)][: len(given)]
        if any(p.shape != shape or p.dtype != x.dtype or p.device != x.device for p, shape in zip(given, shapes, strict=True)):
            return False
        width = len(layer.weight)
    return True


@torch.no_grad()
def dense_signals(row: Sequence[DenseLayer], x: Tensor) -> tuple[Tensor, list[tuple[DenseLayer, Tensor, Tensor, Tensor]]]:
    """The outputs f (N, K), and of each layer a_l (N, I) that it reads, z_l = W_l a_l + b_l (N, O), signals df_k/dz_l (N, K, O).

    delta_L = phi_L'(z_L) and delta_l = (delta_(l+1) W_(l+1)) phi_l'(z_l), of all outputs together, down to the first layer that
    trains.

    Example:
        >>> net, x = nn.Linear(2, 1), torch.ones(3, 2)
        >>> f, [(layer, a, z, delta)] = dense_signals(dense_row(net, dict(net.named_parameters()), x), x)
        >>> f.shape, a.shape, delta.flatten().tolist()
        (torch.Size([3, 1]), torch.Size([3, 2]), [1.0, 1.0, 1.0])
    """
    z, h = list[Tensor](), [x]
    for layer in row:
        z.append(F.linear(h[-1], layer.weight, layer.bias))
        h.append(_curved(layer.curves, z[-1]))
    n, k = h[-1].shape
    slopes = _slopes(z, h[1:])
    deltas = [_times(torch.eye(k, dtype=x.dtype, device=x.device).expand(n, k, k), slopes[-1])]
    first = next(i for i, layer in enumerate(row) if any(layer.names))
    for above, slope in zip(row[:first:-1], slopes[-2::-1], strict=False):
        deltas.append(_times(_product(deltas[-1], above.weight), slope))
    h, z = ([t.detach() for t in each] for each in (h, z))
    return h[-1], list(zip(row[first:], h[first:-1], z[first:], deltas[::-1], strict=True))


def _curved(curves: Sequence[nn.Module], z: Tensor) -> Tensor:
    """phi(z), with a graph to z."""
    with torch.enable_grad():
        h = z.requires_grad_(bool(curves))
        for curve in curves:
            h = curve(h)
    return h


def _slopes(z: Sequence[Tensor], h: Sequence[Tensor]) -> list[Tensor | None]:
    """phi'(z) of every layer, entry by entry; None where phi is the identity."""
    curved = [(out, at) for out, at in zip(h, z, strict=True) if out is not at]
    outs, ats = [out for out, _ in curved], [at for _, at in curved]
    found = iter(torch.autograd.grad(outs, ats, [torch.ones_like(out) for out in outs]) if curved else ())
    return [None if out is at else next(found) for out, at in zip(h, z, strict=True)]


def _product(delta: Tensor, weight: Tensor) -> Tensor:
    """Rows (N, K, O) times W (O, I); of rows that are the same for all samples once."""
    n, k, o = delta.shape
    if _alike(delta):
        return (delta[0] @ weight).expand(n, k, -1)
    return (delta.reshape(n * k, o) @ weight).view(n, k, -1)


def _times(delta: Tensor, slope: Tensor | None) -> Tensor:
    """Signals (N, K, O) times slopes (N, O), in place where they have one for each sample."""
    if slope is None:
        return delta
    return delta * slope[:, None] if _alike(delta) else delta.mul_(slope[:, None])


def _alike(delta: Tensor) -> bool:
    return delta.stride(0) == 0
