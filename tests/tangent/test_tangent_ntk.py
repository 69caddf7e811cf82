"""The structured tangent kernel against explicit Jacobians, in float64, for every way in which a parameter is used."""

import copy
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lazyrich as lzr
from lazyrich.errors import TangentError
from lazyrich.tangent import NetworkFunction, NtkOperator, contracted, contraction, gradient, pairs
from lazyrich.tangent import tape as tapes
from lazyrich.tangent.ntk import ntk_of
from lazyrich.tangent.outputs import Outputs
from lazyrich.tangent.tape import Misfit, probe, tape


class Tied(nn.Module):
    """One matrix read three times, once transposed."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return F.linear(torch.tanh(self.second(torch.tanh(self.first(x)))), self.first.weight.T)


class TiedTwice(nn.Module):
    """A dense layer and a convolution that are read twice."""

    def __init__(self):
        super().__init__()
        self.dense, self.conv = nn.Linear(6, 6), nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x):
        h = torch.tanh(self.conv(torch.tanh(self.conv(x))))
        return self.dense(torch.tanh(self.dense(h))).sum(1)[:, :2]


class OneBias(nn.Module):
    """Two matrices with one bias; the first is read without it, too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.bias = self.first.bias

    def forward(self, x):
        h = torch.tanh(self.second(torch.tanh(self.first(x))))
        return (h + F.linear(x, self.first.weight)).sum(1)[:, :2]


class Unrolled(nn.Module):
    """A recurrent cell of dense layers that read vectors, once for each step."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.out = nn.Linear(6, 6), nn.Linear(4, 6, bias=False), nn.Linear(6, 2)

    def forward(self, x):
        h = torch.tanh(self.outer(x[:, 0]))
        for t in range(1, x.shape[1]):
            h = torch.tanh(self.outer(x[:, t]) + self.inner(h))
        return self.out(h)


class Attention(nn.Module):
    def __init__(self, causal=False):
        super().__init__()
        self.qkv, self.out, self.causal = nn.Linear(6, 18), nn.Linear(6, 2), causal

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)).mean(1)


class Heads(nn.Module):
    """torch's own attention, with the positions first."""

    def __init__(self, batch_first):
        super().__init__()
        self.attention, self.out, self.batch_first = (
            nn.MultiheadAttention(6, 2, batch_first=batch_first),
            nn.Linear(6, 2),
            batch_first,
        )

    def forward(self, x):
        x = x if self.batch_first else x.transpose(0, 1)
        h = self.attention(x, x, x, need_weights=False)[0]
        return self.out(h).mean(1 if self.batch_first else 0)


class Spread(nn.Module):
    """Dense layers of a vector for a weight, and with biases of other shapes than their outputs, which torch spreads."""

    def __init__(self, bias, vector=False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4) if vector else torch.randn(3, 4))
        self.bias = None if bias is None else nn.Parameter(torch.randn(bias))

    def forward(self, x):
        return F.linear(torch.tanh(x), self.weight, self.bias)


class Custom(nn.Module):
    """Parameters that no layer knows."""

    def __init__(self):
        super().__init__()
        self.scale, self.mix = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4, 3))
        self.dense, self.unused = nn.Linear(4, 4), nn.Parameter(torch.ones(2))

    def forward(self, x):
        return torch.sin(self.scale * self.dense(x)) @ self.mix


class Waves(nn.Module):
    """Real gains and offsets of complex activations, and a real one beside them."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.gain, self.offset = nn.Linear(4, 6), nn.Linear(6, 2), *(nn.Parameter(torch.randn(4)) for _ in "ab")
        self.real = nn.Parameter(torch.randn(6))

    def forward(self, x):
        waves = torch.fft.rfft(torch.tanh(self.a(x)), dim=1)
        waves = (waves * self.gain + self.offset).conj() * self.gain
        return self.b(torch.tanh(torch.fft.irfft(waves, n=6, dim=1)) * self.real)


class PositionsFirst(nn.Module):
    """Axis 0 of the layer's input holds positions, and there are as many as samples."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x.transpose(0, 1)))).mean(0)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        h = self.a(x)
        h += 1
        return self.b(F.relu(h, inplace=True))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places, self.out = nn.Embedding(7, 4), nn.Parameter(torch.randn(3, 4)), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(torch.tanh(self.words(x) + self.places).mean(1))


