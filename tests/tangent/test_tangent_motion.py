"""Derivatives along gradients, operation by operation, against nested derivatives of the network as a whole."""

import pytest
import torch
from motion_cases import Row
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lazyrich.errors import TangentError
from lazyrich.family.zoo import MLP, convnet
from lazyrich.tangent import contracted, contraction, higher, higher_kernels
from lazyrich.tangent.function import NetworkFunction
from lazyrich.tangent.motion import motion, moving_entries, moving_kernel
from lazyrich.tangent.motion.graph import READ, known_operations
from lazyrich.tangent.motion.norm import NORMS
from lazyrich.tangent.outputs import Outputs

EXACT = {"rtol": 1e-9, "atol": 1e-10}


class Tied(nn.Module):
    """One weight read twice, its transpose once, a skip and a gate of two that vary."""

    def __init__(self):
        super().__init__()
        self.inner, self.gate, self.bias = nn.Linear(3, 3), nn.Linear(3, 3), nn.Parameter(torch.randn(3))

    def forward(self, x):
        h = torch.tanh(self.inner(x))
        h = h + self.inner(h) * torch.sigmoid(self.gate(h))
        return torch.addmm(self.bias, h.sin(), self.inner.weight)


class Shifted(Row):
    """A vector that is added to all samples twice, and one that multiplies them."""

    def forward(self, x):
        return self.last(torch.add(self.first(x).tanh() @ self.second.weight.T * self.second.bias, self.second.bias, alpha=2))


class Attention(nn.Module):
    """Two heads, which read the samples' positions."""

    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.heads(x.tanh(), x, x, need_weights=False)[0]


