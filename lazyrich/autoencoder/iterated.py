"""An autoencoder applied again and again: where its iterates go, and whether it has memorised.

Training points that an overparameterised autoencoder reconstructs exactly are attractors of x -> f(x) where the spectral radius
of df/dx is below one (Radhakrishnan, Belkin & Uhler 2020, PNAS 117(44), arXiv:1909.12362). Iteration shares its weights: it is not
a deep network with independent layers. Networks are looked at in evaluation mode, and left in the mode that they had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyrich.autoencoder.argument import check_samples, check_sizes, count, reading
from lazyrich.autoencoder.derivative import derivatives
from lazyrich.autoencoder.evaluated import evaluated
from lazyrich.errors import AutoencoderError

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Iterates:
    """Where iteration took each sample.

    Attributes:
        last: (samples, ...), after all steps.
        distance: ||f(x_t) - x_t|| / ||x_0|| by step, (steps, samples).
        period: of the cycle that each sample ends on, 1 for fixed points, 0 where it has not settled.
        steps: until the sample first came within the tolerance of where it ends; the number of all steps where it did not.
    """

    last: Tensor
    distance: Tensor
    period: Tensor
    steps: Tensor

    @property
    def settled(self) -> float:
        """The part of the samples that ended on a fixed point or a cycle."""
        return float((self.period > 0).double().mean())


@torch.no_grad()
def iterate(model: Map, x: Tensor, steps: int = 200, tolerance: float = 1e-6, longest: int = 8) -> Iterates:
    """x_{t+1} = f(x_t), with cycles of up to ``longest`` steps recognised at the end.

    Args:
        model: maps (samples, ...) to as many numbers.
        x: starts.
        steps: of iteration.
        tolerance: relative to the size of a sample's last iterate (and to one where that is small).
        longest: cycle that is looked for.

    Raises:
        AutoencoderError: for a map that does not take x or changes its size, or too few steps to see a cycle.

    Example:
        >>> found = iterate(lambda x: -x, torch.ones(1, 2), steps=40)
        >>> found.period.tolist(), iterate(lambda x: x / 2, torch.ones(1, 2)).period.tolist()
        ([2], [1])
    """
    steps, longest = count(steps, "steps"), count(longest, "longest")
    check_sizes(tolerance=tolerance)
    if steps <= longest:
        raise AutoencoderError(f"got steps = {steps}, expected more than the longest cycle, {longest}; pass more, or longest=")
    check_samples(x)
    path, scale = [x.detach()], x.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
    with evaluated(model):
        for _ in range(steps):
            path.append(_same(model, path[-1]))
    flat = torch.stack([p.flatten(1) for p in path])
    distance = (flat[1:] - flat[:-1]).norm(dim=2) / scale
    near = tolerance * flat[-1].norm(dim=1).clamp_min(1.0)
    gaps = torch.stack([(flat[-1] - flat[-1 - p]).norm(dim=1) for p in range(1, longest + 1)])
    close = (gaps <= near).int()
    period = torch.where(close.any(0), close.argmax(0) + 1, 0)
    period = torch.where(torch.isfinite(flat[-1]).all(1), period, 0)
    home = ((flat - flat[-1]).norm(dim=2) <= near).int().argmax(0)
    return Iterates(path[-1], distance, period, torch.where(period > 0, home, steps))


def jacobian(model: Map, x: Tensor) -> Tensor:
    """df/dx at every sample, (samples, size, size), by reverse mode; sample by sample where ``vmap`` cannot follow the map.

    Raises:
        AutoencoderError: for no samples, or a map that does not take them or changes their size.

    Example:
        >>> jacobian(lambda x: x**2, torch.tensor([[1.0, 3.0]])).tolist()
        [[[2.0, 0.0], [0.0, 6.0]]]
    """
    check_samples(x)

    def one(sample: Tensor) -> Tensor:
        return _shaped(model(sample.unsqueeze(0)), sample.unsqueeze(0)).flatten()

    with evaluated(model):
        with torch.no_grad():
            _same(model, x[:1])  # what does not fit is said here: below, torch would speak of its own transforms
        slope = derivatives(one, x)
    return slope.reshape(len(x), -1, x[0].numel())


def spectral_radius(model: Map, x: Tensor) -> Tensor:
    """Largest modulus of an eigenvalue of df/dx at every sample, (samples,): below one, a fixed point attracts.

    Example:
        >>> spectral_radius(lambda x: x @ torch.tensor([[0.5, 9.0], [0.0, -0.8]]), torch.zeros(1, 2))
        tensor([0.8000])
    """
    return torch.linalg.eigvals(jacobian(model, x)).abs().amax(-1)


@dataclass(frozen=True)
class Memory:
    """What a trained autoencoder remembers of its training points.

    Attributes:
        error: ||f(x) - x|| / ||x|| at each of them; at one of zero, relative to the mean size of the others.
        radius: spectral radius of df/dx there.
        returned: whether the point comes back after it was disturbed and iterated.
    """

    error: Tensor
    radius: Tensor
    returned: Tensor

    @property
    def attractors(self) -> float:
        """The part of the training points that are reconstructed to 1 % with spectral radius below one."""
        return float(((self.error < 0.01) & (self.radius < 1)).double().mean())

    @property
    def sentence(self) -> str:
        """What it means."""
        return (
            f"{100 * self.attractors:.3g}% of the training points are attractors (largest spectral radius "
            f"{float(self.radius.max()):.3g}, largest reconstruction error {100 * float(self.error.max()):.2g}%); "
            f"{100 * float(self.returned.double().mean()):.3g}% come back when they are disturbed and iterated."
        )


def memory(model: Map, x: Tensor, disturbance: float = 0.1, steps: int = 500, seed: int = 0) -> Memory:
    """Errors, spectral radii and returns at training points.

    Args:
        model: trained on x.
        x: training points.
        disturbance: size of the noise before iteration, relative to each point.
        steps: of iteration.
        seed: of the noise.

    Raises:
        AutoencoderError: for no training points, a map that does not take them or changes their size, or a disturbance that is
            none.

    Example:
        >>> memory(lambda x: x.sign(), torch.tensor([[1.0, -1.0]])).attractors
        1.0
    """
    flat = check_samples(x).flatten(1)
    check_sizes(disturbance=disturbance)
    seed = count(seed, "seed", 0)
    noise = torch.randn(flat.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(flat)
    size = _sizes(flat)
    start = flat + disturbance * size[:, None] * noise / noise.norm(dim=1, keepdim=True)
    end = iterate(model, start.reshape(x.shape), steps).last.flatten(1)
    with torch.no_grad(), evaluated(model):
        error = (_same(model, x).flatten(1) - flat).norm(dim=1) / size
    nearest = torch.cdist(end.nan_to_num(), flat).argmin(1) == torch.arange(len(x), device=x.device)
    back = (end - flat).norm(dim=1) <= disturbance / 2 * size
    return Memory(error, spectral_radius(model, x), nearest & back)


def _sizes(flat: Tensor) -> Tensor:
    """Norms of the samples; zero has none of its own and takes the mean of the others, one if all are zero."""
    size = flat.norm(dim=1)
    others = size[size > 0].mean() if bool((size > 0).any()) else 1.0
    return torch.where(size > 0, size, others)


def _same(model: Map, x: Tensor) -> Tensor:
    with reading(model, x, "map"):
        out = model(x)
    return _shaped(out, x)


def _shaped(out: Any, x: Tensor) -> Tensor:
    if not isinstance(out, Tensor):
        raise AutoencoderError(
            f"the map returns a {type(out).__name__}, expected a tensor of as many numbers as it is given; of a variational "
            "autoencoder give its means, lazyrich.autoencoder.plain(model)"
        )
    if out.numel() != x.numel():
        raise AutoencoderError(
            f"the map sends shape {tuple(x.shape)} to {tuple(out.shape)}, expected as many numbers; only maps of a space into "
            "itself can be iterated"
        )
    return out.reshape(x.shape)
