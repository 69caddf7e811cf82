"""The coordinate check over depth: what residual branches, and the stream that they add to, do as there are more of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

from lazyrich.errors import UsageError
from lazyrich.measure.check import Setup, Trial, refuse_lost, run_trial, setup_of, whole_numbers
from lazyrich.measure.deep_result import DepthLine, DepthResult
from lazyrich.measure.slope import fit_slope
from lazyrich.scaling import Plan
from lazyrich.scaling.obligation import branches
from lazyrich.sweep import RunFolder, kept
from lazyrich.train import Loss

Progress = Callable[[int, int, str], None]


def check_depth(
    plan_at: Callable[[int], Plan],
    data: Any = "digits",
    depths: Sequence[int] = (4, 8, 16, 32),
    *,
    width: int | None = None,
    steps: int = 4,
    seeds: int = 3,
    lr: float | None = None,
    weight_decay: float = 0.0,
    batch: int = 64,
    probe: int = 16,
    loss: str | Loss | None = None,
    meet: bool = True,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> DepthResult:
    """Is a plan well-behaved at every depth? Slopes of updates in the number of branches, and a verdict.

    Layers outside of branches are compared by name, those inside at the first branch, half of the way and before the last of the
    shallowest network: the same part of the branches lies below at every depth. Their updates should neither grow nor fade:
    slope 0. A layer's own part of it, relative to its output, goes as depth^(alpha - 1): constant under CompleteP, fading under
    Depth-muP (Dey et al. 2025, arXiv:2505.01618).

    Args:
        plan_at: depth -> plan, with ``branches=`` and the same ``base_depth=`` at every depth.
        data: whatever ``lazyrich.data.load`` reads.
        depths: at least two, increasing.
        width: of all networks; the plans' base by default.
        steps: training steps.
        seeds: networks a depth.
        lr: learning rate at base width and depth; by default one that moves small networks.
        weight_decay: at base width and depth.
        batch: samples a step.
        probe: samples on which updates are measured.
        loss: name or function; by default cross entropy for labels, mean squared error for numbers.
        meet: meet the plans' obligations by hooks, the branches' multipliers among them.
        folder: a run folder; finished networks are kept there and the same call continues.
        progress: called with (networks done, in all, what is next).
        command: how a person repeats this, for the page.

    Raises:
        UsageError: for depths that make no check, or plans without branches.

    Example:
        >>> import lazyrich as lzr
        >>> def plan_at(depth):
        ...     family = lzr.Family(lzr.zoo.residual_mlp, base=32, depth=depth)
        ...     return lzr.plan(family, lzr.mup(), "adamw", branches=["blocks.*"], base_depth=2, depth_exponent=1.0)
        >>> check_depth(plan_at, "digits", (2, 4, 8, 16), steps=2, seeds=2).word
        'well-behaved'
    """
    ordered = list(whole_numbers("depths", depths, "4 8 16 32"))
    refuse_depths(ordered)
    setups = {
        depth: _setup(plan_at(depth), data, width, steps, seeds, lr, weight_decay, batch, probe, loss, meet)
        for depth in ordered
    }
    _refuse_unlike({depth: setup.plan for depth, setup in setups.items()})
    _refuse_constant({depth: setup.plan for depth, setup in setups.items()})
    store = RunFolder(folder, _run_of(setups)) if folder else None
    refuse_lost(setups[ordered[0]])
    jobs, trials = [(depth, seed) for depth in ordered for seed in range(seeds)], {}
    for done, (depth, seed) in enumerate(jobs):
        if progress:
            progress(done, len(jobs), f"depth {depth}, seed {seed}")
        setup = setups[depth]
        trials[depth, seed] = kept(
            store, f"depth{depth}-seed{seed}", lambda one=setup, s=seed: run_trial(one, one.widths[0], s)
        )
    said = command or "lazyrich.check_depth(plan_at, data, ...) with the settings below"
    return replace(_summary(setups, trials, seeds), command=said, date=date.today().isoformat())


def _run_of(setups: Mapping[int, Setup]) -> dict[str, Any]:
    """The settings of a run: what all depths share once, so that it is named once where it differs from another run's."""
    each = {depth: setup.settings() for depth, setup in setups.items()}
    first = next(iter(each.values()))
    shared = {key: value for key, value in first.items() if all(one.get(key) == value for one in each.values())}
    own = {f"{key} at depth {d}": value for d, one in each.items() for key, value in one.items() if key not in shared}
    return {"depths": list(setups), **shared, **own}


def refuse_depths(depths: Sequence[int]) -> None:
    """Raise a UsageError for depths that make no check."""
    if low := [depth for depth in depths if depth < 1]:
        raise UsageError(f"got depth {low[0]}, expected at least 1; give depths such as 4 8 16 32")
    if len(depths) < 2 or any(b <= a for a, b in zip(depths[:-1], depths[1:], strict=True)):
        raise UsageError(f"got depths {list(depths)}, expected two or more increasing ones, for example 4 8 16 32")


