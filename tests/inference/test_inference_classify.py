"""Classes, probabilities and their calibration."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.inference import classify, leave_one_out, one_hot_targets, posterior


def test_targets_of_ten_classes_are_those_of_lee_et_al() -> None:
    y = one_hot_targets(torch.tensor([3, 9, 0]))
    assert (float(y.max()), float(y.min()), y.shape) == (0.9, -0.1, (3, 10))
    assert y.argmax(1).tolist() == [3, 9, 0]
    torch.testing.assert_close(one_hot_targets(torch.tensor([0, 2])).sum(1), torch.zeros(2).double())
    assert one_hot_targets(torch.tensor([0]), classes=4, on=2.0, off=-1.0).tolist() == [[2.0, -1.0, -1.0, -1.0]]


@pytest.mark.parametrize(
    ("labels", "classes", "complaint"),
    [
        (torch.tensor([0, 3]), 3, "got label 3, expected labels below 3"),
        (torch.tensor([-1, 0]), None, "whole numbers from 0"),
        (torch.tensor([0.5]), None, "whole numbers from 0"),
        (torch.zeros(2, 2), None, "one class a sample"),
        (torch.zeros(0), None, "one class a sample"),
    ],
)
def test_bad_labels_are_refused_in_words(labels: Tensor, classes: int | None, complaint: str) -> None:
    with pytest.raises(KernelError, match=complaint):
        one_hot_targets(labels, classes)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"classes": math.nan}, "got classes = nan"),
        ({"on": "3"}, "got on '3'"),
        ({"on": math.nan}, "got on nan"),
        ({"off": [0.0]}, "got off"),
    ],
)
def test_targets_that_are_no_numbers_are_refused(given: dict, complaint: str) -> None:
    with pytest.raises(KernelError, match=complaint):
        one_hot_targets(torch.tensor([0, 1]), **given)


def test_gaussian_probabilities_are_those_of_sampling_the_latent_outputs() -> None:
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(4, 5, generator=g, dtype=torch.float64)
    variance = 0.2 + torch.rand(4, 5, generator=g, dtype=torch.float64)
    draws = mean + variance.sqrt() * torch.randn(200_000, 4, 5, generator=g, dtype=torch.float64)
    wanted = torch.nn.functional.one_hot(draws.argmax(2), 5).double().mean(0)
    torch.testing.assert_close(classify(mean, variance).probabilities, wanted, rtol=0, atol=0.005)
    two = classify(torch.tensor([[0.3, -0.2]]), torch.tensor([0.5])).probabilities[0, 0]
    exact = torch.special.ndtr(torch.tensor(0.5 / math.sqrt(1.0), dtype=torch.float64))
    assert float(two) == pytest.approx(float(exact), abs=1e-7)
    assert classify(torch.tensor([[0.3, -0.2]]), torch.zeros(1)).probabilities[0].tolist() == pytest.approx([1, 0])


def test_softmax_with_its_temperature() -> None:
    mean = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = classify(mean, temperature=0.5)
    assert float(found.probabilities[0, 0]) == pytest.approx(1 / (1 + math.exp(-2)))
    assert (found.method, found.temperature) == ("softmax", 0.5)


@pytest.fixture(scope="module")
def digits() -> dict[str, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:700]
    x, labels = torch.as_tensor(pixels)[order], torch.as_tensor(labels)[order]
    k = torch.exp(-(torch.cdist(x, x) ** 2) / 800)
    return {
        "k_dd": k[:200, :200],
        "k_td": k[200:, :200],
        "k_tt": k[200:, 200:].diagonal(),
        "seen": labels[:200],
        "new": labels[200:],
    }


@pytest.mark.parametrize("gaussian", [False, True])
def test_a_temperature_fitted_to_leave_one_out_predictions_calibrates_new_ones(
    digits: dict[str, Tensor], gaussian: bool
) -> None:
    y, noise = one_hot_targets(digits["seen"]), 0.01
    gp = posterior(digits["k_dd"], y, digits["k_td"], digits["k_tt"], noise=noise)
    loo = leave_one_out(digits["k_dd"], y, noise=noise)
    variance = (gp.variance + noise) if gaussian else None
    held_out = (loo.mean, loo.variance, digits["seen"]) if gaussian else (loo.mean, digits["seen"])
    raw, fitted = classify(gp.mean, variance), classify(gp.mean, variance, held_out=held_out)
    assert fitted.accuracy(digits["new"]) > 0.93
    assert fitted.accuracy(digits["new"]) == float((gp.mean.argmax(1) == digits["new"]).double().mean())
    assert fitted.log_loss(digits["new"]) < 0.5 * raw.log_loss(digits["new"])
    assert fitted.calibration_error(digits["new"]) < 0.05 < raw.calibration_error(digits["new"])
    torch.testing.assert_close(fitted.probabilities.sum(1), torch.ones(500).double())
    scores = [classify(gp.mean, variance, fitted.temperature * f).log_loss(digits["new"]) for f in (0.3, 3.0)]
    assert fitted.log_loss(digits["new"]) < min(scores)


def test_calibration_error_is_confidence_less_accuracy() -> None:
    found = classify(torch.log(torch.tensor([[0.8, 0.2]] * 10)))
    labels = torch.tensor([0] * 5 + [1] * 5)
    assert found.calibration_error(labels) == pytest.approx(0.3, abs=1e-6)
    assert found.accuracy(labels) == 0.5
    assert found.log_loss(labels) == pytest.approx(-0.5 * math.log(0.16), abs=1e-6)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"mean": torch.zeros(3)}, r"expected \(M, C\)"),
        ({"mean": torch.full((2, 2), torch.nan)}, "not finite"),
        ({"variance": torch.ones(3)}, "got variance of shape"),
        ({"variance": -torch.ones(2)}, "none < 0"),
        ({"temperature": 0.0}, "expected a positive number"),
        ({"temperature": "1"}, "got temperature '1'"),
        ({"temperature": [1.0]}, "expected a positive number"),
        ({"held_out": (torch.zeros(2, 2), torch.ones(2), torch.zeros(2))}, r"expected \(mean, labels\)"),
        ({"held_out": (torch.zeros(2, 2), torch.tensor([0, 2]))}, "held-out labels up to 2"),
    ],
)
def test_bad_predictions_are_refused_in_words(given: dict, complaint: str) -> None:
    with pytest.raises(KernelError, match=complaint):
        classify(**({"mean": torch.zeros(2, 2)} | given))
    with pytest.raises(KernelError, match="got 3 labels up to 0, expected 2 from 0 to 1"):
        classify(torch.zeros(2, 2)).accuracy(torch.zeros(3))


@pytest.mark.parametrize("second", [1.0, 0.3, 1e-2, 1e-4, 1e-8, 0.0])
@pytest.mark.parametrize("gap", [0.12, -1.3])
def test_two_classes_of_unequal_variance_have_the_exact_probability(gap, second):
    """P = Phi(gap / sqrt(v1 + v2)), also where the second class is as good as certain."""
    found = classify(torch.tensor([[gap, 0.0]]), torch.tensor([[1.0, second]])).probabilities[0, 0]
    assert float(found) == pytest.approx(
        float(torch.special.ndtr(torch.tensor(gap / (1 + second) ** 0.5, dtype=torch.float64))), abs=1e-6
    )


def test_several_classes_of_unequal_variance_agree_with_draws():
    mean, variance = torch.tensor([[0.3, 0.0, -0.2, 0.25]]), torch.tensor([[1.0, 1e-6, 0.04, 1e-3]])
    found = classify(mean, variance).probabilities[0]
    draws = mean + variance.sqrt() * torch.randn(1_000_000, 4, generator=torch.Generator().manual_seed(0))
    counted = torch.bincount(draws.argmax(1), minlength=4) / len(draws)
    torch.testing.assert_close(found.float(), counted, rtol=0, atol=2e-3)


@pytest.mark.parametrize("bins", [0, -1, 2.5])
def test_bins_of_calibration_are_counted(bins):
    scores = classify(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(KernelError, match="got bins = "):
        scores.calibration_error(torch.arange(20) % 3, bins=bins)


def test_confidences_of_the_two_highest_bins_are_not_weighed_against_each_other():
    found = classify(torch.log(torch.tensor([[0.85, 0.15], [0.95, 0.05]])))
    assert found.calibration_error(torch.tensor([0, 1]), bins=10) == pytest.approx((0.15 + 0.95) / 2, abs=1e-6)
