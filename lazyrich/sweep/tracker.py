"""Outcomes told to experiment trackers as they come: one run a trial, with its settings and values."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from lazyrich.errors import SweepError
from lazyrich.sweep.trial import Outcome


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
            writer.add_text("settings", _title(outcome))
            value = outcome.value if last(outcome.value) else {"seconds": outcome.seconds}
            for name, step, number in points(value):
                writer.add_scalar(name, number, step)
            settings = {name: _plain(value) for name, value in outcome.settings.items()}
            for part in self._hyperparameters(settings, last(value)):  # add_hparams would write every number a second time
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

    Example:
        >>> list(points({"loss": [2.0, 1.0], "layers": {"fc": 3}, "name": "x", "gap": None}))
        [('loss', 0, 2.0), ('loss', 1, 1.0), ('layers/fc', 0, 3.0)]
    """
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from points(item, f"{before}{name}/")
        else:
            for step, number in enumerate(item if isinstance(item, (list, tuple)) else [item]):
                if isinstance(number, (int, float)) and math.isfinite(number):
                    yield before + name, step, float(number)


def last(value: Mapping[str, Any]) -> dict[str, float]:
    """The last number of every name.

    Example:
        >>> last({"loss": [2.0, 1.0]})
        {'loss': 1.0}
    """
    return {name: number for name, _, number in points(value)}


def _title(outcome: Outcome) -> str:
    return ", ".join(f"{name}={value}" for name, value in outcome.settings.items())


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SweepError(f"{package} is not installed; run: pip install {package}") from error
