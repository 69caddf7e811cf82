"""Coordinate checks of other people's models, tiny and random: updates by muP with the obligations met, and plain.

    pip install transformers timm; python studies/models.py

Hugging Face's GPT-2 and Llama on the characters of a module of Python's standard library, timm's ViT on digits, all at widths 64 to
512; timm's ResNet at 24 to 192 channels. Claimed: under muP every layer's update goes as width^0 within .13.

Text matters: on tokens that are half random the readout's update falls as width^-.18. Features of different tokens are then nearly
orthogonal, and what a narrow network moves is their accidental overlap, which falls as width^-1/2.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable

import torch
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import lazyrich as lzr

SOURCE = inspect.getsource(argparse)
WORDS, LENGTH = len(set(SOURCE)), 24


class Logits(nn.Module):
    """A causal language model that returns its logits alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor) -> Tensor:
        return self.inner(input_ids=tokens, use_cache=False).logits


def gpt2(width: int) -> nn.Module:
    """Heads of 16; tied embeddings."""
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    return Logits(
        GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_positions=LENGTH, n_embd=width, n_layer=2, n_head=width // 16, **quiet))
    )


def llama(width: int) -> nn.Module:
    """Grouped queries: two heads of 16 share keys and values; rotary positions, untied."""
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=2, num_attention_heads=width // 16,
        num_key_value_heads=width // 32, max_position_embeddings=LENGTH, tie_word_embeddings=False,
    )  # fmt: skip
    return Logits(LlamaForCausalLM(config))


def vit(width: int) -> nn.Module:
    """Heads of 16 on patches of 2x2."""
    return VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=width, depth=2, num_heads=width // 16
    )


def resnet(width: int) -> nn.Module:
    """Four stages of one block."""
    return ResNet(BasicBlock, [1] * 4, num_classes=10, in_chans=1, channels=(width,) + (2 * width,) * 3, stem_width=width)


def text() -> lzr.data.ArrayData:
    """Windows of characters, and the next ones."""
    number = {c: i for i, c in enumerate(sorted(set(SOURCE)))}
    codes = torch.tensor([number[c] for c in SOURCE])
    starts = torch.randint(len(codes) - LENGTH - 1, (2000,), generator=torch.Generator().manual_seed(0))
    rows = torch.stack([codes[s : s + LENGTH + 1] for s in starts.tolist()])
    return lzr.data.ArrayData(rows[:, :-1].contiguous(), rows[:, 1:].contiguous(), "argparse")


def checked(
    factory: Callable[[int], nn.Module], data: lzr.data.ArrayData, widths: tuple[int, ...], adam: float = 2e-3, steps: int = 4
) -> None:
    for optimizer, lr in (("adamw", adam), ("muon", 2e-2)):
        for scheme in (lzr.mup(), lzr.standard()):
            plan = lzr.plan(lzr.Family(factory, base=widths[0]), scheme, optimizer)
            found = lzr.check(plan, data, widths=widths, steps=steps, seeds=3, lr=lr, meet=True)
            lines = [line for line in found.lines if line.quantity == "update" and line.step == steps]
            slopes = [line.slope.value for line in lines]
            worst = max(lines, key=lambda line: abs(line.slope.value))
            print(
                f"{factory.__name__:7}{optimizer:7}{scheme.name:11}{min(slopes):+.2f} to {max(slopes):+.2f}   "
                f"{found.verdict.word:14}farthest: {worst.layer} {worst.slope}",
                flush=True,
            )


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    wide = (64, 128, 256, 512)
    images = lzr.data.load("digits", flatten=False)
    checked(gpt2, text(), wide)
    checked(llama, text(), wide)
    checked(vit, images, wide)
    # at 64 channels it has one layer fewer, as its stem is as wide; its random features of digits are nearly orthogonal as well
    checked(resnet, images, (24, 48, 96, 192), adam=1e-2, steps=10)


if __name__ == "__main__":
    main()
