"""Does the best learning rate stay put as the width grows? Grids of small trainings, one curve a width."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyrich import __version__
from lazyrich.data import ArrayData, load
from lazyrich.errors import UsageError
from lazyrich.files import finite
from lazyrich.fingerprint import fingerprint
from lazyrich.measure.check import RATES, refuse_device, whole_numbers
from lazyrich.measure.debt import debts, met
from lazyrich.measure.trainings import Progress, Trainings, Where, comparable, finished, refuse_misfit, run_trainings
from lazyrich.measure.transfer_result import TransferResult, summarise
from lazyrich.scaling import Plan, as_plan
from lazyrich.sweep import Executor, Outcome, part_of, shard_of
from lazyrich.train import Loss, Member, loss_for, train_all

OCTAVES = range(-6, 6)  # of the default grid, around a rate that moves small networks
OF_PLAN = ("family", "network", "scheme", "optimizer", "base", "plan")  # settings that are one plan's own
TOGETHER = ("lrs",)  # a shard has all of a plan, width and seed: which rows there are depends on what its store has
AXES = ("widths", "seeds", "learning rates")


@dataclass(frozen=True)
class Grid:
    """What every training of a study shares, and the axes."""

    plans: tuple[Plan, ...]
    data: ArrayData
    loss_name: str
    loss: Loss
    widths: tuple[int, ...]
    lrs: tuple[float, ...]
    seeds: int
    steps: int
    batch: int
    evaluate: int
    weight_decay: float
    device: str
    meet: bool
    engine: str
    held: ArrayData | None = None

    @property
    def context(self) -> dict[str, Any]:
        """What decides the numbers of a training beside its plan, width, seed and rate; more of those continue a study."""
        return {k: v for k, v in self.settings(self.plans[0]).items() if k not in (*OF_PLAN, *AXES)}

    @cached_property
    def names(self) -> list[str]:
        """Of every plan, by what it is, so that a study goes on with other plans beside it."""
        own = [json.dumps([self.settings(plan)[k] for k in OF_PLAN]) for plan in self.plans]
        return [hashlib.sha256(text.encode()).hexdigest()[:8] for text in own]

    def edited(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of one of these families as its code was before, or with other roles."""
        own = [network_of(plan) for plan in self.plans]
        name = row.get("network", "")
        return bool(name) and name not in own and name.rpartition(" ")[0] in {one.rpartition(" ")[0] for one in own}

    def settings(self, plan: Plan) -> dict[str, Any]:
        """The settings that decide every number of one plan's trainings."""
        return {
            "family": repr(plan.family),
            "network": plan.family.fingerprint if plan.family else "",
            "scheme": plan.scheme.name,
            "optimizer": plan.optimizer_name,
            "base": plan.base,
            "plan": plan.fingerprint,
            "widths": list(self.widths),
            "learning rates": list(self.lrs),
            "seeds": self.seeds,
            "steps": self.steps,
            "batch": self.batch,
            "evaluated on": self.evaluate,
            "weight_decay": self.weight_decay,
            "loss": self.loss_name,
            "code of the loss": fingerprint(self.loss),
            "data": self.data.name,
            "fingerprint": self.data.fingerprint(),
            "obligations met": self.meet,
            "engine": self.engine,
            "device": self.device,
        } | ({} if self.held is None else {"test": len(self.held)})  # a store of before goes on where nothing is held out

    def shown(self) -> dict[str, Any]:
        """The settings as a person reads them."""
        where = f"{self.evaluate} samples that are trained on" if self.held is None else f"{len(self.held)} held-out samples"
        owed = met(self.plans, self.widths, self.meet)
        return self.settings(self.plans[0]) | {"evaluated on": where, "obligations met": owed}


