"""Signals of deep stacks: what networks of fifty layers draw against what the infinite-width pass says, rule by rule.

    python studies/initialisation.py

Per layer, the mean over draws of the mean square, in units of its own standard error, and relative to the prediction. Finite
width adds order depth/width to the mean, which at depth 50 and width 512 is a few per cent, and draws of neighbouring layers are
correlated, so whole profiles sit on one side.
"""

from __future__ import annotations

import argparse
import math

import lazyrich as lzr

DEPTH, WIDTH = 50, 512
CASES = {
    "tanh, critical": ("tanh", lzr.init.critical("tanh", bias=0.05)),
    "tanh, critical, orthogonal": ("tanh", lzr.init.critical("tanh", bias=0.05, form="orthogonal")),
    "tanh, ordered": ("tanh", lzr.init.variance(1.0, 0.05)),
    "relu, he": ("relu", lzr.init.he("relu")),
    "gelu, half-stable": ("gelu", lzr.init.critical("gelu", variance=3.56155)),
    "silu, half-stable": ("silu", lzr.init.critical("silu", variance=14.3201)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    words = parser.parse_args()
    print(
        f"{'start':28}{'layer':>6}{'drawn':>10}{'predicted':>11}{'ratio':>8}{'errors':>8}{'corr.':>8}{'predicted':>11}{'chi_perp':>10}"
    )
    for name, (activation, rule) in CASES.items():
        family = lzr.Family(lambda n, phi=activation: lzr.zoo.MLP(n, depth=DEPTH, activation=phi), base=64)
        plan = lzr.plan(family, lzr.standard(), "sgd", init={"*": rule})
        found = lzr.signals(plan, "digits", WIDTH, samples=6, seeds=words.seeds)
        chis = {p.layer: p.chi_perp for p in found.phase.points} if not isinstance(found.phase, str) else {}
        for i in (0, 9, 24, 49):
            line = found.lines[i]
            error = line.level_spread / math.sqrt(words.seeds)
            print(
                f"{name if i == 0 else '':28}{i + 1:6}{line.level:10.4f}{line.level_predicted:11.4f}"
                f"{line.level / line.level_predicted:8.3f}{(line.level - line.level_predicted) / error:8.1f}"
                f"{line.correlation:8.3f}{line.correlation_predicted:11.3f}{chis.get(line.layer, math.nan):10.3f}",
                flush=True,
            )
        print(f"{'':28}{found.phase if isinstance(found.phase, str) else found.phase.sentence}")


if __name__ == "__main__":
    main()