def _refuse_unlike(plans: Mapping[int, Plan]) -> None:
    """Branches tuned at another number at every depth are scaled nowhere."""
    tuned = {depth: [o.base_size for o in plan.obligations if o.kind == "residual branch"] for depth, plan in plans.items()}
    if len({tuple(sizes) for sizes in tuned.values()}) > 1:
        said = "; ".join(f"depth {depth}: {', '.join(f'{size:g}' for size in sizes)}" for depth, sizes in tuned.items())
        raise UsageError(f"got plans that were tuned at other numbers of branches ({said}), expected one base_depth= for all")


def _refuse_constant(plans: Mapping[int, Plan]) -> None:
    """Modules of which a deeper network has no more are not the branches that its depth counts."""
    numbers = {depth: _counts(plan) for depth, plan in plans.items()}
    least, most = min(plans), max(plans)
    for where, few in numbers[least].items():
        if numbers[most].get(where, 0) <= few:
            raise UsageError(
                f"branches= pattern '{where}' matches {few} {'module' if few == 1 else 'modules'} at depth {least} and "
                f"{numbers[most].get(where, 0)} at depth {most}, expected more in a deeper network; name the modules that it has "
                "one more of with every layer, such as 'blocks.*'"
            )


def _setup(plan: Plan, data: Any, width: int | None, *rest: Any) -> Setup:
    if not any(o.kind == "residual branch" for o in plan.obligations):
        raise UsageError("the plan names no residual branches; make it with branches=['blocks.*'] and base_depth=")
    steps, seeds, lr, weight_decay, batch, probe, loss, meet = rest
    chosen = plan.base if width is None else width
    # a check wants two widths; here one is trained at every depth
    made = setup_of(plan, data, (chosen, chosen + plan.base), steps, seeds, lr, weight_decay, batch, probe, loss, "cpu", meet)
    return replace(made, widths=(chosen,))


def _summary(setups: Mapping[int, Setup], trials: Mapping[tuple[int, int], Trial], seeds: int) -> DepthResult:
    depths, step = list(setups), str(next(iter(setups.values())).steps)
    least = _counts(setups[depths[0]].plan)
    renamed = {depth: _names(setup, trials[depth, 0]["order"], least) for depth, setup in setups.items()}
    shared = [label for label in renamed[depths[0]] if all(label in renamed[depth] for depth in depths)]
    plan = setups[depths[0]].plan
    exponent = next(-o.exponent for o in plan.obligations if o.kind == "residual branch")
    lines = []
    for label in shared:
        inside = ": " in label
        for quantity in ("update", "own", "level"):
            values = [
                [_value(trials[depth, seed], step, renamed[depth][label], quantity) for depth in depths]
                for seed in range(seeds)
            ]
            if any(v > 0 for row in values for v in row):
                expected = {"update": 0.0, "own": exponent - 1 if inside else 0.0}.get(quantity)
                shown = tuple(tuple(v if math.isfinite(v) else 0.0 for v in row) for row in values)
                slope = fit_slope(depths, values, bent=False)  # what bends in few layers is what the tolerance is for
                lines.append(DepthLine(label, quantity, slope, expected, shown))
    diverged = sorted({depth for depth, seed in trials if trials[depth, seed]["diverged"]})
    settings = {str(depth): setup.settings() for depth, setup in setups.items()}
    title = (
        f"{plan.family.name if plan.family else 'network'} · {plan.scheme.name} · {plan.optimizer_name} · exponent {exponent:g}"
    )
    return DepthResult(title, tuple(depths), tuple(lines), tuple(diverged), settings)


def _counts(plan: Plan) -> dict[str, int]:
    """Number of residual branches by pattern."""
    assert plan.family is not None
    sketch = plan.family.sketch(plan.base)
    return {o.where: len(branches(sketch, o.where)) for o in plan.obligations if o.kind == "residual branch"}


def _names(setup: Setup, order: Sequence[str], least: Mapping[str, int]) -> dict[str, str]:
    """Label -> unit: units outside of branches under their own names, those of some branches by place.

    What flows into a branch is the embedding and the sum of the branches below, so branches compare where the same part of all
    lies below them: the places are those of the shallowest network, whose numbers of branches are ``least``.
    """
    assert setup.plan.family is not None
    sketch = setup.plan.family.sketch(setup.plan.base)
    found, inside = {}, set()
    for where, few in least.items():
        paths = branches(sketch, where)
        inside |= {unit for unit in order for path in paths if unit == path or unit.startswith(f"{path}.")}
        for below in sorted({0, few // 2, few - 1}):
            path = paths[round(below * len(paths) / few)]
            for unit in order:
                if unit == path or unit.startswith(f"{path}."):
                    found[f"{_place(below, few)} {where}: {unit[len(path) + 1 :] or 'whole'}"] = unit
    return {unit: unit for unit in order if unit not in inside} | found


def _place(below: int, few: int) -> str:
    """Where a branch stands, by the part of all branches that lies below it."""
    return f"{Fraction(below, few)} through" if below else "first of"


def _value(trial: Trial, step: str, unit: str, quantity: str) -> float:
    record = trial["records"].get(step, {}).get(unit, {})
    if quantity == "own":
        level = record.get("level", 0.0)
        return record.get("layer", math.nan) / level if level > 0 else math.nan
    return record.get(quantity, math.nan)
