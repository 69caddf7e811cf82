"""Training of an infinite-width autoencoder with a finite bottleneck, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.amount import positive, real
from lazyrich.errors import KernelError
from lazyrich.inference.times import Times, times_of
from lazyrich.lazy.bottleneck.decoder import Function, TrainedDecoder
from lazyrich.lazy.bottleneck.drawn import DrawnFunction
from lazyrich.lazy.bottleneck.gauss import generator, normal, root
from lazyrich.lazy.bottleneck.path import BottleneckPath
from lazyrich.lazy.bottleneck.side import Nonlinearity, Side, behind, counted, gram, inputs, sided
from lazyrich.lazy.bottleneck.tableau import DORMAND_PRINCE, EULER, Tableau

TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class _State:
    """Where training is: P = integral of J^T e, and the decoder's function."""

    pulled: Tensor
    decoder: TrainedDecoder


class BottleneckDynamics:
    r"""Gradient descent and gradient flow on an autoencoder whose layers are all infinitely wide but one of k units.

    For the mean loss L = 1/(2N) sum_b |f(x_b) - y_b|^2 in NTK parameterisation with learning rate 1 and e_b = (f_b - y_b)/N::

        du_a/dt = - sum_b Theta_enc(x_a, x_b) J_t(u_b)^T e_b          latents
        g_t(u)  = g_0(u) - int_0^t sum_b Theta_dec(u, u_b(s)) e_b(s) ds   the decoder as a function
        J_t(u)  = dg_t/du,    f_a(t) = g_t(u_a(t))

    The derivation stands at the head of ``lazyrich.lazy.bottleneck`` (Littwin et al. 2021, arXiv:2107.00364, study the same
    networks in function space), and the tests and ``studies/bottleneck.py`` hold it against networks that are trained. The
    kernels Theta_enc(x, x') and Theta_dec(u, u') are constant functions; what moves is where the second is taken, so features
    are learnt at the bottleneck though every layer is lazy. What is random is the start: u_0 ~ GP(0, K_enc), g_0 ~ GP(0,
    K_dec).

    Args:
        encoder: kernels of the encoder, for one latent.
        decoder: kernels of the decoder, for one output; ``ntk`` differentiable by autograd.
        x: inputs, (N, ...).
        y: targets, (N, d); of an autoencoder the inputs themselves, flat.
        latents: k.
        bottleneck: phi, if the decoder reads phi(u); g and g0 are still functions of u.
        u0: latents at initialisation, (N, k); drawn where it is not given.
        g0: the decoder's function at initialisation, (N, k) -> (N, d), differentiable by autograd; a ``DrawnFunction`` where
            it is not given (for rectifiers give one with tolerance=1e-5). A network's own decoder at initialisation gives that
            network's path, up to its finite width.
        seed: of what is drawn.

    Raises:
        KernelError: for inputs, targets, latents or kernels that do not fit.

    Example:
        >>> class Linear:  # one linear layer each: a two-layer linear network, exact at every width
        ...     def nngp(self, x1, x2=None):
        ...         return x1 @ (x1 if x2 is None else x2).T / x1.shape[1]
        ...     ntk = nngp
        >>> x = torch.eye(3, dtype=torch.float64)
        >>> path = BottleneckDynamics(Linear(), Linear(), x, x, latents=2).flow([0.0, 10.0, 100.0])
        >>> bool((path.loss.diff() < 0).all())
        True
    """

    def __init__(
        self,
        encoder: Side,
        decoder: Side,
        x: Tensor,
        y: Tensor,
        latents: int,
        *,
        bottleneck: Nonlinearity | None = None,
        u0: Tensor | None = None,
        g0: Function | None = None,
        seed: int = 0,
    ) -> None:
        x, k = inputs(x), counted(latents, "latents")
        encoder, decoder = sided(encoder, "the encoder", "nngp", "ntk"), sided(decoder, "the decoder", "nngp", "ntk")
        if not isinstance(y, Tensor):
            raise KernelError(f"got targets of type {type(y).__name__}, expected a tensor (N, d); pass torch.as_tensor(y)")
        if y.dim() != 2 or len(y) != len(x) or not bool(torch.isfinite(y).all()):
            raise KernelError(
                f"got targets of shape {tuple(y.shape)} for {len(x)} inputs, expected ({len(x)}, d), finite; flatten them"
            )
        self.y, self.decoder = y.detach().double(), behind(decoder, bottleneck)
        with torch.no_grad():
            self.of_encoder = gram(encoder.ntk(x), (len(x), len(x)), "the encoder's ntk").double()
            if u0 is None:
                covariance = gram(encoder.nngp(x), (len(x), len(x)), "the encoder's nngp").double()
                u0 = root(covariance, "the encoder's nngp") @ normal(generator(seed), len(x), k)
        if tuple(u0.shape) != (len(x), k):
            raise KernelError(
                f"got u0 of shape {tuple(u0.shape)}, expected {(len(x), k)}: one row an input, one column a latent"
            )
        self.u0 = u0.detach().double()
        self.g0 = DrawnFunction(self.decoder, self.y.shape[1], seed + 1) if g0 is None else g0
        if tuple(self.g0(self.u0).shape) != tuple(self.y.shape):
            raise KernelError(
                f"got g0 with values {tuple(self.g0(self.u0).shape)}, expected {tuple(self.y.shape)} as the targets"
            )

    def descend(self, learning_rate: float, steps: int, every: int = 1) -> BottleneckPath:
        """Full-batch gradient descent, at any learning rate: integrals become learning_rate times sums over steps.

        Args:
            learning_rate: eta, for the mean loss.
            steps: how many.
            every: record every so many steps (and the last).

        Returns:
            The path at times eta * step.

        Raises:
            KernelError: for a learning rate that is not positive, and when training diverges, with the step at which it left
                what can be computed.

        Example:
            >>> class Linear:
            ...     def nngp(self, x1, x2=None):
            ...         return x1 @ (x1 if x2 is None else x2).T
            ...     ntk = nngp
            >>> one = torch.ones(1, 1, dtype=torch.float64)
            >>> start = BottleneckDynamics(Linear(), Linear(), one, 0 * one, 1, u0=one, g0=lambda u: 2 * u)
            >>> start.descend(0.1, 1).latents.flatten().tolist()  # u - eta J e = 1 - 0.1 * 2 * 2
            [1.0, 0.6]
        """
        learning_rate = positive("learning_rate", learning_rate, KernelError)
        state, rows, every = self._start(), [], counted(every, "every")
        for step in range(counted(steps, "steps") + 1):
            stage = self._step(state, learning_rate, step)
            if step % every == 0 or step == steps:
                rows.append((learning_rate * step, self._latents(state), stage[0]))
            if step < steps:
                state = self._moved(state, [stage], EULER.b, learning_rate)
        return self._path(rows, state, steps + 1)

    def flow(self, times: Times, tolerance: float = 1e-6, most: int = 40_000) -> BottleneckPath:
        """Gradient flow, by Dormand & Prince's method of order 5 with steps of its own choice.

        The state is u and the function g; a step adds its stages' latents to g's centres with the method's weights, so the
        memory integral is taken to the same order as the rest. Cost: O(M N (k + d)) a stage with M <= 6 N steps centres.

        Args:
            times: when to record: increasing and finite, from 0; one time stands for 0 and that time.
            tolerance: of a step's error in u (relative to its RMS) and in f (relative to that of the targets or outputs).
            most: centres at most; a longer path is refused.

        Returns:
            The path at the times.

        Raises:
            KernelError: for times that do not increase from 0 or never end, when training diverges, or when ``most`` is reached.
        """
        times, most = _moments(times), counted(most, "most")
        if not 1e-13 <= real(tolerance) < 1:
            raise KernelError(f"got tolerance={tolerance!r}, expected one in [1e-13, 1)")
        state, at, count = self._start(), 0.0, 1
        first = self._stage(state)
        rows, h = [(0.0, self._latents(state), first[0])], self._first_step(first)
        for time in times[1:]:
            while at < time:
                size = min(h, time - at)
                stages, error = self._stages(state, first, size)
                count += len(stages) - 1
                worst = error / tolerance
                if worst <= 1:
                    state, at = self._moved(state, stages, DORMAND_PRINCE.b, size), time if size == time - at else at + size
                    first = stages[-1]  # the last stage is the next step's first
                    if len(state.decoder.centres) > most:
                        raise KernelError(
                            f"got more than most={most} centres at time {at:.3g} of {times[-1]:.3g}, expected fewer; "
                            "raise most= or tolerance=, or ask for a shorter time"
                        )
                if worst > 1 or size == h:
                    h = size * min(5.0, max(0.2, 0.9 * max(worst, 1e-12) ** (-1 / DORMAND_PRINCE.order)))
                if h < 1e-12 * max(time, 1e-300):
                    raise KernelError(f"got steps of {h:.2g} at time {at:.3g}, expected larger ones; loosen tolerance= "
                                      "or take a smoother activation")  # fmt: skip
            rows.append((at, self._latents(state), first[0]))
        return self._path(rows, state, count)

    def _start(self) -> _State:
        empty = TrainedDecoder(self.g0, self.decoder, self.u0[:0], self.y[:0])
        return _State(torch.zeros_like(self.u0), empty)

    def _latents(self, state: _State) -> Tensor:
        return self.u0 - self.of_encoder @ state.pulled

    def _step(self, state: _State, learning_rate: float, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The stage at a step of descent; what fails far from the start fails because training diverges, and says so."""
        try:
            return self._stage(state)
        except KernelError as error:
            if not self._far(state):
                raise
            raise KernelError(
                f"got training that diverges: at step {step} with learning_rate={learning_rate:g} latents or outputs are beyond "
                "what can be computed, expected training that converges; take a smaller learning rate"
            ) from error

    def _far(self, state: _State) -> bool:
        """Whether latents or errors have grown a hundredfold since the start, or beyond all numbers."""
        n, errors = len(self.y), state.decoder.weights  # in descent: e of every step, times the learning rate
        pairs = ((self._latents(state), self.u0), (errors[-n:], errors[:n]))
        return any(not now.norm() <= 100 * before.norm() for now, before in pairs)

    def _stage(self, state: _State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """f, e, J^T e and u at a state."""
        u = self._latents(state)
        f, e, back = state.decoder.pull(u, self.y)
        if not bool(torch.isfinite(f).all() & torch.isfinite(back).all()):
            raise KernelError("got outputs that are not finite, expected finite ones; check the start, u0 and g0")
        return f, e, back, u

    def _moved(self, state: _State, stages: list, weights: Sequence[float], h: float) -> _State:
        used = [(h * w, stage) for w, stage in zip(weights, stages, strict=False) if w]
        if not used:
            return state
        pulled = state.pulled + sum(w * back for w, (_, _, back, _) in used)
        centres = torch.cat([u for _, (_, _, _, u) in used])
        return _State(pulled, state.decoder.taught(centres, torch.cat([w * e for w, (_, e, _, _) in used])))

    def _stages(self, state: _State, first: tuple, h: float) -> tuple[list, float]:
        """All stages of a step, and its error relative to the sizes of u and f."""
        stages = [first]
        for row in DORMAND_PRINCE.a[1:]:
            stages.append(self._stage(self._moved(state, stages, row, h)))
        return stages, self._error(stages, DORMAND_PRINCE, h)

    def _error(self, stages: list, method: Tableau, h: float) -> float:
        f, _, _, u = stages[-1]
        of_pull = sum(g * back for g, (_, _, back, _) in zip(method.gap, stages, strict=True))
        of_u = h * (self.of_encoder @ of_pull)
        centres = torch.cat([stage[3] for stage in stages])
        with torch.no_grad():
            of_g = self.decoder.ntk(u, centres) @ torch.cat(
                [h * g * e for g, (_, e, _, _) in zip(method.gap, stages, strict=True)]
            )
        size_u, size_f = u.square().mean().sqrt(), torch.maximum(f.square().mean(), self.y.square().mean()).sqrt()
        return float(torch.maximum(of_u.abs().max() / size_u.clamp_min(TINY), of_g.abs().max() / size_f.clamp_min(TINY)))

    def _first_step(self, stage: tuple) -> float:
        """A hundredth of the time in which u or f would change by its size at the present speed; what is zero has no size yet."""
        f, e, back, u = stage
        with torch.no_grad():
            pairs = ((self.of_encoder @ back, u.norm()), (self.decoder.ntk(u, u) @ e, torch.maximum(f.norm(), self.y.norm())))
        return 0.01 / max([*(float(change.norm() / size) for change, size in pairs if size > 0), 1e-12])

    def _path(self, rows: list, state: _State, evaluations: int) -> BottleneckPath:
        times, latents, outputs = zip(*rows, strict=True)
        f = torch.stack(outputs)
        loss = (f - self.y).square().sum((1, 2)) / (2 * len(self.y))
        return BottleneckPath(
            torch.tensor(times, dtype=torch.float64), torch.stack(latents), f, loss, state.pulled, state.decoder, evaluations
        )


def _moments(times: Times) -> list[float]:
    """When a flow is recorded: 0 first, then increasing finite times."""
    found = times_of(times, "times")
    moments = found.tolist() if found.ndim else [0.0, *([float(found)] if found else [])]
    if moments[0] != 0 or any(not b > a for a, b in zip(moments, moments[1:], strict=False)):
        raise KernelError(f"got times {moments[:5]}, expected increasing ones that begin with 0")
    if moments[-1] == float("inf"):
        raise KernelError(
            f"got times that end with inf, expected finite ones: this flow is stepped through; ask for a long time such as "
            f"{100 * max(1.0, *moments[:-1]):g} and see whether path.loss still falls"
        )
    return moments
