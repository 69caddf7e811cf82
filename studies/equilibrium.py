"""Where tangent kernels align with the targets along the depth: the balance point against L, and trained networks of L = 8.

    python studies/equilibrium.py

Expected (THEORY 12): ReLU feed-forward nets balance at 11, 26, 56, 124, 248 for L = 30 .. 3000, slope .65 +- .05 over [300, 3000]
and 3/5 in the limit; smooth activations 2/3; residual branches over sqrt(L) 1. Trained at L = 8 the alignment of the layers has
an interior peak, more than .05 above the first and .03 above the last: by cross entropy. On the squared error it has none.
"""

import math

import torch
from torch import nn

import lazyrich as lzr
from lazyrich.gaussian import critical
from lazyrich.tangent import equilibrium
from lazyrich.train import AlignmentProbe, train
from lazyrich.train.loss import half_mse

DEPTHS = (30, 100, 300, 1000, 3000)
NETS = {"relu": ("relu", None), "erf": (critical("erf", bias=0.05).signal, None), "relu, residual": ("relu", 1.0)}


def balances(name: str, depths=DEPTHS) -> list[float]:
    """The balance points of inputs at right angles."""
    activation, residual = NETS[name]
    return [equilibrium(activation, depth, residual=residual).balance for depth in depths]


def slope(depths, balance) -> float:
    """Of the balance point against depth, both logarithmic, by least squares."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (depths, balance))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def mixture(samples: int, seed: int, classes: int = 5, inputs: int = 20, spread: float = 1.0) -> lzr.data.ArrayData:
    """Gaussian classes around random means, scaled to unit variance an entry."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(classes, inputs, generator=generator)
    labels = torch.arange(samples) % classes
    x = means[labels] + spread * torch.randn(samples, inputs, generator=generator)
    return lzr.data.ArrayData(x / math.sqrt(1 + spread**2), labels, "mixture")


def relu_net(depth: int, width: int, seed: int, inputs: int = 20, outputs: int = 5) -> nn.Module:
    """A ReLU net on its edge of chaos: sigma_w^2 = 2, no biases."""
    torch.manual_seed(seed)
    net = lzr.zoo.MLP(width, depth, inputs, outputs, activation="relu", bias=False)
    for name, weight in net.named_parameters():
        gain = 1.0 if name.startswith("readout") else 2.0
        nn.init.normal_(weight, 0.0, math.sqrt(gain / weight.shape[1]))
    return net


def squared(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return half_mse(output, torch.nn.functional.one_hot(y, output.shape[1]).float() - 1 / output.shape[1])


LOSSES = {"cross entropy": (torch.nn.functional.cross_entropy, 0.02), "squared error": (squared, 0.003)}  # and learning rates


def trained(seed: int, loss: str = "cross entropy", depth: int = 8, width: int = 256, samples: int = 100, steps: int = 100):
    """Alignment of every layer on held-out samples before and after training, and the run."""
    data, net = mixture(2 * samples, seed), relu_net(depth, width, seed)
    x, y = data.x[:samples], data.y[:samples]
    probe = AlignmentProbe(data.x[samples:], data.y[samples:], at=(steps,))
    function, lr = LOSSES[loss]
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    run = train(net, optimizer, lambda _: (x, y), function, steps, probes=[probe])
    return probe.records[0], probe.records[steps], run


def mean_alignment(seeds: int = 4, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Centred alignment of every layer before and after training, averaged over seeds."""
    found = [trained(seed, **options) for seed in range(seeds)]
    return tuple(torch.tensor([record[i].centred for record in found]).mean(0) for i in (0, 1))


def main() -> None:
    print("balance point l* of inputs at right angles, L = " + ", ".join(map(str, DEPTHS)))
    for name in NETS:
        found = balances(name)
        print(
            f"  {name:15} "
            + "  ".join(f"{b:7.1f}" for b in found)
            + f"   slope over [300, 3000] {slope(DEPTHS[2:], found[2:]):.3f}"
        )
    print("centred alignment by layer on held-out samples, L = 8, 4 seeds")
    for loss in LOSSES:
        before, after = mean_alignment(loss=loss)
        for word, found in (("before", before), (loss, after)):
            print(f"  {word:14} " + " ".join(f"{a:.3f}" for a in found.tolist()))
        first, last = float(after.max() - after[0]), float(after.max() - after[-1])
        peak = f"  peak at layer {int(after.argmax()) + 1} of {len(after)}"
        print(f"{peak}; above the first {first:.3f} (> .05), above the last {last:.3f} (> .03)")


if __name__ == "__main__":
    main()
