"""The pi-limit: infinite width with projected gradients, whose features move and which trains on thousands of samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lazyrich.amount import counted, positive, unsigned
from lazyrich.data import ArrayData, load
from lazyrich.errors import DivergedError, RichError
from lazyrich.gaussian import dual
from lazyrich.gaussian.rectifier import Rectifier
from lazyrich.rich.network import Network, as_network
from lazyrich.rich.objective import LOSSES, Objective
from lazyrich.rich.planned import targets_of

Progress = Callable[[int, int, str], None]


class ProjectedLimit:
    """An infinitely wide network of rectifiers whose gradients are projected to r directions (Yang, Santacroce & Hu 2022).

    Pre-activations are h^l = omega^l . g^l with omega^l ~ N(0, 1_r) a neuron, so that a layer is known by r numbers a sample:

        g^1 = U x / sqrt(d) + beta^1,   g^{l+1} = sum_m A^l_m V(B^l_m, g^l) + beta^{l+1},   f = sum_m A^L_m V(B^L_m, g^L) + b,

    V(a, b) = E phi(omega . a) phi(omega . b), the arc-cosine kernel. A step of gradient descent, its gradients projected to the
    span of omega, appends to each sum one term a sample: B = g^l, and A = -lr gamma_0^2 kappa dLoss/dg^{l+1}. So it is gradient
    descent on every g^l in the space of the arc-cosine kernel: functions that are learnt, not features that are fixed.

    A layer starts as a sum over ``start`` random directions B of length 1 with random normal A, sized so that lengths are those
    of the network; the readout starts at zero, as in any rich limit. After T steps on batches of P a layer holds (T P + start) r
    numbers twice; a step costs five products of that size with the batch.

    Args:
        network: rates, variances and richness; ``network_of(plan, x)`` for a plan's own. ReLU, leaky ReLU or absolute value.
        rank: r.
        start: terms at the start; r when not given.
        seed: of the start.
        dtype: float32 or float64.
        device: where it lives.

    Raises:
        RichError: for an activation that is no rectifier, whose products are not known by V alone.

    Example:
        >>> x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
        >>> limit = ProjectedLimit(Network.uniform(3, depth=2, activation="relu", weight=2.0), rank=16)
        >>> losses = limit.fit((x, x[:, :1]), steps=20, lr=0.2)
        >>> bool(losses[-1] < 0.5 * losses[0]), limit(x).shape, limit.features(2, x).shape
        (True, torch.Size([8, 1]), torch.Size([8, 8]))
    """

    def __init__(
        self,
        network: Network,
        rank: int = 100,
        *,
        start: int | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        curve = dual(as_network(network).activation)
        if not isinstance(curve, Rectifier) or curve.b != 1:
            raise RichError(f"got activation '{curve.name}', expected a rectifier by its name: relu, leaky_relu or abs")
        start = rank if start is None else start
        counted("rank", rank, refusal=RichError)
        counted("start", start, refusal=RichError)
        self.network, self.rank, self.curve, self.start = network, rank, curve, start
        self.generator = torch.Generator().manual_seed(seed)
        self.like = torch.empty(0, dtype=dtype, device=device)
        first = network.layers[0]
        self.first = (first.weight / (rank * network.inputs)) ** 0.5 * self._normal(rank, network.inputs)
        self.biases = [(layer.bias / rank) ** 0.5 * self._normal(rank) for layer in network.layers[:-1]]
        self.biases.append(self.like.new_zeros(network.outputs))
        self.sums = [self._drawn(layer.weight) for layer in network.layers[1:-1]]
        self.sums.append(_Sum(self.like.new_zeros(0, network.outputs), self.like.new_zeros(0, rank)))
        self.speeds = [torch.zeros_like(t) for t in (self.first, *self.biases)]

    def __call__(self, x: Tensor, rows: int = 2048) -> Tensor:
        """Outputs (N, C) at inputs (N, d), ``rows`` at a time."""
        return torch.cat([self._forward(part)[0][-1] for part in self._flat(x).split(rows)])

    def features(self, layer: int, x: Tensor) -> Tensor:
        """Phi^l = E phi(h^l) phi(h^l), (N, N); layer 1 is the first hidden one."""
        if not 1 <= layer <= self.network.depth:
            raise RichError(f"got layer {layer}, expected 1 to {self.network.depth}")
        g = self._forward(self._flat(x))[0][layer - 1]
        lengths = g.square().sum(1)
        return self.curve.kernel(g @ g.T, lengths[:, None], lengths[None])

    def fit(
        self,
        data: Any,
        steps: int,
        *,
        lr: float,
        batch: int | None = None,
        loss: str = "squared",
        momentum: float = 0.0,
        seed: int = 0,
        memory: float = 8e9,
        progress: Progress | None = None,
    ) -> Tensor:
        """Gradient descent; the same call again goes on, with its batches from the first again.

        Args:
            data: what ``lazyrich.data.load`` takes. Labels become +-1 for one output, rows of ones and zeros for more.
            steps: T.
            lr: in function space, as in ``solve``.
            batch: samples a step, in the order of ``ArrayData.batch``; all when not given.
            loss: ``squared`` (half the square), ``logistic`` or ``cross_entropy``.
            momentum: of heavy-ball gradient descent.
            seed: of the batches.
            memory: bytes that the sums may take.
            progress: told (done, total, what).

        Returns:
            The batches' losses before each step, (T,).

        Raises:
            RichError: for data that do not fit, training that diverges, too little memory.
        """
        known = load(data)
        x, y = self._flat(known.x), targets_of(known, self.network.outputs).to(self.like)
        if y.shape != (len(x), self.network.outputs):
            raise RichError(f"got targets of shape {tuple(y.shape)}, expected ({len(x)}, {self.network.outputs})")
        counted("steps", steps, refusal=RichError)
        lr, momentum = positive("lr", lr, RichError), unsigned("momentum", momentum, RichError)
        Objective(loss, y, len(y))  # refuses a loss that is not known, and targets that are not its own
        size = len(x) if batch is None else min(counted("batch", batch, refusal=RichError), len(x))
        self._room(steps * size, memory)
        order = ArrayData(torch.arange(len(x)), torch.arange(len(x)))
        losses: list[float] = []
        for step in range(steps):
            chosen = order.batch(size, step, seed)[0].to(self.like.device)
            losses.append(self._step(x[chosen], y[chosen], lr, loss, momentum))
            if not math.isfinite(losses[-1]) or losses[-1] > 1e4 * max(losses[0], 1e-12):
                raise DivergedError(f"training diverges at step {step}: the loss is {losses[-1]:.3g}; lower lr {lr:g}")
            if progress is not None:
                progress(step + 1, steps, f"loss {losses[-1]:.4g}")
        return torch.tensor(losses, dtype=torch.float64)

    def sample(self, width: int, seed: int = 0) -> nn.Sequential:
        """A network of a finite width drawn from the limit as it stands, whose outputs are the limit's up to width^-1/2."""
        counted("width", width, refusal=RichError)
        generator = torch.Generator().manual_seed(seed)
        omegas = [torch.randn(width, self.rank, generator=generator).to(self.like) for _ in range(self.network.depth)]
        weights = [omegas[0] @ self.first]
        for i, held in enumerate(self.sums):
            known = nn.functional.leaky_relu(omegas[i] @ held.directions.T, self.curve.a)  # (n, M)
            added = held.terms.T @ known.T / width
            weights.append(added if i == len(self.sums) - 1 else omegas[i + 1] @ added)
        offsets = [omega @ bias for omega, bias in zip(omegas, self.biases, strict=False)] + [self.biases[-1]]
        modules: list[nn.Module] = []
        for weight, offset in zip(weights, offsets, strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=self.like.dtype, device=self.like.device)
            with torch.no_grad():
                layer.weight.copy_(weight)
                layer.bias.copy_(offset)
            modules += [layer, nn.LeakyReLU(self.curve.a)]
        return nn.Sequential(*modules[:-1])

    def rates(self, width: int, lr: float) -> list[tuple[float, float]]:
        """Learning rates of ``sample``'s weights and biases, layer by layer, that go with ``fit``'s: those of muP."""
        hidden, found = lr * self.network.gamma0**2, []
        for i, layer in enumerate(self.network.layers):
            weight, bias = layer.rates
            if i == self.network.depth:
                found.append((lr * weight / width, lr * bias))
            else:
                fan_in = self.network.inputs if i == 0 else width
                found.append((hidden * weight * width / fan_in, hidden * width * bias))
        return found

    def _forward(self, x: Tensor) -> tuple[list[Tensor], list[_Products]]:
        """g^1 ... g^L and the outputs, with what the backward pass needs of each sum."""
        rows, passes = [x @ self.first.T + self.biases[0]], []
        for held, bias in zip(self.sums, self.biases[1:], strict=True):
            value, products = held.forward(self.curve, rows[-1])
            rows.append(value + bias)
            passes.append(products)
        return rows, passes

    def _step(self, x: Tensor, y: Tensor, lr: float, loss: str, momentum: float) -> float:
        rows, passes = self._forward(x)
        f = rows[-1].requires_grad_()
        with torch.enable_grad():
            value = LOSSES[loss](f, y)
            (slope,) = torch.autograd.grad(value, f)
        slopes = [slope]
        for held, g, products in zip(reversed(self.sums), reversed(rows[:-1]), reversed(passes), strict=True):
            slopes.insert(0, held.backward(g, products, slopes[0]))
        hidden = lr * self.network.gamma0**2
        scales = [hidden] * self.network.depth + [lr]
        for held, g, down, layer, scale in zip(self.sums, rows, slopes[1:], self.network.layers[1:], scales[1:], strict=False):
            held.append(-scale * layer.rates[0] * down, g, momentum)
        moves = [-hidden * self.network.layers[0].rates[0] / self.network.inputs * slopes[0].T @ x]
        moves += [-s * layer.rates[1] * p.sum(0) for s, layer, p in zip(scales, self.network.layers, slopes, strict=True)]
        for tensor, speed, move in zip((self.first, *self.biases), self.speeds, moves, strict=True):
            tensor.add_(speed.mul_(momentum).add_(move))
        return float(value.detach())

    def _room(self, terms: int, memory: float) -> None:
        needed = sum((len(held) + terms) * held.wide for held in self.sums) * self.like.element_size()
        if needed > memory:
            raise RichError(
                f"{terms} more terms a layer need {needed / 1e9:.1f} GB, more than the {memory / 1e9:.1f} GB allowed; lower steps, "
                "batch or rank"
            )
        for held in self.sums:
            held.reserve(terms)

    def _drawn(self, weight: float) -> _Sum:
        directions = torch.nn.functional.normalize(self._normal(self.start, self.rank), dim=1)
        ones = self.like.new_ones(self.start)
        between = self.curve.kernel(directions @ directions.T, ones[:, None], ones[None])
        size = (weight * float(self.curve.variance(ones[:1])) / (self.rank * float(between.square().sum(1).mean()))) ** 0.5
        return _Sum(size * self._normal(self.start, self.rank), directions)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64).to(self.like)

    def _flat(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.dim() < 2:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise RichError(f"got inputs {got}, expected a tensor (N, {self.network.inputs})")
        flat = x.flatten(1).to(self.like)
        if flat.shape[1] != self.network.inputs:
            raise RichError(f"got inputs of shape {tuple(x.shape)}, expected {self.network.inputs} numbers a sample")
        return flat


class _Products(NamedTuple):
    """Of all directions with all rows, (M, N): B . g, V(B, g) and E phi' phi'."""

    inner: Tensor
    values: Tensor
    slopes: Tensor


class _Sum:
    """G -> sum_m A_m V(B_m, g), with room to grow."""

    def __init__(self, terms: Tensor, directions: Tensor) -> None:
        self.count = len(terms)
        self.kept = [terms, torch.zeros_like(terms), directions, directions.square().sum(1)]

    def __len__(self) -> int:
        return self.count

    @property
    def wide(self) -> int:
        """Numbers a term."""
        return sum(math.prod(t.shape[1:]) for t in self.kept)

    @property
    def terms(self) -> Tensor:
        """A, (M, r')."""
        return self.kept[0][: self.count]

    @property
    def directions(self) -> Tensor:
        """B, (M, r)."""
        return self.kept[2][: self.count]

    @property
    def lengths(self) -> Tensor:
        """|B|^2, (M,)."""
        return self.kept[3][: self.count]

    def reserve(self, more: int) -> None:
        """Room for so many terms more, so that appending moves nothing."""
        for i, old in enumerate(self.kept):
            room = old.new_empty(self.count + more, *old.shape[1:])
            room[: self.count] = old[: self.count]
            self.kept[i] = room

    def forward(self, curve: Rectifier, g: Tensor) -> tuple[Tensor, _Products]:
        """The sums (N, r') of rows (N, r), and the products that they are made of."""
        inner = self.directions @ g.T
        values, slopes = curve.both(inner, self.lengths[:, None], g.square().sum(1)[None])
        return values.T @ self.terms, _Products(inner, values, slopes)

    def backward(self, g: Tensor, of: _Products, down: Tensor) -> Tensor:
        """DLoss/dg from dLoss/d(sum), (N, r): dV/db = V' a + (V - (a . b) V') b / |b|^2 where V' = E phi' phi'."""
        pulled = self.terms @ down.T
        along = (pulled * (of.values - of.inner * of.slopes)).sum(0) / g.square().sum(1).clamp(min=1e-30)
        return (pulled * of.slopes).T @ self.directions + along[:, None] * g

    def append(self, move: Tensor, g: Tensor, momentum: float) -> None:
        """A step of gradient descent: terms that are there keep their speed, the batch adds its own."""
        old, new = slice(0, self.count), slice(self.count, self.count + len(g))
        terms, speeds, directions, lengths = self.kept
        if momentum:
            terms[old] += speeds[old].mul_(momentum)
        terms[new], speeds[new] = move, move
        directions[new], lengths[new] = g, g.square().sum(1)
        self.count += len(g)
