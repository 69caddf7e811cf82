"""Kernels against formulas written out here, and the identities that they obey, in float64."""

from __future__ import annotations

import math
import sys
import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import Net
from torch import Tensor, nn

import lazyrich as lzr
from lazyrich.errors import KernelError
from lazyrich.family.family import seeded
from lazyrich.lazy import few
from lazyrich.lazy import kernel as room
from lazyrich.lazy.field import Curve, Field
from lazyrich.lazy.layout import Layout
from lazyrich.lazy.tile import place, strips
from lazyrich.lazy.weights import Drawn

S, L = nn.Sequential, nn.Linear
DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


X = normal(5, 7)
IMG = normal(4, 3, 5, 5)


def mlp(depth=3, bias=True, act=nn.ReLU, n=8):
    layers = [layer for i in range(depth - 1) for layer in (L(7 if i == 0 else n, n, bias=bias), act())]
    return S(*layers, L(n if layers else 7, 1, bias=bias))


def convnet(n=6):
    return S(nn.Conv2d(3, n, 3, padding=1), nn.ReLU(), nn.Conv2d(n, n, 3, stride=2), nn.ReLU(), nn.Flatten(), L(4 * n, 1))


def pooled(n=6):
    return S(nn.Conv2d(3, n, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(n, n, 2), nn.ReLU(),
             nn.AdaptiveAvgPool2d(1), nn.Flatten(), L(n, 1))  # fmt: skip


def arccos(k):
    """Of a Gram matrix: E[relu relu] and E[relu' relu'] (Cho & Saul 2009)."""
    q = k.diagonal()
    s = (q[:, None] * q).sqrt()
    angle = torch.acos((k / s).clamp(-1, 1))
    angle.fill_diagonal_(0.0)
    return s * (angle.sin() + (math.pi - angle) * angle.cos()) / (2 * math.pi), (math.pi - angle) / (2 * math.pi)


def recursion(x, depth, w, b, rates=None):
    """NNGP and NTK of a ReLU network layer by layer; ``rates`` switches layers' own terms (weights, biases) on."""
    rates = rates or [(w, b)] * depth
    k = w * x @ x.T / x.shape[1] + b
    theta = rates[0][0] * x @ x.T / x.shape[1] + rates[0][1]
    for rate_w, rate_b in rates[1:]:
        f, slope = arccos(k)
        k, theta = w * f + b, w * slope * theta + rate_w * f + rate_b
    return k, theta


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("b", [0.0, 0.4])
def test_relu_mlp_follows_the_recursion(depth, b):
    k = lzr.kernel(mlp(depth), init=lzr.init.variance(1.6, b))
    for got, expected in zip(k(X), recursion(X, depth, 1.6, b), strict=True):
        close(got, expected, 1e-7)  # arccos near 1 is no better


def test_relu_diagonal_at_depth_100():
    """w = 2, b = 0: K = 2|x|^2/d at every depth and Theta = depth K."""
    q = 2 * X.square().mean(1)
    k = lzr.kernel(mlp(100), init=lzr.init.variance(2.0))
    for x, tolerance in ((X, 1e-12), (X.float(), 1e-5)):
        nngp, ntk = k(x)
        assert nngp.dtype == ntk.dtype == x.dtype
        for got, expected in ((nngp, q), (ntk, 100 * q)):
            assert float((got.diagonal().double() / expected - 1).abs().max()) < tolerance
            assert float((k.diagonal(x, "ntk").double() / (100 * q) - 1).abs().max()) < tolerance


def test_near_duplicates_in_float32():
    x = torch.cat([X, X + 1e-6 * normal(5, 7, seed=1)])
    k = lzr.kernel(mlp(5), init=lzr.init.variance(2.0))
    exact, single = k.ntk(x), k.ntk(x.float()).double()
    assert float(((single - exact) / exact.abs().max()).abs().max()) < 2e-3
    assert float(((single - exact) / exact.abs().max()).diagonal().abs().max()) < 1e-6


def test_deep_linear_network():
    k = lzr.kernel(S(L(7, 4, bias=False), L(4, 4, bias=False), L(4, 1, bias=False)), init=lzr.init.variance(1.3))
    gram = X @ X.T / 7
    close(k.nngp(X), 1.3**3 * gram)
    close(k.ntk(X), 3 * 1.3**3 * gram)


def test_one_convolution_is_a_mean_over_windows():
    k = lzr.kernel(S(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Flatten(), L(8 * 9, 1)), init=lzr.init.variance(1.4, 0.2))
    patches = F.unfold(IMG, 3, padding=1, stride=2)  # (N, 27, 9)
    own = torch.einsum("icp,jcp->ijp", patches, patches) / 27
    first = 1.4 * own + 0.2
    close(k.nngp(IMG), 1.4 * first.mean(-1) + 0.2)
    close(k.ntk(IMG), (1.4 * first.mean(-1) + 0.2) + 1.4 * first.mean(-1))


def test_pooled_convolution_sees_all_pairs_of_windows():
    k = lzr.kernel(S(nn.Conv2d(3, 8, (2, 3), dilation=(2, 1)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), L(8, 1)),
                   init=lzr.init.variance(1.4, 0.2))  # fmt: skip
    patches = F.unfold(IMG, (2, 3), dilation=(2, 1)).mean(-1)
    close(k.nngp(IMG), 1.4 * (1.4 * patches @ patches.T / 18 + 0.2) + 0.2)


def test_transposed_convolution_is_the_sum_over_what_reaches():
    """A one-hot weight per tap gives the positions that every output reads; one tap in a stride does, which the fan-in counts."""
    net = S(nn.ConvTranspose1d(2, 6, 3, stride=2, padding=1, output_padding=1, bias=False), nn.Flatten(), L(48, 1, bias=False))
    x = normal(3, 2, 4)
    taps = torch.eye(3, dtype=DOUBLE)[:, None, :]  # one input channel to three outputs, a tap each
    reach = [F.conv_transpose1d(x[:, c : c + 1], taps.transpose(0, 1), stride=2, padding=1, output_padding=1) for c in (0, 1)]
    features = torch.cat(reach, 1) / math.sqrt(2 * 3 / 2)
    expected = torch.einsum("icp,jcp->ijp", features, features)
    close(lzr.kernel(net, init=lzr.init.variance(1.0)).nngp(x), expected.mean(-1))


RESAMPLED = [(1, "nearest-exact"), (2, "nearest-exact"), (3, "nearest-exact"), (3, "nearest"), (3, "trilinear"), (2, "bicubic"),
             (2, "bilinear, smooth"), (2, "bicubic, smooth")]  # fmt: skip


@pytest.mark.parametrize(("dims", "mode"), RESAMPLED)
@pytest.mark.parametrize("size", [(6, 7, 4), (3, 2, 2)], ids=["up", "down"])
def test_a_resampled_layer_is_a_layer_of_resampled_inputs(dims, mode, size):
    mode, _, smooth = mode.partition(", ")

    def change(h):
        return F.interpolate(h, size=size[:dims], mode=mode, antialias=bool(smooth))

    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    layers = {"i": conv(3, 8, 1), "a": conv(8, 8, 2), "o": conv(8, 2, 1)}
    nets = [Net(lambda s, x, f=f: s.o(F.relu(s.a(f(s, x)))).flatten(2).mean(2), **layers)
            for f in (lambda s, x: change(s.i(x)), lambda s, x: s.i(change(x)))]  # fmt: skip
    x = normal(2, 3, *(4, 5, 3)[:dims])
    for got, expected in zip(*(lzr.kernel(net, init=lzr.init.variance(1.5, 0.2))(x) for net in nets), strict=True):
        close(got, expected)


def test_layer_norm_makes_every_variance_one():
    net = S(L(7, 8), nn.ReLU(), nn.LayerNorm(8, eps=0.0), L(8, 1, bias=False))
    k = lzr.kernel(net, init={"[03].*": lzr.init.variance(1.5, 0.3)})
    kernel, _ = arccos(1.5 * X @ X.T / 7 + 0.3)
    mean = ((1.5 * X.square().mean(1) + 0.3) / (2 * math.pi)).sqrt()
    v = (kernel - mean[:, None] * mean).diagonal()
    close(k.nngp(X), 1.5 * (kernel - mean[:, None] * mean) / (v[:, None] * v).sqrt(), 1e-7)
    close(k.nngp(X).diagonal(), torch.full((5,), 1.5, dtype=DOUBLE), 1e-12)


def over(h: Tensor, dims) -> Tensor:
    v, m = torch.var_mean(h, dims, correction=0, keepdim=True)
    return (h - m) * torch.rsqrt(v + 1e-5)


def squares(h: Tensor, dims) -> Tensor:
    h = h - h.mean(dims, keepdim=True)
    return h / (h**2).mean(dims, keepdim=True).add(1e-5).sqrt()


def root_mean_square(h: Tensor, dims) -> Tensor:
    return h / (h.to(h.dtype).square().mean(dims).unsqueeze(-1) + 1e-5) ** 0.5


def deviation(h: Tensor, dims) -> Tensor:
    return (h - h.mean(dims, keepdim=True)) / (h.std(dims, keepdim=True) ** 2 + h.new_tensor(1e-5)).sqrt()


BY_HAND = {
    "var_mean": (over, -1, lambda h: F.layer_norm(h, h.shape[-1:])),
    "squares": (squares, -1, lambda h: F.layer_norm(h, h.shape[-1:])),
    "std": (deviation, (-1,), lambda h: F.layer_norm(h, h.shape[-1:])),
    "root mean square": (root_mean_square, -1, lambda h: F.rms_norm(h, h.shape[-1:], eps=1e-5)),
    "channels": (over, 1, lambda h: F.layer_norm(h.movedim(1, -1), h.shape[1:2]).movedim(-1, 1)),
    "channels and positions": (squares, (1, 2, 3), lambda h: F.group_norm(h, 1)),
}


@pytest.mark.parametrize("after", [torch.relu, torch.tanh, lambda h: h], ids=["relu", "tanh", "nothing"])
@pytest.mark.parametrize("name", BY_HAND)
def test_norms_by_hand_are_torchs_norms(name, after):
    """Of Gaussian features and of others, in both kernels, within a batch, between two and in tiles."""
    hand, dims, norm = BY_HAND[name]
    images = name.startswith("channels")
    first, last = (nn.Conv2d(3, 8, 3), nn.Conv2d(8, 64, 1)) if images else (L(7, 8), L(8, 64))
    x = IMG if images else normal(5, 3, 7)

    class Normed(nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.first, self.last, self.norm = first, last, norm

        def forward(self, x):
            h = torch.relu(self.last(self.norm(after(self.first(x)))))
            return h.mean((2, 3)) if images else h.mean(1)

    by_hand, own = (lzr.kernel(Normed(f), init=lzr.init.variance(1.5, 0.2)) for f in (lambda h: hand(h, dims), norm))
    for a, b in zip((*by_hand(x), *by_hand(x[:2], x[1:])), (*own(x), *own(x[:2], x[1:])), strict=True):
        close(a, b, 1e-12)
    close(by_hand.diagonal(x, "ntk"), own.diagonal(x, "ntk"), 1e-12)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("phi", [F.relu, torch.tanh, F.gelu, F.softplus])
def test_a_nonlinearity_of_what_is_zero_up_to_rounding_adds_nothing(phi, precision):
    def forward(s, x, more):
        h = F.relu(s.i(x))
        h = h - h.mean(1, keepdim=True)
        return s.o(s.a(h) + (phi(s.b(h.mean(1))) - phi(torch.zeros(()))).unsqueeze(1) if more else s.a(h))

    x = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(0), dtype=precision)
    kernels = []
    for more in (True, False):
        layers = {name: nn.Linear(64 if name != "i" else 5, 64, bias=False) for name in "iabo"}
        kernels.append(lzr.kernel(Net(lambda s, x, more=more: forward(s, x, more), **layers), init=lzr.init.variance(1.3, 0.0)))
    for got, expected in zip(*(k(x) for k in kernels), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_where_a_tangent_kernel_alone_is_not_finite_its_place_is_told():
    kernel = lzr.kernel(Net(lambda s, x: s.o(s.i(x).abs().sqrt()), i=nn.Linear(7, 8), o=nn.Linear(8, 2)))
    assert bool(kernel.nngp(X).isfinite().all())
    with pytest.raises(KernelError, match=r"sqrt at .* as steep as a root, .* no finite second moment .* k\.nngp\(x\)"):
        kernel.ntk(X)


def test_gated_unit_is_the_product():
    net = Gated()
    k = lzr.kernel(net, init={"[ab].*": lzr.init.variance(1.5, 0.0), "o.*": lzr.init.variance(1.0, 0.0)})
    first = 1.5 * X @ X.T / 7
    f, slope = arccos(first)
    close(k.nngp(X), f * first, 1e-7)
    close(k.ntk(X), 2 * f * first + slope * first * first, 1e-7)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.o = L(7, 8), L(7, 8), L(8, 1)

    def forward(self, x):
        return self.o(torch.relu(self.a(x)) * self.b(x))


NETS = {"mlp": (mlp, X), "convnet": (convnet, IMG), "pooled": (pooled, IMG)}


@pytest.mark.parametrize("name", NETS)
def test_tiles_do_not_matter(name, monkeypatch):
    net, x = NETS[name]
    k = lzr.kernel(net(), init=lzr.init.variance(1.5, 0.1))
    square, oblong = k(x), k(x, x[:3] + 1)
    monkeypatch.setattr(room_of_kernel(), "TILE", 8)
    for whole, tiled in zip((*square, *oblong), (*k(x), *k(x, x[:3] + 1)), strict=True):
        close(tiled, whole, 1e-13)


def room_of_kernel():
    import importlib

    return importlib.import_module("lazyrich.lazy.kernel")


@pytest.mark.parametrize("name", NETS)
def test_symmetric_and_rectangular_paths_agree(name):
    net, x = NETS[name]
    k = lzr.kernel(net(), init=lzr.init.variance(1.5, 0.1))
    apart = torch.cat([x, x + 0.5])
    whole = k(apart)
    n = len(x)
    for part, got in zip(whole, k(x, x + 0.5), strict=True):
        close(got, part[:n, n:], 1e-12)
    for part, got in zip(whole, k(x), strict=True):
        close(got, part[:n, :n], 1e-12)
        close(part, part.T, 1e-12)


@pytest.mark.parametrize("name", NETS)
def test_asking_for_one_kernel_or_the_diagonal_gives_the_same(name):
    net, x = NETS[name]
    k = lzr.kernel(net(), init=lzr.init.variance(1.5, 0.1))
    nngp, ntk = k(x, get=("nngp", "ntk"))
    close(k.nngp(x), nngp, 0)
    close(k.ntk(x), ntk, 0)
    close(k.diagonal(x), nngp.diagonal(), 1e-12)
    close(k.diagonal(x, "ntk"), ntk.diagonal(), 1e-12)
    swapped = k(x, get=("ntk", "nngp"))
    close(swapped[0], ntk, 0)


@pytest.mark.parametrize("name", NETS)
def test_order_of_samples_does_not_matter_and_kernels_are_positive(name):
    net, x = NETS[name]
    k = lzr.kernel(net(), init=lzr.init.variance(1.5, 0.1))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    for a, b in zip(k(x), k(x[order]), strict=True):
        close(b, a[order][:, order], 1e-12)
        assert float(torch.linalg.eigvalsh(a).min()) > 0


def test_widths_do_not_matter():
    for make, x in ((mlp, X), (convnet, IMG), (pooled, IMG)):
        one, two = (lzr.kernel(make(n=n), init=lzr.init.variance(1.5, 0.1))(x) for n in (4, 12))
        for a, b in zip(one, two, strict=True):
            close(a, b, 1e-12)


def test_integer_inputs_are_read_as_tokens():
    net = S(nn.Embedding(9, 6), L(6, 1, bias=False))
    x = torch.tensor([[1, 2], [1, 1], [0, 2]])
    k = lzr.kernel(net, init={"1.*": lzr.init.variance(1.5)})
    same = (x[:, None] == x[None]).double()
    close(k.nngp(x), 1.5 * same, 1e-5)


def test_repeated_tokens_under_a_mean():
    net = Mean(S(nn.Embedding(9, 6), L(6, 6, bias=False)))
    x = torch.tensor([[1, 2, 1], [1, 1, 1], [0, 2, 0]])
    counts = F.one_hot(x, 9).double().mean(1)
    k = lzr.kernel(net, init={"body.1.*": lzr.init.variance(1.5)})
    close(k.nngp(x).double(), 1.5 * counts @ counts.T, 1e-5)


class Mean(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x).mean(1)


def test_a_constant_matrix_of_another_precision_is_read_in_the_inputs_own():
    """As ``torch.eye`` makes it inside of a network that is asked in float64."""
    x = normal(3, 6, 7)
    one, other = (
        lzr.kernel(Mean(S(L(7, 8), nn.ReLU(), mixing, L(8, 1))), init=lzr.init.variance(1.5, 0.1))(x)
        for mixing in (Mixing(), nn.Identity())
    )
    for got, expected in zip(one, other, strict=True):
        close(got, expected)


class Mixing(nn.Module):
    def forward(self, h):
        return torch.einsum("vu,nuc->nvc", torch.eye(6), h)


class Affine(nn.Module):
    def forward(self, f):
        return 1 - 2 * f


def ended(last: nn.Module, outputs: int = 3) -> nn.Module:
    return S(L(7, 16), nn.ReLU(), L(16, outputs), last)


def test_a_nonlinearity_behind_the_readout_leaves_the_nngp_and_the_mean_gradients():
    with seeded(0):
        k = lzr.kernel(ended(nn.Tanh()))
    assert k.nngp(X).shape == (5, 5) and set(k.gradients(X)) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert str(k.explain(X)).splitlines()[-1].startswith("The NNGP can be computed (k.nngp), the tangent kernel not: tanh at")
    for ask in (k.ntk, lambda x: k.diagonal(x, "ntk")):
        with pytest.raises(KernelError, match=r"^tanh at .*behind the readout phi'\(f\).*random at every width.*k.nngp\(x\)$"):
            ask(X)
    plan = lzr.plan(lzr.Family(lambda n=16: S(L(7, n), nn.ReLU(), L(n, 100), nn.Tanh()), base=16), lzr.ntk(), "sgd")
    with pytest.raises(KernelError, match="behind the readout"):
        lzr.kernel(plan).ntk(X)


@pytest.mark.parametrize("net", [ended(Affine()), S(L(7, 128), nn.ReLU()), ended(nn.Tanh()).requires_grad_(False)])
def test_outputs_that_are_many_or_linear_or_frozen_keep_their_tangent_kernel(net):
    assert bool(lzr.kernel(net).ntk(X).isfinite().all())


class Adjacent(nn.Module):
    """A matrix over the positions of the inputs, made in a way of its own."""

    def __init__(self, matrix) -> None:
        super().__init__()
        self.register_buffer("adjacent", torch.eye(6).roll(1, 0))
        self.i, self.o, self.matrix = L(7, 8), L(8, 1), matrix

    def forward(self, x):
        return self.o(F.relu(self.i(self.matrix(self.adjacent, x))).mean(1))


@pytest.mark.parametrize(
    "matrix",
    [
        lambda a, x: a.to(x) @ x,
        lambda a, x: torch.einsum("vu,nuc->nvc", a.to(x.dtype), x),
        lambda a, x: torch.eye(6, dtype=x.dtype).roll(1, 0) @ x,
        lambda a, x: (a @ x.float()).type_as(a),
    ],
)
def test_casts_of_numbers_follow_the_inputs_whatever_the_modules_precision(matrix):
    """A trace holds the precision of the parameters."""
    x = normal(3, 6, 7)
    one, other = (lzr.kernel(net, init=lzr.init.variance(1.5, 0.1))(x) for net in (Adjacent(matrix), Adjacent(lambda a, x: x)))
    for got, expected in zip(one, other, strict=True):
        close(got, expected)


def test_what_fails_on_numbers_alone_says_where():
    with pytest.raises(KernelError, match=r"^index at .*Adjacent.*: on what holds no weights .*IndexError.*; give inputs"):
        lzr.kernel(Adjacent(lambda a, x: x[:, [0, 9]])).nngp(normal(3, 6, 7))


# schemes


def test_scheme_ntk_is_the_default_and_richness_below_a_half_has_its_kernel():
    init = lzr.init.variance(1.5, 0.2)
    one = lzr.kernel(mlp(), init=init)(X)
    for scheme in (lzr.ntk(), lzr.richness(0.25)):
        for a, b in zip(one, lzr.kernel(mlp(), scheme, init)(X), strict=True):
            close(a, b, 1e-12)


def test_standard_trains_the_hidden_and_output_matrices_only():
    """At the rate 1/n input weights, biases and everything that is not summed over a width vanish from the kernel."""
    k = lzr.kernel(mlp(3), lzr.standard(max_stable=True), init=lzr.init.variance(1.5, 0.2))
    nngp, ntk = recursion(X, 3, 1.5, 0.2, rates=[(0.0, 0.0), (1.0, 0.0), (1.0, 0.0)])
    close(k.nngp(X), nngp, 1e-7)
    close(k.ntk(X), ntk, 1e-7)


@pytest.mark.parametrize("scheme", [lzr.mup(), lzr.mean_field(), lzr.richness(0.5), lzr.standard()], ids=lambda s: s.name)
def test_a_scheme_without_a_kernel_is_refused(scheme):
    with pytest.raises(KernelError, match=r"under SGD is .* no kernel; take ntk\(\)"):
        lzr.kernel(mlp(), scheme)


def test_a_kernel_redrawn_is_that_of_the_other_variances_and_traces_nothing(monkeypatch):
    k = lzr.kernel(convnet(), init=lzr.init.variance(1.0, 0.1))
    before = k.nngp(IMG)
    inits = (lzr.init.variance(2.0, 0.3), {"*": lzr.init.variance(1.5, 0.2), "0.*": lzr.init.variance(3.0, 0.0)})
    want = [lzr.kernel(k.module, init=init)(IMG) for init in inits]
    monkeypatch.setattr(sys.modules["lazyrich.lazy.kernel"], "trace", None)
    for init, kernels in zip(inits, want, strict=True):
        for got, expected in zip(k.redrawn(init)(IMG), kernels, strict=True):
            close(got, expected)
    close(k.nngp(IMG), before)
    with pytest.raises(KernelError, match="got init float, expected lzr.init.variance"):
        k.redrawn(2.0)
    monkeypatch.undo()
    planned = lzr.kernel(lzr.plan(lzr.Family(lzr.zoo.mlp, base=8), lzr.ntk(), "sgd"))
    with pytest.raises(KernelError, match="a plan has laws of its own"):
        planned.redrawn(lzr.init.variance(2.0, 0.0))


def test_frozen_tensors_contribute_nothing():
    net = mlp(3)
    net[0].weight.requires_grad_(False)
    net[2].bias.requires_grad_(False)
    w, b = 1.5, 0.2
    _, ntk = recursion(X, 3, w, b, rates=[(0.0, b), (w, 0.0), (w, b)])
    close(lzr.kernel(net, init=lzr.init.variance(w, b)).ntk(X), ntk, 1e-7)


def test_initialisation_by_pattern_and_own_laws_otherwise():
    net = mlp(2)
    k = lzr.kernel(net, init={"2.weight": lzr.init.variance(3.0)})
    first = (X @ X.T + 1) / 21  # U(-1/sqrt(7), 1/sqrt(7)) for weights and biases
    f, _ = arccos(first)
    close(k.nngp(X), 3 * f + 1 / 24, 1e-7)  # the last bias: U(-1/sqrt(8), 1/sqrt(8))
    with pytest.raises(KernelError, match="pattern 'nothing' matches no tensor"):
        lzr.kernel(net, init={"nothing": lzr.init.variance()})


def torch_factory(n):
    return S(L(7, n), nn.ReLU(), L(n, n), nn.ReLU(), L(n, 64))


def test_own_laws_describe_the_network_that_torch_draws():
    """Hidden biases of torch are U(+-1/sqrt(n)), so the module is built at the width that is compared."""
    n = 128
    k = lzr.kernel(torch_factory(n))
    with torch.no_grad():
        found = []
        for seed in range(100):
            with seeded(seed):
                f = torch_factory(n).double()(X)
            found.append(f @ f.T / 64)
    nngp = k.nngp(X)
    assert float((torch.stack(found).mean(0) - nngp).norm() / nngp.norm()) < 0.05


FEW = pytest.mark.filterwarnings("ignore:got tensors whose laws could only be measured")


@FEW
def test_measured_laws_where_the_module_was_drawn_otherwise():
    with seeded(0):
        net = S(L(7, 300), nn.ReLU(), L(300, 1))
        nn.init.normal_(net[0].weight, std=0.5)
        nn.init.zeros_(net[0].bias)
    law = lzr.kernel(net).weights.laws
    assert law["0.weight"].std == pytest.approx(0.5, rel=0.05) and law["0.weight"].mean == 0
    assert law["0.bias"].std == 0


def test_laws_of_a_few_entries_are_used_with_a_word_and_never_refused_for_their_mean():
    with seeded(0):
        net = S(L(7, 64), nn.ReLU(), L(64, 1))
        nn.init.normal_(net[2].weight, std=0.5)
        nn.init.constant_(net[2].bias, 0.51)
    with pytest.warns(UserWarning, match=r"'2.weight' \(64\), '2.bias' \(1\); expected 4096 .* about 141%.*init="):
        kernel = lzr.kernel(net)
    plain = lzr.kernel(S(L(7, 64), nn.ReLU(), L(64, 1)), init={"2.weight": lzr.init.variance(32.0), "2.bias": lzr.init.zero()})
    weight = kernel.weights.laws["2.weight"].std ** 2 * 64
    assert torch.allclose(kernel.nngp(X), plain.nngp(X) * weight / 32 + 0.51**2)
    lzr.kernel(net, init=lzr.init.variance(2.0, 0.1))  # which replaces both, and needs no word
    with pytest.warns(UserWarning, match=r"'2.weight' \(64\), '2.bias' \(1\); "):
        lzr.kernel(net, init={"0.*": lzr.init.variance(2.0, 0.1)})


def test_a_module_that_draws_its_own_tensors_again_is_measured_nowhere():
    class Own(nn.Linear):
        def reset_parameters(self):
            nn.init.normal_(self.weight, 0, 0.3)
            nn.init.normal_(self.bias, 0, 0.2)

    assert {name: law.std for name, law in lzr.kernel(Own(3, 1)).weights.laws.items()} == {"weight": 0.3, "bias": 0.2}


def empirical(model, x, rates):
    """Tangent kernel of one output of a real network: gradients weighted by learning rates."""
    rows = []
    for one in x:
        f = model(one[None])[0, 0]
        gradients = torch.autograd.grad(f, list(model.parameters()))
        named = zip(dict(model.named_parameters()), gradients, strict=True)
        rows.append(torch.cat([(rates[name] ** 0.5 * g).flatten() for name, g in named]))
    return torch.stack(rows) @ torch.stack(rows).T


PLANNED = [lzr.ntk(), lzr.standard(max_stable=True), lzr.richness(0.25), lzr.richness(0.25, gamma=2.0)]


@pytest.mark.parametrize("overrides", [None, {"0.weight": {"lr": 3.0}, "4.weight": {"std": 0.5}}], ids=["plain", "overridden"])
@pytest.mark.parametrize("scheme", PLANNED, ids=lambda s: s.name)
def test_a_plan_has_the_kernel_that_its_wide_networks_tend_to(scheme, overrides):
    """Gradient descent with the plan's own learning rates at a large width."""
    family = lzr.Family(lambda n: S(L(7, n), nn.ReLU(), L(n, n), nn.ReLU(), L(n, 1)), base=16)
    plan = lzr.plan(family, scheme, "sgd", overrides=overrides)
    k = lzr.kernel(plan)
    width = 2048 if scheme.global_rate else 512  # what vanishes falls as base / width there
    found = []
    for seed in range(2 if scheme.global_rate else 4):
        model = plan.build(width, seed=seed)
        groups = plan.param_groups(model, lr=1.0)
        by_id = {id(p): group["lr"] for group in groups for p in group["params"]}
        rates = {name: by_id[id(p)] for name, p in model.named_parameters()}
        model = model.double()
        found.append(empirical(model, X, rates))
    ntk = k.ntk(X)
    mean = torch.stack(found).mean(0)
    assert float((mean - ntk).norm() / ntk.norm()) < 0.08, (mean, ntk)


def test_what_a_plans_factory_freezes_contributes_nothing():
    """Under the plan's own rates too; one number of all features has a kernel only so."""

    def factory(n, frozen=("2.weight", "3.gain")):
        net = S(L(7, n), nn.ReLU(), L(n, n), Gain(), nn.ReLU(), L(n, 1))
        for name in frozen:
            net.get_parameter(name).requires_grad_(False)
        return net

    one = lzr.kernel(lzr.plan(lzr.Family(factory, base=8), lzr.ntk(), "sgd"))
    assert one.weights.frozen == {"2.weight", "3.gain"}
    plain = lzr.kernel(lzr.plan(lzr.Family(lambda n: factory(n, ("3.gain",)), base=8), lzr.ntk(), "sgd"))
    close(one.nngp(X), plain.nngp(X))
    close(one.ntk(X), plain.reweighted(one.weights).ntk(X))
    assert bool((one.ntk(X).diagonal() < plain.ntk(X).diagonal()).all())


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.full((1,), 1.5))

    def forward(self, h):
        return self.gain * h


def test_plan_for_another_optimizer_and_extra_arguments_are_refused():
    family = lzr.Family(lambda n: S(L(7, n), nn.ReLU(), L(n, n), nn.ReLU(), L(n, 1)), base=16)
    with pytest.raises(KernelError, match="adamw; the tangent kernel is the limit of gradient descent"):
        lzr.kernel(lzr.plan(family, lzr.ntk(), "adamw"))
    with pytest.raises(KernelError, match="a plan has a scheme and laws of its own"):
        lzr.kernel(lzr.plan(family, lzr.ntk(), "sgd"), lzr.ntk())


# inputs


@pytest.mark.parametrize(
    ("x1", "x2", "says"),
    [
        (X.log(), None, "not finite"),
        (X, X.float(), "may differ only in their number"),
        (X, X[:, :5], "may differ only in their number"),
        (X[:0], None, "N at least 1"),
        ([[1.0]], None, "got inputs list, expected a tensor"),
        (X[:, :5], None, "give inputs of the shape that it reads"),
    ],
    ids=["nan", "dtype", "size", "empty", "list", "features"],
)
def test_inputs_that_do_not_fit_are_refused(x1, x2, says):
    with pytest.raises(KernelError, match=says):
        lzr.kernel(mlp())(x1, x2)


def test_unknown_kernels_and_networks_are_refused():
    with pytest.raises(KernelError, match="expected 'nngp' and/or 'ntk'"):
        lzr.kernel(mlp())(X, get=("ntkk",))
    with pytest.raises(KernelError, match="expected an nn.Module or a plan"):
        lzr.kernel(3)
    assert callable(room)


def test_gradients_flow_to_the_inputs():
    x = X[:2].clone().requires_grad_(True)
    k = lzr.kernel(mlp(3), init=lzr.init.variance(1.5, 0.1))
    assert torch.autograd.gradcheck(lambda v: k.ntk(v, X[2:4]), (x,))
    assert torch.autograd.gradcheck(lambda v: k.nngp(v), (x,))


def test_where_patterns_overlap_the_last_one_counts_as_in_a_plan():
    wide, narrow = lzr.init.variance(2.0, 0.1), lzr.init.variance(1.0, 0.0)
    net = mlp(2)
    both = lzr.kernel(net, init={"*": wide, "2.*": narrow}).nngp(X)
    apart = lzr.kernel(net, init={"0.*": wide, "2.*": narrow}).nngp(X)
    assert torch.equal(both, apart)
    assert not torch.allclose(both, lzr.kernel(net, init={"2.*": narrow, "*": wide}).nngp(X))


@FEW
@pytest.mark.parametrize(
    "how",
    [lambda t: t.expand(1, 6, -1), lambda t: t.repeat(1, 6, 1), lambda t: t[:1, :, :16]],
    ids=["expand", "repeat", "whole slice"],
)
def test_a_repeated_parameter_is_one(how):
    class Shifted(nn.Module):
        def __init__(self, how):
            super().__init__()
            torch.manual_seed(0)
            self.i, self.o, self.t, self.how = nn.Linear(5, 16), nn.Linear(16, 2), nn.Parameter(torch.randn(1, 1, 16)), how

        def forward(self, x):
            return self.o((self.i(x) + self.how(self.t)).mean(1))

    x = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, repeated = lzr.kernel(Shifted(lambda t: t)), lzr.kernel(Shifted(how))
    for one, other in zip(plain(x), repeated(x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("on_data", "padded"), [(False, False), (True, False), (False, True)])
def test_attention_by_hand_is_torchs_attention(tied, on_data, padded):
    """As in popular code: heads split by a view, a causal mask from a buffer, a bias of positions; on data or features; padding."""

    class Attend(nn.Module):
        def __init__(self, by_hand):
            super().__init__()
            self.first, self.by_hand = nn.Linear(5, 8), by_hand
            d = 5 if on_data else 8
            self.q, self.v, self.out = nn.Linear(d, 8), nn.Linear(d, 8), nn.Linear(8, 1)
            self.k = self.q if tied else nn.Linear(d, 8)
            self.register_buffer("seen", torch.ones(6, 6, dtype=torch.bool).tril())
            self.register_buffer("near", -(torch.arange(6.0)[:, None] - torch.arange(6.0)).abs())

        def forward(self, x):
            h = x if on_data else torch.relu(self.first(x))
            q, k, v = (f(h).view(-1, 6, 2, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
            own = x[:, None, None, :, 0] < -10 + 9.5 * padded
            unseen = ~self.seen | (own & ~torch.eye(6, dtype=torch.bool))  # a position looks at itself at least
            if self.by_hand:
                z = (q @ k.mT / 4 + self.near).masked_fill(unseen if padded else ~self.seen, -torch.inf).softmax(-1) @ v
            else:
                mask = self.near.masked_fill(unseen if padded else ~self.seen, -torch.inf)
                mask = mask if padded else mask.expand(2, 6, 6)
                z = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1 / 4)
            return self.out(torch.relu(z.transpose(1, 2).reshape(-1, 6, 8)).mean(1))

    x = torch.randn(4, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hand, fused = (lzr.kernel(Attend(by_hand), init=lzr.init.variance(2.0, 0.1))(x) for by_hand in (True, False))
    for got, expected in zip(hand, fused, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("end", [(nn.Flatten(), nn.LazyLinear(1)), (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(1))])
@pytest.mark.parametrize("conv", [{"kernel_size": 3, "padding": 1}, {"kernel_size": 3, "padding": 2, "dilation": 2},
                                  {"kernel_size": 5, "padding": 2}, {"kernel_size": (1, 3), "padding": (0, 1)}])  # fmt: skip
def test_windows_on_a_flat_axis_equal_windows_by_slices(conv, end):
    net = nn.Sequential(nn.Conv2d(2, 4, **conv), nn.ReLU(), nn.Conv2d(4, 4, **conv), nn.ReLU(), *end)
    x = torch.randn(3, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    net.double()(x)
    kernel = lzr.kernel(net, init=lzr.init.variance(2.0, 0.1))
    assert torch.allclose(kernel.ntk(x, x + 1), kernel.ntk(x.clone().requires_grad_(), x + 1).detach(), rtol=1e-12, atol=0)


@FEW
@pytest.mark.parametrize("seed", range(3))
def test_a_layer_drawn_by_another_law_is_not_taken_for_torchs(seed):
    """Scales within a third of torch's own; a plain layer keeps torch's law exactly."""
    torch.manual_seed(seed)
    others = (nn.init.xavier_uniform_, lambda w: nn.init.normal_(w, 0, 0.17), lambda w: nn.init.uniform_(w, -0.33, 0.33))
    assert lzr.kernel(nn.Linear(6, 64)).weights.laws["weight"].std == pytest.approx(18**-0.5, rel=1e-12)
    for draw in others:
        layer = nn.Linear(6, 64)
        draw(layer.weight)
        found = lzr.kernel(layer).weights.laws["weight"].std
        assert found == pytest.approx(float(layer.weight.detach().std()), rel=0.01)


@pytest.mark.parametrize(("n", "area"), [(1, 1), (5, 8), (7, 1), (9, 4), (40, 64), (100, 961)])
def test_strips_cover_the_upper_half_once(n, area):
    seen = torch.zeros(n, n, dtype=torch.long)
    for rows, columns in strips(n, area):
        seen[rows, columns] += 1
        assert (rows.stop - rows.start) * (columns.stop - columns.start) <= area
        assert columns.start > rows.start or columns.stop >= rows.stop, "the first tile of a strip holds all of its diagonal"
    assert bool((seen.triu() == torch.ones(n, n, dtype=torch.long).triu()).all())
    assert int(seen.max()) == 1


def test_strips_of_many_samples_are_found_without_listing_all_ways():
    """A choice among thousands of heights would take minutes before the first tile."""
    first = next(strips(100_000, 64))
    assert first[0].start == first[1].start == 0


def test_the_gradients_of_all_tensors_take_one_trace(monkeypatch):
    module, traces = sys.modules["lazyrich.lazy.kernel"], []
    real = module.trace
    monkeypatch.setattr(module, "trace", lambda *args: traces.append(1) or real(*args))
    k, x = lzr.kernel(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))), torch.eye(3, dtype=torch.float64)
    found = k.gradients(x)
    assert len(found) == 4
    assert len(traces) == 1


class Adapted(nn.Module):
    """A frozen layer with an adapter of two factors, of which the second starts at zero, and a readout that may too."""

    def __init__(self, width: int, head: float) -> None:
        super().__init__()
        self.i, self.a, self.b, self.o = (L(w, n, bias=False) for w, n in ((7, width), (7, width), (width, width), (width, 2)))
        for layer in (self.i, self.a, self.o):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        self.i.requires_grad_(False)
        nn.init.zeros_(self.b.weight)
        if not head:
            nn.init.zeros_(self.o.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.o(F.relu(self.i(x) + self.b(self.a(x))))


@pytest.mark.parametrize("head", [0.0, 1.0])
def test_weights_that_start_at_zero_are_trained(head):
    with seeded(0):
        net = Adapted(1024, head).double()
    k = lzr.kernel(
        net, init=dict.fromkeys(("i.weight", "a.weight", "o.weight")[: 3 if head else 2], lzr.init.variance(1.0, 0.0))
    )
    rates = {"a.weight": 1 / 7, "b.weight": 1 / 1024, "o.weight": 1 / 1024}
    finite, parts = (lzr.ntk_of(net, X, outputs="trace", rates=rates, per=per) for per in (None, "tensor"))
    exact = k.ntk(X)
    assert float((finite / 2 - exact).norm() / exact.norm()) < 0.1
    assert float(parts["a.weight"].abs().max()) == 0  # behind a factor that is zero
    for name in ("b.weight", "o.weight"):
        alone = k.reweighted(replace(k.weights, frozen=frozenset(rates) - {name} | k.weights.frozen)).ntk(X)
        assert float((parts[name] / 2 - alone).norm()) < 0.1 * float(exact.norm())
        assert bool(alone.any()) == bool(head or name == "o.weight")


class Waves(nn.Module):
    """A first layer on few inputs, whose law is kept or replaced by a normal one."""

    def __init__(self, width: int = 4096, inputs: int = 1, act=lambda u: torch.sin(10 * u), normal: bool = False) -> None:
        super().__init__()
        self.i, self.o, self.act = L(inputs, width), L(width, 2), act
        if normal:
            nn.init.normal_(self.i.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.o(self.act(self.i(x)))


def test_few_inputs_with_uniform_weights_are_told_once_with_the_size_of_the_error():
    k, x = lzr.kernel(Waves()), normal(8, 1)
    with pytest.warns(UserWarning, match=r"'i.weight', which sums 1 input\(s\) .*behind sin at .*variance\(w, b\)$") as told:
        exact = k.layers(x)["o"]
        k(x, x[:2])
        k.gradients(x)
    assert len(told) == 1
    said = float(str(told[0].message).split("off by about ")[1].split("%")[0]) / 100
    with seeded(0):
        w, b = (torch.rand(2, 400_000, 1, dtype=DOUBLE) * 2 - 1).unbind()
        phi = torch.sin(10 * (w @ x.T + b))
        truth = phi.T @ phi / len(phi) / 3 + k.weights.laws["o.bias"].std ** 2
    assert float((exact - truth).norm() / truth.norm()) == pytest.approx(said, rel=0.7)


def normed_waves():
    """A norm behind which little is left of a bias of variance one."""
    net = Waves(8192, act=lambda u: torch.sin(2 * F.layer_norm(u, u.shape[-1:])))
    nn.init.normal_(net.i.weight, std=30.0)
    nn.init.uniform_(net.i.bias, -math.sqrt(3), math.sqrt(3))
    return net


def biased_waves(act=torch.sin, inputs=2, width=4096):
    net = Waves(width, inputs, lambda u: act(2 * u))
    nn.init.normal_(net.i.weight, std=0.4)
    return net


def test_one_large_sample_among_small_ones_is_told_of_too():
    x = torch.tensor([[1e-3]] * 7 + [[1.0]], dtype=DOUBLE)
    with pytest.warns(UserWarning, match="'i.weight', which sums 1"):
        lzr.kernel(Waves(64), init=lzr.init.lecun("uniform")).nngp(x)
    lzr.kernel(Waves(64), init=lzr.init.lecun("uniform")).nngp(x[:7])


def test_biases_that_are_not_normal_are_told_of_with_the_size_of_the_error():
    x = torch.tensor([[0.5, -0.3], [0.2, 0.9]], dtype=DOUBLE)
    with pytest.warns(UserWarning, match=r"'i.bias', whose entries are not normal.*behind sin at .*variance\(w, b\)$") as told:
        lzr.kernel(biased_waves()).nngp(x)
    assert 0.1 < float(str(told[0].message).split("off by about ")[1].split("%")[0]) / 100 < 0.3  # by sampling: 11 to 21 %
    lzr.kernel(biased_waves(F.relu)).nngp(x)
    lzr.kernel(biased_waves(), init={"i.bias": lzr.init.variance(0.0, 0.3)}).nngp(x)
    with pytest.warns(UserWarning, match=r"'i.bias', whose entries are not normal"):
        wide = biased_waves(inputs=100, width=8192)
        nn.init.uniform_(wide.i.bias, -1.0, 1.0)
        nn.init.normal_(wide.i.weight, std=0.02)
        lzr.kernel(wide).nngp(normal(2, 100))


def test_many_inputs_with_sparse_weights_are_told_of_and_with_others_are_not():
    """Of a square sum with one entry in fifty kept, excess 147 over 100 inputs: E u^4 is 3 + 147 / 100 * E x^4 / (E x^2)^2."""
    net, x = Waves(4096, 100, torch.square), normal(6, 100)
    with seeded(0):
        kept = torch.rand_like(net.i.weight) < 0.02
        nn.init.zeros_(net.i.bias)
        nn.init.normal_(net.i.weight, std=0.02**-0.5).data.mul_(kept)
    with pytest.warns(UserWarning, match=r"'i.weight', which sums 100 input\(s\)") as told:
        lzr.kernel(net).nngp(x)
    said = float(str(told[0].message).split("off by about ")[1].split("%")[0]) / 100
    k, fourth = x @ x.T, x.square() @ x.square().T
    normal_ones = k.diagonal()[:, None] * k.diagonal() + 2 * k.square()
    assert said == pytest.approx(float((147 * fourth).norm() / normal_ones.norm()), rel=0.25)
    lzr.kernel(Waves(64, 100, torch.square)).nngp(x)


@pytest.mark.parametrize("excess", [0.0, -0.6, -1.2, -1.6, -2.0, 3.0])
def test_entries_are_drawn_with_the_kurtosis_that_is_asked_for(excess):
    w = few._entries(excess, 8)
    assert w.shape == (few.DRAWS, 8)
    assert float(w.square().mean()) == pytest.approx(1.0, abs=0.02)
    assert float(w.pow(4).mean()) - 3 == pytest.approx(excess, abs=0.05 * (1 + abs(excess)))


@pytest.mark.parametrize(
    ("excess", "inputs", "variance", "bias", "of_bias"),
    [
        (-1.2, 1, 1.0, 0.0, 0.0),
        (-1.2, 1, 1.0, 0.7, 0.0),
        (-1.2, 3, 2.0, 0.5, -1.2),
        (0.0, 2, 1.0, 0.7, -1.2),
        (3.0, 2, 1.0, 0.2, 0.0),
        (90.0, 100, 1.0, 0.0, 0.0),
    ],
)
def test_the_size_of_the_error_of_a_square_is_that_of_fourth_moments(excess, inputs, variance, bias, of_bias):
    """E u^2 v^2 = K_uu K_vv + 2 K_uv^2 + excess sum_i u_i^2 v_i^2, with u_i the parts of u."""
    curve = Curve(Field(Layout(()), (), torch.ones(1, 1), None, False, frozenset()), "", torch.square)
    x = torch.randn(8, inputs, generator=torch.Generator().manual_seed(1), dtype=DOUBLE) * math.sqrt((variance - bias) / inputs)
    k, square = x @ x.T + bias, x.square()
    normal = k.diagonal()[:, None] * k.diagonal() + 2 * k.square()
    more = excess * square @ square.T + of_bias * bias**2
    found = few.effect(curve, excess, inputs, variance, bias, of_bias)
    assert found == pytest.approx(float(more.norm() / normal.norm()), rel=0.1)


def test_biases_count_where_the_kurtosis_of_the_sum_shows():
    """Independent terms: their fourth cumulants add, and are compared with that of the whole, its variance squared."""
    flat, normal = Drawn(0.5, 0.0, 1.0, -1.2), Drawn(1.5, 0.0, 1.0, 0.0)
    assert few._joint([flat], 0.5) == pytest.approx(-1.2)
    assert few._joint([flat, normal], 2.0) == pytest.approx(-1.2 * 0.25 / 4)
    assert few._joint([flat], 2.4) != 0 == few._joint([flat], 2.5)  # five per cent of whole^2
    small = Drawn(0.05, 0.0, 1.0, -1.2)
    assert few._joint([small], 0.24) != 0 == few._joint([small], 0.25) == few._joint([], 1.0)


def test_a_plan_tells_of_few_inputs_too():
    plan = lzr.plan(lzr.Family(Waves, base=64), lzr.ntk(), "sgd")
    with pytest.warns(UserWarning, match="'i.weight', which sums 1"):
        lzr.kernel(plan).nngp(normal(3, 1))
    lzr.kernel(lzr.plan(plan.family, lzr.ntk(), "sgd", init={"i.weight": lzr.init.lecun()})).nngp(normal(3, 1))


def test_a_rule_with_uniform_entries_is_told_of_too():
    with pytest.warns(UserWarning, match="'i.weight', which sums 1"):
        lzr.kernel(Waves(64), init=lzr.init.lecun("uniform")).nngp(normal(3, 1))


@pytest.mark.parametrize(
    ("net", "init"),
    [
        (Waves(8192, normal=True), None),
        (Waves(64), lzr.init.lecun()),
        (Waves(64), lzr.init.variance(1.0, 0.1)),
        (Waves(64, act=F.relu), None),
        (Waves(64, inputs=30), None),
        (Waves(64, act=lambda u: u), None),
        (normed_waves(), None),
    ],
)
def test_nothing_is_said_where_few_inputs_do_no_harm(net, init):
    lzr.kernel(net, init=init)(normal(4, net.i.in_features))


class Headed(nn.Module):
    """A layer of many features, one of one, and something done to both before or behind the readout."""

    def __init__(self, width: int, inside: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.i, self.v, self.a, self.o = L(7, width), L(width, 1), L(width, width), L(width, 3)
        self.inside, self.norm = inside, norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.i(x))
        y = self.o(self.a(h) * self.v(h).sigmoid()) if self.inside else self.o(h) + self.v(h)
        return F.layer_norm(self.o(h), (3,)) if self.norm else y


def planned_heads(**more) -> lzr.lazy.Kernel:
    return lzr.kernel(lzr.plan(lzr.Family(lambda n: Headed(n, **more), base=16), lzr.ntk(), "sgd"))


def test_a_plan_knows_which_axes_stay_as_they_are():
    with pytest.raises(KernelError, match=r"1 feature\(s\) meet 16, which grow"):
        planned_heads(inside=True)(X)
    with pytest.raises(KernelError, match="statistic over 3 outputs"):
        planned_heads(norm=True)(X)
    k = planned_heads()
    layers = k.layers(X)
    torch.testing.assert_close(k.nngp(X), layers["o"] + layers["v"])


def test_a_pass_lets_go_of_the_layers_behind_it():
    layers = [m for i in range(12) for m in (L(3 if i == 0 else 8, 8), nn.ReLU())]
    k, x = lzr.kernel(nn.Sequential(*layers, L(8, 1))), normal(6, 3)
    traced = k.traced(x)
    made, most = [], 0

    def watch(node, value):
        nonlocal most
        if isinstance(value, Field):
            made.extend(weakref.ref(array) for array in (value.nngp, value.ntk))
            most = max(most, sum(ref() is not None for ref in made))

    moments = k._moments(traced, x)
    k._run(traced, (x, x), tangent=True, first=moments, second=moments, watch=watch).output()
    assert len(made) >= 2 * 13
    assert most <= 6, "arrays of every layer are held to the end"


@pytest.mark.parametrize("n", [1, 100, 301])  # the last is mirrored quarter by quarter
def test_the_half_below_the_diagonal_is_the_half_above_it(n):
    tile, whole = torch.randn(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    place(whole, slice(0, n), slice(0, n), tile, symmetric=True)
    close(whole, tile.triu() + tile.triu(1).T, 0.0)


@pytest.mark.parametrize("get", ["nngp", "ntk"])
def test_a_diagonal_that_is_not_finite_is_refused(get):
    class Inverse(nn.Module):
        def __init__(self):
            super().__init__()
            self.i, self.o = L(128, 8), L(8, 1)

        def forward(self, x):
            return self.o(self.i(x) ** -1)

    with pytest.raises(KernelError, match="not finite, first behind linear at module 'o'"):
        lzr.kernel(Inverse()).diagonal(torch.randn(3, 128, dtype=torch.float64), get)
