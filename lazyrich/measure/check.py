"""The coordinate check: train a family at several widths for a few steps, and hold the exponents against theory."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyrich import __version__
from lazyrich.amount import counted, positive, unsigned
from lazyrich.data import ArrayData, load
from lazyrich.errors import TrainError, UsageError
from lazyrich.family import Role
from lazyrich.family.family import seeded
from lazyrich.family.parametrized import place
from lazyrich.fingerprint import fingerprint
from lazyrich.layer import spoken
from lazyrich.measure.contracted import refuse_contracted
from lazyrich.measure.departure import departures
from lazyrich.measure.predict import Prediction, UnitExponents, predict, unit_exponents
from lazyrich.measure.result import CheckResult, Trial
from lazyrich.measure.slope import Slope, fit_slope
from lazyrich.measure.trunk import bottlenecks_beside
from lazyrich.measure.updates import FUNCTION, UpdateProbe
from lazyrich.measure.verdict import SEVERITY, Cause, Line, overall, stretch, with_mend, word_for
from lazyrich.scaling import Plan, as_plan, mup
from lazyrich.scaling.optimizer import is_entrywise, refuse_unshipped
from lazyrich.sweep import RunFolder, kept
from lazyrich.train import Loss, loss_for, train
from lazyrich.train.loss import LOSSES, cross_entropy, refuse_labels

QUANTITIES = ("update", "layer", "passthrough", "interaction", "level", "uuc", "max")
RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 0.003, "adamw": 0.003, "signsgd": 0.001, "muon": 0.01, "adafactor": 0.01}
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Setup:
    """What every trial of a check shares."""

    plan: Plan
    data: ArrayData
    loss_name: str
    loss: Loss
    widths: tuple[int, ...]
    steps: int
    seeds: int
    lr: float
    weight_decay: float
    batch: int
    probe: int
    device: str
    met: bool

    def settings(self) -> dict[str, Any]:
        """The settings that decide every number, for the report and for continuing a run."""
        named = LOSSES.get(self.loss_name) is self.loss
        return {
            "family": repr(self.plan.family),
            "network": self.plan.family.fingerprint if self.plan.family else "",
            "scheme": self.plan.scheme.name,
            "optimizer": self.plan.optimizer_name,
            "base": self.plan.base,
            "plan": self.plan.fingerprint,
            "widths": list(self.widths),
            "steps": self.steps,
            "seeds": self.seeds,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "batch": self.batch,
            "probe": self.probe,
            "loss": self.loss_name,
            **({} if named else {"code of the loss": fingerprint(self.loss)}),
            "data": self.data.name,
            "fingerprint": self.data.fingerprint(),
            "gauge": self.plan.gauge,
            "obligations met": self.met,
            "device": self.device,
        }


def check(
    plan: Plan,
    data: Any = "digits",
    widths: Sequence[int] = (64, 128, 256, 512),
    steps: int = 5,
    seeds: int = 3,
    lr: float | None = None,
    *,
    weight_decay: float = 0.0,
    batch: int = 64,
    probe: int = 16,
    loss: str | Loss | None = None,
    device: str = "cpu",
    meet: bool = False,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> CheckResult:
    """Is a plan well-behaved at every width? Measured slopes, predicted slopes, a verdict and the mend.

    Every width and seed is trained for ``steps`` steps; on a fixed part of the first batch the update of every layer's output
    is measured and split into what its own weights did and what came from below. Exponents are slopes of logarithms with
    intervals; verdicts come from updates, not from levels.

    Args:
        plan: from ``lazyrich.plan``, with its family.
        data: whatever ``lazyrich.data.load`` reads: a name, tensors (x, y), a data set.
        widths: at least two, increasing, none below the plan's base.
        steps: training steps; the decomposition is taken at the last.
        seeds: number of draws of initialisation and batches.
        lr: learning rate of the base-width network; a rate that moves small networks by default.
        weight_decay: of the base-width network.
        batch: samples a step (loss averaged over them).
        probe: samples of the first batch on which updates are measured.
        loss: name or function; by default cross entropy for labels, mean squared error for numbers.
        device: where to train.
        meet: meet the plan's obligations by hooks.
        folder: a run folder; finished trials are kept there and the same call continues.
        progress: called with (trials done, trials in all, what is next).
        command: how a person repeats this, for the report.

    Raises:
        UsageError: for widths, steps or seeds that make no check, and for a vector that the forward sums over, as a readout.
        TrainError: for a network whose loss is not finite before any step.

    Example:
        >>> import lazyrich as lzr
        >>> plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=32), lzr.mup(), optimizer="adamw")
        >>> check(plan, "digits", widths=[32, 64, 128, 256], lr=0.003).verdict.word
        'well-behaved'
    """
    setup = setup_of(as_plan(plan), data, widths, steps, seeds, lr, weight_decay, batch, probe, loss, device, meet)
    store = RunFolder(folder, setup.settings()) if folder else None
    refuse_contracted(setup.plan, setup.data.batch(setup.probe, 0, 0)[0].cpu(), setup.widths[0])
    refuse_lost(setup)
    jobs = [(width, seed) for width in setup.widths for seed in range(seeds)]
    trials = []
    for done, (width, seed) in enumerate(jobs):
        if progress:
            progress(done, len(jobs), f"width {width}, seed {seed}")
        trials.append(kept(store, f"width{width}-seed{seed}", lambda w=width, s=seed: run_trial(setup, w, s)))
    if progress:
        progress(len(jobs), len(jobs), "done")
    return summarise(setup, trials, command)


def refuse_lost(setup: Setup) -> None:
    """Refuse a network whose loss at the first width is not finite before any step: no learning rate mends that.

    Raises:
        TrainError: with the loss and the width; for labels that are none of the outputs.
    """
    model, loss, out = setup.plan.build(setup.widths[0], 0, setup.device, meet=setup.met), 0.0, None
    x, y = (part.to(setup.device) for part in setup.data.batch(setup.batch, 0, 0))
    with suppress(Exception), seeded(0), torch.no_grad():  # what does not run is refused with more words where it is trained
        out = model(x)
        loss = float(setup.loss(out, y))
    if setup.loss is cross_entropy:
        refuse_labels(out, y, setup.data.y)
    if not math.isfinite(loss):
        name = setup.plan.family.name if setup.plan.family else type(model).__name__
        raise TrainError(
            f"the loss of '{name}' is {loss} before any step (width {setup.widths[0]}, seed 0), expected a finite number; mend its "
            "initial weights, or what its forward or the loss divides by or takes the root or logarithm of"
        )


def run_trial(setup: Setup, width: int, seed: int) -> Trial:
    """Train one network with the probe on; plain numbers, ready for JSON."""
    model = setup.plan.build(width, seed, setup.device, meet=setup.met)
    optimizer = setup.plan.optimizer(model, setup.lr, setup.weight_decay)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        x, y = setup.data.batch(setup.batch, step, seed)
        return x.to(setup.device), y.to(setup.device)

    x, y = batches(0)
    probe = UpdateProbe(x[: setup.probe], y[: setup.probe], setup.loss, sorted({1, setup.steps}))
    run = train(model, optimizer, batches, setup.loss, setup.steps, probes=[probe], seed=seed)
    growths = {name: setting.growth.fan_in for name, setting in setup.plan.settings(model).items()}
    for records in probe.records.values():
        for name in records.keys() & growths.keys():  # a loose tensor: what its change can do to a sum over its fan-in
            records[name] = {q: v * growths[name] for q, v in records[name].items()}
    return {
        "width": width,
        "seed": seed,
        "losses": run.losses,
        "diverged": run.diverged,
        "order": probe.order,
        "records": {str(step): records for step, records in probe.records.items()},
    }


def summarise(setup: Setup, trials: Sequence[Trial], command: str = "") -> CheckResult:
    """From finished trials to slopes, verdicts and mends."""
    order = trials[0]["order"]
    units = [key for key in order if key != FUNCTION]
    exponents = unit_exponents(setup.plan, units, setup.widths, setup.met)
    x = setup.data.batch(setup.probe, 0, 0)[0].cpu()
    beside = bottlenecks_beside(setup.plan, exponents, x, setup.widths[0])
    predicted = predict(setup.plan, units, setup.widths, setup.met, beside)
    if FUNCTION in order:
        exponents[FUNCTION], predicted[FUNCTION] = WHOLE, _of_function(units, exponents, predicted)
    lines = [line for key in order for line in _lines(setup, trials, key, exponents[key], predicted[key])]
    kept_still = _still(setup, units)
    lines = _judge(setup, trials, lines, exponents, kept_still)
    moved = _function_movement(setup, trials, order, exponents)
    diverged = sorted({trial["width"] for trial in trials if trial["diverged"]})
    lost = sorted({trial["width"] for trial in trials if _lost(trial)})
    theory = setup.plan.scheme.classify(setup.plan.optimizer_name)
    scheme = setup.plan.scheme.name
    verdict = overall(
        lines, diverged=diverged, moved=moved, lr=setup.lr, regime=theory.regime, scheme=scheme, decay=setup.weight_decay,
        lost=lost, still=[spoken(key) for key in kept_still], departures=[str(d) for d in departures(setup.plan)],
    )  # fmt: skip
    family = setup.plan.family.name if setup.plan.family else "network"
    return CheckResult(
        title=f"{family} · {setup.plan.scheme.name} · {setup.plan.optimizer_name}",
        verdict=verdict,
        lines=tuple(lines),
        trials=tuple(trials),
        theory={
            "scheme": setup.plan.scheme.name,
            "optimizer": setup.plan.optimizer_name,
            "regime": theory.regime,
            "r": theory.r,
            "stable": theory.stable,
            "nontrivial": theory.nontrivial,
            "why": theory.why,
        },
        settings=setup.settings(),
        plan=setup.plan.rows(max(setup.widths)),
        obligations=_obligations(setup),
        reproduce={
            "command": command or "lazyrich.check(plan, data, ...) with the settings above",
            "versions": {"lazyrich": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "date": date.today().isoformat(),
        },
    )


def _lost(trial: Trial) -> bool:
    """Whether an update is not finite; the loss before the last step does not show it."""
    return any(not math.isfinite(unit.get("update", 0.0)) for records in trial["records"].values() for unit in records.values())


def _obligations(setup: Setup) -> list[dict[str, Any]]:
    """The plan's obligations with their factors at the largest width."""
    family, owed = setup.plan.family, setup.plan.obligations
    if not owed or family is None:
        return []
    widest = family.sketch(max(setup.widths))
    return [{"kind": o.kind, "where": o.where, "why": o.why, "factor": o.factor(widest), "met": setup.met} for o in owed]


