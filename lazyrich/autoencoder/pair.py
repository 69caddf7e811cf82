"""An autoencoder as two halves: any encoder, any decoder that takes what it gives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.autoencoder.argument import check_modules, check_samples
from lazyrich.autoencoder.evaluated import evaluated
from lazyrich.errors import AutoencoderError

VARIATIONAL = (
    "; a variational autoencoder is given as lazyrich.autoencoder.Vae(encoder, decoder), whose encoder returns means and "
    "log-variances side by side"
)


class Pair(nn.Module):
    """Any encoder and decoder, one after the other.

    Raises:
        AutoencoderError: for halves that are no modules.

    Example:
        >>> Pair(nn.Linear(6, 2), nn.Linear(2, 6))(torch.zeros(4, 6)).shape
        torch.Size([4, 6])
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        check_modules(encoder=encoder, decoder=decoder)
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct (samples, ...) inputs."""
        return self.decoder(self.encoder(x))


def halves(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The encoder and the decoder of a model that holds both under these names, as modules.

    Raises:
        AutoencoderError: if it does not.

    Example:
        >>> encoder, decoder = halves(Pair(nn.Linear(6, 2), nn.Linear(2, 6)))
        >>> encoder.out_features, decoder.in_features
        (2, 2)
    """
    encoder, decoder = getattr(model, "encoder", None), getattr(model, "decoder", None)
    if not (isinstance(encoder, nn.Module) and isinstance(decoder, nn.Module)):
        check_modules(model=model)
        raise AutoencoderError(_no_halves(model))
    return encoder, decoder


def _no_halves(model: nn.Module) -> str:
    """Tied weights are often written with a method for a decoder; a method holds no tensors that could be looked at."""
    for name in ("encoder", "decoder"):
        half = getattr(model, name, None)
        if callable(half) and not isinstance(half, nn.Module):
            return (
                f"got a {type(model).__name__} whose {name} is a {type(half).__name__}, expected a module; for tied weights "
                "give two modules that hold one tensor, as lazyrich.zoo.tied_autoencoder does"
            )
    children = ", ".join(name for name, _ in model.named_children()) or "none"
    return (
        f"got a {type(model).__name__} with the parts {children}, expected the modules 'encoder' and 'decoder'; join yours "
        "by lazyrich.autoencoder.Pair(encoder, decoder)"
    )


@torch.no_grad()
def fit(model: nn.Module, x: Tensor, wide: bool = False) -> tuple[int, int]:
    """Size of the code and of the inputs, once encoder, decoder and data are known to fit.

    Args:
        model: with ``encoder`` and ``decoder``.
        x: samples.
        wide: whether the code may be wider than the data: for tasks that the identity does not solve, such as denoising.

    Raises:
        AutoencoderError: if the decoder does not take what the encoder gives, the model returns more than a reconstruction or
            another size than the inputs', or the code is wider than the data.

    Example:
        >>> fit(Pair(nn.Linear(6, 2), nn.Linear(2, 6)), torch.zeros(4, 6))
        (2, 6)
    """
    encoder, decoder = halves(model)
    few = check_samples(x, floating=False)[:2]
    with evaluated(model):
        code = _tried(encoder, few, "encoder", "the data")
        latent = code[0] if isinstance(code, tuple) else code
        out = _tried(decoder, latent, "decoder", "what the encoder gives", VARIATIONAL)
        whole = _tried(model, few, "model", "the data")
    if not isinstance(whole, Tensor):
        raise AutoencoderError(
            f"the model returns a {type(whole).__name__}, expected the reconstruction alone, a tensor{VARIATIONAL}"
        )
    sizes = [t[0].numel() for t in (latent, few, out)]
    if sizes[2] != sizes[1]:
        raise AutoencoderError(
            f"the decoder returns {sizes[2]} numbers a sample where the data has {sizes[1]}; expected a decoder whose outputs "
            "have the inputs' size"
        )
    if sizes[0] > sizes[1] and not wide:
        raise AutoencoderError(
            f"the code has {sizes[0]} numbers a sample, more than the data's {sizes[1]}; expected a bottleneck: the identity "
            "would be a solution; give a smaller code, or a task that it does not solve, such as denoising (noise or masked)"
        )
    return sizes[0], sizes[1]


@torch.no_grad()
def refuse_shaped(model: nn.Module, x: Tensor) -> None:
    """Refuses reconstructions of another shape than the samples': losses compare entry by entry.

    Raises:
        AutoencoderError: for images where samples are flat, and the other way round; for a forward that returns something else
            than the decoder's output, such as the code.

    Example:
        >>> refuse_shaped(Pair(nn.Linear(6, 2), nn.Linear(2, 6)), torch.zeros(4, 6))
    """
    with evaluated(model):
        shape = tuple(model(x[:2]).shape[1:])
    if math.prod(shape) != x[0].numel():
        raise AutoencoderError(
            f"the model returns samples of shape {shape}, expected {tuple(x.shape[1:])}, that of the inputs; let its forward "
            "return decoder(encoder(x))"
        )
    if shape != tuple(x.shape[1:]):
        mend = "nn.Flatten()" if x.dim() == 2 else f"nn.Unflatten(1, {tuple(x.shape[1:])})"
        raise AutoencoderError(
            f"the decoder returns samples of shape {shape}, expected {tuple(x.shape[1:])}, that of the inputs; end it with {mend}"
        )


def _tried(module: nn.Module, x: Tensor, name: str, given: str, hint: str = "") -> Any:
    try:
        return module(x)
    except (RuntimeError, TypeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint += _of_images(module, x)
        raise AutoencoderError(
            f"the {name} does not take {given}, of shape {tuple(x.shape)} ({said}); expected shapes that fit{hint}"
        ) from error


def _of_images(module: nn.Module, x: Tensor) -> str:
    """Studies hand samples over flat; what to say to a module that begins with a convolution."""
    first = next((part for part in module.modules() if getattr(part, "weight", None) is not None), None)
    if x.dim() != 2 or not isinstance(first, nn.Conv2d):
        return ""
    side = math.isqrt(x.shape[1] // first.in_channels)
    if first.in_channels * side**2 != x.shape[1]:
        return f"; samples are flat, so begin with nn.Unflatten(1, ({first.in_channels}, height, width))"
    return f"; samples are flat, so begin with nn.Unflatten(1, ({first.in_channels}, {side}, {side}))"
