"""Products with the tangent kernel, and kernels of hidden features, against whole matrices."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import TangentError
from lazyrich.inference import conjugate_gradients, density, top_eigenpairs
from lazyrich.tangent import NtkOperator, contracted, feature_kernel, features, higher_kernels, ntk_of

DOUBLE = torch.float64


def dense():
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 3)).to(DOUBLE)


def matrix(model, x, **options):
    theta = ntk_of(model, x, **options).transpose(1, 2)
    return theta.reshape(theta.shape[0] * theta.shape[1], -1)


@pytest.mark.parametrize("block", [2, 5, 100])
def test_products_are_those_of_the_matrix_whatever_the_block(block):
    model, x, v = dense(), torch.randn(7, 4, dtype=DOUBLE), torch.randn(21, 2, dtype=DOUBLE)
    assert torch.allclose(NtkOperator(model, x, block=block).matvec(v), matrix(model, x) @ v, rtol=1e-10)


def test_inputs_that_are_differentiated_elsewhere_are_constants_here():
    model, x = nn.Sequential(nn.Linear(4, 3), nn.PReLU(), nn.Linear(3, 2)).to(DOUBLE), torch.randn(5, 4, dtype=DOUBLE)
    live = x.clone().requires_grad_()
    for kernel in (
        lambda x: ntk_of(model, x),
        lambda x: NtkOperator(model, x).matvec(torch.eye(10, dtype=DOUBLE)),
        lambda x: contracted(model, x, torch.ones(5, 2)),
        lambda x: contracted(model, x, torch.ones(5, 2), keep=2),
        lambda x: feature_kernel(model, x)["1"],
        lambda x: top_eigenpairs(NtkOperator(model, x), 2)[0],
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Converting a tensor")
            found = kernel(live)
        assert not found.requires_grad
        assert torch.equal(found, kernel(x))


class Waves(nn.Module):
    """Random features that are drawn anew, and alike, at each run."""

    def __init__(self):
        super().__init__()
        self.readout = nn.Linear(6, 2)

    def forward(self, x):
        drawn = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        return self.readout((x @ drawn).cos()).tanh()


def test_a_network_may_draw_from_a_generator_of_its_own():
    model, x = Waves().to(DOUBLE), torch.randn(3, 4, dtype=DOUBLE)
    want = matrix(model, x)
    assert torch.allclose(NtkOperator(model, x).matvec(torch.eye(6, dtype=DOUBLE)), want, rtol=1e-10)
    found, r = higher_kernels(model, x), torch.randn(3, 2, dtype=DOUBLE)
    assert torch.allclose(found.k2, want, rtol=1e-10)
    assert torch.allclose(torch.einsum("abc,b,c->a", found.k3, r.flatten(), r.flatten()), contracted(model, x, r).flatten())


def test_a_tensor_that_is_not_used_counts_nothing_in_any_block():
    model, x, v = nn.Linear(4, 3).to(DOUBLE), torch.randn(7, 4, dtype=DOUBLE), torch.randn(21, 2, dtype=DOUBLE)
    want = NtkOperator(model, x).matvec(v)
    model.unused = nn.Parameter(torch.ones(5, dtype=DOUBLE))
    assert torch.allclose(NtkOperator(model, x, block=np.int64(2)).matvec(v), want, rtol=1e-10)


def test_rates_weigh_the_tensors():
    model, x, v = dense(), torch.randn(5, 4, dtype=DOUBLE), torch.randn(15, 1, dtype=DOUBLE)
    rates = {"0.weight": 0.25, "3.bias": 0.0}
    assert torch.allclose(NtkOperator(model, x, rates).matvec(v), matrix(model, x, rates=rates) @ v, rtol=1e-10)


def test_a_convolution_with_attention_like_products_and_float32():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(16, 2))
    x, v = torch.randn(6, 1, 4, 4), torch.randn(12, 1, dtype=DOUBLE)
    wide = matrix(model.to(DOUBLE), x.double()) @ v
    assert torch.allclose(NtkOperator(model.float(), x).matvec(v), wide, rtol=1e-4, atol=1e-4)


def test_eigenpairs_density_and_solutions_need_no_matrix():
    model, x = dense(), torch.randn(12, 4, dtype=DOUBLE)
    theta, operator = matrix(model, x), NtkOperator(model, x)
    exact = torch.linalg.eigvalsh(theta).flip(0)
    assert torch.allclose(top_eigenpairs(operator, 4)[0], exact[:4], rtol=1e-9)
    trace, error = density(operator, probes=20, steps=10).trace()
    assert abs(trace - float(exact.sum())) < 4 * error < 0.5 * trace
    y = torch.randn(36, 1, dtype=DOUBLE)
    solved = conjugate_gradients(operator, y, noise=0.5)
    assert torch.allclose((theta + 0.5 * torch.eye(36, dtype=DOUBLE)) @ solved.x, y, atol=1e-4)


def test_gauss_newton_has_the_kernels_eigenvalues():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(DOUBLE), torch.randn(3, 3, dtype=DOUBLE)
    operator = NtkOperator(model, x)
    rows = operator.pull(torch.eye(6, dtype=DOUBLE))
    j = torch.cat([g.flatten(1) for g in rows.values()], 1)
    gauss_newton = torch.linalg.eigvalsh(j.T @ j).flip(0)
    assert torch.allclose(gauss_newton[:6], torch.linalg.eigvalsh(matrix(model, x)).flip(0), rtol=1e-8)
    assert float(gauss_newton[6:].abs().max()) < 1e-10


def test_feature_kernels_tend_to_the_infinite_ones():
    x = torch.randn(6, 5, dtype=DOUBLE)
    apart = []
    for width in (64, 1024):
        draws = []
        for seed in range(8):
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)).to(
                DOUBLE
            )
            limit = lzr.kernel(net[:3]).nngp(x)
            draws.append(float((feature_kernel(net, x, layers=["2"])["2"] - limit).norm() / limit.norm()))
        apart.append(sum(draws) / len(draws))
    assert apart[1] < 0.45 * apart[0] < 0.2


def test_features_are_the_layers_outputs_and_the_model_keeps_no_hook():
    model = nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2))
    x = torch.randn(4, 1, 4)
    found = features(model, x)
    assert list(found) == ["0", "1", "2", "3"]
    assert torch.allclose(found["1"], model[1](model[0](x)))
    assert not any(m._forward_hooks for m in model.modules())
    both = feature_kernel(model, x, x[:2])
    assert torch.allclose(both["3"], model(x) @ model(x[:2]).T / 2)


def test_complex_features_are_pairs_of_real_ones():
    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.waves, self.b = nn.Linear(3, 4), nn.Identity(), nn.Linear(3, 2)

        def forward(self, x):
            return self.b(self.waves(torch.fft.rfft(self.a(x))).abs())

    model, x = Waves(), torch.randn(4, 3)
    h = torch.fft.rfft(model.a(x)).detach()
    found = feature_kernel(model, x, layers=["waves"])["waves"]
    torch.testing.assert_close(found, (h @ h.mH).real / 3)


def test_what_does_not_fit_is_refused():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(3, 4)
    twice = nn.Sequential(model[0], model[1], model[0])
    with pytest.raises(TangentError, match="'nope'.*0, 1"):
        features(model, x, layers=["nope"])
    with pytest.raises(TangentError, match="2 outputs"):
        features(twice, x, layers=["0"])
    assert list(features(twice, x)) == ["1"]
    with pytest.raises(TangentError, match=r"does not take x2 of shape \(3, 2\)"):
        feature_kernel(model, x, x[:, :2])
    with pytest.raises(TangentError, match="'4.weight'"):
        NtkOperator(model, x, rates={"4.weight": 1.0})
    with pytest.raises(TangentError, match="got block = 0, expected a whole number of at least 1"):
        NtkOperator(model, x, block=0)
    with pytest.raises(TangentError, match="mixes"):
        NtkOperator(nn.BatchNorm1d(4), x)


def test_features_on_inputs_of_two_sizes_are_refused():
    net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.AdaptiveAvgPool1d(1))
    with pytest.raises(TangentError, match=r"outputs \(2, 4\) of layer '0' on x1 and \(2, 6\) on x2"):
        feature_kernel(net, torch.randn(4, 1, 6), torch.randn(3, 1, 8))
    assert feature_kernel(net, torch.randn(4, 1, 6), torch.randn(3, 1, 8), layers=["1"])["1"].shape == (4, 3)


def test_features_of_a_compiled_network_go_by_its_own_names():
    net, x = dense(), torch.randn(3, 4, dtype=DOUBLE)
    compiled = torch.compile(net, backend="eager")
    assert list(features(compiled, x)) == list(features(net, x))
    assert set(ntk_of(compiled, x, per="layer")) < set(feature_kernel(compiled, x))


def test_vectors_of_whole_numbers_and_arrays_are_refused():
    with pytest.raises(TangentError, match="torch.int64, expected real numbers"):
        NtkOperator(nn.Linear(3, 1), torch.randn(4, 3)).matvec(torch.ones(4, 1, dtype=torch.long))
    with pytest.raises(TangentError, match="ndarray, expected a tensor; torch.as_tensor"):
        NtkOperator(nn.Linear(3, 1), torch.randn(4, 3)).matvec(torch.ones(4, 1).numpy())


def test_the_features_of_recurrent_layers_are_their_first_tensor_and_large_kernels_are_refused():
    layer = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(TangentError, match="kernels of 1 layers needs .* GiB; ask for fewer samples at a time"):
        feature_kernel(layer, torch.randn(100_000, 3))
    with pytest.raises(TangentError, match=r"expected a list of paths: \['0'\]"):
        features(layer, torch.randn(4, 3), "0")
