"""``lazyrich limit FACTORY``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lazyrich.cli.command import Factory, command_line, pairs, parse, progress, rules, slug


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def limit(
        factory: Factory,
        data: str = "digits",
        data_root: str | None = None,
        classes: tuple[int, ...] = (),
        scheme: str = "mup",
        base: int = 64,
        depth: int | None = None,
        roles: tuple[str, ...] = (),
        init: tuple[str, ...] = (),
        widths: tuple[int, ...] = (64, 256, 1024),
        seeds: int = 4,
        samples: int = 16,
        test: int = 8,
        steps: int = 40,
        lr: float | None = None,
        loss: Literal["squared", "logistic", "cross_entropy"] = "squared",
        neurons: int = 4000,
        centred: bool = False,
        seed: int = 0,
        out: Path | None = None,
    ) -> None:
        """Train a network at infinite width, where its features move, beside its finite networks and a kernel that stays.

        The network is fully connected, trained by full-batch gradient descent. A random output bias stays in the limit as a
        random offset, so it starts at zero here.

        Example:
            lazyrich limit lazyrich.zoo:two_class --data digits --classes 3 8 --scheme "richness(0.5, 2)"

        Args:
            factory: package.module:callable or path/to/file.py:callable that builds the network for a width.
            data: digits, mnist, fashion_mnist, or module:function.
            data_root: folder of the image files (default: $LAZYRICH_DATA and the usual places).
            classes: keep only these; two of them for a network of one output.
            scheme: mup, richness(0.5, gamma): features move; ntk, richness(r): they stay, and the two predictions agree.
            base: width at which the plan is the plain network.
            depth: second argument of the factory, if it takes one.
            roles: pattern=role for tensors whose role shapes cannot tell.
            init: pattern=std at the base width, or pattern=rule: '*=he(relu)', '*=critical(tanh, 0.05)' ... (see lazyrich init).
            widths: of the finite networks, none below the base.
            seeds: networks a width.
            samples: training samples, at least 3; the limit's time grows as their square or faster.
            test: more samples, watched and not learnt.
            steps: of full-batch gradient descent.
            lr: learning rate at the base width (default: a quarter of the largest stable one at initialisation, less where the
                loss of the limit rises).
            loss: half the square, logistic, or cross entropy.
            neurons: sampled neurons a layer of the limit, at least 400; its error falls as their root.
            centred: take the networks' initial outputs off, as is always done in the kernel regime.
            seed: of samples and networks.
            out: run folder (default: runs/limit-...).
        """
        from lazyrich.data import load
        from lazyrich.family import Family
        from lazyrich.files import write_json
        from lazyrich.measure import limit as study
        from lazyrich.reference import resolve
        from lazyrich.report import render
        from lazyrich.rich import random_offset
        from lazyrich.scaling import parse as parse_scheme
        from lazyrich.scaling import plan as make_plan

        family = Family(resolve(factory), base, depth=depth, roles=pairs(roles, "roles"))
        given = load(data, root=data_root)
        given = given.only(classes) if classes else given
        plan = make_plan(family, parse_scheme(scheme), "sgd", init=rules(init))
        offset = random_offset(plan, given.x)
        plan = make_plan(family, parse_scheme(scheme), "sgd", init={**rules(init), offset: 0.0}) if offset else plan
        folder = out or Path("runs") / slug("limit", family.name, plan.scheme.name, given.name)
        with progress("limit") as show:
            result = study(
                plan, given, steps, lr=lr, loss=loss, widths=widths, seeds=seeds, samples=samples, test=test, neurons=neurons,
                centred=centred or None, seed=seed, folder=folder, progress=show, command=command_line("limit", words),
            )  # fmt: skip
        write_json(folder / "result.json", result.to_dict())
        print(result, end="\n\n")
        print(f"page: {render(result, folder / 'report.html')}")

    parse(limit, "limit", words)
