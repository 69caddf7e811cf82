"""Outcomes told to experiment trackers as they come: one run a trial, with its settings and values."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from lazyrich.errors import SweepError
from lazyrich.sweep.trial import Outcome

LONGEST = 120  # characters of a run's name
_ALONG = re.compile(r"/(lr|gamma_0)_[0-9]")  # of names that are numbered by a rate: as columns they would hide the others


class Tracker(Protocol):
    """Called with every outcome, in the process that runs the sweep."""

    def __call__(self, outcome: Outcome, /) -> None:
        """Record one outcome."""


def tracker_for(text: str) -> Tracker:
    """``tensorboard:FOLDER``, ``wandb:PROJECT``, ``trackio:PROJECT`` or ``mlflow:EXPERIMENT``.

    Where the records go is each library's own business: ``WANDB_MODE=offline``, ``MLFLOW_TRACKING_URI`` and so on.

    Raises:
        SweepError: for another word, or a library that is not installed.

    Example:
        >>> tracker_for("paper")
        Traceback (most recent call last):
        ...
        lazyrich.errors.SweepError: got tracker 'paper', expected tensorboard:FOLDER, wandb:PROJECT, trackio:PROJECT or mlflow:NAME
    """
    kind, colon, name = text.partition(":")
    if kind not in TRACKERS or not (colon and name):
        raise SweepError(f"got tracker '{text}', expected tensorboard:FOLDER, wandb:PROJECT, trackio:PROJECT or mlflow:NAME")
    return TRACKERS[kind](name)


def trackers_of(given: Any) -> list[Callable[[Outcome], None]]:
    """Callables and texts such as ``"wandb:PROJECT"``, one or several, as callables, before anything is trained.

    Raises:
        SweepError: for what is neither, and whatever ``tracker_for`` refuses.

    Example:
        >>> trackers_of([print, 3])
        Traceback (most recent call last):
        ...
        lazyrich.errors.SweepError: got tracker 3, expected a function of an outcome, or a text such as 'wandb:PROJECT'
    """
    several = [given] if callable(given) or not isinstance(given, Iterable) or isinstance(given, str) else given
    found = []
    for one in several:
        if not callable(one) and not isinstance(one, str):
            raise SweepError(f"got tracker {one!r}, expected a function of an outcome, or a text such as 'wandb:PROJECT'")
        found.append(tracker_for(one) if isinstance(one, str) else one)
    return found


class TensorBoard:
    """A folder of event files a trial; look at them with ``tensorboard --logdir FOLDER``.

    Example::

        sweep(train, {"lr": [0.1, 0.2]}, "runs/lr", callbacks=[TensorBoard("runs/lr/events")])
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writer = _library("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._hyperparameters = _library("torch.utils.tensorboard.summary", "tensorboard").hparams

    def __call__(self, outcome: Outcome) -> None:
        """Settings and last values as hyperparameters, lists as curves."""
        with self._writer(str(self.folder / outcome.key[:12])) as writer:
            writer.add_text("settings", ", ".join(f"{name}={value}" for name, value in outcome.settings.items()))
            value = outcome.value if last(outcome.value) else {"seconds": outcome.seconds}
            for name, step, number in points(value):
                writer.add_scalar(name, number, step)
            settings = {name: _plain(value) for name, value in outcome.settings.items()}
            ends = {name: number for name, number in last(value).items() if not _ALONG.search(name)}
            for part in self._hyperparameters(settings, ends):  # add_hparams would write every number a second time
                writer.file_writer.add_summary(part)


class Wandb:
    """Weights & Biases, or a library with its face such as trackio: a run a trial.

    Example::

        sweep(train, {"lr": [0.1, 0.2]}, "runs/lr", callbacks=[Wandb("my-project")])
    """

    def __init__(self, project: str, library: str = "wandb") -> None:
        self.project = project
        self._library = _library(library, library)

    def __call__(self, outcome: Outcome) -> None:
        """Settings as the run's config, lists as curves over steps."""
        config = {**outcome.settings, "status": outcome.status}
        self._library.init(project=self.project, name=_title(outcome), config=config)
        steps: dict[int, dict[str, float]] = {}
        for name, step, number in points(outcome.value):
            steps.setdefault(step, {})[name] = number
        for step in sorted(steps):
            self._library.log(steps[step], step=step)
        self._library.finish()


class MLflow:
    """An MLflow experiment: a run a trial.

    Example::

        sweep(train, {"lr": [0.1, 0.2]}, "runs/lr", callbacks=[MLflow("my-experiment")])
    """

    def __init__(self, experiment: str) -> None:
        self._library = _library("mlflow", "mlflow")
        try:
            self._library.set_experiment(experiment)
        except Exception as error:  # a server that does not answer, a store of a kind that it does not know
            raise SweepError(f"mlflow refuses the experiment '{experiment}': {type(error).__name__}: {error}") from error

    def __call__(self, outcome: Outcome) -> None:
        """Settings as parameters, lists as metrics over steps."""
        with self._library.start_run(run_name=_title(outcome)):
            self._library.log_params(outcome.settings)
            self._library.set_tag("status", outcome.status)
            for name, step, number in points(outcome.value):
                self._library.log_metric(name, number, step=step)


TRACKERS = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": lambda project: Wandb(project, "trackio"),
    "mlflow": MLflow,
}