class Vision(nn.Module):
    """A class token and positions that are spread over the samples, and a padded table."""

    def __init__(self):
        super().__init__()
        self.words, self.token = nn.Embedding(7, 4, padding_idx=1), nn.Parameter(torch.randn(1, 1, 4))
        self.places, self.gain = nn.Parameter(torch.randn(1, 4, 4)), nn.Parameter(torch.randn(4, 1))
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        h = torch.cat([self.token.expand(len(x), -1, -1), self.words(x)], 1) + self.places
        return self.out(torch.tanh(self.gain * torch.tanh(h))).mean(1)


class Gained(nn.Module):
    """Parameters of one entry, with and without axes."""

    def __init__(self):
        super().__init__()
        self.a, self.g, self.t = nn.Linear(4, 3), nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor([[0.5]]))
        self.one, self.shift = nn.Parameter(torch.tensor([1.5])), nn.Parameter(torch.tensor(0.2))

    def forward(self, x):
        return self.one * (self.g * torch.tanh(self.a(x) / self.t.exp()) + self.shift)


class Experts(nn.Module):
    """Samples choose what they go through; an expert may get none."""

    def __init__(self):
        super().__init__()
        self.experts, self.out = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)]), nn.Linear(4, 2)

    def forward(self, x):
        which, h = (x[:, 0] > 0).long() + (x[:, 0] > 1).long(), torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            if (which == i).any():
                h[which == i] = torch.tanh(expert(x[which == i]))
        return self.out(h)


class Constant(nn.Module):
    """A layer that reads no sample, and one whose axis 0 holds positions with the same tokens."""

    def __init__(self):
        super().__init__()
        self.words, self.a, self.b, self.out = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.a(self.words(x).transpose(0, 1))).mean(0)
        return self.out(h * self.b(torch.ones(3, 2).to(h)).sum(0))


