"""Coordinate checks of Hugging Face's GPT-2 and Llama, tiny and random, at widths 64 to 512: updates by muP, obligations met.

pip install transformers; python studies/hugging_face.py
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import lazyrich as lzr

WORDS, LENGTH = 64, 24


class Logits(nn.Module):
    """A causal language model that returns its logits alone."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, tokens):
        return self.inner(input_ids=tokens, use_cache=False).logits


def gpt2(width):
    """Heads of 16; tied embeddings."""
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    return Logits(
        GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_positions=LENGTH, n_embd=width, n_layer=2, n_head=width // 16, **quiet))
    )


def llama(width):
    """Grouped queries: two heads of 16 share keys and values; rotary positions, untied."""
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=2, num_attention_heads=width // 16,
        num_key_value_heads=width // 32, max_position_embeddings=LENGTH, tie_word_embeddings=False,
    )  # fmt: skip
    return Logits(LlamaForCausalLM(config))


def text():
    """Tokens that follow each other by a rule, half of the time."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(WORDS, (512,), generator=generator)]
    for _ in range(LENGTH):
        noise = torch.randint(WORDS, (512,), generator=generator)
        rows.append(torch.where(torch.rand(512, generator=generator) < 0.5, (5 * rows[-1] + 1) % WORDS, noise))
    tokens = torch.stack(rows, 1)
    return lzr.data.ArrayData(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), "rule")


def main():
    for factory in (gpt2, llama):
        for optimizer, lr in (("adamw", 2e-3), ("muon", 2e-2)):
            for scheme in (lzr.mup(), lzr.standard()):
                plan = lzr.plan(lzr.Family(factory, base=64), scheme, optimizer)
                found = lzr.check(plan, text(), widths=(64, 128, 256, 512), steps=4, seeds=3, lr=lr, meet=True)
                slopes = [line.slope.value for line in found.lines if line.quantity == "update" and line.step == 4]
                ends = f"{min(slopes):+.2f} to {max(slopes):+.2f}"
                print(f"{factory.__name__:6} {optimizer:6} {scheme.name:10}: {found.verdict.word}; updates {ends}", flush=True)
                worst = sorted(found.lines, key=lambda line: -abs(line.slope.value) if line in found.lines else 0)
                for line in [line for line in worst if line.quantity == "update" and line.step == 4][:3]:
                    print(f"    {line.layer}: {line.slope}")


if __name__ == "__main__":
    main()
