"""The richness table (Karkada 2024, corrected) as measured slopes, n = 64 ... 4096; and the table as the notes print it.

    python studies/richness_table.py [--quick]

One step of SGD at a small rate on the digits; two hidden layers without biases. Norms are RMS * sqrt(units), so the slope
of ||h|| is the printed RMS slope plus 1/2.
"""

import sys

import lazyrich as lzr
from lazyrich.family.zoo import MLP
from lazyrich.measure import CheckResult

WIDTHS = (64, 256, 1024, 4096)


def family(activation: str) -> lzr.Family:
    return lzr.Family(lambda width: MLP(width, depth=2, activation=activation, bias=False), base=64)


def measure(activation: str, scheme: lzr.Scheme, widths=WIDTHS, seeds: int = 6) -> CheckResult:
    plan = lzr.plan(family(activation), scheme, "sgd")
    return lzr.check(plan, "digits", widths, steps=1, seeds=seeds, lr=0.02, batch=32, probe=32)


def norms(result: CheckResult) -> dict[str, float]:
    """Slopes of the norms of the table: ||h_l||, ||Delta h_l||, UUC_l, ||layer term|| and ||passthrough||."""
    half = {"hidden.0": 0.5, "hidden.1": 0.5, "readout": 0.0}
    names = {"level": "h", "update": "dh", "layer": "layer", "passthrough": "pass"}
    found = {}
    for (layer, quantity), slope in result.slopes.items():
        if quantity in names:
            found[f"{names[quantity]} {layer}"] = slope.value + half[layer]
        elif quantity == "uuc":
            found[f"uuc {layer}"] = slope.value
    return found


def main() -> None:
    widths = WIDTHS[:3] if "--quick" in sys.argv else WIDTHS
    keys = [f"{q} {layer}" for q in ("h", "dh", "uuc") for layer in ("hidden.0", "hidden.1", "readout")]
    print("net     r     " + "  ".join(f"{key:>13}" for key in keys))
    for activation in ("linear", "tanh"):
        for r in (0.0, 0.25, 0.5):
            slopes = norms(measure(activation, lzr.richness(r), widths))
            print(f"{activation:7} {r:<5} " + "  ".join(f"{slopes[key]:>+13.3f}" for key in keys), flush=True)
    printed = lzr.abc(a=(-0.25, 0.75, 1), b=(0.25, 0.25, 0.25), c=0)
    slopes = norms(measure("linear", printed, widths))
    print("printed r=.25 " + "  ".join(f"{slopes[key]:>+13.3f}" for key in keys))
    print(f"printed table by the theorems: {printed.classify('sgd')}")


if __name__ == "__main__":
    main()
