"""The variational autoencoder: its objective with beta, free bits and warm-up, importance-weighted bounds, and its collapse.

Kingma & Welling 2014 (arXiv:1312.6114); beta: Higgins et al. 2017; free bits: Kingma et al. 2016 (arXiv:1606.04934);
importance-weighted bound: Burda, Grosse & Salakhutdinov 2016 (arXiv:1509.00519).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lazyrich.amount import real
from lazyrich.autoencoder.argument import check_modules, check_samples, check_sizes, count, reading
from lazyrich.autoencoder.evaluated import evaluated
from lazyrich.autoencoder.pair import Pair
from lazyrich.errors import AutoencoderError
from lazyrich.family.zoo.mlp import MLP

ACTIVE = 0.01  # variance over the data from which on the posterior mean of a latent counts as active (Burda et al. 2016)

WRAP = (
    "lazyrich.autoencoder.Vae; join yours as Vae(encoder, decoder), with an encoder that returns means and log-variances "
    "side by side, torch.cat([mean, log_variance], 1)"
)


class Vae(nn.Module):
    """An encoder that gives means and log-variances of k latents, and a decoder.

    In training mode the latent is drawn, z = mu + s eps; in evaluation mode it is mu.

    Args:
        encoder: (samples, ...) to (samples, 2 k), means first.
        decoder: (samples, k) to as many numbers as the inputs have.
        noise: decoder variance sigma^2 of the Gaussian likelihood; None learns it, as one number ``log_noise``.
        likelihood: "gaussian" or "bernoulli" (decoder outputs are logits, and what is modelled lies in [0, 1]).

    Raises:
        AutoencoderError: for halves that are no modules, another likelihood, or a noise that is not positive.

    Example:
        >>> vae = Vae(nn.Linear(6, 4), nn.Linear(2, 6), noise=0.5)
        >>> vae(torch.zeros(3, 6)).reconstruction.shape
        torch.Size([3, 6])
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, noise: float | None = 1.0, likelihood: str = "gaussian") -> None:
        super().__init__()
        if likelihood not in ("gaussian", "bernoulli"):
            raise AutoencoderError(f"got likelihood '{likelihood}', expected gaussian or bernoulli")
        if noise is not None and not 0 < real(noise) < math.inf:
            raise AutoencoderError(f"got noise = {noise!r}, expected a positive variance, or None to learn it")
        check_modules(encoder=encoder, decoder=decoder)
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        value = torch.tensor(0.0 if noise is None else math.log(noise))
        if noise is None:
            self.log_noise = nn.Parameter(value)
        else:
            self.register_buffer("log_noise", value)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances of q(z | x), (samples, k) each."""
        code = self.encoder(x).flatten(1)
        if code.shape[1] % 2:
            raise AutoencoderError(
                f"the encoder gives {code.shape[1]} numbers a sample, expected 2 k: means, then log-variances"
            )
        mean, log_variance = code.chunk(2, dim=1)
        return mean, log_variance

    def forward(self, x: Tensor) -> Variational:
        """Everything that the objective needs, for (samples, ...) inputs."""
        mean, log_variance = self.posterior(x)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        return Variational(self.decoder(z).flatten(1), mean, log_variance, self.log_noise, self.likelihood)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x | z) in nats a sample, for latents (..., k) that broadcast over samples."""
        out = self.decoder(z.flatten(0, -2)).reshape(*z.shape[:-1], -1)
        return _log_likelihood(out, x.flatten(1), self.log_noise, self.likelihood)


class Means(nn.Module):
    """The encoder of a variational autoencoder as a plain one: the means of its posterior."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """(samples, ...) to (samples, k)."""
        return self.encoder(x).flatten(1).chunk(2, dim=1)[0]


class Probabilities(nn.Module):
    """The decoder of a Bernoulli autoencoder as a plain one: the means of its likelihood, in [0, 1], where it gives logits."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        """(samples, k) to means of the decoder's shape."""
        return self.decoder(z).sigmoid()


