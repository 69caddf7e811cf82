"""Infinite-width autoencoders with a finite bottleneck, held against networks that are trained.

    python studies/bottleneck.py

1. The closed dynamics: one hidden erf layer a side, NTK parameterisation, full-batch descent; network and closed form share
   their functions at initialisation. Expected: relative error of the latents falls as n^(-1/2), median below 2 % at n = 8192,
   while the encoder's activations move by n^(-1/2) and the latents by order one. A start close to a fork of the dynamics
   magnifies what finite width adds, so errors have a heavy tail over seeds, and the median is taken.
2. Four parameterisations of a tanh autoencoder from one base network: steps to 0.55 of the first loss, and RMS moves.
   Expected: muP under SGD needs 1.2 to 2 times the steps from n = 64 to 4096, under Adam 0.8 to 1.25 times; encoder moves fall
   as about n^(-0.45) where the encoder is in NTK parameterisation, and are flat under muP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import lazyrich as lzr
from lazyrich.family.zoo.autoencoder import Autoencoder
from lazyrich.gaussian import dual
from lazyrich.lazy.bottleneck import BottleneckDynamics
from lazyrich.measure import fit_slope
from lazyrich.train import train

WIDTHS = (128, 512, 2048, 8192)
MOVE_WIDTHS = (64, 256, 1024, 4096)
SAMPLES, INPUTS, CODE = 8, 6, 2
DOUBLE = torch.float64


class HiddenLayer:
    """Kernels of one hidden erf layer without biases, both layers trained."""

    def _both(self, x1: Tensor, x2: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        x2 = x1 if x2 is None else x2
        c = x1 @ x2.T / x1.shape[1]
        return c, *dual("erf").both(c, x1.square().mean(1)[:, None], x2.square().mean(1)[None])

    def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Covariance of the outputs at initialisation."""
        return self._both(x1, x2)[1]

    def ntk(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Tangent kernel."""
        c, values, slopes = self._both(x1, x2)
        return values + slopes * c


@dataclass
class Network:
    """An autoencoder in NTK parameterisation: weights (encoder, latents, decoder, readout) with standard normal entries."""

    weights: list[Tensor]

    @staticmethod
    def draw(width: int, seed: int, inputs: int = INPUTS, code: int = CODE) -> Network:
        """Standard normal weights."""
        rng = torch.Generator().manual_seed(seed)
        shapes = ((width, inputs), (code, width), (width, code), (inputs, width))
        return Network([torch.randn(*shape, generator=rng, dtype=DOUBLE) for shape in shapes])

    def hidden(self, x: Tensor) -> Tensor:
        """The encoder's activations."""
        return torch.erf(x @ self.weights[0].T / math.sqrt(x.shape[1]))

    def latents(self, x: Tensor) -> Tensor:
        """The code."""
        h = self.hidden(x)
        return h @ self.weights[1].T / math.sqrt(h.shape[1])

    def decode(self, u: Tensor) -> Tensor:
        """From the code to the outputs."""
        h = torch.erf(u @ self.weights[2].T / math.sqrt(u.shape[1]))
        return h @ self.weights[3].T / math.sqrt(h.shape[1])

    def descend(self, x: Tensor, y: Tensor, learning_rate: float, steps: int) -> Network:
        """Full-batch gradient descent on the mean loss."""
        weights = [w.clone().requires_grad_() for w in self.weights]
        trained = Network(weights)
        for _ in range(steps):
            loss = (trained.decode(trained.latents(x)) - y).square().sum() / (2 * len(x))
            for w, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                w.data -= learning_rate * slope
        return Network([w.detach() for w in weights])


def data(seed: int, samples: int = SAMPLES, inputs: int = INPUTS) -> Tensor:
    """Points on the sphere |x|^2 = inputs."""
    x = torch.randn(samples, inputs, generator=torch.Generator().manual_seed(10_000 + seed), dtype=DOUBLE)
    return x / x.norm(dim=1, keepdim=True) * math.sqrt(inputs)


def compare(width: int, seed: int, learning_rate: float = 0.1, steps: int = 300) -> dict[str, float]:
    """One network and the closed form from the same start: errors, and what moved in the network."""
    x, start = data(seed), Network.draw(width, seed)
    trained = start.descend(x, x, learning_rate, steps)
    closed = BottleneckDynamics(
        HiddenLayer(), HiddenLayer(), x, x, CODE, u0=start.latents(x), g0=start.decode
    ).descend(learning_rate, steps, every=steps)  # fmt: skip
    u0, u, f = start.latents(x), trained.latents(x), trained.decode(trained.latents(x))
    h0, h = start.hidden(x), trained.hidden(x)
    return {
        "latent error": float((closed.latents[-1] - u).norm() / u.norm()),
        "loss": float((f - x).square().sum() / (2 * len(x)) / closed.loss[0]),
        "closed loss": float(closed.loss[-1] / closed.loss[0]),
        "encoder move": float((h - h0).norm() / h0.norm()),
        "latent move": float((u - u0).norm() / u0.norm()),
    }


def closed_dynamics(widths: Sequence[int] = WIDTHS, seeds: int = 15) -> dict[str, np.ndarray]:
    """Every number of ``compare``, one row a seed, one column a width."""
    found = [[compare(width, seed) for width in widths] for seed in range(seeds)]
    return {name: np.array([[cell[name] for cell in row] for row in found]) for name in found[0][0]}


def median_slope(widths: Sequence[int], table: np.ndarray) -> float:
    """Slope of the medians over seeds, in logarithms."""
    return float(np.polyfit(np.log(widths), np.log(np.median(table, axis=0)), 1)[0])


# ---- parameterisations of one network ----

SETTINGS = {  # name: (scheme of the encoder, of the decoder, optimizer, learning rate at the base width)
    "NTP": ("ntk", "ntk", "sgd", 0.01),
    "hybrid": ("ntk", "mup", "sgd", 0.01),
    "muP-SGD": ("mup", "mup", "sgd", 0.01),
    "muP-Adam": ("mup", "mup", "adam", 0.001),
}
D, K, N = 8, 2, 32


def family() -> lzr.Family:
    return lzr.Family(lambda n: Autoencoder(n, inputs=D, code=K), base=64)


def curve(seed: int) -> Tensor:
    """Samples near a plane in D dimensions, of unit variance an entry."""
    rng = torch.Generator().manual_seed(20_000 + seed)
    plane = torch.randn(K, D, generator=rng) / math.sqrt(K)
    return torch.randn(N, K, generator=rng) @ plane + 0.1 * torch.randn(N, D, generator=rng)


def parameterised(name: str, width: int, seed: int, most: int = 400) -> dict[str, float]:
    """Train one network until its loss is 0.55 of its first; how many steps, and RMS moves of activations on the way."""
    first, second, optimizer, rate = SETTINGS[name]
    plans = {side: lzr.plan(family(), getattr(lzr, scheme)(), optimizer) for side, scheme in
             (("encoder", first), ("decoder", second))}  # fmt: skip
    model = plans["encoder"].build(width, seed)
    model.decoder = plans["decoder"].build(width, seed).decoder
    groups = [{"params": [p], "lr": rate * plans[name.split(".")[0]].settings(model)[name].lr, "eps": 0.0}
              for name, p in model.named_parameters()]  # fmt: skip
    for group in groups if optimizer == "sgd" else []:
        del group["eps"]
    x = curve(seed)
    before = activations(model, x)
    descent = (torch.optim.Adam if optimizer == "adam" else torch.optim.SGD)(groups, lr=rate)
    losses: list[float] = []
    while len(losses) <= most and not (losses and losses[-1] <= 0.55 * losses[0]):
        losses += train(model, descent, lambda step: (x, x), mean_loss, 1).losses  # the loss before this step
    after = activations(model, x)
    moves = {part: float((after[part] - before[part]).square().mean().sqrt()) for part in before}
    return {"steps": len(losses) - 1 if losses[-1] <= 0.55 * losses[0] else math.nan, **moves}


def mean_loss(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).square().sum() / (2 * len(y))


def activations(model: Autoencoder, x: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        u = model.encoder(x)
        return {
            "encoder": torch.tanh(model.encoder.hidden[0](x)),
            "latents": u,
            "decoder": torch.tanh(model.decoder.hidden[0](u)),
        }


def parameterisations(name: str, widths: Sequence[int] = MOVE_WIDTHS, seeds: int = 6) -> dict[str, np.ndarray]:
    found = [[parameterised(name, width, seed) for width in widths] for seed in range(seeds)]
    return {quantity: np.array([[cell[quantity] for cell in row] for row in found]) for quantity in found[0][0]}


def main() -> None:
    table = closed_dynamics()
    print("closed dynamics, medians over seeds" + "".join(f"{n:>10}" for n in WIDTHS) + "    slope")
    for quantity, values in table.items():
        slope = median_slope(WIDTHS, values)
        print(f"{quantity:<35}" + "".join(f"{v:10.4f}" for v in np.median(values, 0)) + f"    {slope:+.2f}", flush=True)
    for quantity in ("latent error", "encoder move", "latent move"):
        print(f"  geometric mean over seeds, {quantity}: slope {fit_slope(WIDTHS, table[quantity])}")
    print("\nparameterisations, geometric means" + "".join(f"{n:>10}" for n in MOVE_WIDTHS) + "    slope")
    for name in SETTINGS:
        for quantity, values in parameterisations(name).items():
            means = np.exp(np.log(values).mean(0))
            row = "".join(f"{v:10.4f}" for v in means)
            print(f"{name + ' ' + quantity:<34}{row}    {fit_slope(MOVE_WIDTHS, values)}", flush=True)


if __name__ == "__main__":
    main()
