"""``lazyrich demo``: the main job on real images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lazyrich.cli.command import command_line, parse, progress, slug, unshared

CASES = (
    ("mlp", "labels", "adam", 0.003),
    ("mlp", "labels", "sgd", 0.1),
    ("autoencoder", "input", "adam", 0.003),
)
SCHEMES = ("standard", "ntk", "mup")


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def demo(out: Path = Path("runs/demo"), widths: tuple[int, ...] = (64, 128, 256, 512, 1024), seeds: int = 4) -> None:
        """Check a classifier and an autoencoder of the embedded digits under standard, ntk and mup.

        Example:
            lazyrich demo --out runs/demo

        Args:
            out: run folder; the same command continues there.
            widths: widths to train.
            seeds: networks a width.
        """
        from lazyrich.data import load
        from lazyrich.family import Family, zoo
        from lazyrich.files import write_json
        from lazyrich.measure import check
        from lazyrich.report import render
        from lazyrich.scaling import parse as parse_scheme
        from lazyrich.scaling import plan

        unshared(out)
        results = []
        for network, target, optimizer, lr in CASES:
            family, data = Family(getattr(zoo, network), base=64), load("digits", target=target)
            for name in SCHEMES:
                made = plan(family, parse_scheme(name), optimizer)
                with progress(f"{network} {name} {optimizer}") as show:
                    result = check(
                        made, data, widths, seeds=seeds, lr=lr, batch=128, folder=out / slug(network, name, optimizer),
                        progress=show, command=command_line("demo", words),
                    )  # fmt: skip
                print(f"{result.title}: {result.verdict}", flush=True)
                results.append(result.to_dict())
        write_json(out / "result.json", results)
        print(f"page: {render(results, out / 'report.html')}")

    parse(demo, "demo", words)