def vae(width: int, inputs: int = 64, code: int = 8, depth: int = 1) -> Vae:
    """A variational autoencoder of tanh layers that learns its noise; of depth 0 a linear one.

    Raises:
        AutoencoderError: for what is no count.

    Example:
        >>> vae(16)(torch.zeros(3, 64)).mean.shape
        torch.Size([3, 8])
    """
    width, inputs, code = count(width, "width"), count(inputs, "inputs"), count(code, "code")
    depth = count(depth, "depth", 0)
    return Vae(MLP(width, depth, inputs, 2 * code), MLP(width, depth, code, inputs), noise=None)


def plain(model: nn.Module) -> nn.Module:
    """A model as a deterministic autoencoder: of a variational one its means, sharing its tensors; any other as it is.

    Means of the posterior, and of the likelihood: a Bernoulli decoder's probabilities, not its logits.

    Example:
        >>> plain(vae(16))(torch.zeros(3, 64)).shape
        torch.Size([3, 64])
    """
    if not isinstance(model, Vae):
        return model
    return Pair(Means(model.encoder), Probabilities(model.decoder) if model.likelihood == "bernoulli" else model.decoder)


@dataclass(frozen=True)
class Variational:
    """What a ``Vae`` returns; ``objective`` makes a loss of it."""

    reconstruction: Tensor
    mean: Tensor
    log_variance: Tensor
    log_noise: Tensor
    likelihood: str

    @property
    def rates(self) -> Tensor:
        """KL(q(z_j | x) || N(0, 1)) = (mu^2 + s^2 - 1 - log s^2) / 2, (samples, k), in nats."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance)

    def distortion(self, x: Tensor) -> Tensor:
        """-log p(x | z), (samples,), in nats."""
        return -_log_likelihood(self.reconstruction, x.flatten(1), self.log_noise, self.likelihood)


def _log_likelihood(out: Tensor, x: Tensor, log_noise: Tensor, likelihood: str) -> Tensor:
    if likelihood == "bernoulli":
        refuse_impossible(x, likelihood)
        return -F.binary_cross_entropy_with_logits(out, x.expand_as(out), reduction="none").sum(-1)
    error = (out - x).square() * torch.exp(-log_noise)
    return -0.5 * (error + log_noise + math.log(2 * math.pi)).sum(-1)


def refuse_impossible(x: Tensor, likelihood: str, what: str = "values") -> None:
    """Refuses what a likelihood cannot give: outside [0, 1] the Bernoulli one exceeds one and grows without bound.

    Raises:
        AutoencoderError: for such values.

    Example:
        >>> refuse_impossible(torch.tensor([0.0, 0.5, 1.0]), "bernoulli")
    """
    if likelihood != "bernoulli" or not x.numel():
        return
    low, high = (float(v) for v in x.aminmax())
    if not (low >= 0 and high <= 1):
        raise AutoencoderError(
            f"got {what} from {low:g} to {high:g} for a bernoulli likelihood, expected them in [0, 1]; rescale them, "
            "(x - x.min()) / (x.max() - x.min()), or take Vae(..., likelihood='gaussian')"
        )


def objective(beta: float = 1.0, free_bits: float = 0.0, warm_up: int = 0) -> Callable[[Variational, Tensor], Tensor]:
    """The negative ELBO in nats a sample, distortion + beta_t sum_j max(free_bits, KL_j), as a loss of ``train``.

    KL_j is averaged over the batch before free bits are taken (Kingma et al. 2016). With ``warm_up`` steps, beta_t =
    beta min(1, t / warm_up) in step t = 1, 2, ..., one call one step: make one loss for one run.

    Raises:
        AutoencoderError: for a beta, free bits or a warm-up that is negative or not finite.

    Example:
        >>> vae = Vae(nn.Linear(6, 4), nn.Linear(2, 6))
        >>> objective(beta=2.0)(vae(torch.zeros(3, 6)), torch.zeros(3, 6)).shape
        torch.Size([])
    """
    check_sizes(beta=beta, free_bits=free_bits, warm_up=warm_up)
    calls = 0

    def negative_elbo(found: Variational, x: Tensor) -> Tensor:
        nonlocal calls
        if not isinstance(found, Variational):
            raise AutoencoderError(f"got a {type(found).__name__} to take the objective of, expected the output of a {WRAP}")
        calls += found.reconstruction.requires_grad
        weight = beta * min(1.0, calls / warm_up) if warm_up else beta
        rate = found.rates.mean(0).clamp_min(free_bits).sum()
        return found.distortion(x).mean() + weight * rate

    return negative_elbo


@torch.no_grad()
def importance_bound(vae: Vae, x: Tensor, samples: int = 100, seed: int = 0) -> Tensor:
    """Log (1/K) sum_k p(x, z_k) / q(z_k | x), z_k ~ q, (N,), in nats: a lower bound that rises with K (Burda et al. 2016).

    In evaluation mode; the network is left in the mode that it had.

    Raises:
        AutoencoderError: for no samples, a network that is no ``Vae``, or inputs that it does not read.

    Example:
        >>> importance_bound(Vae(nn.Linear(6, 4), nn.Linear(2, 6)), torch.zeros(3, 6), samples=5).shape
        torch.Size([3])
    """
    samples, seed = count(samples, "samples"), count(seed, "seed", 0)
    _refuse_others(vae)
    with evaluated(vae):
        return _bound(vae, x, samples, seed)


def _bound(vae: Vae, x: Tensor, samples: int, seed: int) -> Tensor:
    mean, log_variance = _posterior(vae, x)
    noise = torch.randn((samples, *mean.shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(mean)
    z = mean + noise * (0.5 * log_variance).exp()
    prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    posterior = -0.5 * (noise.square() + log_variance + math.log(2 * math.pi)).sum(-1)
    weight = vae.log_likelihood(x, z) + prior - posterior
    return weight.logsumexp(0) - math.log(samples)


def _refuse_others(model: nn.Module) -> None:
    """A network of one's own may stand in for a ``Vae`` if it has its two methods."""
    if not (hasattr(model, "posterior") and hasattr(model, "log_likelihood")):
        raise AutoencoderError(f"got a {type(model).__name__}, expected a {WRAP}")