def transfer(
    plans: Plan | Sequence[Plan],
    data: Any = "digits",
    widths: Sequence[int] = (64, 128, 256, 512),
    lrs: Sequence[float] | None = None,
    seeds: int = 3,
    *,
    steps: int = 200,
    batch: int = 64,
    evaluate: int = 1000,
    test: int = 0,
    weight_decay: float = 0.0,
    loss: str | Loss | None = None,
    device: str = "cpu",
    meet: bool = False,
    engine: str = "auto",
    folder: str | Path | None = None,
    executor: str | Executor = "inline",
    workers: int | None = None,
    shard: str | None = None,
    retry_failed: bool = False,
    trackers: Sequence[Callable[[Outcome], None] | str] | str = (),
    progress: Progress | None = None,
    so_far: Callable[[TransferResult], None] | None = None,
    command: str = "",
) -> TransferResult:
    """The best learning rate at every width, how it shifts, and what it costs to keep the smallest network's.

    Every plan is trained at every width, learning rate and seed; the loss after training is measured on fixed samples that are
    trained on, or with ``test`` on held-out ones. The optimum of every width and seed is smoothed by a parabola; its shift is the
    slope of log2(lr*) a doubling of the width, with an interval that counts the grid's step where an optimum is a point of it, as
    the last rate before training diverges is. The regret is the loss at the smallest network's optimum above the best one, as
    part of what training gains at all, with an interval from the seeds. Learning rates are those of the plan at its base width:
    what ``plan.optimizer(model, lr=...)`` takes.

    Args:
        plans: one or several, from ``lazyrich.plan``, with their families.
        data: whatever ``lazyrich.data.load`` reads.
        widths: at least two, increasing.
        lrs: at least four, increasing; by default twelve, over eleven octaves around one that moves small networks.
        seeds: of initialisation and batches.
        steps: of every training.
        batch: samples a step.
        evaluate: fixed samples, of those that are trained on, on which the loss after training is measured (at most all).
        test: hold so many samples out and measure the loss on them instead.
        weight_decay: of the base-width network.
        loss: name or function; by default by the targets.
        device: where to train.
        meet: meet the plans' obligations by hooks.
        engine: 'auto', 'vmap' or 'loop', as ``lazyrich.train.train_all`` takes it.
        folder: store of finished trainings; the same call continues, and one with other plans, widths, seeds or learning rates
            trains only what is new.
        executor: where to train: inline, processes, ray, dask, ray://HOST:PORT, dask://HOST:PORT, or an executor.
        workers: of local processes or a local cluster.
        shard: "i/n" trains this part only, for schedulers; merge the folders afterwards.
        retry_failed: train again what failed.
        trackers: called with the outcome of every width and seed, or texts for ``lazyrich.sweep.tracker_for``.
        progress: called with (trainings done, in all, what is next).
        so_far: called with the result of what is finished, every few seconds once two widths have a seed of every plan.
        command: how a person repeats this, for the report.

    Raises:
        UsageError: for widths, rates, seeds or steps that make no study.
        SweepError: for trainings that failed, after all others are done.
        Unfinished: after a shard.

    Example:
        >>> import lazyrich as lzr
        >>> plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.mup(), optimizer="adam")
        >>> result = transfer(plan, "digits", [16, 32], [2.0**-k for k in range(10, 3, -1)], seeds=2, steps=30)
        >>> result.schemes[0].best[16].lr > 0
        True
    """
    grid = _grid(plans, data, widths, lrs, seeds, steps, batch, evaluate, test, weight_decay, loss, device, meet, engine)
    where = Where(folder, executor, workers, shard, retry_failed, progress, trackers)
    trials = _trials(grid, finished(run_row, grid.context, where))
    owed, settings = debts(grid.plans, grid.widths, grid.meet), grid.shown()

    def found(done: Trainings, widths: Sequence[int]) -> TransferResult:
        reproduce = {
            "command": command or "lazyrich.transfer(plans, data, ...) with the settings above",
            "versions": {"lazyrich": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "date": date.today().isoformat(),
            "notes": [*owed, *done.notes],
        }
        values = [row | {"plan": grid.names.index(row["plan"])} for row in done.values]
        return summarise(grid.plans, widths, grid.lrs, values, settings, reproduce)

    def partly(done: Trainings) -> None:
        done = _joined(grid, done)
        seen = {(v["plan"], v["width"], v["seed"]) for v in done.values}
        begun, seeds = comparable(seen, grid.names, grid.widths, grid.seeds)
        if so_far and len(begun) > 1 and seeds:
            rows = tuple(v for v in done.values if v["width"] in begun and v["seed"] in seeds)
            so_far(found(replace(done, values=rows), begun))

    many = _rates_a_trial(trials, shard)
    done = run_trainings(
        run_row, grid, trials, grid.context, where, many=many, so_far=partly if so_far else None, together=TOGETHER,
        stale=grid.edited,
    )  # fmt: skip
    return found(_joined(grid, done), grid.widths)


def _trials(grid: Grid, kept: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row of learning rates a plan, width and seed; where a store has some of them, those rows, and one of the others."""
    trials = []
    for seed in range(grid.seeds):  # outermost: all widths of one seed can be looked at already
        for width in grid.widths:
            for name, plan in zip(grid.names, grid.plans, strict=True):
                row = {"plan": name, "scheme": plan.scheme.name, "width": width, "seed": seed}
                known = [old["lrs"] for old in kept if all(old[k] == v for k, v in row.items())]
                trials += [row | {"lrs": rates} for rates in _covering(grid.lrs, known)]
    return trials


def _rates_a_trial(trials: Sequence[Mapping[str, Any]], shard: str | None) -> float:
    """The mean over the trials of a shard, which may have none."""
    parts = part_of(trials, shard_of(shard) if shard else None, TOGETHER)
    rates = [len(trial["lrs"]) for trial, (mine, _) in zip(trials, parts, strict=True) if mine]
    return sum(rates) / max(1, len(rates))


def _covering(lrs: Sequence[float], known: Sequence[list[float]]) -> list[list[float]]:
    """Rows that have all learning rates together: of the known ones those that have most, and a new one of what is left.

    Example:
        >>> _covering((1.0, 2.0, 3.0), [[1.0], [1.0, 2.0, 8.0]]), _covering((1.0, 2.0), [])
        ([[1.0, 2.0, 8.0], [3.0]], [[1.0, 2.0]])
    """
    left, rows = list(lrs), []
    for row in sorted(known, key=lambda row: -len({*lrs} & {*row})):
        if {*left} & {*row}:
            rows.append(row)
            left = [lr for lr in left if lr not in row]
    return [*rows, left] if left else rows


def _joined(grid: Grid, done: Trainings) -> Trainings:
    """One row a plan, width and seed with the study's learning rates in order; none where some are not finished."""
    parts: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for row in done.values:
        parts.setdefault((row["plan"], row["width"], row["seed"]), []).append(row)
    rows = []
    for own in parts.values():
        found = {lr: loss for row in own for lr, loss in zip(row["lrs"], row["losses"], strict=True)}
        if {*grid.lrs} <= found.keys():
            rows.append(own[0] | {"lrs": list(grid.lrs), "losses": [found[lr] for lr in grid.lrs]})
    return replace(done, values=tuple(rows))


def run_row(grid: Grid, plan: str, scheme: str, width: int, seed: int, lrs: Sequence[float]) -> dict[str, Any]:
    """One width and seed of a plan at several learning rates, trained together; plain numbers, ready for JSON."""
    chosen = grid.plans[grid.names.index(plan)]
    models = [chosen.build(width, seed, grid.device, meet=grid.meet) for _ in lrs]
    x, y = (t.to(grid.device) for t in _fixed(grid))

    def batches(step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = grid.data.batch(grid.batch, step, seed)
        return inputs.to(grid.device), targets.to(grid.device)

    members = [
        Member(model, chosen.optimizer(model, lr, grid.weight_decay), batches, seed=seed)
        for model, lr in zip(models, lrs, strict=True)
    ]
    start = _evaluated(grid, models[0], x, y)
    runs = train_all(members, grid.loss, grid.steps, engine=grid.engine)
    losses = [None if run.diverged else _evaluated(grid, model, x, y) for run, model in zip(runs, models, strict=True)]
    return {
        "plan": plan,
        "scheme": scheme,
        "network": network_of(chosen),
        "width": width,
        "seed": seed,
        "lrs": list(lrs),
        "start": start,
        "losses": losses,
        "engine": runs[0].engine,
    }


def network_of(plan: Plan) -> str:
    """The family of a plan and, behind the last space, its code, shapes and roles.

    Example:
        >>> import lazyrich as lzr
        >>> network_of(lzr.plan(lzr.Family(lzr.zoo.mlp, base=8), lzr.mup(), "adam")).rpartition(" ")[0]
        'Family(mlp, base=8), depth None'
    """
    family = plan.family
    return f"{family!r}, depth {family.depth} {family.fingerprint}" if family else ""


@torch.no_grad()
def _evaluated(grid: Grid, model: torch.nn.Module, x: Tensor, y: Tensor) -> float | None:
    was = model.training
    model.eval()
    value = float(grid.loss(model(x), y))
    model.train(was)
    return finite(value)


def _fixed(grid: Grid) -> tuple[Tensor, Tensor]:
    part = grid.data.subset(grid.evaluate, seed=0) if grid.held is None else grid.held
    return part.x, part.y


def _grid(
    plans: Plan | Sequence[Plan], data: Any, widths: Sequence[int], lrs: Sequence[float] | None, seeds: int, steps: int,
    batch: int, evaluate: int, test: int, weight_decay: float, loss: str | Loss | None, device: str, meet: bool, engine: str,
) -> Grid:  # fmt: skip
    given = tuple(map(as_plan, plans if isinstance(plans, (list, tuple)) else (plans,)))
    if not given:
        raise UsageError("got no plan, expected at least one from lazyrich.plan(family, scheme, optimizer)")
    ordered, asked = ordered_axes(widths, lrs)
    for plan in given:
        if plan.family is None:
            raise UsageError("a plan was loaded without its family; use Plan.load(path, family=Family(factory, base=...))")
        plan.optimizer(plan.build(min(widths, default=plan.base)), 1e-3, weight_decay)  # refuses what cannot step
    prints = [(plan.fingerprint, repr(plan.family)) for plan in given]
    if twice := [plan for i, plan in enumerate(given) if prints[i] in prints[:i]]:
        raise UsageError(f"got {twice[0].scheme.name} for {twice[0].optimizer_name} twice, expected every plan once")
    rates = asked or _usual(given)
    if not math.isfinite(weight_decay) or weight_decay < 0:
        raise UsageError(f"got weight decay {weight_decay}, expected a number from 0 on")
    for name, value in (("seeds", seeds), ("steps", steps), ("batch", batch), ("evaluate", evaluate)):
        if value < 1:
            raise UsageError(f"got {name} = {value}, expected at least 1")
    refuse_device(device)
    arrays, held = _parted(data if isinstance(data, ArrayData) else load(data), test)
    name, function = loss_for(loss, arrays.y)
    for plan in given:
        refuse_misfit(plan.build(ordered[0]).eval(), ordered[0], arrays, batch, function)
    seen = min(evaluate, len(arrays)) if held is None else len(held)
    return Grid(
        given, arrays, name, function, ordered, rates, seeds, steps, batch, seen, float(weight_decay),
        device, meet, engine, held,
    )  # fmt: skip


def _parted(data: ArrayData, test: int) -> tuple[ArrayData, ArrayData | None]:
    """Samples to train on, and those held out, from one permutation."""
    if not 0 <= test < len(data):
        raise UsageError(f"got test = {test}, expected 0 to {len(data) - 1}: some of the {len(data)} samples are trained on")
    if test == 0:
        return data, None
    whole = data.subset(len(data), seed=0)
    return replace(whole, x=whole.x[test:], y=whole.y[test:]), replace(whole, x=whole.x[:test], y=whole.y[:test])


def _usual(plans: Sequence[Plan]) -> tuple[float, ...]:
    """A grid around the rate of the plans' optimizer, which one grid is not for several whose rates differ."""
    middles = {plan.optimizer_name: RATES.get(plan.optimizer_name, 0.001) for plan in plans}
    if len({*middles.values()}) > 1:
        usual = ", ".join(f"{name} (about {rate:g})" for name, rate in middles.items())
        raise UsageError(
            f"got plans for {usual} without learning rates, expected rates that reach the optimum of each; give lrs=, or every "
            "optimizer a study"
        )
    return tuple(next(iter(middles.values())) * 2.0**k for k in OCTAVES)


def ordered_axes(widths: Any, lrs: Any) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Widths and learning rates of a study, which are looked at before any network is made; no rates where none are given.

    Raises:
        UsageError: for other than at least two widths and at least four rates, positive and increasing.

    Example:
        >>> ordered_axes([64, 128], None)
        ((64, 128), ())
    """
    ordered = whole_numbers("widths", widths, "64 128 256 512")
    if len(ordered) < 2 or ordered[0] < 1 or any(b <= a for a, b in zip(ordered[:-1], ordered[1:], strict=True)):
        raise UsageError(f"got widths {list(ordered)}, expected at least two increasing ones, for example 64 128 256 512")
    if lrs is None:
        return ordered, ()
    try:
        rates = tuple(float(lr) for lr in lrs)
    except (TypeError, ValueError):
        rates = ()
    rising = all(a < b < math.inf for a, b in zip(rates[:-1], rates[1:], strict=True))
    if len(rates) < 4 or not rates[0] > 0 or not rising:
        raise UsageError(
            f"got learning rates {lrs}, expected four or more, positive and increasing, such as 0.001 0.004 0.016 0.064"
        )
    return ordered, rates