class Untracked(nn.Module):
    """One of two readings of a layer does not count."""

    def __init__(self):
        super().__init__()
        self.a, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        with torch.no_grad():
            gate = torch.sigmoid(self.a(x))
        return self.out(gate * torch.tanh(self.a(x)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.cell(x)[0][:, -1])


def numbers(*shape: int) -> Tensor:
    return torch.randn(5, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


S, L = nn.Sequential, nn.Linear
CASES = {
    "dense": (lambda: S(L(4, 6), nn.Tanh(), L(6, 5, bias=False), nn.GELU(), L(5, 3)), numbers(4)),
    "dense of positions": (lambda: S(L(4, 6), nn.Tanh(), L(6, 2), nn.Flatten()), numbers(3, 4)),
    "conv1d": (
        lambda: S(nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv1d(4, 2, 2, groups=2), nn.Flatten()),
        numbers(2, 7),
    ),
    "conv2d": (
        lambda: S(
            nn.Conv2d(2, 4, (3, 2), dilation=(1, 2), padding=1),
            nn.Tanh(),
            nn.Conv2d(4, 4, 2, groups=4),
            nn.Flatten(),
            nn.LazyLinear(2),
        ),
        numbers(2, 4, 5),
    ),
    "conv3d": (lambda: S(nn.Conv3d(1, 3, 2), nn.Tanh(), nn.Flatten(), L(24, 2)), numbers(1, 3, 3, 3)),
    "circular": (lambda: S(nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), nn.Flatten()), numbers(2, 4)),
    "transposed": (
        lambda: S(
            nn.ConvTranspose2d(2, 4, 3, stride=2, output_padding=1, groups=2),
            nn.Tanh(),
            nn.ConvTranspose2d(4, 1, 2),
            nn.Flatten(),
        ),
        numbers(2, 2, 2),
    ),
    "layer norm": (lambda: S(L(4, 6), nn.LayerNorm(6), nn.Tanh(), L(6, 2)), numbers(4)),
    "group norm": (lambda: S(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), L(12, 2)), numbers(2, 5)),
    "rms norm": (lambda: S(L(4, 6), nn.RMSNorm(6), nn.Tanh(), L(6, 2)), numbers(4)),
    "instance norm": (
        lambda: S(nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(3, affine=True), nn.Tanh(), nn.Flatten(), L(12, 2)),
        numbers(2, 5),
    ),
    "batch norm in eval": (lambda: S(L(4, 6), nn.BatchNorm1d(6), nn.Tanh(), L(6, 2)), numbers(4)),
    "embedding": (Words, torch.tensor([[0, 1, 2], [1, 1, 1], [6, 5, 0], [2, 3, 4], [0, 0, 6]])),
    "token and places": (Vision, torch.tensor([[0, 1, 2], [1, 1, 1], [6, 5, 0], [2, 3, 4], [0, 0, 6]])),
    "attention": (Attention, numbers(3, 6)),
    "causal attention": (lambda: Attention(True), numbers(3, 6)),
    "heads": (lambda: Heads(True), numbers(3, 6)),
    "heads, positions first": (lambda: Heads(False), numbers(5, 6)),
    "tied": (Tied, numbers(4)),
    "prelu": (lambda: S(L(4, 6), nn.PReLU(), L(6, 5)), numbers(4)),  # as many samples as outputs
    "prelu of channels": (lambda: S(nn.Conv1d(2, 3, 2), nn.PReLU(3), nn.Flatten(), L(9, 5)), numbers(2, 4)),
    "gains of one entry": (Gained, numbers(4)),
    "experts": (Experts, numbers(4)),
    "constants": (Constant, torch.tensor([[0, 0], [0, 0], [0, 0], [2, 3], [1, 6]])),
    "untracked": (Untracked, numbers(4)),
    "unrolled": (Unrolled, numbers(3, 4)),
    "convolution of one group": (
        lambda: S(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 2, dilation=2), nn.Flatten()),
        numbers(2, 7, 6),
    ),
    "tied convolution": (TiedTwice, numbers(2, 6)),
    "one bias": (OneBias, numbers(3, 4)),
    "vector for a weight": (lambda: Spread(None, vector=True), numbers(4)),
    "vector for a weight, of positions": (lambda: Spread((), vector=True), numbers(3, 4)),
    "bias of one entry": (lambda: Spread(1), numbers(4)),
    "bias without axes": (lambda: Spread(()), numbers(3, 4)),
    "bias of positions": (lambda: Spread((2, 3)), numbers(2, 4)),
    "custom": (Custom, numbers(4)),
    "waves": (Waves, numbers(4)),
    "positions first": (PositionsFirst, numbers(5, 5)),
    "in place": (InPlace, numbers(4)),
    "recurrent": (Recurrent, numbers(3, 4)),
    "scalar": (lambda: S(L(4, 6), nn.Tanh(), L(6, 1), nn.Flatten(0)), numbers(4)),
    "transformer layer": (
        lambda: S(nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), nn.Flatten(), L(12, 2)),
        numbers(3, 4),
    ),
}


class Through(nn.Module):
    """A layer and a function of it; ``clip`` changes its weight on the way."""

    def __init__(self, function, clip=False):
        super().__init__()
        self.a, self.function, self.clip = nn.Linear(4, 3).double(), function, clip

    def forward(self, x):
        with torch.no_grad():
            if self.clip:
                self.a.weight.clamp_(-0.1, 0.1)
        return self.function(self.a(x))


