"""Spectra from products, against whole eigendecompositions."""

import pytest
import torch

from lazyrich.errors import KernelError
from lazyrich.inference import Dense, Streamed, density, spectrum, top_eigenpairs


def falling(size=120, seed=0):
    basis = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]
    values = torch.arange(1, size + 1, dtype=torch.float64) ** -1.5
    return basis @ torch.diag(values) @ basis.T, values


def test_the_largest_eigenpairs_are_those_of_the_matrix():
    gram, values = falling()
    found, vectors = top_eigenpairs(Dense(gram), 7)
    assert torch.allclose(found, values[:7], rtol=1e-10)
    assert torch.allclose(gram @ vectors, vectors * found, atol=1e-10)
    assert torch.allclose(vectors.T @ vectors, torch.eye(7, dtype=torch.float64), atol=1e-10)


def test_with_as_many_steps_as_eigenvalues_each_start_has_them_all():
    gram, values = falling(30)
    found = density(Dense(gram), probes=3, steps=30)
    assert torch.allclose(found.nodes.flip(1), values.expand(3, 30), rtol=1e-6)
    assert torch.allclose(found.weights.sum(1), torch.ones(3, dtype=torch.float64))


def test_moments_lie_within_their_errors():
    gram, values = falling(400)
    found = density(Dense(gram), probes=40, steps=20)
    for power in (1, 2, 3):
        mean, error = found.moment(power)
        assert 0 < error < 0.5 * mean
        assert abs(mean - float((values**power).mean())) < 4 * error
    assert abs(found.trace()[0] - float(values.sum())) < 4 * found.trace()[1]


def test_the_distribution_is_that_of_the_eigenvalues():
    gram, values = falling(400)
    found = density(Dense(gram), probes=30, steps=60)
    at = torch.tensor([1e-3, 1e-2, 1e-1], dtype=torch.float64)
    exact = (values[:, None] <= at).double().mean(0)
    assert torch.allclose(found.below(at), exact, atol=0.03)
    log = torch.linspace(-14, 4, 2000, dtype=torch.float64)
    total = torch.trapezoid(found.smoothed(log.exp(), 0.2), log)
    assert float(total) == pytest.approx(1, abs=1e-3)


def test_an_exhausted_space_ends_the_walk():
    gram = torch.diag(torch.tensor([1.0, 1.0, 5.0, 5.0, 5.0], dtype=torch.float64))
    found = density(Dense(gram), probes=4, steps=5)
    assert found.nodes.shape[1] == 2
    assert found.moment(1)[0] == pytest.approx(17 / 5)
    assert float(spectrum(gram).eigenvalues.sum()) == pytest.approx(found.trace()[0])


def test_a_matrix_is_taken_as_an_operator():
    gram, values = falling(30)
    assert torch.allclose(top_eigenpairs(gram, 3)[0], values[:3], rtol=1e-10)
    assert torch.allclose(density(gram, probes=3).nodes, density(Dense(gram), probes=3).nodes)
    for wrong, complaint in ((gram.triu(), "not symmetric"), (gram[:4], "square"), ("gram", "expected a tensor")):
        for ask in (top_eigenpairs, density):
            with pytest.raises(KernelError, match=complaint):
                ask(wrong)


@pytest.mark.parametrize("count", [0, 5, 9, 2.5, True])
def test_counts_that_do_not_fit_are_refused(count):
    with pytest.raises(KernelError, match="1 to 4 of 5"):
        top_eigenpairs(Dense(torch.eye(5)), count)


@pytest.mark.parametrize("seed", [None, "3", 1.5, -1])
def test_seeds_that_are_none_are_refused(seed):
    for ask in (top_eigenpairs, density):
        with pytest.raises(KernelError, match="got seed = .*expected a whole number"):
            ask(Dense(torch.eye(12)), seed=seed)


def test_an_operator_of_zeros_has_no_largest_eigenpairs():
    with pytest.raises(KernelError, match="expected one that is not zero"):
        top_eigenpairs(torch.zeros(5, 5), 2)


def test_too_few_starts_and_products_that_are_not_finite_are_refused():
    with pytest.raises(KernelError, match="at least 2 starts"):
        density(Dense(torch.eye(5)), probes=1)
    for wrong in ({"probes": 2.5}, {"steps": 2.5}):
        with pytest.raises(KernelError, match="expected whole numbers"):
            density(Dense(torch.eye(5)), **wrong)
    with pytest.raises(KernelError, match="not finite|infinite|NaN|nan"):
        density(Dense(torch.full((3, 3), float("nan"))))


def test_one_row_has_no_eigenpairs_to_look_for_and_rows_may_be_numpy() -> None:
    with pytest.raises(KernelError, match=r"got a matrix of shape \(1, 1\), expected at least two rows"):
        top_eigenpairs(torch.ones(1, 1))
    gram = torch.diag(torch.arange(1.0, 7.0))
    streamed = Streamed(lambda start, stop: gram.numpy()[start:stop], samples=6, block=4)
    assert torch.allclose(top_eigenpairs(streamed, 2)[0], torch.tensor([6.0, 5.0], dtype=torch.float64))
