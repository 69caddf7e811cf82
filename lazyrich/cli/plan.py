"""``lazyrich plan FACTORY``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lazyrich.cli.command import Factory, pairs, parse, rules


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def plan(
        factory: Factory,
        scheme: str = "mup",
        optimizer: str = "adamw",
        base: int = 64,
        width: int = 1024,
        depth: int | None = None,
        roles: tuple[str, ...] = (),
        weight_decay: str = "constant_rate",
        gauge: str = "plain",
        init: tuple[str, ...] = (),
        branches: tuple[str, ...] = (),
        base_depth: int | None = None,
        depth_exponent: float = 0.5,
        save: Path | None = None,
    ) -> None:
        """Print the initialisation and learning rate of every tensor at a width, and what hooks would have to do.

        Example:
            lazyrich plan lazyrich.zoo:mlp --scheme mup --width 1024

        Args:
            factory: package.module:callable or path/to/file.py:callable that builds the network for a width.
            scheme: standard, ntk, mean_field, mup, richness(0.25), spectral, abc(...).
            optimizer: sgd, momentum, adam, adamw, signsgd, lion, adafactor, muon, muon_rms or shampoo.
            base: width at which the plan is the plain network.
            width: width of the table.
            depth: second argument of the factory, if it takes one.
            roles: pattern=role for tensors whose role shapes cannot tell.
            weight_decay: constant_rate or unscaled.
            gauge: plain or multipliers.
            init: pattern=std at the base width, or pattern=rule: '*=he(relu)', 'blocks.*.weight=orthogonal' ...
            branches: patterns of the modules that are residual branches, for example 'blocks.*'.
            base_depth: number of branches at which the network was tuned (default: as many as it has).
            depth_exponent: of the branches' multiplier: 0.5 is Depth-muP, 1 is CompleteP.
            save: write the plan to this JSON file.
        """
        from lazyrich.errors import UsageError
        from lazyrich.family import Family
        from lazyrich.reference import resolve
        from lazyrich.scaling import parse as parse_scheme
        from lazyrich.scaling import plan as make_plan
        from lazyrich.scaling.remark import remarks

        if width < 1:
            raise UsageError(f"got width {width}, expected a positive one")
        if base_depth is not None and not branches:
            raise UsageError(
                f"got --base-depth {base_depth} without --branches, expected both: --branches 'blocks.*', for example"
            )
        family = Family(resolve(factory), base, depth=depth, roles=pairs(roles, "roles"))
        made = make_plan(
            family, parse_scheme(scheme), optimizer, init=rules(init), weight_decay=weight_decay, gauge=gauge, branches=branches,
            base_depth=base_depth, depth_exponent=depth_exponent,
        )  # fmt: skip
        written = (
            made.save(save) if save else None
        )  # first: a path that cannot be written is refused before anything is printed
        print(f"{made}, at width {width}:\n{made.table(width)}")
        for obligation in made.obligations:
            hook = " (plan.meet_(model) attaches a hook)" if obligation.hooked else ""
            print(f"obligation: {obligation}{hook}")
        for remark in remarks(family, made.scheme, made.optimizer_name):
            print(f"remark: {remark}")
        if written:
            print(f"plan: {written}")

    parse(plan, "plan", words)