class Wide(nn.Module):
    """Very many outputs of very many weights."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(4, 4096, 1).double()

    def forward(self, x):
        return self.a(x[:, :, None].expand(-1, -1, 40)).flatten(1)


def build(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, x = CASES[name]
    model = make().double()
    model(x[:2])  # lazy layers
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval(), x


def jacobians(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """(N, K, entries) by plain autograd, one output of one sample at a time."""
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    out = NetworkFunction(model)
    rows: dict[str, list[Tensor]] = {name: [] for name in params}
    with torch.backends.cudnn.flags(enabled=False):
        for one in x:
            live = {n: p.detach().clone().requires_grad_() for n, p in params.items()}
            f = out(live, one[None])[0]
            for value in f:
                found = torch.autograd.grad(value, list(live.values()), retain_graph=True, allow_unused=True)
                for (name, p), g in zip(live.items(), found, strict=True):
                    rows[name].append((torch.zeros_like(p) if g is None else g).flatten())
    return {name: torch.stack(g).reshape(len(x), -1, g[0].numel()) for name, g in rows.items()}


def explicit(model: nn.Module, x1: Tensor, x2: Tensor) -> dict[str, Tensor]:
    j1, j2 = jacobians(model, x1), jacobians(model, x2)
    return {name: torch.einsum("nkp,mlp->nmkl", j1[name], j2[name]) for name in j1}


def close(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= 1e-10 * max(1.0, float(want.abs().max()))


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_agrees_with_explicit_jacobians(name):
    model, x = build(name)
    want = explicit(model, x, x)
    got = ntk_of(model, x, per="tensor", block=2)
    close(ntk_of(model, x), sum(want.values()))
    assert set(got) == set(want)
    for tensor in want:
        close(got[tensor], want[tensor])
    oblong = ntk_of(model, x[:2], x[1:])
    close(oblong, sum(want.values())[:2, 1:])
    total = sum(want.values())
    close(ntk_of(model, x, outputs="trace"), torch.einsum("nmkk->nm", total))
    close(ntk_of(model, x, outputs="diagonal"), torch.einsum("nmkk->nmk", total))


@pytest.mark.parametrize("pay", [True, False])
@pytest.mark.parametrize(
    "name",
    ["dense of positions", "conv1d", "convolution of one group", "tied convolution", "one bias", "unrolled", "attention"],
)
def test_pairs_of_positions_and_gradients_agree(name, pay, monkeypatch):
    """Either way of shared weights, whatever the rule would choose, all outputs at once and one by one, in tiles of every size."""
    room, asked = sys.modules["lazyrich.tangent.ntk"], []
    rule = room.pairs_pay

    def forced(name, uses, outputs):
        can = bool(uses) and all(u.weight == name and (u.linear or (u.window and u.window[3] == 1)) for u in uses)
        asked.append(can)
        return pay and can

    model, x = build(name)
    x = torch.cat([x, x.flip(0), x.roll(1, 0)])[:11] if x.is_floating_point() else x
    want = explicit(model, x, x)
    total = sum(want.values())
    rates = {tensor: i % 4 / 2 for i, tensor in enumerate(want)}  # a bias goes with its weight, by the ratio of the two
    for choose, met in ((forced, 1), (forced, 2**9), (rule, pairs.MET)):
        monkeypatch.setattr(room, "pairs_pay", choose)
        monkeypatch.setattr(pairs, "MET", met)
        monkeypatch.setattr(gradient, "SLICE", met)
        monkeypatch.setattr(sys.modules["lazyrich.tangent.tape"], "TOGETHER", met)
        for block in (3, None):
            got = ntk_of(model, x, per="tensor", block=block)
            for tensor in want:
                close(got[tensor], want[tensor])
        close(ntk_of(model, x, outputs="trace"), torch.einsum("nmkk->nm", total))
        close(ntk_of(model, x, rates=rates), sum(rates[tensor] * part for tensor, part in want.items()))
        close(ntk_of(model, x[:2], x[1:]), total[:2, 1:])
        close(ntk_of(model, x[:2], x[1:], outputs="trace"), torch.einsum("nmkk->nm", total[:2, 1:]))
        close(ntk_of(model, x[:2], x[1:], outputs="diagonal"), torch.einsum("nmkk->nmk", total[:2, 1:]))
    assert any(asked)


class Trimmed(nn.Module):
    """A bag of words, or a convolution of signals, that drops what no sample of the batch reaches."""

    def __init__(self, outputs, signal):
        super().__init__()
        self.table, self.inner, self.out = nn.Embedding(9, 8, padding_idx=0), L(8, 8), L(8, outputs)
        self.filter = nn.Conv1d(8, 8, 3, padding=1) if signal else None

    def forward(self, i):
        i = i[:, : int((i > 0).sum(1).max())]
        there = (i > 0)[..., None]
        h = torch.tanh(self.inner(self.table(i))) * there
        h = h if self.filter is None else torch.tanh(self.filter(h.mT)).mT * there
        return self.out(h.sum(1) / there.sum(1))


@pytest.mark.parametrize("pay", [True, False])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("signal", [False, True])
def test_blocks_that_are_trimmed_to_other_lengths_meet(signal, outputs, pay, monkeypatch):
    def forced(name, uses, _):
        return pay and bool(uses) and all(use.sums and use.weight == name for use in uses)

    monkeypatch.setattr(sys.modules["lazyrich.tangent.ntk"], "pairs_pay", forced)
    model, x = Trimmed(outputs, signal).double(), torch.randint(1, 9, (6, 4))
    x[:3, 2:] = 0
    total = sum(explicit(model, x, x).values())
    for one, other in ((slice(0, 3), slice(3, 6)), (slice(3, 6), slice(0, 3))):
        want = total[one, other]
        close(ntk_of(model, x[one], x[other]), want)
        close(ntk_of(model, x[one], x[other], outputs="trace"), torch.einsum("nmkk->nm", want))
        close(ntk_of(model, x[one], x[other], outputs="diagonal"), torch.einsum("nmkk->nmk", want))
    close(ntk_of(model, x, block=3), total)


class Either(nn.Module):
    """One matrix, read in one way where all samples start with a positive number, else in another way."""

    def __init__(self, one, other, *shape):
        super().__init__()
        self.weight, self.ways = nn.Parameter(torch.randn(shape)), (one, other)

    def forward(self, x):
        up = x.flatten(1)[:, 0] > 0
        kinds = [(way, where) for way, where in zip(self.ways, (up, ~up), strict=True) if where.any()]
        found = [torch.tanh(way(x, self.weight)).flatten(2).sum(2) * where[:, None] for way, where in kinds]
        return torch.stack(found).sum(0)


WAYS = {
    "a vector and positions": (lambda x, w: F.linear(x[:, 0], w)[..., None], lambda x, w: F.linear(x, w).mT, 3, 3),
    "back and forth": (F.conv1d, F.conv_transpose1d, 3, 3, 2),
    "groups": (lambda x, w: F.conv1d(x, w, groups=3), lambda x, w: F.conv1d(x[:, :1], w), 3, 1, 2),
    "a product and gains": (lambda x, w: F.linear(x, w).mT, lambda x, w: x * w, 3, 3),
}


@pytest.mark.parametrize("pay", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_blocks_that_read_one_matrix_in_other_ways_meet(way, pay, monkeypatch):
    can = sys.modules["lazyrich.tangent.gradient"].summed
    monkeypatch.setattr(sys.modules["lazyrich.tangent.ntk"], "pairs_pay", lambda name, uses, _: pay and can(name, uses))
    model, low, high = Either(*WAYS[way]).double(), numbers(3, 3), numbers(3, 3).flip(0)
    low[:, 0, 0], high[:, 0, 0] = -1.0, 1.0
    want = explicit(model, low, high)["weight"]
    close(ntk_of(model, low, high), want)
    close(ntk_of(model, high, low), want.permute(1, 0, 3, 2))


@pytest.mark.parametrize(("positions", "pays"), [(4, True), (400, False)])
def test_few_positions_are_paired_and_many_are_not(positions, pays):
    use = next(u for u in tape(NetworkFunction(S(L(256, 256), nn.Flatten(), L(256 * positions, 10))),
                               torch.randn(4, positions, 256)).uses if u.weight == "0.weight")  # fmt: skip
    assert pairs.pairs_pay("0.weight", [use], "full") is pays


def test_wide_tensors_keep_their_digits_in_float32(monkeypatch):
    """Gradients of one sign: the trace sums four million products an entry, of which a plain sum loses digits."""
    monkeypatch.setattr(sys.modules["lazyrich.tangent.ntk"], "pairs_pay", lambda *_: False)
    torch.manual_seed(0)
    model, x = S(L(1024, 1024, bias=False), nn.Flatten(), L(2048, 4, bias=False)), torch.rand(4, 2, 1024)
    model[2].weight.data.abs_()
    got = ntk_of(model, x, outputs="trace")
    want = ntk_of(model.double(), x.double(), outputs="trace")
    assert float((got - want).abs().max() / want.abs().max()) < 2e-6


def test_blocks_that_go_through_other_experts_are_not_taken_for_one_another():
    """All of one side go to one expert, all of the other to another; also as two blocks of one batch."""
    torch.manual_seed(0)
    model = Experts().double()
    low, high = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    low[:, 0], high[:, 0] = -1.0, 2.0
    close(ntk_of(model, low, high), sum(explicit(model, low, high).values()))
    both = torch.cat([low, high])
    close(ntk_of(model, both, block=3), sum(explicit(model, both, both).values()))


class Rounded(torch.autograd.Function):
    """A rounding with the gradient of none, in the old style that transforms of functions do not take."""

    @staticmethod
    def forward(ctx, w):
        return w.round()

    @staticmethod
    def backward(ctx, g):
        return g


def test_weights_with_a_backward_of_their_own_are_taken():
    class Quantised(nn.Linear):
        def forward(self, x):
            return F.linear(x, Rounded.apply(self.weight))

    x = torch.randn(4, 3)
    close(ntk_of(Quantised(3, 1, bias=False), x)[..., 0, 0], x @ x.T)


class Sorted(nn.Module):
    """Samples go through it in the order of their first entry, and are put back."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x):
        order = x[:, 0].argsort(stable=True)
        return self.b(torch.tanh(self.a(x[order]))[order.argsort()])


