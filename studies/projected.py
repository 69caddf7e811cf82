"""The pi-limit on MNIST 3 against 8: against networks of its own start, with projected and with whole gradients.

python studies/projected.py
"""

from __future__ import annotations

import time

import torch
from torch import nn

import lazyrich as lzr
from lazyrich.rich import Layer, Network, ProjectedLimit

EPOCHS, BATCH, LR, WIDTH = 4, 100, 0.3, 2048
NETWORK = Network(784, (Layer(2.0), Layer(2.0), Layer(1.0)), "relu")


def main():
    (x, y), (x_test, y_test) = (two(lzr.data.load("mnist", split=split)) for split in ("train", "test"))
    steps = EPOCHS * (len(x) // BATCH)
    print(f"{len(x)} training samples, {len(x_test)} test samples, {steps} steps of {BATCH} at lr {LR}, gamma_0 = 1\n")
    print("                                      test error   test loss   off the limit   seconds")
    for rank in (50, 100, 200):
        limit, begun = ProjectedLimit(NETWORK, rank), time.perf_counter()
        limit.fit((x, y), steps, lr=LR, batch=BATCH)
        f = limit(x_test)
        show(f"pi-limit, r = {rank}", f, y_test, None, time.perf_counter() - begun)
        for name, project in (("projected gradients", True), ("whole gradients", False)):
            for width in (256, WIDTH) if rank == 100 else ():
                begun = time.perf_counter()
                found = finite(rank, width, x, y, steps, project)(x_test).detach()
                show(f"  width {width}, {name}", found, y_test, f, time.perf_counter() - begun)


def two(data):
    kept = (data.y == 3) | (data.y == 8)
    return data.x[kept], 2.0 * (data.y[kept] == 8).float()[:, None] - 1


def finite(rank, width, x, y, steps, project, seed=0):
    start = ProjectedLimit(NETWORK, rank)
    model, rates = start.sample(width, seed), start.rates(width, LR)
    generator = torch.Generator().manual_seed(seed)
    layers = [m for m in model if isinstance(m, nn.Linear)]
    bases = [torch.linalg.qr(torch.randn(width, rank, generator=generator))[0] for _ in layers[:-1]]
    groups = [{"params": [layer.weight], "lr": rate[0]} for layer, rate in zip(layers, rates, strict=True)]
    optimizer = torch.optim.SGD(groups, lr=LR)
    order = lzr.data.ArrayData(torch.arange(len(x)), torch.arange(len(x)))
    for step in range(steps):
        chosen = order.batch(BATCH, step)[0]
        optimizer.zero_grad()
        ((model(x[chosen]) - y[chosen]).square().sum(1).mean() / 2).backward()
        for layer, basis in zip(layers[:-1] if project else [], bases, strict=False):
            layer.weight.grad = basis @ (basis.T @ layer.weight.grad)
        optimizer.step()
    return model


def show(name, f, y, limit, seconds):
    error, loss = float((f.sign() != y).double().mean()), float((f - y).square().mean() / 2)
    off = "" if limit is None else f"{float((f - limit).norm() / limit.norm()):.1%}"
    print(f"{name:36}  {error:10.2%}  {loss:10.4f}  {off:>14}  {seconds:8.1f}")


if __name__ == "__main__":
    main()
