"""Dense layers in a row: their passes written out against autograd's Jacobians, and what does not go that way."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lazyrich.errors import TangentError
from lazyrich.tangent.dense import dense_row, dense_signals
from lazyrich.tangent.ntk import ntk_of
from lazyrich.tangent.plain import ENTRYWISE


def tied() -> nn.Module:
    one = nn.Linear(5, 5)
    other = nn.Linear(5, 5)
    other.weight = one.weight
    return nn.Sequential(one, nn.Tanh(), one, nn.Tanh(), other)


def frozen(*which: str) -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    for name in which:
        net.get_parameter(name).requires_grad_(False)
    return net


NETWORKS = {
    "one layer": lambda: nn.Linear(5, 3),
    "layers without curves": lambda: nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 6), nn.Linear(6, 2)),
    "no biases": lambda: nn.Sequential(nn.Linear(5, 4, bias=False), nn.GELU(), nn.Linear(4, 2, bias=False)),
    "curves one after another": lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Softplus(), nn.Linear(4, 2)),
    "a curve at the end": lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.Sigmoid()),
    "rows within rows": lambda: nn.Sequential(nn.Sequential(nn.Linear(5, 4), nn.Identity()), nn.Flatten(), nn.Linear(4, 2)),
    "layers that share": tied,
    "no first layer": lambda: frozen("0.weight", "0.bias"),
    "a middle bias alone": lambda: frozen("0.weight", "0.bias", "2.weight", "4.weight", "4.bias"),
    "no readout": lambda: frozen("4.weight", "4.bias"),
} | {kind.__name__: lambda kind=kind: nn.Sequential(nn.Linear(5, 4), kind(), nn.Linear(4, 2)) for kind in ENTRYWISE}  # fmt: skip


def jacobians(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Of every tensor that trains, (N, K, entries); of a copy, as torch's own call leaves tied parameters untied."""
    net = copy.deepcopy(net)
    live = {name: p for name, p in net.named_parameters() if p.requires_grad}
    found = torch.func.jacrev(lambda p: torch.func.functional_call(net, p, (x,)))(live)
    return {name: j.flatten(2) for name, j in found.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_are_those_of_the_jacobians(name):
    torch.manual_seed(0)
    net, x, other = NETWORKS[name]().double(), torch.randn(7, 5).double(), torch.randn(4, 5).double()
    assert dense_row(net, dict(net.named_parameters()), x)  # it goes this way
    one, two = jacobians(net, x), jacobians(net, other)
    parts = ntk_of(net, x, other, per="tensor")
    assert set(parts) == set(one)
    for tensor, part in parts.items():
        torch.testing.assert_close(part, torch.einsum("nkp,mlp->nmkl", one[tensor], two[tensor]), rtol=1e-10, atol=1e-12)
    same = sum(torch.einsum("nkp,mlp->nmkl", j, j) for j in one.values())
    torch.testing.assert_close(ntk_of(net, x), same, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ntk_of(net, x, block=3), same, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ntk_of(net, x, outputs="trace"), same.diagonal(0, 2, 3).sum(-1), rtol=1e-10, atol=1e-12)


def test_signals_of_layers_below_which_nothing_trains_are_not_taken():
    net, x = frozen("0.weight", "0.bias", "2.weight", "2.bias"), torch.randn(3, 5)
    out, signals = dense_signals(dense_row(net, {"4.weight": net[4].weight}, x), x)
    torch.testing.assert_close(out, net(x).detach())
    assert [layer.names for layer, *_ in signals] == [("4.weight", None)]


def test_long_rows_of_signals_lose_no_digits_of_float32():
    """One product of 2^20 entries is off by some 1e-5."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(2, 2**16), nn.Linear(2**16, 16)), torch.rand(3, 2)
    net[1].weight.data.abs_()
    found, exact = (ntk_of(net.to(x.dtype), x, outputs="trace", per="tensor")["0.weight"] for x in (x, x.double()))
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    net[0].register_forward_hook(lambda module, given, out: 2 * out)
    return net


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "net",
    [
        hooked(), Doubled(5, 2), nn.Sequential(nn.Tanh(), nn.Linear(5, 2)), nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4)),
        nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True)), nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2).double()),
    ],
)  # fmt: skip
def test_other_networks_are_recorded(net):
    assert dense_row(net, dict(net.named_parameters()), torch.randn(3, 5)) == []


def test_inputs_that_do_not_fit_and_outputs_that_are_not_finite_are_refused():
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    with pytest.raises(TangentError, match=r"Sequential does not take x1 of shape \(3, 6\)"):
        ntk_of(net, torch.randn(3, 6))
    with pytest.raises(TangentError, match=r"Sequential does not take x2 of shape \(3, 6\)"):
        ntk_of(net, torch.randn(3, 5), torch.randn(3, 6))
    with pytest.raises(TangentError, match="x1 is torch.float64 but the parameters are torch.float32"):
        ntk_of(net, torch.randn(3, 5).double())
    net[2].bias.data.fill_(torch.inf)
    with pytest.raises(TangentError, match="Sequential gives outputs that are not finite"):
        ntk_of(net, torch.randn(3, 5))


def test_under_autocast_the_passes_are_recorded_in_its_precision():
    net, x = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert dense_row(net, dict(net.named_parameters()), x) == []
        rough = ntk_of(net, x)
    torch.testing.assert_close(rough, ntk_of(net, x), rtol=0.05, atol=0.05)
    assert not torch.equal(rough, ntk_of(net, x))


def test_the_network_stays_as_it_is():
    net, x = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(3, 5, requires_grad=True)
    before = {name: p.clone() for name, p in net.named_parameters()}
    kernel = ntk_of(net, x)
    assert not kernel.requires_grad and x.grad is None and all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
