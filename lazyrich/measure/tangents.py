"""One network at its own width: how far it trains from its tangent, and what its kernels predict of that."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich import __version__
from lazyrich.amount import counted, positive
from lazyrich.data import ArrayData, load
from lazyrich.errors import RAISED, KernelError, TangentError, UsageError, first_line
from lazyrich.inference import gradient_flow, max_learning_rate, one_hot_targets, spectrum
from lazyrich.lazy import kernel
from lazyrich.measure.few import few_predictions
from lazyrich.measure.movement import feature_movement, kernel_distance, kernel_movement
from lazyrich.measure.tangent_result import TangentResult
from lazyrich.measure.watch import capture, columns, state_of
from lazyrich.scaling import Plan, as_plan
from lazyrich.sweep import RunFolder, kept
from lazyrich.tangent.alignment import align, layer_kernels
from lazyrich.tangent.ntk import ntk_of
from lazyrich.train import Run, loss_for, train

LARGEST = 4000  # outputs of the training samples: side of the full tangent kernel
FEWEST, MOST = 2, 24  # samples of the hierarchy, whose entries are their fourth power
FRACTIONS = (0.25, 0.08, 0.02)  # of the largest learning rate of the linearised network, the first that does not diverge
LOOKS = 16
POINTS = 80  # of a spectrum
NAMES = {"training": "tangent kernels", "few": "the hierarchy to order 4", "limit": "infinite width"}
Progress = Callable[[int, int, str], None]


def tangents(
    plan: Plan,
    data: Any = "digits",
    width: int | None = None,
    *,
    samples: int = 128,
    test: int = 256,
    few: int = 8,
    steps: int = 400,
    lr: float | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> TangentResult:
    """Train a network by full-batch gradient descent, with its linearisation, kernels and higher kernels beside it.

    Linearised training as in Lee et al. 2019 (arXiv:1902.06720), the hierarchy of Huang & Yau 2019 (arXiv:1909.08156).

    The loss is 1/(2N) sum (f - y)^2; classes are one-hot columns, centred, and two of them -1 and 1 where the network has one
    output. The linearised network takes the same steps, which its tangent kernel at initialisation gives in closed form. All
    kernels count the plan's learning rates; all is float64.

    Args:
        plan: from ``lazyrich.plan``, with its family, for SGD.
        data: whatever ``lazyrich.data.load`` reads.
        width: of the network; the plan's base by default, where a plan is the plain network.
        samples: training samples.
        test: held-out samples; fewer where the data has fewer left.
        few: samples for the hierarchy with K4, on one output: two classes against each other, half of the samples each, or the
            targets' main direction; fewer where the training samples have fewer.
        steps: of gradient descent.
        lr: learning rate at the base width; by default a quarter of the largest at which the linearised network converges,
            and less if the network diverges there.
        seed: of samples and network.
        folder: a run folder; finished parts are kept there and the same call continues.
        progress: called with (steps done, steps in all, what is going on).
        command: how a person repeats this, for the report.

    Raises:
        UsageError: for numbers of samples or steps that make no study.
        TangentError: for a network that has no tangent kernel.

    Example:
        >>> import lazyrich as lzr
        >>> plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.ntk(), "sgd")
        >>> found = tangents(plan, "digits", samples=12, test=20, few=4, steps=20)
        >>> found.moments[-1]["linear_loss"] < found.moments[0]["linear_loss"], len(found.spectra)
        (True, 2)
    """
    study = _study(as_plan(plan), load(data), plan.base if width is None else width, samples, test, few, steps, lr, seed)
    store = RunFolder(folder, study.settings()) if folder else None
    found: dict[str, Any] = {}
    show = progress or (lambda done, total, what: None)
    parts: dict[str, Callable[[], Any]] = {
        "training": lambda: study.training(show),
        "few": study.hierarchy,
        "limit": lambda: study.limit(found["training"]["lr"]),
    }
    for name, part in parts.items():
        show(0, 1, NAMES[name])
        found[name] = kept(store, name, part)
        show(1, 1, NAMES[name])
    versions = {"lazyrich": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return TangentResult(
        title=f"{study.name} · {plan.scheme.name} · {study.data}",
        moments=found["training"]["moments"],
        spectra=found["training"]["spectra"],
        few=found["few"],
        limit=found["limit"],
        settings=study.settings() | {"lr": float(f"{found['training']['lr']:.4g}")},
        reproduce={"command": command, "versions": versions, "date": date.today().isoformat()},
    )


@dataclass(frozen=True)
class Study:
    """What the parts share; tensors float64, targets (N, K), classes or None."""

    plan: Plan
    width: int
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    labels: Tensor | None
    test_labels: Tensor | None
    few: int
    steps: int
    lr: float | None
    seed: int
    data: str
    fingerprint: str

    @property
    def name(self) -> str:
        """The family's, with the width."""
        return f"{self.plan.family.name if self.plan.family else 'network'} at width {self.width}"

    def settings(self) -> dict[str, Any]:
        """Whatever decides the numbers."""
        family = self.plan.family
        return {
            "family": repr(family), "network": family.fingerprint if family else "", "scheme": self.plan.scheme.name,
            "plan": self.plan.fingerprint, "base": self.plan.base, "width": self.width, "data": self.data,
            "fingerprint": self.fingerprint,
            "samples": len(self.x), "test": len(self.test_x), "few": self.few, "steps": self.steps, "lr": self.lr,
            "loss": "1/(2N) sum of squares", "seed": self.seed,
        }  # fmt: skip

    def build(self) -> nn.Module:
        """The untrained network."""
        return self.plan.build(self.width, self.seed).double()

    @property
    def rates(self) -> dict[str, float]:
        """Learning-rate factor of every tensor."""
        return {name: setting.lr for name, setting in self.plan.settings(self.width).items()}

    def looks(self) -> list[int]:
        """Steps after which to look: the first ones, and then evenly on a logarithmic axis."""
        return sorted({0, *(round(self.steps ** (i / (LOOKS - 2))) for i in range(LOOKS - 1))})

    def training(self, show: Progress) -> dict[str, Any]:
        """Training, with a look at chosen steps, and the linearised network at the same ones."""
        start = self.build()
        theta, cross = (self._full(start, at) for at in (self.x, self.test_x))
        bound = max_learning_rate(theta, loss="mean")
        for fraction in FRACTIONS if self.lr is None else (self.lr / bound,):
            watch = _Watch(self, self.looks(), show)
            model = self.build()
            optimizer = torch.optim.SGD(self.plan.param_groups(model, fraction * bound))
            run = train(
                model, optimizer, lambda _: (self.x, self.y), loss_for("half_mse", self.y)[1], self.steps, probes=[watch]
            )
            if not run.diverged and run.losses[-1] < 2 * run.losses[0]:
                break
        else:
            raise UsageError(
                f"training diverges at learning rate {fraction * bound:.3g}, and its linearisation at {bound:.3g}; give a smaller "
                "--lr, or another scheme"
            )
        flow = gradient_flow(
            theta, self.y, cross, t=[float(step) for step in watch.moments], lr=fraction * bound, loss="mean", discrete=True,
            f0_train=watch.train[0], f0_test=watch.test[0],
        )  # fmt: skip
        assert flow.test is not None
        for i, (step, moment) in enumerate(watch.moments.items()):
            linear = {
                "linear_loss": self._loss(flow.train[i], self.y),
                "linear_test_loss": self._loss(flow.test[i], self.test_y),
            }
            moment |= linear | {"linear_accuracy": self._accuracy(flow.test[i])}
            moment["error"] = _error(flow.train[i], watch.train[step], watch.train[0])
            moment["test_error"] = _error(flow.test[i], watch.test[step], watch.test[0])
        spectra = [_spectrum(when, gram, self.y) for when, gram in (("before", watch.first), ("after", watch.last))]
        return {"moments": list(watch.moments.values()), "spectra": spectra, "lr": fraction * bound}

    def hierarchy(self) -> dict[str, Any]:
        """Predictions of orders 2, 3 and 4 on a few samples."""
        return few_predictions(self.build(), self.x, self.y, self.labels, self.few, self.rates)

    def limit(self, lr: float) -> dict[str, Any]:
        """The tangent kernel of the plan at infinite width, and what it predicts; the reason where there is none."""
        try:
            wide = kernel(self.plan)
            own, cross = wide.ntk(self.x), wide.ntk(self.test_x, self.x)
        except KernelError as error:
            return {"reason": str(error)}
        if own.dim() != 2:
            return {"reason": f"the network has outputs at {tuple(own.shape[2:])} positions"}
        here = ntk_of(self.build(), self.x, outputs="trace", rates=self.rates) / self.y.shape[1]
        flow = gradient_flow(own, self.y, cross, t=float(self.steps), lr=lr, loss="mean", discrete=True)
        assert flow.test is not None
        return {
            "reason": "", "distance": kernel_movement(own, here), "test_loss": self._loss(flow.test, self.test_y),
            "accuracy": self._accuracy(flow.test),
        }  # fmt: skip

    def _full(self, model: nn.Module, at: Tensor) -> Tensor:
        """(A, K, N, K)."""
        other = None if at is self.x else self.x
        return ntk_of(model, at, other, outputs="full", rates=self.rates).permute(0, 2, 1, 3)

    def _loss(self, outputs: Tensor, y: Tensor) -> float:
        return float((outputs.reshape(y.shape) - y).square().sum() / (2 * len(y)))

    def _accuracy(self, outputs: Tensor) -> float | None:
        """On the test samples; None without classes."""
        if self.test_labels is None:
            return None
        outputs = outputs.reshape(len(self.test_labels), -1)
        told = (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)
        return float((told == self.test_labels).double().mean())


