"""Expansions of a trained network around its start, at the weights that training reached.

    python studies/taylor_orders.py

A tanh network of two hidden layers, NTK parameterisation, width 64, trained on digits to one output of +-1 by gradient descent; the
displacement is held fixed and order k runs from 1 to 4. Errors are relative to the network's own movement.
"""

import torch

import lazyrich as lzr
from lazyrich.family.zoo import MLP
from lazyrich.tangent import taylor
from lazyrich.train import train
from lazyrich.train.loss import half_mse

ORDERS = (1, 2, 3, 4)


def errors(seed: int = 0, width: int = 64, samples: int = 32, steps: int = 200, lr: float = 0.05) -> list[float]:
    """||f - f^(k)|| / ||f - f_0|| at the end of training, for every order."""
    family = lzr.Family(lambda n: MLP(n, depth=2, outputs=1), base=width)
    plan = lzr.plan(family, lzr.ntk(), "sgd")
    model = plan.build(width, seed).double()
    data = lzr.data.load("digits").subset(samples, seed=seed)
    x, y = data.x.double(), (data.y % 2 * 2 - 1).double()[:, None]
    expansions, start = [taylor(model, k) for k in ORDERS], model(x).detach()
    train(model, plan.optimizer(model, lr), lambda step: (x, y), half_mse, steps)
    after = dict(model.named_parameters())
    found = model(x).detach()
    for expansion in expansions:
        with torch.no_grad():
            for name, p in expansion.named_parameters():
                p.copy_(after[name])
    return [float((found - e(x).detach()).norm() / (found - start).norm()) for e in expansions]


def main() -> None:
    for seed in range(3):
        print(
            f"seed {seed}  " + "  ".join(f"k={k} {error:.4f}" for k, error in zip(ORDERS, errors(seed), strict=True)),
            flush=True,
        )


if __name__ == "__main__":
    main()
