"""The geometry of a code: its dimensions, how evenly they are used, and how the decoder stretches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.autoencoder.argument import check_maps, check_samples, check_sizes, reading
from lazyrich.autoencoder.derivative import derivatives
from lazyrich.autoencoder.evaluated import evaluated
from lazyrich.errors import AutoencoderError


@dataclass(frozen=True)
class Stretch:
    """How a decoder maps small steps in the code, at each sample.

    A code of k numbers has k singular values; where it is wider than what the decoder returns, those beyond are zero.

    Attributes:
        largest: largest singular value of dg/dz, (samples,).
        smallest: smallest one of the k.
        volume: (1/k) sum of their logarithms; minus infinity where one is zero.
    """

    largest: Tensor
    smallest: Tensor
    volume: Tensor

    @property
    def condition(self) -> float:
        """Geometric mean over samples of largest / smallest; infinite where a direction of the code does nothing."""
        ratio = torch.where(self.smallest > 0, self.largest / self.smallest, torch.inf)
        return float(ratio.log().mean().exp())


def codes(encoder: nn.Module, x: Tensor) -> Tensor:
    """Codes of (N, ...) inputs, (N, k), in evaluation mode; the means of an encoder that returns more than the code.

    Raises:
        AutoencoderError: for an encoder that is no map, or does not read x.

    Example:
        >>> codes(nn.Linear(6, 2), torch.zeros(4, 6)).shape
        torch.Size([4, 2])
    """
    check_maps(encoder=encoder)
    with torch.no_grad(), evaluated(encoder), reading(encoder, x):
        code = encoder(x)
    return (code[0] if isinstance(code, tuple) else code).flatten(1)


def stretch(decoder: nn.Module, z: Tensor) -> Stretch:
    """Singular values of the decoder's Jacobian, the roots of the pull-back metric J^T J of the code; in evaluation mode.

    Arvanitidis, Hansen & Hauberg 2018 (arXiv:1710.11379).

    Raises:
        AutoencoderError: for codes that are not (samples, k), none, or not finite, and a decoder that does not read them.

    Example:
        >>> layer = nn.Linear(2, 3, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        >>> round(stretch(layer, torch.zeros(4, 2)).condition, 5)
        2.0
    """
    if not isinstance(z, Tensor) or z.dim() != 2:
        raise AutoencoderError(f"got codes {_said(z)}, expected (samples, k)")
    check_samples(z, "z")
    check_maps(decoder=decoder)

    def one(code: Tensor) -> Tensor:
        return decoder(code.unsqueeze(0)).flatten()

    with evaluated(decoder):
        with torch.no_grad(), reading(decoder, z, "decoder"):
            decoder(z[:1])  # what does not fit is said here: below, torch would speak of its own transforms
        slopes = derivatives(one, z)
    values = torch.linalg.svdvals(slopes)
    values = nn.functional.pad(values, (0, z.shape[1] - values.shape[1]))  # directions beyond the outputs are lost
    return Stretch(values[:, 0], values[:, -1], values.log().mean(1))


def used(z: Tensor, floor: float = 1e-3) -> int:
    """Directions of the code with more than ``floor`` of its largest variance.

    Raises:
        AutoencoderError: for codes that are not (samples, k), none, or not finite.

    Example:
        >>> used(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.0]]))
        1
    """
    if not isinstance(z, Tensor) or z.dim() != 2 or not z.numel():
        raise AutoencoderError(f"got codes {_said(z)}, expected (samples, k) with at least one of each")
    check_samples(z, "z")
    check_sizes(floor=floor)
    values = torch.linalg.svdvals((z - z.mean(0)).double()).square()
    return int((values > floor * values[0]).sum())


def _said(z: Any) -> str:
    return f"of shape {tuple(z.shape)}" if isinstance(z, Tensor) else f"of type {type(z).__name__}"