class Moved(Sorted):
    """Samples go through it at other places, and are put back."""

    def __init__(self, there, back):
        super().__init__()
        self.there, self.back = there, back

    def forward(self, x):
        return self.b(self.back(torch.tanh(self.a(self.there(x)))))


MOVES = {
    "rolled": (lambda x: x.roll(1, 0), lambda x: x.roll(-1, 0)),
    "turned": (lambda x: x.flip(0), lambda x: x.flip(0)),
    "turned by places": (lambda x: x[torch.arange(len(x) - 1, -1, -1)], lambda x: x.flip(0)),
    "shifted by half": (lambda x: torch.fft.fftshift(x, 0), lambda x: torch.fft.ifftshift(x, 0)),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 8])
def test_a_network_that_moves_its_samples_is_not_taken_for_one_that_does_not(n, move):
    model, x = Moved(*MOVES[move]).double(), torch.randn(n, 3, dtype=torch.float64)
    want = sum(explicit(model, x, x).values())
    close(ntk_of(model, x), want)
    close(ntk_of(model, x, block=2), want)


class Filled(nn.Linear):
    """As many equal rows go through it as there are samples, and come out as the weight of another layer."""

    def forward(self, x):
        return torch.tanh(x) @ F.linear(torch.ones(self.rows, 3).to(x), self.weight)[: x.shape[1]]