class _Watch:
    """A probe: outputs, kernels, features and alignment at chosen steps."""

    def __init__(self, study: Study, at: list[int], show: Progress) -> None:
        self.study, self.at, self.show = study, at, show
        self.moments: dict[int, dict[str, Any]] = {}
        self.train: dict[int, Tensor] = {}
        self.test: dict[int, Tensor] = {}

    def begin(self, run: Run) -> None:
        self.after(run)

    def after(self, run: Run) -> None:
        self.show(run.step, self.study.steps, "training")
        if run.step not in self.at:
            return
        study, model = self.study, run.model
        kernels = layer_kernels(model, study.x, study.rates)
        gram = torch.stack(list(kernels.values())).sum(0)
        out, calls = capture(model, state_of(model), study.x)
        features = {path: columns(call.output) for path, call in calls.items()}
        if run.step == 0:
            self.first, self.features = gram, features
        self.last = gram
        with torch.no_grad():
            self.train[run.step], self.test[run.step] = (model(x).reshape(len(x), -1) for x in (study.x, study.test_x))
        self.moments[run.step] = {
            "step": run.step,
            "loss": study._loss(self.train[run.step], study.y),
            "test_loss": study._loss(self.test[run.step], study.test_y),
            "accuracy": study._accuracy(self.test[run.step]),
            "ntk_movement": kernel_movement(self.first, gram),
            "ntk_distance": kernel_distance(self.first, gram),
            "features": {path: feature_movement(self.features[path], h) for path, h in features.items()},
            "alignment": align(kernels, study.y).rows(),
        }


