"""One small network for every rule: a factory of a width, inputs, and what the finite network needs to agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lazyrich as lzr
from lazyrich.lazy.weights import Init

OUT = 16
DOUBLE = torch.float64


class Net(nn.Module):
    """Layers by name and a forward pass written as a function of them."""

    def __init__(self, forward: Callable, **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.written = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.written(self, x)


def root_mean_square(h: Tensor) -> Tensor:
    return h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)


def centred_norm(h: Tensor) -> Tensor:
    variance, mean = torch.var_mean(h, -1, keepdim=True)
    return (h - mean) / torch.sqrt(variance + 1e-5)


def by_deviation(h: Tensor) -> Tensor:
    spread, mean = torch.std_mean(h, -1, keepdim=True)
    return (h - mean) / (spread + 0.1)


@dataclass(frozen=True)
class Case:
    """A network to compare with its infinite-width kernel; ``slack`` is the constant of the 1/width term.

    ``rough`` bounds the relative errors where an expectation is a numerical integral over a kink, of which users are warned. Where
    outputs are random factors of the tangent kernel, its ``mean`` is compared, which users are not given.
    """

    factory: Callable[[int], nn.Module]
    x: Tensor
    init: Init = lzr.init.variance(1.7, 0.3)
    width: int = 96
    draws: int = 8
    forward_draws: int = 100
    slack: float = 3.0
    train: bool = False
    rough: float = 1e-7
    mean: bool = False


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


VEC = normal(4, 5)
VEC[1] = VEC[0] + 0.1 * VEC[1]
SEQ = normal(3, 5, 6)  # channels first
IMG = normal(3, 3, 5, 5)
VOL = normal(3, 2, 3, 4, 3)
WORDS = normal(3, 6, 5)  # positions first
TOKENS = torch.tensor([[0, 1, 2, 3, 1, 1], [0, 1, 4, 2, 1, 0], [3, 3, 2, 0, 0, 1]])
S, L = nn.Sequential, nn.Linear


def dense(n: int, d: int = 5) -> dict[str, nn.Module]:
    return {"i": L(d, n), "a": L(n, n), "b": L(n, n), "o": L(n, OUT)}


def param(*shape: int, std: float = 1.0, mean: float = 0.0) -> nn.Parameter:
    return nn.Parameter(mean + std * torch.randn(*shape))


def starting_at(layer: Any, number: float) -> Any:
    """A layer whose biases start at a number."""
    nn.init.constant_(layer.bias, number)
    return layer


def conv1(n: int, between: nn.Module, positions: int) -> nn.Module:
    """Two convolutions with something between, read out by all positions."""
    return S(nn.Conv1d(5, n, 3, padding=1), nn.ReLU(), between, nn.ReLU(), nn.Flatten(), L(n * positions, OUT))


def depthwise(between: Callable[[Any, Tensor], Tensor], share: int = 1) -> Callable[[int], nn.Module]:
    """A branch (N, n, 6) and its depthwise layers d and e, a pointwise layer p and one of two groups g; a readout of the mean."""

    def factory(n: int) -> nn.Module:
        layers = {name: nn.Conv1d(n, n, 3, padding=1, groups=n) for name in "de"}
        layers |= {"p": nn.Conv1d(n, n, 1), "g": nn.Conv1d(n, n, 1, groups=2), "i": nn.Conv1d(5, n, 1)}
        return Net(lambda s, x: s.o(between(s, s.i(x)).mean(-1)), o=L(n // share, OUT), **layers)

    return factory


def conv2(n: int, between: nn.Module, positions: int) -> nn.Module:
    return S(nn.Conv2d(3, n, 3, padding=1), nn.ReLU(), between, nn.ReLU(), nn.Flatten(), L(n * positions, OUT))


def pooled(n: int, *pool: nn.Module, first: nn.Module | None = None) -> nn.Module:
    """A pooling of correlated positions, read out by all that is left."""
    return S(first or nn.Conv2d(3, n, 3, padding=1), nn.ReLU(), *pool)


def shaped(change: Callable[[Tensor], Tensor], size: Callable[[int], int], last: Callable[[Tensor], Tensor] = lambda h: h):
    """A change of axes between two layers of words."""
    return lambda n: Net(
        lambda s, x: s.o(F.relu(last(change(F.relu(s.i(x)))))),
        i=L(5, n),
        o=L(size(n), OUT),
    )


def after(change: Callable[[Tensor], Tensor], positions: int) -> Callable[[int], nn.Module]:
    """A change of positions (N, 6, n) -> (N, positions, n), then a layer, and a readout of each position by itself."""
    return lambda n: Net(lambda s, x: s.o(F.relu(s.a(change(F.relu(s.i(x)))))), **dense(n))


def attention(n: int, causal: bool = False, mask: Tensor | None = None, tied: bool = False, heads: int = 1):
    layers = dense(n) | {"q": L(n, n), "k": L(n, n), "v": L(n, n), "u": L(n, n)}

    def forward(s, x):
        h = s.i(x)
        keep = mask if mask is None or mask.dtype == torch.bool else mask.to(h)
        split = lambda t: t.unflatten(-1, (heads, n // heads)).transpose(1, 2)  # noqa: E731
        q, k, v = split(s.q(h)), split(s.q(h) if tied else s.k(h)), split(s.v(h))
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=keep, is_causal=causal, scale=heads / n)
        return s.o(F.relu(s.a(z.transpose(1, 2).flatten(2))))

    if tied:
        del layers["k"]
    return Net(forward, **layers)


def masked(n: int, tied: bool) -> nn.Module:
    """Causal attention that looks at no key whose first number is low, as at padding; the mask as Hugging Face's models make it."""

    def forward(s, x):
        h, at = s.i(x), torch.arange(6, device=x.device)
        sample = torch.arange(x.shape[0], device=x.device)[:, None, None, None]
        seen = (x[..., 0] > -0.5)[sample, at[None, None, None, :]] & (at[:, None] >= at)
        q, k, v = (f(h).unflatten(-1, (2, n // 2)).transpose(1, 2) for f in (s.q, s.q if tied else s.k, s.v))
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=2 / n)
        return s.o(F.relu(s.a(z.transpose(1, 2).flatten(2))))

    return Net(forward, q=L(n, n), k=L(n, n), v=L(n, n), **dense(n))


def latents(n: int) -> nn.Module:
    """Learned queries that look at the words, as in the Perceiver, and learned vectors behind a layer of their own."""

    def forward(s, x):
        h, z = s.i(x), s.latents.expand(x.shape[0], -1, -1)
        z = z + (s.q(z) @ s.k(h).transpose(1, 2) / n).softmax(-1) @ s.v(h)
        return s.o(F.relu(s.a(z) + s.b(s.more.repeat(x.shape[0], 1, 1))).mean(1))

    return Net(forward, latents=param(3, n), more=param(1, 3, n), q=L(n, n), k=L(n, n), v=L(n, n), **dense(n))


def windowed(s: Net, x: Tensor) -> Tensor:
    """Attention among every second position, windows beside the samples."""
    h = s.i(x).unflatten(1, (3, 2)).transpose(1, 2).reshape(-1, 3, s.o.in_features)
    z = (s.b(h) @ s.k(h).transpose(1, 2) / h.shape[-1]).softmax(-1) @ s.a(h)
    z = z.reshape(x.shape[0], 2, 3, -1).transpose(1, 2).flatten(1, 2)
    return s.o(F.relu(s.i(x) + s.u(z)).mean(1))


def among_pixels(s: Net, x: Tensor) -> Tensor:
    """Attention of equal queries and keys over both axes of an image."""
    h = s.c(x).flatten(2).transpose(1, 2)
    q = s.a(h)
    return s.o(F.relu((q @ q.transpose(1, 2) / h.shape[-1]).softmax(-1) @ s.b(h)).mean(1))


def by_hand(n: int, way: str, tied: bool = False, heads: int = 1, causal: bool = False, look: Callable = torch.softmax):
    """Attention written as its products: ``way`` names them; ``look`` is what is done to the logits."""
    layers = dense(n) | {"q": L(n, n), "k": L(n, n), "v": L(n, n)}
    d = n // heads

    def forward(s, x):
        h = s.i(x)
        q, k, v = s.q(h), s.q(h) if tied else s.k(h), s.v(h)
        if way == "one head":
            z = look((q @ k.transpose(1, 2)).clone() / n, -1) @ v
        elif way == "heads beside the batch":  # as torch's own module does it
            q, k, v = (t.unflatten(-1, (heads, d)).transpose(1, 2).reshape(-1, 6, d) for t in (q, k, v))
            z = torch.bmm(look(torch.bmm(q * d**-0.5, k.transpose(1, 2)) * d**-0.5, -1), v)
            z = z.reshape(-1, heads, 6, d).transpose(1, 2).flatten(2)
        elif way == "einsum":
            q, k, v = (t.unflatten(-1, (heads, d)) for t in (q, k, v))
            logits = torch.einsum("bqhd,bkhd->bhqk", q, k) * (1 / d)
            z = torch.einsum("bhqk,bkhd->bqhd", look(logits, -1), v).flatten(2)
        else:
            q, k, v = (t.view(*t.shape[:2], heads, d).transpose(1, 2) for t in (q, k, v))
            logits = q @ k.transpose(-2, -1) * (1.0 / k.size(-1))
            if causal:
                logits = logits.masked_fill(s.seen[:, :, : x.shape[1], : x.shape[1]] == 0, float("-inf"))
            z = (F.dropout(look(logits, -1), 0.1, s.training) @ v).transpose(1, 2).contiguous().view(*x.shape[:2], n)
        return s.o(F.relu(s.a(z)))

    if tied:
        del layers["k"]
    return buffered(Net(forward, **layers), seen=torch.ones(8, 8).tril()[None, None])


def densenet(n: int) -> nn.Module:
    def forward(s, x):
        one = s.i(x)
        two = s.a(F.relu(one))
        both = torch.cat([one, two], -1)
        return s.o(F.relu(s.c(F.relu(both))))

    return Net(forward, i=L(5, n), a=L(n, 2 * n), c=L(3 * n, n), o=L(n, OUT))


def rnn(n: int, zeros: bool = False) -> nn.Module:
    def forward(s, x):
        h = x.new_zeros(x.shape[0], n)
        for t in range(4):
            h = F.relu(s.u(x[:, t]) + s.w(h)) if t or zeros else F.relu(s.u(x[:, t]))
        return s.o(h)

    return Net(forward, u=L(5, n), w=L(n, n), o=L(n, OUT))


def turned(x: Tensor, how: str) -> Tensor:
    """Rotary positions in the ways in which they are written."""
    t, d = x.shape[-2:]
    angle = torch.arange(t, dtype=DOUBLE, device=x.device)[:, None] * torch.linspace(
        0.3, 2.0, d // 2, dtype=DOUBLE, device=x.device
    )
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    if how == "halves":
        a, b = x[..., : d // 2], x[..., d // 2 :]
        return x * torch.cat([cos, cos], -1) + torch.cat([-b, a], -1) * torch.cat([sin, sin], -1)
    if how == "pairs":
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    if how == "a part":
        return torch.cat([turned(x[..., : d // 2], "halves"), x[..., d // 2 :]], -1)
    z = torch.view_as_complex(x.reshape(*x.shape[:-1], d // 2, 2))
    return torch.view_as_real(z * torch.complex(cos, sin)).flatten(-2)


def fused(n: int) -> nn.Module:
    """Queries, keys and values of each head side by side, as GPT-NeoX keeps them, a part of them turned."""

    def forward(s, x):
        q, k, v = s.a(s.i(x)).unflatten(-1, (2, 3 * n // 2)).transpose(1, 2).chunk(3, -1)
        z = F.scaled_dot_product_attention(turned(q, "a part"), turned(k, "a part"), v, is_causal=True, scale=2 / n)
        return s.o(F.relu(s.b(z.transpose(1, 2).flatten(2))))

    return Net(forward, i=L(5, n), a=L(n, 3 * n), b=L(n, n), o=L(n, OUT))


def rotary(n: int, how: str, keys: int = 4, share: str = "expand", by_hand: bool = False, norm: bool = False) -> nn.Module:
    """Attention of four heads whose queries and keys are turned, and of which several may share keys and values."""
    d = n // 4

    def forward(s, x):
        q, k, v = (f(s.i(x)).unflatten(-1, (-1, d)).transpose(1, 2) for f in (s.q, s.k, s.v))
        q, k = (F.rms_norm(q, (d,)), F.layer_norm(k, (d,))) if norm else (q, k)
        q, k = turned(q, how), turned(k, how)
        if share == "expand":
            k, v = (h[:, :, None].expand(-1, -1, 4 // keys, -1, -1).flatten(1, 2) for h in (k, v))
        elif share == "interleave":
            k, v = (h.repeat_interleave(4 // keys, 1) for h in (k, v))
        if by_hand:
            z = (q @ k.transpose(-1, -2) / d).softmax(-1) @ v
        else:
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / d, enable_gqa=share == "grouped")
        return s.o(F.relu(s.a(z.transpose(1, 2).flatten(2))))

    return Net(forward, q=L(n, n), k=L(n, keys * d), v=L(n, keys * d), **dense(n))


class Recurrent(nn.Module):
    """torch's recurrent layer (or cell), and a readout of its last states."""

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__()
        self.layers = nn.RNN(5, n, batch_first=True, **kwargs)
        self.o = L(n * (2 if kwargs.get("bidirectional") else 1), OUT)

    def forward(self, x: Tensor) -> Tensor:
        """The state after the last step."""
        return self.o(self.layers(x)[0][:, -1])


def cell(n: int) -> nn.Module:
    def forward(s, x):
        h = None
        for step in x.unbind(1):
            h = s.c(step, h)
        return s.o(h)

    return Net(forward, c=nn.RNNCell(5, n, nonlinearity="relu"), o=L(n, OUT))


def class_token(n: int) -> nn.Module:
    def forward(s, x):
        h = s.i(x)
        h = torch.cat([s.token.expand(h.shape[0], -1, -1), h], 1) + s.table
        h = s.a(F.relu(h)).mean(1)
        return s.o(F.relu(h))

    return Net(forward, token=param(1, 1, n), table=param(7, n, std=0.5), **dense(n))


def sinusoids(positions: int, n: int) -> Tensor:
    """Sines and cosines of fixed frequencies, as many as fit."""
    at, rate = torch.arange(positions, dtype=DOUBLE)[:, None], torch.linspace(0.1, 2.0, n // 2, dtype=DOUBLE)
    return torch.cat([torch.sin(at * rate), torch.cos(at * rate)], 1)


def adjacency() -> Tensor:
    a = (normal(6, 6, seed=5) > 0.3).to(DOUBLE)
    return (a + a.T + torch.eye(6, dtype=DOUBLE)).clamp(max=1)


def buffered(net: nn.Module, **buffers: Tensor) -> nn.Module:
    for name, value in buffers.items():
        net.register_buffer(name, value.float() if value.is_floating_point() else value)
    return net


A = adjacency()
NORMALISED = A / (A.sum(0).sqrt() * A.sum(1, keepdim=True).sqrt())
CASES: dict[str, Case] = {
    # layers
    "linear": Case(lambda n: S(L(5, n), nn.ReLU(), L(n, n), nn.ReLU(), L(n, OUT)), VEC),
    "linear without bias": Case(lambda n: S(L(5, n, bias=False), nn.ReLU(), L(n, n, bias=False), nn.ReLU(), L(n, OUT)), VEC),
    "matmul with a parameter": Case(
        lambda n: Net(lambda s, x: F.relu(x @ s.w + s.b) @ s.v, w=param(5, n), b=param(n), v=param(n, OUT)),
        VEC,
        init={"[wv]": lzr.init.variance(1.7, 0.0)},
    ),
    "addmm": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(torch.addmm(s.b, x, s.w))), w=param(5, n), b=param(n), o=L(n, OUT)), VEC
    ),
    "conv1d": Case(lambda n: conv1(n, nn.Conv1d(n, n, 3, stride=2, padding=1), 3), SEQ),
    "conv1d same, dilated": Case(lambda n: conv1(n, nn.Conv1d(n, n, 3, padding="same", dilation=2), 6), SEQ),
    "conv1d even same": Case(lambda n: conv1(n, nn.Conv1d(n, n, 4, padding="same"), 6), SEQ),
    "conv1d circular": Case(lambda n: conv1(n, nn.Conv1d(n, n, 3, padding=1, padding_mode="circular"), 6), SEQ),
    "conv1d reflect": Case(lambda n: conv1(n, nn.Conv1d(n, n, 3, padding=2, padding_mode="reflect"), 8), SEQ),
    "conv1d replicate": Case(lambda n: conv1(n, nn.Conv1d(n, n, 3, padding=2, padding_mode="replicate"), 8), SEQ),
    "conv1d grouped": Case(lambda n: conv1(n, nn.Conv1d(n, n, 3, groups=2), 4), SEQ),
    "conv1d depthwise, pointwise": Case(
        lambda n: conv1(n, S(nn.Conv1d(n, n, 3, padding=1, groups=n), nn.Conv1d(n, n, 1)), 6), SEQ
    ),
    "conv1d depthwise, added to what it reads": Case(depthwise(lambda s, h: h + s.d(h) - s.e(s.d(h))), SEQ),
    "conv1d depthwise, mixed, times what it reads": Case(depthwise(lambda s, h: h * s.p(s.d(h)) + s.d(h) * s.g(h)), SEQ),
    "conv1d depthwise, halves that multiply": Case(
        depthwise(lambda s, h: s.d(h).chunk(2, 1)[0] * h.chunk(2, 1)[1], share=2), SEQ
    ),
    "conv1d pooled": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.d(F.relu(s.c(x))).mean(-1))),
            c=nn.Conv1d(5, n, 3, padding=1, stride=2),
            d=nn.Conv1d(n, n, 2, padding=1, dilation=2),
            o=L(n, OUT),
        ),
        SEQ,
    ),
    "conv2d": Case(lambda n: conv2(n, nn.Conv2d(n, n, (2, 3), stride=(1, 2), padding=(0, 1)), 12), IMG, width=64),
    "conv2d pooled": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.d(F.relu(s.c(x)))).mean((2, 3))),
            c=nn.Conv2d(3, n, 3, padding=1),
            d=nn.Conv2d(n, n, (2, 3), stride=(1, 2), padding=(1, 1), dilation=(2, 1)),
            o=L(n, OUT),
        ),
        IMG,
        width=64,
    ),
    "conv3d": Case(
        lambda n: S(
            nn.Conv3d(2, n, 2, padding=1),
            nn.ReLU(),
            nn.Conv3d(n, n, (1, 2, 3), stride=2),
            nn.ReLU(),
            nn.Flatten(),
            L(n * 2 * 2 * 1, OUT),
        ),
        VOL,
        width=48,
    ),
    "conv_transpose1d": Case(
        lambda n: conv1(n, nn.ConvTranspose1d(n, n, 3, stride=2, padding=1, output_padding=1, dilation=2), 14), SEQ, width=48
    ),
    "conv_transpose2d pooled": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.d(F.relu(s.c(x)))).mean((2, 3))),
            c=nn.Conv2d(3, n, 3, stride=2),
            d=nn.ConvTranspose2d(n, n, (3, 2), stride=(2, 1), padding=(1, 0)),
            o=L(n, OUT),
        ),
        IMG,
        width=64,
    ),
    "conv_transpose on the input": Case(
        lambda n: S(nn.ConvTranspose1d(5, n, 3, stride=2), nn.ReLU(), nn.Flatten(), L(n * 13, OUT)), SEQ
    ),
    # pooling
    "avg_pool1d": Case(lambda n: conv1(n, S(nn.AvgPool1d(3, stride=2, padding=1), nn.Conv1d(n, n, 2)), 2), SEQ),
    "avg_pool1d exclusive": Case(
        lambda n: conv1(n, S(nn.AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False), nn.Conv1d(n, n, 2)), 3), SEQ
    ),
    "avg_pool2d": Case(lambda n: conv2(n, S(nn.AvgPool2d(2, stride=1, padding=1), nn.Conv2d(n, n, 3)), 16), IMG, width=64),
    "avg_pool2d exclusive": Case(
        lambda n: conv2(n, S(nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), nn.Conv2d(n, n, 2)), 4),
        IMG,
        width=64,
    ),
    "avg_pool2d ceil": Case(lambda n: conv2(n, S(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(n, n, 2)), 4), IMG, width=64),
    "adaptive_avg_pool2d": Case(lambda n: conv2(n, S(nn.AdaptiveAvgPool2d(2), nn.Conv2d(n, n, 1)), 4), IMG, width=64),
    "adaptive_avg_pool2d to one": Case(
        lambda n: S(nn.Conv2d(3, n, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), L(n, n), nn.ReLU(), L(n, OUT)), IMG
    ),
    "adaptive_avg_pool1d": Case(lambda n: conv1(n, S(nn.AdaptiveAvgPool1d(4), nn.Conv1d(n, n, 2)), 3), SEQ),
    "upsample": Case(lambda n: conv1(n, S(nn.Upsample(scale_factor=2), nn.Conv1d(n, n, 3)), 10), SEQ, width=64),
    "bilinear": Case(lambda n: conv2(n, S(nn.Upsample(size=(4, 3), mode="bilinear"), nn.Conv2d(n, n, 2)), 6), IMG, width=64),
    "bicubic": Case(lambda n: conv2(n, S(nn.Upsample(size=(4, 3), mode="bicubic"), nn.Conv2d(n, n, 2)), 6), IMG, width=64),
    "avg_pool3d": Case(
        lambda n: S(
            nn.Conv3d(2, n, 2, padding=1),
            nn.ReLU(),
            nn.AvgPool3d(2),
            nn.AdaptiveAvgPool3d((2, 1, 1)),
            nn.Conv3d(n, n, 1),
            nn.ReLU(),
            nn.Flatten(),
            L(2 * n, OUT),
        ),
        VOL,
        width=64,
    ),
    "conv_transpose3d": Case(
        lambda n: S(
            nn.Conv3d(2, n, 2),
            nn.ReLU(),
            nn.ConvTranspose3d(n, n, 2, stride=(1, 2, 1)),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            L(n, OUT),
        ),
        VOL,
        width=48,
        slack=5,
    ),
    "upsample linear": Case(lambda n: conv1(n, S(nn.Upsample(size=4, mode="linear"), nn.Conv1d(n, n, 2)), 3), SEQ),
    "upsample nearest": Case(lambda n: conv2(n, S(nn.Upsample(size=(2, 7)), nn.Conv2d(n, n, 2)), 6), IMG, width=64),
    "mean, kept": Case(lambda n: Net(lambda s, x: s.o(F.relu(s.a(F.relu(s.i(x)).mean(1, keepdim=True)))), **dense(n)), WORDS),
    "sum": Case(lambda n: Net(lambda s, x: s.o(F.relu(s.a(F.relu(s.i(x)).sum(1) / 4))), **dense(n)), WORDS),
    "sum of one axis": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.c(x)).sum(-1).flatten(1)), c=nn.Conv2d(3, n, 3), o=L(3 * n, OUT)), IMG
    ),
    # shapes
    "flatten": Case(lambda n: Net(lambda s, x: s.o(F.relu(s.i(x)).flatten(1)), i=L(5, n), o=L(6 * n, OUT)), WORDS),
    "view": Case(lambda n: Net(lambda s, x: s.o(F.relu(s.i(x)).view(-1, 2, 3 * n)), i=L(5, n), o=L(3 * n, OUT)), WORDS),
    "rows as samples": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.i(x)).reshape(-1, n)).reshape(-1, 6, OUT), i=L(5, n), o=L(n, OUT)), WORDS
    ),
    "other names": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.i(x).mT.contiguous().mT.tensor_split(3, 1)[1])), i=L(5, n), o=L(n, OUT)), WORDS
    ),
    "weights turned": Case(
        lambda n: Net(lambda s, x: F.relu(x @ s.i.weight.t() + s.i.bias) @ s.o.weight.T, i=L(5, n), o=L(n, OUT)), VEC
    ),
    "expand_as": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.a((h := F.relu(s.i(x)))[:, :1].expand_as(h)))), **dense(n)), WORDS
    ),
    "permute": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.c(x)).permute(0, 2, 3, 1)).mean((1, 2)), c=nn.Conv2d(3, n, 2), o=L(n, OUT)), IMG
    ),
    "transpose": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.c(F.relu(s.i(x)).transpose(1, 2)).flatten(1))),
            i=L(5, n),
            c=nn.Conv1d(n, n, 3),
            o=L(4 * n, OUT),
        ),
        WORDS,
    ),
    "swapaxes, movedim": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.c(F.relu(s.i(x)).swapaxes(-1, -2)).movedim(1, 2))),
            i=L(5, n),
            c=nn.Conv1d(n, n, 3),
            o=L(n, OUT),
        ),
        WORDS,
    ),
    "unflatten": Case(after(lambda h: h.unflatten(1, (2, 3)).mean(1), 3), WORDS),
    "squeeze, unsqueeze": Case(after(lambda h: h.unsqueeze(1).squeeze(1).unsqueeze(2).squeeze(2), 6), WORDS),
    "select": Case(after(lambda h: h[:, 2], 1), WORDS),
    "select from the end": Case(after(lambda h: h.select(1, -1), 1), WORDS),
    "slice": Case(after(lambda h: h[:, 1:5:2], 2), WORDS),
    "slice to the end": Case(after(lambda h: h[:, -2:].mean(1), 1), WORDS),
    "narrow": Case(after(lambda h: h.narrow(1, 1, 3).mean(1), 1), WORDS),
    "chunk": Case(after(lambda h: h.chunk(4, 1)[1], 2), WORDS),
    "split": Case(after(lambda h: h.split([1, 3, 2], 1)[1].mean(1), 3), WORDS),
    "split evenly": Case(after(lambda h: h.split(4, 1)[1].mean(1), 2), WORDS),
    "unbind": Case(after(lambda h: h.unbind(1)[3], 1), WORDS),
    "feature chunks": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.a(torch.cat([F.relu(p) for p in s.i(x).chunk(3, -1)], -1)))),
            i=L(5, 3 * n),
            a=L(3 * n, n),
            o=L(n, OUT),
        ),
        VEC,
    ),
    "feature chunks multiplied": Case(
        lambda n: Net(lambda s, x: s.o(s.i(x).chunk(2, -1)[0].relu() * s.i(x).chunk(2, -1)[1]), i=L(5, 2 * n), o=L(n, OUT)),
        VEC,
        slack=8,
    ),
    "glu": Case(lambda n: Net(lambda s, x: s.o(F.glu(s.i(x), -1)), i=L(5, 2 * n), o=L(n, OUT)), VEC, slack=8),
    "cut of a nonlinearity": Case(
        lambda n: Net(lambda s, x: s.o((p := F.relu(s.i(x)).chunk(2, 1))[0] + 0.5 * s.b(F.relu(s.a(p[1])))), **dense(n)), WORDS
    ),
    "crelu": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(torch.cat([(h := s.i(x)), 0.5 - h], -1))), i=L(5, n), o=L(2 * n, OUT)),
        VEC,
        rough=1e-2,
    ),
    "swish of joined": Case(
        lambda n: Net(
            lambda s, x: s.o((h := torch.cat([s.i(x), 2 * s.a(x)], -1)) * torch.sigmoid(h)),
            i=L(5, n),
            a=L(5, n),
            o=L(2 * n, OUT),
        ),
        VEC,
    ),
    "one channel": Case(lambda n: Net(lambda s, x: s.i(x).squeeze(-1).unsqueeze(-1), i=L(5, 1)), VEC, width=1),
    "expand": Case(after(lambda h: h.mean(1, keepdim=True).expand(-1, 3, -1), 3), WORDS),
    "repeat": Case(after(lambda h: h.mean(1, keepdim=True).repeat(1, 3, 1), 3), WORDS),
    "repeat positions": Case(after(lambda h: h.repeat(1, 2, 1)[:, 4:8].mean(1), 3), WORDS),
    "flip": Case(after(lambda h: h.flip(1)[:, :2], 2), WORDS),
    "roll": Case(after(lambda h: h.roll(2, 1)[:, :3], 3), WORDS),
    "roll two axes": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.c(x)).roll((1, -1), (2, 3))[:, :, :2, 0].flatten(1)),
            c=nn.Conv2d(3, n, 3),
            o=L(2 * n, OUT),
        ),
        IMG,
    ),
    "index_select": Case(
        lambda n: buffered(
            Net(lambda s, x: s.o(F.relu(s.a(F.relu(s.i(x)).index_select(1, s.at)))), **dense(n)), at=torch.tensor([4, 0, 4])
        ),
        WORDS,
    ),
    "pad": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.d(F.pad(F.relu(s.c(x)), (1, 0))).mean(-1))),
            c=nn.Conv1d(5, n, 3),
            d=nn.Conv1d(n, n, 3),
            o=L(n, OUT),
        ),
        SEQ,
    ),
    "cat of features": Case(densenet, VEC),
    **{
        f"cat of feature maps, {name}": Case(
            lambda n, last=last, rows=rows: Net(
                lambda s, x: s.o(last(F.relu(torch.cat([s.i(x), s.a(x), s.b(x)], 1)))),
                i=nn.Conv2d(3, n, 2),
                a=nn.Conv2d(3, n // 2, 2, bias=False),
                b=nn.Conv2d(3, n // 2, 2),
                o=L(2 * n * rows, OUT),
            ),
            IMG,
            width=48,
        )
        for name, rows, last in [
            ("flattened", 16, lambda h: h.flatten(1)),
            ("averaged when flat", 1, lambda h: h.flatten(2).mean(2)),
            ("averaged and flattened", 1, lambda h: F.adaptive_avg_pool2d(h, 1).flatten(1)),
            ("last and flattened", 16, lambda h: h.permute(0, 2, 3, 1).unsqueeze(1).flatten(1)),
            ("as words", 4, lambda h: h.flatten(2).transpose(1, 2).unflatten(1, (4, 4)).mean(1).flatten(1)),
        ]
    },
    "cat of branches": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(torch.cat([s.a(x[:, :2]), s.b(x[:, 2:])], 1)).mean(1)), a=L(5, n), b=L(5, n), o=L(n, OUT)
        ),
        WORDS,
    ),
    "class token": Case(class_token, WORDS),
    "attention in windows": Case(lambda n: Net(windowed, **dense(n), k=L(n, n), u=L(n, n)), WORDS, slack=6),
    "attention among pixels": Case(lambda n: Net(among_pixels, c=nn.Conv2d(3, n, 3, stride=2), **dense(n)), IMG, slack=12),
    # norms
    "layer_norm before": Case(
        lambda n: S(L(5, n), nn.LayerNorm(n), nn.ReLU(), L(n, n), nn.LayerNorm(n), nn.ReLU(), L(n, OUT)), VEC
    ),
    "layer_norm after": Case(
        lambda n: S(L(5, n), nn.ReLU(), nn.LayerNorm(n), L(n, n), nn.ReLU(), nn.LayerNorm(n), L(n, OUT)), VEC
    ),
    "layer_norm with a bias that starts at a number": Case(
        lambda n: S(L(5, n), starting_at(nn.LayerNorm(n), 0.7), nn.ReLU(), L(n, OUT)), VEC, width=128
    ),
    "layer_norm with a frozen bias": Case(
        lambda n: S(L(5, n), starting_at(nn.LayerNorm(n), 0.7).requires_grad_(False), nn.ReLU(), L(n, OUT)), VEC, width=128
    ),
    "layer_norm with constants": Case(
        lambda n: Net(
            lambda s, x: s.o(torch.tanh(F.layer_norm(s.i(x), (n,), torch.full((n,), 2.0).to(x), torch.full((n,), -0.5).to(x)))),
            **dense(n),
        ),
        VEC,
    ),
    "positions less their mean": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.a((h := F.relu(s.i(x))) - h.mean(1, keepdim=True))).mean(1)), **dense(n)), WORDS
    ),
    "layer_norm plain, of words": Case(
        lambda n: Net(
            lambda s, x: s.o(F.layer_norm(F.relu(s.a(F.layer_norm(F.relu(s.i(x)), (n,)))).mean(1), (n,))), **dense(n)
        ),
        WORDS,
    ),
    "rms_norm": Case(
        lambda n: S(L(5, n), nn.ReLU(), nn.RMSNorm(n), L(n, n), nn.RMSNorm(n, eps=0.1), nn.ReLU(), L(n, OUT)), VEC
    ),
    "residual branches of odd functions": Case(
        lambda n: Net(
            lambda s, x: s.o((h := (g := s.i(x)) + s.a(s.n(g)).tanh()) + s.b(s.n(h)).erf()),
            n=nn.LayerNorm(n, elementwise_affine=False),
            **dense(n),
        ),
        VEC,
    ),
    "norms by hand": Case(
        lambda n: Net(
            lambda s, x: s.o(centred_norm(F.relu(s.a(s.g * root_mean_square(F.relu(s.i(x)))))).mean(1)),
            g=nn.Parameter(torch.ones(n)),
            **dense(n),
        ),
        WORDS,
    ),
    "norms by hand of random features": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.a(by_deviation(root_mean_square(s.i(x)).tanh())))), **dense(n)), VEC
    ),
    "a number of the data for all features": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.i(x)) - 0.5 * x.mean(-1, keepdim=True)), i=L(5, n), o=L(n, OUT)), VEC
    ),
    "features less their variance": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(h := s.i(x)) + h.var(-1, keepdim=True).log() / h.std(-1, keepdim=True)),
            i=L(5, n),
            o=L(n, OUT),
        ),
        VEC,
    ),
    "group_norm before": Case(lambda n: conv2(n, S(nn.Conv2d(n, n, 3), nn.GroupNorm(2, n)), 9), IMG, width=64, slack=6),
    "group_norm after": Case(lambda n: conv2(n, S(nn.GroupNorm(2, n), nn.Conv2d(n, n, 3)), 9), IMG, width=64, slack=6),
    "group_norm of rectified features with a bias that starts at a number": Case(
        lambda n: Net(
            lambda s, x: s.o(s.g(F.relu(s.i(x)))[:, :, 0]),
            i=nn.Conv1d(3, n, 1),
            g=starting_at(nn.GroupNorm(1, n), 0.7),
            o=L(n, OUT),
        ),
        normal(3, 3, 4) * torch.tensor([3.0, 2.0, 0.1, 1.0]),
        width=128,
    ),
    "group_norm of vectors": Case(lambda n: S(L(5, n), nn.ReLU(), nn.GroupNorm(2, n), L(n, n), nn.ReLU(), L(n, OUT)), VEC),
    "group_norm twice": Case(
        lambda n: conv2(n, S(nn.GroupNorm(1, n), nn.GroupNorm(2, n), nn.Conv2d(n, n, 3)), 9), IMG, width=64
    ),
    # branches
    "residual, pre-activation": Case(
        lambda n: Net(lambda s, x: s.o(F.relu((h := s.i(x)) + 0.5 * s.b(F.relu(s.a(F.relu(h)))))), **dense(n)), VEC
    ),
    "residual, post-activation": Case(
        lambda n: Net(lambda s, x: s.o(s.a(h := F.relu(s.i(x))) + s.c(h)), c=L(n, n), **(dense(n))), VEC
    ),
    "residual after the sum": Case(
        lambda n: Net(lambda s, x: s.o((h := F.relu(s.i(x))) + s.b(F.relu(s.a(h)))), **dense(n)), VEC
    ),
    "pre-norm block": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.n((h := s.i(x)) + s.b(F.gelu(s.a(s.m(h))))))),
            n=nn.LayerNorm(n),
            m=nn.LayerNorm(n),
            **dense(n),
        ),
        VEC,
    ),
    "difference": Case(lambda n: Net(lambda s, x: s.o(F.relu(s.a(h := F.relu(s.i(x))) - 2 * s.b(h))), **dense(n)), VEC),
    "constants": Case(
        lambda n: Net(lambda s, x: s.o(1 - F.relu(s.i(x) * 0.7 + 0.3) / 2), i=L(5, n), o=L(n, OUT)), VEC, rough=1e-2
    ),
    "negative": Case(lambda n: Net(lambda s, x: s.o(-F.relu(-s.i(x)) + 0.5), i=L(5, n), o=L(n, OUT)), VEC, rough=1e-2),
    "layer scale": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.c((h := s.i(x)) + s.g * s.b(F.relu(s.a(h)))))),
            g=nn.Parameter(0.5 * torch.ones(n)),
            c=L(n, n),
            **dense(n),
        ),
        VEC,
    ),
    "random gain": Case(
        lambda n: Net(lambda s, x: s.o(s.b(F.relu(s.a(x)) * s.g)), g=param(n, std=0.7), a=L(5, n), b=L(n, n), o=L(n, OUT)),
        VEC,
        width=128,
        slack=5,
    ),
    "swiglu": Case(lambda n: Net(lambda s, x: s.o(F.silu(s.a(h := s.i(x))) * s.b(h)), **dense(n)), VEC, slack=8),
    "a number added to a norm": Case(
        lambda n: Net(
            lambda s, x: s.o(F.silu(s.a(h := s.i(x))) * (F.layer_norm(F.relu(s.b(h)), (n,)) + 0.7) + 0.0), **dense(n)
        ),
        VEC,
        slack=8,
    ),
    "a number less a norm": Case(
        lambda n: Net(lambda s, x: s.o(1.5 - F.layer_norm(F.relu(s.i(x)), (n,))), i=L(5, n), o=L(n, OUT)), VEC
    ),
    "unit length": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.a(F.normalize(F.relu(s.i(x)), dim=-1) * n**0.5))), **dense(n)), VEC
    ),
    "a norm that a layer reads": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.a((h := s.i(x)).norm(dim=-1, keepdim=True).expand_as(h) / n**0.5))), **dense(n)
        ),
        VEC,
    ),
    "divided by a norm": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.a((h := s.i(x)) / (h.norm(dim=-1, keepdim=True) / n**0.5 + 0.5)))), **dense(n)),
        VEC,
    ),
    "swish by hand": Case(lambda n: Net(lambda s, x: s.o((h := s.i(x)) * torch.sigmoid(h)), i=L(5, n), o=L(n, OUT)), VEC),
    "gelu by hand": Case(
        lambda n: Net(
            lambda s, x: s.o(0.5 * (h := s.i(x)) * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))),
            i=L(5, n),
            o=L(n, OUT),
        ),
        VEC,
    ),
    "tanh, twice": Case(lambda n: Net(lambda s, x: s.o(torch.tanh(2 * torch.tanh(s.i(x)))), i=L(5, n), o=L(n, OUT)), VEC),
    "softplus": Case(lambda n: S(L(5, n), nn.Softplus(beta=2), L(n, OUT)), VEC),
    "leaky_relu": Case(lambda n: S(L(5, n), nn.LeakyReLU(0.3), L(n, n), nn.ELU(), L(n, OUT)), VEC, rough=1e-2),
    "square": Case(lambda n: Net(lambda s, x: s.o(0.3 * s.i(x) ** 2), i=L(5, n), o=L(n, OUT)), VEC, slack=8),
    "square as a product": Case(lambda n: Net(lambda s, x: s.o(0.3 * (h := s.i(x)) * h), i=L(5, n), o=L(n, OUT)), VEC, slack=8),
    # words
    "embedding": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.a(F.relu(s.e(x) + s.p)).mean(1))),
            e=nn.Embedding(7, n),
            p=param(6, n, std=0.5),
            a=L(n, n),
            o=L(n, OUT),
        ),
        TOKENS,
    ),
    "embedding of positions": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.e(x) + s.p(torch.arange(6))).flatten(1)),
            e=nn.Embedding(7, n),
            p=nn.Embedding(6, n),
            o=L(6 * n, OUT),
        ),
        TOKENS,
    ),
    "sinusoids": Case(
        lambda n: buffered(Net(lambda s, x: s.o(F.relu(s.a(s.i(x) + s.p)).mean(1)), **dense(n)), p=sinusoids(6, n)), WORDS
    ),
    "attention": Case(attention, WORDS, slack=12),
    "attention, two heads": Case(lambda n: attention(n, heads=2, causal=True), WORDS, slack=12),
    "attention, causal": Case(lambda n: attention(n, causal=True), WORDS, slack=12),
    "attention, masked": Case(lambda n: attention(n, mask=A > 0), WORDS, slack=12),
    "attention, keys masked by the sample": Case(lambda n: masked(n, tied=False), WORDS, slack=12),
    "attention, tied, keys masked by the sample": Case(lambda n: masked(n, tied=True), WORDS, slack=12),
    "latents that attend": Case(latents, WORDS, slack=12),
    "attention, additive mask": Case(
        lambda n: attention(n, mask=torch.zeros(6, 6).masked_fill(A == 0, float("-inf"))), WORDS, slack=12
    ),
    "attention, tied": Case(lambda n: attention(n, tied=True), 0.5 * WORDS, width=192, slack=10),
    "attention, tied and causal": Case(lambda n: attention(n, tied=True, causal=True), 0.5 * WORDS, width=192, slack=10),
    "fused heads": Case(fused, WORDS, slack=12),
    "halves of every head": Case(
        lambda n: Net(
            lambda s, x: s.o(((h := s.i(x).unflatten(-1, (4, n // 4)))[..., : n // 8] * h[..., n // 8 :].tanh()).flatten(2)),
            i=L(5, n),
            o=L(n // 2, OUT),
        ),
        WORDS,
    ),
    "rotary positions": Case(lambda n: rotary(n, "halves"), WORDS, slack=12),
    "rotary positions in pairs": Case(lambda n: rotary(n, "pairs", 2), WORDS, slack=12),
    "rotary positions, complex": Case(lambda n: rotary(n, "complex", 1, by_hand=True), WORDS, slack=12),
    "rotary positions of a part": Case(lambda n: rotary(n, "a part", 2, "grouped"), WORDS, slack=12),
    "rotary positions of normed heads": Case(lambda n: rotary(n, "halves", norm=True), WORDS, slack=12),
    "rotary positions, keys in a row": Case(lambda n: rotary(n, "halves", 1, "interleave"), WORDS, slack=12),
    "pooling over borders": Case(
        lambda n: S(nn.Conv2d(3, n, 1), nn.ReLU(), nn.AvgPool2d(3, 1, 1), nn.Flatten(), L(4 * n, OUT)), IMG[:, :, :2, :2]
    ),
    "pooling with a divisor": Case(
        lambda n: S(nn.Conv2d(3, n, 1), nn.ReLU(), nn.AvgPool2d(2, 2, 1, divisor_override=3), nn.Flatten(), L(9 * n, OUT)), IMG
    ),
    "pooling over borders of a volume": Case(
        lambda n: S(nn.Conv3d(2, n, 1), nn.ReLU(), nn.AvgPool3d(3, 2, 1), nn.Flatten(), L(8 * n, OUT)), VOL[:, :, :, :3]
    ),
    "layer norm behind a group norm of means": Case(
        lambda n: Net(
            lambda s, x: s.o(F.layer_norm(F.group_norm(F.relu(s.c(x)), 1).transpose(1, 2), (n,))),
            c=nn.Conv1d(5, n, 1),
            o=L(n, OUT),
        ),
        SEQ * torch.tensor([0.05, 0.3, 1.0, 2.0, 4.0, 8.0], dtype=DOUBLE),
        slack=6,
    ),
    "attention by hand": Case(lambda n: by_hand(n, "one head"), WORDS, slack=12),
    "attention by hand, tied": Case(lambda n: by_hand(n, "one head", tied=True), 0.5 * WORDS, width=192, slack=10),
    "attention by hand, tied, causal, heads": Case(
        lambda n: by_hand(n, "heads", tied=True, heads=2, causal=True), 0.5 * WORDS, width=192, slack=10
    ),
    "attention by einsum": Case(lambda n: by_hand(n, "einsum", tied=True, heads=2), 0.5 * WORDS, width=192, slack=10),
    "attention by bmm": Case(
        lambda n: by_hand(n, "heads beside the batch", tied=True, heads=2), 0.5 * WORDS, width=192, slack=10
    ),
    "identity attention": Case(
        lambda n: by_hand(n, "one head", tied=True, look=lambda t, _: t / 6), 0.5 * WORDS, width=192, slack=10
    ),
    "rectified attention": Case(
        lambda n: by_hand(n, "einsum", tied=True, look=lambda t, _: F.relu(t) / 6), 0.5 * WORDS, width=192, slack=10
    ),
    "inputs that look at each other": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.a((x @ x.transpose(1, 2) / 5).softmax(-1) @ s.i(x)))), **dense(n)), WORDS
    ),
    "a layer by einsum": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(torch.einsum("bpi,oi->bpo", torch.einsum("io,bpi->bpo", s.w, x), s.a.weight))),
            w=param(5, n),
            a=L(n, n, bias=False),
            o=L(n, OUT),
        ),
        WORDS,
    ),
    "graph": Case(
        lambda n: buffered(Net(lambda s, x: s.o(F.relu(s.adj @ s.a(F.relu(s.adj @ s.i(x))))), **dense(n)), adj=NORMALISED),
        WORDS,
    ),
    "joined positions": Case(
        lambda n: Net(
            lambda s, x: s.o((h := F.relu(s.i(x))) * 1.1 + A.to(h) @ h - h.mean(1, keepdim=True)), i=L(5, n), o=L(n, OUT)
        ),
        WORDS,
    ),
    "graph on the right": Case(
        lambda n: buffered(
            Net(lambda s, x: s.o((F.relu(s.i(x)).transpose(1, 2) @ s.adj).mean(-1)), i=L(5, n), o=L(n, OUT)), adj=NORMALISED
        ),
        WORDS,
    ),
    "position mask": Case(
        lambda n: buffered(
            Net(lambda s, x: s.o((F.relu(s.i(x)) * s.m).mean(1)), i=L(5, n), o=L(n, OUT)),
            m=torch.tensor([1.0, 0.0, 1.0, 2.0, 0.5, 1.0], dtype=DOUBLE)[:, None],
        ),
        WORDS,
    ),
    "a data gate": Case(lambda n: Net(lambda s, x: s.o(s.i(x) * x.sum(-1, keepdim=True)), i=L(5, n), o=L(n, OUT)), VEC),
    "one output gates the others": Case(
        lambda n: Net(lambda s, x: s.v(h := F.relu(s.i(x))).sigmoid() * s.o(h), v=L(n, 1), **dense(n)),
        VEC,
        forward_draws=300,
        mean=True,
    ),
    "one output is added to the others": Case(
        lambda n: Net(lambda s, x: s.o(h := F.relu(s.i(x))) + s.v(h), v=L(n, 1), **dense(n)), VEC, forward_draws=300
    ),
    "a mean of outputs": Case(
        lambda n: Net(lambda s, x: s.v(F.relu(s.i(x))).mean(-1, keepdim=True).tanh(), i=L(5, n), v=L(n, 4)),
        VEC,
        forward_draws=600,
        mean=True,
    ),
    "a sum of outputs": Case(
        lambda n: Net(lambda s, x: s.v(F.relu(s.i(x))).tanh().sum((1, 2)), i=L(5, n), v=L(n, 2)),
        WORDS,
        forward_draws=600,
        mean=True,
    ),
    "two centred outputs": Case(
        lambda n: Net(lambda s, x: (y := s.v(F.relu(s.i(x)))) - y.mean(-1, keepdim=True), i=L(5, n), v=L(n, 2)),
        VEC,
        forward_draws=600,
    ),
    "dueling outputs": Case(
        lambda n: Net(
            lambda s, x: s.v(h := F.relu(s.i(x))) + (y := s.w(h).tanh()) - y.mean(-1).unsqueeze(-1),
            i=L(5, n),
            v=L(n, 1),
            w=L(n, 3),
        ),
        VEC,
        forward_draws=600,
        mean=True,
    ),
    "mask by the sample": Case(
        lambda n: Net(
            lambda s, x: s.o(
                F.relu(s.a((F.relu(s.i(x)) * (m := (x[..., :1] > -0.3).to(x.dtype))).sum(1) / (1 + m.sum(1)))).div(
                    1 + x[:, 0, :1] ** 2
                )
            ),
            **dense(n),
        ),
        WORDS,
    ),
    "mask by the sample, filled": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.a(F.relu(s.i(x)).masked_fill(x[..., :1] < -0.3, 0.0))).mean(1)), **dense(n)),
        WORDS,
    ),
    "one of two branches": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(torch.where(x[..., 1:2] > 0, s.a(F.relu(s.i(x))), s.e(x)))).mean(1), e=L(5, n), **dense(n)
        ),
        WORDS,
    ),
    "where, nowhere": Case(
        lambda n: buffered(
            Net(lambda s, x: s.o(torch.where(s.m, torch.zeros_like(h := F.relu(s.i(x))), h).mean(1)), i=L(5, n), o=L(n, OUT)),
            m=torch.tensor([True, False, False, True, False, False])[:, None],
        ),
        WORDS,
    ),
    "elu by hand": Case(
        lambda n: Net(lambda s, x: s.o(torch.where((h := s.i(x)) > 0, h, 0.7 * h.exp() - 0.7)), i=L(5, n), o=L(n, OUT)), VEC
    ),
    "hat by hand": Case(
        lambda n: Net(
            lambda s, x: s.o(
                torch.maximum((1 - (h := s.i(x)).abs()), torch.zeros_like(h)).masked_fill(torch.logical_not(h >= -0.5), 0.5)
                + torch.min(h, 0.3 * h)
                + torch.logaddexp(h, torch.ones_like(h)) * torch.logical_and(h < 1, h.ne(0.2)).to(h.dtype)
            ),
            i=L(5, n),
            o=L(n, OUT),
        ),
        VEC,
        rough=1e-2,
    ),
    "a mixture compared": Case(
        lambda n: Net(
            lambda s, x: s.o((h := torch.cat([s.i(x), s.a(x).tanh()], -1)).maximum(0.2 * h)),
            i=L(5, n),
            a=L(5, n),
            o=L(2 * n, OUT),
        ),
        VEC,
    ),
    "roots": Case(
        lambda n: Net(
            lambda s, x: s.o(
                ((h := s.i(x)) ** 2 + 1).sqrt()
                + (h**2 + 1).log()
                + (h**2 + 1).rsqrt() * (h.abs() + 1).log1p()
                + (2 + h.sin()).reciprocal()
            ),
            i=L(5, n),
            o=L(n, OUT),
        ),
        VEC,
        rough=1e-4,
    ),
    "prelu": Case(lambda n: S(L(5, n), nn.PReLU(n, 0.3), L(n, n), nn.PReLU(), L(n, OUT)), VEC),
    "prelu, words flattened": Case(
        lambda n: Net(
            lambda s, x: s.o(s.p(s.i(x)).transpose(1, 2).flatten(1)), i=nn.Conv1d(5, n, 1), p=nn.PReLU(n), o=L(6 * n, OUT)
        ),
        SEQ,
    ),
    "prelu by head": Case(
        lambda n: Net(
            lambda s, x: s.o(s.p(s.i(x).unflatten(-1, (4, n // 4)).flatten(0, 1)).unflatten(0, (-1, 4)).flatten(1)),
            i=L(5, n),
            p=nn.PReLU(init=-0.2),
            o=L(n, OUT),
        ),
        VEC,
    ),
    "stacked": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.d(torch.stack([s.a(F.relu(s.i(x))), s.e(x)], 1))).mean(1)),
            e=L(5, n),
            d=L(n, n),
            **dense(n),
        ),
        VEC,
    ),
    "stacked words": Case(
        lambda n: Net(lambda s, x: s.o(torch.stack([F.relu(s.i(x)), F.relu(s.a(x))], -2)), i=L(5, n), a=L(5, n), o=L(n, OUT)),
        WORDS,
    ),
    "seen twice through dropout": Case(
        lambda n: Net(
            lambda s, x: s.o(F.dropout(h := F.relu(s.i(x)), 0.5, s.training)) + s.a(h), i=L(5, n), o=L(n, OUT), a=L(n, OUT)
        ),
        VEC,
    ),
    "seen twice": Case(
        lambda n: Net(
            lambda s, x: s.o((h := F.relu(s.i(x))).contiguous()) + s.a(h.clone()) + s.b(2 * s.i(x)) + s.c(h),
            i=L(5, n),
            o=L(n, OUT),
            a=L(n, OUT),
            b=L(n, OUT),
            c=L(n, OUT),
        ),
        VEC,
    ),
    "dropout, eval": Case(lambda n: S(L(5, n), nn.ReLU(), nn.Dropout(0.4), L(n, OUT)), VEC),
    "dropout, train": Case(lambda n: S(L(5, n), nn.ReLU(), nn.Dropout(0.4), L(n, n), nn.ReLU(), L(n, OUT)), VEC, train=True),
    "rnn": Case(rnn, WORDS),
    "rnn from zeros": Case(lambda n: rnn(n, zeros=True), WORDS),
    "nn.RNN": Case(Recurrent, WORDS),
    "nn.RNN, two ways": Case(lambda n: Recurrent(n, bidirectional=True, nonlinearity="relu"), WORDS),
    "nn.RNN, two layers with dropout": Case(lambda n: Recurrent(n, num_layers=2, dropout=0.3, bias=False), WORDS, train=True),
    "nn.RNNCell": Case(cell, WORDS),
    "sizes of the batch": Case(
        lambda n: Net(
            lambda s, x: s.o((h := F.relu(s.i(x))).view(h.shape[0] * h.shape[1], n)).view(x.shape[0], 6, OUT),
            i=L(5, n),
            o=L(n, OUT),
        ),
        WORDS,
    ),
    "sizes of the data": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.i(x.reshape(x.shape[0], 30)))), i=L(30, n), o=L(n, OUT)), WORDS
    ),
    "shared layer": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.a(F.relu(s.a(F.relu(s.i(x))))))), i=L(5, n), a=L(n, n), o=L(n, OUT)), VEC
    ),
    "a gain of one plus a parameter": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(F.layer_norm(s.i(x), (n,)) * (1 + s.g.unsqueeze(0).float()))),
            g=param(n, std=0.0),
            **dense(n),
        ),
        VEC,
    ),
    "a number minus a gain": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.i(x) * (3 - s.g))), g=param(n, std=0.0, mean=1.0), **dense(n)), VEC
    ),
    "weights and biases times numbers": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(F.linear(s.i(x) @ (-s.a.weight / 0.8).T, s.b.weight * 1.2, s.b.bias * 0.5))), **dense(n)
        ),
        VEC,
    ),
    "a convolution by a scaled weight": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(F.conv1d(x, s.c.weight * 1.3, s.c.bias.neg())).flatten(1)),
            c=nn.Conv1d(5, n, 3),
            o=L(4 * n, OUT),
        ),
        SEQ,
    ),
    "a scaled table of positions": Case(
        lambda n: Net(lambda s, x: s.o(F.relu(s.a(s.i(x) + 0.5 * s.p)).mean(1)), p=param(6, n), **dense(n)), WORDS
    ),
    "frozen numbers of one entry": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu((h := s.i(x)) + (1 + s.g) * s.a(F.relu(s.b(h))) - s.c)),
            g=param(1, std=0.0, mean=0.4).requires_grad_(False),
            c=param(1, 1, std=0.0, mean=0.2).requires_grad_(False),
            **dense(n),
        ),
        VEC,
    ),
    "positions picked by indices": Case(after(lambda h: h[:, [[0, 2, 2], [-1, 3, 0]]].mean((1, 2)), 1), WORDS),
    "pixels picked by indices": Case(
        lambda n: Net(
            lambda s, x: s.o(
                F.relu(s.a(F.relu(s.i(x))[:, :, torch.tensor([[0], [2]]), torch.tensor([1, -1, 1])].mean((2, 3))))
            ),
            i=nn.Conv2d(3, n, 2),
            a=L(n, n),
            o=L(n, OUT),
        ),
        IMG,
    ),
    "one position of each sample": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.a(F.relu(s.i(s.e(x)))[torch.arange(x.shape[0]), (x > 0).sum(1) - 1]))),
            e=nn.Embedding(7, n),
            **dense(n, n),
        ),
        TOKENS,
    ),
    "positions gathered": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.a(F.relu(s.i(x)).gather(1, x[:, :, :1].argsort(1)[:, :2].expand(-1, -1, n)).mean(1)))),
            **dense(n),
        ),
        WORDS,
    ),
    "a fixed point from zeros": Case(lambda n: Net(iterated, **dense(n)), VEC),
    "a fixed point of images from ones": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu((u := s.i(x)) + s.a(torch.ones_like(u))).flatten(1)),
            i=nn.Conv1d(5, n, 3, padding=1),
            a=nn.Conv1d(n, n, 3, padding=1),
            o=L(6 * n, OUT),
        ),
        SEQ,
    ),
    "positions moved behind zeros": Case(
        after(lambda h: torch.cat([h.new_zeros(h.shape[0], 1, h.shape[2]), torch.zeros_like(h[:, :1]), h[:, :-1]], 1), 7), WORDS
    ),
    "features beside zeros": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.a(torch.cat([h := F.relu(s.i(x)), torch.zeros_like(h)], -1)))),
            i=L(5, n),
            a=L(2 * n, n),
            o=L(n, OUT),
        ),
        VEC,
    ),
    "two heads of one trunk": Case(
        lambda n: Net(lambda s, x: torch.cat([s.o(h := F.relu(s.i(x))), s.v(h)], -1), i=L(5, n), o=L(n, OUT), v=L(n, 3)), VEC
    ),
    "radial functions around a grid": Case(
        lambda n: buffered(
            Net(
                lambda s, x: s.o(s.c(F.silu(h := s.i(x))) + s.a(torch.exp(-(((s.g - h.unsqueeze(-1)) / 0.7) ** 2)).flatten(1))),
                c=L(n, n),
                i=L(5, n),
                a=L(4 * n, n),
                o=L(n, OUT),
            ),
            g=torch.linspace(-1, 2, 4),
        ),
        VEC,
    ),
    "features of frequencies": Case(
        lambda n: buffered(
            Net(lambda s, x: s.o(torch.sin(s.i(x)[:, :, None] * s.g[:, None]).flatten(2).mean(1)), i=L(5, n), o=L(3 * n, OUT)),
            g=torch.tensor([0.5, 1.0, 2.0]),
        ),
        WORDS,
    ),
    "gates that start shut": Case(
        lambda n: Net(
            lambda s, x: s.o(torch.sigmoid(s.t(h := s.i(x))) * s.a(F.relu(h))), t=starting_at(L(n, n), -1.0), **dense(n)
        ),
        VEC,
        init=None,
    ),
    "residual branches with constant biases": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu((h := s.t(x)) - 2 * s.u(F.relu(h)))),
            t=starting_at(nn.Conv1d(5, n, 3, padding=1), 1.0),
            u=starting_at(nn.Conv1d(n, n, 1), 0.3),
            o=S(nn.Flatten(), L(6 * n, OUT)),
        ),
        SEQ,
        init=None,
        rough=1e-5,
    ),
    "channel_shuffle": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(F.channel_shuffle(s.c(F.relu(F.channel_shuffle(s.i(x), 4))), 2)).mean((2, 3))),
            i=nn.Conv2d(3, n, 2),
            c=nn.Conv2d(n, n, 2, groups=2),
            o=L(n, OUT),
        ),
        IMG,
        width=64,
    ),
    "pixel_shuffle": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.c(F.relu(F.pixel_shuffle(s.i(x), 2)))).mean((2, 3))),
            i=nn.Conv2d(3, 4 * n, 2),
            c=nn.Conv2d(n, n, 3, stride=2),
            o=L(n, OUT),
        ),
        IMG,
        width=64,
    ),
    "a frozen number times the data": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.i((1 + s.g) * x))),
            g=param(1, std=0.0, mean=0.4).requires_grad_(False),
            i=L(5, n),
            o=L(n, OUT),
        ),
        VEC,
    ),
    "chunks of data": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu((p := x.chunk(2, 1))[0] @ s.i.weight.T + s.a(p[1] / 2))),
            i=L(5, n, bias=False),
            a=L(5, n),
            o=L(n, OUT),
        ),
        WORDS,
    ),
    "samples last": Case(lambda n: Net(lambda s, x: s.o(F.relu(s.i(x.T.flip(0).T))), i=L(5, n), o=L(n, OUT)), VEC),
    "raw data": Case(lambda n: Net(lambda s, x: s.o(F.relu(s.i((x / 2 - 0.5).flatten(1)))), i=L(75, n), o=L(n, OUT)), IMG),
    "patches": Case(
        lambda n: Net(
            lambda s, x: s.o(
                F.relu(
                    s.a(
                        s.i(x[..., :4, :4].unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2))
                        + s.p
                    )
                ).mean(1)
            ),
            p=param(4, n),
            **dense(n, 12),
        ),
        IMG,
    ),
    "detach": Case(
        lambda n: Net(
            lambda s, x: s.o(F.relu(s.a(F.relu(s.i(x)).detach()) + s.b(x))), i=L(5, n), a=L(n, n), b=L(5, n), o=L(n, OUT)
        ),
        VEC,
    ),
    "in place after a view": Case(
        lambda n: S(nn.Conv1d(5, n, 3), nn.Flatten(), nn.Dropout(), nn.ReLU(inplace=True), L(4 * n, OUT)), SEQ
    ),
    "in place": Case(lambda n: Net(in_place, **dense(n)), VEC, rough=1e-2),
    "transformer, all positions": Case(lambda n: Net(lambda s, x: s.o(s.t(s.i(x))), i=L(5, n), t=Block(n), o=L(n, OUT)), WORDS),
    "scale by a buffer": Case(
        lambda n: buffered(
            Net(lambda s, x: s.o(F.relu(s.i(x)) * s.c), i=L(5, n), o=L(n, OUT)), c=torch.tensor(1.5, dtype=DOUBLE)
        ),
        VEC,
    ),
}