class Positions(nn.Module):
    """Dense layers over positions, without and with biases, and their mean."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4, bias=False), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x))).mean(-2)


class Words(nn.Module):
    """Rows of a table, read by one head of attention with a mask, and read out with the same table."""

    def __init__(self):
        super().__init__()
        self.table, self.places = nn.Embedding(5, 4), nn.Parameter(torch.randn(3, 4))
        self.heads, self.out, self.norm = nn.Linear(4, 12), nn.Linear(4, 4), nn.RMSNorm(4)

    def forward(self, x):
        h = self.table(x) + self.places
        q, k, v = self.heads(self.norm(h)).split(4, -1)
        scores = (q @ k.mT / 2).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
        h = h + self.out(scores.softmax(-1) @ v)
        return h[:, -1] @ self.table.weight[:2].T


class Unbound(nn.Module):
    """Queries, keys and values of one layer, taken apart."""

    def __init__(self):
        super().__init__()
        self.heads = nn.Linear(4, 12)

    def forward(self, x):
        q, k, v = self.heads(x).unflatten(-1, (3, 4)).unbind(2)
        return F.scaled_dot_product_attention(q, k, v.sin())


def normed():
    first = (nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(), nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(4))
    model = nn.Sequential(
        *first, nn.Conv2d(4, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten()
    )
    nn.init.uniform_(model[4].running_mean), nn.init.uniform_(model[4].running_var, 1, 2), nn.init.uniform_(model[4].weight)
    return model


def pooled():
    layers = (nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 2, groups=2))
    return nn.Sequential(*layers, nn.Sigmoid(), nn.Flatten(), nn.Linear(4, 2, bias=False))


CURVES = {
    "tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "erf": torch.erf, "gelu": F.gelu, "silu": F.silu,
    "gelu by tanh": lambda h: F.gelu(h, approximate="tanh"), "softplus": lambda h: F.softplus(h, 2.0, 1.0), "elu": F.elu,
    "selu": F.selu, "leaky": lambda h: F.leaky_relu(h, 0.2), "sine": torch.sin, "cosine": torch.cos, "relu in place": torch.relu_,
    "clone": lambda h: h.clone().tanh(),
}  # fmt: skip
EVEN = torch.tensor([True, False, True, False, True])
SHAPES = {
    "times two": lambda h: h * 2, "plus one": lambda h: torch.tanh(h + 1), "two minus": lambda h: (2 - h).sin(),
    "narrow minus": lambda h: (EVEN[: h.shape[1]].double() - h[:, :1]).sin(),
    "minus": lambda h: torch.sub(h.sin(), h.cos(), alpha=3), "plus": lambda h: torch.add(h.sin(), h.cos(), alpha=-0.5),
    "constant plus": lambda h: torch.tanh(EVEN[: h.shape[1]] + h),
    "constant minus": lambda h: torch.tanh(EVEN[: h.shape[1]].double() - h),
    "constant times": lambda h: torch.tanh((1.0 + EVEN[: h.shape[1]]) * h), "ratio": lambda h: h / (1 + h * h),
    "by a number": lambda h: (h / 3**0.5).tanh(), "reciprocal": lambda h: (2 + h.sin()).reciprocal(), "power": lambda h: h**3,
    "half power": lambda h: (h * h + 0.5) ** 1.5, "roots": lambda h: (h * h + 0.5).sqrt(),
    "inverse roots": lambda h: (h * h + 1).rsqrt(),
    "exponential": torch.exp, "logarithm": lambda h: (h * h + 1).log(), "absolute": lambda h: h.abs() * h,
    "softmax": lambda h: 3 * h.softmax(-1), "negative": lambda h: (-h).tanh(), 
    "sum": lambda h: h * h.sum(-1, keepdim=True).tanh(),
    "sum of a square": lambda h: h / (1 + h.square().sum(1)).sqrt().unsqueeze(1),
    "mean": lambda h: h - h.mean(1, keepdim=True).exp(),
    "expand": lambda h: h * h[:, :1].expand(-1, h.shape[1]).sin(), "select": lambda h: h * h[:, -1].sin().unsqueeze(-1),
    "slices": lambda h: torch.cat([h[:, 1:].sin(), h[:, :1]], 1), "steps": lambda h: torch.cat([h[:, ::2].sin(), h[:, 1::2]], -1),
    "slices from behind": lambda h: h * h[:, -3:-1].sin().sum(1, keepdim=True),
    "masked rows": lambda h: h[:, :1].masked_fill(EVEN[: h.shape[1]], 0.3) * h.sin(),
    "two minus thrice": lambda h: torch.rsub(h, 2, alpha=3).sin(),
    "pieces": lambda h: torch.cat([t.sin() if i else t for i, t in enumerate(h.split(2, 1))], 1),
    "chunks": lambda h: torch.cat(h.sin().chunk(2, -1)[::-1], 1),
    "where": lambda h: torch.where(EVEN[: h.shape[1]], h.sin(), 2 * h),
    "where a number": lambda h: torch.where(EVEN[: h.shape[1]], h.sin(), 0.5) * h,
    "where a row": lambda h: torch.where(EVEN[: h.shape[1]], h.sin(), h[:, :1].exp()),
    "masked": lambda h: h.masked_fill(EVEN[: h.shape[1]], 0.3).sin(), "layer norm": lambda h: F.layer_norm(h, h.shape[1:]),
    "rms norm": lambda h: F.rms_norm(h, h.shape[1:]), "transposed": lambda h: h.unsqueeze(1).transpose(-1, 1).squeeze(2).tanh(),
    "permuted": lambda h: h.unflatten(1, (1, -1)).permute(2, 0, 1).sin().permute(1, 2, 0).flatten(1),
    "outer": lambda h: torch.bmm(h.unsqueeze(2), h.sin().unsqueeze(1)).mean((1, 2)).unsqueeze(1) * h,
    "its own": lambda h: h * h, "gate": lambda h: h * h.sigmoid(),
    "log softmax by hand": lambda h: h - h.exp().sum(1, keepdim=True).log(),
}  # fmt: skip
NETWORKS = {
    **{name: (lambda phi=phi: Row(phi), (3,)) for name, phi in (CURVES | SHAPES).items()},
    "shifted": (lambda: Shifted(torch.tanh), (3,)),
    "words": (Words, None),
    "encoder": (lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True), (3, 4)),
    "attention": (Attention, (3, 4)),
    "normed windows": (normed, (1, 8, 8)),
    "heads unbound": (Unbound, (3, 4)),
    "tied, gated, a skip": (Tied, (3,)),
    "positions": (Positions, (4, 3)),
    "windows": (pooled, (1, 8, 8)),
    "zoo's conv net": (lambda: convnet(3), (1, 4, 4)),
    "zoo's MLP": (lambda: MLP(5, 3, inputs=4, outputs=2), (2, 2)),
}


def case(name, samples=3):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    x = torch.randn(samples, *(shape or ()), dtype=torch.float64)
    return make().double().eval(), torch.randint(0, 5, (samples, 3)) if shape is None else x


def nested(model, x, r, order, straight=False, rates=None):
    outputs = Outputs(model, x, rates)
    return contraction._vector(outputs, outputs.cotangent(r), order, straight).reshape(outputs.shape)


def check(name, order, straight=False):
    model, x = case(name)
    function = NetworkFunction(model)
    r = torch.randn_like(model(x).flatten(1))
    rates = {name: 0.5 + i for i, name in enumerate(function.parameters)} | {list(function.parameters)[-1]: 0.0}
    moved, want = motion(function, x, r, order - 1, rates, straight), nested(model, x, r, order, straight, rates)
    scale = float(want.abs().max())
    assert scale > 1e-6
    torch.testing.assert_close(moved.outputs / scale, want / scale, **EXACT)
    torch.testing.assert_close(contracted(model, x, r, order, straight=straight, rates=rates), moved.outputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_highest_order_equals_nested_derivatives(name):
    check(name, 4)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("name", ["tanh", "relu", "softmax", "shifted", "normed windows", "tied, gated, a skip", "absolute"])
def test_every_order_equals_nested_derivatives(name, order, straight):
    check(name, order, straight)


def test_frozen_tensors_are_constant():
    model, x = case("tanh")
    model.second.weight.requires_grad_(False)
    model.first.bias.requires_grad_(False)
    r = torch.randn(3, 2, dtype=torch.float64)
    rates = dict.fromkeys(NetworkFunction(model).parameters, 1.0)
    torch.testing.assert_close(motion(NetworkFunction(model), x, r, 3, rates).outputs, nested(model, x, r, 4), **EXACT)
    model.second.bias.requires_grad_(False)
    for p in model.last.parameters():
        p.requires_grad_(False)
    rates = {"first.weight": 1.0}
    torch.testing.assert_close(motion(NetworkFunction(model), x, r, 2, rates).outputs, nested(model, x, r, 3), **EXACT)


def test_only_biases_or_only_a_readout_train():
    model, x = case("tanh")
    r = torch.randn(3, 2, dtype=torch.float64)
    for trained in (("first.bias",), ("last.weight",), ("last.bias",), ("first.bias", "last.weight")):
        for name, p in model.named_parameters():
            p.requires_grad_(name in trained)
        for order in (2, 3, 4):
            want = nested(model, x, r, order)
            got = motion(NetworkFunction(model), x, r, order - 1, dict.fromkeys(trained, 1.0)).outputs
            torch.testing.assert_close(got, want, **EXACT)
    assert float(want.abs().max()) > 1e-6


DENSE = ("times two", "plus one", "by a number", "gate", "its own")
KERNELS = [*CURVES, *DENSE, "zoo's MLP"]


class Shared(nn.Module):
    """A weight that is read twice, with its bias, a skip and a gate."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.gate, self.last = (
            nn.Linear(3, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 2, bias=False),
        )

    def forward(self, x):
        h = torch.tanh(self.first(x))
        h = torch.tanh(self.inner(h)) + torch.sigmoid(self.gate(h)) * self.inner(h.sin())
        return self.last(h + F.gelu(h))


