"""How the test error of kernel regression falls with the number of samples, from one Gram matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from lazyrich.amount import real
from lazyrich.errors import KernelError
from lazyrich.inference.layout import layout_of, precision
from lazyrich.inference.modes import modes_of


@dataclass(frozen=True)
class LearningCurve:
    """Expected errors of kernel (ridge) regression on n random samples; errors are torch's mse (mean over outputs too).

    Attributes:
        sizes: n, (S,).
        test_error: expected on new samples with their noise, (S,).
        train_error: expected on the training samples, (S,).
        kappa: the eigenvalue of the kernel operator above which modes are learnt, (S,).
        overfitting: the factor n/(n - sum L_i^2) by which noise and unlearnt modes are amplified, (S,).
        learnability: L_i = lambda_i/(lambda_i + kappa) of each mode, largest first, (S, P).
        eigenvalues: of the kernel operator, (P,), largest first.
        coefficients: square of the target's coefficients on the eigenfunctions, mean over outputs, (P,).
    """

    sizes: Tensor
    test_error: Tensor
    train_error: Tensor
    kappa: Tensor
    overfitting: Tensor
    learnability: Tensor
    eigenvalues: Tensor
    coefficients: Tensor

    def rows(self) -> list[dict[str, Any]]:
        """One record a size: ``n``, ``test_error``, ``train_error``, ``kappa``, ``overfitting``."""
        columns = {
            "n": self.sizes,
            "test_error": self.test_error,
            "train_error": self.train_error,
            "kappa": self.kappa,
            "overfitting": self.overfitting,
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]

    def __str__(self) -> str:
        table = [list(self.rows()[0])]
        table += [[f"{value:.4g}" for value in row.values()] for row in self.rows()]
        return "\n".join("".join(cell.ljust(13) for cell in row).rstrip() for row in table)


def learning_curve(gram: Tensor, y: Tensor, sizes: Sequence[int], ridge: float = 0.0, noise: float = 0.0) -> LearningCurve:
    """Predict the test error of kernel regression on n samples from the Gram and the targets of a larger sample.

    With eigenvalues lambda_i of Gram/P and coefficients v_i of the targets on its eigenvectors, kappa solves
    sum_i lambda_i/(lambda_i + kappa) + ridge/kappa = n;  L_i = lambda_i/(lambda_i + kappa);
    E_test = n/(n - sum_i L_i^2) (sum_i (1 - L_i)^2 v_i^2 + noise);  E_train = (ridge/(n kappa))^2 E_test
    (Bordelon, Canatar & Pehlevan 2020, arXiv:2002.02561, eq. 4-5; Simon et al. 2021, arXiv:2110.03922, section 4).
    The theory averages over draws of n samples and treats eigenfunctions as Gaussian; with n no longer small against P the
    sample knows too little of the kernel's tail, and predictions of the error on new inputs are low by several times n/P. On
    rectifier and Gaussian kernels, without a ridge: by 10 to 60 % at n/P = 7 %, at 13 % by up to all of it (smooth kernels of few
    inputs); with a ridge of 0.1 and no noise by up to 15 % for rectifiers, 45 % for smooth kernels. Noise on the targets helps
    only together with a ridge. Keep n below a few percent of P where the number matters. Eigenfunctions that are far from Gaussian
    matter most to the training error: that of a smooth kernel of few inputs at a ridge of 0.01 was low by a factor of three.

    Args:
        gram: of P samples, (P, P); they stand for the whole distribution.
        y: their targets, (P,) or (P, K), without noise.
        sizes: numbers n of training samples.
        ridge: added to the diagonal of the training Gram, absolute (the ``noise`` of ``posterior``).
        noise: variance of the noise on training and test targets.

    Raises:
        KernelError: for a Gram that is not positive semi-definite, targets that do not fit, or n not below the rank of the
            Gram without a ridge.

    Example:
        >>> k = torch.diag(torch.tensor([4.0, 4.0, 1.0, 1.0]))
        >>> curve = learning_curve(k, torch.tensor([1.0, 1.0, 0.0, 0.0]), [1, 2, 3])
        >>> print(curve)
        n            test_error   train_error  kappa        overfitting
        1            0.2859       0            1.693        1.447
        2            0.125        0            0.5          2.25
        3            0.03593      0            0.1477       4.341
    """
    layout = layout_of(y)
    matrix = layout.gram(gram, "gram").detach()
    _check(sizes, ridge, noise)
    modes, p = modes_of(matrix, "gram", precision(gram)), len(matrix)
    values = modes.values.flip(0) / p
    coefficients = (modes.vectors.flip(1).T @ layout.columns(y, "y").detach()).square().mean(1) / p
    if not ridge and max(sizes) >= modes.rank:
        raise KernelError(
            f"got size {max(sizes)} for a Gram of rank {modes.rank}, expected fewer samples without a ridge; "
            "pass a larger Gram, or ridge="
        )
    kappa = torch.tensor([_kappa(values, n, ridge) for n in sizes], dtype=torch.float64, device=values.device)
    n = torch.tensor(list(sizes), dtype=torch.float64, device=values.device)
    learnability = values / (values + kappa[:, None])
    overfitting = n / (n - learnability.square().sum(1))
    test = overfitting * (((1 - learnability).square() * coefficients).sum(1) + noise)
    train = (ridge / (n * kappa)) ** 2 * test
    return LearningCurve(torch.tensor(list(sizes)), test, train, kappa, overfitting, learnability, values, coefficients)


def _kappa(values: Tensor, n: int, ridge: float) -> float:
    """The root of sum lambda/(lambda + kappa) + ridge/kappa = n, found in log kappa."""

    def surplus(log_kappa: float) -> float:
        kappa = math.exp(log_kappa)
        return float((values / (values + kappa)).sum()) + ridge / kappa - n

    high = (float(values.sum()) + ridge) / n  # there surplus <= 0
    low = high
    while surplus(math.log(low)) < 0:
        low /= 8
    root: Any = brentq(surplus, math.log(low), math.log(high) + 1e-9, xtol=1e-13)
    return math.exp(float(root))


def _check(sizes: Sequence[int], ridge: float, noise: float) -> None:
    try:
        list(sizes)
    except TypeError as error:
        raise KernelError(f"got sizes {sizes!r}, expected a list of numbers of samples; pass [n] for one") from error
    if isinstance(sizes, str) or not len(sizes) or not all(real(n) >= 1 and real(n) % 1 == 0 for n in sizes):
        raise KernelError(f"got sizes {list(sizes)}, expected whole numbers from 1; pass a list of them")
    for name, value in (("ridge", ridge), ("noise", noise)):
        if not 0 <= real(value) < float("inf"):
            raise KernelError(f"got {name} {value!r}, expected a finite number, zero or positive")
