"""Hyper-parameters found again from functions that were drawn with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import lazyrich as lzr
from lazyrich.errors import KernelError
from lazyrich.inference import fit_hyperparameters, log_marginal

N = 60
X = torch.randn(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LINEAR = X @ X.T / 2


def kernel(sigma_w2: Tensor, sigma_b2: Tensor, depth: int = 1) -> Tensor:
    """A deep rectifier network at infinite width (arc-cosine recursion)."""
    k = sigma_b2 + sigma_w2 * LINEAR
    for _ in range(depth):
        q = k.diagonal().sqrt()
        c = (k / torch.outer(q, q)).clamp(-1 + 1e-12, 1 - 1e-12)
        k = sigma_b2 + sigma_w2 * torch.outer(q, q) * (torch.sqrt(1 - c**2) + (torch.pi - torch.acos(c)) * c) / (2 * torch.pi)
    return k


def drawn(noise: float, outputs: int, depth: int = 1) -> Tensor:
    k = kernel(torch.tensor(1.7), torch.tensor(0.2), depth).double() + noise * torch.eye(N).double()
    return torch.linalg.cholesky(k) @ torch.randn(N, outputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


START = {"sigma_w2": 0.6, "sigma_b2": 1.0, "noise": 0.5}


def test_the_search_finds_a_maximum_near_the_truth() -> None:
    y = drawn(noise=0.05, outputs=20)
    fit = fit_hyperparameters(kernel, START, y)
    assert fit.converged
    assert fit.at_bound == ()
    assert fit.values["noise"] == pytest.approx(0.05, rel=0.15)
    assert fit.values["sigma_w2"] == pytest.approx(1.7, rel=0.2)

    def value(**given: float) -> float:
        noise = given.pop("noise")
        return float(log_marginal(kernel(**{n: torch.tensor(v).double() for n, v in given.items()}), y, noise))

    best = value(**fit.values)
    assert best == pytest.approx(fit.log_marginal, abs=1e-6)
    assert best > value(**START)
    for name in START:
        for factor in (0.98, 1.02):
            assert value(**{**fit.values, name: factor * fit.values[name]}) < best


@pytest.mark.parametrize("detached", ["all", "sigma_b2"])
def test_a_kernel_without_gradients_is_searched_by_differences(detached: str) -> None:
    y = drawn(noise=0.05, outputs=5)

    def blind(sigma_w2: Tensor, sigma_b2: Tensor) -> Tensor:
        return kernel(sigma_w2, sigma_b2.detach()) if detached != "all" else kernel(sigma_w2, sigma_b2).detach()

    seen, unseen = (fit_hyperparameters(k, START, y) for k in (kernel, blind))
    assert unseen.log_marginal == pytest.approx(seen.log_marginal, abs=1e-3)


def test_differences_of_a_kernel_in_single_precision_step_over_its_rounding() -> None:
    x = torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None]
    y = torch.sin(2 * x[:, 0]) + 0.2 * torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def bell(w: Tensor, reach: Tensor) -> Tensor:
        return w * torch.exp(-((x - x.T) ** 2) / 2 / reach**2)

    start = {"w": 1.0, "reach": 1.0, "noise": 0.1}
    seen = fit_hyperparameters(bell, start, y)
    unseen = fit_hyperparameters(lambda w, reach: bell(w, reach).detach().float(), start, y)
    assert unseen.values == pytest.approx(seen.values, rel=0.01)


@pytest.mark.parametrize(("below", "step"), [(0.0, 0.0), (1e-6, 1e-4)])
def test_the_jitter_of_a_singular_gram_is_a_part_of_the_gradient(below: float, step: float) -> None:
    """Of rank 4 without noise, the targets' likelihood is decided by the jitter, which grows as the Gram does."""
    x, y = torch.cat([X, X[:, :1] ** 2], 1)[:20], torch.randn(20, generator=torch.Generator().manual_seed(2)).double()

    def gram(w: Tensor) -> Tensor:
        return w * (x @ x.T + 1 - below * torch.eye(20))

    def value(w: Tensor | float) -> Tensor:
        return log_marginal(gram(torch.as_tensor(w, dtype=torch.float64)), y, jitter="auto")

    w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(w), w)
    # a factor of two rounds nothing, where a small step would be lost in the rounding; the likelihood falls as 1/w there
    want = (value(1 + step) - value(1 - step)) / (2 * step) if step else 2 * (value(2.0) - value(1.0))
    assert float(gradient) == pytest.approx(float(want), rel=1e-4 if step else 1e-2)
    fit = fit_hyperparameters(gram, {"w": 1.0}, y, bounds={"w": (0.1, 1e3)})
    assert fit.at_bound == ("w",), "not the start"
    assert fit.values["w"] == pytest.approx(1e3)


