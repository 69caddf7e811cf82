"""Posteriors, likelihoods and leave-one-out against plain dense algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lazyrich.errors import KernelError, LazyrichError
from lazyrich.inference import gradient_flow, leave_one_out, log_marginal, posterior

N, M, K = 12, 5, 3


def rbf(a: Tensor, b: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    return torch.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * scale))


@pytest.fixture
def problem() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    x, z = (torch.randn(n, 4, generator=g, dtype=torch.float64) for n in (N, M))
    y = torch.randn(N, K, generator=g, dtype=torch.float64)
    return {"k_dd": rbf(x, x), "k_td": rbf(z, x), "k_tt": rbf(z, z), "y": y, "x": x}


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("relative", [False, True])
def test_the_posterior_is_the_dense_inverse(problem: dict[str, Tensor], noise: float, relative: bool) -> None:
    k_dd, k_td, k_tt, y = 2 * problem["k_dd"], 2 * problem["k_td"], 2 * problem["k_tt"], problem["y"]
    added = noise * (2.0 if relative else 1.0)
    inverse = torch.linalg.inv(k_dd + added * torch.eye(N, dtype=torch.float64))
    found = posterior(k_dd, y, k_td, k_tt, noise=noise, relative=relative)
    torch.testing.assert_close(found.mean, k_td @ inverse @ y, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.covariance, k_tt - k_td @ inverse @ k_td.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.variance, found.covariance.diagonal())
    torch.testing.assert_close(found.deviation, found.variance.sqrt())
    assert found.noise == pytest.approx(added)
    assert found.jitter == 0


def test_shapes_follow_the_targets_and_the_diagonal_of_k_tt_is_enough(problem: dict[str, Tensor]) -> None:
    k_dd, k_td, k_tt, y = (problem[n] for n in ("k_dd", "k_td", "k_tt", "y"))
    whole = posterior(k_dd, y, k_td, k_tt, noise=0.1)
    flat = posterior(k_dd, y[:, 0], k_td, k_tt.diagonal(), noise=0.1)
    assert flat.mean.shape == (M,)
    torch.testing.assert_close(flat.mean, whole.mean[:, 0])
    torch.testing.assert_close(flat.variance, whole.variance)
    assert flat.covariance is None
    bare = posterior(k_dd, y, k_td, noise=0.1)
    assert bare.variance is None
    with pytest.raises(KernelError, match="pass k_tt="):
        _ = bare.deviation


def test_noise_may_differ_between_samples(problem: dict[str, Tensor]) -> None:
    noise = torch.linspace(0.01, 1, N, dtype=torch.float64)
    found = posterior(problem["k_dd"], problem["y"], problem["k_td"], noise=noise)
    wanted = problem["k_td"] @ torch.linalg.inv(problem["k_dd"] + torch.diag(noise)) @ problem["y"]
    torch.testing.assert_close(found.mean, wanted, rtol=0, atol=1e-10)


def test_a_full_kernel_that_is_shared_in_truth_gives_the_same(problem: dict[str, Tensor]) -> None:
    def full(k: Tensor) -> Tensor:
        return torch.einsum("ab,kj->akbj", k, torch.eye(K, dtype=torch.float64))

    k_dd, k_td, k_tt, y = (problem[n] for n in ("k_dd", "k_td", "k_tt", "y"))
    shared, whole = posterior(k_dd, y, k_td, k_tt, 0.2), posterior(full(k_dd), y, full(k_td), full(k_tt), 0.2)
    torch.testing.assert_close(whole.mean, shared.mean)
    torch.testing.assert_close(whole.covariance, full(shared.covariance))
    torch.testing.assert_close(whole.variance, shared.variance[:, None].expand(M, K).clone())
    torch.testing.assert_close(whole.log_marginal, shared.log_marginal)


def test_a_full_kernel_that_mixes_outputs_is_the_dense_inverse(problem: dict[str, Tensor]) -> None:
    mix = torch.tensor([[1.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 2.0]], dtype=torch.float64)
    k_dd, k_td = (torch.einsum("ab,kj->akbj", problem[n], mix) for n in ("k_dd", "k_td"))
    noise = 0.2 * torch.eye(N * K, dtype=torch.float64)
    inverse = torch.linalg.inv(k_dd.reshape(N * K, N * K) + noise)
    wanted = (k_td.reshape(M * K, N * K) @ inverse @ problem["y"].reshape(-1)).reshape(M, K)
    torch.testing.assert_close(posterior(k_dd, problem["y"], k_td, noise=0.2).mean, wanted, rtol=0, atol=1e-10)


def test_noise_of_correlated_outputs_is_one_a_sample_or_one_an_output(problem: dict[str, Tensor]) -> None:
    output = torch.eye(K, dtype=torch.float64) + 0.3
    k_dd, k_td = (torch.einsum("ab,kj->akbj", problem[name], output) for name in ("k_dd", "k_td"))
    each = torch.linspace(0.01, 1, N * K, dtype=torch.float64).reshape(N, K)
    for noise, diagonal in ((each[:, 0], each[:, :1].expand(N, K)), (each, each)):
        noisy = k_dd.reshape(N * K, N * K) + torch.diag(diagonal.reshape(-1))
        wanted = (k_td.reshape(-1, N * K) @ torch.linalg.solve(noisy, problem["y"].reshape(-1))).reshape(-1, K)
        found = posterior(k_dd, problem["y"], k_td, noise=noise)
        torch.testing.assert_close(found.mean, wanted, rtol=0, atol=1e-10)
        likely = torch.distributions.MultivariateNormal(torch.zeros(N * K, dtype=torch.float64), noisy)
        assert float(log_marginal(k_dd, problem["y"], noise)) == pytest.approx(float(likely.log_prob(problem["y"].reshape(-1))))
    with pytest.raises(KernelError, match=rf"one a sample \({N},\), or one an output \({N}, {K}\)"):
        posterior(k_dd, problem["y"], k_td, noise=each.T)
    with pytest.raises(KernelError, match="expected a number or one a sample"):
        posterior(problem["k_dd"], problem["y"], problem["k_td"], noise=each)


def test_an_ill_conditioned_gram_is_solved_to_its_residual() -> None:
    x = torch.linspace(0, 1, 40, dtype=torch.float64)[:, None]
    k, y = rbf(x, x), x[:, 0].sin()
    noisy = k + 1e-8 * torch.eye(40, dtype=torch.float64)  # condition 4e9
    found = posterior(k, y, noisy, noise=1e-8)
    torch.testing.assert_close(found.mean, y, rtol=0, atol=1e-12)


def test_the_log_marginal_likelihood_is_torchs(problem: dict[str, Tensor]) -> None:
    k, y = problem["k_dd"], problem["y"]
    gaussian = torch.distributions.MultivariateNormal(torch.zeros(N).double(), k + 0.1 * torch.eye(N).double())
    wanted = sum(gaussian.log_prob(y[:, i]) for i in range(K))
    assert float(log_marginal(k, y, noise=0.1)) == pytest.approx(float(wanted), abs=1e-9)
    assert float(posterior(k, y, problem["k_td"], noise=0.1).log_marginal) == pytest.approx(float(wanted), abs=1e-9)


def test_gradients_of_the_log_marginal_likelihood_are_finite_differences(problem: dict[str, Tensor]) -> None:
    x, y = problem["x"], problem["y"]

    def value(scale: Tensor, amplitude: Tensor, noise: Tensor, y: Tensor) -> Tensor:
        return log_marginal(amplitude * rbf(x, x, scale), y, noise)

    given = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.3, 0.8, 0.2)]
    assert torch.autograd.gradcheck(value, (*given, y.clone().requires_grad_()))


def test_leave_one_out_is_literally_leaving_one_out(problem: dict[str, Tensor]) -> None:
    k, y, noise = problem["k_dd"], problem["y"], 0.05
    found = leave_one_out(k, y, noise=noise)
    for i in range(N):
        rest = [j for j in range(N) if j != i]
        one = posterior(k[rest][:, rest], y[rest], k[i : i + 1][:, rest], k[i : i + 1, i : i + 1], noise=noise)
        torch.testing.assert_close(found.mean[i], one.mean[0], rtol=0, atol=1e-10)
        assert float(found.variance[i]) == pytest.approx(float(one.variance) + noise, abs=1e-10)
        gaussian = torch.distributions.Normal(one.mean[0], (one.variance + noise).sqrt())
        assert float(found.log_density[i]) == pytest.approx(float(gaussian.log_prob(y[i]).sum()), abs=1e-8)
    assert found.error == pytest.approx(float((found.mean - y).square().mean()))
    assert leave_one_out(k, y[:, 0], noise=noise).mean.shape == (N,)
    torch.testing.assert_close(leave_one_out(2 * k, y, noise=noise, relative=True).mean, found.mean)  # of a diagonal of twos


def test_a_singular_gram_names_its_eigenvalue_condition_and_duplicates(problem: dict[str, Tensor]) -> None:
    x = problem["x"].clone()
    x[7] = x[3]
    k = rbf(x, x)
    with pytest.raises(
        KernelError, match=r"singular Gram matrix k_dd \(12 x 12\): smallest eigenvalue .*condition number"
    ) as error:
        posterior(k, problem["y"], problem["k_td"])
    assert "3 and 7 are alike" in str(error.value)
    assert "add noise" in str(error.value)
    suggested = float(str(error.value).split("noise=")[1].split(" ")[0])
    posterior(k, problem["y"], problem["k_td"], noise=suggested)


def test_a_pivot_that_is_rounding_is_refused_although_cholesky_succeeds() -> None:
    k = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 4e-16]], dtype=torch.float64)
    torch.linalg.cholesky(k)
    with pytest.raises(KernelError, match="singular Gram matrix"):
        posterior(k, torch.ones(2), k)


def test_an_indefinite_gram_is_told_from_a_singular_one(problem: dict[str, Tensor]) -> None:
    k = problem["k_dd"] - 0.7 * torch.eye(N, dtype=torch.float64)
    for jitter in (0.0, "auto"):
        with pytest.raises(KernelError, match="indefinite Gram matrix"):
            posterior(k, problem["y"], problem["k_td"], jitter=jitter)


def test_jitter_comes_only_when_asked_and_is_reported(problem: dict[str, Tensor]) -> None:
    x = problem["x"].clone()
    x[7] = x[3]
    y = problem["y"].clone()
    y[7] = y[3]
    k = rbf(x, x)
    found = posterior(k, y, k, jitter="auto")
    assert 0 < found.jitter < 1e-9
    assert f"jitter {found.jitter:.1e}" in str(found)
    torch.testing.assert_close(found.mean, y, rtol=0, atol=1e-5)
    assert posterior(k, y, k, jitter=1e-3).jitter == 1e-3
    assert posterior(problem["k_dd"], y, k, jitter="auto").jitter == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"k_dd": torch.ones(3, 4)}, "expected a square matrix"),
        ({"k_dd": torch.eye(N - 1)}, "expected one for 12 training samples"),
        ({"k_dd": torch.eye(N) + torch.triu(torch.ones(N, N), 1)}, "not symmetric"),
        ({"k_dd": torch.eye(N) * torch.nan}, "not finite"),
        ({"k_td": torch.ones(N, M)}, r"got k_td of shape \(12, 5\).*transpose"),
        ({"k_td": torch.full((M, N), torch.inf)}, "k_td with 60 values that are not finite"),
        ({"k_tt": torch.eye(M + 1)}, "got k_tt"),
        ({"k_tt": torch.ones(M + 1)}, "got k_tt"),
        ({"y": torch.zeros(N - 1, K)}, "expected one for 11 training samples"),
        ({"y": torch.zeros(N, K, 1)}, r"expected \(N,\) or \(N, K\)"),
        ({"y": torch.full((N, K), torch.nan)}, "y with 36 values"),
        ({"y": torch.zeros(0)}, "at least one sample"),
        ({"y": "labels"}, "got y of type str"),
        ({"noise": -0.1}, "expected a variance"),
        ({"noise": torch.ones(N + 1)}, "one a sample"),
        ({"jitter": "some"}, "expected a number that is zero or positive, or 'auto'"),
        ({"jitter": -1.0}, "expected a number that is zero or positive"),
    ],
)
def test_bad_input_is_refused_in_words(problem: dict[str, Tensor], change: dict, complaint: str) -> None:
    given = {n: problem[n] for n in ("k_dd", "y", "k_td", "k_tt")} | {"noise": 0.1} | change
    with pytest.raises(LazyrichError, match=complaint):
        posterior(**given)


def test_the_rounding_of_a_float32_gram_is_not_learnt_from() -> None:
    x = torch.linspace(0, 1, 60, dtype=torch.float64)[:, None]
    k, y = rbf(x, x).float(), x[:, 0].sin()
    with pytest.raises(KernelError, match="singular Gram matrix .*compute it in float64 or ask for jitter"):
        posterior(k, y, k)
    new = torch.linspace(0.003, 0.99, 40, dtype=torch.float64)[:, None]
    limit = gradient_flow(k, y, rbf(new, x))
    assert float((limit.test - new[:, 0].sin()).abs().max()) < 1e-3


def test_lists_are_taken_for_tensors() -> None:
    found = posterior([[2.0, 1.0], [1.0, 2.0]], [1, 2], [[1.0, 1.0]])
    assert found.mean.tolist() == pytest.approx([1.0])


def test_a_float32_gram_with_its_rounding_is_taken(problem: dict[str, Tensor]) -> None:
    k = problem["k_dd"].float()
    k[0, 1] *= 1 + 1e-6
    found = posterior(k, problem["y"].float(), problem["k_td"].float(), noise=0.1)
    assert found.mean.dtype == torch.float64
    wanted = posterior(problem["k_dd"], problem["y"], problem["k_td"], noise=0.1).mean
    torch.testing.assert_close(found.mean, wanted, rtol=0, atol=1e-4)


def test_a_diagonal_by_sample_is_that_of_every_output(problem: dict[str, Tensor]) -> None:
    between = torch.tensor([[1.0, 0.3, 0.0], [0.3, 1.0, 0.2], [0.0, 0.2, 1.0]], dtype=torch.float64)
    k_dd, k_td = (torch.einsum("ij,kl->ikjl", problem[name], between) for name in ("k_dd", "k_td"))
    alone = torch.arange(1.0, M + 1, dtype=torch.float64)
    found = posterior(k_dd, problem["y"], k_td, alone, noise=0.1).variance
    torch.testing.assert_close(found, posterior(k_dd, problem["y"], k_td, alone[:, None].expand(M, K), noise=0.1).variance)
    assert bool((found[-1] > found[0] + 3).all())
