"""The trainings of a study, run and kept by a sweep."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lazyrich import __version__
from lazyrich.data import ArrayData
from lazyrich.errors import SweepError, Unfinished, UsageError
from lazyrich.sweep import Executor, Outcome, Results, Store, executor_for, part_of, shard_of, sweep
from lazyrich.sweep.store import FILE
from lazyrich.train import Loss, rehearse

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Where:
    """Where a study's trainings run, and where they are kept.

    Attributes:
        folder: store of finished trainings; none keeps nothing.
        executor: an executor, or its name: inline, processes, ray, dask, ray://HOST:PORT, dask://HOST:PORT.
        workers: of local processes or a local cluster.
        shard: "i/n", this part of the trainings only.
        retry_failed: run trainings again that failed or died.
        progress: called with (trainings done, in all, what came last).
        trackers: called with the outcome of every trial, or texts that make such.
    """

    folder: str | Path | None = None
    executor: str | Executor = "inline"
    workers: int | None = None
    shard: str | None = None
    retry_failed: bool = False
    progress: Progress | None = None
    trackers: Sequence[Callable[[Outcome], None] | str] | str = ()


@dataclass(frozen=True)
class Trainings:
    """What the trials returned, in their order, and what a person should know of the store."""

    values: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


def refuse_misfit(model: nn.Module, width: int, data: ArrayData, batch: int, loss: Loss) -> None:
    """Refuse a network that does not read the data, and a loss that fits neither, before all trainings fail of it.

    Args:
        model: of that width, to be thrown away.
        width: of the network.
        data: all that is trained on.
        batch: samples a step.
        loss: of every training.

    Raises:
        UsageError: for a network that raises.
        TrainError: for a loss that raises, returns no number or does not fit the targets.

    Example:
        >>> from lazyrich.train import loss_for
        >>> data = ArrayData(torch.ones(4, 2), torch.arange(4))
        >>> refuse_misfit(nn.Linear(2, 3), 3, data, 2, loss_for("mse", data.y)[1])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lazyrich.errors.TrainError: got labels for a squared error, expected numbers in the shape of the outputs (2, 3); ...
    """
    x, y = data.batch(batch, 0)
    try:
        with torch.no_grad():
            model(x)
    except Exception as error:  # whatever a user's forward raises
        line = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"the network of width {width} does not take inputs of shape {tuple(x.shape[1:])} {x.dtype}: {line}; "
            "give data of the shape that it reads (--images for images)"
        ) from error
    rehearse(model, x, y, loss, data.y)


def comparable(
    seen: set[tuple[Any, int, int]], parts: Sequence[Any], widths: Sequence[int], seeds: int
) -> tuple[list[int], set[int]]:
    """Of finished (part, width, seed): the widths that have a seed of every part, and the seeds that all these widths share.

    Workers begin other seeds at other widths; curves are compared on what all of them have.

    Example:
        >>> comparable({("a", 8, 0), ("a", 8, 1), ("a", 16, 1)}, ["a"], [8, 16, 32], 2)
        ([8, 16], {1})
    """
    each = {w: {s for s in range(seeds) if all((part, w, s) in seen for part in parts)} for w in widths}
    begun = [w for w in widths if each[w]]
    return begun, set.intersection(*(each[w] for w in begun)) if begun else set()


def finished(function: Callable[..., Any], context: Mapping[str, Any], where: Where) -> list[Mapping[str, Any]]:
    """Settings of the trials of a study that its store holds already, in the order in which they finished."""
    if where.folder is None or not (Path(where.folder) / FILE).is_file():
        return []
    with Store(where.folder) as store:
        outcomes = store.all(_name(function))
    digest = _digest(context)
    return [outcome.settings for outcome in outcomes if outcome.status == "done" and outcome.settings.get("study") == digest]


def run_trainings(
    function: Callable[..., Mapping[str, Any]],
    study: Any,
    trials: Sequence[Mapping[str, Any]],
    context: Mapping[str, Any],
    where: Where,
    many: float = 1,
    so_far: Callable[[Trainings], None] | None = None,
    together: Sequence[str] = (),
    stale: Callable[[Mapping[str, Any]], bool] = lambda value: False,
) -> Trainings:
    """What ``function(study, **trial)`` returns for all trials, in their order.

    Args:
        function: of a module, so that it can be sent to other processes, with the study.
        study: what all trials share.
        trials: settings.
        context: whatever else decides the numbers; it enters every trial's key.
        where: to run.
        many: trainings a trial, their mean where trials differ, for the progress.
        so_far: called with what is finished, every few seconds.
        together: settings whose values are not parted by shards; trials that differ in them only count as one.
        stale: whether a value of this context is one that the study can no longer use, as that of an edited network.

    Raises:
        Unfinished: after a shard, which has no result of its own.
        SweepError: if trials failed, after all others are finished.
    """
    digest = _digest(context)
    executor = executor_for(where.executor, where.workers) if isinstance(where.executor, str) else where.executor
    part = shard_of(where.shard) if where.shard else None
    if part and where.folder is None:
        raise SweepError("a shard without a folder would be lost; give a folder")

    def show(done: int, total: int, what: str) -> None:
        if where.progress:
            where.progress(round(done * many), round(total * many), re.split(", (?:lrs|study)=", what)[0])

    name = _name(function)
    with tempfile.TemporaryDirectory() as passing:
        folder = where.folder or Path(passing) / "store"
        results = sweep(
            functools.partial(_called, function, study),
            [{**trial, "study": digest} for trial in trials],
            folder,
            executor=executor,
            name=name,
            code=__version__,
            shard=part,
            together=(*together, "study"),
            retry_failed=where.retry_failed,
            progress=show,
            callbacks=where.trackers,
            so_far=None if so_far is None else lambda results: so_far(_partial(results)),
        )
        with Store(folder) as store:
            kept = store.all(name)
        ours = [outcome for outcome in kept if outcome.settings.get("study") == digest]
        unused = {
            "other settings": len(kept) - len(ours),
            "the network as it was before": sum(outcome.status == "done" and stale(outcome.value) for outcome in ours),
        }
    notes = tuple(
        f"{n} finished trials of {what} are in {where.folder} too; they were not used." for what, n in unused.items() if n
    )
    if results.failures:
        raise SweepError(f"{results}; the others are kept: mend the cause, then repeat with retry_failed (--retry-failed)")
    if part:
        mine, every = ({text for here, text in part_of(trials, p, together) if here} for p in (part, None))
        raise Unfinished(
            f"shard {where.shard}: {len(mine)} of {len(every)} trials are in {where.folder}. When all shards are done: "
            "lazyrich merge INTO FROM ..., then the same command without --shard."
        )
    return Trainings(tuple(outcome.value for outcome in results.outcomes), (*notes, *results.notes))


def _partial(results: Results) -> Trainings:
    """What is finished, with a note that more is to come."""
    done = tuple(outcome.value for outcome in results.outcomes if outcome.status == "done")
    return Trainings(done, (f"Not finished: {len(results.outcomes)} of {results.total} trials are in.",))


def _called(function: Callable[..., Any], study: Any, /, **settings: Any) -> Any:
    return function(study, **{name: value for name, value in settings.items() if name != "study"})


def _digest(context: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(context, sort_keys=True).encode()).hexdigest()[:16]


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__name__}"
