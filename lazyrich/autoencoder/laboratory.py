"""Many small autoencoders: starts, schemes, widths, optimizers and bottlenecks, each at its best learning rate."""

from __future__ import annotations

import inspect
import math
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lazyrich.amount import real
from lazyrich.autoencoder.argument import check_names, check_samples, count, several
from lazyrich.autoencoder.evaluated import evaluated
from lazyrich.autoencoder.latent import codes as read_codes
from lazyrich.autoencoder.linear import principal
from lazyrich.autoencoder.metric import METRICS, Metric, Trained, measured
from lazyrich.autoencoder.noise import noisy
from lazyrich.autoencoder.pair import fit, halves, refuse_shaped
from lazyrich.autoencoder.result import AutoencoderResult, summarise
from lazyrich.autoencoder.start import STARTS, Start, begin, start_for
from lazyrich.autoencoder.task import Task
from lazyrich.autoencoder.variational import Vae, objective, plain, refuse_impossible
from lazyrich.data import ArrayData, load
from lazyrich.errors import AutoencoderError, DataError, LazyrichError
from lazyrich.family import Family
from lazyrich.measure.check import RATES, refuse_device
from lazyrich.measure.trainings import Progress, Trainings, Where, run_trainings
from lazyrich.scaling import Scheme
from lazyrich.scaling import parse as parse_scheme
from lazyrich.scaling import plan as make_plan
from lazyrich.sweep import Executor, Outcome, fingerprint
from lazyrich.tangent.function import copied
from lazyrich.train import Loss, Member, Run, loss_for, rehearse, train, train_all

SHOWN, SCATTERED, CURVE = 8, 200, 60  # pictures, points of the scatter, points of the loss curve
OCTAVES = (0.5, 2.0, 8.0)  # default learning rates, in units of the optimizer's usual one


@dataclass(frozen=True)
class Sized:
    """A factory with the data's size and the code's filled in, where it takes them as ``inputs`` and ``code``."""

    factory: Callable[..., nn.Module]
    inputs: int
    code: int | None

    def __call__(self, width: int) -> nn.Module:
        """The network of a width."""
        takes = inspect.signature(self.factory).parameters
        given = {"inputs": self.inputs, "code": self.code}
        return self.factory(width, **{name: v for name, v in given.items() if name in takes and v is not None})


@dataclass(frozen=True)
class Laboratory:
    """What every training of a study shares, and the axes."""

    factory: Callable[..., nn.Module]
    base: int
    train: ArrayData
    test: ArrayData
    labels: Tensor | None
    lrs: dict[str, tuple[float, ...]]  # by optimizer
    seeds: int
    steps: int
    batch: int
    device: str
    engine: str
    starts: dict[str, Start]
    metrics: dict[str, Metric]
    task: Task

    def family(self, code: int | None) -> Family:
        """The family with one size of the code."""
        return Family(Sized(self.factory, self.train.x[0].numel(), code), self.base)

    def wide(self, model: nn.Module) -> bool:
        """Whether a code may be wider than the data: noise keeps the identity from being a solution."""
        return isinstance(model, Vae) or self.task.noise > 0 or self.task.masked > 0

    def settings(self) -> dict[str, Any]:
        """What decides the numbers of a training beside its cell."""
        return {
            "network": getattr(self.factory, "__name__", "network"), "fingerprint": self.family(None).fingerprint,
            "base": self.base, "data": self.train.name, "data fingerprint": self.train.fingerprint(),
            "training samples": len(self.train), "held out": len(self.test), "lrs": _rates_told(self.lrs), "seeds": self.seeds,
            "steps": self.steps, "batch": self.batch, "device": self.device, "engine": self.engine,
            **{k: v for k, v in vars(self.task).items() if v != getattr(Task(), k)},
            "metrics": list(self.metrics), "own code": {**_codes(self.starts, STARTS), **_codes(self.metrics, METRICS)},
        }  # fmt: skip


