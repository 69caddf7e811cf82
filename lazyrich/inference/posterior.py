"""What a Gaussian process believes after it has seen the targets."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.inference.factor import Factor, Jitter, factorise, ridge_of
from lazyrich.inference.layout import Layout, finite, layout_of, precision, tensor
from lazyrich.inference.likelihood import log_density


@dataclass(frozen=True)
class Posterior:
    """The posterior of a Gaussian process at M test inputs; all float64.

    Attributes:
        mean: (M,) or (M, K), as the targets were given.
        covariance: (M, M), the same for every output, or (M, K, M, K); None unless the whole ``k_tt`` was given.
        variance: its diagonal, (M,) or (M, K); None without ``k_tt``.
        log_marginal: of the training targets, in nats.
        noise: the variance that was on the diagonal (its mean over samples).
        jitter: what was added beyond it.

    Example:
        >>> import torch
        >>> k = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> found = posterior(k[:1, :1], torch.tensor([4.0]), k[1:, :1], k[1:, 1:])
        >>> found.mean.tolist(), round(float(found.deviation), 4)
        ([2.0], 1.2247)
    """

    mean: Tensor
    covariance: Tensor | None
    variance: Tensor | None
    log_marginal: Tensor
    noise: float
    jitter: float

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of the latent function, shaped as ``variance``.

        Raises:
            KernelError: if the posterior was made without ``k_tt``.
        """
        if self.variance is None:
            raise KernelError("got a posterior without variances, expected one made with k_tt; pass k_tt=")
        return self.variance.sqrt()

    def __str__(self) -> str:
        spread = "" if self.variance is None else f", deviation {float(self.deviation.detach().mean()):.3g} on average"
        jitter = f", jitter {self.jitter:.1e}" if self.jitter else ""
        return (
            f"posterior at {len(self.mean)} inputs (mean {tuple(self.mean.shape)}{spread}); "
            f"log marginal likelihood {float(self.log_marginal.detach()):.6g}, noise {self.noise:.3g}{jitter}"
        )


def posterior(
    k_dd: Tensor,
    y: Tensor,
    k_td: Tensor,
    k_tt: Tensor | None = None,
    noise: float | Tensor = 0.0,
    relative: bool = False,
    jitter: Jitter = 0.0,
) -> Posterior:
    """Gaussian-process regression with any kernel: infinite (NNGP), empirical, or an NTK used as a prior (NTKGP).

    mean = K_td (K_dd + s^2 I)^{-1} y,  covariance = K_tt - K_td (K_dd + s^2 I)^{-1} K_dt
    (Lee et al. 2018, arXiv:1711.00165, eq. 8-9). With an NTK the mean is that of a network trained to convergence by
    gradient descent on the mean squared error from zero outputs; ``gradient_flow`` gives every earlier time.

    Args:
        k_dd: Gram of the training inputs, (N, N), or (N, K, N, K) for correlated outputs.
        y: targets, (N,) or (N, K); outputs share a kernel of shape (N, N).
        k_td: Gram of test with training inputs, (M, N) or (M, K, N, K).
        k_tt: Gram of the test inputs, (M, M) or (M, K, M, K), or its diagonal alone, (M,) or (M, K); None: the mean alone.
        noise: variance s^2 of the targets' noise, a number or one a sample; (N, K) for correlated outputs.
        relative: count ``noise`` in units of tr(K_dd)/N.
        jitter: added to the diagonal beyond the noise; ``"auto"`` escalates until the Gram can be factorised.

    Returns:
        The posterior of the latent function (add ``noise`` for that of a noisy target).

    Raises:
        KernelError: for inputs that do not fit or are not finite; for a singular or indefinite Gram, with its smallest
            eigenvalue, its condition number and the mend.

    Example:
        >>> import torch
        >>> k = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> found = posterior(k[:1, :1], torch.tensor([4.0]), k[1:, :1], k[1:, 1:])
        >>> found.mean.tolist(), found.variance.tolist()
        ([2.0], [1.5])
        >>> print(found)
        posterior at 1 inputs (mean (1,), deviation 1.22 on average); log marginal likelihood -5.26551, noise 0
    """
    layout = layout_of(y, k_dd, k_td)
    matrix, cross, columns = layout.gram(k_dd, "k_dd"), layout.cross(k_td, "k_td"), layout.columns(y, "y")
    ridge = ridge_of(matrix, noise, relative, layout.outputs if layout.full else 1)
    factor = factorise(matrix, ridge, jitter, precision(k_dd))
    covariance, variance = _uncertainty(factor, cross, k_tt, layout)
    return Posterior(
        mean=layout.restore(cross @ factor.solve(columns)),
        covariance=None if covariance is None else layout.restore_covariance(covariance),
        variance=None if variance is None else layout.restore_variance(variance),
        log_marginal=log_density(factor, columns),
        noise=float(ridge.detach().mean()),
        jitter=factor.jitter,
    )


def _uncertainty(factor: Factor, cross: Tensor, k_tt: Tensor | None, layout: Layout) -> tuple[Tensor | None, Tensor | None]:
    if k_tt is None:
        return None, None
    half = factor.half_solve(cross.T)
    k_tt = tensor(k_tt, "k_tt")
    rows = len(cross) // (layout.outputs if layout.full else 1)
    if k_tt.ndim == 1 or (k_tt.ndim == 2 and layout.full and k_tt.shape == (rows, layout.outputs)):
        prior = finite(k_tt, "k_tt").reshape(-1)
        if layout.full and k_tt.ndim == 1:
            prior = prior.repeat_interleave(layout.outputs)
        if len(prior) != len(cross):
            raise KernelError(f"got k_tt of shape {tuple(k_tt.shape)}, expected the diagonal for {rows} test inputs, as k_td")
        return None, (prior - half.square().sum(0)).clamp_min(0)
    covariance = layout.square(k_tt, "k_tt", rows) - half.T @ half
    return covariance, covariance.diagonal().clamp_min(0)
