"""Encoder against decoder: mirrored layers, how far one's weights are the other's transposed, and what their features share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lazyrich.autoencoder.argument import check_samples, reading
from lazyrich.autoencoder.evaluated import evaluated
from lazyrich.autoencoder.pair import halves
from lazyrich.autoencoder.variational import Means, Vae, plain
from lazyrich.autoencoder.weighted import Weighted, weighted
from lazyrich.errors import AutoencoderError
from lazyrich.tangent.alignment import target_alignment
from lazyrich.tangent.features import features


@dataclass(frozen=True)
class Mirror:
    """A layer of the encoder and the one of the decoder that undoes it.

    Attributes:
        encoder: path of the layer.
        decoder: path of its mirror image.
        weight: cosine of the decoder's weight and the encoder's transposed one (of convolutions the adjoint's, whose kernel is
            turned around); of order 1/sqrt(entries) where they are independent; None where one of them is zero.
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
    """Pairs (encoder layer, decoder layer) of which the one's inputs are the other's outputs, from the outside in.

    Raises:
        AutoencoderError: if encoder and decoder have different numbers of weights, or shapes that are no mirror images.

    Example:
        >>> import lazyrich as lzr
        >>> mirrored(lzr.zoo.autoencoder(32))
        [('encoder.hidden.0', 'decoder.readout'), ('encoder.readout', 'decoder.hidden.0')]
    """
    return [(encoder.path, decoder.path) for encoder, decoder in images(model)]


def images(model: nn.Module) -> list[tuple[Weighted, Weighted]]:
    """As ``mirrored``, with the weights themselves; of a variational encoder's last layer, the means' half.

    Example:
        >>> import lazyrich as lzr
        >>> [tuple(encoder.weight.shape) for encoder, _ in images(lzr.autoencoder.vae(32))]
        [(32, 64), (8, 32)]
    """
    halved = halves(model)
    encoder, decoder = weighted(halved[0], "encoder."), weighted(halved[1], "decoder.")
    if encoder and isinstance(model, Vae) | isinstance(halved[0], Means):
        encoder[-1] = encoder[-1].means()
    pairs = list(zip(encoder, reversed(decoder), strict=False))
    unlike = [f"{b} does not undo {a}" for a, b in pairs if not _fit(a, b)]
    if len(encoder) != len(decoder):
        unlike = [f"{len(encoder)} weights ({_listed(encoder)}) against {len(decoder)} ({_listed(decoder)})"]
    if unlike:
        raise AutoencoderError(
            f"encoder and decoder are no mirror images: {unlike[0]}; expected as many layers with weights in both, each of the "
            "decoder with the inputs of its mirror image for outputs and its outputs for inputs: Linear(a, b) against "
            "Linear(b, a), Conv2d(a, b, k) against Conv2d(b, a, k) or ConvTranspose2d(b, a, k)"
        )
    return pairs


def mirrors(model: nn.Module, x: Tensor) -> list[Mirror]:
    """Every mirrored pair on data, from the outside in, in evaluation mode; a variational autoencoder's by its means.

    Raises:
        AutoencoderError: for halves that are no mirror images, or that do not read x.

    Example:
        >>> import lazyrich as lzr
        >>> outer, inner = mirrors(lzr.zoo.autoencoder(32), torch.randn(20, 64))
        >>> abs(outer.weight) < 0.2
        True
    """
    pairs, read = images(model), plain(model)
    inner = [decoder.path for _, decoder in images(read)]  # of a variational network the plain one has parts of other names
    check_samples(x, floating=False)
    with evaluated(read), reading(read, x):
        given = _inputs(read, x, [encoder for encoder, _ in pairs])
        returned = features(read, x, inner)
    found = []
    for (encoder, decoder), path in zip(pairs, inner, strict=True):
        a, b = encoder.matrix(), decoder.matrix(turned=True)
        shared = _cka(given[encoder.path].flatten(1), returned[path].flatten(1))
        found.append(Mirror(encoder.path, decoder.path, cosine(b, a), _angle(b.T, a.T), shared))
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


def _fit(encoder: Weighted, decoder: Weighted) -> bool:
    """Whether the adjoint of one layer has the other's matrix; kernels fit each other, or a dense layer."""
    same = encoder.matrix().shape == decoder.matrix(turned=True).shape
    return same and (encoder.kernel == decoder.kernel or () in (encoder.kernel, decoder.kernel))


def _listed(layers: list[Weighted]) -> str:
    return ", ".join(map(str, layers)) or "none"


def _inputs(model: nn.Module, x: Tensor, layers: list[Weighted]) -> dict[str, Tensor]:
    """What enters each layer."""
    found: dict[str, Tensor] = {}

    def seen(path: str):  # type: ignore[no-untyped-def]
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            found[path] = args[0].detach()

        return hook

    hooks = [layer.module.register_forward_pre_hook(seen(layer.path)) for layer in layers]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found
