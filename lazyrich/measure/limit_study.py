"""A plan's rich limit with its own finite networks beside it: what they approach, and how fast."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lazyrich import __version__
from lazyrich.data import load
from lazyrich.errors import DivergedError, RichError, UsageError
from lazyrich.measure.limit_result import POOR, LimitResult
from lazyrich.measure.movement import kernel_movement
from lazyrich.measure.watch import columns
from lazyrich.rich import Dynamics, dmft
from lazyrich.rich.chain import Maps
from lazyrich.rich.curve import Curve, curve_of
from lazyrich.rich.fixed import descend
from lazyrich.rich.objective import LOSSES, Objective
from lazyrich.rich.planned import LARGE, names_of, read, targets_of
from lazyrich.rich.solver import RISE
from lazyrich.scaling import Plan, as_plan
from lazyrich.scaling.optimizer import momentum_of
from lazyrich.sweep import RunFolder, kept
from lazyrich.tangent.alignment import target_alignment
from lazyrich.train.refusal import take_step

FRACTIONS = (
    0.25,
    0.08,
    0.02,
    0.005,
    0.0015,
    0.0005,
)  # of the largest stable rate at initialisation, tried until the limit is calm
CALM = 3.0  # times its start that a loss may rise to at a rate that nobody asked for: a catapult that training comes back from
GAIN = 0.7  # a lower rate that leaves more than this of the outputs' error has no part in it
BINS, REACH = 32, 4.0  # of a density of pre-activations, and its ends in standard deviations
TOLERANCE = 1e-4  # of the limit's bases: two thousandths of the outputs, for a fraction of the default's time
Progress = Callable[[int, int, str], None]


def limit(
    plan: Plan,
    data: Any = "digits",
    steps: int = 40,
    *,
    lr: float | None = None,
    loss: str = "squared",
    widths: Sequence[int] = (64, 256, 1024),
    seeds: int = 4,
    samples: int = 16,
    test: int = 8,
    neurons: int = 4000,
    centred: bool | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> LimitResult:
    """Train a plan's network at infinite width, with a kernel that does not move, and at several widths, all by the same steps.

    The limit is ``dmft``'s (Bordelon & Pehlevan 2022, arXiv:2205.09653); the kernel that does not move is the limit's own at
    initialisation, which is the prediction of the lazy limit. Single networks approach the limit as width^(-1/2). A scheme in the
    kernel regime has a limit too, where the features stay: the two predictions then agree.

    Args:
        plan: for SGD with its family, a fully connected network.
        data: whatever ``lazyrich.data.load`` reads; two classes for a network of one output.
        steps: of gradient descent on all training samples.
        lr: of the base-width network; by default a quarter of the largest stable one at initialisation, and less where the
            loss rises or the outputs are poorly known there.
        loss: ``squared`` (half the square), ``logistic`` or ``cross_entropy``.
        widths: of the finite networks.
        seeds: networks a width.
        samples: for training; the limit's time grows as their square or faster.
        test: more samples, watched and not learnt.
        neurons: sampled neurons a layer of the limit.
        centred: take the networks' initial outputs off; by default where they do not vanish with the width.
        seed: of samples and networks.
        folder: a run folder; finished parts are kept there and the same call continues.
        progress: called with (done, in all, what is going on).
        command: how a person repeats this, for the report.

    Raises:
        UsageError: for numbers that make no study.
        RichError: for a network or plan that the limit does not cover, and training that diverges.
        TrainError: for a network that returns something else than one tensor.

    Example:
        >>> import lazyrich as lzr
        >>> family = lzr.Family(lzr.zoo.two_class, base=16)
        >>> plan = lzr.plan(family, lzr.mup(), "sgd", init={"readout.bias": 0.0})
        >>> pair = lzr.data.load("digits").only([3, 8])
        >>> found = limit(plan, pair, 3, widths=(16, 64), seeds=2, samples=4, test=2, neurons=400)
        >>> found.widths[1]["width"], found.loss["limit"][3] < found.loss["limit"][0]
        (64, True)
    """
    study = _study(as_plan(plan), data, steps, lr, loss, sorted(set(widths)), seeds, samples, test, neurons, centred, seed)
    store = RunFolder(folder, study.settings()) if folder else None
    show = progress or (lambda done, total, what: None)

    theory = kept(store, "limit", lambda: study.theory(show))
    jobs = [(width, s) for width in study.widths for s in range(seeds)]
    sizes, runs = [width + 64 for width, _ in jobs], []
    for i, (width, own) in enumerate(jobs):
        before, total = sum(sizes[:i]) * steps, sum(sizes) * steps

        def told(step: int, size: int = sizes[i], before: int = before, total: int = total, width: int = width) -> None:
            show(before + size * step, total, f"networks of width {width}")

        runs.append(
            {"width": width}
            | kept(store, f"width{width}-seed{own}", lambda w=width, s=own, t=told: study.network(w, s, theory, t))
        )
    versions = {"lazyrich": __version__, "torch": torch.__version__, "python": platform.python_version()}
    settings = study.settings() | {"lr": float(f"{theory['lr']:.4g}")}
    reproduce = {"command": command, "versions": versions, "date": date.today().isoformat()}
    title = f"{plan.family.name if plan.family else 'network'} · {plan.scheme.name} · {study.data}"
    return LimitResult(title, theory, runs, settings, reproduce)


@dataclass(frozen=True)
class Study:
    """What the parts share; inputs (P + P', d) float64, of which the first P have targets (P, C) that are learnt."""

    plan: Plan
    x: Tensor
    y: Tensor
    test_y: Tensor
    maps: Maps
    curve: Curve
    steps: int
    lr: float | None
    loss: str
    widths: list[int]
    seeds: int
    neurons: int
    regime: str
    centred: bool
    seed: int
    data: str
    fingerprint: str

    def settings(self) -> dict[str, Any]:
        """Whatever decides the numbers."""
        family = self.plan.family
        return {
            "family": repr(family), "network": family.fingerprint if family else "", "plan": str(self.plan),
            "fingerprint of the plan": self.plan.fingerprint, "data": self.data, "fingerprint": self.fingerprint,
            "samples": len(self.y), "test": len(self.test_y), "steps": self.steps, "lr": self.lr, "loss": self.loss,
            "widths": self.widths, "seeds": self.seeds, "neurons": self.neurons, "centred": self.centred, "seed": self.seed,
        }  # fmt: skip

    @property
    def layers(self) -> list[str]:
        """Names of the hidden ones."""
        return names_of(self.maps)

    @property
    def momentum(self) -> float:
        """The plan's."""
        return momentum_of(self.plan.optimizer_name)

    def theory(self, show: Progress) -> dict[str, Any]:
        """The limit and its fixed kernel."""
        stable = self._stable()
        lr, found = (
            self._searched(stable, show) if self.lr is None else (self.lr, self._limit(self.steps, self.lr, self.neurons, show))
        )
        objective = Objective(self.loss, self.y, len(self.x))
        fixed = descend(found.tangent(0), objective, self.steps, lr, self.momentum)
        outputs, still = (torch.cat([path.outputs, path.test_outputs], 1) for path in (found, fixed))
        return {
            "lr": lr, "stable_lr": stable, "regime": self.regime, "gamma0": found.network.gamma0,
            "loss": found.loss.tolist(), "loss_error": found.loss_error.tolist(), "fixed_loss": fixed.loss.tolist(),
            "test_loss": self._test_loss(outputs), "fixed_test_loss": self._test_loss(still),
            "outputs": outputs.flatten(1).tolist(), "accuracy": found.accuracy, "fixed_off": _off(still, outputs),
            "layers": [self._layer(found, i) for i in range(1, len(self.layers) + 1)],
            "targets": (self.y[:, 0] if self.y.shape[1] == 1 else self.y.argmax(1)).tolist(),
        }  # fmt: skip

    def network(self, width: int, seed: int, theory: dict[str, Any], told: Callable[[int], None]) -> dict[str, Any]:
        """One finite network, trained by its plan's optimizer."""
        model = self.plan.build(width, self.seed + seed).double()
        optimizer, count = self.plan.optimizer(model, theory["lr"]), len(self.y)
        with torch.no_grad():
            start = self._outputs(model) if self.centred else 0.0
        before, losses, outputs = self._hidden(model), [], []
        for step in range(self.steps + 1):
            f = self._outputs(model) - start
            value = LOSSES[self.loss](f[:count], self.y)
            losses.append(float(value.detach()))
            outputs.append(f.detach())
            told(step)
            if not math.isfinite(losses[-1]):
                return {"seed": seed, "diverged": step, "loss": losses[:-1]}
            if step < self.steps:
                optimizer.zero_grad()
                value.backward()
                take_step(optimizer)
        path, after = torch.stack(outputs), self._hidden(model)
        return {
            "seed": seed, "diverged": None, "loss": losses, "test_loss": self._test_loss(path),
            "outputs": path.flatten(1).tolist(), "off": _off(path.flatten(1), torch.tensor(theory["outputs"], dtype=path.dtype)),
            "layers": [
                {
                    "kernel": self._kernel(h).tolist(), "start": self._kernel(h0).tolist(),
                    "alignment": self._alignment(self._kernel(h)),
                    "before": _histogram(h0[0], known["edges"]), "after": _histogram(h[0], known["edges"]),
                }
                for h0, h, known in zip(before, after, theory["layers"], strict=True)
            ],
        }  # fmt: skip

    def _searched(self, stable: float, show: Progress) -> tuple[float, Dynamics]:
        """At the first rate where the loss falls and the outputs are known, or as well as a lower rate lets them be.

        What is stable at initialisation is not where features move a lot: the tangent kernel grows with them.
        """
        best: tuple[float, Dynamics] | None = None
        refused: DivergedError | None = None
        for lr in (fraction * stable for fraction in FRACTIONS):
            try:
                found = _calm(self._limit(self.steps, lr, self.neurons, show, CALM))
            except DivergedError as error:
                refused = error
                continue
            if best is not None and not found.accuracy < GAIN * best[1].accuracy:
                return best
            best = lr, found
            if found.accuracy <= POOR:
                return best
        if best is None:
            assert refused is not None
            raise refused
        return best

    def _stable(self) -> float:
        """2 P / lambda_max of the limit's tangent kernel at initialisation."""
        begun = self._limit(1, 1e-9, max(800, self.neurons // 4), lambda done, total, what: None).tangent(0)
        trained = self.y.numel()
        return 2 * len(self.y) / float(torch.linalg.eigvalsh(begun[:trained, :trained])[-1])

    def _limit(self, steps: int, lr: float, neurons: int, show: Progress, rise: float = RISE) -> Dynamics:
        width = None if self.regime == "feature learning" else LARGE * self.plan.base
        return dmft(
            self.plan, (self.x[: len(self.y)], self.y), steps, lr=lr, loss=self.loss, width=width, samples=neurons, seed=self.seed,
            x_test=self.x[len(self.y) :] if len(self.test_y) else None, tolerance=TOLERANCE, rise=rise,
            progress=lambda done, total, what: show(done, total, f"infinite width, {what}"),
        )  # fmt: skip

    def _layer(self, found: Dynamics, layer: int) -> dict[str, Any]:
        start, end = found.features(layer, 0), found.features(layer)
        h0, h = found.preactivations[layer - 1][:, 0]
        reach = REACH * float(torch.stack([h0, h]).std(1).max())
        own = slice(len(self.y))  # what moves is told of the training samples: how many others are watched must not matter
        error, moved = found.features_error(layer)[own, own], kernel_movement(start[own, own], end[own, own])
        edges = torch.linspace(-reach, reach, BINS + 1, dtype=torch.float64).tolist()
        return {
            "layer": self.layers[layer - 1], "start": start.tolist(), "kernel": end.tolist(),
            "kernel_error": float(error.norm() / end[own, own].norm()), "movement": moved,
            "alignment": self._alignment(end), "start_alignment": self._alignment(start), "edges": edges,
            "before": _histogram(h0, edges), "after": _histogram(h, edges),
        }  # fmt: skip

    def _outputs(self, model: nn.Module) -> Tensor:
        """(P + P', C), also of networks that drop the last axis."""
        return columns(model(self.x))

    @torch.no_grad()
    def _hidden(self, model: nn.Module) -> list[Tensor]:
        """Pre-activations (P + P', n) of the hidden layers, from the tensors: a module may hold several, or the function too."""
        tensors, found = dict(model.named_parameters()), []
        for weight, bias in self.maps[:-1]:
            below = self.curve.phi(found[-1]) if found else self.x
            found.append(F.linear(below, tensors[weight], None if bias is None else tensors[bias]))
        return found

    def _kernel(self, h: Tensor) -> Tensor:
        phi = self.curve.phi(h)
        return phi @ phi.T / h.shape[1]

    def _alignment(self, kernel: Tensor) -> float:
        count = len(self.y)
        return target_alignment(kernel[:count, :count], self.y)

    def _test_loss(self, outputs: Tensor) -> float | None:
        """Of the last step; None without test samples."""
        return float(LOSSES[self.loss](outputs[-1, len(self.y) :], self.test_y)) if len(self.test_y) else None


def _calm(found: Dynamics) -> Dynamics:
    """It, unless its training ends above where it began."""
    start, end = float(found.loss[0]), float(found.loss[-1])
    if not end <= start:
        raise DivergedError(
            f"at infinite width {found.steps} steps take the loss from {start:.3g} up to {end:.3g}; lr {found.lr:g} is too large"
        )
    return found


def _off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def _histogram(values: Tensor, edges: list[float]) -> list[float]:
    """A density on bins with these edges; what lies outside counts in the total."""
    known = torch.tensor(edges, dtype=torch.float64)
    counts, _ = torch.histogram(values.double().cpu().contiguous(), known)
    return (counts / (len(values) * (known[1] - known[0]))).tolist()


def _study(
    plan: Plan, data: Any, steps: int, lr: float | None, loss: str, widths: list[int], seeds: int, samples: int, test: int,
    neurons: int, centred: bool | None, seed: int,
) -> Study:  # fmt: skip
    for name, value, least in (
        ("steps", steps, 1),
        ("seeds", seeds, 1),
        ("samples", samples, 3),
        ("test", test, 0),
        ("neurons", neurons, 400),
    ):
        if value < least:
            raise UsageError(f"got {name} = {value}, expected at least {least}")
    if len(widths) < 2 or widths[0] < plan.base:
        raise UsageError(f"got widths {widths}, expected two or more different ones, none below the plan's base {plan.base}")
    if lr is not None and not 0 < lr < math.inf:
        raise UsageError(f"got lr = {lr}, expected a learning rate: positive and finite")
    known = load(data)
    if len(known) < samples + test:
        raise UsageError(f"got {samples} + {test} samples, but '{known.name}' has {len(known)}; lower samples or test")
    chosen = known.subset(samples + test, seed)
    network, maps = read(plan, chosen.x)
    with torch.no_grad():
        columns(plan.build(plan.base)(chosen.x[:2]))  # the limit reads outputs in a dictionary, its networks' loss does not
    y = targets_of(chosen, network.outputs)
    if bool((y[:samples] == y[0]).all()):
        raise UsageError(f"all {samples} training samples have the same target; give more samples, or another seed")
    if y.shape[1] != network.outputs:
        many = f"{network.outputs} output{'' if network.outputs == 1 else 's'}"
        raise RichError(f"got targets of {y.shape[1]} numbers for a network of {many}; give it as many")
    regime = plan.scheme.classify("sgd").regime
    return Study(
        plan, chosen.x.double().flatten(1), y[:samples], y[samples:], maps, curve_of(network.activation),
        steps, lr, loss, widths, seeds, neurons, regime, regime == "kernel" if centred is None else centred, seed, known.name,
        chosen.fingerprint(),
    )  # fmt: skip
