"""``lazyrich transfer FACTORY``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from lazyrich.cli.command import Factory, Live, Optimizer, command_line, pairs, parse, progress, rules, slug

if TYPE_CHECKING:
    from lazyrich.measure.transfer_result import TransferResult
    from lazyrich.scaling import Plan


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def transfer(
        factory: Factory,
        scheme: tuple[str, ...] = ("standard", "mup"),
        optimizer: Optimizer = "adam",
        base: int = 64,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        lrs: tuple[float, ...] = (),
        seeds: int = 3,
        steps: int = 200,
        batch: int = 64,
        evaluate: int = 1000,
        test: int = 0,
        weight_decay: float = 0.0,
        data: str = "digits",
        data_root: str | None = None,
        samples: int | None = None,
        target: Literal["labels", "input"] = "labels",
        images: bool = False,
        loss: str | None = None,
        depths: tuple[int, ...] = (),
        branches: tuple[str, ...] = (),
        base_depth: int | None = None,
        depth_exponent: float = 0.5,
        roles: tuple[str, ...] = (),
        init: tuple[str, ...] = (),
        meet: Annotated[bool, tyro.conf.arg(aliases=["--meet-obligations"])] = False,
        engine: Literal["auto", "vmap", "loop"] = "auto",
        device: str = "cpu",
        executor: str = "inline",
        workers: int | None = None,
        shard: str | None = None,
        retry_failed: bool = False,
        track: tuple[str, ...] = (),
        out: Path | None = None,
    ) -> None:
        """Find the best learning rate at several widths, and say whether a small network's can be kept for a large one.

        Example:
            lazyrich transfer lazyrich.zoo:mlp --base 32 --widths 32 64 128 --steps 60 --seeds 2

        Args:
            factory: package.module:callable or path/to/file.py:callable that builds the network for a width.
            scheme: one or more of standard, ntk, mean_field, mup, richness(0.25), spectral, abc(...).
            optimizer: one of OPTIMIZERS, which the help lists.
            base: width at which the plan is the plain network.
            widths: widths to train, increasing.
            lrs: learning rates at the base width, increasing (default: twelve, over eleven octaves around a usual one).
            seeds: networks a width and learning rate.
            steps: training steps a network.
            batch: samples a step.
            evaluate: fixed samples, of those that are trained on, on which the loss after training is measured.
            test: hold so many samples out and measure the loss on them instead.
            weight_decay: weight decay of the base-width network.
            data: digits, mnist, fashion_mnist, or module:function.
            data_root: folder of the image files (default: $LAZYRICH_DATA and the usual places).
            samples: use this many samples of the data (default: all).
            target: labels, or the input itself for an autoencoder.
            images: give the network images (batch, channels, height, width) instead of flat vectors.
            loss: cross_entropy, mse, half_mse, or path/to/file.py:function of (output, target) (default: by the targets).
            depths: second argument of the factory, if it takes one; several ask how the best learning rate moves with it.
            branches: patterns of the modules that are residual branches, which --meet scales with the depth.
            base_depth: number of branches at which the network was tuned (default: the smallest depth's).
            depth_exponent: of the branches' multiplier: 0.5 is Depth-muP, 1 is CompleteP.
            roles: pattern=role for tensors whose role shapes cannot tell.
            init: pattern=std at the base width, or pattern=rule: '*=he(relu)', '*=critical(tanh, 0.05)' ... (see lazyrich init).
            meet: meet the plan's obligations by hooks.
            engine: vmap stacks networks of one shape, loop trains one by one, auto decides by rule.
            device: where to train.
            executor: inline, processes, ray, dask, ray://HOST:PORT or dask://HOST:PORT.
            workers: processes of this machine (default: all cores).
            shard: i/n trains this part only, for schedulers; lazyrich merge brings the parts together.
            retry_failed: train again what failed.
            track: tensorboard:FOLDER, wandb:PROJECT, trackio:PROJECT or mlflow:EXPERIMENT, one or more.
            out: run folder (default: runs/transfer-...).
        """
        from lazyrich.data import load
        from lazyrich.family import Family
        from lazyrich.measure import transfer as run_transfer
        from lazyrich.measure.transfer import ordered_axes
        from lazyrich.reference import resolve
        from lazyrich.scaling import parse as parse_scheme
        from lazyrich.scaling import plan as make_plan
        from lazyrich.scaling.obligation import branches as paths
        from lazyrich.sweep import tracker_for

        ordered_axes(widths, lrs or None)  # before networks are made
        called, known = resolve(factory), pairs(roles, "roles")
        families = [Family(called, base, depth=depth, roles=known) for depth in depths or (None,)]
        if branches and base_depth is None:
            base_depth = len(paths(min(families, key=lambda family: family.depth or 0).sketch(base), branches[0]))
        plans = [
            make_plan(
                family, parse_scheme(text), optimizer, init=rules(init), branches=branches, base_depth=base_depth,
                depth_exponent=depth_exponent,
            )
            for text in scheme for family in families
        ]  # fmt: skip
        arrays = load(data, root=data_root, target=target, flatten=not images)
        arrays = arrays if samples is None else arrays.subset(samples)
        folder = out or Path("runs") / slug("transfer", families[0].name, *scheme, optimizer)
        with Live(folder) as page, progress("transfer") as show:
            result = run_transfer(
                plans, arrays, widths, lrs or None, seeds, steps=steps, batch=batch, evaluate=evaluate, test=test,
                weight_decay=weight_decay, loss=loss, device=device, meet=meet, engine=engine, folder=folder / "trials",
                executor=executor, workers=workers, shard=shard, retry_failed=retry_failed, progress=show,
                trackers=[tracker_for(text) for text in track], so_far=page.draw,
                command=command_line("transfer", words),
            )  # fmt: skip
        files = []
        for made in plans:
            depth = [f"depth{made.family.depth}"] if len(families) > 1 and made.family else []
            files.append(made.save(folder / f"{slug(made.scheme.name, optimizer, *depth)}.json"))
        result = replace(result, reproduce={**result.reproduce, "use": _use(result, plans, files, factory, known, meet)})
        print(result, end="\n\n")
        if result.wider_lrs:
            wider = command_line("transfer", [*_without("--lrs", words), "--lrs", *map(str, result.wider_lrs)])
            print(f"a wider grid, of which only the new rates are trained: {wider}")
        print(f"plans: {', '.join(str(file) for file in files)}")
        print(*result.reproduce["use"], sep="\n")
        print(f"page: {page.finish(result)}")

    parse(transfer, "transfer", words)


def _use(
    result: TransferResult, plans: Sequence[Plan], files: Sequence[Path], factory: str, roles: Mapping[str, str], meet: bool
) -> list[str]:
    """Lines of Python that train by the plan that costs least to keep, at the widest width."""
    last = result.widths[-1]
    costs = {i: s.regret[last] for i, s in enumerate(result.schemes) if math.isfinite(s.best[last].lr)}
    if not costs:
        return []
    at = min(costs, key=lambda i: (not result.schemes[i].transfers, math.isnan(costs[i]), costs[i]))
    found, family = result.schemes[at], plans[at].family
    assert family is not None
    depth = "" if family.depth is None else f", depth={family.depth}"
    made = f"lazyrich.Family({factory.rpartition(':')[2]}, base={family.base}{depth}{f', roles={roles}' if roles else ''})"
    rate = found.best[result.widths[0] if found.transfers else last].lr
    hooks = ", meet=True" if meet and plans[at].obligations else ""
    mine = "plan.meet_(plan.apply_(model))" if hooks else "plan.apply_(model)"
    return [
        "import lazyrich",
        *_imported(factory),
        f"plan = lazyrich.Plan.load({_quoted(str(files[at]))}, family={made})",
        f"model = plan.build({last}{hooks})  # or {mine}, a network that you built",
        f"optimizer = plan.optimizer(model, lr={rate:.3g})  # the best at width "
        + (f"{result.widths[0]}, kept" if found.transfers else str(last)),
    ]


def _imported(factory: str) -> list[str]:
    """Lines of Python after which the factory has its own name."""
    place, _, name = factory.rpartition(":")
    if place.endswith(".py"):
        return ["from lazyrich.reference import resolve", f"{name} = resolve({_quoted(factory)})"]
    return [f"from {place} import {name}"]


def _quoted(text: str) -> str:
    """As Python reads it, in the quotes of this house."""
    return json.dumps(text, ensure_ascii=False)


def _without(option: str, words: Sequence[str]) -> list[str]:
    """A command's words without an option and its values."""
    kept: list[str] = []
    inside = False
    for word in words:
        inside = word.partition("=")[0] == option or (inside and not word.startswith("--"))
        kept += [] if inside else [word]
    return kept