def points(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, int, float]]:
    """Name, step and number of everything finite that a trial returned; the place in a list is the step.

    Lists along learning rates, or along a dial's richnesses, are no steps: every number is named by its rate.

    Example:
        >>> list(points({"loss": [2.0, 1.0], "layers": {"fc": 3}, "name": "x", "gap": None}))
        [('loss', 0, 2.0), ('loss', 1, 1.0), ('layers/fc', 0, 3.0)]
        >>> list(points({"lrs": [0.1, 0.2, 0.4], "losses": [2.0, 1.0, None]}))
        [('loss/lr_0.1', 0, 2.0), ('loss/lr_0.2', 0, 1.0), ('best_lr', 0, 0.2), ('best_loss', 0, 1.0)]
    """
    for name, item in _by_rate(value).items():
        if isinstance(item, Mapping):
            yield from points(item, f"{before}{name}/")
        else:
            for step, number in enumerate(item if isinstance(item, (list, tuple)) else [item]):
                if isinstance(number, (int, float)) and math.isfinite(number):
                    yield before + name, step, float(number)


def _by_rate(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of a transfer study or of a dial, with a name a learning rate or a richness instead of lists along them."""
    lrs, losses, turned = value.get("lrs"), value.get("losses"), value.get("points")
    if isinstance(lrs, list) and isinstance(losses, list) and len(lrs) == len(losses):
        finite = [(loss, lr) for lr, loss in zip(lrs, losses, strict=True) if loss is not None and math.isfinite(loss)]
        best = dict(zip(("best_loss", "best_lr"), min(finite), strict=True)) if finite else {}
        named = {f"loss/lr_{lr:.4g}": loss for lr, loss in zip(lrs, losses, strict=True)}
        rest = {name: item for name, item in value.items() if name not in ("lrs", "losses")}
        return {**rest, **named, **{name: best[name] for name in ("best_lr", "best_loss") if best}}
    if isinstance(turned, list) and all(isinstance(point, Mapping) and "richness" in point for point in turned):
        return {f"{name}/gamma_0_{point['richness']:.4g}": item for point in turned for name, item in point.items()}
    return value


def last(value: Mapping[str, Any]) -> dict[str, float]:
    """The last number of every name.

    Example:
        >>> last({"loss": [2.0, 1.0]})
        {'loss': 1.0}
    """
    return {name: number for name, _, number in points(value)}


def _title(outcome: Outcome) -> str:
    """A run's name: the settings that are one value each, without the digest of what trials of a study share."""
    plain = {name: value for name, value in outcome.settings.items() if name != "study" and not isinstance(value, (list, dict))}
    title = ", ".join(f"{name}={value}" for name, value in plain.items())
    return title if len(title) <= LONGEST else f"{title[: LONGEST - 3]}..."


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SweepError(f"{package} is not installed; run: pip install {package}") from error
