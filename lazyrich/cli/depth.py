"""``lazyrich depth FACTORY``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lazyrich.cli.command import Factory, Optimizer, command_line, pairs, parse, progress, rules, slug
from lazyrich.errors import UsageError


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def depth(
        factory: Factory,
        branches: tuple[str, ...] = ("blocks.*",),
        depths: tuple[int, ...] = (4, 8, 16, 32),
        base_depth: int | None = None,
        depth_exponent: float = 0.5,
        scheme: str = "mup",
        optimizer: Optimizer = "adamw",
        base: int = 64,
        width: int | None = None,
        steps: int = 4,
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
        roles: tuple[str, ...] = (),
        init: tuple[str, ...] = (),
        meet: bool = True,
        out: Path | None = None,
    ) -> None:
        """Train a residual network a few steps at several depths and say whether it is well-behaved at every depth.

        Example:
            lazyrich depth lazyrich.zoo:residual_mlp --branches 'blocks.*' --depths 4 8 16 32 --depth-exponent 1

        Args:
            factory: package.module:callable or path/to/file.py:callable that builds the network for a width and a depth.
            branches: patterns of the modules that are residual branches.
            depths: to train, increasing.
            base_depth: number of branches at which the network was tuned (default: the smallest depth's, alike for all patterns).
            depth_exponent: of the branches' multiplier: 0.5 is Depth-muP, 1 is CompleteP.
            scheme: standard, ntk, mup, richness(0.25) ...
            optimizer: one of OPTIMIZERS, which the help lists.
            base: width at which the plan is the plain network.
            width: of all networks (default: the base).
            steps: training steps a network.
            seeds: networks a depth.
            lr: learning rate at base width and depth (default: one that moves small networks).
            weight_decay: at base width and depth.
            batch: samples a step.
            probe: samples on which updates are measured.
            data: digits, mnist, fashion_mnist, or module:function.
            data_root: folder of the image files (default: $LAZYRICH_DATA and the usual places).
            target: labels, or the input itself for an autoencoder.
            images: give the network images (batch, channels, height, width) instead of flat vectors.
            loss: cross_entropy, mse, half_mse, or path/to/file.py:function of (output, target) (default: by the targets).
            roles: pattern=role for tensors whose role shapes cannot tell.
            init: pattern=std at the base width, or pattern=rule: '*=he(relu)', '*=critical(tanh, 0.05)' ... (see lazyrich init).
            meet: scale the branches by hooks; --no-meet shows what happens without.
            out: run folder (default: runs/depth-...).
        """
        from lazyrich.data import load
        from lazyrich.family import Family
        from lazyrich.files import write_json
        from lazyrich.measure import check_depth
        from lazyrich.measure.deep import refuse_depths
        from lazyrich.reference import resolve
        from lazyrich.report import render
        from lazyrich.scaling import Plan
        from lazyrich.scaling import parse as parse_scheme
        from lazyrich.scaling import plan as make_plan
        from lazyrich.scaling.obligation import branches as paths

        refuse_depths(depths)
        build = resolve(factory)

        def family(layers: int) -> Family:
            return Family(build, base, depth=layers, roles=pairs(roles, "roles"))

        counts = {pattern: len(paths(family(min(depths)).sketch(base), pattern)) for pattern in branches}
        if base_depth is None and len(set(counts.values())) > 1:
            said = ", ".join(f"{number} of '{pattern}'" for pattern, number in counts.items())
            raise UsageError(
                f"got branches of unequal numbers at depth {min(depths)} ({said}), expected one number at which all of them were "
                "tuned; give it (--base-depth), or check patterns of equal numbers"
            )
        tuned = counts[branches[0]] if base_depth is None else base_depth

        def plan_at(layers: int) -> Plan:
            return make_plan(
                family(layers), parse_scheme(scheme), optimizer, init=rules(init), branches=branches, base_depth=tuned,
                depth_exponent=depth_exponent,
            )  # fmt: skip

        arrays = load(data, root=data_root, target=target, flatten=not images)
        folder = out or Path("runs") / slug(
            "depth", family(min(depths)).name, scheme, optimizer, f"exponent{depth_exponent:g}", data
        )
        with progress("depth") as show:
            result = check_depth(
                plan_at, arrays, depths, width=width, steps=steps, seeds=seeds, lr=lr, weight_decay=weight_decay, batch=batch,
                probe=probe, loss=loss, meet=meet, folder=folder, progress=show, command=command_line("depth", words),
            )  # fmt: skip
        print(result, end="\n\n")
        write_json(folder / "result.json", result.to_dict())
        print(f"page: {render(result, folder / 'report.html')}")

    parse(depth, "depth", words)
