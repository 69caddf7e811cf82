"""``lazyrich dial FACTORY``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lazyrich.cli.command import Factory, Live, command_line, pairs, parse, progress, rules, slug


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def dial(
        factory: Factory,
        richness: tuple[float, ...] = (),
        r: tuple[float, ...] = (0.5,),
        base: int = 64,
        widths: tuple[int, ...] = (128,),
        seeds: int = 3,
        optimizer: str = "sgd",
        lr: float | None = None,
        rates: Literal["law", "tuned"] = "law",
        steps: int = 300,
        batch: int = 64,
        data: str = "digits",
        data_root: str | None = None,
        samples: int = 1000,
        test: int = 500,
        target: Literal["labels", "input"] = "labels",
        images: bool = False,
        loss: str | None = None,
        depth: int | None = None,
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
        """Turn a network from lazy to rich: where it leaves its linearisation, and what that does to its losses.

        Example:
            lazyrich dial lazyrich.zoo:mlp --base 32 --widths 32 --richness 0.003 0.03 0.3 3 --steps 100 --seeds 2

        Args:
            factory: package.module:callable or path/to/file.py:callable that builds the network for a width.
            richness: gamma_0 at the base width, increasing (default: eight from 0.001 to 3); 1/sqrt(base) is the plain network.
            r: exponents of the richness scale in [0, 0.5]: 0.5 keeps gamma_0 at every width, 0 falls back to lazy.
            base: width at which gamma_0 counts.
            widths: widths to train, increasing.
            seeds: networks a width and richness.
            optimizer: sgd, momentum, adam, adamw or signsgd.
            lr: learning rate of the plain network at the base width.
            rates: law scales it by the known powers of gamma_0; tuned takes the best of six octaves around that, which lr moves.
            steps: training steps a network.
            batch: samples a step.
            data: digits, mnist, fashion_mnist, or module:function.
            data_root: folder of the image files (default: $LAZYRICH_DATA and the usual places).
            samples: training samples.
            test: held-out samples.
            target: labels, or the input itself for an autoencoder.
            images: give the network images (batch, channels, height, width) instead of flat vectors.
            loss: cross_entropy, mse, half_mse, or path/to/file.py:function of (output, target) (default: by the targets).
            depth: second argument of the factory, if it takes one.
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
            out: run folder (default: runs/dial-...).
        """
        from lazyrich.data import load
        from lazyrich.family import Family
        from lazyrich.measure.dial import RICHNESS
        from lazyrich.measure.dial import dial as run_dial
        from lazyrich.reference import resolve
        from lazyrich.sweep import tracker_for

        family = Family(resolve(factory), base, depth=depth, roles=pairs(roles, "roles"))
        arrays = load(data, root=data_root, target=target, flatten=not images)
        folder = out or Path("runs") / slug("dial", family.name, optimizer)
        with Live(folder) as page, progress("dial") as show:
            result = run_dial(
                family, arrays, richness or RICHNESS, widths, seeds, r=r, init=rules(init), optimizer=optimizer, lr=lr, rates=rates,
                steps=steps, batch=batch, samples=samples, test=test, loss=loss, device=device, meet=meet, engine=engine,
                folder=folder / "trials", executor=executor, workers=workers, shard=shard, retry_failed=retry_failed,
                progress=show, trackers=[tracker_for(text) for text in track], so_far=page.draw,
                command=command_line("dial", words),
            )  # fmt: skip
        print(result, end="\n\n")
        print(f"page: {page.finish(result)}")

    parse(dial, "dial", words)
