"""Full tangent kernels of finite networks against the usual torch.func recipe and neural-tangents' structured derivatives.

    python benchmarks/empirical_ntk.py --peer peer/bin/python

How to make the peer's environment is told in peer_neural_tangents.py. The recipe is vmap(jacrev) of all parameters and a product
of Jacobians. Also shown: the share of the flop limit that the dense case reaches, the limit being its Gram products at the rate
of a large product, and the time and peak memory of N = 1024. Of networks that share weights two sizes are shown: of the small
ones, what both ways have to do (signals of every output through every layer) is most of the work.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from lazyrich.family.zoo import transformer
from lazyrich.family.zoo.transformer import Block
from lazyrich.tangent.ntk import ntk_of

PEER = """
import json, sys, time, types
for name in ("experimental", "experimental.empirical_tf"):
    sys.modules["neural_tangents." + name] = types.ModuleType(name)
import jax, neural_tangents as nt
from neural_tangents import stax
layers = [l for _ in range(4) for l in (stax.Dense(512), stax.Relu())]
init, f, _ = stax.serial(*layers, stax.Dense(10))
x = jax.random.normal(jax.random.PRNGKey(0), (64, 784))
_, p = init(jax.random.PRNGKey(1), x.shape)
best = {}
for name in ("JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES"):
    for axes in (None, 0):
        try:
            k = jax.jit(nt.empirical_ntk_fn(f, trace_axes=(), vmap_axes=axes, implementation=getattr(nt.NtkImplementation, name)))
            k(x, None, p).block_until_ready()
            times = []
            for _ in range(3 if name.startswith("S") else 1):
                start = time.perf_counter(); k(x, None, p).block_until_ready(); times.append(time.perf_counter() - start)
            best[name + " vmap " + str(axes)] = min(times)
        except Exception as error:
            best[name + " vmap " + str(axes)] = None
print(json.dumps(best))
"""


def mlp():
    layers = [layer for i in range(4) for layer in (nn.Linear(784 if i == 0 else 512, 512), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(512, 10))


def conv(channels, stride):
    pairs = zip([3, *channels], channels, strict=False)
    layers = [layer for i, o in pairs for layer in (nn.Conv2d(i, o, 3, stride, 1), nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 10))


class Vision(nn.Module):
    """Patches of 7 x 7 pixels, blocks of attention, the mean over patches."""

    def __init__(self, width, depth):
        super().__init__()
        self.patches, self.blocks = nn.Linear(49, width), nn.Sequential(*(Block(width, 6) for _ in range(depth)))
        self.places, self.norm = nn.Parameter(torch.randn(1, 16, width) / 50), nn.LayerNorm(width)
        self.readout = nn.Linear(width, 10)

    def forward(self, x):
        """Logits of (N, 1, 28, 28)."""
        patches = self.patches(nn.functional.unfold(x, 7, stride=7).mT)
        return self.readout(self.norm(self.blocks(patches + self.places)).mean(1))


def recipe(model, x):
    params = {name: p.detach() for name, p in model.named_parameters()}

    def one(p, x):
        return functional_call(model, p, (x[None],))[0]

    j = vmap(jacrev(one), (None, 0))(params, x)
    return sum(torch.einsum("nkp,mlp->nmkl", g.flatten(2), g.flatten(2)) for g in j.values())


def best_of(function, times):
    found = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


def peak():
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / best_of(lambda: a @ a, 10)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="python of an environment with neural-tangents")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--large", action="store_true", help="only N = 1024 of the dense network")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    torch.manual_seed(0)
    if words.large:
        model, x = mlp(), torch.randn(1024, 784)
        ntk_of(model, x[:2])  # torch's batched gradients take seconds to load the first time
        start = time.perf_counter()
        kernel = ntk_of(model, x)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"dense, N = 1024: {tuple(kernel.shape)} in {time.perf_counter() - start:.1f} s, peak memory {memory:.2f} GB")
        return
    # first, as the peak memory of a child counts what its parent held
    subprocess.run([sys.executable, __file__, "--large", "--threads", str(words.threads)], check=True)
    cases = [
        ("dense 784-512x4-10", mlp(), torch.randn(64, 784), 100),
        ("conv 64-128-256-256, 32 x 32", conv((64, 128, 256, 256), 2), torch.randn(32, 3, 32, 32), 5),
        ("conv 4 x 32, 16 x 16", conv((32,) * 4, 1), torch.randn(16, 3, 16, 16), ""),
        ("vision transformer, width 384", Vision(384, 4), torch.randn(16, 1, 28, 28), 5),
        ("transformer, width 32", transformer(32), torch.rand(16, 64), ""),
    ]
    print(f"{'network':30}{'N':>4} {'ours s':>9} {'recipe s':>9} {'ratio':>7} {'claim':>6}  largest difference")
    for name, model, x, claim in cases:
        model.eval()
        ours = ntk_of(model, x)
        seconds = best_of(lambda model=model, x=x: ntk_of(model, x), 5)
        theirs = recipe(model, x)  # its first call also sets torch.func up, so it is timed afterwards
        other = best_of(lambda model=model, x=x: recipe(model, x), 2)
        apart = float((ours - theirs).abs().max() / theirs.abs().max())
        print(f"{name:30}{len(x):4} {seconds:9.3f} {other:9.3f} {other / seconds:7.1f} {claim:6} {apart:.1e}", flush=True)
        if name.startswith("dense"):
            n, k = 64, 10
            flops = 2 * sum((n * k) ** 2 * o + n * n * i for i, o in [(784, 512), *[(512, 512)] * 3, (512, 10)])
            print(f"{'':30}Gram products alone {flops / peak():.3f} s: we reach {100 * flops / peak() / seconds:.0f} % of that")
            if words.peer:
                run = subprocess.run([words.peer, "-c", PEER], capture_output=True, text=True,
                                     env=os.environ | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(words.threads)})  # fmt: skip
                if run.returncode:
                    raise SystemExit(f"the peer failed:\n{run.stderr[-2000:]}")
                found = {name: t for name, t in json.loads(run.stdout.splitlines()[-1]).items() if t}
                fastest = min(found, key=found.get)
                print(
                    f"{'':30}neural-tangents' best: {found[fastest]:.3f} s ({fastest}), {found[fastest] / seconds:.1f} times ours"
                )


if __name__ == "__main__":
    main()
