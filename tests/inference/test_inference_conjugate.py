"""Conjugate gradients against dense solves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.inference import Dense, Streamed, conjugate_gradients

N = 120


@pytest.fixture(scope="module")
def gram() -> Tensor:
    x = torch.randn(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.exp(-(torch.cdist(x, x) ** 2) / 2)


@pytest.fixture(scope="module")
def b() -> Tensor:
    return torch.randn(N, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("preconditioner", [None, "jacobi", "cholesky"])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_solution_is_the_dense_one(gram: Tensor, b: Tensor, preconditioner: str | None, streamed: bool) -> None:
    operator = Streamed(lambda i, j: gram[i:j], N, block=50) if streamed else gram
    found = conjugate_gradients(operator, b, noise=0.1, preconditioner=preconditioner, tolerance=1e-11)
    wanted = torch.linalg.solve(gram + 0.1 * torch.eye(N).double(), b)
    torch.testing.assert_close(found.x, wanted, rtol=0, atol=1e-8)
    assert found.residual < 1e-10
    assert len(found.history) == found.iterations
    assert found.history[-1] <= 1e-11


def test_a_pivoted_cholesky_saves_products_without_noise_too(gram: Tensor, b: Tensor) -> None:
    for noise in (1e-4, 1e-2):
        plain = conjugate_gradients(gram, b, noise=noise, max_iterations=5000)
        better = conjugate_gradients(gram, b, noise=noise, preconditioner="cholesky", rank=60)
        assert better.iterations < plain.iterations / 4
    k = gram + 0.1 * torch.eye(N).double()  # here the preconditioner must find its own shift
    found = conjugate_gradients(k, b, preconditioner="cholesky")
    torch.testing.assert_close(found.x, torch.linalg.solve(k, b), rtol=0, atol=1e-6)


def test_jacobi_undoes_bad_scales(b: Tensor) -> None:
    scales = torch.logspace(-3, 3, N, dtype=torch.float64)
    k = torch.diag(scales) + 1e-4 * torch.ones(N, N).double()
    assert conjugate_gradients(k, b, preconditioner="jacobi").iterations < 10
    with pytest.raises(KernelError, match="relative residual"):
        conjugate_gradients(k, b, max_iterations=50)


def test_flat_zero_and_mixed_right_hand_sides(gram: Tensor, b: Tensor) -> None:
    noise = 0.1
    one = conjugate_gradients(gram, b[:, 0], noise)
    assert one.x.shape == (N,)
    none = conjugate_gradients(gram, torch.zeros(N), noise)
    assert (none.iterations, float(none.x.abs().max())) == (0, 0.0)
    mixed = conjugate_gradients(gram, torch.stack([b[:, 0], torch.zeros(N), 1e6 * b[:, 1]], 1), noise, tolerance=1e-11)
    torch.testing.assert_close(mixed.x[:, 0], one.x, rtol=0, atol=1e-6)
    assert float(mixed.x[:, 1].abs().max()) == 0


def test_an_own_operator_and_an_own_preconditioner(gram: Tensor, b: Tensor) -> None:
    class Product:
        shape = (N, N)

        def matvec(self, v: Tensor) -> Tensor:
            return gram @ v

    inverse = torch.linalg.inv(gram + 0.1 * torch.eye(N).double())
    found = conjugate_gradients(Product(), b, 0.1, preconditioner=lambda v: inverse @ v)
    assert found.iterations <= 2
    assert "solved in" in str(found)
    with pytest.raises(KernelError, match=r"without diagonal\(\)"):
        conjugate_gradients(Product(), b, 0.1, preconditioner="jacobi")


def test_the_blocks_of_a_streamed_gram_are_what_is_held(gram: Tensor) -> None:
    sizes = []

    def rows(i: int, j: int) -> Tensor:
        sizes.append(j - i)
        return gram[i:j].float()

    k = Streamed(rows, N, block=32)
    torch.testing.assert_close(k.matvec(torch.eye(N)), gram, rtol=0, atol=1e-6)
    assert max(sizes) == 32
    torch.testing.assert_close(k.diagonal(), gram.diagonal(), rtol=0, atol=1e-6)
    torch.testing.assert_close(k.row(5), gram[5], rtol=0, atol=1e-6)


def test_streamed_and_dense_grams_that_are_none_are_refused(gram: Tensor) -> None:
    for made, complaint in (
        (lambda: Streamed(lambda i, j: gram[i:j], "3"), "got samples = '3'"),
        (lambda: Streamed(lambda i, j: gram[i:j], N, block=0), "got block = 0"),
        (lambda: Streamed("3", N), "got rows '3', expected a function"),
        (lambda: Dense("3"), "got matrix of type str"),
        (lambda: Dense(torch.zeros(3)), "got matrix of shape"),
    ):
        with pytest.raises(KernelError, match=complaint):
            made()


def test_what_does_not_converge_or_fit_is_refused_in_words(gram: Tensor, b: Tensor) -> None:
    with pytest.raises(KernelError, match=r"relative residual of .* after 3 iterations, expected 1e-08; add noise"):
        conjugate_gradients(gram, b, noise=1e-6, max_iterations=3)
    with pytest.raises(KernelError, match="not positive definite"):
        conjugate_gradients(gram - torch.eye(N), b)
    for given, complaint in (
        ({"operator": torch.triu(gram)}, "not symmetric"),
        ({"operator": "gram"}, r"expected a tensor or \.shape"),
        ({"b": torch.zeros(N + 1)}, "got b of shape"),
        ({"b": b * torch.nan}, "b with 360 values"),
        ({"tolerance": 0.0}, "tolerance between 0 and 1"),
        ({"tolerance": "1"}, "tolerance '1'"),
        ({"noise": None}, "noise None"),
        ({"rank": 1.5}, "got rank = 1.5, expected a whole number"),
        ({"max_iterations": "3"}, "got max_iterations = '3'"),
        ({"b": "b"}, "got b of type str"),
        ({"preconditioner": "ilu"}, "expected None, 'jacobi'"),
        ({"operator": Streamed(lambda i, j: gram[i:j, :5], N)}, r"expected \(120, 120\)"),
        ({"operator": Streamed(lambda i, j: gram[i:j] * torch.nan, N)}, "a product of the operator"),
    ):
        with pytest.raises(KernelError, match=complaint):
            conjugate_gradients(**({"operator": gram, "b": b} | given))
