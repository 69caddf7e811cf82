"""Dynamical mean-field theory of a fully connected network: its training at infinite width, in discrete time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lazyrich.amount import counted, positive
from lazyrich.errors import DivergedError, RichError, out_of_memory
from lazyrich.rich.curve import Curve, curve_of
from lazyrich.rich.dynamics import Dynamics, standard_error
from lazyrich.rich.march import March, Track
from lazyrich.rich.network import Network, as_network
from lazyrich.rich.noise import Noise, Start, Starts
from lazyrich.rich.objective import Objective
from lazyrich.rich.site import Site

RISE = 1e4  # a loss so many times its start does not come back
Progress = Callable[[int, int, str], None]


def solve(
    network: Network,
    x: Tensor,
    y: Tensor,
    steps: int,
    *,
    lr: float = 0.1,
    x_test: Tensor | None = None,
    loss: str = "squared",
    momentum: float = 0.0,
    batches: Sequence[Tensor] | None = None,
    samples: int = 4000,
    replicates: int = 4,
    seed: int = 0,
    tolerance: float = 1e-10,
    accuracy: float | None = None,
    memory: float = 8e9,
    responses: bool = True,
    rise: float = RISE,
    starts: Starts | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Dynamics:
    """Train a network at infinite width by gradient descent, exact in discrete time (Bordelon & Pehlevan 2022, arXiv:2205.09653).

    The equations are causal, so they are marched through time once; the neurons of each layer are sampled, everything else are
    means over them. With K <= P (T + 1) functions in a layer's basis, marching costs O(L S K^2) a row and holds O(L S K^2) numbers;
    K stays small where training is smooth.

    Args:
        network: what is trained.
        x: (P, d).
        y: (P,) or (P, C); +-1 for ``logistic``, rows of probabilities for ``cross_entropy``.
        steps: T.
        lr: in function space; a weight moves by lr gamma_0^2 n times its gradient. Losses are means over samples.
        x_test: (P', d), watched and not learnt.
        loss: ``squared`` (half the square), ``logistic`` or ``cross_entropy``.
        momentum: of heavy-ball gradient descent.
        batches: indices of each step's samples; all when not given.
        samples: S, sampled neurons a layer, all replicates together.
        replicates: independent parts of the samples; errors are the spread of their means.
        seed: of the samples.
        tolerance: share of a function's square that may be left out of its basis; 1e-4 moves outputs by some thousandths.
        accuracy: largest standard error of the outputs, relative to their size, that is let pass.
        memory: bytes that may be held.
        responses: with False the response terms are left out, which is wrong; for tests and for seeing what they do.
        rise: a loss so many times its start counts as diverged.
        device: where to march, for example ``"cuda"``; where x is when not given. Results stay there.
        starts: (neurons, seed) -> ``Start``, entries of first layer, biases and readout; normal when not given.
        progress: told (done, total, what).

    Raises:
        RichError: for shapes that do not fit, dynamics that diverge (``DivergedError``: the step and the stable rate), too little
            memory, too few samples for the accuracy (how many it takes).

    Example:
        >>> x, y = torch.eye(3, dtype=torch.float64), torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
        >>> limit = solve(Network.uniform(3, depth=1, gamma0=1.0), x, y, steps=3, samples=400)
        >>> bool(limit.loss[3] < limit.loss[0]), limit.features(1).shape
        (True, torch.Size([3, 3]))
    """
    y = y[:, None] if isinstance(y, Tensor) and y.ndim == 1 else y
    _check(network, x, y, x_test, steps, lr, samples, replicates)
    try:
        rows = (x if x_test is None else torch.cat([x, x_test])).double().to(device or x.device)
    except (RuntimeError, AssertionError) as error:
        if out_of_memory(error):
            raise
        first = (str(error).splitlines() or [""])[0]
        raise RichError(f"got device {str(device)!r}, which cannot be used here ({first}); try cpu") from error
    y = y.to(rows.device)
    positive("rise", rise, RichError)
    if batches is not None and len(batches) != steps:
        raise RichError(f"got {len(batches)} batches for {steps} steps, expected one a step")
    objective = Objective(loss, y.double(), len(rows), batches)
    curve = curve_of(network.activation)
    directions, coefficients = torch.linalg.qr(rows.T)
    inputs = coefficients.T / network.inputs**0.5
    tracks, fields = [], []
    for replicate in range(replicates):
        drawn, own = samples // replicates, seed * replicates + replicate
        start = None if starts is None else starts(drawn, own)
        sites = _sites(network, curve, directions, drawn, own, tolerance, start)
        march = March(network, sites, inputs, momentum, responses)
        watch = _Watch(sites, len(y), lr, steps, memory, progress, (replicate, replicates), rise)
        tracks.append(march.run(objective, [lr] * steps, watch))
        fields.append(watch.fields)
    found = _dynamics(network, lr, samples // replicates, len(y), tracks, fields)
    if accuracy is not None:
        _refuse_inaccurate(found, samples, accuracy)
    return found


def _refuse_inaccurate(found: Dynamics, samples: int, accuracy: float) -> None:
    if not found.accuracy <= accuracy:
        needed = samples * (found.accuracy / accuracy) ** 2 if accuracy > 0 else math.inf
        raise RichError(
            f"{samples} samples give outputs with a standard error of {found.accuracy:.2%}, more than the {accuracy:.2%} asked "
            f"for; it takes about {needed:.2g} samples"
        )


def _check(
    network: Network, x: Tensor, y: Tensor, x_test: Tensor | None, steps: int, lr: float, samples: int, replicates: int
) -> None:
    as_network(network)
    for name, given in (("x", x), ("y", y), ("x_test", x_test)):
        if not isinstance(given, Tensor) and (name != "x_test" or given is not None):
            raise RichError(f"got {name} {type(given).__name__}, expected a tensor")
    for name, given in (("x", x), ("x_test", x_test)):
        if given is not None and (given.ndim != 2 or given.shape[1] != network.inputs):
            raise RichError(f"got {name} of shape {tuple(given.shape)}, expected (samples, {network.inputs})")
        if given is not None and not given.isfinite().all():
            raise RichError(f"got {name} with numbers that are not finite")
    if y.shape != (len(x), network.outputs) or not y.isfinite().all():
        raise RichError(f"got y of shape {tuple(y.shape)}, expected finite numbers of shape ({len(x)}, {network.outputs})")
    counted("steps", steps, refusal=RichError)
    positive("lr", lr, RichError)
    for name, count in (("samples", samples), ("replicates", replicates)):
        counted(name, count, refusal=RichError)
    if replicates < 2 or samples < 100 * replicates:
        raise RichError(f"got {samples} samples in {replicates} replicates, expected at least two replicates of 100 samples")


def _sites(
    network: Network, curve: Curve, directions: Tensor, samples: int, seed: int, tolerance: float, start: Start | None
) -> list[Site]:
    """The layers' neurons; the inputs' coefficients are those on ``directions`` (d, K)."""
    sites = []
    for i in range(network.depth):
        noise = Noise(directions, samples, seed * network.depth + i)
        above = () if start is None or i > 0 else (start.first.to(directions) @ directions).T
        below = () if start is None or i < network.depth - 1 else start.readout
        beta = network.layers[i].bias ** 0.5 * noise.draw(None if start is None else start.biases[i])
        sites.append(Site(curve, noise, beta, tolerance, curve.smooth, above, below))
    return sites


class _Watch:
    """Looks at a march at every step: fields to keep, memory, divergence, progress."""

    def __init__(
        self,
        sites: list[Site],
        count: int,
        lr: float,
        steps: int,
        memory: float,
        progress: Progress | None,
        part: tuple[int, int],
        rise: float,
    ) -> None:
        self.sites, self.count, self.lr, self.steps = sites, count, lr, steps
        self.memory, self.progress, self.part, self.rise = memory, progress, part, rise
        self.fields: list[list[Tensor]] = []

    def __call__(self, step: int, march: March) -> None:
        if step in (0, self.steps):
            self.fields.append([site.h for site in self.sites])
        self._bounded(step, march)
        held = sum(site.held() for site in self.sites)
        if held > self.memory:
            raise RichError(
                f"at step {step} of {self.steps} the layers hold {held / 1e9:.1f} GB, more than the {self.memory / 1e9:.1f} GB "
                "allowed; lower samples, steps or the number of inputs, or raise tolerance"
            )
        if self.progress is not None:
            part, parts = self.part
            self.progress(part * self.steps + step, parts * self.steps, f"loss {march.track.losses[-1]:.4g}")

    def _bounded(self, step: int, march: March) -> None:
        losses = march.track.losses
        if not math.isfinite(losses[-1]) or losses[-1] > self.rise * max(losses[0], 1e-12):
            raise DivergedError(
                f"training diverges at step {step}: the loss is {losses[-1]:.3g}; lr {self.lr:g} is too large, on the squared "
                f"loss the largest stable one at initialisation is {stable_rate(march, self.count):.3g}"
            )


def stable_rate(march: March, count: int) -> float:
    """2 P / lambda_max of the tangent kernel at initialisation."""
    track, outputs = march.track, march.network.outputs
    total = torch.zeros(count * outputs, count * outputs).to(march.inputs)
    for i, layer in enumerate(march.network.layers):
        features, back = track.features[i][0][:count], track.gradients[i + 1][0][: count * outputs]
        wide = (features @ features.T).repeat_interleave(outputs, 0).repeat_interleave(outputs, 1)
        total += (layer.rates[0] * wide + layer.rates[1]) * (back @ back.T)
    return 2 * count / float(torch.linalg.eigvalsh(total)[-1])


def _dynamics(
    network: Network, lr: float, samples: int, count: int, tracks: list[Track], fields: list[list[list[Tensor]]]
) -> Dynamics:
    losses = torch.stack([torch.tensor(track.losses, dtype=torch.float64) for track in tracks])
    outputs = torch.stack([torch.stack(track.outputs) for track in tracks])
    preactivations = tuple(
        torch.cat([torch.stack([start[i], end[i]]) for start, end in fields], -1) for i in range(network.depth)
    )
    return Dynamics(
        network,
        lr,
        samples,
        losses.mean(0),
        standard_error(losses),
        outputs[:, :, :count].mean(0),
        standard_error(outputs[:, :, :count]),
        outputs[:, :, count:].mean(0),
        preactivations,
        tuple(tracks),
    )