NETWORKS["shared"] = (Shared, (3,))
KERNELS.append("shared")


def jacobians(model, x, r, times, rates=None):
    outputs = Outputs(model, x, rates)
    return contraction._ntk_derivatives(outputs, outputs.cotangent(r), times)


def test_rows_are_their_own_memory():
    found = contracted(nn.Linear(3, 2), torch.zeros(4, 3), torch.ones(4, 2), 2, rates={"weight": 0.0})
    found[0] = 0
    assert found.tolist() == [[0, 0], [4, 4], [4, 4], [4, 4]]


@pytest.mark.parametrize("name", KERNELS)
def test_every_derivative_of_the_kernel_equals_that_by_jacobians(name):
    model, x = case(name)
    r = torch.randn_like(model(x).flatten(1))
    function = NetworkFunction(model)
    rates = {name: 0.5 + i for i, name in enumerate(function.parameters)} | {list(function.parameters)[-1]: 0.0}
    for chosen in (rates, dict.fromkeys(rates, 1.0)):
        got = moving_kernel(motion(function, x, r, 2, chosen), chosen, 2)
        for order, (one, other) in enumerate(zip(got, jacobians(model, x, r, 2, chosen), strict=True)):
            scale = float(other.abs().max())
            assert scale > 1e-6
            torch.testing.assert_close(one / scale, other / scale, **EXACT)
            torch.testing.assert_close(contracted(model, x, r, order + 2, keep=2, rates=chosen), one)