def _study(
    plan: Plan, data: ArrayData, width: int, samples: int, test: int, few: int, steps: int, lr: float | None, seed: int
) -> Study:
    for name, value, least in (("samples", samples, 4), ("test", test, 1), ("few", few, FEWEST), ("steps", steps, 1)):
        counted(name, value, least)
    if few > MOST:
        raise UsageError(f"got few = {few}, expected {FEWEST} to {MOST}: the corrections take time as its fourth power")
    lr = None if lr is None else positive("lr", lr)
    if counted("width", width) < plan.base:
        raise UsageError(f"got width {width} below the plan's base {plan.base}; raise the one or lower the other")
    if len(data) <= samples:
        raise UsageError(f"got {samples} training samples, but '{data.name}' has {len(data)}; leave some for the test")
    whole = data.subset(min(len(data), samples + test), seed)
    x = whole.x.double() if whole.x.is_floating_point() else whole.x
    classes = whole.y if not whole.y.is_floating_point() else None
    if classes is not None and classes.dim() != 1:
        raise UsageError(f"got targets of shape {tuple(classes.shape)}, expected one class a sample, or numbers")
    outputs = _outputs(plan, width, seed, x)
    y = whole.y.double().reshape(len(x), -1) if classes is None else _targets(classes, data.classes, outputs)
    if samples * y.shape[1] > LARGEST:
        raise UsageError(
            f"got {samples} samples of {several(y.shape[1])}, expected at most {LARGEST} outputs in all, since the full tangent "
            f"kernel has their number as its side; give at most {LARGEST // y.shape[1]} samples"
        )
    if classes is not None and len(classes[:samples].unique()) < 2:
        raise UsageError("got training samples of one class only, expected at least two; give other data, or more samples")
    labels, test_labels = (None, None) if classes is None else (classes[:samples], classes[samples:])
    if outputs != tuple(y.shape[1:]):
        raise TangentError(
            f"got a network with {several(outputs[0])} for '{data.name}' with {y.shape[1]}; give the factory as many outputs, "
            f"{'or one for two classes, ' if data.classes == 2 else ''}or other data"
        )
    return Study(
        plan, width, x[:samples], y[:samples], x[samples:], y[samples:], labels, test_labels, few, steps, lr, seed,
        data.name, data.fingerprint(),
    )  # fmt: skip


