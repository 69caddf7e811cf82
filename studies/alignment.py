"""How weights and updates are aligned with what they meet, as powers of the width.

    python studies/alignment.py

Digits, two hidden tanh layers, five steps, widths 64 to 1024. Frobenius ratios: 0 is full alignment, -1/2 none.
"""

import lazyrich as lzr
from lazyrich.measure import alignments


def slopes(scheme, optimizer: str, norm: str = "frobenius", seeds: int = 2):
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=64), scheme, optimizer)
    return alignments(plan, "digits", widths=[64, 256, 1024], steps=5, seeds=seeds, norm=norm)


def main() -> None:
    for scheme, optimizer in ((lzr.mup(), "adam"), (lzr.mup(), "sgd"), (lzr.mup(), "muon"), (lzr.ntk(), "sgd")):
        print(slopes(scheme, optimizer), flush=True)


if __name__ == "__main__":
    main()
