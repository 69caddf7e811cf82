"""The spectral condition on nets of any shape: ||W||_* and ||Delta W||_* over sqrt(fan_out/fan_in), and how far features move.

    python studies/spectral.py

One SGD step of tanh nets with the initial standard deviations and learning rates of Yang, Simon & Bernstein 2023
(arXiv:2310.17813), 16 Gaussian samples and targets, half the squared error, averaged over samples. Geometric means over seeds.
"""

import torch

from lazyrich.scaling.table.spectral import init_std, rate, target_norm

SHAPES = ((16, 256, 256, 4), (16, 2048, 2048, 4), (16, 4096, 1024, 4), (16, 1024, 4096, 4))
ETA, SAMPLES, SEEDS = 0.1, 16, 4


def forward(weights, x):
    """Pre-activations of every layer."""
    found = [x @ weights[0].T]
    for w in weights[1:]:
        found.append(torch.tanh(found[-1]) @ w.T)
    return found


def measure(shape, seed: int = 0):
    """Of every layer: spectral norm of W and of its update over the target, and the RMS movement of its pre-activations."""
    draw = torch.Generator().manual_seed(seed)
    sizes = list(zip(shape[:-1], shape[1:], strict=True))
    weights = [(torch.randn(m, n, generator=draw, dtype=torch.float64) * init_std(m, n)).requires_grad_() for n, m in sizes]
    x = torch.randn(SAMPLES, shape[0], generator=draw, dtype=torch.float64)
    y = torch.randn(SAMPLES, shape[-1], generator=draw, dtype=torch.float64)
    h = forward(weights, x)
    grads = torch.autograd.grad((h[-1] - y).square().sum(1).mean() / 2, weights)
    steps = [-ETA * rate(m, n) * g for (n, m), g in zip(sizes, grads, strict=True)]
    moved = forward([w + s for w, s in zip(weights, steps, strict=True)], x)
    rows = []
    for (n, m), w, s, old, new in zip(sizes, weights, steps, h, moved, strict=True):
        norms = [float(torch.linalg.matrix_norm(z.detach(), 2)) / target_norm(m, n) for z in (w, s)]
        rows.append((*norms, float((new - old).detach().square().mean().sqrt())))
    return torch.tensor(rows)


def geometric_means(shape, seeds: int = SEEDS):
    """``measure`` averaged over seeds: (layers, 3)."""
    return torch.stack([measure(shape, seed) for seed in range(seeds)]).log().mean(0).exp()


def main() -> None:
    print("shape                  layer   ||W||_*/s   ||dW||_*/s   RMS dh")
    for shape in SHAPES:
        for layer, (weight, update, move) in enumerate(geometric_means(shape).tolist(), start=1):
            print(f"{shape!s:22} {layer:5} {weight:11.3f} {update:12.4f} {move:8.4f}", flush=True)


if __name__ == "__main__":
    main()