def setup_of(
    plan: Plan, data: Any, widths: Sequence[int], steps: int, seeds: int, lr: float | None, weight_decay: float,
    batch: int, probe: int, loss: str | Loss | None, device: str, meet: bool
) -> Setup:  # fmt: skip
    """What the trials share, with everything that makes no check refused."""
    refuse_unshipped(plan.optimizer_name)
    ordered = whole_numbers("widths", widths, "64 128 256 512")
    if len(ordered) < 2:
        raise UsageError(f"got widths {list(ordered)}, expected at least two: a slope needs two widths, a good one four")
    if any(b <= a for a, b in zip(ordered[:-1], ordered[1:], strict=True)):
        raise UsageError(f"got widths {list(ordered)}, expected increasing ones, for example 64 128 256 512")
    if ordered[0] < plan.base:
        raise UsageError(
            f"got width {ordered[0]} below the base width {plan.base}; the plan says what happens as the network grows "
            "from its base: raise the widths or lower the base"
        )
    for name, value in (("steps", steps), ("seeds", seeds), ("batch", batch), ("probe", probe)):
        counted(name, value)
    rate = positive("lr", RATES.get(plan.optimizer_name, 0.001) if lr is None else lr)
    weight_decay = unsigned("weight_decay", weight_decay)
    refuse_device(device)
    arrays = data if isinstance(data, ArrayData) else load(data)
    name, function = loss_for(loss, arrays.y)
    return Setup(
        plan,
        arrays,
        name,
        function,
        ordered,
        steps,
        seeds,
        rate,
        weight_decay,
        batch,
        min(probe, batch),
        device,
        meet,
    )


