"""What the networks of a study are trained to do."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lazyrich.autoencoder.argument import check_sizes
from lazyrich.autoencoder.noise import noisy
from lazyrich.autoencoder.variational import objective


@dataclass(frozen=True)
class Task:
    """What the networks are trained to do beside returning their inputs.

    Attributes:
        noise: standard deviation of noise on the inputs (denoising).
        masked: part of the inputs that is set to zero.
        beta: weight of the code's rate in a variational autoencoder's objective.
        free_bits: nats a latent that cost nothing.
        warm_up: steps in which beta rises evenly, from beta / warm_up in the first of them.
    """

    noise: float = 0.0
    masked: float = 0.0
    beta: float = 1.0
    free_bits: float = 0.0
    warm_up: int = 0

    @property
    def variational(self) -> bool:
        """Whether something is asked that only a variational autoencoder has."""
        return (self.beta, self.free_bits, self.warm_up) != (1.0, 0.0, 0)

    def __post_init__(self) -> None:
        check_sizes(noise=self.noise, masked=self.masked)  # by the names that they were given under
        noisy(lambda step: (torch.zeros(0), torch.zeros(0)), self.noise, self.masked)  # both refuse what is out of range
        objective(self.beta, self.free_bits, self.warm_up)