def study(
    factory: Callable[..., nn.Module],
    data: Any = "digits",
    starts: Sequence[str] = ("default", "transposed", "cascading"),
    schemes: Sequence[str | Scheme] = ("standard", "ntk", "mup"),
    widths: Sequence[int] = (64, 128, 256),
    *,
    optimizers: Sequence[str] = ("adam",),
    codes: Sequence[int | None] = (None,),
    base: int | None = None,
    lrs: Sequence[float] | None = None,
    seeds: int = 3,
    steps: int = 300,
    batch: int = 64,
    samples: int = 10_000,
    test: int = 1000,
    device: str = "cpu",
    engine: str = "auto",
    noise: float = 0.0,
    masked: float = 0.0,
    beta: float = 1.0,
    free_bits: float = 0.0,
    warm_up: int = 0,
    more_starts: dict[str, Start] | None = None,
    more_metrics: dict[str, Metric] | None = None,
    folder: str | Path | None = None,
    executor: str | Executor = "inline",
    workers: int | None = None,
    shard: str | None = None,
    retry_failed: bool = False,
    trackers: Sequence[Callable[[Outcome], None]] = (),
    progress: Progress | None = None,
    so_far: Callable[[AutoencoderResult], None] | None = None,
    command: str = "",
) -> AutoencoderResult:
    """Train autoencoders on all combinations of starts, schemes, widths, optimizers and codes, and say what won and why.

    Every cell is trained at all learning rates and seeds; its numbers are those of the learning rate with the lowest loss at the
    end, among those at which the fewest networks diverged. Losses are means over samples and entries of the squared error; a
    ``Vae`` (``lazyrich.autoencoder:vae``, or one's own) is trained on its negative evidence bound, in nats a sample, and looked at
    by its means.

    Args:
        factory: ``factory(width)``, and with ``inputs`` and ``code`` where it takes them, to a module with ``encoder`` and
            ``decoder``.
        data: whatever ``lazyrich.data.load`` reads; its labels, if any, serve the linear probe alone.
        starts: names in ``STARTS`` or ``more_starts``, or transposed(0.3).
        schemes: as the command line names them, standard, ntk, mup, richness(0.25), ..., or as ``lazyrich.plan`` takes them.
        widths: increasing.
        optimizers: sgd, momentum, adam, adamw, signsgd, lion, adafactor, muon or muon_rms.
        codes: sizes of the bottleneck; None leaves it to the factory.
        base: width at which every plan is the plain network; the smallest by default.
        lrs: learning rates at the base width; by default a half, two and eight times each optimizer's usual one.
        seeds: networks a cell and learning rate.
        steps: of every training.
        batch: samples a step.
        samples: training samples, at most.
        test: held-out samples, at most.
        device: where to train.
        engine: 'auto', 'vmap' or 'loop'.
        noise: standard deviation of noise on the inputs, whose targets stay (denoising).
        masked: part of the inputs that is set to zero.
        beta: weight of the rate of a variational autoencoder.
        free_bits: nats a latent of a variational autoencoder that cost nothing.
        warm_up: steps in which beta rises evenly, from beta / warm_up in the first of them.
        more_starts: further starts by name.
        more_metrics: further metrics by name.
        folder: store of finished trainings; the same call continues.
        executor: inline, processes, ray, dask, ray://HOST:PORT, dask://HOST:PORT, or an executor.
        workers: of local processes or a local cluster.
        shard: "i/n" trains this part only.
        retry_failed: train again what failed.
        trackers: called with the outcome of every cell.
        progress: called with (trainings done, in all, what is next).
        so_far: called with the result of the finished cells, every few seconds.
        command: how a person repeats this, for the report.

    Raises:
        AutoencoderError: for a network that is no autoencoder of the data, unknown starts, or data without variance.
        SweepError: for trainings that failed, after all others are done.
        Unfinished: after a shard.

    Example:
        >>> import lazyrich as lzr
        >>> found = study(lzr.zoo.autoencoder, "digits", ["default"], ["mup"], [16, 32], seeds=1, steps=20, samples=200, test=100)
        >>> [cell["width"] for cell in found.cells]
        [16, 32]
    """
    starts = several(starts, "starts")
    schemes, optimizers = [_text(scheme) for scheme in several(schemes, "schemes")], several(optimizers, "optimizers")
    check_names(schemes, "schemes")
    check_names(optimizers, "optimizers")
    widths = [count(width, "width") for width in several(widths, "widths")]
    codes = [code if code is None else count(code, "code") for code in several(codes, "codes")]
    named = {**STARTS, **(more_starts or {})}
    chosen = {name: named[name] if isinstance(name, str) and name in named else start_for(name) for name in starts}
    base = min(widths) if base is None else count(base, "base")
    rates = {name: _usual(name) if lrs is None else tuple(several(lrs, "lrs")) for name in optimizers}
    lab = _laboratory(
        factory, data, base, rates, seeds, steps, batch, samples, test, device,
        engine, chosen, {**METRICS, **(more_metrics or {})}, Task(noise, masked, beta, free_bits, warm_up),
    )  # fmt: skip
    for code in codes:
        model = lab.family(code).build(lab.base, 0)
        fit(plain(model), lab.train.x, lab.wide(model))
        if not isinstance(model, Vae):
            refuse_shaped(model, lab.train.x)
            rehearse(model, lab.train.x[: lab.batch], lab.train.x[: lab.batch], _loss(lab, model))
        else:
            for what, part in (("training", lab.train), ("held-out", lab.test)):
                refuse_impossible(part.x, model.likelihood, f"{what} inputs of '{part.name}'")
        if lab.task.variational and not isinstance(model, Vae):
            raise AutoencoderError(
                f"got beta, free_bits or warm_up for a {type(model).__name__}, which has no objective that they are of; leave "
                "them out, or give a lazyrich.autoencoder.Vae"
            )
        if more_metrics:
            _rehearse_metrics(lab, model, more_metrics)
        for name, start in chosen.items():
            begin(name, start, lab.family(code).build(lab.base, 0), lab.train.x, 0)  # refuses halves that it cannot relate
    for text in schemes:
        for name in optimizers:
            make_plan(lab.family(codes[0]), parse_scheme(text), name)  # refuses what makes no plan, before anything is trained
    trials = [
        {"start": s, "scheme": scheme, "optimizer": optimizer, "width": width, "code": code}
        for width in widths for code in codes for optimizer in optimizers for scheme in schemes for s in starts
    ]  # fmt: skip
    where = Where(folder, executor, workers, shard, retry_failed, progress, trackers)
    settings = lab.settings()

    def found(done: Trainings) -> AutoencoderResult:
        reproduce = {
            "command": command or "lazyrich.autoencoder.study(...) with the settings above",
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "date": date.today().isoformat(),
            "notes": list(done.notes),
        }
        return summarise(done.values, _theory(lab, done.values), settings, reproduce)

    partly = (lambda done: so_far(found(done)) if done.values else None) if so_far else None
    return found(
        run_trainings(cell, lab, trials, settings, where, many=len(next(iter(lab.lrs.values()))) * seeds, so_far=partly)
    )


