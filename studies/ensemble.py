"""Ensembles of trained finite networks beside the infinite-width prediction of their mean and covariance at any time.

    python studies/ensemble.py

Two hidden erf layers in NTK parameterisation, full-batch gradient descent on the sum of squares, four training and three test
inputs. Expected (Lee et al. 2019, arXiv:1902.06720, eq. 14-15): means agree within Monte-Carlo error as the width grows,
covariances with them; what remains falls about as 1/width.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

import lazyrich as lzr

TRAIN, TEST, INPUTS, STEPS, LR = 4, 3, 5, 60, 0.4


class Erf(nn.Module):
    """The error function as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """erf(x)."""
        return torch.erf(x)


def kernel():
    """Of the network at infinite width."""
    layers = [nn.Linear(INPUTS, 8, bias=False), Erf(), nn.Linear(8, 8, bias=False), Erf(), nn.Linear(8, 1, bias=False)]
    return lzr.kernel(nn.Sequential(*layers), init=lzr.init.variance(1.5, 0.0))


def data() -> tuple[Tensor, Tensor]:
    """Inputs of training and test one below the other, and targets."""
    x = torch.randn(TRAIN + TEST, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x, torch.sin(2 * x[:TRAIN, 0])


def trained(width: int, networks: int, seed: int = 0, chunk: int = 50) -> Tensor:
    """Test outputs of independently drawn networks after training, (networks, TEST)."""
    x, y = data()
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(networks // chunk):
        shapes = ((chunk, INPUTS, width), (chunk, width, width), (chunk, width, 1))
        weights = [torch.randn(s, generator=generator, dtype=torch.float32).requires_grad_() for s in shapes]

        def outputs(x: Tensor, weights: list[Tensor] = weights) -> Tensor:
            h = x.float().expand(chunk, *x.shape)
            for i, w in enumerate(weights):
                h = (1.5 / w.shape[1]) ** 0.5 * (torch.erf(h) if i else h) @ w
            return h[..., 0]

        for _ in range(STEPS):
            loss = 0.5 * (outputs(x[:TRAIN]) - y.float()).square().sum()
            for w, g in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                w.data.sub_(g, alpha=LR)
        with torch.no_grad():
            found.append(outputs(x[TRAIN:]).double())
    return torch.cat(found)


def predicted() -> tuple[Tensor, Tensor]:
    """Mean (TEST,) and covariance (TEST, TEST) at infinite width after the same steps."""
    x, y = data()
    nngp, ntk = kernel()(x)
    flow = lzr.gradient_flow(
        ntk[:TRAIN, :TRAIN], y, ntk[TRAIN:, :TRAIN], t=STEPS, lr=LR, discrete=True,
        k_dd=nngp[:TRAIN, :TRAIN], k_td=nngp[TRAIN:, :TRAIN], k_tt=nngp[TRAIN:, TRAIN:],
    )  # fmt: skip
    return flow.test, flow.test_covariance


def errors(width: int, networks: int) -> tuple[float, float, float]:
    """Largest deviation of the mean in standard errors; relative error of the covariance, and what sampling explains of it."""
    mean, covariance = predicted()
    f = trained(width, networks)
    z = float(((f.mean(0) - mean).abs() / (f.std(0) / networks**0.5)).max())
    off = float((torch.cov(f.T) - covariance).norm() / covariance.norm())
    d = covariance.diagonal()
    sampling = float((((covariance.square() + d[:, None] * d) / networks).sum()).sqrt() / covariance.norm())
    return z, off, sampling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=400)
    words = parser.parse_args()
    print(f"{'width':>6} {'mean off (s.e.)':>16} {'covariance off':>15} {'by sampling':>12}")
    for width in (64, 128, 256, 512):
        z, off, sampling = errors(width, words.networks)
        print(f"{width:6} {z:16.2f} {off:15.3f} {sampling:12.3f}", flush=True)


if __name__ == "__main__":
    main()