@pytest.mark.parametrize("n", range(1, 9))
def test_rows_that_are_no_samples_are_not_taken_for_them(n):
    model, x = Filled(3, 2, bias=False).double(), torch.randn(n, min(n, 3), dtype=torch.float64)
    model.rows = n
    close(ntk_of(model, x), sum(explicit(model, x, x).values()))


@pytest.mark.parametrize("first", [[1.0, 1, 1, 3, 0, 2], [0.0] * 14 + [-1.0] + [0.0] * 25])
def test_a_network_that_sorts_its_samples_is_not_taken_for_one_that_does_not(first):
    model, x = Sorted().double(), torch.randn(len(first), 3, dtype=torch.float64)
    x[:, 0] = torch.tensor(first) / len(first)  # the first ones tie, or all but one of many
    want = sum(explicit(model, x, x).values())
    close(ntk_of(model, x), want)
    close(ntk_of(model, x, block=np.int64(5)), want)


def test_layers_hold_their_tensors_and_rates_weigh_them():
    model, x = build("dense")
    want = explicit(model, x, x)
    by_layer = ntk_of(model, x, per="layer")
    assert set(by_layer) == {"0", "2", "4"}
    close(by_layer["0"], want["0.weight"] + want["0.bias"])
    rates = {"0.weight": 0.5, "2.weight": 0.0}
    weighed = sum(rates.get(name, 1.0) * part for name, part in want.items())
    close(ntk_of(model, x, rates=rates), weighed)


