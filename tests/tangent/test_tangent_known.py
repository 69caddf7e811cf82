"""Networks of which not everything is known: they are left to nested derivatives, or refused, and never come out wrong."""

import pytest
import torch
from motion_cases import Row
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lazyrich.errors import TangentError
from lazyrich.tangent import contracted, contraction
from lazyrich.tangent.function import NetworkFunction
from lazyrich.tangent.motion import motion
from lazyrich.tangent.outputs import Outputs

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def nested(model, x, r, order):
    outputs = Outputs(model, x)
    return contraction._vector(outputs, outputs.cotangent(r), order, False).reshape(outputs.shape)


def jacobians(model, x, r, times):
    outputs = Outputs(model, x)
    return contraction._ntk_derivatives(outputs, outputs.cotangent(r), times)


class Hooked(Row):
    """A gradient that a hook doubles."""

    def forward(self, x):
        h = self.first(x).tanh()
        if h.requires_grad:
            h.register_hook(lambda g: 2 * g)
        return self.last(self.second(h))


class Doubled(torch.autograd.Function):
    """The identity, with twice its gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(h):
        return h.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return 2 * g


class Lone(Row):
    """A bias of one entry, which spreads over a layer's outputs."""

    def __init__(self):
        super().__init__(torch.tanh)
        self.second.bias = nn.Parameter(torch.ones(1))


class Averaged(Row):
    """The mean of a weight's entries as one more weight."""

    def __init__(self, axes, keepdim):
        super().__init__(torch.tanh)
        self.axes, self.keepdim = axes, keepdim

    def forward(self, x):
        h = self.first(x).tanh().mean(1, keepdim=True)
        return h @ self.second.weight.mean(self.axes, keepdim=self.keepdim).view(1, 1)


class NodeHooked(Row):
    """A gradient that a hook of its node doubles."""

    def forward(self, x):
        h = self.first(x).tanh()
        if h.grad_fn is not None:
            h.grad_fn.register_hook(lambda into, _: tuple(2 * g for g in into))
        return self.last(self.second(h))


def old_hook():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model[1].register_backward_hook(lambda module, into, _: tuple(2 * g for g in into))
    return model


@pytest.mark.parametrize(
    "model",
    [
        Hooked(torch.tanh), NodeHooked(torch.tanh), old_hook(), Lone(), Row(lambda h: h.cumsum(1)), Row(Doubled.apply),
        Row(lambda h: h.to(torch.float32).double()), nn.ConvTranspose1d(1, 2, 2),
    ],
)  # fmt: skip
def test_what_is_not_known_is_left_to_nested_derivatives(model):
    model = model.double()
    x = torch.randn(3, 1, 4, dtype=torch.float64) if isinstance(model, nn.ConvTranspose1d) else torch.randn(3, 3).double()
    function = NetworkFunction(model)
    with torch.no_grad():
        out = function(function.parameters, x)
    assert motion(function, x, torch.ones_like(out), 2, dict.fromkeys(function.parameters, 1.0)) is None


class Weighted(Row):
    """A bias, or a product, that counts several times."""

    def __init__(self, **times):
        super().__init__(torch.tanh)
        self.times = times

    def forward(self, x):
        return self.last(torch.addmm(self.second.bias, self.first(x).tanh(), self.second.weight.t(), **self.times))


