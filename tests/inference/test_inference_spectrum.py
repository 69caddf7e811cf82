"""Spectra and learning curves against direct computation and measured kernel regression."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.inference import learning_curve, one_hot_targets, posterior, spectrum
from lazyrich.inference.modes import check_definite, modes_of


def rectifier(x: Tensor) -> Tensor:
    """The Gram of an infinitely wide rectifier network with one hidden layer (arc-cosine kernel)."""
    size = torch.outer(x.norm(dim=1), x.norm(dim=1))
    c = (x @ x.T / size).clamp(-1, 1)
    return size * (torch.sqrt(1 - c**2) + (math.pi - torch.acos(c)) * c) / math.pi


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """The Gram of an infinitely wide rectifier network with one hidden layer (arc-cosine kernel) on digits, and targets."""
    pixels, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(pixels)
    x = x / x.norm(dim=1, keepdim=True)
    return rectifier(x), one_hot_targets(torch.as_tensor(labels))


def measured(gram: Tensor, y: Tensor, n: int, ridge: float, noise: float = 0.0, draws: int = 10) -> tuple[float, float]:
    """Mean test and training error of kernel regression over random training sets."""
    g, found = torch.Generator().manual_seed(n), []
    for _ in range(draws):
        order = torch.randperm(len(gram), generator=g)
        seen, rest = order[:n], order[n:]
        noisy = y + math.sqrt(noise) * torch.randn(y.shape, generator=g, dtype=torch.float64)
        both = gram[:, seen]
        mean = posterior(gram[seen][:, seen], noisy[seen], both, noise=ridge).mean
        found.append([float((mean[i] - noisy[i]).square().mean()) for i in (rest, seen)])
    test, train = torch.tensor(found).mean(0).tolist()
    return test, train


@pytest.mark.parametrize(("ridge", "noise", "tolerance"), [(1e-3, 0.0, 0.17), (0.3, 0.0, 0.06), (0.1, 0.05, 0.04)])
def test_learning_curves_predict_kernel_regression_on_digits(
    digits: tuple[Tensor, Tensor], ridge: float, noise: float, tolerance: float
) -> None:
    """Nearly without a ridge the sample of 1797 knows too little of the kernel's tail: low by 7 % at n = 10, 14 % at 160."""
    gram, y = digits
    sizes = [10, 40, 160]
    curve = learning_curve(gram, y, sizes, ridge=ridge, noise=noise)
    for n, test, train in zip(sizes, curve.test_error.tolist(), curve.train_error.tolist(), strict=True):
        seen_test, seen_train = measured(gram, y, n, ridge, noise)
        assert test == pytest.approx(seen_test, rel=tolerance)
        if ridge > 0.01:
            assert train == pytest.approx(seen_train, rel=0.15)
    assert noise or float(curve.test_error[0] / curve.test_error[2]) > 2.4


def test_the_eigenframework_is_exact_for_gaussian_features() -> None:
    """Linear regression on Gaussian inputs, where the theory's assumption holds."""
    g, d, p = torch.Generator().manual_seed(0), 100, 1200
    scales = torch.arange(1, d + 1, dtype=torch.float64) ** -0.75
    x = torch.randn(p, d, generator=g, dtype=torch.float64) * scales
    y = x @ torch.randn(d, 1, generator=g, dtype=torch.float64)
    gram = x @ x.T
    curve = learning_curve(gram, y, [20, 40, 60], ridge=1e-3, noise=0.1)
    for n, predicted in zip([20, 40, 60], curve.test_error.tolist(), strict=True):
        assert predicted == pytest.approx(measured(gram, y, n, 1e-3, noise=0.1, draws=40)[0], rel=0.05)


