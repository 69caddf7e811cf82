"""Networks without a kernel, and what their refusals must say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kernel_cases import (
    IMG,
    OUT,
    SEQ,
    TOKENS,
    VEC,
    VOL,
    WORDS,
    L,
    Net,
    S,
    dense,
    depthwise,
    normal,
    param,
    root_mean_square,
    starting_at,
    turned,
)
from torch import Tensor, nn

import lazyrich as lzr
from lazyrich.lazy.weights import Init


@dataclass(frozen=True)
class Refusal:
    """A network without a kernel, and what the message must say: the operation, the cause, the mend."""

    factory: Callable[[int], nn.Module]
    x: Tensor
    says: tuple[str, ...]
    init: Init = lzr.init.variance(1.7, 0.3)
    train: bool = False


def of_dense(forward: Callable[[Net, Tensor], Tensor], **more: Callable[[int], nn.Module | nn.Parameter]):
    return lambda n: Net(forward, **dense(n), **{name: make(n) for name, make in more.items()})


def looks(n: int, scale: float | None = None) -> nn.Module:
    layers = {"q": L(n, n), "k": L(n, n), "v": L(n, n)}
    return Net(
        lambda s, x: s.o(F.scaled_dot_product_attention(s.q(h := s.i(x)), s.k(h), s.v(h), scale=scale)), **dense(n), **layers
    )


def logits(n: int, change: Callable[..., tuple[Tensor, Tensor]], **more: nn.Module | nn.Parameter) -> nn.Module:
    """Attention by hand whose queries and keys something is done to."""

    def forward(s, x):
        q, k = change(s, s.q(x), s.k(x))
        return s.o((q @ k.transpose(1, 2) / n).softmax(-1) @ s.v(x))

    return Net(forward, o=L(n, OUT), **{name: L(5, n) for name in "qkv"}, **more)


def heads(s: Net, x: Tensor) -> Tensor:
    """A layer's features in four heads."""
    return s.i(x).unflatten(-1, (4, -1))


def distances(s: Net, x: Tensor) -> Tensor:
    """Attention of four heads with a number for every distance and head, as T5 has it."""
    q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (s.q, s.k, s.v))
    apart = torch.arange(6)[None] + torch.arange(6)[:, None]
    z = (q @ k.transpose(2, 3) / q.shape[-1] + s.r(apart).permute(2, 0, 1)[None]).softmax(-1) @ v
    return s.o(z.transpose(1, 2).flatten(2))


def lone(forward: Callable[[Net, Tensor], Tensor]) -> Callable[[int], nn.Module]:
    """What is done to rectified features, with a layer of one output and one of many."""
    return of_dense(lambda s, x: forward(s, F.relu(s.i(x))), v=lambda n: L(n, 1), w=lambda n: L(n, 128))


LONE = ("1 feature(s) meet 16", "stays random", "nn.Linear(n, n) for nn.Linear(n, 1)")
OUTPUTS = (f"statistic over {OUT} outputs", "normalise before the readout")


def biased(n: int) -> nn.LayerNorm:
    """A norm whose bias starts at one."""
    norm = nn.LayerNorm(n)
    nn.init.ones_(norm.bias)
    return norm


def joined(n: int, between: nn.Module, last: Callable[[Tensor], Tensor] = lambda h: h) -> nn.Module:
    """Two branches of different laws side by side, a layer on both, and a readout of the mean over positions."""

    def forward(s, x):
        h = last(s.m(torch.cat([3 * F.relu(s.p(x)), s.q(x).tanh()], 1))).mean(-1)
        return F.linear(h, s.w.weight[:, : h.shape[1]]) if h.shape[1] < 2 * n else s.w(h)

    return Net(forward, p=nn.Conv1d(5, n, 1), q=nn.Conv1d(5, n, 1), m=between, w=L(2 * n, OUT))


class Several(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.a = L(5, n)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x), self.a(x).relu()


def multihead(n: int) -> nn.Module:
    def forward(s, x):
        h = s.i(x)
        return s.o(s.m(h, h, h, need_weights=False)[0])

    return Net(forward, m=nn.MultiheadAttention(n, 2, batch_first=True), **dense(n))