class Axes(nn.Module):
    """A mean over axes that are named from behind."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 24), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.first(x).tanh().view(-1, 2, 3, 4).mean((-2, 1)))


class Number(nn.Module):
    """A layer times one number, of which sums and the like over its first axis are taken."""

    def __init__(self, of):
        super().__init__()
        self.first, self.last, self.number, self.of = nn.Linear(3, 4), nn.Linear(4, 2), nn.Parameter(torch.tensor(0.7)), of

    def forward(self, x):
        return self.last(torch.tanh(self.of(self.number) * self.first(x)))


def joined(join):
    return lambda: Row(lambda h: join(h.tanh(), h.sin().mean(1, keepdim=True)))


MAKES = {
    "lone": Lone, "mean of ()": lambda: Averaged((), False), "mean of None": lambda: Averaged(None, True),
    "multiples": lambda: Row(multiple), "bias twice": lambda: Weighted(beta=2), "product thrice": lambda: Weighted(alpha=3),
    "axes": Axes, "spread sum": joined(torch.add), "spread gate": joined(torch.mul),
    "sum of a number": lambda: Number(lambda g: g.sum(0)), "mean of a number": lambda: Number(lambda g: g.mean(-1)),
    "kept mean of a number": lambda: Number(lambda g: g.mean(0, keepdim=True)),
    "softmax of a number": lambda: Number(lambda g: g + g.softmax(0)), "number turned": lambda: Number(lambda g: g.transpose(0, 0)),
    "empty vectors": lambda: Row(lambda h: torch.cat([h.flatten()[:0], h.tanh()], 1)),
    "sum with a multiple": lambda: Row(lambda h: torch.add(h.tanh(), h.sin(), alpha=3)),
}  # fmt: skip


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_what_spreads_or_has_a_multiple_is_right(make):
    torch.manual_seed(0)
    model, x, r = make().double(), torch.randn(3, 3).double(), torch.randn(3, 2).double()
    r = r[:, :1] if isinstance(model, Averaged) else r
    matrix = jacobians(model, x, r, 1)
    torch.testing.assert_close(contracted(model, x, r, 2).flatten(), matrix[0] @ r.flatten(), **EXACT)
    torch.testing.assert_close(contracted(model, x, r).flatten(), matrix[1] @ r.flatten(), **EXACT)


def multiple(h):
    """With a constant as its bias: nested derivatives multiply one that is zero, which ended the process."""
    return torch.addmm(torch.ones(h.shape[1]).to(h), h.tanh(), torch.eye(h.shape[1]).to(h), beta=2, alpha=3)


class Precisions(nn.Module):
    """A sum, or a gate, of two precisions, or a mean that changes it."""

    def __init__(self, join):
        super().__init__()
        self.first, self.other, self.last, self.join = nn.Linear(3, 4), nn.Linear(3, 4).double(), nn.Linear(4, 2).double(), join

    def forward(self, x):
        return self.last(self.join(self.first(x).tanh(), self.other(x.double()).tanh()))


def averaged(a, b):
    return torch.addmm(b, a.mean(1, keepdim=True, dtype=b.dtype), b.new_ones(1, b.shape[1]))


@pytest.mark.parametrize("join", [torch.add, torch.mul, averaged])
def test_two_precisions_are_left_to_nested_derivatives(join):
    torch.manual_seed(0)
    model, x, r = Precisions(join), torch.randn(3, 3), torch.randn(3, 2).double()
    for order in (2, 3):
        torch.testing.assert_close(contracted(model, x, r, order), nested(model, x, r, order), rtol=1e-4, atol=1e-5)


class Uncast(nn.Module):
    """A network that runs in its own precision wherever it is called."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.net(x)


def test_autocast_around_a_call_casts_no_derivative():
    torch.manual_seed(0)
    model, x, r = Uncast(Row(torch.tanh)), torch.randn(3, 3), torch.randn(3, 2)
    want = [contracted(model, x, r, keep=keep) for keep in (1, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        got = [contracted(model, x, r, keep=keep) for keep in (1, 2)]
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep", [1, 2])
def test_values_that_hooks_keep_are_not_read(keep):
    model, x = Row(torch.tanh).double(), torch.randn(3, 3).double()
    model.phi = lambda h: checkpoint(torch.tanh, h, use_reentrant=False)
    with pytest.raises(TangentError, match="checkpoint; switch checkpointing off"):
        contracted(model, x, torch.ones(3, 2).double(), keep=keep)
    model.phi = torch.tanh
    with (
        pytest.raises(TangentError, match="saved tensor"),
        torch.autograd.graph.saved_tensors_hooks(Tensor.half, Tensor.double),
    ):
        contracted(model, x, torch.ones(3, 2).double(), keep=keep)


def test_a_kernel_of_which_motion_gives_no_number_is_left_to_jacobians():
    torch.manual_seed(0)
    model, x, r = Row(lambda h: F.relu(h) ** 1.5).double(), torch.randn(3, 3).double(), torch.randn(3, 2).double()
    torch.testing.assert_close(contracted(model, x, r, 3, keep=2), jacobians(model, x, r, 1)[1], **EXACT)


class Fixed(nn.Module):
    """Weights that are no layer's: one of a sample's shape, and one read as it is and transposed, or turned by a curve."""

    def __init__(self, phi):
        super().__init__()
        self.weight, self.row, self.phi = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(1, 4)), phi

    def forward(self, x):
        return self.phi(x @ self.weight.t(), self.weight, self.row)


@pytest.mark.parametrize(
    "phi",
    [
        lambda h, w, row: h.tanh() + row, lambda h, w, row: h.tanh() * row, lambda h, w, row: row.tanh() + h.sin(),
        lambda h, w, row: h.tanh() @ w, lambda h, w, row: h.tanh() @ w.tanh().t(),
        lambda h, w, row: h.tanh() @ w.tanh(), lambda h, w, row: h.tanh() * (h @ row.t()),
        lambda h, w, row: (h @ row.t()) * h.tanh(),
    ],
)  # fmt: skip
def test_kernels_of_one_sample_and_other_reads_are_right(phi):
    torch.manual_seed(0)
    model, x, r = Fixed(phi).double(), torch.randn(1, 4).double(), torch.randn(1, 4).double()
    for order in (3, 4):
        torch.testing.assert_close(contracted(model, x, r, order, keep=2), jacobians(model, x, r, order - 2)[-1], **EXACT)
