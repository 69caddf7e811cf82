"""The tangent kernel of an autoencoder with a finite bottleneck: random and matrix-valued at infinite width."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.lazy.bottleneck.derivative import derivative_covariance
from lazyrich.lazy.bottleneck.gauss import generator, normal, root
from lazyrich.lazy.bottleneck.prior import BottleneckPrior
from lazyrich.lazy.bottleneck.side import TOGETHER, Nonlinearity, Side, counted, gram, inputs, sided, within


@dataclass(frozen=True)
class BottleneckTangents:
    """Draws of the tangent kernel at initialisation, with what each was drawn from.

    Attributes:
        theta: (S, N, d, N, d), the layout that ``lazyrich.inference`` takes for correlated outputs.
        latents: u, (S, N, k).
        outputs: f = g(u), (S, N, d).
        jacobians: J = dg/du, (S, N, d, k).
        given_latents: E[Theta | u], (S, N, N) for each output: diagonal in outputs.
    """

    theta: Tensor
    latents: Tensor
    outputs: Tensor
    jacobians: Tensor
    given_latents: Tensor

    @property
    def mean(self) -> Tensor:
        """E[Theta], (N, d, N, d): over draws of u, exactly over g given u, so zero between different outputs."""
        d = self.outputs.shape[2]
        return torch.einsum("ab,ij->aibj", self.given_latents.mean(0), torch.eye(d, dtype=torch.float64))


def bottleneck_ntk(
    encoder: Side,
    decoder: Side,
    x: Tensor,
    latents: int,
    outputs: int,
    draws: int = 1,
    bottleneck: Nonlinearity | None = None,
    seed: int = 0,
) -> BottleneckTangents:
    """Draw the infinite-width tangent kernel of an autoencoder at initialisation.

    Theta_f(x, x')_ij = delta_ij Theta_dec(u, u') + Theta_enc(x, x') [J(u) J(u')^T]_ij, J = dg/du. The chain rule gives this at
    every width; at infinite width Theta_enc and Theta_dec are deterministic while the latents u ~ GP(0, K_enc) and the decoder
    g ~ GP(0, K_dec) stay random, and (g, J) is drawn jointly from K_dec and its derivatives. Its mean given u is
    delta_ij [Theta_dec(u, u') + Theta_enc(x, x') sum_a d^2 K_dec / du_a du'_a]. The kernel is not constant in training:
    ``BottleneckDynamics`` follows it.

    Args:
        encoder: kernels of the encoder, for one latent.
        decoder: kernels of the decoder, for one output; ``nngp`` twice differentiable by autograd.
        x: inputs, (N, ...).
        latents: k.
        outputs: d.
        draws: S.
        bottleneck: phi, if the decoder reads phi(u); J is then the derivative in u still.
        seed: of the draws.

    Returns:
        Draws and what they were drawn from, float64.

    Raises:
        KernelError: for kernels that are missing, not (N, N), not positive semidefinite, or without second derivatives.

    Example:
        >>> class Linear:
        ...     def nngp(self, x1, x2=None):
        ...         return x1 @ (x1 if x2 is None else x2).T / x1.shape[1]
        ...     ntk = nngp
        >>> found = bottleneck_ntk(Linear(), Linear(), torch.ones(3, 4, dtype=torch.float64), latents=2, outputs=5)
        >>> found.theta.shape
        torch.Size([1, 3, 5, 3, 5])
    """
    encoder, decoder = sided(encoder, "the encoder", "nngp", "ntk"), sided(decoder, "the decoder", "nngp", "ntk")
    prior, n, d = BottleneckPrior(encoder, decoder, latents, bottleneck), len(x), counted(outputs, "outputs")
    x = inputs(x)
    with torch.no_grad():
        of_encoder = gram(encoder.ntk(x), (n, n), "the encoder's ntk").double()
    rng = generator(seed)
    u = prior.latents_at(x, draws, rng)
    joint = torch.cat([_joint(prior.decoder, part) for part in u.split(max(1, TOGETHER // n))])
    k = counted(latents, "latents")
    size, what = (1 + k) * n, "the covariance of the decoder and its gradient (an activation with jumps has none)"
    half = root(joint.reshape(draws, size, size), what)
    drawn = (half @ normal(rng, draws, size, d)).reshape(draws, 1 + k, n, d)
    f, j = drawn[:, 0], drawn[:, 1:].permute(0, 2, 3, 1)
    with torch.no_grad():
        of_decoder = within(prior.decoder.ntk, u, "the decoder's ntk")
    theta = torch.einsum("sab,ij->saibj", of_decoder, torch.eye(d, dtype=torch.float64))
    theta = theta + torch.einsum("ab,saic,sbjc->saibj", of_encoder, j, j)
    slopes = torch.einsum("siaib->sab", joint[:, 1:, :, 1:])
    return BottleneckTangents(theta, u, f, j, of_decoder + of_encoder * slopes)


def _joint(decoder: Side, u: Tensor) -> Tensor:
    """``derivative_covariance`` within each draw, (S, N, k) -> (S, 1 + k, N, 1 + k, N), from one call for all."""
    s, n, k = u.shape
    whole = derivative_covariance(decoder, u.reshape(s * n, k)).reshape(1 + k, s, n, 1 + k, s, n)
    return whole.diagonal(dim1=1, dim2=4).permute(4, 0, 1, 2, 3)