def test_the_grid_finds_the_depth_and_lists_every_combination() -> None:
    y = drawn(noise=0.01, outputs=20, depth=3)
    fit = fit_hyperparameters(kernel, START, y, grid={"depth": [0, 1, 3]})
    assert fit.values["depth"] == 3
    assert [row["depth"] for row in fit.rows()] == [3, 1, 0]
    assert [row["log_marginal"] for row in fit.rows()] == sorted((r["log_marginal"] for r in fit.rows()), reverse=True)
    assert "depth 3" in str(fit)


def test_a_bound_that_is_reached_is_named() -> None:
    fit = fit_hyperparameters(kernel, START, drawn(0.05, 5), bounds={"noise": (0.3, 2.0)})
    assert fit.at_bound == ("noise",)
    assert fit.values["noise"] == pytest.approx(0.3)
    assert "at its bound: noise" in str(fit)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"start": {}}, "no hyper-parameters"),
        ({"start": {"sigma_w2": 0.0}}, "sigma_w2 = 0.0 to start from"),
        ({"bounds": {"depth": (1, 2)}}, "got bounds for 'depth'"),
        ({"bounds": {"noise": (0.0, 2)}}, "0 < low < high"),
        ({"grid": {"noise": [1]}}, "got grid 'noise'"),
        ({"grid": {"depth": []}}, "got grid 'depth'"),
        ({"y": torch.ones(N - 1)}, "expected one for 59 training samples$"),
        ({"y": torch.full((N,), torch.nan)}, r"got y with 60 values that are not finite .*expected numbers$"),
        ({"kernel_fn": lambda **_: X}, "expected a square matrix with a row a sample$"),
        ({"kernel_fn": lambda **_: LINEAR.triu()}, "not symmetric.*with themselves$"),
        ({"kernel_fn": lambda **_: -LINEAR}, "an indefinite Gram matrix.*this was at sigma_w2 0.6, .*: pass bounds="),
        ({"kernel_fn": lambda **_: LINEAR * torch.inf}, "not finite.*: pass bounds="),
        ({"kernel_fn": lambda sigma_w2: LINEAR}, r"kernel_fn\(sigma_w2\) to call with sigma_w2, sigma_b2 .*rename them"),
        ({"kernel_fn": lambda sigma_w2, sigma_b2, width: LINEAR}, "missing a required argument: 'width'"),
        ({"kernel_fn": LINEAR}, "got kernel_fn Tensor, expected a function of sigma_w2, sigma_b2"),
        ({"grid": {"depth": 3}}, r"got grid 'depth' = 3, expected a list of the values to try; pass \[3\] for one"),
        ({"bounds": {"noise": 3.0}}, r"got bounds 3.0 for 'noise', expected a pair \(low, high\)"),
        ({"bounds": {"noise": (1.0, None)}}, r"got bounds \(1.0, None\) for 'noise'"),
        ({"start": {"sigma_w2": "one"}}, "sigma_w2 = one to start from"),
        ({"kernel_fn": lambda **_: torch.tensor(torch.nan)}, r"got a Gram of shape \(\) from kernel_fn"),
        ({"max_iterations": "9"}, "got max_iterations = '9', expected a whole number"),
        ({"max_iterations": -1}, "got max_iterations = -1"),
        ({"start": [1.0]}, r"got start=\[1.0\], expected a dictionary"),
        ({"jitter": -1.0}, "got jitter -1.0, expected a number that is zero or positive, or 'auto'$"),
    ],
)
def test_bad_searches_are_refused_in_words(change: dict, complaint: str) -> None:
    with pytest.raises(KernelError, match=complaint):
        fit_hyperparameters(**({"kernel_fn": kernel, "start": START, "y": torch.ones(N)} | change))


@pytest.mark.parametrize("outside", [lambda k, w: k + w, lambda k, w: (1 + w) * k], ids=["sum", "product"])
def test_a_kernel_that_would_lose_a_part_of_the_gradient_is_searched_by_differences(outside) -> None:
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    y = drawn(noise=0.05, outputs=5)

    def traced(w: Tensor) -> Tensor:
        return outside(lzr.kernel(net, init=lzr.init.variance(w, 0.1)).nngp(X), w) + 0.05 * torch.eye(N).double()

    fit = fit_hyperparameters(traced, {"w": 0.5}, y)
    near = [float(log_marginal(traced(torch.tensor(fit.values["w"] * f)), y, jitter="auto")) for f in (0.97, 1.03)]
    assert fit.converged
    assert max(near) < fit.log_marginal
