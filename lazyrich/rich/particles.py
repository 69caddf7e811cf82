"""Two-layer networks as interacting particles: one-pass and full-batch gradient descent, with noise and its free energy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyrich.amount import counted, positive, unsigned
from lazyrich.errors import RichError, out_of_memory
from lazyrich.rich.cloud import entropy

Neuron = Callable[[Tensor, Tensor], Tensor]  # (particles (M, D), x (B, d)) -> (B, M)
Draw = Callable[[torch.Generator, int], tuple[Tensor, Tensor]]  # (generator, batch) -> x (B, d), y (B,)
Batch = tuple[Tensor, Tensor]
LARGEST = 1e8  # a risk beyond which particles do not come back
Progress = Callable[[int, int, str], None]


def mean_field(
    neuron: Neuron,
    start: Tensor,
    data: Draw | Batch,
    time: float,
    *,
    eps: float = 1e-3,
    batch: int = 1,
    schedule: Callable[[float], float] = lambda t: 1.0,
    decay: float = 0.0,
    temperature: float = 0.0,
    watch: Batch | None = None,
    looks: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> Particles:
    """Train f(x) = (1/M) sum_i sigma_*(x; theta_i), whose distribution of particles is that of the mean-field limit.

    One-pass SGD takes fresh samples at every step (Mei, Montanari & Nguyen 2018, arXiv:1804.06561); with fixed data every
    step takes all of them. Each particle moves, with s = eps xi(t) and t = eps times steps, by

        theta_i <- (1 - 2 decay s) theta_i + 2 s mean[(y - f(x)) grad sigma_*(x; theta_i)] + sqrt(4 s temperature) normal,

    which as M grows and eps falls (eps << 1/D) is the flow d_t rho = 2 xi div(rho grad Psi) + 2 xi temperature Laplace rho that
    lowers the free energy R/2 + (decay/2) E|theta|^2 - temperature Entropy. In other words a network's learning rate is 2 s M.

    Args:
        neuron: sigma_*, differentiable: particles (M, D) and inputs (B, d) to (B, M).
        start: (M, D), drawn from rho at time 0; not changed.
        data: (x, y) with y of shape (B,): full batch; or a function (generator, batch) -> (x, y): one pass.
        time: when to stop.
        eps: step of time.
        batch: fresh samples a step, for one-pass.
        schedule: xi, of time.
        decay: lambda.
        temperature: 1/beta of the noise.
        watch: samples on which the risk E(y - f)^2 is measured; the data itself for full batch, needed for one-pass.
        looks: how often to look, evenly in time, besides time 0.
        seed: of samples and noise.
        progress: told (done, total, what).

    Raises:
        RichError: for shapes that do not fit, and particles that run away (the step, and what to lower).

    Example:
        >>> x = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
        >>> start = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> neuron = lambda theta, x: theta[:, 0] * torch.tanh(x * theta[:, 1])
        >>> flow = mean_field(neuron, start, (x, x[:, 0].sin()), time=5.0, eps=0.05)
        >>> bool(flow.risk[-1] < 0.2 * flow.risk[0]), flow.particles.shape
        (True, torch.Size([21, 50, 2]))
    """
    drawn = callable(data)
    watched = watch if watch is not None else None if drawn else data
    if watched is None:
        raise RichError("one-pass training needs watch=(x, y), samples on which its risk is measured")
    steps = _check(neuron, start, watched, time, eps, batch, decay, temperature, looks)
    generator, theta = torch.Generator().manual_seed(seed), start.detach().clone()
    at = {round(i * steps / looks) for i in range(looks + 1)}
    times, kept, risks = [], [], []
    for step in range(steps + 1):
        if step in at:
            times.append(step * eps)
            kept.append(theta.clone())
            risks.append(_risk(neuron, theta, watched))
            if not risks[-1] < LARGEST:
                raise RichError(f"the particles run away: at step {step} the risk is {risks[-1]:.3g}; lower eps = {eps:g}")
            if progress is not None:
                progress(step, steps, f"risk {risks[-1]:.4g}")
        if step < steps:
            x, y = data(generator, batch) if callable(data) else data
            s = eps * schedule(step * eps)
            theta = (1 - 2 * decay * s) * theta + 2 * s * _pull(neuron, theta, x, y)
            if temperature:
                noise = torch.randn(theta.shape, dtype=theta.dtype, generator=generator).to(theta)
                theta = theta + math.sqrt(4 * s * temperature) * noise
    return Particles(torch.tensor(times, dtype=torch.float64), torch.stack(kept), torch.tensor(risks), decay, temperature)


def _check(
    neuron: Neuron,
    start: Tensor,
    watch: Batch,
    time: float,
    eps: float,
    batch: int,
    decay: float,
    temperature: float,
    looks: int,
) -> int:
    if not isinstance(start, Tensor) or start.ndim != 2 or not start.is_floating_point() or not start.isfinite().all():
        got = f"of shape {tuple(start.shape)}" if isinstance(start, Tensor) else type(start).__name__
        raise RichError(f"got start {got}, expected finite numbers (particles, parameters)")
    if positive("eps", eps, RichError) > positive("time", time, RichError):
        raise RichError(f"got time {time} and eps {eps}, expected 0 < eps <= time")
    for name, count in (("batch", batch), ("looks", looks)):
        counted(name, count, refusal=RichError)
    for name, number in (("decay", decay), ("temperature", temperature)):
        unsigned(name, number, RichError)
    if not callable(neuron):
        raise RichError(
            f"got neuron {type(neuron).__name__}, expected a function of particles (M, D) and inputs (B, d) to (B, M)"
        )
    if not isinstance(watch, (tuple, list)) or len(watch) != 2 or not all(isinstance(part, Tensor) for part in watch):
        raise RichError(
            f"got {type(watch).__name__} as data or watch, expected two tensors (x, y), or a function that draws them"
        )
    x, y = watch
    try:
        with torch.no_grad():
            shape = tuple(neuron(start, x).shape)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise RichError(
            f"the neuron does not take particles of shape {tuple(start.shape)}, {start.dtype}, and inputs of shape "
            f"{tuple(x.shape)}, {x.dtype} ({(str(error).splitlines() or [''])[0]}); expected a function of both to (B, M), and "
            "numbers of one type: pass start.to(x.dtype)"
        ) from error
    if shape != (len(x), len(start)) or y.shape != (len(x),):
        raise RichError(
            f"the neuron gives {shape} and y is {tuple(y.shape)}; expected (samples, particles) = {(len(x), len(start))} "
            f"and ({len(x)},)"
        )
    return round(time / eps)


def _pull(neuron: Neuron, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """mean[(y - f) grad sigma_*], (M, D)."""
    leaf = theta.detach().requires_grad_()
    with torch.enable_grad():
        each = neuron(leaf, x)
        weight = (y - each.detach().mean(1)) / len(y)
        (pull,) = torch.autograd.grad((weight @ each).sum(), leaf)
    return pull


def _risk(neuron: Neuron, theta: Tensor, watch: Batch) -> float:
    x, y = watch
    with torch.no_grad():
        return float((y - neuron(theta, x).mean(1)).square().mean())


@dataclass(frozen=True)
class Particles:
    """What a mean-field training leaves behind.

    Attributes:
        times: of the looks.
        particles: (looks, M, D).
        risk: E(y - f)^2 of the watched samples at each look.
        decay: lambda.
        temperature: 1/beta.

    Example:
        >>> x = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
        >>> start = torch.zeros(10, 2, dtype=torch.float64) + 0.5
        >>> found = mean_field(lambda theta, x: theta[:, 0] * (x * theta[:, 1]), start, (x, x[:, 0]), time=1.0, eps=0.1)
        >>> found.particles.shape[1:], bool(found.risk[-1] < found.risk[0])
        (torch.Size([10, 2]), True)
    """

    times: Tensor
    particles: Tensor
    risk: Tensor
    decay: float
    temperature: float

    def free_energy(self) -> Tensor:
        """R/2 + (lambda/2) E|theta|^2 - Ent/beta at each look (Mei, Montanari & Nguyen 2018).

        The entropy is the nearest-neighbour estimate of ``lazyrich.rich.entropy``, good in a few dimensions only.
        """
        squares = self.particles.square().sum(2).mean(1)
        energy = self.risk / 2 + self.decay / 2 * squares
        if self.temperature == 0:
            return energy
        return energy - self.temperature * torch.tensor([entropy(look) for look in self.particles])

    def rows(self) -> list[dict[str, Any]]:
        """One row a look."""
        energies = self.free_energy()
        return [
            {"time": float(t), "risk": float(r), "free_energy": float(e), "mean_norm": float(p.norm(dim=1).mean())}
            for t, r, e, p in zip(self.times, self.risk, energies, self.particles, strict=True)
        ]

    def __str__(self) -> str:
        rows = self.rows()
        shown = rows[:: max(1, len(rows) // 6)]
        lines = ["    time      risk  free energy  mean |theta|"]
        lines += [f"{r['time']:8.3g}  {r['risk']:8.4g}  {r['free_energy']:11.4g}  {r['mean_norm']:12.4g}" for r in shown]
        count = self.particles.shape[1]
        return "\n".join([*lines, "", f"{count} particles took the risk from {self.risk[0]:.4g} to {self.risk[-1]:.4g}."])
