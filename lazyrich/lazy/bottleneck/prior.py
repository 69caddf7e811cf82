"""The prior of an infinite-width autoencoder with a finite bottleneck: a deep Gaussian process."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from lazyrich.amount import real
from lazyrich.errors import KernelError
from lazyrich.lazy.bottleneck.gauss import generator, normal, root
from lazyrich.lazy.bottleneck.likelihood import LogLikelihood, Posterior, mean_weight, targets_of
from lazyrich.lazy.bottleneck.moment import Measured
from lazyrich.lazy.bottleneck.side import Nonlinearity, Side, behind, counted, gram, inputs, sided, within

PART = 2**22  # entries of Gram matrices held at a time


@dataclass(frozen=True)
class Draws:
    """Draws of the prior.

    Attributes:
        latents: u, (S, N, k).
        outputs: f, (S, N, d).
    """

    latents: Tensor
    outputs: Tensor


class BottleneckPrior:
    """u_j ~ GP(0, K_enc) iid over k latents, f_i | u ~ GP(0, K_dec(u, u')) iid over d outputs.

    The limit of an autoencoder whose layers are all wide but one, which keeps k units, is a composition of Gaussian processes
    and itself none (Agrawal, Papamarkou & Hinkle 2020, arXiv:2001.00921): given u the outputs are independent and Gaussian, but
    they share u. The recursion through the bottleneck gives the covariance of f given u only.

    Args:
        encoder: kernel of the encoder, for one latent.
        decoder: kernel of the decoder, for one output, reading k numbers (its first layer divides by k itself).
        latents: k.
        bottleneck: phi, if the decoder reads phi(u).

    Raises:
        KernelError: for k below one, and for an encoder or a decoder that has no kernels.

    Example:
        >>> class Linear:
        ...     def nngp(self, x1, x2=None):
        ...         return x1 @ (x1 if x2 is None else x2).T / x1.shape[1]
        ...     ntk = nngp
        >>> prior = BottleneckPrior(Linear(), Linear(), latents=2)
        >>> prior.sample(torch.ones(3, 4), outputs=5, draws=7).outputs.shape
        torch.Size([7, 3, 5])
    """

    def __init__(self, encoder: Side, decoder: Side, latents: int, bottleneck: Nonlinearity | None = None) -> None:
        self.encoder, self.decoder = (
            sided(encoder, "the encoder", "nngp"),
            behind(sided(decoder, "the decoder", "nngp"), bottleneck),
        )
        self.latents = counted(latents, "latents")

    def sample(self, x: Tensor, outputs: int, draws: int = 1, seed: int = 0) -> Draws:
        """Draw latents and outputs at the inputs.

        Args:
            x: inputs, (N, ...).
            outputs: d.
            draws: S.
            seed: of the draws.

        Returns:
            Latents (S, N, k) and outputs (S, N, d), float64.

        Raises:
            KernelError: for kernels that are not positive semidefinite or not (N, N).
        """
        rng, n, d = generator(seed), len(x), counted(outputs, "outputs")
        u = self.latents_at(x, draws, rng)
        parts = [root(self.given(part), "the decoder's nngp") @ normal(rng, len(part), n, d) for part in self._parts(u)]
        return Draws(u, torch.cat(parts))

    def given(self, u: Tensor) -> Tensor:
        """K_dec(u, u'), the covariance of one output given each draw of the latents: (S, N, k) -> (S, N, N)."""
        with torch.no_grad():
            return within(self.decoder.nngp, u, "the decoder's nngp")

    def covariance(self, x: Tensor, draws: int = 1000, seed: int = 0) -> Measured:
        """E_u[K_dec(u, u')], the covariance of one output (outputs are uncorrelated, not independent), with its standard error.

        Args:
            x: inputs, (N, ...).
            draws: S, at least two.
            seed: of the draws.

        Returns:
            Value and error, (N, N).
        """
        if counted(draws, "draws") < 2:
            raise KernelError("got one draw, expected at least 2: an error needs two")
        u = self.latents_at(x, draws, generator(seed))
        first = self.given(u[:1])[0]
        total, squares = torch.zeros_like(first), torch.zeros_like(first)
        for part in self._parts(u):
            apart = self.given(part) - first  # sums of small numbers keep their digits
            total, squares = total + apart.sum(0), squares + apart.square().sum(0)
        spread = (squares - total.square() / draws).clamp(min=0) / (draws - 1)
        return Measured(first + total / draws, (spread / draws).sqrt())

    def log_likelihood(
        self, x: Tensor, y: Tensor, noise: float, draws: int = 1000, steps: int = 0, seed: int = 0
    ) -> LogLikelihood:
        """Log p(y) = log E_u N(y; 0, K_dec(u) + s^2 I), by the log of the mean weight over draws.

        With ``steps`` = 0 the weights are the likelihoods of prior draws, enough for few samples or much noise. With T steps
        the draws walk from the prior to the posterior at inverse temperatures (t/T)^4, t = 1..T, by elliptical slice sampling
        (Murray, Adams & MacKay 2010, arXiv:1001.0175), and the weights are those of annealed importance sampling (Neal 2001,
        arXiv:physics/9803008): unbiased for p(y) either way. A step costs a few Cholesky factors a draw.

        Args:
            x: inputs, (N, ...).
            y: targets, (N, d) or (N,), summed over.
            noise: variance s^2 of the targets' noise, above zero.
            draws: S.
            steps: T, 0 for plain draws.
            seed: of the draws.

        Returns:
            The estimate in nats, its error, and how many draws carry it.

        Raises:
            KernelError: for targets that do not fit, and for noise that is not positive.
        """
        if not 0 < real(noise) < float("inf"):
            raise KernelError(
                f"got noise={noise!r}, expected a positive variance: the Gram matrix of k < N latents can be singular"
            )
        if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 0:
            raise KernelError(f"got steps={steps!r}, expected a whole number, 0 for plain draws")
        posterior, rng = Posterior(self.given, targets_of(y, len(x)), noise), generator(seed)
        half, weights = self._root(x), []
        for part in self._parts(self.latents_at(x, draws, rng)):
            weights.append(posterior.anneal(part, half, steps, rng) if steps else posterior.density(part))
        return mean_weight(torch.cat(weights))

    def latents_at(self, x: Tensor, draws: int, rng: torch.Generator) -> Tensor:
        """Latents from a stream of random numbers, (S, N, k)."""
        n, s = len(x), counted(draws, "draws")
        return (self._root(x) @ normal(rng, n, s * self.latents)).reshape(n, s, self.latents).transpose(0, 1)

    def _parts(self, u: Tensor) -> tuple[Tensor, ...]:
        """Draws in parts whose Gram matrices fit into memory together."""
        return u.split(max(1, PART // u.shape[1] ** 2))

    def _root(self, x: Tensor) -> Tensor:
        x = inputs(x)
        with torch.no_grad():
            return root(gram(self.encoder.nngp(x), (len(x), len(x)), "the encoder's nngp"), "the encoder's nngp")
