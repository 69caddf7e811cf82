"""``lazyrich check FACTORY``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lazyrich.cli.command import Factory, Optimizer, command_line, pairs, parse, progress, rules, slug, unshared


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def check(
        factory: Factory,
        scheme: tuple[str, ...] = ("mup",),
        optimizer: Optimizer = "adamw",
        base: int = 64,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        steps: int = 5,
        seeds: int = 3,
        lr: float | None = None,
        weight_decay: float = 0.0,
        batch: int = 64,
        probe: int = 16,
        data: str = "digits",
        data_root: str | None = None,
        target: Literal["labels", "input"] = "labels",
        images: bool = False,
        loss: str | None = None,
        depth: int | None = None,
        roles: tuple[str, ...] = (),
        init: tuple[str, ...] = (),
        meet: Annotated[bool, tyro.conf.arg(aliases=["--meet-obligations"])] = False,
        device: str = "cpu",
        out: Path | None = None,
    ) -> None:
        """Train a network family a few steps at several widths and say whether it is well-behaved at every width.

        Example:
            lazyrich check lazyrich.zoo:mlp --scheme mup --optimizer adamw

        Args:
            factory: package.module:callable or path/to/file.py:callable that builds the network for a width.
            scheme: one or more of standard, ntk, mean_field, mup, richness(0.25), spectral, abc(...).
            optimizer: one of OPTIMIZERS, which the help lists.
            base: width at which the plan is the plain network.
            widths: widths to train, increasing, none below the base.
            steps: training steps a network.
            seeds: networks a width.
            lr: learning rate of the base-width network (default: one that moves small networks).
            weight_decay: weight decay of the base-width network.
            batch: samples a step.
            probe: samples on which updates are measured.
            data: digits, mnist, fashion_mnist, or module:function.
            data_root: folder of the image files (default: $LAZYRICH_DATA and the usual places).
            target: labels, or the input itself for an autoencoder.
            images: give the network images (batch, channels, height, width) instead of flat vectors.
            loss: cross_entropy, mse, half_mse, or path/to/file.py:function of (output, target) (default: by the targets).
            depth: second argument of the factory, if it takes one.
            roles: pattern=role for tensors whose role shapes cannot tell.
            init: pattern=std at the base width, or pattern=rule: '*=he(relu)', '*=critical(tanh, 0.05)' ... (see lazyrich init).
            meet: meet the plan's obligations by hooks.
            device: where to train.
            out: run folder (default: runs/check-...).
        """
        from lazyrich.data import load
        from lazyrich.family import Family
        from lazyrich.files import write_json
        from lazyrich.measure import check as run_check
        from lazyrich.reference import resolve
        from lazyrich.report import render
        from lazyrich.scaling import parse as parse_scheme
        from lazyrich.scaling import plan as make_plan

        family = Family(resolve(factory), base, depth=depth, roles=pairs(roles, "roles"))
        schemes = [parse_scheme(text) for text in scheme]
        plans = [make_plan(family, one, optimizer, init=rules(init)) for one in schemes]
        arrays = load(data, root=data_root, target=target, flatten=not images)
        folder = out or Path("runs") / slug("check", family.name, *scheme, optimizer, data)
        results = []
        unshared(folder)
        for made in plans:
            part = folder / slug(made.scheme.name, optimizer)
            with progress(made.scheme.name) as show:
                result = run_check(
                    made, arrays, widths, steps, seeds, lr, weight_decay=weight_decay, batch=batch, probe=probe,
                    loss=loss, device=device, meet=meet, folder=part, progress=show, command=command_line("check", words),
                )  # fmt: skip
            made.save(part / "plan.json")
            results.append(result.to_dict())
            print(result, end="\n\n")
        write_json(folder / "result.json", results)
        print(f"page: {render(results, folder / 'report.html')}")

    parse(check, "check", words)
