"""Rows of Table 1 of Lee et al. 2018 (arXiv:1711.00165): MNIST by Gaussian processes of infinitely wide networks.

Inputs have mean 0 and variance 1 a sample, targets are 0.9 and -0.1, the noise is 1e-10; the class is the argmax of the
posterior mean. Training images are those of the authors' code: of each digit the first n/10 behind the first 10000 images,
which are kept for validation.

python studies/lee_table.py [--root FOLDER] [--train 1000 10000]
"""

import argparse
import time

import torch
from torch import Tensor, nn

import lazyrich as lzr
from lazyrich.inference import one_hot_targets

# images, activation, hidden layers, sigma_w^2, sigma_b^2, published accuracy
ROWS = (
    (1000, nn.ReLU, 20, 1.45, 0.28, 0.9279),
    (1000, nn.Tanh, 20, 1.96, 0.62, 0.9266),
    (10000, nn.ReLU, 7, 0.61, 0.07, 0.9765),
    (10000, nn.Tanh, 2, 1.62, 0.28, 0.9773),
)
NOISE = 1e-10
VALIDATION = 10000


def mlp(activation: type[nn.Module], depth: int, inputs: int = 784, width: int = 8) -> nn.Sequential:
    """A plain multilayer perceptron; its width does not matter."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def mnist(split: str, n: int | None = None, root: str | None = None) -> tuple[Tensor, Tensor]:
    """Images, each with mean 0 and variance 1, and their labels: the authors' n for training, or all."""
    data = lzr.data.load("mnist", root=root, split=split)
    chosen = torch.arange(len(data))
    if n is not None:
        chosen = torch.cat([VALIDATION + (data.y[VALIDATION:] == digit).nonzero()[: n // 10, 0] for digit in range(10)])
    x = data.x[chosen].double()
    return (x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True), data.y[chosen]


def accuracy(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], activation: type[nn.Module], depth: int, w: float, b: float
) -> float:
    """Test accuracy of the posterior mean; the test Gram is made in blocks, so two matrices (N, N) are all that is held."""
    kernel = lzr.kernel(mlp(activation, depth), init=lzr.init.variance(w, b))
    gram = kernel.nngp(train[0])
    gram.diagonal().add_(NOISE)
    lower = torch.linalg.cholesky(gram)
    del gram
    dual = torch.cholesky_solve(one_hot_targets(train[1], 10), lower)
    del lower
    means = [kernel.nngp(block, train[0]) @ dual for block in test[0].split(1000)]
    return float((torch.cat(means).argmax(1) == test[1]).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of the image files")
    parser.add_argument("--train", type=int, nargs="*", default=[1000, 10000], help="which rows, by their training images")
    words = parser.parse_args()
    test = mnist("test", root=words.root)
    print("images  network            ours    published  seconds")
    for n, activation, depth, w, b, published in ROWS:
        if n in words.train:
            start, name = time.time(), f"{activation.__name__.lower()}-{depth}-{w:.2f}-{b:.2f}"
            found = accuracy(mnist("train", n, words.root), test, activation, depth, w, b)
            print(f"{n:<7} {name:<18} {found:.4f}  {published:.4f}     {time.time() - start:.0f}", flush=True)


if __name__ == "__main__":
    main()
