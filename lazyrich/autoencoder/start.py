"""Starts of an autoencoder: what is done to a network that its plan has built, before it is trained.

Every start keeps the standard deviation that the plan gave each tensor, so it changes how weights are related and not how they
scale. A new one is a function ``(model, x, seed) -> None`` in ``STARTS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lazyrich.autoencoder.linear import principal
from lazyrich.autoencoder.mirror import as_matrix, mirrored, weight_of
from lazyrich.errors import AutoencoderError

SAMPLES = 2000  # that principal directions are taken from
Start = Callable[[nn.Module, Tensor, int], None]


def default(model: nn.Module, x: Tensor, seed: int) -> None:
    """What the plan drew.

    Example:
        >>> default(nn.Linear(2, 2), torch.zeros(1, 2), 0)
    """


def transposed(correlation: float = 1.0) -> Start:
    """Every weight of the decoder is drawn correlated with the transpose of its mirror image in the encoder.

    W_dec = std_dec (rho U^T + sqrt(1 - rho^2) Z), U the encoder's weight and Z the decoder's own draw, both of unit size: at the
    start the product around the bottleneck has an eigenvalue of order rho, where independent draws have rho ~ n^(-1/2).

    Raises:
        AutoencoderError: for a correlation outside [-1, 1], or halves that are no mirror images.

    Example:
        >>> import lazyrich as lzr
        >>> from lazyrich.autoencoder import mirrors
        >>> net = lzr.zoo.autoencoder(64)
        >>> transposed(0.5)(net, torch.zeros(1, 64), 0)
        >>> [round(m.weight, 1) for m in mirrors(net, torch.randn(20, 64))]
        [0.5, 0.5]
    """
    if not -1 <= correlation <= 1:
        raise AutoencoderError(f"got correlation = {correlation}, expected one in [-1, 1]")

    @torch.no_grad()
    def start(model: nn.Module, x: Tensor, seed: int) -> None:
        for encoder, decoder in _weights(model):
            size = decoder.square().mean().sqrt()
            copy, own = (m / m.square().mean().sqrt() for m in (as_matrix(encoder).T, as_matrix(decoder, turned=True)))
            _set(decoder, size * (correlation * copy + math.sqrt(1 - correlation**2) * own))

    return start


@torch.no_grad()
def inverse(model: nn.Module, x: Tensor, seed: int) -> None:
    """Every weight of the decoder points along the pseudo-inverse of its mirror image, at its own size.

    Example:
        >>> import lazyrich as lzr
        >>> net = lzr.zoo.autoencoder(64)
        >>> inverse(net, torch.zeros(1, 64), 0)
        >>> u, v = net.encoder.readout.weight.double(), net.decoder.hidden[0].weight.double()
        >>> bool(((u @ v) / (u @ v).trace() * 8 - torch.eye(8)).abs().max() < 1e-4)
        True
    """
    for encoder, decoder in _weights(model):
        back = torch.linalg.pinv(as_matrix(encoder).double()).to(decoder)
        _set(decoder, back * decoder.square().mean().sqrt() / back.square().mean().sqrt())


@torch.no_grad()
def orthogonal(model: nn.Module, x: Tensor, seed: int) -> None:
    """Every matrix has equal singular values, at its own size (Saxe, McClelland & Ganguli 2014).

    Example:
        >>> net = nn.Linear(4, 4)
        >>> orthogonal(net, torch.zeros(1, 4), 0)
        >>> values = torch.linalg.svdvals(net.weight)
        >>> bool(torch.allclose(values, values[:1].expand(4)))
        True
    """
    for weight in model.parameters():
        if weight.dim() > 1:
            u, _, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            made = (u @ v).reshape(weight.shape)
            weight.copy_(made * weight.square().mean().sqrt() / made.square().mean().sqrt())


@torch.no_grad()
def cascading(model: nn.Module, x: Tensor, seed: int) -> None:
    """The encoder's weights keep the data's first principal directions, layer by layer; the decoder is its transpose.

    From the input on, each weight of the encoder is split along the principal directions of what enters it: the first k (k the
    size of the code) are kept at the weight's own size, the rest is drawn as it was.

    Example:
        >>> import lazyrich as lzr
        >>> cascading(lzr.zoo.autoencoder(32), torch.randn(100, 64), 0)
    """
    pairs = mirrored(model)
    modules = dict(model.named_modules())
    code = weight_of(modules[pairs[-1][0]]).shape[0]
    for encoder, _ in pairs:
        weight = weight_of(modules[encoder])
        seen: list[Tensor] = []
        hook = modules[encoder].register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].flatten(1)))
        model(x[:SAMPLES])
        hook.remove()
        if seen[0].shape[1] != weight[0].numel():
            raise AutoencoderError(f"'{encoder}' is no dense layer; a start from principal directions wants dense layers")
        basis = principal(seen[0]).directions[:code]
        turned = weight @ basis.T @ basis
        weight.copy_(turned * weight.square().mean().sqrt() / turned.square().mean().sqrt())
    transposed()(model, x, seed)


STARTS: dict[str, Start] = {
    "default": default,
    "transposed": transposed(),
    "half": transposed(0.5),
    "inverse": inverse,
    "orthogonal": orthogonal,
    "cascading": cascading,
}


def start_for(name: str) -> Start:
    """A start by its name, ``transposed(0.3)`` for other correlations.

    Raises:
        AutoencoderError: for a name that is not known.

    Example:
        >>> start_for("orthogonal") is orthogonal
        True
    """
    if name in STARTS:
        return STARTS[name]
    word, _, rest = name.partition("(")
    if word == "transposed" and rest.endswith(")"):
        try:
            return transposed(float(rest[:-1]))
        except ValueError:
            pass
    raise AutoencoderError(f"got start '{name}', expected one of {', '.join(STARTS)}, or transposed(0.3)")


def _weights(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Weights of mirrored pairs, from the outside in."""
    modules = dict(model.named_modules())
    return [(weight_of(modules[a]), weight_of(modules[b])) for a, b in mirrored(model)]


def _set(weight: Tensor, matrix: Tensor) -> None:
    weight.copy_(matrix if weight.dim() == 2 else matrix.T.reshape(weight.shape))
