"""MNIST 3 against 8 at infinite width and at widths 64 to 4096, from the lazy to the rich limit: tables and a page.

python studies/limit.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import lazyrich as lzr

GAMMAS, WIDTHS = (0.1, 1.0, 2.0), (64, 128, 256, 512, 1024, 2048, 4096)


def mlp(width):
    return lzr.zoo.MLP(width, inputs=784, outputs=1)


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/limit-study")
    data = lzr.data.load("mnist").only([3, 8])
    family = lzr.Family(mlp, base=64)
    results = []
    for gamma in GAMMAS:
        plan = lzr.plan(family, lzr.richness(0.5, gamma=gamma), "sgd", init={"readout.bias": 0.0})
        found = lzr.limit(
            plan, data, 40, widths=WIDTHS, samples=20, test=10, neurons=4000, folder=folder / f"gamma{gamma:g}",
            command="python studies/limit.py",
        )  # fmt: skip
        print(found, end="\n\n", flush=True)
        results.append(found.to_dict())
    print(f"page: {lzr.render(results, folder / 'report.html')}")


if __name__ == "__main__":
    main()
