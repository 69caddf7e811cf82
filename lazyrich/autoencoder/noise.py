"""Denoising: what an autoencoder is shown is disturbed, what it must return is not (Vincent et al. 2008)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lazyrich.amount import real
from lazyrich.autoencoder.argument import check_sizes, count
from lazyrich.errors import AutoencoderError

Batches = Callable[[int], tuple[Tensor, Tensor]]


def noisy(batches: Batches, gaussian: float = 0.0, masked: float = 0.0, seed: int = 0) -> Batches:
    """Batches whose inputs are disturbed and whose targets stay, the same way at every call.

    Args:
        batches: ``batches(step) -> (x, y)``.
        gaussian: standard deviation of noise that is added.
        masked: part of the entries that is set to zero.
        seed: of the noise, with the step.

    Raises:
        AutoencoderError: for a negative deviation or a part outside [0, 1).

    Example:
        >>> x, y = noisy(lambda step: (torch.ones(2, 4), torch.ones(2, 4)), masked=0.5)(0)
        >>> bool((x == 0).any()), bool((y == 1).all())
        (True, True)
    """
    check_sizes(gaussian=gaussian, masked=masked)
    if not real(masked) < 1:
        raise AutoencoderError(f"got masked = {masked}, expected a part below one; what is masked in whole teaches nothing")
    seed = count(seed, "seed", 0)
    if not callable(batches):
        raise AutoencoderError(f"got batches {batches!r}, expected a function of the step; pass lambda step: (x, x)")

    def disturbed(step: int) -> tuple[Tensor, Tensor]:
        x, y = batches(step)
        if not isinstance(x, Tensor):
            raise AutoencoderError(
                f"got batches({step}) whose x is of type {type(x).__name__}, expected tensors; pass torch.as_tensor(x)"
            )
        draw = torch.Generator().manual_seed(1_000_003 * (seed + 1) + step)
        added = gaussian * torch.randn(x.shape, generator=draw).to(x)
        kept = (torch.rand(x.shape, generator=draw) >= masked).to(x)
        return (x + added) * kept, y

    return disturbed
