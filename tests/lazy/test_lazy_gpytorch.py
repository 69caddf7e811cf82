"""The GPyTorch kernel: equal to the kernel it wraps, with exact gradients, learning under GPyTorch's own training."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import KernelError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lazyrich.lazy import gaussian_process
    from lazyrich.lazy.gaussian_process import NetworkKernel

    try:
        import gpytorch
    except ImportError:
        gpytorch = None

needs = pytest.mark.skipif(gpytorch is None, reason="gpytorch is not installed (the extra gp)")
X = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))


def test_without_gpytorch_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(gaussian_process, "Positive", None)
    with pytest.raises(KernelError, match=r"pip install -e 'path/to/lazyrich\[gp\]'"):
        NetworkKernel(net())


@needs
@pytest.mark.parametrize("get", ["nngp", "ntk"])
def test_it_is_the_kernel_of_the_network(get):
    kernel = NetworkKernel(net(), get=get, w=1.5, b=0.2).double()
    expected = lzr.kernel(net(), init=lzr.init.variance(1.5, 0.2))
    torch.testing.assert_close(kernel(X).to_dense(), expected(X, get=(get,))[0])
    torch.testing.assert_close(kernel(X, X[:4]).to_dense(), expected(X, X[:4], get=(get,))[0])
    torch.testing.assert_close(kernel(X, diag=True), expected.diagonal(X, get))
    torch.testing.assert_close(kernel(X[:4], X[3:], diag=True), expected(X[:4], X[3:], get=(get,))[0].diagonal())


@needs
def test_gradients_of_the_variances_are_exact():
    kernel = NetworkKernel(net(), w=1.5, b=0.2).double()
    total = kernel(X[:4], X[4:]).to_dense().sum()
    slopes = torch.autograd.grad(total, [kernel.raw_w, kernel.raw_b])
    for raw, slope in zip((kernel.raw_w, kernel.raw_b), slopes, strict=True):
        ends = []
        for h in (1e-5, -2e-5):
            with torch.no_grad():
                raw += h
                ends.append(float(kernel(X[:4], X[4:]).to_dense().sum()))
        raw.data += 1e-5
        assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


@needs
def test_a_gaussian_process_learns_them():
    class Process(gpytorch.models.ExactGP):
        def __init__(self, x, y, likelihood):
            super().__init__(x, y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = gpytorch.kernels.ScaleKernel(NetworkKernel(net(), w=1.0, b=0.5))

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    y = torch.sin(2 * X[:, 0])
    likelihood = gpytorch.likelihoods.GaussianLikelihood()
    model = Process(X, y, likelihood).double()
    likelihood.double()
    model.train()
    goal = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    kernel = model.covar_module.base_kernel
    before, values = (kernel.w.item(), kernel.b.item()), []
    for _ in range(15):
        optimizer.zero_grad()
        loss = -goal(model(X), y)
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0]
    assert all(abs(a - b) > 1e-3 for a, b in zip(before, (kernel.w.item(), kernel.b.item()), strict=True))
    assert "raw_w" in {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    assert not any("network" in name or "weight" in name for name, _ in model.named_parameters())
    model.eval()
    with torch.no_grad():
        assert torch.isfinite(model(X[:3] + 0.1).mean).all()


@needs
def test_what_it_refuses_and_what_stays_fixed():
    with pytest.raises(KernelError, match="expected 'nngp' or 'ntk'"):
        NetworkKernel(net(), get="rbf")
    with pytest.raises(KernelError, match="learn=True with get='ntk'"):
        NetworkKernel(net(), get="ntk", learn=True)
    with pytest.raises(KernelError, match="batch axes"):
        NetworkKernel(net()).forward(X[None], X[None])
    assert [name for name, _ in NetworkKernel(net(), b=0.0).named_parameters()] == ["raw_w"]
    assert list(NetworkKernel(net(), learn=False).parameters()) == []


def evaluated(**given):
    kernel = NetworkKernel(net(), w=1.5, b=0.2, **given).double()
    return kernel, kernel(X).to_dense()


@needs
@pytest.mark.parametrize("again", [copy.deepcopy, lambda k: pickle.loads(pickle.dumps(k))], ids=["copy", "pickle"])
def test_it_is_copied_and_pickled_after_an_evaluation(again):
    kernel, before = evaluated()
    twin = again(kernel)
    torch.testing.assert_close(twin(X).to_dense(), before)
    twin.w = 3.0
    assert kernel.w.item() == pytest.approx(1.5)


def test_a_kernel_is_copied_and_pickled_after_an_evaluation():
    kernel = lzr.kernel(net(), init=lzr.init.variance(1.5, 0.2))
    before = kernel.nngp(X)
    torch.testing.assert_close(pickle.loads(pickle.dumps(kernel)).nngp(X), before)
    torch.testing.assert_close(copy.deepcopy(kernel).nngp(X), before)


@needs
def test_a_posterior_takes_new_samples_without_a_word():
    class Process(gpytorch.models.ExactGP):
        def __init__(self, x, y, likelihood):
            super().__init__(x, y, likelihood)
            self.mean_module, self.covar_module = gpytorch.means.ZeroMean(), NetworkKernel(net(), w=1.5, b=0.2)

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    y = torch.sin(2 * X[:, 0])
    model = Process(X[:5], y[:5], gpytorch.likelihoods.GaussianLikelihood().double()).double().eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model(X)
        grown, whole = model.get_fantasy_model(X[5:], y[5:]), model
        whole.set_train_data(X, y, strict=False)
        torch.testing.assert_close(grown(X + 0.1).mean, whole(X + 0.1).mean, rtol=1e-6, atol=1e-8)


@needs
def test_its_variances_are_set_and_features_chosen_as_gpytorch_does():
    kernel, _ = evaluated()
    assert kernel.initialize(w=1.2).w.item() == pytest.approx(1.2)
    kernel.w, kernel.b = 2.0, torch.tensor(0.3)
    expected = lzr.kernel(net(), init=lzr.init.variance(2.0, 0.3))
    torch.testing.assert_close(kernel(X).to_dense(), expected.nngp(X))
    fixed = NetworkKernel(net(), "ntk").double()
    fixed.b = 0.0
    torch.testing.assert_close(fixed(X).to_dense(), lzr.kernel(net(), init=lzr.init.variance(2.0, 0.0)).ntk(X))
    some = NetworkKernel(net(), w=2.0, b=0.3, active_dims=(4, 0, 1)).double()
    wide = torch.cat([X[:, 1:], X, X[:, :1]], 1)
    torch.testing.assert_close(some(wide).to_dense(), expected.nngp(wide[:, [4, 0, 1]]))


@needs
@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: NetworkKernel(net(), input_shape=3), "got input_shape 3, expected the shape of one sample"),
        (
            lambda: NetworkKernel(net(), input_shape=(2, 2))(X).to_dense(),
            r"got 3 features and input_shape \(2, 2\), expected 4",
        ),
        (lambda: NetworkKernel(nn.Conv1d(1, 2, 2), input_shape=(1, 3))(X).to_dense(), r"outputs at \(2,\) positions"),
        (lambda: NetworkKernel(nn.Conv1d(1, 2, 2), input_shape=(1, 3))(X, diag=True), r"outputs at \(2,\) positions"),
        (lambda: NetworkKernel(net()).initialize(w=0.0), "got w = 0, expected a variance: finite and positive"),
        (lambda: NetworkKernel(net()).initialize(w="a"), "got w = 'a', expected a variance: finite and positive"),
        (lambda: NetworkKernel(net(), w="a"), "got w = 'a', expected a number that is finite"),  # pyrefly: ignore
        (lambda: NetworkKernel(net(), b=float("nan")), "got b = nan, expected a number that is finite and not negative"),
        (lambda: NetworkKernel(net(), batch_shape=torch.Size([2])), "make one kernel a batch"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(ask, says):
    with pytest.raises(KernelError, match=says):
        ask()