def whole_numbers(name: str, values: Any, example: str) -> tuple[int, ...]:
    """The values as integers.

    Raises:
        UsageError: if they are none.

    Example:
        >>> whole_numbers("widths", [64, 128.0], "64 128")
        (64, 128)
    """
    several = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    try:
        found = tuple(int(value) for value in several)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"got {name} {several!r}, expected whole numbers such as {example}") from None
    if odd := [value for value, whole in zip(several, found, strict=True) if whole != value]:
        raise UsageError(f"got {name} with {odd[0]!r}, expected whole numbers such as {example}")
    return found


def refuse_device(device: str) -> None:
    """Raise a UsageError for a device that this machine does not have."""
    try:
        torch.zeros(1, device=device).item()  # of the meta device there are tensors, and no numbers
    except (RuntimeError, AssertionError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UsageError(f"got device '{device}', which cannot be used here ({first}); try cpu") from error


WHOLE = UnitExponents(FUNCTION, Role.FIXED, 0.0, 0.0, ())


def _of_function(units: Sequence[str], exponents: dict[str, UnitExponents], predicted: dict[str, Prediction]) -> Prediction:
    """What comes out of the network moves as its readout does; nothing is predicted where no readout is the last unit."""
    unknown = float("nan")
    last = next((key for key in reversed(units) if key in exponents and not exponents[key].wide), None)
    update = predicted[last].update if last else unknown
    return Prediction(update, unknown, update, unknown)


def _lines(setup: Setup, trials: Sequence[Trial], key: str, unit: UnitExponents, predicted: Prediction) -> list[Line]:
    found = []
    names = _tensors(setup.plan, key) or (unit.tensor,)
    role = "function" if key == FUNCTION else str(unit.role)
    for step in sorted({int(s) for trial in trials for s in trial["records"]}):
        for quantity in QUANTITIES:
            values = [
                [_value(trials, width, seed, step, key, quantity) for width in setup.widths] for seed in range(setup.seeds)
            ]
            if quantity == "update" or any(v > 0 for row in values for v in row):
                slope = fit_slope(setup.widths, values, bent=False)  # what bends in narrow ones is what TOLERANCE is for
                expected = getattr(predicted, quantity, None)
                found.append(Line(key, names, role, quantity, step, slope, expected))
    return found


def _value(trials: Sequence[Trial], width: int, seed: int, step: int, key: str, quantity: str) -> float:
    for trial in trials:
        if trial["width"] == width and trial["seed"] == seed:
            return trial["records"].get(str(step), {}).get(key, {}).get(quantity, float("nan"))
    return float("nan")


NOTHING = Slope(float("nan"), float("nan"), float("nan"), 0)


def _still(setup: Setup, units: Sequence[str]) -> list[str]:
    """Layers all of whose tensors the network itself keeps from training."""
    if setup.plan.family is None:
        return []
    trained = {name: p.requires_grad for name, p in setup.plan.family.sketch(setup.plan.base).named_parameters()}
    own = {key: _tensors(setup.plan, key) for key in units}
    return [key for key, names in own.items() if names and not any(trained.get(name, True) for name in names)]


def _tensors(plan: Plan, key: str) -> tuple[str, ...]:
    """The tensors that a layer owns."""
    path = key.split("#")[0]
    return tuple(name for name in plan.tensors if name == key or place(name)[0] == path)


def _judge(
    setup: Setup, trials: Sequence[Trial], lines: list[Line], exponents: dict[str, UnitExponents], still: Sequence[str]
) -> list[Line]:
    """Give every layer's last update line its word and its mend; one that is kept still is judged by what passes through it."""
    by = {(line.layer, line.quantity): line for line in lines if line.step == setup.steps}
    first = {line.layer: line for line in lines if line.step == 1 and line.quantity == "update"}
    remedy = mup().layers(is_entrywise(setup.plan.optimizer_name))
    same = setup.plan.scheme.layers(is_entrywise(setup.plan.optimizer_name)) == remedy and not setup.plan.scheme.global_rate
    readout = max((remedy.output.init - unit.init for unit in exponents.values() if str(unit.role) == "output"), default=0.0)
    astray = tuple(dict.fromkeys(d.tensor for d in departures(setup.plan)))
    exploding_below, verdicts, narrow = False, {}, ""
    strict = stretch(2 * len(exponents), setup.seeds * (len(setup.widths) - 1) - 1)  # the first step's and the last
    last = [key for key in exponents if key != FUNCTION][-1:]
    for key, unit in exponents.items():
        if unit.role is Role.OUTPUT and key not in last:
            narrow = key
        elif unit.role is not Role.FIXED:  # of a fixed size too: a norm of what narrowed
            narrow = ""
        update = by.get((key, "update"))
        if update is None or (key in still and math.isnan(update.slope.value)):
            continue
        layer = by.get((key, "layer"), update)
        through = by.get((key, "passthrough"), Line(key, (), "", "passthrough", setup.steps, NOTHING, None))
        moved = "update" if key == FUNCTION else "layer"
        trains = key in still or any(
            _value(trials, w, s, setup.steps, key, moved) != 0 for w in setup.widths for s in range(setup.seeds)
        )
        start = first.get(key, update)
        word = word_for(update.slope, layer.slope, unit.wide, trains, start.slope, strict)
        row = {"hidden": remedy.hidden, "output": remedy.output}.get(str(unit.role), remedy.input)
        # sides that grow unlike the width ask for other exponents than the scheme's own
        kept = unit.role is Role.FIXED or (same and unit.tensor not in astray)
        rate = 0.0 if kept else row.rate(is_entrywise(setup.plan.optimizer_name)) - unit.rate
        init = 0.0 if kept else row.init - unit.init
        level = exponents[narrow].fan_in / 2 - exponents[narrow].init if narrow and not exponents[narrow].zero else 0.0
        before = tuple(spoken(other) for other, line in verdicts.items() if line.verdict in SEVERITY[:3])
        feeds = {"narrow": narrow, "level": level, "same": same, "before": before}
        cause = Cause(rate, init, readout, unit.owed, key == FUNCTION, unit.rate, unit.init, astray, **feeds)
        verdicts[key] = with_mend(replace(update, verdict=word), start, layer, through, cause, exploding_below)
        exploding_below = exploding_below or word == "exploding"
    return [
        verdicts[line.layer] if line.quantity == "update" and line.step == setup.steps and line.layer in verdicts else line
        for line in lines
    ]


def _function_movement(
    setup: Setup, trials: Sequence[Trial], order: Sequence[str], exponents: dict[str, UnitExponents]
) -> float:
    """Relative movement of the last layer's output, at the width where it moved most (mean over seeds)."""
    key = next((key for key in reversed(order) if not exponents[key].wide), order[-1])
    moves: dict[int, list[float]] = {width: [] for width in setup.widths}
    for trial in trials:
        record = trial["records"].get(str(setup.steps), {}).get(key)
        if record:
            moves[trial["width"]].append(record["update"] / record["level"] if record["level"] > 0 else record["update"] > 0)
    return max((sum(m) / len(m) for m in moves.values() if m), default=0.0)
