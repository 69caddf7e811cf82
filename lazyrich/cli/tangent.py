"""``lazyrich tangent FACTORY``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lazyrich.cli.command import Factory, command_line, pairs, parse, progress, rules, slug


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def tangent(
        factory: Factory,
        data: str = "digits",
        data_root: str | None = None,
        classes: tuple[int, ...] = (),
        width: int | None = None,
        scheme: str = "ntk",
        base: int = 64,
        depth: int | None = None,
        roles: tuple[str, ...] = (),
        init: tuple[str, ...] = (),
        images: bool = False,
        autoencoder: bool = False,
        samples: int = 128,
        test: int = 256,
        few: int = 8,
        steps: int = 400,
        lr: float | None = None,
        seed: int = 0,
        out: Path | None = None,
    ) -> None:
        """Train a network beside its tangent: spectrum, alignment by layer, movement, linearisation error, corrections.

        Example:
            lazyrich tangent lazyrich.zoo:mlp --data digits --width 64 --steps 400

        Args:
            factory: package.module:callable or path/to/file.py:callable that builds the network for a width.
            data: digits, mnist, fashion_mnist, or module:function.
            data_root: folder of the image files (default: $LAZYRICH_DATA and the usual places).
            classes: keep only these; two of them for a network of one output.
            width: of the network (default: the base, where every plan is the plain network).
            scheme: standard, ntk, mup, richness(0.25): decides what wider networks and their learning rates are.
            base: width at which the plan is the plain network.
            depth: second argument of the factory, if it takes one.
            roles: pattern=role for tensors whose role shapes cannot tell.
            init: pattern=std at the base width, or pattern=rule: '*=he(relu)', '*=critical(tanh, 0.05)' ... (see lazyrich init).
            images: give the network images (batch, channels, height, width) instead of flat vectors.
            autoencoder: let the inputs be the targets.
            samples: training samples, at least 4; with the outputs they decide the side of the full tangent kernel.
            test: held-out samples; fewer where the data has fewer left.
            few: samples for the corrections to order 4, 2 to 24, or as many as there are; time grows as their fourth power.
            steps: of full-batch gradient descent.
            lr: learning rate at the base width (default: a quarter of the linearised network's largest).
            seed: of samples and network.
            out: run folder (default: runs/tangent-...).
        """
        from lazyrich.data import load
        from lazyrich.family import Family
        from lazyrich.files import write_json
        from lazyrich.measure import tangents
        from lazyrich.reference import resolve
        from lazyrich.report import render
        from lazyrich.scaling import parse as parse_scheme
        from lazyrich.scaling import plan as make_plan

        family = Family(resolve(factory), base, depth=depth, roles=pairs(roles, "roles"))
        plan = make_plan(family, parse_scheme(scheme), "sgd", init=rules(init))
        given = load(data, root=data_root, target="input" if autoencoder else "labels", flatten=not images)
        given = given.only(classes) if classes else given
        folder = out or Path("runs") / slug(
            "tangent", family.name, plan.scheme.name, given.name, f"width{base if width is None else width}"
        )
        with progress("tangent") as show:
            result = tangents(
                plan, given, width, samples=samples, test=test, few=few, steps=steps, lr=lr, seed=seed, folder=folder,
                progress=show, command=command_line("tangent", words),
            )  # fmt: skip
        write_json(folder / "result.json", result.to_dict())
        print(result, end="\n\n")
        print(f"page: {render(result, folder / 'report.html')}")

    parse(tangent, "tangent", words)
