"""``lazyrich scheme NAME``."""

from __future__ import annotations

from collections.abc import Sequence

import tyro

from lazyrich.cli.command import parse


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def scheme(name: tyro.conf.Positional[str], hidden_layers: int = 2) -> None:
        """Print a parameterisation's exponents and what it does at infinite width, under SGD and under Adam.

        Example:
            lazyrich scheme 'richness(0.25)'

        Args:
            name: standard, ntk, mean_field, mup, richness(0.25), spectral, abc(a=(0,0.5,1), b=(0,0,0), c=-1).
            hidden_layers: number of hidden layers that the question is about.
        """
        from lazyrich.scaling import parse as parse_scheme

        found = parse_scheme(name)
        found.classify("sgd", hidden_layers)  # refuses a number of layers that is none before anything is printed
        print(found.name)
        for optimizer, layers in (("sgd", found.sgd), ("adam", found.entrywise)):
            verdict = found.classify(optimizer, hidden_layers)
            print(f"\nunder {optimizer}: {verdict.regime} (stable: {_yes(verdict.stable)}, r = {verdict.r:g})")
            print(f"  {verdict.why}")
            print(f"  {'layer':8}{'a':>7}{'b':>7}{'c':>7}{'d':>7}{'a+b':>8}{'rate':>7}{'r_l':>7}")
            kept = [row for row in zip(("input", "hidden", "output"), layers, strict=True)
                    if hidden_layers > 1 or row[0] != "hidden"]  # fmt: skip
            for (label, row), r in zip(kept, verdict.layer_r, strict=True):
                numbers = (row.a, row.b, row.c, row.d, row.init, row.rate(optimizer == "adam"), r)
                print(f"  {label:8}" + "".join(f"{x:>{w}g}" for x, w in zip(numbers, (7, 7, 7, 7, 8, 7, 7), strict=True)))

    parse(scheme, "scheme", words)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
