"""``lazyrich init FACTORY``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lazyrich.cli.command import Factory, command_line, pairs, parse, progress, rules, slug


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def init(
        factory: Factory,
        data: str = "digits",
        data_root: str | None = None,
        scheme: str = "standard",
        base: int = 64,
        width: int = 256,
        depth: int | None = None,
        roles: tuple[str, ...] = (),
        init: tuple[str, ...] = (),
        images: bool = False,
        samples: int = 12,
        seeds: int = 8,
        seed: int = 0,
        out: Path | None = None,
    ) -> None:
        """Draw a network and follow signals through it: levels, correlations and gradients by layer, beside their prediction.

        Example:
            lazyrich init lazyrich.zoo:mlp --depth 8 --width 256

        Args:
            factory: package.module:callable or path/to/file.py:callable that builds the network for a width.
            data: digits, mnist, fashion_mnist, or module:function; only inputs count.
            data_root: folder of the image files (default: $LAZYRICH_DATA and the usual places).
            scheme: standard, ntk, mup, richness(0.25) ...
            base: width at which the plan is the plain network.
            width: of the network that is drawn.
            depth: second argument of the factory, if it takes one.
            roles: pattern=role for tensors whose role shapes cannot tell.
            init: pattern=std at the base width, or pattern=rule: 'hidden.*.weight=0.18', '*=critical(tanh, 0.05)', '*=he(relu)',
                orthogonal, delta_orthogonal, lecun, xavier, spectral, zero, transposed(TENSOR, 0.5), inverse(TENSOR).
            images: give the network images (batch, channels, height, width) instead of flat vectors.
            samples: inputs, at least 2.
            seeds: networks drawn, at least 2.
            seed: of inputs and networks.
            out: run folder (default: runs/init-...).
        """
        from lazyrich.data import load
        from lazyrich.family import Family
        from lazyrich.files import write_json
        from lazyrich.measure import signals
        from lazyrich.reference import resolve
        from lazyrich.report import render
        from lazyrich.scaling import parse as parse_scheme
        from lazyrich.scaling import plan as make_plan
        from lazyrich.sweep import RunFolder

        family = Family(resolve(factory), base, depth=depth, roles=pairs(roles, "roles"))
        plan = make_plan(family, parse_scheme(scheme), "sgd", init=rules(init))
        inputs = load(data, root=data_root, flatten=not images)
        folder = out or Path("runs") / slug("init", family.name, plan.scheme.name, inputs.name, f"width{width}")
        settings = {
            "network": family.fingerprint, "plan": plan.fingerprint, "data": inputs.fingerprint(), "width": width,
            "samples": samples, "seeds": seeds, "seed": seed,
        }  # fmt: skip
        RunFolder(folder, settings)  # refuses before any work what holds another run, or cannot be written
        with progress("init") as show:
            result = signals(
                plan, inputs, width, samples=samples, seeds=seeds, seed=seed, progress=show, command=command_line("init", words)
            )
        if init:
            result = replace(result, settings={**result.settings, "init": list(init)})
        print(result, end="\n\n")
        write_json(folder / "result.json", result.to_dict())
        print(f"page: {render(result, folder / 'report.html')}")

    parse(init, "init", words)
