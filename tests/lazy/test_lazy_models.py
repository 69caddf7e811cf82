"""Networks as people write them: a ResNet without BatchNorm, a ViT, pre-norm transformers, beside their own Monte Carlo."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lazyrich as lzr
from lazyrich.lazy.referee import monte_carlo


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, pre-activation, group norm of the whole image."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, inside), nn.GroupNorm(1, outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.downsample = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.norm1(x), inplace=True))
        out = self.conv2(F.relu(self.norm2(out), inplace=True))
        return out + self.downsample(x)


class ResNet(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(BasicBlock(width, width, 1))
        self.layer2 = nn.Sequential(BasicBlock(width, width, 2))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.conv1(x)))
        return self.fc(torch.flatten(self.avgpool(F.relu(x)), 1))


class Attention(nn.Module):
    def __init__(self, dim: int, causal: bool = False):
        super().__init__()
        self.qkv, self.proj, self.causal = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False), causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (t.unsqueeze(1) for t in (q, k, v))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=1 / q.shape[-1])
        return self.proj(h.squeeze(1))


class Block(nn.Module):
    def __init__(self, dim: int, causal: bool = False):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), Attention(dim, causal), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.patch_embed = nn.Conv2d(1, dim, 2, 2)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 5, dim))
        self.blocks = nn.Sequential(Block(dim), Block(dim))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class GPT(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, dim), nn.Embedding(5, dim)
        self.h = nn.ModuleList([Block(dim, causal=True)])
        self.ln_f, self.lm_head = nn.LayerNorm(dim), nn.Linear(dim, 4, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x).mean(1))


class Llama(nn.Module):
    """One block with root-mean-square norms, rotary positions, two queries a key, and a gated feed-forward part."""

    def __init__(self, dim: int):
        super().__init__()
        self.head, kv = dim // 4, dim // 2
        self.embed_tokens, self.lm_head = nn.Embedding(11, dim), nn.Linear(dim, 4, bias=False)
        self.input_norm, self.post_norm, self.norm = nn.RMSNorm(dim), nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.q_proj, self.o_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.k_proj, self.v_proj = nn.Linear(dim, kv, bias=False), nn.Linear(dim, kv, bias=False)
        self.gate, self.up = nn.Linear(dim, 2 * dim, bias=False), nn.Linear(dim, 2 * dim, bias=False)
        self.down = nn.Linear(2 * dim, dim, bias=False)

    def rotate(self, x: Tensor) -> Tensor:
        rates = 100.0 ** (-torch.arange(0, self.head, 2, device=x.device) / self.head)
        angle = torch.cat([torch.arange(x.shape[2], device=x.device)[:, None] * rates] * 2, -1).to(x)
        first, second = x.chunk(2, -1)
        return x * angle.cos() + torch.cat([-second, first], -1) * angle.sin()

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, self.head)).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        k, v = (h[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for h in (self.rotate(k), v))
        h = F.scaled_dot_product_attention(self.rotate(q), k, v, is_causal=True, scale=1 / self.head)
        return self.o_proj(h.transpose(1, 2).flatten(2))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        x = x + self.attend(self.input_norm(x))
        h = self.post_norm(x)
        x = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return self.lm_head(self.norm(x)[:, -1])


class GatedMLP(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(6, dim), nn.Linear(6, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.silu(self.down(F.silu(self.gate(x)) * self.up(x))))


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


TOKENS = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 10, 9], [7, 7, 7, 7, 7]])
MODELS = {
    "resnet": (ResNet, numbers(3, 3, 4, 4)),
    "vit": (VisionTransformer, numbers(3, 1, 4, 4)),
    "gpt": (GPT, TOKENS),
    "llama": (Llama, TOKENS),
    "gated mlp": (GatedMLP, numbers(4, 6)),
}


def errors(name: str, width: int, draws: int, forward: int) -> list[float]:
    """Relative errors of NNGP and NTK, and what of each the draws' own scatter explains."""
    model, x = MODELS[name]
    kernel = lzr.kernel(model(8))
    exact = kernel(x)
    found = monte_carlo(kernel, model, width, x, draws=draws, forward_draws=forward)
    pairs = ((found.nngp, found.nngp_error), (found.ntk, found.ntk_error))
    off = [float((e.reshape(k.shape) - k).norm() / k.norm()) for (e, _), k in zip(pairs, exact, strict=True)]
    return [*off, *(float(s.norm() / k.norm()) for (_, s), k in zip(pairs, exact, strict=True))]


FEW = pytest.mark.filterwarnings("ignore:got tensors whose laws could only be measured")  # the referee draws by them


@FEW
@pytest.mark.parametrize("name", MODELS)
def test_the_kernel_is_the_limit_of_the_model_itself(name):
    nngp, ntk, nngp_scatter, ntk_scatter = errors(name, width=64, draws=12, forward=100)
    assert nngp < 4 * nngp_scatter + 6 / 64
    assert ntk < 4 * ntk_scatter + 12 / 64
    assert max(nngp_scatter, ntk_scatter) < 0.15, "otherwise the bounds above could not fail"


@FEW
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_single_draw_approaches_it_as_one_over_the_root_of_the_width(name):
    """The mean square error of single draws of the tangent kernel, over widths: slope of its root -1/2."""
    model, x = MODELS[name]
    kernel = lzr.kernel(model(8))
    exact = kernel.ntk(x)
    widths = (32, 64, 128, 256)
    squares = []
    for width in widths:
        draws = [monte_carlo(kernel, model, width, x, draws=1, outputs=4, seed=s).ntk.reshape(exact.shape) for s in range(24)]
        squares.append(math.sqrt(sum(float((d - exact).square().sum()) for d in draws) / len(draws)) / float(exact.norm()))
    slope = torch.linalg.lstsq(
        torch.stack([torch.tensor(widths).log(), torch.ones(len(widths))], 1).double(),
        torch.tensor(squares).log().double()[:, None],
    ).solution[0]
    assert float(slope) == pytest.approx(-0.5, abs=0.2), squares
    assert squares[-1] < 0.15
