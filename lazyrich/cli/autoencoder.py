"""``lazyrich autoencoder FACTORY``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lazyrich.cli.command import OPTIMIZERS, Factory, Live, command_line, parse, progress, slug


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def autoencoder(
        factory: Factory = "lazyrich.zoo:autoencoder",
        start: tuple[str, ...] = ("default", "transposed", "cascading"),
        scheme: tuple[str, ...] = ("standard", "ntk", "mup"),
        widths: tuple[int, ...] = (64, 128, 256),
        optimizer: Annotated[tuple[str, ...], tyro.conf.arg(help=f"{OPTIMIZERS}; one or more.")] = ("adam",),
        codes: tuple[int, ...] = (),
        base: int | None = None,
        lrs: tuple[float, ...] = (),
        seeds: int = 3,
        steps: int = 300,
        batch: int = 64,
        data: str = "digits",
        data_root: str | None = None,
        samples: int = 10_000,
        test: int = 1000,
        add_start: tuple[str, ...] = (),
        add_metric: tuple[str, ...] = (),
        noise: float = 0.0,
        masked: float = 0.0,
        beta: float = 1.0,
        free_bits: float = 0.0,
        warm_up: int = 0,
        engine: Literal["auto", "vmap", "loop"] = "auto",
        device: str = "cpu",
        executor: str = "inline",
        workers: int | None = None,
        shard: str | None = None,
        retry_failed: bool = False,
        track: tuple[str, ...] = (),
        out: Path | None = None,
    ) -> None:
        """Train autoencoders from several starts, schemes and widths: what they learn early, what they become, and what won.

        Example:
            lazyrich autoencoder --widths 32 64 --steps 60 --samples 500 --seeds 2

        Args:
            factory: package.module:callable or path/to/file.py:callable; gives a module with encoder and decoder, for example
                lazyrich.zoo:conv_autoencoder, lazyrich.zoo:tied_autoencoder or lazyrich.autoencoder:vae.
            start: default, transposed, half, inverse, orthogonal, cascading, transposed(0.3), or one of --add-start.
            scheme: standard, ntk, mean_field, mup, richness(0.25), spectral, abc(...).
            widths: widths to train, increasing.
            optimizer: one or more of OPTIMIZERS, which the help lists.
            codes: sizes of the bottleneck, for factories that take a code; one or more (default: the factory's own).
            base: width at which the plan is the plain network (default: the smallest).
            lrs: learning rates at the base width; every cell is shown at its best (default: three).
            seeds: networks a cell and learning rate.
            steps: training steps a network.
            batch: samples a step.
            data: digits, mnist, fashion_mnist, or module:function.
            data_root: folder of the image files (default: $LAZYRICH_DATA and the usual places).
            samples: training samples, at most.
            test: held-out samples, at most.
            add_start: name=path/to/file.py:function(model, x, seed), a start of your own; one or more.
            add_metric: name=path/to/file.py:function(trained), a metric of your own; one or more.
            noise: standard deviation of noise on the inputs, whose targets stay (denoising).
            masked: part of the inputs that is set to zero.
            beta: weight of the code's rate in a variational autoencoder, such as lazyrich.autoencoder:vae.
            free_bits: nats a latent of a variational autoencoder that cost nothing.
            warm_up: steps in which beta rises evenly, from beta / warm_up in the first of them.
            engine: vmap stacks networks of one shape, loop trains one by one, auto decides by rule.
            device: where to train.
            executor: inline, processes, ray, dask, ray://HOST:PORT or dask://HOST:PORT.
            workers: processes of this machine (default: all cores).
            shard: i/n trains this part only, for schedulers; lazyrich merge brings the parts together.
            retry_failed: train again what failed.
            track: tensorboard:FOLDER, wandb:PROJECT, trackio:PROJECT or mlflow:EXPERIMENT, one or more.
            out: run folder (default: runs/autoencoder-...).
        """
        from lazyrich.autoencoder import study
        from lazyrich.cli.command import pairs
        from lazyrich.data import load
        from lazyrich.reference import resolve
        from lazyrich.sweep import tracker_for

        own = "name=path/to/file.py:function, for example 'mine=starts.py:mine'"
        starts = {name: resolve(place) for name, place in pairs(add_start, "add-start", own).items()}
        metrics = {name: resolve(place) for name, place in pairs(add_metric, "add-metric", own).items()}
        folder = out or Path("runs") / slug("autoencoder", factory.rpartition(":")[2], data)
        with Live(folder) as page, progress("autoencoder") as show:
            result = study(
                resolve(factory), load(data, root=data_root), (*start, *(n for n in starts if n not in start)), scheme, widths,
                optimizers=optimizer, codes=codes or (None,), base=base, lrs=lrs or None, seeds=seeds, steps=steps, batch=batch,
                samples=samples, test=test, device=device, engine=engine, noise=noise, masked=masked, beta=beta,
                free_bits=free_bits, warm_up=warm_up, more_starts=starts, more_metrics=metrics,
                folder=folder / "trials", executor=executor, workers=workers, shard=shard, retry_failed=retry_failed,
                trackers=[tracker_for(text) for text in track], progress=show, so_far=page.draw,
                command=command_line("autoencoder", words),
            )  # fmt: skip
        print(result, *result.reproduce["notes"], sep="\n", end="\n\n")
        print(f"page: {page.finish(result)}")

    parse(autoencoder, "autoencoder", words)