def _targets(labels: Tensor, classes: int | None, outputs: tuple[int, ...]) -> Tensor:
    """One column a class, but -1 and 1 where a network tells two of them apart by the sign of its one output."""
    return 2.0 * labels.double()[:, None] - 1 if (classes, outputs) == (2, (1,)) else one_hot_targets(labels, classes)


def several(count: int) -> str:
    """A number of outputs in words.

    Example:
        >>> several(1), several(3)
        ('1 output', '3 outputs')
    """
    return f"{count} output{'' if count == 1 else 's'}"


def _outputs(plan: Plan, width: int, seed: int, x: Tensor) -> tuple[int, ...]:
    """Shape of a network's outputs for one sample, as columns; what gives none is refused."""
    model = plan.build(width, seed).double()
    with torch.no_grad():
        try:
            out = model(x[:2])
        except RAISED as error:
            raise TangentError(
                f"the network does not take inputs of shape {tuple(x.shape[1:])}: {first_line(error)}"
            ) from error
    if not isinstance(out, torch.Tensor):
        raise TangentError(
            f"the network returns {type(out).__name__}, expected one tensor (N, ...); let the factory wrap it in a module that "
            "returns the output that you mean"
        )
    return tuple(columns(out).shape[1:])


def _error(linear: Tensor, network: Tensor, start: Tensor) -> float:
    """||f_lin - f|| / ||f - f_0||; zero before anything moved."""
    moved = float((network - start).norm())
    return float((linear.reshape(network.shape) - network).norm()) / moved if moved > 0 else 0.0


def _spectrum(when: str, gram: Tensor, y: Tensor) -> dict[str, Any]:
    """The spectrum of a trace kernel, thinned to what a figure shows."""
    found = spectrum(gram, y - y.mean(0))
    n, total = len(gram), float(found.eigenvalues.sum())
    modes = sorted({min(n, round(n ** (i / (POINTS - 1)))) for i in range(POINTS)})
    values, cumulative = found.eigenvalues.tolist(), found.cumulative.tolist()  # type: ignore[union-attr]
    return {
        "kernel": when, "samples": n, "modes": modes, "eigenvalues": [values[i - 1] / total for i in modes],
        "cumulative": [cumulative[i - 1] for i in modes], "top": values[0] / total,
        "effective_rank": found.effective_rank, "alignment": found.alignment,
    }  # fmt: skip
