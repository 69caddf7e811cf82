"""What linear autoencoders learn, exactly: principal subspaces, the probabilistic PCA behind linear VAEs, and the way there.

The squared error of a linear autoencoder with k latents has strict saddles and one family of minima, the span of the first k
principal directions (Baldi & Hornik 1989). A linear VAE with Gaussian noise sigma^2 has the optimum of probabilistic PCA
(Lucas, Tucker, Grosse & Norouzi 2019, arXiv:1911.02469; Tipping & Bishop 1999).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.amount import real
from lazyrich.autoencoder.argument import check_samples, check_sizes, count
from lazyrich.errors import AutoencoderError


@dataclass(frozen=True)
class Principal:
    """Principal directions of data.

    Attributes:
        mean: (size,).
        variances: of the directions, decreasing, (size,); the second moment about the mean, 1/N.
        directions: (size, size), one a row.
    """

    mean: Tensor
    variances: Tensor
    directions: Tensor

    def error(self, k: int) -> float:
        """Least mean squared error of any linear autoencoder with k latents: the sum of the variances left out.

        Raises:
            AutoencoderError: for a k that is no count.

        Example:
            >>> round(principal(torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).error(1), 6)
            0.5
        """
        return float(self.variances[count(k, "k", 0) :].sum())

    def reconstruct(self, x: Tensor, k: int) -> Tensor:
        """The projection of x on the first k directions about the mean."""
        basis = self.directions[: count(k, "k", 0)]
        flat = x.flatten(1) - self.mean
        return (flat @ basis.T @ basis + self.mean).reshape(x.shape)


def principal(x: Tensor) -> Principal:
    """Principal directions and variances of samples (N, ...).

    Raises:
        AutoencoderError: for a single sample, values that are not finite, or data without variance.

    Example:
        >>> principal(torch.tensor([[2.0, 0.0], [-2.0, 0.0]])).variances
        tensor([4.0000, 0.0000])
    """
    flat = check_samples(x, "x", 2).flatten(1)
    if bool((flat == flat[0]).all()):  # of the numbers given: a mean of equal ones may round, and leave a variance
        raise AutoencoderError("all samples are equal, expected data that varies; pass others")
    flat = flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat  # torch decomposes no half precision
    mean = flat.mean(0)
    _, size, rows = torch.linalg.svd(flat - mean, full_matrices=len(flat) < flat.shape[1])  # all directions, few left vectors
    variances = torch.zeros_like(mean)
    variances[: len(size)] = size**2 / len(flat)
    return Principal(mean, variances, rows)


def subspace_angle(a: Tensor, b: Tensor) -> float:
    """Largest principal angle between the row spaces of a and b, in radians.

    Computed from sines as well as cosines, so that small angles keep their digits (Bjorck & Golub 1973).

    Rows may depend on each other: what is compared is what they span.

    Raises:
        AutoencoderError: if the spaces have different dimensions or none, or lie in different ones.

    Example:
        >>> round(subspace_angle(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])) / math.pi, 6)
        0.25
    """
    for name, rows in (("a", a), ("b", b)):
        check_samples(rows, name)
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1]:
        raise AutoencoderError(
            f"got a of shape {tuple(a.shape)} and b of shape {tuple(b.shape)}, expected matrices whose rows have one length; pass "
            "directions of one space, one a row"
        )
    p, q = (_row_space(m) for m in (a, b))
    if p.shape[1] != q.shape[1] or not p.shape[1]:
        raise AutoencoderError(
            f"got row spaces of dimension {p.shape[1]} (a, {len(a)} rows) and {q.shape[1]} (b, {len(b)} rows), expected equal ones "
            "of at least one; give as many independent rows in both"
        )
    sine = torch.linalg.matrix_norm(q - p @ (p.T @ q), ord=2)
    cosine = torch.linalg.svdvals(p.T @ q).min()
    return float(torch.atan2(sine, cosine))


def _row_space(matrix: Tensor) -> Tensor:
    """An orthonormal basis, one vector a column; rows that depend on the others, and zero ones, add none."""
    _, size, rows = torch.linalg.svd(matrix.double(), full_matrices=False)
    floor = size.amax() * max(matrix.shape) * torch.finfo(matrix.dtype).eps
    return rows[size > floor].T


@dataclass(frozen=True)
class LinearVae:
    """The global optimum of a linear beta-VAE with decoder noise sigma^2: x | z ~ N(W z + mean, sigma^2), z ~ N(0, I).

    Attributes:
        variances: of the data's principal directions, decreasing.
        noise: sigma^2.
        beta: weight of the KL term.
        latents: k.

    Raises:
        AutoencoderError: for variances that are none or do not decrease, a noise or a beta that is not positive, or latents that
            are no count.
    """

    variances: Tensor
    noise: float
    beta: float = 1.0
    latents: int | None = None

    def __post_init__(self) -> None:
        check_sizes(above=True, noise=self.noise, beta=self.beta)
        _check_variances(self.variances)
        if self.latents is not None:
            count(self.latents, "latents", 0)

    @property
    def rates(self) -> Tensor:
        """KL of each latent at the optimum: (1/2) log(lambda_j / (beta sigma^2)) above the threshold, else 0.

        For beta = 1, Lucas et al. 2019. With beta the objective is that of noise beta sigma^2 up to scale, hence the threshold
        lambda_j > beta sigma^2.

        Example:
            >>> LinearVae(torch.tensor([3.0, 1.5, 0.8, 0.3]), noise=0.5).rates
            tensor([0.8959, 0.5493, 0.2350, 0.0000])
        """
        kept = self.variances[: self.latents]
        return 0.5 * torch.log((kept / (self.beta * self.noise)).clamp_min(1.0))

    @property
    def active(self) -> int:
        """How many latents are used."""
        return int((self.rates > 0).sum())

    @property
    def posterior_variances(self) -> Tensor:
        """Var(z_j | x) = beta sigma^2 / lambda_j of the latents in use, 1 of the others."""
        return torch.exp(-2 * self.rates)

    @property
    def log_likelihood(self) -> float:
        """Mean log-likelihood of the data under the optimum's model, N(mean, W W^T + sigma^2 I), in nats a sample.

        With beta the decoder learns W W^T = lambda_j - beta sigma^2 in the directions in use, since the objective is that of noise
        beta sigma^2, but its samples have noise sigma^2. At beta = 1 this is probabilistic PCA (Tipping & Bishop 1999): the largest
        likelihood there is with these latents, and the ELBO.

        Example:
            >>> spectrum = torch.tensor([3.0, 1.5, 0.8, 0.3])
            >>> [round(LinearVae(spectrum, 0.5, beta).log_likelihood, 3) for beta in (1.0, 2.0)]
            [-5.77, -5.891]
        """
        size = len(self.variances)
        learnt = (self.variances - self.beta * self.noise).clamp_min(0.0)
        learnt[len(self.rates) :] = 0.0
        model = learnt + self.noise
        return float(-0.5 * (size * math.log(2 * math.pi) + model.log().sum() + (self.variances / model).sum()))


def _check_variances(values: Tensor) -> None:
    """The first k must be the largest: the optimum keeps those."""
    if not isinstance(values, Tensor) or values.dim() != 1 or values.is_complex() or not values.numel():
        got = f"of shape {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)
        raise AutoencoderError(f"got variances {got}, expected a tensor of real numbers, (size,); pass principal(x).variances")
    if not bool((torch.isfinite(values) & (values >= 0)).all()) or bool((values[1:] > values[:-1]).any()):
        raise AutoencoderError(
            f"got variances {values.tolist()[:8]}, expected finite, positive or zero, that decrease; pass principal(x).variances, "
            "or sort yours, variances.sort(descending=True).values"
        )


def linear_course(variances: Tensor, start: float, times: Tensor) -> Tensor:
    """Gain a_j(t) of each principal direction in a two-layer linear autoencoder under gradient flow, (times, directions).

    Loss (1/2) E|x - W2 W1 x|^2 from W1 = W2^T = sqrt(start) R: da_j/dt = 2 lambda_j a_j (1 - a_j), so
    a_j(t) = 1 / (1 + (1/start - 1) e^(-2 lambda_j t)): larger variances are learnt first, each in a time
    log(1/start)/(2 lambda_j) (Saxe, McClelland & Ganguli 2014, arXiv:1312.6120, with targets equal to inputs).

    Raises:
        AutoencoderError: for a start outside (0, 1), and variances or times that are none.

    Example:
        >>> linear_course(torch.tensor([1.0]), 0.5, torch.tensor([0.0])).tolist()
        [[0.5]]
    """
    if not 0 < real(start) < 1:
        raise AutoencoderError(f"got start = {start!r}, expected a gain between 0 and 1")
    for name, values in (("variances", variances), ("times", times)):
        if not isinstance(values, Tensor) or values.dim() != 1 or values.is_complex() or not bool((values >= 0).all()):
            raise AutoencoderError(f"got {name} {values!r}, expected a tensor of one axis with numbers of at least zero")
    return 1 / (1 + (1 / start - 1) * torch.exp(-2 * variances * times[:, None]))
