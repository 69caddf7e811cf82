"""What a layer's neurons are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Start:
    """Entries of variance one of the tensors whose own law stays in the limit, for S neurons.

    Sums over a width are Gaussian whatever the entries' law. Not so a first layer, whose sums run over few inputs, biases,
    and a readout, which each neuron meets once.

    Attributes:
        first: (S, d), weights of the first layer.
        biases: (S,) a hidden layer; None where there are none.
        readout: (C, S).
    """

    first: Tensor
    biases: tuple[Tensor | None, ...]
    readout: Tensor


Starts = Callable[[int, int], Start]  # (neurons, seed)


class Noise:
    """Samples of mean 0 and variance 1, uncorrelated with those before; linear networks are then exact.

    Example:
        >>> noise = Noise(torch.zeros(1, dtype=torch.float64), samples=500, seed=0)
        >>> one, two = noise.draw(), noise.draw(torch.arange(500.0))
        >>> abs(float((one * two).mean())) < 1e-12, round(float(two.square().mean()), 9)
        (True, 1.0)
    """

    def __init__(self, like: Tensor, samples: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.samples, self.like = samples, like
        self.known = [torch.ones(samples, dtype=like.dtype, device=like.device) / samples**0.5]

    def draw(self, given: Tensor | None = None) -> Tensor:
        """The next sample, normal or as given, freed of what it has in common with those before."""
        fresh = torch.randn(self.samples, dtype=self.like.dtype, generator=self.generator) if given is None else given
        fresh, block = fresh.to(self.like), torch.stack(self.known)
        for _ in range(2):
            fresh = fresh - (block @ fresh) @ block
        self.known.append(fresh / fresh.norm())
        return self.known[-1] * self.samples**0.5
