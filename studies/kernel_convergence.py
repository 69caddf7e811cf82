"""How fast the kernels of finite networks approach those of infinite width.

    python studies/kernel_convergence.py

Three hidden layers of rectifiers, weight variance 2 / fan-in, no biases, ten inputs of norm sqrt(d). NNGP: the kernel of the last
hidden layer, averaged over 16 networks; its scale alone scatters by sqrt(15 / (16 n)), so the claimed bound on the relative error
in Frobenius norm, 5 / sqrt(16 n), is one of 1.3 standard deviations. NTK: of single networks with one output, root mean square of
the relative errors; claimed slope in the width -1/2 +- .1.
"""

import functools
import math

import torch
from torch import nn

import lazyrich as lzr
from lazyrich.family.zoo import MLP
from lazyrich.lazy.referee import monte_carlo
from lazyrich.measure import fit_slope

WIDTHS, NTK_WIDTHS = (128, 512, 2048), (64, 128, 256, 512, 1024)
ENSEMBLES, GROUPS, DRAWS = 8, 4, 8


def network(width: int) -> nn.Module:
    return MLP(width, depth=3, inputs=8, outputs=1, activation="relu", bias=False)


def inputs() -> torch.Tensor:
    x = torch.randn(10, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True) * math.sqrt(8)


@functools.cache
def kernel() -> lzr.lazy.Kernel:
    return lzr.kernel(network(8), init=lzr.init.variance(2.0, 0.0))


def nngp_error(width: int, seed: int = 0, nets: int = 16) -> float:
    """Of the average over networks."""
    x, draw, grams = inputs(), torch.Generator().manual_seed(seed), []
    for _ in range(nets):
        h = x
        for _ in range(3):
            weight = torch.randn(width, h.shape[1], generator=draw, dtype=torch.float64)
            h = torch.relu(h @ weight.T * math.sqrt(2 / h.shape[1]))
        grams.append(2 / width * h @ h.T)
    exact = kernel().nngp(x)
    return float((torch.stack(grams).mean(0) - exact).norm() / exact.norm())


def ntk_error(width: int, seed: int) -> float:
    """Of one network."""
    x, k = inputs(), kernel()
    found = monte_carlo(k, network, width, x, draws=1, outputs=1, seed=seed).ntk
    return float((found - k.ntk(x)).norm() / k.ntk(x).norm())


def ntk_slope(widths=NTK_WIDTHS, groups: int = GROUPS, draws: int = DRAWS):
    """Slope of the root mean squares over draws, one row of them a group."""
    rows = [[_rms([ntk_error(w, g * draws + s) for s in range(draws)]) for w in widths] for g in range(groups)]
    return fit_slope(widths, rows), rows


def _rms(values: list[float]) -> float:
    return math.sqrt(sum(v**2 for v in values) / len(values))


def main() -> None:
    for width in WIDTHS:
        bound, found = 5 / math.sqrt(16 * width), [nngp_error(width, seed) for seed in range(ENSEMBLES)]
        within = sum(error <= bound for error in found)
        print(
            f"NNGP  n {width:5}  error {_rms(found):.4f} (first {found[0]:.4f}), {within} of {ENSEMBLES} within {bound:.4f}",
            flush=True,
        )
    slope, rows = ntk_slope()
    print(f"NTK   n {NTK_WIDTHS}: {[round(_rms(list(column)), 4) for column in zip(*rows, strict=True)]}, slope {slope}")


if __name__ == "__main__":
    main()