@pytest.mark.parametrize("name", ["tied, gated, a skip", "positions", "windows"])
def test_kernels_of_other_reads_are_left_to_jacobians(name):
    model, x = case(name)
    r = torch.randn_like(model(x).flatten(1))
    rates = dict.fromkeys(NetworkFunction(model).parameters, 1.0)
    assert moving_kernel(motion(NetworkFunction(model), x, r, 1, rates), rates, 1) is None
    torch.testing.assert_close(contracted(model, x, r, 3, keep=2), jacobians(model, x, r, 1)[-1], **EXACT)


def test_frozen_tensors_have_no_part_in_a_moving_kernel():
    model, x = case("shared")
    model.inner.weight.requires_grad_(False)
    model.first.bias.requires_grad_(False)
    r = torch.randn_like(model(x).flatten(1))
    rates = dict.fromkeys(NetworkFunction(model).parameters, 1.0)
    got = moving_kernel(motion(NetworkFunction(model), x, r, 2, rates), rates, 2)
    for one, other in zip(got, jacobians(model, x, r, 2), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("name", ["tanh", "softplus", "gate", "shared"])
def test_whole_tensors_equal_those_entry_by_entry(name):
    model, x = case(name, samples=2)
    model.first.bias.requires_grad_(False)
    rates = {name: 0.5 + i for i, (name, p) in enumerate(model.named_parameters()) if p.requires_grad} | {"last.weight": 0.0}
    outputs = Outputs(model, x, rates)
    moving, slow = moving_entries(outputs.function, x, outputs.rates), higher._Entry(outputs)
    found = (moving.second(3), moving.third(4, 3), *moving.fourth(4, 3))
    want = (slow.second(3), slow.third(4, 3), *slow.fourth(4, 3))
    assert all(float(t.abs().max()) > 1e-6 for t in want)
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one, other.detach(), **EXACT)


@pytest.mark.parametrize("name", ["positions", "windows", "layer norm"])
def test_whole_tensors_of_other_networks_are_left_to_entries_one_by_one(name):
    model, x = case(name, samples=2)
    assert moving_entries(NetworkFunction(model), x, dict.fromkeys(NetworkFunction(model).parameters, 1.0)) is None


class Often(nn.Module):
    """A weight that is read many times."""

    def __init__(self, times):
        super().__init__()
        self.inner, self.times = nn.Linear(3, 3), times

    def forward(self, x):
        for _ in range(self.times):
            x = self.inner(x).sin()
        return x


@pytest.mark.parametrize("times", [8, 9])
def test_a_weight_that_is_read_very_often_is_left_to_jacobians(times):
    torch.manual_seed(0)
    model, x, r = Often(times).double(), torch.randn(2, 3).double(), torch.randn(2, 3).double()
    rates = dict.fromkeys(NetworkFunction(model).parameters, 1.0)
    found = moving_kernel(motion(NetworkFunction(model), x, r, 1, rates), rates, 1)
    assert (found is None) == (times > 8)


