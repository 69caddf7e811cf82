"""Encoder against decoder: mirrored layers, how far one's weights are the other's transposed, and what their features share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lazyrich.autoencoder.pair import halves
from lazyrich.errors import AutoencoderError
from lazyrich.tangent.alignment import target_alignment
from lazyrich.tangent.features import features


@dataclass(frozen=True)
class Mirror:
    """A layer of the encoder and the one of the decoder that undoes it.

    Attributes:
        encoder: path of the layer.
        decoder: path of its mirror image.
        weight: cosine of the decoder's weight and the encoder's transposed one; of order 1/sqrt(entries) where they are
            independent; None where one of them is zero.
        angle: largest principal angle between the decoder's column space and the encoder's row space, in radians; of the
            smaller space with the larger one; None as for the weight.
        correlation: unbiased linear CKA of what enters the encoder's layer and what its mirror returns.
    """

    encoder: str
    decoder: str
    weight: float | None
    angle: float | None
    correlation: float | None


def mirrored(model: nn.Module) -> list[tuple[str, str]]:
    """Pairs (encoder layer, decoder layer) whose weights have transposed shapes, from the outside in.

    Raises:
        AutoencoderError: if encoder and decoder have different numbers of weights, or shapes that are no mirror images.

    Example:
        >>> import lazyrich as lzr
        >>> mirrored(lzr.zoo.autoencoder(32))
        [('encoder.hidden.0', 'decoder.readout'), ('encoder.readout', 'decoder.hidden.0')]
    """
    encoder, decoder = (_weights(half) for half in halves(model))
    pairs = list(zip(encoder.items(), reversed(list(decoder.items())), strict=False))
    fits = all(as_matrix(a).shape == as_matrix(b, turned=True).T.shape for (_, a), (_, b) in pairs)
    if len(encoder) != len(decoder) or not fits:
        shapes = [{name: tuple(w.shape) for name, w in half.items()} for half in (encoder, decoder)]
        raise AutoencoderError(f"encoder and decoder are no mirror images: {shapes[0]} against {shapes[1]}")
    return [(f"encoder.{a}".rstrip("."), f"decoder.{b}".rstrip(".")) for (a, _), (b, _) in pairs]


def mirrors(model: nn.Module, x: Tensor) -> list[Mirror]:
    """Every mirrored pair on data, from the outside in.

    Example:
        >>> import lazyrich as lzr
        >>> outer, inner = mirrors(lzr.zoo.autoencoder(32), torch.randn(20, 64))
        >>> abs(outer.weight) < 0.2
        True
    """
    pairs = mirrored(model)
    modules = dict(model.named_modules())
    given = _inputs(model, x, [encoder for encoder, _ in pairs])
    returned = features(model, x, [decoder for _, decoder in pairs])
    found = []
    for encoder, decoder in pairs:
        a, b = as_matrix(weight_of(modules[encoder])), as_matrix(weight_of(modules[decoder]), turned=True)
        shared = _cka(given[encoder].flatten(1), returned[decoder].flatten(1))
        found.append(Mirror(encoder, decoder, cosine(b, a.T), _angle(b, a.T), shared))
    return found


def cosine(a: Tensor, b: Tensor) -> float | None:
    """<A, B> / (||A|| ||B||) of matrices of one shape; None where one of them is zero.

    Example:
        >>> cosine(torch.eye(2), 3 * torch.eye(2))
        1.0
    """
    a, b = a.detach().double(), b.detach().double()
    scale = float(a.norm() * b.norm())
    return float((a * b).sum()) / scale if scale > 0 else None


def _angle(a: Tensor, b: Tensor) -> float | None:
    """Largest principal angle between column spaces, of the smaller with the larger."""
    if not (bool(a.any()) and bool(b.any())):
        return None
    p, q = (torch.linalg.qr(m.detach().double()).Q for m in (a, b))
    return float(torch.arccos(torch.linalg.svdvals(p.T @ q).clamp(max=1.0)[: min(p.shape[1], q.shape[1])].min()))


def _cka(a: Tensor, b: Tensor) -> float | None:
    if len(a) < 4 or float(a.var(0).sum()) == 0 or float(b.var(0).sum()) == 0:
        return None
    a, b = a.double(), b.double()
    return target_alignment(a @ a.T, b, "unbiased")


def _weights(half: nn.Module) -> dict[str, Tensor]:
    found = {path: getattr(module, "weight", None) for path, module in half.named_modules()}
    return {path: weight for path, weight in found.items() if isinstance(weight, Tensor) and weight.dim() > 1}


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a layer that has one."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def as_matrix(weight: Tensor, turned: bool = False) -> Tensor:
    """The matrix of a weight, (out, in times kernel); of a transposed convolution, which holds (in, out, kernel), ``turned``.

    Example:
        >>> as_matrix(torch.zeros(4, 3, 5, 5)).shape, as_matrix(torch.zeros(4, 3, 5, 5), turned=True).shape
        (torch.Size([4, 75]), torch.Size([75, 4]))
    """
    if weight.dim() <= 2:
        return weight
    return weight.flatten(1).T if turned else weight.flatten(1)


def _inputs(model: nn.Module, x: Tensor, paths: list[str]) -> dict[str, Tensor]:
    """What enters each layer, in evaluation mode."""
    found: dict[str, Tensor] = {}
    modules, was = dict(model.named_modules()), model.training

    def seen(path: str):  # type: ignore[no-untyped-def]
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            found[path] = args[0].detach()

        return hook

    hooks = [modules[path].register_forward_pre_hook(seen(path)) for path in paths]
    try:
        model.eval()
        with torch.no_grad():
            model(x)
    finally:
        model.train(was)
        for hook in hooks:
            hook.remove()
    return found