def test_a_plans_rates_are_taken_by_name():
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=8), lzr.mup(), "sgd")
    model, x = plan.build(16).double(), torch.randn(3, 64, dtype=torch.float64)
    rates = {name: s.lr for name, s in plan.settings(model).items()}
    want = sum(rates[name] * part for name, part in explicit(model, x, x).items())
    close(ntk_of(model, x, rates=rates), want)


def test_only_what_needs_it_goes_through_autograd():
    for name, expected in (
        ("dense", set()),
        ("conv2d", set()),
        ("layer norm", set()),
        ("custom", {"mix"}),
        ("embedding", set()),
        ("token and places", {"token"}),
        ("positions first", {"a.weight", "a.bias", "b.weight", "b.bias"}),
        ("tied", {"first.weight"}),
        ("attention", set()),
    ):
        model, x = build(name)
        assert taken_by_autograd(NetworkFunction(model), x) == expected, name


def taken_by_autograd(function, x):
    unknown = probe(function, x).unknown
    try:
        tape(function, x, unknown)
    except Misfit as odd:
        return unknown | odd.names
    return unknown


def test_the_model_is_left_as_it_was():
    model, x = build("transformer layer")
    before, hooks = copy.deepcopy(model.state_dict()), [len(m._forward_hooks) for m in model.modules()]
    kept = [id(p) for p in model.parameters()]
    ntk_of(model, x)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert [id(p) for p in model.parameters()] == kept
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert not model.training


def test_frozen_tensors_do_not_count():
    model, x = build("dense")
    model[0].weight.requires_grad_(False)
    want = explicit(model, x, x)
    assert "0.weight" not in want
    close(ntk_of(model, x), sum(want.values()))


def test_the_gauss_newton_matrix_has_the_same_eigenvalues():
    model, x = build("dense")
    j = torch.cat(list(jacobians(model, x).values()), -1).flatten(0, 1)
    kernel = ntk_of(model, x).permute(0, 2, 1, 3).reshape(len(j), len(j))
    want = torch.linalg.eigvalsh(j.T @ j)[-len(j) :]
    torch.testing.assert_close(torch.linalg.eigvalsh(kernel), want, rtol=1e-8, atol=1e-10)


