"""The coordinate check on an MLP, a conv net and a tiny transformer, under SGD and Adam, muP and standard.

    python studies/coordinate_check.py [network ...]

Under muP every update slope should lie within 0.13 of theory; under standard the check must name the culprit. The last rows
ask for the honest answer on a transformer whose learning rate is far too small.
"""

import sys

import lazyrich as lzr

# network: base, widths, seeds, SGD rate, Adam rate
CASES = {
    "mlp": (64, (64, 128, 256, 512), 5, 0.1, 0.003),
    "convnet": (32, (32, 64, 128, 256), 5, 0.5, 0.003),
    "transformer": (32, (32, 64, 128, 256), 5, 0.1, 0.003),
}


def check(network: str, scheme: lzr.Scheme, optimizer: str, lr: float | None = None, seeds: int | None = None):
    base, widths, usual, sgd, adam = CASES[network]
    plan = lzr.plan(lzr.Family(getattr(lzr.zoo, network), base=base), scheme, optimizer)
    rate = lr if lr is not None else (sgd if optimizer == "sgd" else adam)
    return lzr.check(plan, "digits", widths, seeds=seeds or usual, lr=rate, batch=128, probe=64)


def farthest(result):
    return max(result.updates, key=lambda line: abs(line.slope.value - (line.predicted or 0.0)))


def main() -> None:
    for network in sys.argv[1:] or CASES:
        for scheme in (lzr.mup(), lzr.standard()):
            for optimizer in ("sgd", "adam"):
                result = check(network, scheme, optimizer)
                line = farthest(result)
                note = f"farthest from theory: {line.layer} {line.slope} (theory {line.predicted:+.2f})"
                print(f"{result.title:36} {result.verdict.word:13} {note}", flush=True)
                for mend in result.verdict.mends[:2] if result.verdict.word == "exploding" else ():
                    print(f"    {mend}")
        if network == "transformer":
            for scheme in (lzr.mup(), lzr.standard()):
                result = check(network, scheme, "sgd", lr=3e-5, seeds=3)
                print(f"{result.title:36} {result.verdict.word:13} at lr 3e-5: {result.verdict.sentence}")


if __name__ == "__main__":
    main()
