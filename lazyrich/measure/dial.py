"""One network, turned from lazy to rich: what its features, kernels and losses do on the way."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich import __version__
from lazyrich.data import ArrayData, load
from lazyrich.errors import TangentError, UsageError
from lazyrich.family import Family, Role, as_family
from lazyrich.files import finite
from lazyrich.fingerprint import fingerprint
from lazyrich.init import Initialiser
from lazyrich.measure.centred import Centred
from lazyrich.measure.check import RATES, refuse_device, whole_numbers
from lazyrich.measure.debt import debts, met
from lazyrich.measure.dial_result import DialResult, summarise
from lazyrich.measure.movement import feature_movement, kernel_distance, kernel_movement
from lazyrich.measure.trainings import Progress, Trainings, Where, comparable, refuse_misfit, run_trainings
from lazyrich.scaling import Plan, richness
from lazyrich.scaling import plan as make_plan
from lazyrich.sweep import Executor, Outcome
from lazyrich.tangent import NetworkFunction, features, linearize, ntk_of, target_alignment
from lazyrich.train import Loss, Member, loss_for, train_all, wrong

RICHNESS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
OCTAVES = (-3, -2, -1, 0, 1, 2)  # of the learning rate around its law, where it is tuned
POWERS = {"sgd": 2.0, "momentum": 2.0, "adam": 1.0, "adamw": 1.0, "signsgd": 1.0}  # of the best rate in gamma_0 << 1
GRAMS = 48  # samples of tangent kernels
GONE = 1e6  # relative movement of features beyond which a training has diverged, whatever its loss


@dataclass(frozen=True)
class Study:
    """What every training of a dial shares, and the axes."""

    family: Family
    data: ArrayData
    test: ArrayData
    loss_name: str
    loss: Loss
    richness: tuple[float, ...]
    r: tuple[float, ...]
    widths: tuple[int, ...]
    seeds: int
    optimizer: str
    lr: float
    rates: str
    steps: int
    batch: int
    device: str
    meet: bool
    engine: str
    init: Mapping[str, float | str | Initialiser] | None = None

    @property
    def depth(self) -> int:
        """D, the number of layers with weights: the degree in which the network is homogeneous."""
        return sum(info.role in (Role.INPUT, Role.HIDDEN, Role.OUTPUT) for info in self.family.tensors.values())

    def plan(self, r: float, gamma0: float, optimizer: str | None = None) -> Plan:
        """The richness scale with A = gamma_0 sqrt(base) (n / base)^r."""
        scheme = richness(r, gamma0 * math.sqrt(self.family.base))
        return make_plan(self.family, scheme, optimizer or self.optimizer, init=self.init)

    def law(self, r: float, gamma0: float, width: int) -> float:
        """What the learning rate of the plan, which goes like A^2 already, is multiplied by once the network is rich.

        The best learning rate in units of muP goes like gamma_0^2 while gamma_0 << 1 and gamma_0^(2/D) while gamma_0 >> 1
        (Atanasov et al. 2024, arXiv:2410.04642); square roots of these for optimizers that work entry by entry.
        """
        rich = gamma0 * (width / self.family.base) ** (r - 0.5)
        power = POWERS[self.optimizer]
        return max(rich, 1.0) ** (power / self.depth - power)

    @property
    def context(self) -> dict[str, Any]:
        """What decides the numbers of a training beside r, width and seed; more of those continue a study."""
        return {name: value for name, value in self.settings().items() if name not in ("r", "widths", "seeds")}

    def settings(self) -> dict[str, Any]:
        """The settings that decide every number; a store of the factory's own start is that of before ``init``."""
        own = {"plan": self.plan(0.0, 1 / math.sqrt(self.family.base)).fingerprint} if self.init else {}
        return own | {
            "family": repr(self.family), "network": self.family.fingerprint, "base": self.family.base,
            "optimizer": self.optimizer, "lr": self.lr, "rates": self.rates, "steps": self.steps, "batch": self.batch,
            "richness": list(self.richness), "r": list(self.r), "widths": list(self.widths), "seeds": self.seeds,
            "loss": self.loss_name, "code of the loss": fingerprint(self.loss),
            "data": self.data.name, "fingerprint": self.data.fingerprint(), "train": len(self.data),
            "test": len(self.test), "obligations met": self.meet, "engine": self.engine, "device": self.device,
        }  # fmt: skip