class Generated(nn.Module):
    """A weight that is made of others, by a curve, a sum, a reshape, or a product."""

    def __init__(self, make):
        super().__init__()
        self.first, self.weight, self.make = nn.Linear(3, 4), nn.Parameter(torch.randn(2, 4)), make

    def forward(self, x):
        return torch.tanh(self.first(x)) @ self.make(self.weight)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: torch.tanh(w).T, lambda w: torch.tanh(w.T), lambda w: w.reshape(4, 2), lambda w: (w + w.tanh()).T,
        lambda w: (w @ w.T @ w).T, lambda w: w.T.clone(),
    ],
)  # fmt: skip
def test_generated_weights_are_right_or_left_to_jacobians(make):
    torch.manual_seed(0)
    model, x = Generated(make).double(), torch.randn(3, 3).double()
    r = torch.randn(3, 2).double()
    for order in (2, 3, 4):
        torch.testing.assert_close(contracted(model, x, r, order), nested(model, x, r, order), **EXACT)
        torch.testing.assert_close(contracted(model, x, r, order, keep=2), jacobians(model, x, r, order - 2)[-1], **EXACT)


def test_a_leaf_that_is_no_parameter_is_not_known():
    weight, own = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    assert known_operations(torch.ones(3, 2) @ weight, {id(weight): "w"}) is not None
    assert known_operations(torch.ones(3, 2) @ weight @ own, {id(weight): "w"}) is None
    assert known_operations(torch.ones(3, 2), {}) is None


def test_a_value_changed_behind_it_is_not_known():
    weight = torch.ones(2, 2, requires_grad=True)
    h = (torch.ones(3, 2) @ weight).tanh()
    out = h.clone() @ weight
    h.detach().zero_()  # autograd's own backward pass refuses it
    assert known_operations(out, {id(weight): "w"}) is None


def test_the_dntk_contracts_as_the_whole_one_does():
    model, x = case("zoo's MLP")
    kernels, r = higher_kernels(model, x, order=4), torch.randn(3, 2, dtype=torch.float64)
    v = r.flatten()
    torch.testing.assert_close(contracted(model, x, r, straight=True).flatten(), kernels.dntk @ v @ v, **EXACT)
    torch.testing.assert_close(contracted(model, x, r, 4, straight=True).flatten(), kernels.ddntk_one @ v @ v @ v, **EXACT)


def test_the_dntk_of_other_networks_comes_by_nested_derivatives():
    torch.manual_seed(0)
    model, x = Row(lambda h: h.cumsum(1)).double(), torch.randn(3, 3).double()
    kernels, r = higher_kernels(model, x, order=3), torch.randn(3, 2, dtype=torch.float64)
    torch.testing.assert_close(
        contracted(model, x, r, straight=True).flatten(), kernels.dntk @ r.flatten() @ r.flatten(), **EXACT
    )


def test_a_straight_matrix_is_refused():
    model, x = case("tanh")
    with pytest.raises(TangentError, match=r"straight=True with keep=2.*higher_kernels"):
        contracted(model, x, torch.ones(3, 2).double(), keep=2, straight=True)


class Products(TorchDispatchMode):
    """How many products of matrices there are."""

    made = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.made += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
        return func(*args, **(kwargs or {}))


def test_a_second_order_repeats_no_product():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), torch.randn(8, 3)
    with Products() as products:
        motion(NetworkFunction(model), x, torch.ones(8, 2), 2, dict.fromkeys(NetworkFunction(model).parameters, 1.0))
    # values 3; gradients of layers 2, of weights 3; derivatives of values 1 + 2 + 2; of gradients of layers 1 + 2, as the
    # output's own is constant, and of weights 1 + 2 + 1; second ones of values 1 + 3 + 3
    assert products.made == 3 + 5 + 5 + 7 + 7


def test_every_reader_is_tried():
    seen = set()
    for name in NETWORKS:
        model, x = case(name)
        function = NetworkFunction(model)
        live = {name: p.detach().requires_grad_() for name, p in function.parameters.items()}
        operations = known_operations(function(live, x), {id(p): name for name, p in live.items()})
        seen |= {(at[0] if isinstance(at := operation.place, tuple) else at).name() for operation in operations}
    assert seen | set(NORMS) == set(READ) | set(NORMS)