REFUSED: dict[str, Refusal] = {
    "an operation without a rule": Refusal(
        lambda n: S(L(5, n), Net(lambda s, h: h.cumsum(-1)), L(n, OUT)),
        VEC,
        ("no rule for the operation 'cumsum'", "module '1' (Net)", "kernel_cases.py:", "register('cumsum')"),
    ),
    "softmax": Refusal(of_dense(lambda s, x: s.o(s.i(x).softmax(-1))), VEC, ("softmax at", "gates", "sigmoid")),
    "the place of a nonlinearity": Refusal(
        of_dense(lambda s, x: s.o(F.relu(s.a(h := F.relu(s.i(x))) * s.b(h)))),
        VEC,
        ("relu at the network's own forward", "not independent Gaussians", "put a linear layer before it"),
    ),
    "another norm": Refusal(
        of_dense(lambda s, x: s.o(F.normalize(s.i(x), p=1.0, dim=-1))), VEC, ("linalg_vector_norm at", "order 1", "Euclidean")
    ),
    "joined with the inputs": Refusal(
        of_dense(lambda s, x: s.w(torch.cat([s.i(x), x], -1)), w=lambda n: L(n + 5, OUT)),
        VEC,
        ("cat at", "the inputs", "no share in those that grow", "linear layer of their own"),
    ),
    "the norm of a parameter": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) + F.layer_norm(s.p, s.p.shape)), p=lambda n: param(n)),
        VEC,
        ("layer_norm at", "the parameter 'p' by itself", "add it to a branch"),
    ),
    "a branch on the data": Refusal(
        of_dense(lambda s, x: s.o(s.i(x)) if x.sum() > 0 else s.o(-s.i(x))),
        VEC,
        ("a branch depends on the data", "keep Python"),
    ),
    "wrong feature size": Refusal(
        lambda n: S(L(4, n), nn.ReLU(), L(n, OUT)), VEC, ("cannot be traced", "(batch, 5)", "shape that")
    ),
    "several outputs": Refusal(Several, VEC, ("returns 2 tensors, expected one", "wrap it")),
    "no weight": Refusal(lambda n: Net(lambda s, x: x * 2, **dense(n)), VEC, ("holds no random weight",)),
    "outputs of different laws": Refusal(
        of_dense(lambda s, x: torch.cat([s.a(h := F.relu(s.i(x))), 10 * s.b(h)], -1)),
        VEC,
        ("different laws", "return one branch"),
    ),
    "integers": Refusal(lambda n: S(L(5, n), nn.ReLU(), L(n, OUT)), VEC.round().long(), ("torch.int64", "x.float()")),
    "a view of joined branches": Refusal(
        of_dense(lambda s, x: s.o(torch.cat([F.relu(s.i(x)), s.i(x).tanh()], -1).unflatten(-1, (2, -1))[:, 0])),
        VEC,
        ("unflatten at", "cannot follow the view", "before joining"),
    ),
    "groups of joined branches, transposed": Refusal(
        lambda n: joined(n, nn.ConvTranspose1d(2 * n, 2 * n, 2, groups=2)),
        SEQ,
        ("conv_transpose1d at", "other laws", "one group"),
    ),
    "a chunk behind a depthwise layer": Refusal(
        lambda n: joined(n, nn.Conv1d(2 * n, 2 * n, 3, groups=2 * n), lambda h: h.chunk(2, 1)[0]), SEQ, ("at", "joined")
    ),
    "group_norm behind a depthwise layer": Refusal(
        lambda n: joined(n, S(nn.Conv1d(2 * n, 2 * n, 3, groups=2 * n), nn.GroupNorm(2, 2 * n))),
        SEQ,
        ("group_norm at", "joined"),
    ),
    "dependent branches added": Refusal(
        of_dense(lambda s, x: s.o(s.a(h := s.i(x)) + s.a(F.relu(h)))),
        VEC,
        ("add at", "same weights", "a.weight", "linear layer of its own"),
    ),
    "dependent branches multiplied": Refusal(
        of_dense(lambda s, x: s.o(s.a(h := s.i(x)) * s.a(F.relu(h)))),
        VEC,
        ("mul at", "same weights", "a.weight", "linear layer"),
    ),
    **{
        f"a depthwise layer, {name}": Refusal(
            depthwise(forward), SEQ, ("mul at", "same weights (", "multiplied", "linear layer")
        )
        for name, forward in {
            "times what it reads": lambda s, h: h * s.d(h),
            "times another one": lambda s, h: s.d(h) * s.e(h),
            "times a gate by what it reads": lambda s, h: h.sigmoid() * s.d(h),
            "of features times these": lambda s, h: s.d(F.relu(h)) * F.relu(h),
            "of another, times what that reads": lambda s, h: s.e(s.d(h)) * h,
            "added, times what it reads": lambda s, h: (s.p(h) + s.d(h)) * h,
            "normalised, times what it reads": lambda s, h: F.layer_norm(s.d(h).mT, h.shape[1:2]).mT * h,
        }.items()
    },
    "half of a depthwise layer, times what it reads": Refusal(
        depthwise(lambda s, h: s.d(h).chunk(2, 1)[1] * h.chunk(2, 1)[1], share=2), SEQ, ("multiplied",)
    ),
    "a depthwise layer of shuffled features, times others of them": Refusal(
        depthwise(lambda s, h: s.d(F.channel_shuffle(h, 2)).chunk(2, 1)[0] * h.chunk(2, 1)[1], share=2), SEQ, ("multiplied",)
    ),
    "a depthwise layer acts twice": Refusal(
        depthwise(lambda s, h: s.d(s.e(s.d(h)))), SEQ, ("conv1d at module 'd'", "'d.weight' acts twice", "untie")
    ),
    "a gain on both sides of a depthwise layer": Refusal(
        lambda n: Net(
            lambda s, x: s.o((s.d(s.i(x) * s.w) * s.w).mean(-1)),
            i=nn.Conv1d(5, n, 1),
            d=nn.Conv1d(n, n, 3, groups=n),
            w=param(n, 1),
            o=L(n, OUT),
        ),
        SEQ,
        ("mul at", "'w' acts twice", "untie"),
    ),
    "a gain times what it multiplies": Refusal(
        of_dense(lambda s, x: s.o((h := s.i(x)) * (h * s.w)), w=lambda n: param(n)),
        VEC,
        ("mul at", "same weights", "multiplied"),
    ),
    "means without cross term": Refusal(
        of_dense(lambda s, x: s.o(F.relu(s.a(h := s.i(x))) + F.relu(s.b(h)))), VEC, ("both not centred", "linear layer")
    ),
    "batch_norm": Refusal(
        lambda n: S(L(5, n), nn.BatchNorm1d(n), nn.ReLU(), L(n, OUT)), VEC, ("running statistics", "layer_norm")
    ),
    "batch_norm in training": Refusal(
        lambda n: S(L(5, n), nn.BatchNorm1d(n), nn.ReLU(), L(n, OUT)), VEC, ("over samples", "layer_norm"), train=True
    ),
    "weights standardised by batch_norm": Refusal(
        lambda n: Net(
            lambda s, x: s.o(
                F.conv1d(x, F.batch_norm(s.c.weight[None].flatten(2), None, None, training=True).view(s.c.weight.shape))
            ),
            c=nn.Conv1d(5, n, 3),
            o=nn.Conv1d(n, OUT, 1),
        ),
        SEQ,
        ("batch_norm at", "a weight from others ('c.weight')", "only plain parameters"),
    ),
    "instance_norm": Refusal(
        lambda n: S(nn.Conv1d(5, n, 3), nn.InstanceNorm1d(n), nn.Flatten(), L(4 * n, OUT)),
        SEQ,
        ("positions of one channel", "group_norm"),
    ),
    "group_norm of one channel": Refusal(
        lambda n: S(nn.Conv1d(5, n, 3), nn.GroupNorm(n, n), nn.Flatten(), L(4 * n, OUT)),
        SEQ,
        ("one channel a group", "fewer groups"),
    ),
    "layer_norm over words": Refusal(
        lambda n: Net(lambda s, x: s.o(F.layer_norm(F.relu(s.i(x)), (6, n)).flatten(1)), i=L(5, n), o=L(6 * n, OUT)),
        WORDS,
        ("over positions", "over the features alone"),
    ),
    "layer_norm of a head": Refusal(
        of_dense(
            lambda s, x: s.o(F.layer_norm((h := s.i(x)).unflatten(-1, (2, h.shape[-1] // 2)), (h.shape[-1] // 2,)).flatten(1))
        ),
        VEC,
        ("a part of the features", "over all features"),
    ),
    "max_pool1d": Refusal(
        lambda n: S(nn.Conv1d(5, n, 3), nn.MaxPool1d(2), nn.Flatten(), L(2 * n, OUT)),
        SEQ,
        ("max", "no known kernel", "average"),
    ),
    "max_pool2d": Refusal(
        lambda n: S(nn.Conv2d(3, n, 2), nn.MaxPool2d(2), nn.Flatten(), L(4 * n, OUT)),
        IMG,
        ("max", "no known kernel", "average"),
    ),
    "max_pool3d": Refusal(
        lambda n: S(nn.Conv3d(2, n, 2), nn.MaxPool3d(2), nn.Flatten(), L(n, OUT)), VOL, ("max", "no known kernel", "average")
    ),
    "amax": Refusal(of_dense(lambda s, x: s.o(s.i(x).amax(1))), WORDS, ("no known kernel", "average")),
    "max over words": Refusal(of_dense(lambda s, x: s.o(s.i(x).max(1).values)), WORDS, ("no known kernel", "average")),
    "max of two branches": Refusal(
        lambda n: Net(lambda s, x: s.o(torch.maximum(s.i(x), s.a(x))), i=L(5, n), a=L(5, n), o=L(n, OUT)),
        VEC,
        ("not functions of one field",),
    ),
    "chosen by another branch": Refusal(
        lambda n: Net(lambda s, x: s.o(torch.where(s.i(x) > 0, s.a(x), 0.0)), i=L(5, n), a=L(5, n), o=L(n, OUT)),
        VEC,
        ("its condition", "a mask"),
    ),
    "filled with ones": Refusal(
        of_dense(lambda s, x: s.o(s.i(x).masked_fill(x[..., :1] > 0, 1.0))),
        WORDS,
        ("neither zero nor a branch", "fill with zero"),
    ),
    "masked features": Refusal(
        lambda n: Net(lambda s, x: s.o(s.i(x).masked_fill(x > 0, 0.0)), i=L(5, 5), o=L(5, OUT)), VEC, ("over features",)
    ),
    "stacked and summed, dependent": Refusal(
        of_dense(lambda s, x: s.o(torch.stack([F.relu(h := s.i(x)), F.relu(h) + h], 1).mean(1))), VEC, ("dependent",)
    ),
    "stacked with a parameter": Refusal(
        lambda n: Net(lambda s, x: s.o(torch.stack([h := s.i(x), torch.ones_like(h)], 1)), i=L(5, n), o=L(n, OUT)),
        VEC,
        ("parameters or constants",),
    ),
    "slopes of words": Refusal(
        of_dense(lambda s, x: s.o(s.p(s.i(x))), p=lambda n: nn.PReLU(6)), WORDS, ("belong to positions",)
    ),
    "random slopes": Refusal(
        lambda n: Net(lambda s, x: s.o(F.prelu(s.i(x), s.w)), i=L(5, n), w=param(n), o=L(n, OUT)),
        VEC,
        ("drawn at random", "one number"),
    ),
    "not Gaussian: a product": Refusal(
        of_dense(lambda s, x: s.o(F.relu(s.a(h := s.i(x)) * s.b(h)))), VEC, ("not independent Gaussians", "linear layer")
    ),
    "not Gaussian: a residual": Refusal(
        of_dense(lambda s, x: s.o(F.relu((h := F.relu(s.i(x))) + s.a(h)))), VEC, ("not independent Gaussians", "linear layer")
    ),
    "not Gaussian: depthwise": Refusal(
        lambda n: S(nn.Conv1d(5, n, 3), nn.ReLU(), nn.Conv1d(n, n, 2, groups=n), nn.ReLU(), nn.Flatten(), L(3 * n, OUT)),
        SEQ,
        ("not independent Gaussians",),
    ),
    "a transposed weight": Refusal(
        lambda n: Net(lambda s, x: F.relu(s.i(x)) @ s.i.weight, i=L(5, n)),
        VEC,
        ("matmul at", "'i.weight'", "transposed", "untie"),
    ),
    "a transposed weight in linear": Refusal(
        lambda n: Net(lambda s, x: F.linear(F.relu(s.i(x)), s.i.weight.T), i=L(5, n)), VEC, ("linear at", "transposed", "untie")
    ),
    "a tied convolution": Refusal(
        lambda n: Net(lambda s, x: F.conv_transpose1d(F.relu(s.c(x)), s.c.weight), c=nn.Conv1d(5, n, 3)),
        SEQ,
        ("transposed", "untie"),
    ),
    "tied embeddings": Refusal(
        lambda n: Net(lambda s, x: F.linear(F.relu(s.a(s.e(x))), s.e.weight), e=nn.Embedding(7, n), a=L(n, n)),
        TOKENS,
        ("'e.weight'", "a table", "untie"),
    ),
    "padded embedding": Refusal(
        lambda n: Net(lambda s, x: s.o(s.e(x)), e=nn.Embedding(7, n, padding_idx=0), o=L(n, OUT)), TOKENS, ("padding_idx",)
    ),
    "a computed weight": Refusal(
        of_dense(lambda s, x: s.o(F.linear(s.i(x), s.a.weight * s.b.weight))),
        VEC,
        ("computes a weight from others", "plain parameters"),
    ),
    "a shifted weight": Refusal(
        of_dense(lambda s, x: F.linear(s.i(x), s.o.weight + 2)), VEC, ("'o.weight' has the mean 2", "a number was added")
    ),
    "a standardised weight": Refusal(
        of_dense(lambda s, x: s.o(F.linear(s.i(x), s.a.weight - s.a.weight.mean(1, keepdim=True)))),
        VEC,
        ("mean at", "('a.weight')", "limit of a plain one", "init={'a.weight': lzr.init.variance(w)}"),
    ),
    "a normalised weight": Refusal(
        of_dense(lambda s, x: s.o(F.linear(s.i(x), F.normalize(s.a.weight)))),
        VEC,
        ("linalg_vector_norm at", "computes a weight", "limit of a plain one"),
    ),
    "a function of a parameter": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) * s.g.exp()), g=lambda n: param(n)), VEC, ("exp at", "('g')", "parameter of its own")
    ),
    "weights multiplied first": Refusal(
        of_dense(lambda s, x: s.o(F.linear(s.i(x), s.a.weight @ s.b.weight))),
        VEC,
        ("'a.weight' and 'b.weight'", "one after the"),
    ),
    "a bias of logits": Refusal(
        of_dense(lambda s, x: s.o((s.a(h := s.i(x)) @ s.b(h).mT / 16 + s.g).softmax(-1) @ h), g=lambda n: param(6, 6, std=0.0)),
        WORDS,
        ("joins the parameter 'g'", "register_buffer"),
    ),
    "a weight norm of old": Refusal(
        lambda n: S(L(5, n), S(nn.utils.weight_norm(L(n, n))), nn.ReLU(), L(n, OUT)),
        VEC,
        ("_weight_norm at", "utils.remove_weight_norm(model.get_submodule('1.0'))"),
    ),
    "a weight norm": Refusal(
        lambda n: S(L(5, n), nn.utils.parametrizations.weight_norm(L(n, n)), nn.ReLU(), L(n, OUT)),
        VEC,
        ("_weight_norm at", "parametrize.remove_parametrizations(model.get_submodule('1'), 'weight')"),
    ),
    "a spectral norm of old": Refusal(
        lambda n: S(L(5, n), nn.utils.spectral_norm(L(n, n)), nn.ReLU(), L(n, OUT)), VEC, ("mv at", "remove_spectral_norm(")
    ),
    "a spectral norm": Refusal(
        lambda n: S(L(5, n), nn.utils.parametrizations.spectral_norm(L(n, n)), nn.ReLU(), L(n, OUT)),
        VEC,
        ("mv at", "remove_parametrizations("),
    ),
    "a spectral norm in training": Refusal(
        lambda n: S(L(5, n), nn.utils.parametrizations.spectral_norm(L(n, n)), nn.ReLU(), L(n, OUT)),
        VEC,
        ("under a switch", "model.eval()"),
        train=True,
    ),
    "a statistic of the batch": Refusal(
        of_dense(lambda s, x: s.o(F.relu(s.i(x - x.mean(0))))), VEC, ("mean at", "from all samples", "every sample by itself")
    ),
    "matmul of random fields": Refusal(
        of_dense(lambda s, x: s.o(s.a(h := s.i(x)) @ s.b(h).transpose(1, 2) @ h)),
        WORDS,
        ("matmul at", "scaled by 1 = ", "scaled_dot_product_attention"),
    ),
    "dropout of the data": Refusal(
        lambda n: S(nn.Dropout(0.5), L(5, n), L(n, OUT)), VEC, ("draws at random", "model.eval()"), train=True
    ),
    "noise on the data": Refusal(of_dense(lambda s, x: s.o(s.i(x + torch.randn_like(x)))), VEC, ("randn_like at", "at random")),
    "batch norm of the data": Refusal(
        lambda n: S(nn.BatchNorm1d(5, affine=False), L(5, n), L(n, OUT)), VEC, ("batch_norm at", "samples"), train=True
    ),
    "softmax over samples": Refusal(of_dense(lambda s, x: s.o(s.i(x.softmax(0)))), VEC, ("softmax at", "mixes the samples")),
    "joined branches multiplied": Refusal(
        of_dense(lambda s, x: s.o((torch.cat([s.i(x), 3 * s.a(s.i(x))], 1) * torch.cat([s.b(s.i(x)), s.i(x)], 1))[:, :16])),
        VEC,
        ("mul at",),
    ),
    "products of joined branches": Refusal(
        lambda n: Net(
            lambda s, x: s.o(torch.cat([s.a(x), 3 * s.b(x)], 1) * torch.cat([3 * s.c(x), s.d(x)], 1)),
            **{name: L(5, n) for name in "abcd"},
            o=L(2 * n, OUT),
        ),
        VEC,
        ("mul at", "multiply before joining"),
    ),
    "a part of joined branches after a sum": Refusal(
        lambda n: Net(
            lambda s, x: s.o((torch.cat([s.a(x), 3 * s.b(x)], 1) + s.c(x)).chunk(2, 1)[0]),
            a=L(5, n),
            b=L(5, n),
            c=L(5, 2 * n),
            o=L(n, OUT),
        ),
        VEC,
        ("chunk at", "split before joining"),
    ),
    "groups of data channels": Refusal(
        lambda n: S(nn.Conv1d(6, 2 * n, 1, groups=2), nn.Tanh(), nn.Flatten(), L(10 * n, OUT)),
        normal(3, 6, 5),
        ("conv1d at", "different channels of the data"),
    ),
    "one norm on two branches": Refusal(
        of_dense(lambda s, x: s.o(s.n(s.a(h := s.i(x))) + s.n(s.b(h))), n=lambda n: nn.LayerNorm(n)),
        VEC,
        ("add at", "n.weight", "linear layer of its own"),
    ),
    "one bias on two branches": Refusal(
        of_dense(lambda s, x: s.o(F.linear(h := s.i(x), s.a.weight, s.a.bias) + F.linear(h, s.b.weight, s.a.bias))),
        VEC,
        ("add at", "a.bias"),
    ),
    "a gain that acts twice": Refusal(
        of_dense(lambda s, x: s.o(F.relu(s.i(x)) * s.g * s.g), g=lambda n: param(n)), VEC, ("mul at", "'g' acts twice")
    ),
    "a division that rounds": Refusal(
        of_dense(lambda s, x: s.o(torch.div(s.i(x), 2, rounding_mode="floor"))), VEC, ("div at", "rounds")
    ),
    "dropout of attention": Refusal(
        of_dense(
            lambda s, x: s.o(F.scaled_dot_product_attention(s.a(h := s.i(x)), s.b(h), h, dropout_p=0.5, scale=1 / h.shape[-1]))
        ),
        WORDS,
        ("dropout of attention weights", "model.eval()"),
    ),
    "tokens beyond the table": Refusal(
        lambda n: S(nn.Embedding(5, n), L(n, OUT)), TOKENS + 3, ("embedding at", "from 3 to 7", "0 to 4")
    ),
    "a parameter turned after it was repeated": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) + s.t.expand(6, -1).t().t()), t=lambda n: param(1, n)),
        WORDS,
        ("after its entries were repeated",),
    ),
    "an inverse": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) ** -1)), VEC, ("not finite", "first behind linear at", "module 'o'")
    ),
    "keys times values first": Refusal(
        of_dense(lambda s, x: s.o(s.a(h := s.i(x)) @ (s.b(h).transpose(1, 2) @ h) / 6)),
        WORDS,
        ("matmul at", "over positions or samples", "softmax(q k / d) v"),
    ),
    "logits by 1/sqrt(d), by hand": Refusal(
        of_dense(lambda s, x: s.o(torch.einsum("bqd,bkd->bqk", s.a(h := s.i(x)), s.b(h)).div(4).softmax(-1) @ h)),
        WORDS,
        ("softmax at", "1/sqrt(d)", "stay random", "scale=1/d"),
    ),
    "queries that are keys elsewhere": Refusal(
        of_dense(lambda s, x: s.o((s.a(h := s.i(x)) @ s.a(F.relu(h)).transpose(1, 2) / 16).softmax(-1) @ s.b(h))),
        WORDS,
        ("matmul at", "are not the same", "layers of their own"),
    ),
    "queries that are keys elsewhere, in torch's attention": Refusal(
        of_dense(
            lambda s, x: s.o(F.scaled_dot_product_attention(s.a(h := s.i(x)), s.a(F.relu(h)), s.b(h), scale=1 / h.shape[-1]))
        ),
        WORDS,
        ("attention at", "are not the same", "layers of their own"),
    ),
    "rolled keys": Refusal(
        of_dense(lambda s, x: s.o(((q := s.a(h := s.i(x))) @ q.roll(1, 1).transpose(1, 2) / 16).softmax(-1) @ s.b(h))),
        WORDS,
        ("matmul at", "are not the same"),
    ),
    "fields with means multiplied over features": Refusal(
        of_dense(
            lambda s, x: s.o((F.relu(s.a(h := s.i(x))) @ F.relu(s.b(h)).transpose(1, 2) / 16).softmax(-1) @ h),
        ),
        WORDS,
        ("matmul at", "both have means", "linear layer"),
    ),
    "a mask of its own for each head": Refusal(
        of_dense(
            lambda s, x: s.o(
                (
                    (
                        (q := s.a(s.i(x)).unflatten(-1, (2, -1)).transpose(1, 2)) @ q.transpose(2, 3) / q.shape[-1]
                        + torch.arange(2.0).reshape(2, 1, 1) * torch.arange(6.0)
                    ).softmax(-1)
                    @ q
                )
                .transpose(1, 2)
                .flatten(2)
            )
        ),
        WORDS,
        ("differ from head to head",),
    ),
    "a mask of scaled_dot_product_attention for each head": Refusal(
        of_dense(
            lambda s, x: s.o(
                F.scaled_dot_product_attention(
                    *(m(s.i(x)).unflatten(-1, (2, 8)).transpose(1, 2) for m in (s.a, s.b, s.c)),
                    attn_mask=torch.stack([torch.zeros(6, 6), torch.ones(6, 6).tril().log()]),
                    scale=1 / 8,
                )
                .transpose(1, 2)
                .flatten(2)
            ),
            c=lambda n: L(n, n),
        ),
        WORDS,
        ("differs from head to head", "use the same mask"),
    ),
    "einsum with dots": Refusal(
        of_dense(lambda s, x: s.o(torch.einsum("...d,ed->...e", s.i(x), s.a.weight))), WORDS, ("einsum at", "all axes named")
    ),
    "data times features": Refusal(
        of_dense(lambda s, x: s.o((s.i(x)[:, :, :5] @ x.transpose(1, 2)).softmax(-1) @ s.b(s.i(x)))),
        WORDS,
        ("matmul at", "data over features", "linear layer"),
    ),
    "attention by 1/sqrt(d)": Refusal(looks, WORDS, ("/sqrt(d)", "stay random", "scale=1/d")),
    "MultiheadAttention": Refusal(multihead, WORDS, ("module 'm' (MultiheadAttention)", "/sqrt(d)", "scale=1/d")),
    "TransformerEncoderLayer": Refusal(
        lambda n: Net(
            lambda s, x: s.o(s.t(s.i(x))), t=nn.TransformerEncoderLayer(n, 2, n, batch_first=True), i=L(5, n), o=L(n, OUT)
        ),
        WORDS,
        ("/sqrt(d)", "scale=1/d"),
    ),
    "queries that meet no sample": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) + s.a(s.w)), w=lambda n: param(6, n)),
        WORDS,
        ("linear at module 'a'", "two parameters, 'w' and 'a.weight'", "'w' for every sample", ".expand(x.shape[0], -1, -1)"),
    ),
    "attention with a mask made by weights": Refusal(
        of_dense(
            lambda s, x: s.o(
                F.scaled_dot_product_attention(s.a(h := s.i(x)), s.b(h), h, attn_mask=s.c(x), scale=1 / h.shape[-1])
            ),
            c=lambda n: L(5, 6),
        ),
        WORDS,
        ("mask is made by weights", "make it of the inputs"),
    ),
    "attention with a mask whose samples lie among the heads": Refusal(
        of_dense(
            lambda s, x: s.o(
                F.scaled_dot_product_attention(
                    *(m(s.i(x)).unflatten(-1, (2, -1)).transpose(1, 2).flatten(0, 1) for m in (s.a, s.b, s.b)),
                    attn_mask=(x[:, None, None, :, 0] > -0.5).expand(-1, 2, -1, -1).flatten(0, 1),
                    scale=2 / s.o.in_features,
                )
                .unflatten(0, (-1, 2))
                .transpose(1, 2)
                .flatten(2)
            )
        ),
        WORDS,
        ("samples beside other axes", "(batch, 1, queries, keys)"),
    ),
    "queries that share weights with keys": Refusal(
        of_dense(
            lambda s, x: s.o(
                F.scaled_dot_product_attention((q := s.a(h := s.i(x))), q + s.b(h), s.c(h), scale=1 / h.shape[-1])
            ),
            c=lambda n: L(n, n),
        ),
        WORDS,
        ("share a part of their weights",),
    ),
    "token mixing": Refusal(
        of_dense(lambda s, x: s.o(s.t(s.i(x).transpose(1, 2)).transpose(1, 2)), t=lambda n: L(6, 6)),
        WORDS,
        ("linear at", "mixes positions", "no limit"),
    ),
    "a linear layer of each head": Refusal(
        of_dense(lambda s, x: s.o(s.t(s.i(x).unflatten(-1, (2, -1))).flatten(1)), t=lambda n: L(n // 2, n // 2)),
        VEC,
        ("a part of the features",),
    ),
    "a convolution over features": Refusal(
        lambda n: Net(lambda s, x: s.o(s.c(s.i(x))), i=L(5, n), c=nn.Conv1d(6, 6, 3, padding=1), o=L(n, OUT)),
        WORDS,
        ("channel axis", "convolve over positions"),
    ),
    "sum over features": Refusal(of_dense(lambda s, x: s.o(s.i(x).sum(-1, keepdim=True) + s.a(s.i(x)))), VEC, ("features",)),
    "variance over positions": Refusal(
        lambda n: Net(lambda s, x: s.o(s.i(x).var(1)), i=L(5, n), o=L(n, OUT)), WORDS, ("no statistic over all features",)
    ),
    "variance of squares": Refusal(
        of_dense(lambda s, x: s.o((h := F.relu(s.i(x)) - x.mean(-1, keepdim=True)) / (1 + (h * h).var(-1, keepdim=True)))),
        VEC,
        ("not independent Gaussians",),
    ),
    "mean over the features of a head": Refusal(
        of_dense(lambda s, x: s.o((h := F.relu(s.i(x)).unflatten(-1, (2, -1))).sub(h.mean(-1, keepdim=True)).flatten(1))),
        VEC,
        ("features",),
    ),
    "mean over samples": Refusal(of_dense(lambda s, x: s.o(s.i(x) + s.i(x).mean(0))), VEC, ("samples",)),
    "some samples": Refusal(of_dense(lambda s, x: s.o(s.i(x)[1:] - s.i(x)[:-1])), VEC, ("samples",)),
    "one sample": Refusal(of_dense(lambda s, x: s.o(s.i(x) + s.a(s.i(x))[0])), VEC, ("samples out of the batch",)),
    "features in steps": Refusal(
        lambda n: Net(lambda s, x: s.o(s.i(x)[:, ::2]), i=L(5, 2 * n), o=L(n, OUT)), VEC, ("features apart with steps",)
    ),
    "features rearranged": Refusal(of_dense(lambda s, x: s.o(F.relu(s.i(x).flip(-1)))), VEC, ("rearrange positions only",)),
    "features repeated": Refusal(
        lambda n: Net(lambda s, x: s.o(s.i(x).repeat(1, 2)), i=L(5, n), o=L(2 * n, OUT)), VEC, ("repeat positions only",)
    ),
    "features padded": Refusal(
        lambda n: Net(lambda s, x: s.o(F.pad(s.i(x), (0, 1))), i=L(5, n), o=L(n + 1, OUT)), VEC, ("pad positions only",)
    ),
    "padding that is not zero": Refusal(
        lambda n: Net(lambda s, x: s.o(F.pad(s.c(x), (1, 0), value=1.0).flatten(1)), c=nn.Conv1d(5, n, 3), o=L(5 * n, OUT)),
        SEQ,
        ("not zero", "pad with zeros"),
    ),
    "a weight with a mean": Refusal(
        lambda n: Net(lambda s, x: s.o(x @ s.w), w=param(5, n, mean=1.0), o=L(n, OUT)),
        VEC,
        ("'w' has the mean", "mean zero"),
        init=None,
    ),
    "a bias with a mean": Refusal(
        lambda n: S(nn.Conv1d(5, n, 3), starting_at(nn.Conv1d(n, n, 3, groups=n), 1.0), nn.Flatten(), L(2 * n, OUT)),
        SEQ,
        ("bias '1.bias' has the mean 1", "mean zero"),
        init=None,
    ),
    "a table with a mean": Refusal(
        lambda n: Net(lambda s, x: s.o(s.i(x) + s.p), i=L(5, n), p=param(6, n, mean=3.0), o=L(n, OUT)),
        WORDS,
        ("'p' has the mean", "mean zero"),
    ),
    "an embedding with a mean": Refusal(
        lambda n: Net(lambda s, x: s.o(F.embedding(x, s.e)), e=param(7, n, mean=3.0), o=L(n, OUT)),
        TOKENS,
        ("'e' has the mean",),
    ),
    "one number for all features": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) + s.g), g=lambda n: param(1, std=0.0)),
        VEC,
        ("'g' is one number for all features", "tangent kernel stays random", "requires_grad_(False)"),
    ),
    "one gain for all features": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) * (1 + s.g)), g=lambda n: param(1)),
        VEC,
        ("mul at", "tangent kernel stays random", "requires_grad_(False)", "one number a feature"),
    ),
    "one random number for all features": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) * s.g), g=lambda n: param(1)),
        VEC,
        ("drawn at random", "fixed one"),
        init={"g": lzr.init.variance(1.0)},
    ),
    "one number for all features of a position": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) + s.g), g=lambda n: param(6, 1)), WORDS, ("one number for all features", "a feature")
    ),
    "a gain for features that a branch lacks": Refusal(
        of_dense(lambda s, x: s.o(s.v(x) * s.g), v=lambda n: L(5, 1), g=lambda n: param(n)), VEC, ("one number a feature",)
    ),
    "a bias for features that a branch lacks": Refusal(
        of_dense(lambda s, x: s.o(s.v(x) + s.g), v=lambda n: L(5, 1), g=lambda n: param(n)),
        VEC,
        ("has another number of features than its branch",),
    ),
    "one feature gates all": Refusal(lone(lambda s, h: s.o(s.v(h).sigmoid() * s.a(h))), VEC, LONE),
    "all features by one gate": Refusal(lone(lambda s, h: s.o(s.a(h) * s.v(h).sigmoid())), VEC, LONE),
    "one feature is added to all": Refusal(lone(lambda s, h: s.o(s.v(h) + s.a(h))), VEC, LONE),
    "all features and one": Refusal(lone(lambda s, h: s.o(s.a(h) + s.v(h))), VEC, LONE),
    "one feature of a layer gates another": Refusal(lone(lambda s, h: s.o(s.a(h) * s.b(h)[:, :1])), VEC, LONE),
    "layer_norm of outputs": Refusal(lone(lambda s, h: F.layer_norm(s.o(h), (OUT,))), VEC, ("layer_norm at", *OUTPUTS)),
    "rms_norm of outputs": Refusal(lone(lambda s, h: F.rms_norm(s.o(h), (OUT,))), VEC, ("rms_norm at", *OUTPUTS)),
    "group_norm of outputs": Refusal(
        lone(lambda s, h: F.group_norm(s.o(h), 4)), VEC, ("group_norm at", "over 4 outputs", "normalise before")
    ),
    "directions of outputs": Refusal(lone(lambda s, h: F.normalize(s.o(h), dim=-1)), VEC, ("linalg_vector_norm at", *OUTPUTS)),
    "mean square of outputs": Refusal(lone(lambda s, h: root_mean_square(s.o(h))), VEC, ("mean at", *OUTPUTS)),
    "mean of rectified outputs": Refusal(lone(lambda s, h: F.relu(s.o(h)).mean(-1)), VEC, ("mean at", *OUTPUTS)),
    "a norm of outputs that share one": Refusal(
        lone(lambda s, h: F.layer_norm(s.v(h) + s.w(h), (128,))), VEC, ("layer_norm at", "share a part")
    ),
    "twice the mean off": Refusal(
        lone(lambda s, h: (y := s.o(h)) - 2 * y.mean(-1, keepdim=True)), VEC, ("sub at", "the same weights")
    ),
    "a mean of features": Refusal(
        lone(lambda s, h: F.relu(s.w(h)).mean(-1, keepdim=True)), VEC, ("does not fluctuate", "end it in a linear layer")
    ),
    "a part of a parameter": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) + s.p[:6]), p=lambda n: param(8, n)), WORDS, ("part of the parameter 'p'",)
    ),
    "one row of a parameter": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) + s.p[0]), p=lambda n: param(8, n)), WORDS, ("part of the parameter 'p'",)
    ),
    "a split parameter": Refusal(
        of_dense(lambda s, x: s.o(s.i(x) + s.p.chunk(2)[0]), p=lambda n: param(2, n)), VEC, ("splits a parameter",)
    ),
    "single features": Refusal(
        of_dense(lambda s, x: s.o(s.i(x)[:, list(range(16))])), VEC, ("index at", "picks single features")
    ),
    "picked samples": Refusal(of_dense(lambda s, x: s.o(s.i(x)[[1, 0]])), VEC, ("index at", "samples out of the batch")),
    "a rolled count of samples": Refusal(
        of_dense(lambda s, x: s.o(s.i(x)[torch.arange(x.shape[0]).roll(1), 0])), WORDS, ("arange at", "mixes the samples")
    ),
    "picked by the data of all": Refusal(
        of_dense(lambda s, x: s.o(s.i(x)[:, x[:, 0, 0].long()].mean(1))),
        WORDS,
        ("index at", "constant indices", "torch.arange(h.shape[0])"),
    ),
    "picked beyond the end": Refusal(
        of_dense(lambda s, x: s.o(s.i(x)[:, [6]])), WORDS, ("got indices from 6 to 6", "from -6 to 5")
    ),
    "picked by a mask": Refusal(
        of_dense(lambda s, x: s.o(s.i(x)[:, torch.tensor([True, False] * 3)].mean(1))),
        WORDS,
        ("index at", "boolean mask", "pick by indices"),
    ),
    "a bag of embeddings": Refusal(
        lambda n: S(nn.EmbeddingBag(7, n), L(n, OUT)), TOKENS, ("module '0' (EmbeddingBag)", "nn.Embedding(...)(x).mean(1)")
    ),
    "features beside ones": Refusal(
        of_dense(lambda s, x: s.w(torch.cat([h := s.i(x), torch.ones_like(h)], -1)), w=lambda n: L(2 * n, OUT)),
        VEC,
        ("cat at", "with a constant", "add constants"),
    ),
    "two heads, one frozen": Refusal(
        lambda n: Net(
            lambda s, x: torch.cat([s.o(s.i(x)), s.v(s.i(x))], -1), i=L(5, n), o=L(n, 2), v=L(n, 2).requires_grad_(False)
        ),
        VEC,
        ("different laws or training", "return one branch"),
    ),
    "one head twice": Refusal(
        of_dense(lambda s, x: torch.cat([h := s.o(s.i(x)), h], -1)), VEC, ("of the same weights", "return one branch")
    ),
    "a difference of two positions, one rectified": Refusal(
        of_dense(lambda s, x: s.o(F.relu(s.a((h := s.i(x))[:, 0] - F.relu(h[:, 1]))))),
        WORDS,
        ("i.weight", "end one of the branches with a linear layer of its own"),
    ),
    "a feature of joined branches": Refusal(
        of_dense(lambda s, x: s.o(torch.cat([3 * F.relu(h := s.i(x)), h.tanh()], -1)[:, 0, None].expand(-1, 16))),
        VEC,
        ("select at", "joined branches", "split before joining"),
    ),
    "shuffled joined channels": Refusal(
        lambda n: joined(
            n, nn.Conv1d(2 * n, 2 * n, 1), lambda h: F.channel_shuffle(torch.cat([3 * F.relu(h), h.tanh()], 1), 2)[:, : 2 * n]
        ),
        SEQ,
        ("channel_shuffle at", "before joining"),
    ),
    "pixels shuffled of features with means": Refusal(
        lambda n: Net(
            lambda s, x: s.o(F.pixel_shuffle(F.relu(h := s.i(x)) + s.c(F.relu(h)), 2).mean((2, 3))),
            i=nn.Conv2d(3, 4 * n, 2),
            c=nn.Conv2d(4 * n, 4 * n, 1),
            o=L(n, OUT),
        ),
        IMG,
        ("pixel_shuffle at", "not centred", "before the nonlinearity"),
    ),
    "a trained number times the data": Refusal(
        of_dense(lambda s, x: s.o(F.relu(s.i((1 + s.g) * x))), g=lambda n: param(1)), VEC, ("mul at", "'g'", "stays random")
    ),
    "parameters times the data": Refusal(
        of_dense(lambda s, x: s.o(F.relu(s.i(s.g * x))), g=lambda n: param(5)),
        VEC,
        ("mul at", "joins the parameter 'g'", "buffer"),
    ),
    "a detached weight": Refusal(
        of_dense(lambda s, x: F.linear(s.i(x), s.o.weight.detach())), VEC, ("out of training", "requires_grad_(False)")
    ),
    "division by a random field": Refusal(
        of_dense(lambda s, x: s.o(s.a(h := s.i(x)) / s.b(h))), VEC, ("divides by", "divide by a number")
    ),
    "a power of a field": Refusal(of_dense(lambda s, x: s.o(torch.pow(s.i(x), s.i(x)))), VEC, ("exponent",)),
    "joined dependent positions": Refusal(
        of_dense(lambda s, x: s.o(F.relu(torch.cat([s.a(h := s.i(x)), s.a(F.relu(h))], 1)).mean(1))),
        WORDS,
        ("dependent branches",),
    ),
    "joined positions of two branches with means": Refusal(
        of_dense(lambda s, x: s.o(torch.cat([F.relu(s.a(h := s.i(x))), F.relu(s.b(h))], 1).mean(1))),
        WORDS,
        ("joins positions of", "both have means"),
    ),
    "dropout before a mean": Refusal(
        of_dense(lambda s, x: s.o(F.dropout(s.i(x), 0.5, s.training).mean(1))),
        WORDS,
        ("dropout in training", "eval mode"),
        train=True,
    ),
    "alpha_dropout": Refusal(
        lambda n: S(L(5, n), nn.SELU(), nn.AlphaDropout(0.2), L(n, OUT)), VEC, ("plain dropout", "eval"), train=True
    ),
    "samples mixed with positions": Refusal(
        lambda n: Net(lambda s, x: s.o(F.relu(s.i(x.reshape(-1, 5)))).reshape(-1, 6, OUT), i=L(5, n), o=L(n, OUT)),
        WORDS,
        ("samples are mixed", "axis of their own"),
    ),
    "gains before a sum": Refusal(
        lambda n: Net(lambda s, x: s.o(F.relu(s.g(s.i(x)) + s.a(x))), i=L(5, n), g=nn.LayerNorm(n), a=L(5, n), o=L(n, OUT)),
        VEC,
        ("one branch has trained gains", "elementwise_affine=False"),
    ),
    "halves of every head that overlap": Refusal(
        lambda n: Net(
            lambda s, x: s.o(heads(s, x)[..., : n // 8] * heads(s, x)[..., n // 16 : 3 * n // 16]), i=L(5, n), o=L(n // 8, OUT)
        ),
        WORDS,
        ("depend on the same weights", "i.weight"),
    ),
    "a part of heads that changed places": Refusal(
        lambda n: Net(
            lambda s, x: s.o(heads(s, x).mT[:, :, : n // 8].flatten(2) * heads(s, x)[:, :, 2:].flatten(2)),
            i=L(5, n),
            o=L(n // 2, OUT),
        ),
        WORDS,
        ("depend on the same weights", "i.weight"),
    ),
    "turned values": Refusal(
        lambda n: Net(
            lambda s, x: s.o(F.scaled_dot_product_attention(s.q(x), s.k(x), turned(s.v(x), "halves"), scale=0.1)),
            o=L(n, OUT),
            **{name: L(5, n) for name in "qkv"},
        ),
        WORDS,
        ("mul at", "tensor over features"),
    ),
    "turned features that gate": Refusal(
        of_dense(lambda s, x: s.o(turned(s.i(x), "halves") * s.g(x)), g=lambda n: L(5, n)), WORDS, ("tensor over features",)
    ),
    "turned features that gate one another": Refusal(
        of_dense(lambda s, x: s.o(turned(s.i(x), "pairs") * turned(s.g(x), "halves")), g=lambda n: L(5, n)),
        WORDS,
        ("slice at",),
    ),
    "a number on turned features": Refusal(
        lambda n: logits(n, lambda s, q, k: (turned(q, "halves") + 1, turned(k, "halves") + 1)),
        WORDS,
        ("tensor over features",),
    ),
    "positions behind turned features": Refusal(
        lambda n: logits(n, lambda s, q, k: (turned(q, "halves") + s.p, turned(k, "halves") + s.p), p=param(6, n)),
        WORDS,
        ("tensor over features",),
    ),
    "a bias behind turned features": Refusal(
        lambda n: logits(n, lambda s, q, k: (s.p(turned(q, "halves")), s.p(turned(k, "halves"))), p=biased(n)),
        WORDS,
        ("tensor over features",),
    ),
    "turned and scaled by the root of d": Refusal(
        lambda n: logits(n, lambda s, q, k: (q * torch.linspace(0.5, 1.5, n).to(q) * n**0.5, k)), WORDS, ("stay random",)
    ),
    "turned and scaled by a table of roots of d": Refusal(
        lambda n: logits(n, lambda s, q, k: (q * (torch.linspace(0.5, 1.5, n) * n**0.5).to(q), k)), WORDS, ("stay random",)
    ),
    "turned features summed": Refusal(
        of_dense(lambda s, x: s.o(turned(s.i(x), "pairs"))), WORDS, ("slice at", "features apart with steps")
    ),
    "turned and of one layer": Refusal(
        of_dense(
            lambda s, x: s.o((turned(h := s.i(x), "halves") @ turned(h, "halves").transpose(1, 2) / h.shape[-1]) @ s.a(h))
        ),
        WORDS,
        ("mul at", "tensor over features"),
    ),
    "turned outputs": Refusal(
        lambda n: Net(lambda s, x: turned(s.i(x), "halves"), i=L(5, n)), WORDS, ("tensor over features",)
    ),
    "gates of a layer": Refusal(
        of_dense(lambda s, x: s.o(s.r(x)[0][:, -1]), r=lambda n: nn.LSTM(5, n, batch_first=True)),
        WORDS,
        ("lstm at module 'r' (LSTM)", "dependent features", "nn.RNN"),
    ),
    "gates of a cell": Refusal(
        of_dense(lambda s, x: s.o(s.r(x)), r=lambda n: nn.GRUCell(5, n)), VEC, ("gru_cell at module 'r' (GRUCell)", "nn.RNN")
    ),
    "states at several times": Refusal(
        of_dense(lambda s, x: s.o(s.r(x)[0].mean(1)), r=lambda n: nn.RNN(5, n, batch_first=True)),
        WORDS,
        ("dependent branches", "take the last one"),
    ),
    "a random table of distances": Refusal(
        lambda n: Net(distances, r=nn.Embedding(11, 4), o=L(n, OUT), **{name: L(5, n) for name in "qkv"}),
        WORDS,
        ("softmax at", "random table 'r.weight'", "register_buffer"),
    ),
    "a nonlinearity behind the readout": Refusal(
        lambda n: S(L(5, n), nn.ReLU(), L(n, OUT), nn.Tanh()), VEC, ("tanh at module '3'", "phi'(f)", "random", "k.nngp(x)")
    ),
    "a product of two readouts": Refusal(
        of_dense(lambda s, x: s.o(h := F.relu(s.i(x))) * s.p(h), p=lambda n: L(n, OUT)),
        VEC,
        ("mul at", "other output", "k.nngp(x)"),
    ),
    "a trained gain on outputs": Refusal(
        of_dense(lambda s, x: s.o(F.relu(s.i(x))) * s.g, g=lambda n: nn.Parameter(torch.ones(OUT))), VEC, ("mul at", "random")
    ),
    "complex weights": Refusal(
        lambda n: S(L(5, n), nn.Linear(n, n, dtype=torch.cfloat), L(n, OUT)),
        VEC,
        ("'1.weight' is torch.complex64", "view_as_real"),
    ),
    "subtraction from data": Refusal(of_dense(lambda s, x: s.o(torch.rsub(s.i(x), x[:, :1]))), VEC, ("rsub at",)),
}