def dial(
    family: Family,
    data: Any = "digits",
    richness: Sequence[float] = RICHNESS,
    widths: Sequence[int] = (128,),
    seeds: int = 3,
    *,
    r: Sequence[float] = (0.5,),
    init: Mapping[str, float | str | Initialiser] | None = None,
    optimizer: str = "sgd",
    lr: float | None = None,
    rates: str = "law",
    steps: int = 300,
    batch: int = 64,
    samples: int = 1000,
    test: int = 500,
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
    so_far: Callable[[DialResult], None] | None = None,
    command: str = "",
) -> DialResult:
    """Train one network at many richnesses, at one width or across widths, with its linearisation beside it.

    The network f = (h - h_0)/A is centred, divided by A = gamma_0 sqrt(base) (n/base)^r and trained with a learning rate
    proportional to A^2, so that the linearised network does not see A at all: what differs is how far features must move.
    gamma_0 is the richness at the base width (Bordelon & Pehlevan's gamma_0; 1/A is the scale of Chizat et al. 2019), and
    gamma_0 = 1/sqrt(base) is the plain network. r = 1/2 keeps it at every width, r = 0 falls back to lazy as n^(-1/2). Small is
    lazy, large is rich, but where one turns into the other depends on the time of training, the learning rate and the
    initialisation too: weights that start small move much at a small gamma_0. The curves tell, gamma_0 alone does not. Networks
    are drawn in their factory's precision, then trained and measured in float64.

    Args:
        family: the network with its width open.
        data: whatever ``lazyrich.data.load`` reads.
        richness: gamma_0 at the base width, increasing, over decades.
        widths: one or several, increasing.
        seeds: of initialisation and batches.
        r: exponents of the richness scale, in [0, 1/2].
        init: of the plain network at the base width instead of the factory's own, as ``lazyrich.plan`` takes it.
        optimizer: sgd, momentum, adam, adamw or signsgd.
        lr: learning rate of the plain network at the base width.
        rates: "law" multiplies it by the known powers of gamma_0 (gamma_0^2 below 1, gamma_0^(2/D) above, D layers with weights;
            their square roots for Adam); "tuned" takes the best of six octaves around that, by the loss after training; where
            it is an end of them the result says so, and another ``lr`` moves them.
        steps: of every training.
        batch: samples a step.
        samples: training samples.
        test: held-out samples.
        loss: name or function; by default by the targets.
        device: where to train.
        meet: meet the plans' obligations by hooks.
        engine: 'auto', 'vmap' or 'loop', as ``lazyrich.train.train_all`` takes it.
        folder: store of finished trainings; the same call continues.
        executor: where to train: inline, processes, ray, dask, ray://HOST:PORT, dask://HOST:PORT, or an executor.
        workers: of local processes or a local cluster.
        shard: "i/n" trains this part only, for schedulers; merge the folders afterwards.
        retry_failed: train again what failed.
        trackers: called with the outcome of every r, width and seed, or texts for ``lazyrich.sweep.tracker_for``.
        progress: called with (trainings done, in all, what is next).
        so_far: called with the result of what is finished, every few seconds once a width has a seed at every r.
        command: how a person repeats this, for the report.

    Raises:
        UsageError: for axes or numbers that make no study.
        SweepError: for trainings that failed, after all others are done.
        Unfinished: after a shard.

    Example:
        >>> import lazyrich as lzr
        >>> found = dial(lzr.Family(lzr.zoo.mlp, base=16), "digits", [0.03, 1.0], widths=[16], seeds=1, steps=30, samples=200)
        >>> lazy, rich = found.points
        >>> lazy["features"] < rich["features"], lazy["linearisation"] < rich["linearisation"]
        (True, True)
    """
    study = _study(
        as_family(family), data, richness, widths, seeds, r, optimizer, lr, rates, steps, batch, samples, test, loss, device, meet,
        engine, init,
    )  # fmt: skip
    trials = [{"r": q, "width": width, "seed": seed} for width in study.widths for q in study.r for seed in range(study.seeds)]
    where = Where(folder, executor, workers, shard, retry_failed, progress, trackers)
    plans = [study.plan(q, gamma0) for q in study.r for gamma0 in (study.richness[0], study.richness[-1])]
    owed, word = debts(plans, study.widths, study.meet), met(plans, study.widths, study.meet)

    def found(done: Trainings, widths: Sequence[int]) -> DialResult:
        reproduce = {
            "command": command or "lazyrich.dial(family, data, ...) with the settings above",
            "versions": {"lazyrich": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "date": date.today().isoformat(),
            "notes": [*owed, *done.notes],
        }
        points = [point for row in done.values for point in row["points"] if point["width"] in widths]
        settings = study.settings() | {"widths": list(widths), "obligations met": word}
        return summarise(study.family.name, points, settings, reproduce)

    def partly(done: Trainings) -> None:
        rows = [(row["points"][0], row) for row in done.values]
        begun, seeds = comparable({(p["r"], p["width"], p["seed"]) for p, _ in rows}, study.r, study.widths, study.seeds)
        if so_far and seeds:
            so_far(found(replace(done, values=tuple(row for p, row in rows if p["seed"] in seeds)), begun))

    try:
        network = study.family.build(study.widths[0]).double()
        NetworkFunction(network)
    except TangentError as error:
        raise UsageError(
            f"a dial compares the network with its linearisation, so it must be a fixed function of its weights: {error}; take "
            "it without dropout (p = 0), and with layer or group norm"
        ) from error
    refuse_misfit(Centred(network), study.widths[0], study.data, study.batch, study.loss)
    _refuse_rows_of_readouts(study)
    if not _hidden(study.family, network, study.test.x):
        raise UsageError(
            f"the network {study.family.name} has no hidden layer whose features could move: no module with a weight, but the "
            "readout, gives one row a sample in one pass"
        )
    done = run_trainings(turn, study, trials, study.context, where, many=len(study.richness), so_far=partly if so_far else None)
    return found(done, study.widths)


def turn(study: Study, r: float, width: int, seed: int) -> dict[str, Any]:
    """All richnesses of one width and seed, trained together; plain numbers, ready for JSON."""
    octaves = OCTAVES if study.rates == "tuned" else (0,)
    asked = [(gamma0, study.law(r, gamma0, width) * 2.0**k) for gamma0 in study.richness for k in octaves]
    members = [_member(study, study.plan(r, gamma0), width, seed, factor) for gamma0, factor in asked]
    runs = train_all(members, study.loss, study.steps, engine=study.engine)
    x = study.test.x.to(study.device)
    layers = _hidden(study.family, _start(study, r, study.richness[0], width, seed), x)
    start_loss = _loss(study, lambda x: torch.zeros_like(members[0].model(x)), study.data)
    linear: dict[float, nn.Module] = {}  # by learning rate: it does not know the richness
    points = []
    for gamma0 in study.richness:
        start = _start(study, r, gamma0, width, seed)
        h0 = features(start, x, layers)
        mine = [i for i, (g, _) in enumerate(asked) if g == gamma0]
        kept = [i for i in mine if not (runs[i].diverged or _gone(h0, members[i].model, x))]
        reached = {i: loss for i in kept if (loss := _loss(study, members[i].model, study.data)) is not None}
        best = min(reached, key=lambda i: reached[i]) if reached else mine[0]
        factor = asked[best][1]
        point = {"r": r, "width": width, "seed": seed, "richness": gamma0, "lr": study.lr * factor, "engine": runs[best].engine}
        point |= {"diverged": not reached, "loss": reached.get(best), "start": start_loss}
        point |= {"edge": (best == mine[-1]) - (best == mine[0]) if reached else None}  # of the octaves: -1 or 1
        if reached:
            if factor not in linear:
                linear[factor] = _linearised(study, width, seed, factor)
            point |= _measured(study, study.plan(r, gamma0), start, h0, members[best].model, linear[factor])
        points.append(point)
    return {"points": points}


def _refuse_rows_of_readouts(study: Study) -> None:
    """Networks whose linearisation sees A, since what divides their readouts does not divide the output."""
    parts: list[dict[str, Tensor]] = []
    for gamma0 in (study.richness[0], study.richness[-1]):
        plan = study.plan(study.r[0], gamma0, "sgd")
        network = plan.build(study.widths[0], 0).double()
        rates = {name: setting.lr for name, setting in plan.settings(network).items()}
        parts.append(ntk_of(network, study.data.x[:4], outputs="trace", rates=rates, per="tensor"))
    lazy, rich = ({name: float(part.detach().trace()) for name, part in each.items()} for each in parts)
    least = 1e-12 * sum(lazy.values())  # less is rounding, as of a bias that a norm takes away
    changed = [name for name, size in lazy.items() if not math.isclose(size, rich[name], rel_tol=0.01, abs_tol=least)]
    if not changed:
        return
    raise UsageError(
        f"the linearised network sees the richness: from gamma_0 = {study.richness[0]:g} to {study.richness[-1]:g} the tangent "
        f"kernel changes in {', '.join(changed[:4])}{' ...' if len(changed) > 4 else ''}, since A divides the weights "
        "of the readout and with them not the output. Let the network end in its readout: a norm, a softmax or an offset behind it "
        "belongs into the loss"
    )


def _member(study: Study, plan: Plan, width: int, seed: int, factor: float, linear: bool = False) -> Member:
    network = plan.build(width, seed, study.device, meet=study.meet).double()
    model = Centred(linearize(network) if linear else network)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        x, y = study.data.batch(study.batch, step, seed)
        return x.to(study.device), y.to(study.device)

    return Member(model, plan.optimizer(model.network, study.lr * factor), batches, seed=seed)


def _start(study: Study, r: float, gamma0: float, width: int, seed: int) -> nn.Module:
    """A member's network before training."""
    return study.plan(r, gamma0).build(width, seed, study.device, meet=study.meet).double()


def _gone(h0: Mapping[str, Tensor], model: nn.Module, x: Tensor) -> bool:
    """Whether outputs or features are not finite, or have moved so far that nothing of them is left."""
    assert isinstance(model, Centred)
    with torch.no_grad():
        if not bool(model(x).isfinite().all()):
            return True
    h1 = features(model.network, x, list(h0))
    return any(not feature_movement(h0[path], h1[path]) <= GONE for path in h0)  # NaN is not


def _linearised(study: Study, width: int, seed: int, factor: float) -> nn.Module:
    """The plain network's linearisation, trained; its outputs are not finite where it diverged."""
    plain = study.plan(0.0, 1 / math.sqrt(study.family.base))
    member = _member(study, plain, width, seed, factor, linear=True)
    train_all([member], study.loss, study.steps)
    return member.model


def _measured(
    study: Study, plan: Plan, start: nn.Module, h0: Mapping[str, Tensor], model: nn.Module, linear: nn.Module
) -> dict[str, Any]:
    """What moved, and what the linearised network says instead; a training whose kernel overflows has diverged."""
    assert isinstance(model, Centred)
    x = study.test.x.to(study.device)
    few, labels = x[:GRAMS], study.test.y[:GRAMS]
    rates = {name: setting.lr for name, setting in plan.settings(start).items()}
    before, after = (ntk_of(network, few, outputs="trace", rates=rates) for network in (start, model.network))
    if not bool(after.isfinite().all()):
        return {"diverged": True, "loss": None}
    h1, last = features(model.network, x, list(h0)), list(h0)[-1]
    moved = {path: feature_movement(h0[path], h1[path]) for path in h0}
    k0, k1 = (h[last].flatten(1) @ h[last].flatten(1).T for h in (h0, h1))
    with torch.no_grad():
        f, predicted = model(x), linear(x)
    found = {
        "test_loss": _loss(study, model, study.test),
        "test_error": _error(f, study.test.y),
        "linear_loss": _loss(study, linear, study.data),
        "linear_test_loss": _loss(study, linear, study.test),
        "linear_test_error": _error(predicted, study.test.y),
        "linearisation": float((f - predicted).norm() / predicted.norm()),
        "features": moved[last],
        "feature_kernel": kernel_movement(k0, k1),
        "kernel": kernel_movement(before, after),
        "kernel_distance": kernel_distance(before, after),
        "alignment": target_alignment(after, labels),
        "alignment_before": target_alignment(before, labels),
    }
    return {key: finite(value) for key, value in found.items()} | {"layers": moved}


def _hidden(family: Family, network: nn.Module, x: Tensor) -> list[str]:
    """Modules that hold weights, are not the output, and give every sample a row (a table of positions does not), as they run."""
    inner = (Role.INPUT, Role.HIDDEN)
    owners = dict.fromkeys(info.owner for info in family.tensors.values() if info.role in inner and len(info.shape) > 1)
    return _as_they_run(network, [path for path in owners if _gives_rows(network, path, x)], x)


def _as_they_run(network: nn.Module, layers: Sequence[str], x: Tensor) -> list[str]:
    """Modules in the order in which a pass ends them, whatever that of their assignment: the last is what the readout sees."""
    order: dict[str, None] = {}  # more than one pass may be made
    handles = [network.get_submodule(p).register_forward_hook(lambda *_, p=p: order.update({p: None})) for p in layers]
    try:
        features(network, x[:2], layers)
    finally:
        for handle in handles:
            handle.remove()
    return list(order)


def _gives_rows(network: nn.Module, path: str, x: Tensor) -> bool:
    try:
        return bool([features(network, x[:count], [path]) for count in (2, 3)])  # a table may have as many rows by chance
    except TangentError:
        return False


@torch.no_grad()
def _loss(study: Study, model: Callable[[Tensor], Tensor], data: ArrayData) -> float | None:
    return finite(float(study.loss(model(data.x.to(study.device)), data.y.to(study.device))))


def _error(f: Tensor, y: Tensor) -> float | None:
    """The part of wrong classes; None where targets are numbers."""
    return None if y.is_floating_point() else wrong(f, y)


def _study(
    family: Family, data: Any, richness: Sequence[float], widths: Sequence[int], seeds: int, r: Sequence[float],
    optimizer: str, lr: float | None, rates: str, steps: int, batch: int, samples: int, test: int, loss: str | Loss | None,
    device: str, meet: bool, engine: str, init: Mapping[str, float | str | Initialiser] | None,
) -> Study:  # fmt: skip
    _increasing("richness", richness, 2, "0.01 0.1 1 10")
    _increasing("widths", whole_numbers("widths", widths, "64 128 256"), 1, "64 128 256")
    if not r or not all(map(math.isfinite, r)) or any(b <= a for a, b in zip(list(r)[:-1], list(r)[1:], strict=True)):
        raise UsageError(f"got r {list(r)}, expected increasing numbers from 0 to 1/2, for example 0 0.25 0.5")
    if rates not in ("law", "tuned"):
        raise UsageError(f"got rates='{rates}', expected 'law' or 'tuned'")
    for name, value in (("seeds", seeds), ("steps", steps), ("batch", batch), ("samples", samples), ("test", test)):
        if value < 1:
            raise UsageError(f"got {name} = {value}, expected at least 1")
    if optimizer not in POWERS:
        raise UsageError(
            f"got optimizer '{optimizer}', whose rates have no known law in the richness; expected {', '.join(POWERS)}"
        )
    rate = RATES.get(optimizer, 0.001) if lr is None else float(lr)
    if not 0 < rate < math.inf:
        raise UsageError(f"got lr = {rate}, expected a positive number that is finite")
    refuse_device(device)
    train, held = _split(data if isinstance(data, ArrayData) else load(data), samples, test)
    name, function = loss_for(loss, train.y)
    study = Study(
        family, train, held, name, function, tuple(map(float, richness)), tuple(map(float, r)), tuple(map(int, widths)), seeds,
        optimizer, rate, rates, steps, batch, device, meet, engine, init,
    )  # fmt: skip
    for q in study.r:
        study.plan(q, study.richness[0])  # refuses exponents and optimizers that make no plan
    return study


def _increasing(name: str, values: Sequence[float], least: int, example: str) -> None:
    try:
        got = [float(v) for v in values]
    except (TypeError, ValueError):  # refused as what it is
        got = []
    if (
        len(got) < least
        or got[0] <= 0
        or not all(map(math.isfinite, got))
        or any(b <= a for a, b in zip(got[:-1], got[1:], strict=True))
    ):
        raise UsageError(f"got {name} {values}, expected at least {least} increasing positive ones, for example {example}")


def _split(data: ArrayData, samples: int, test: int) -> tuple[ArrayData, ArrayData]:
    """Training and held-out samples from one permutation, so that none is in both."""
    if len(data) < 4:
        raise UsageError(f"got {len(data)} samples, expected at least 4: some to train on, some to hold out")
    whole = data.subset(min(samples + test, len(data)), seed=0)
    held = min(test, len(whole) // 2)
    cut, kept = len(whole) - held, min(samples, len(whole) - held)
    x, y = (v.double() if v.is_floating_point() else v for v in (whole.x, whole.y))
    return replace(whole, x=x[:kept], y=y[:kept]), replace(whole, x=x[cut:], y=y[cut:])