def test_without_a_ridge_the_curve_is_low_by_several_times_the_share_that_is_seen() -> None:
    """As the docstring says: of new inputs, not of the rest of the sample that the curve was made from."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 400, 3, generator=g, dtype=torch.float64)
    y, n, low = torch.sin(2 * x[..., 0]) + x[..., 1], 28, []
    for mine, other, f, f_other in zip(x, x.roll(1, 0), y, y.roll(1, 0), strict=True):
        to = rectifier(torch.cat([mine, other]))
        seen = posterior(to[:n, :n], f[:n], to[400:, :n]).mean
        predicted = learning_curve(to[:400, :400], f, [n]).test_error[0]
        low.append(float(1 - predicted / (seen - f_other).square().mean()))
    assert 0.1 < sum(low) / len(low) < 0.6


def test_kappa_and_the_conservation_of_learnability(digits: tuple[Tensor, Tensor]) -> None:
    gram, y = digits
    curve = learning_curve(gram[:300, :300], y[:300], [5, 50], ridge=0.1)
    for i, n in enumerate((5, 50)):
        assert float(curve.learnability[i].sum() + 0.1 / curve.kappa[i]) == pytest.approx(n, rel=1e-9)
    assert float(curve.coefficients.sum()) == pytest.approx(float(y[:300].square().mean()))
    large = learning_curve(torch.eye(4), torch.ones(4), [2], ridge=50.0)  # far above the kernel
    assert float(large.learnability.sum() + 50 / large.kappa) == pytest.approx(2, rel=1e-9)
    assert list(curve.rows()[0]) == ["n", "test_error", "train_error", "kappa", "overfitting"]
    assert len(str(curve).splitlines()) == 3


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sizes": [4]}, "a Gram of rank 4, expected fewer samples without a ridge"),
        ({"sizes": 2}, r"got sizes 2, expected a list of numbers of samples; pass \[n\] for one"),
        ({"sizes": []}, "whole numbers from 1"),
        ({"sizes": [1.5]}, "whole numbers from 1"),
        ({"sizes": "3"}, "whole numbers from 1"),
        ({"sizes": [None]}, "whole numbers from 1"),
        ({"ridge": "1"}, "got ridge '1'"),
        ({"noise": [0.0]}, r"got noise \[0.0\]"),
        ({"ridge": -1.0}, "got ridge"),
        ({"noise": math.nan}, "got noise"),
        ({"gram": -torch.eye(4)}, "indefinite"),
        ({"y": torch.zeros(3)}, "expected one for 3"),
    ],
)
def test_bad_curves_are_refused_in_words(change: dict, complaint: str) -> None:
    with pytest.raises(KernelError, match=complaint):
        learning_curve(**({"gram": torch.eye(4), "y": torch.ones(4), "sizes": [2]} | change))


def test_the_spectrum_finds_where_the_targets_lie() -> None:
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64)).Q
    values = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25], dtype=torch.float64)
    k = basis @ torch.diag(values) @ basis.T
    y = torch.stack([3 * basis[:, 1], 4 * basis[:, 4]], 1)
    found = spectrum(k, y)
    torch.testing.assert_close(found.eigenvalues, values)
    torch.testing.assert_close(found.power, torch.tensor([0, 9, 0, 0, 16, 0]).double() / 25)
    torch.testing.assert_close(found.cumulative[3], torch.tensor(0.36).double())
    torch.testing.assert_close(found.eigenvectors @ torch.diag(values) @ found.eigenvectors.T, k)
    assert found.condition == pytest.approx(32)
    assert found.participation_ratio == pytest.approx(15.75**2 / float(values.square().sum()))
    assert found.stable_rank == pytest.approx(float(values.square().sum()) / 64)
    yy = y @ y.T
    assert found.alignment == pytest.approx(float((k * yy).sum() / (k.norm() * yy.norm())))
    assert spectrum(torch.eye(5)).effective_rank == pytest.approx(5)
    assert spectrum(torch.eye(5)).cumulative is None
    assert found.rows()[1]["power"] == pytest.approx(0.36)


def test_the_errors_of_integrals_do_not_make_a_gram_indefinite() -> None:
    found = spectrum(torch.diag(torch.tensor([1.0, 1.0, -1e-4])))
    assert found.effective_rank == pytest.approx(2)
    with pytest.raises(KernelError, match="indefinite Gram matrix gram .*smallest eigenvalue -0.001, largest 1e-09"):
        check_definite(torch.tensor([-1e-3, 1e-9]), "gram", 0.5)
    with pytest.raises(KernelError, match="indefinite"):
        check_definite(torch.tensor([-2e-3, 1.0]), "gram", 1e-3)


@pytest.mark.parametrize(
    ("gram", "y", "complaint"),
    [
        (torch.zeros(3, 3), None, "a Gram of zeros"),
        (torch.eye(3), torch.zeros(3), "all zero"),
        (torch.eye(3), torch.ones(4), "4 targets for a Gram of 3"),
        (torch.ones(3, 2), None, "expected a square matrix"),
        (-torch.eye(3).double(), None, "indefinite Gram matrix gram"),
        (torch.diag(torch.tensor([1.0, 1.0, -0.1])), torch.ones(3), "indefinite Gram matrix gram"),
    ],
)
def test_bad_spectra_are_refused_in_words(gram: Tensor, y: Tensor | None, complaint: str) -> None:
    with pytest.raises(KernelError, match=complaint):
        spectrum(gram, y)


def test_eigenvalues_within_the_rounding_of_as_many_samples_are_zero():
    found = modes_of(torch.diag(torch.tensor([0.015, 1.0], dtype=torch.float64)), "k", eps=0.01)
    assert found.values.tolist() == [0.0, 1.0]
    assert modes_of(torch.diag(torch.tensor([0.025, 1.0], dtype=torch.float64)), "k", eps=0.01).rank == 2


def test_a_small_eigenvalue_below_zero_counts_by_its_size_and_a_larger_one_is_refused():
    gram = torch.diag(torch.tensor([1.0, 1e-4, -5e-4], dtype=torch.float64))
    assert spectrum(gram).condition == pytest.approx(1e4)
    with pytest.raises(KernelError, match="indefinite"):
        spectrum(gram - torch.diag(torch.tensor([0.0, 0.0, 5e-3], dtype=torch.float64)))


def test_the_first_eight_modes_are_said():
    assert str(spectrum(torch.eye(10))).splitlines()[-1].startswith("mode 8")