def test_float32_agrees_with_float64():
    model, x = build("conv2d")
    want = ntk_of(model, x)
    got = ntk_of(copy.deepcopy(model).float(), x.float())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda m, x: ntk_of(m, x, outputs="all"),
            "got outputs='all', expected 'full' or 'trace' or 'diagonal'; leave it out for 'full'",
        ),
        (lambda m, x: ntk_of(m, x, per="head"), "got per='head', expected None or 'tensor' or 'layer'; leave it out for None"),
        (lambda m, x: ntk_of(m, x, block=-1), "block = -1"),
        (lambda m, x: ntk_of(m, x, rates=1.0), "rates float"),
        (lambda m, x: ntk_of(m, x, rates={"0.weight": "big"}), "rate 'big'"),
        (lambda m, x: ntk_of(lambda x: x, x), "expected an nn.Module"),
        (lambda m, x: ntk_of(nn.LazyLinear(2), x), "has no shape yet"),
        (lambda m, x: ntk_of(Through(lambda h: h.sign().detach()), x), "that can be differentiated"),
        (lambda m, x: ntk_of(Through(lambda h: h > 0), x), "torch.bool"),
        (lambda m, x: ntk_of(Through(lambda h: torch.complex(h, h)), x), "torch.complex128"),
        (lambda m, x: ntk_of(Through(lambda h: h.cumsum(0)), x), "mixes samples"),
        (lambda m, x: ntk_of(Through(lambda h: h.sub_(0), clip=True), x), "changes 'a.weight' in place"),
        (lambda m, x: ntk_of(Wide(), x, outputs="trace"), "GiB; wrap the network"),
        (lambda m, x: ntk_of(m, x, rates={"none": 1.0}), "a rate for 'none', expected a tensor of the module"),
        (lambda m, x: ntk_of(m, x, rates={"0.weight": -1.0}), "rate -1.0 for '0.weight'"),
        (lambda m, x: ntk_of(m, x[:, :3]), "does not take x1"),
        (lambda m, x: ntk_of(m, x, x.float()), "x2 is torch.float32"),
        (lambda m, x: ntk_of(m, x.expand(8, 5, 4).reshape(-1, 4).repeat(800, 1)), "GiB"),
        (lambda m, x: ntk_of(nn.Sequential(m, nn.BatchNorm1d(3)).double().train(), x), "BatchNorm1d"),
    ],
)
def test_refusals_say_what_was_got_and_the_mend(call, says):
    model, x = build("dense")
    with pytest.raises(TangentError, match=says):
        call(model, x)


@pytest.mark.parametrize("where", ["tape", "rest", "contraction"])
def test_a_lack_of_memory_is_no_operation_without_a_batched_form(monkeypatch, where):
    """The ways around would take the memory once more, one sample at a time, for hours."""
    model, x = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double(), numbers(3)
    outputs = Outputs(model, x)

    def full(*_args, **_options):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes")

    module, name = {"tape": (torch.autograd, "grad"), "rest": (torch.func, "vmap"), "contraction": (contraction, "vmap")}[where]
    attempt = {
        "tape": lambda: tapes._gradients(model(x), list(model.parameters()), torch.ones(2, len(x), 2, dtype=x.dtype)),
        "rest": lambda: tapes._rest(outputs.function, x, ["0.weight"]),
        "contraction": lambda: contraction._jet(outputs, slice(0, 2), 0, outputs.point, outputs.point),
    }[where]
    attempt()
    whole = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **more: whole(*args, **more) if calls else calls.append(1) or full())
    calls = []
    with pytest.raises(RuntimeError, match="not enough memory"):
        attempt()


class Narrow(nn.Linear):
    """A gain in another precision, named first."""

    def __init__(self):
        super().__init__(3, 2)
        self.gain = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
        self._parameters = {name: self._parameters[name] for name in ("gain", "weight", "bias")}

    def forward(self, x):
        return super().forward(x) * self.gain


def test_of_parameters_of_several_precisions_the_widest_is_that_of_the_kernel():
    model, x, plain = Narrow(), torch.randn(3, 3), nn.Linear(3, 2)
    plain.load_state_dict(model.state_dict(), strict=False)
    found, outputs = ntk_of(model, x), plain(x).detach()
    want = ntk_of(plain, x) + torch.einsum("nk,mk,kl->nmkl", outputs, outputs, torch.eye(2))
    assert found.dtype == torch.float32
    assert torch.allclose(found, want, rtol=1e-2, atol=1e-2)
    matrix = found.transpose(1, 2).reshape(6, 6)
    assert torch.allclose(NtkOperator(model, x).matvec(torch.eye(6)), matrix, rtol=1e-2, atol=1e-2)
    assert torch.allclose(contracted(model, x, outputs, order=2).flatten(), matrix @ outputs.flatten(), rtol=1e-2, atol=1e-2)
    with pytest.raises(TangentError, match="x1 is torch.float64 but the parameters are torch.bfloat16 and torch.float32"):
        ntk_of(model, x.double())
