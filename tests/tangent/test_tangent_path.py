"""Parameters read where no record sees it: in functions with their own backward, in derivatives, without gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyrich.tangent import layer_alignment
from lazyrich.tangent.function import NetworkFunction
from lazyrich.tangent.ntk import ntk_of
from lazyrich.tangent.tape import probe


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, (g * x).sum(0)


class Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return F.linear(x, w, b)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w, g.T @ x, g.sum(0)


class Table(torch.autograd.Function):
    @staticmethod
    def forward(ctx, index, w):
        ctx.save_for_backward(index, w)
        return F.embedding(index, w)

    @staticmethod
    def backward(ctx, g):
        index, w = ctx.saved_tensors
        return None, torch.zeros_like(w).index_put((index,), g, accumulate=True)


class Apart(torch.autograd.Function):
    """Forward and context apart, which transforms of functions take."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, w):
        return x * w

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, (g * x).sum(0)


class Net(nn.Module):
    """Two layers, a gain and a table, and a function of them and the inputs."""

    def __init__(self, function):
        super().__init__()
        self.i, self.o, self.function = nn.Linear(4, 6), nn.Linear(6, 2), function
        self.w, self.table = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(7, 6))
        self.double()

    def units(self, x):
        return torch.tanh(self.o(torch.tanh(self.i(x)))).sum(-1)

    def forward(self, x):
        return self.function(self, x)


def force(net, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(net.units(x).sum(), x, create_graph=True)[0]


def rarely(net, x):
    """The gain is met by large samples alone."""
    h, large = net.i(x), (x[:, 0] > 3)[:, None]
    return net.o(torch.tanh(torch.where(large, Scale.apply(h, net.w), h) if large.any() else h))


CASES = {
    "scale": lambda net, x: net.o(torch.tanh(Scale.apply(net.i(x), net.w))),
    "dense": lambda net, x: net.o(torch.tanh(Dense.apply(x, net.i.weight, net.i.bias))),
    "table": lambda net, x: net.o(torch.tanh(Table.apply((3 * x.abs()).long().clamp(max=6), net.table)).mean(1)),
    "apart": lambda net, x: net.o(torch.tanh(Apart.apply(net.i(x), net.w))),
    "rarely": rarely,
    "force": force,
    "units and force": lambda net, x: net.units(x)[:, None] + force(net, x),
    "func.grad": lambda net, x: torch.func.grad(lambda z: net.units(z).sum())(x),
    "func.grad of a sample": lambda net, x: torch.func.vmap(torch.func.grad(net.units))(x),
    "func.vjp": lambda net, x: torch.func.vjp(net.units, x)[1](torch.ones(len(x)).to(x))[0],
    "func.jvp": lambda net, x: torch.func.jvp(lambda z: net.o(torch.tanh(net.i(z) * net.w)), (x,), (x,))[1],
    "a gradient of the weights": lambda net, x: torch.func.vmap(
        lambda z: F.linear(z, net.i.weight - torch.func.grad(lambda w: F.linear(z, w).tanh().sum())(net.i.weight))
    )(x),
}


def jacobians(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """(N, K, entries) by plain autograd, one output of one sample at a time."""
    tensors = dict(net.named_parameters())
    rows = [
        torch.autograd.grad(f, list(tensors.values()), retain_graph=True, allow_unused=True)
        for one in x
        for f in net(one[None])[0]
    ]
    found = zip(*rows, strict=True)
    return {
        name: torch.stack([torch.zeros_like(p).flatten() if g is None else g.flatten() for g in column]).unflatten(
            0, (len(x), -1)
        )
        for (name, p), column in zip(tensors.items(), found, strict=True)
    }


@pytest.mark.parametrize("name", CASES)
def test_kernels_are_those_of_explicit_jacobians(name):
    torch.manual_seed(0)
    net, x = Net(CASES[name]), torch.randn(20, 4, dtype=torch.float64)
    x[-1, 0] = 5.0  # beyond the samples on which a network is tried
    want = {tensor: torch.einsum("nkp,mlp->nmkl", j, j) for tensor, j in jacobians(net, x).items()}
    got = ntk_of(net, x, per="tensor", block=7)
    for tensor, kernel in want.items():
        torch.testing.assert_close(got[tensor], kernel, rtol=1e-10, atol=1e-10, msg=tensor)
    whole = sum(want.values())
    torch.testing.assert_close(ntk_of(net, x[:3], x[1:5]), whole[:3, 1:5], rtol=1e-10, atol=1e-10)
    diagonal = torch.einsum("nmkk->nmk", whole)
    torch.testing.assert_close(ntk_of(net, x, outputs="diagonal"), diagonal, rtol=1e-10, atol=1e-10)


def test_layers_are_aligned_with_what_a_function_with_its_own_backward_reads():
    torch.manual_seed(0)
    net, x = Net(CASES["dense"]), torch.randn(6, 4, dtype=torch.float64)
    plain = Net(lambda net, x: net.o(torch.tanh(net.i(x))))
    plain.load_state_dict(net.state_dict())
    y = torch.tensor([0, 1, 0, 1, 1, 0])
    got, want = layer_alignment(net, x, y).whole, layer_alignment(plain, x, y).whole
    assert got.centred == pytest.approx(want.centred) and got.speed == pytest.approx(want.speed)


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("scale", {"w"}),
        ("dense", {"i.weight", "i.bias"}),
        ("table", {"table"}),
        ("rarely", set()),
        ("force", {"i.weight", "i.bias", "o.weight", "o.bias"}),
    ],
)
def test_only_what_is_read_elsewhere_goes_through_autograd(name, unknown):
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert set(probe(NetworkFunction(Net(CASES[name])), x).unknown) == unknown


def test_what_is_read_without_gradient_alone_needs_none():
    def gated(net, x):
        with torch.no_grad():
            gate = torch.sigmoid(net.i(x)) * net.w
        return net.o(gate * torch.tanh(net.i(x)))

    x = torch.randn(6, 4, dtype=torch.float64)
    assert not probe(NetworkFunction(Net(gated)), x).unknown
    assert not ntk_of(Net(gated), x, per="tensor")["w"].any()
