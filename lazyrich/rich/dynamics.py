"""What the rich limit's training looks like: loss, outputs and kernels at every step, each with its Monte-Carlo error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lazyrich.rich.march import Track
from lazyrich.rich.network import Network


@dataclass(frozen=True)
class Dynamics:
    """Training at infinite width, averaged over independent replicates of the sampled neurons.

    Attributes:
        network: what was trained.
        lr: in function space; momentum and loss are the ones asked for.
        samples: neurons a replicate.
        loss: (T + 1,), of all training samples.
        outputs: (T + 1, P, C) at the training samples; ``test_outputs`` (T + 1, P', C) at the others.
        loss_error, outputs_error: standard errors over replicates, of the same shapes.
        preactivations: h at initialisation and at the end, (2, P + P', S) a hidden layer, of all replicates together.

    Example:
        >>> from lazyrich.rich import Network, solve
        >>> x, y = torch.eye(3, dtype=torch.float64), torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
        >>> found = solve(Network.uniform(3, depth=1, gamma0=1.0), x, y, steps=2, samples=400)
        >>> found.loss.shape, found.outputs.shape, found.features(1).shape[0]
        (torch.Size([3]), torch.Size([3, 3, 1]), 3)
    """

    network: Network
    lr: float
    samples: int
    loss: Tensor
    loss_error: Tensor
    outputs: Tensor
    outputs_error: Tensor
    test_outputs: Tensor
    preactivations: tuple[Tensor, ...]
    tracks: tuple[Track, ...] = field(repr=False)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.loss) - 1

    @property
    def accuracy(self) -> float:
        """Standard error of the outputs at the training samples, all times together, relative to their size."""
        return float(self.outputs_error.norm() / self.outputs.norm())

    def features(self, layer: int, t: int = -1, s: int | None = None) -> Tensor:
        """Phi^l(t, s) = <phi(h^l(t)) phi(h^l(s))>, (P + P', P + P'); layer 0 are the inputs, s = t when not given."""
        return self._kernel(lambda track: track.features[layer], t, s).mean(0)

    def features_error(self, layer: int, t: int = -1, s: int | None = None) -> Tensor:
        """Standard error of ``features`` over replicates."""
        return standard_error(self._kernel(lambda track: track.features[layer], t, s))

    def gradients(self, layer: int, t: int = -1, s: int | None = None) -> Tensor:
        """G^l(t, s) = <g^l(t) g^l(s)>, rows (sample, output); layers 1 ... L, and L + 1 for the outputs."""
        return self._kernel(lambda track: track.gradients[layer], t, s).mean(0)

    def tangent(self, t: int = -1) -> Tensor:
        """The tangent kernel sum_l (kappa_w^l Phi^l + kappa_b^l) G^{l+1} at a step, rows (sample, output)."""
        outputs = self.network.outputs
        kernels = []
        for i, layer in enumerate(self.network.layers):
            weight, bias = layer.rates
            features = self.features(i, t).repeat_interleave(outputs, 0).repeat_interleave(outputs, 1)
            kernels.append((weight * features + bias) * self.gradients(i + 1, t))
        return torch.stack(kernels).sum(0)

    def movement(self, layer: int) -> float:
        """How far a layer's feature kernel moved, relative to where it started."""
        start, end = self.features(layer, 0), self.features(layer, -1)
        return float((end - start).norm() / start.norm())

    def rows(self) -> list[dict[str, Any]]:
        """One row a step."""
        return [
            {"step": t, "loss": float(self.loss[t]), "loss_error": float(self.loss_error[t])} for t in range(self.steps + 1)
        ]

    def __str__(self) -> str:
        shown = sorted({0, self.steps // 4, self.steps // 2, 3 * self.steps // 4, self.steps})
        lines = [f"{self.network}; {self.steps} steps at lr {self.lr:g}", "", "  step      loss"]
        lines += [f"{t:6d}  {float(self.loss[t]):8.4f} +- {float(self.loss_error[t]):.4f}" for t in shown]
        lines += ["", f"Outputs are known to {self.accuracy:.2%} (standard error over {len(self.tracks)} replicates)."]
        moved = ", ".join(f"{100 * self.movement(i):.0f}%" for i in range(1, self.network.depth + 1))
        return "\n".join([*lines, f"At infinite width the feature kernels of the hidden layers move by {moved}."])

    def _kernel(self, of: Callable[[Track], list[Tensor]], t: int, s: int | None) -> Tensor:
        kept = [of(track) for track in self.tracks]
        return torch.stack([_product(rows[t], rows[t if s is None else s]) for rows in kept])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Products of coefficients in one basis, of which one may know fewer functions."""
    known = min(a.shape[1], b.shape[1])
    return a[:, :known] @ b[:, :known].T


def standard_error(values: Tensor) -> Tensor:
    """Of the mean over replicates, the first axis."""
    return values.std(0) / len(values) ** 0.5