def _posterior(vae: Vae, x: Tensor) -> tuple[Tensor, Tensor]:
    with reading(getattr(vae, "encoder", vae), check_samples(x, floating=False)):
        return vae.posterior(x)


@dataclass(frozen=True)
class Collapse:
    """Which latents a VAE uses.

    Attributes:
        rates: mean KL by latent, in nats.
        spread: variance over the data of the posterior mean, by latent.
    """

    rates: Tensor
    spread: Tensor

    @property
    def active(self) -> int:
        """Latents whose posterior mean varies over the data by more than 0.01."""
        return int((self.spread > ACTIVE).sum())

    @property
    def sentence(self) -> str:
        """What it means and what to do."""
        k = len(self.rates)
        used = f"{self.active} of {k} latents are used, {float(self.rates.sum()):.3g} nats a sample in all"
        if self.active == k:
            return f"{used}: nothing has collapsed."
        if self.active == 0:
            return f"{used}: the posterior has collapsed; lower beta or the decoder's noise, warm beta up, or give free bits."
        return f"{used}; the others pay for nothing at this noise: lower beta or the noise to use more."


@torch.no_grad()
def collapse(vae: Vae, x: Tensor) -> Collapse:
    """Rates and spreads of every latent on data, in evaluation mode; the network is left in the mode that it had.

    Raises:
        AutoencoderError: for a single sample, a network that is no ``Vae``, or inputs that it does not read.

    Example:
        >>> collapse(Vae(nn.Linear(6, 4), nn.Linear(2, 6)), torch.zeros(3, 6)).active
        0
    """
    _refuse_others(vae)
    check_samples(x, "x", 2, floating=False)
    with evaluated(vae):
        mean, log_variance = _posterior(vae, x)
    rates = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return Collapse(rates.mean(0), mean.var(0))