def cell(lab: Laboratory, start: str, scheme: str, optimizer: str, width: int, code: int | None) -> dict[str, Any]:
    """One combination at all learning rates and seeds; plain numbers, ready for JSON."""
    plan = make_plan(lab.family(code), parse_scheme(scheme), optimizer)
    rates = lab.lrs[optimizer]
    asked = [(lr, seed) for lr in rates for seed in range(lab.seeds)]
    members, early = [], []
    for lr, seed in asked:
        model = plan.build(width, seed, lab.device, meet=True)
        begin(start, lab.starts[start], model, lab.train.x, seed)
        early.append(_Early(max(1, lab.steps // 10)))
        members.append(Member(model, plan.optimizer(model, lr), _batches(lab, seed), probes=[early[-1]], seed=seed))
    first = [copied(member.model) for member in members[: lab.seeds]]
    runs = _trained(lab, members)
    ends = [_end(runs[i * lab.seeds : (i + 1) * lab.seeds]) for i in range(len(rates))]
    best = min(range(len(ends)), key=lambda i: ends[i])
    mine = range(best * lab.seeds, (best + 1) * lab.seeds)
    kept = [i for i in mine if early[i].model is not None and not runs[i].diverged]
    trained = [_seen(lab, first[i - mine[0]], early[i].model, members[i].model, runs[i]) for i in kept]
    failed: dict[str, str] = {}
    return {
        "start": start, "scheme": scheme, "optimizer": optimizer, "width": width, "code": code, "lr": rates[best],
        "edge": len(rates) > 2 and rates[best] in (min(rates), max(rates)), "diverged": lab.seeds - len(trained),
        "trained": [members[i].seed for i in kept],
        "engine": runs[0].engine, "seeds": [measured(run, lab.metrics, failed) for run in trained],
        "failed": failed, "curve": _curve([run.losses for run in trained]), **(_pictures(lab, trained[0]) if trained else {}),
    }  # fmt: skip


def _seen(lab: Laboratory, before: nn.Module, early: nn.Module | None, after: nn.Module, run: Run) -> Trained:
    """A network as metrics look at it."""
    one, two, three = plain(before), plain(early or after), plain(after)
    return Trained(one, two, three, tuple(run.losses), lab.test.x, lab.labels, lab.train.x, after)


def _rehearse_metrics(lab: Laboratory, model: nn.Module, own: dict[str, Metric]) -> None:
    """One's own metrics of a network that was not trained: one that returns no number is refused before all trainings fail of it.

    What fails on such a network may do on a trained one, and is a metric that is undefined there.
    """
    before, early, after = (copied(model) for _ in range(3))
    with torch.random.fork_rng(devices=[]):
        measured(_seen(lab, before, early, after, Run(after, lab.steps, [1.0] * lab.steps)), own)


def _trained(lab: Laboratory, members: Sequence[Member]) -> list[Run]:
    """All members of a cell, stacked where they may be; a variational network draws its codes, and has an objective of its own."""
    if not isinstance(members[0].model, Vae):
        return train_all(members, _loss(lab, members[0].model), lab.steps, engine=lab.engine)
    return [
        train(m.model, m.optimizer, m.batches, _loss(lab, m.model), lab.steps, probes=m.probes, seed=m.seed) for m in members
    ]


def _loss(lab: Laboratory, model: nn.Module) -> Loss:
    """What is lowered; a variational network's counts the steps of one run."""
    task = lab.task
    return objective(task.beta, task.free_bits, task.warm_up) if isinstance(model, Vae) else loss_for("mse", lab.train.y)[1]


def _text(scheme: Any) -> Any:
    """A scheme's name, of which a study's cells are made; one that its name does not give back cannot be a cell."""
    if not isinstance(scheme, Scheme):
        return scheme
    with suppress(LazyrichError):
        if parse_scheme(scheme.name) == scheme:
            return scheme.name.removesuffix("()")
    raise AutoencoderError(
        f"got the scheme '{scheme.name}', whose name does not give it back, expected one that the command line can write; pass its "
        "text, such as 'mup' or 'abc(...)'"
    )


def _usual(optimizer: str) -> tuple[float, ...]:
    """Learning rates about the one that is usual for an optimizer: those of sgd would make adam diverge."""
    return tuple(RATES.get(optimizer, 0.001) * f for f in OCTAVES)


def _rates_told(lrs: dict[str, tuple[float, ...]]) -> Any:
    """The learning rates, by optimizer where they differ."""
    told = {name: list(rates) for name, rates in lrs.items()}
    first = next(iter(told.values()))
    return first if all(rates == first for rates in told.values()) else told


def _codes(chosen: dict[str, Any], ours: dict[str, Any]) -> dict[str, str]:
    """Fingerprints of the user's own functions: changed code is another study."""
    return {name: fingerprint(function) for name, function in chosen.items() if name not in ours and "(" not in name}


class _Early:
    """Keeps a copy of the network after some steps."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.model: nn.Module | None = None

    def begin(self, run: Run) -> None:
        pass

    def after(self, run: Run) -> None:
        if run.step == self.step:
            self.model = copied(run.model)


def _batches(lab: Laboratory, seed: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    def batches(step: int) -> tuple[Tensor, Tensor]:
        x, y = lab.train.batch(lab.batch, step, seed)
        return x.to(lab.device), y.to(lab.device)

    task = lab.task
    return noisy(batches, task.noise, task.masked, seed) if task.noise or task.masked else batches


def _end(runs: Sequence[Run]) -> tuple[int, float]:
    """How many seeds diverged, and the mean over the others of the last tenth of the losses: what a learning rate is judged by."""
    tails = [run.losses[-max(1, len(run.losses) // 10) :] for run in runs if not run.diverged]
    mean = sum(sum(tail) / len(tail) for tail in tails) / len(tails) if tails else math.inf
    return len(runs) - len(tails), mean


def _curve(losses: Sequence[Sequence[float]]) -> list[list[float]]:
    """[step, mean loss] at up to sixty places."""
    if not losses:
        return []
    table = torch.tensor(losses, dtype=torch.float64).mean(0)
    places = torch.unique(torch.linspace(0, len(table) - 1, CURVE).round().long())
    return [[int(i), float(table[i])] for i in places]


def _pictures(lab: Laboratory, run: Trained) -> dict[str, Any]:
    """Some held-out inputs, their reconstructions, and the codes' two widest directions, as small numbers."""
    with torch.no_grad(), evaluated(run.after):
        back = run.after(run.x[:SHOWN]).flatten(1)
        z = read_codes(halves(run.after)[0], run.x[:SCATTERED]).double()
    _, _, turn = torch.linalg.svd(z - z.mean(0), full_matrices=False)
    flat = (z - z.mean(0)) @ turn[:2].T
    labels = [] if run.labels is None else run.labels[:SCATTERED].tolist()
    return {
        "inputs": [[round(v, 2) for v in row] for row in run.x[:SHOWN].tolist()],
        "outputs": [[round(v, 2) for v in row] for row in back.tolist()],
        "scatter": [[round(v, 4) for v in row] for row in flat.tolist()],
        "labels": labels,
    }


def _theory(lab: Laboratory, values: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Part of the held-out variance that the best linear autoencoder of each code's size leaves, by that size."""
    directions = principal(lab.train.x)
    total = (lab.test.x - directions.mean).square().sum()
    found = {}
    for code in {value["code"] for value in values}:
        model = lab.family(code).build(lab.base, 0)
        k, _ = fit(plain(model), lab.train.x, lab.wide(model))
        error = (lab.test.x - directions.reconstruct(lab.test.x, k)).square().sum()
        found[str(code)] = float(error / total)
    return found


def _loaded(data: Any) -> ArrayData:
    """Data with its labels where there are any; inputs alone are enough. What has no name of its own is one's own data."""
    try:
        found = load(data)
    except DataError:
        found = load(data, target="input")  # says again what is wrong, unless it was that there are no labels
    nameless = isinstance(data, (tuple, list, Tensor, np.ndarray))
    return replace(found, name="your own data") if nameless else found


def _laboratory(
    factory: Callable[..., nn.Module], data: Any, base: int, lrs: dict[str, tuple[float, ...]], seeds: int, steps: int, batch: int,
    samples: int, test: int, device: str, engine: str, starts: dict[str, Start], metrics: dict[str, Metric],
    task: Task,
) -> Laboratory:  # fmt: skip
    seeds, steps, batch = count(seeds, "seeds"), count(steps, "steps"), count(batch, "batch")
    samples, test = count(samples, "samples"), count(test, "test")
    if not all(0 < real(lr) < math.inf for rates in lrs.values() for lr in rates):
        raise AutoencoderError(f"got learning rates {_rates_told(lrs)}, expected positive ones; pass such as lrs=[0.01]")
    refuse_device(device)
    given = data if isinstance(data, ArrayData) else _loaded(data)
    if len(given) < 20:
        raise AutoencoderError(f"got {len(given)} samples, expected at least 20: some to train on, some to hold out")
    whole = given.subset(min(samples + test, len(given)), seed=0)
    held = min(test, len(whole) // 3)
    x = check_samples(whole.x, "data", floating=False).flatten(1).float()
    principal(x[: min(len(x), 1000)])  # refuses data without variance
    labels = whole.y[len(x) - held :] if not whole.y.is_floating_point() and whole.y.dim() == 1 else None
    trained = min(samples, len(x) - held)  # a short held-out part leaves more than was asked for
    shown, kept = (replace(whole, x=p, y=p.clone(), classes=None) for p in (x[:trained], x[len(x) - held :]))
    return Laboratory(factory, base, shown, kept, labels, lrs, seeds, steps, batch, device, engine, starts, metrics, task)
