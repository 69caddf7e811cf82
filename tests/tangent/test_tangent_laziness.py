"""The criterion of lazy training against explicit Jacobians and Hessians, and its exponents in the width."""

import math

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import TangentError
from lazyrich.family.zoo import MLP
from lazyrich.measure import fit_slope
from lazyrich.tangent import laziness


def network(outputs):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


def derivatives(net, x):
    """Jacobian (m, P) and Hessians (m, P, P) of the outputs by nested reverse mode."""
    names, sizes = zip(*((n, p.shape) for n, p in net.named_parameters()), strict=True)

    def f(flat):
        parts = flat.split([s.numel() for s in sizes])
        return torch.func.functional_call(
            net, {n: p.view(s) for n, p, s in zip(names, parts, sizes, strict=True)}, (x,)
        ).flatten()

    at = torch.cat([p.detach().flatten() for p in net.parameters()])
    return torch.func.jacrev(f)(at), torch.func.jacrev(torch.func.jacrev(f))(at)


def test_one_output_has_its_hessians_norm():
    net, x, y = network(1), torch.randn(1, 3).double(), torch.tensor([2.0]).double()
    jacobian, hessians = derivatives(net, x)
    found = laziness(net, x, y)
    assert found.slope == pytest.approx(float(jacobian.norm()), rel=1e-10)
    assert found.curvature == pytest.approx(float(torch.linalg.eigvalsh(hessians[0]).abs().max()), rel=2e-3)
    assert found.residual == pytest.approx(abs(float(net(x).detach()) - 2.0), rel=1e-12)
    assert found.kappa == pytest.approx(found.residual * found.curvature / found.slope**2)
    assert f"kappa = {found.kappa:.3g}" in str(found)


def test_several_outputs_have_the_norm_of_all_their_hessians():
    net, x = network(2), torch.randn(1, 3).double()
    _, hessians = derivatives(net, x)
    angles = torch.linspace(0, math.pi, 721, dtype=torch.float64)  # all r of length one, up to their sign
    all_r = torch.stack([angles.cos(), angles.sin()], 1)
    exact = torch.linalg.eigvalsh(torch.einsum("ab,bpq->apq", all_r, hessians)).abs().max()
    found = laziness(net, x, torch.zeros(1, 2))
    assert float(exact) * 0.998 < found.curvature < float(exact) * 1.0001


def test_rates_are_units_of_the_parameters():
    net, x, y = network(1), torch.randn(4, 3).double(), torch.ones(4)
    plain, faster = laziness(net, x, y), laziness(net, x, y, rates=dict.fromkeys(dict(net.named_parameters()), 9.0))
    assert faster.slope == pytest.approx(3 * plain.slope, rel=1e-9)
    assert faster.kappa == pytest.approx(plain.kappa, rel=1e-3)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (lzr.ntk(), -0.5),
        pytest.param(lzr.mup(), 0.0, marks=pytest.mark.slow),
        pytest.param(lzr.richness(0.25), -0.25, marks=pytest.mark.slow),
    ],
    ids=["ntk", "mup", "between"],
)
def test_exponents_in_the_width(scheme, expected):
    torch.manual_seed(0)
    x, y, widths = torch.randn(4, 6), torch.tensor([1.0, -1.0, 1.0, -1.0]), (32, 256)
    plan = lzr.plan(lzr.Family(lambda n: MLP(n, inputs=6, outputs=1, bias=False), base=32), scheme, "sgd")

    def kappa(width, seed):
        rates = {name: s.lr for name, s in plan.settings(width).items()}
        return laziness(plan.build(width, seed), x, y, rates=rates, centred=True, tries=0).kappa

    slope = fit_slope(widths, [[kappa(width, seed) for width in widths] for seed in range(2)])
    assert slope.value == pytest.approx(expected, abs=0.1), slope


def test_a_linear_network_is_lazy_and_what_nothing_moves_is_refused():
    assert laziness(nn.Linear(3, 1), torch.eye(3), torch.ones(3)).kappa == 0
    with pytest.raises(TangentError, match="no parameter moves the outputs"):
        laziness(nn.Linear(3, 1, bias=False), torch.zeros(2, 3), torch.ones(2))
    with pytest.raises(TangentError, match="got tries = -1"):
        laziness(nn.Linear(3, 1), torch.eye(3), torch.ones(3), tries=-1)