def iterated(s, x):
    """Weights tied over steps, as a deep equilibrium's."""
    u = s.i(x)
    z = torch.zeros_like(u)
    for _ in range(3):
        z = torch.tanh(s.a(z) + u)
    return s.o(z)


def in_place(s, x):
    h = s.i(x)
    h += s.a(F.relu(h))
    g = s.b(h.relu_())
    g *= 0.5
    g.add_(1.0)
    return s.o(torch.relu_(g))


class Block(nn.Module):
    """A pre-norm transformer block with the 1/d attention."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n, self.m, self.heads = nn.LayerNorm(n), nn.LayerNorm(n), 2
        self.qkv, self.out, self.up, self.down = L(n, 3 * n), L(n, n), L(n, 2 * n), L(2 * n, n)

    def forward(self, h: Tensor) -> Tensor:
        b, t, n = h.shape
        q, k, v = self.qkv(self.n(h)).view(b, t, 3, self.heads, n // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.heads / n)
        h = h + self.out(z.transpose(1, 2).reshape(b, t, n))
        return h + self.down(F.gelu(self.up(self.m(h))))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "asinh": torch.asinh,
    "atan": torch.atan,
    "celu": lambda x: F.celu(x, 0.7),
    "clamp": lambda x: x.clamp(-1, 2),
    "clamp_max": lambda x: x.clamp_max(0.5),
    "clamp_min": lambda x: x.clamp_min(-0.5),
    "cos": torch.cos,
    "cosh": lambda x: torch.cosh(x),
    "elu": lambda x: F.elu(x, 0.5),
    "erf": torch.erf,
    "erfc": torch.erfc,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "special_erf": torch.special.erf,
    "special_erfc": torch.special.erfc,
    "special_exp2": torch.special.exp2,
    "special_expit": torch.special.expit,
    "special_expm1": torch.special.expm1,
    "special_log1p": lambda x: torch.special.log1p(x.square()),
    "special_log_ndtr": torch.special.log_ndtr,
    "special_ndtr": torch.special.ndtr,
    "expm1": torch.expm1,
    "gelu": F.gelu,
    "hardshrink": F.hardshrink,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.3),
    "log_sigmoid": F.logsigmoid,
    "mish": F.mish,
    "relu": F.relu,
    "relu6": F.relu6,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "silu": F.silu,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "softplus": lambda x: F.softplus(x, 2.0),
    "softshrink": F.softshrink,
    "softsign": F.softsign,
    "square": torch.square,
    "tanh": torch.tanh,
    "threshold": lambda x: F.threshold(x, 0.2, 0.1),
    "pow": lambda x: x**3,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
}
# activations with kinks or jumps away from zero, of which users are warned
# other names under which torch may trace an operation of the cases, and operations that are refused
SYNONYMS = {
    "_upsample_bicubic2d_aa",
    "_upsample_bilinear2d_aa",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
    "upsample_nearest3d",
    "upsample_trilinear3d",
    "_adaptive_avg_pool1d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "_fused_rms_norm",
    "_native_batch_norm_legit",
    "_to_copy",
    "_unsafe_view",
    "alias",
    "alpha_dropout",
    "log_softmax",
    "norm",
    "amax",
    "batch_norm",
    "bmm",
    "cudnn_batch_norm",
    "double",
    "feature_dropout",
    "float",
    "instance_norm",
    "lift_fresh_copy",
    "amin",
    "fmax",
    "fmin",
    "full_like",
    "native_channel_shuffle",
    "new_full",
    "new_ones",
    "gru",
    "gru_cell",
    "lstm",
    "lstm_cell",
    "le",
    "eq",
    "logical_or",
    "minimum",
    "max",
    "max_pool1d",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "mm",
    "native_group_norm",
    "native_layer_norm",
    "size",
    "type_as",
}
