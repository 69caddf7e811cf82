"""Plans of other people's models, tiny and random: `pip install -e '.[models]'` for these."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lazyrich as lzr

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
QUIET = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
pytestmark = pytest.mark.filterwarnings("ignore")


class Logits(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, tokens):
        return self.inner(input_ids=tokens, use_cache=False).logits


def gpt2(n, heads=None):
    heads = heads or n // 16
    config = transformers.GPT2Config(vocab_size=40, n_positions=12, n_embd=n, n_layer=2, n_head=heads, **QUIET)
    return Logits(transformers.GPT2LMHeadModel(config))


def llama(n, heads=None):
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=n, intermediate_size=3 * n, num_hidden_layers=2, num_attention_heads=heads or n // 16,
        num_key_value_heads=heads or n // 32, max_position_embeddings=12, tie_word_embeddings=False,
    )  # fmt: skip
    return Logits(transformers.LlamaForCausalLM(config))


def tokens():
    return torch.randint(40, (32, 13), generator=torch.Generator().manual_seed(0))


def test_gpt2_transposed_weights_fused_qkv_and_its_tied_readout():
    plan = lzr.plan(lzr.Family(gpt2, base=32), lzr.mup(), "adamw")
    inside = "inner.transformer.h.0.attn."
    assert {str(plan.tensors[inside + name].role) for name in ("c_attn.weight", "c_proj.weight")} == {"hidden"}
    settings = plan.settings(128)
    assert settings[inside + "c_attn.weight"].std == pytest.approx(0.02 / 2)
    assert settings[inside + "c_attn.weight"].lr == 0.25
    assert settings["inner.transformer.wte.weight"].std == pytest.approx(0.02)
    assert [(o.kind, o.where) for o in plan.obligations] == [("tied readout", "inner.lm_head")]


def test_llama_grouped_queries_and_gates():
    plan = lzr.plan(lzr.Family(llama, base=64), lzr.mup(), "adamw")
    settings = plan.settings(256)
    roles = {name: str(tensor.role) for name, tensor in plan.tensors.items()}
    assert roles["inner.lm_head.weight"] == "output"
    assert roles["inner.model.layers.1.self_attn.k_proj.weight"] == "hidden"
    assert settings["inner.lm_head.weight"].std == pytest.approx(0.02 / 4)
    assert settings["inner.model.layers.0.mlp.down_proj.weight"].std == pytest.approx(0.02 / 2)
    assert plan.obligations == ()


@pytest.mark.parametrize("make", [gpt2, llama])
def test_heads_that_grow_are_scaled_inside_their_attention(make):
    """Referee: the same model with its own scale set by hand."""
    plan = lzr.plan(lzr.Family(lambda n: make(n, heads=2), base=32), lzr.mup(), "adamw")
    owed = [o for o in plan.obligations if o.kind == "attention"]
    assert len(owed) == 2
    model = plan.build(128, seed=1)
    by_hand = plan.build(128, seed=1)
    for module in by_hand.modules():
        if hasattr(module, "scaling") and hasattr(module, "head_dim"):
            module.scaling = module.scaling * 0.5
    others = [o for o in plan.obligations if o.kind != "attention"]
    for one in others:
        one.meet_(by_hand)
    plan.meet_(model)
    x = tokens()[:, :12]
    assert torch.allclose(model(x), by_hand(x), atol=1e-6)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_updates_do_not_grow_with_the_width(make):
    plan = lzr.plan(lzr.Family(make, base=64), lzr.mup(), "muon")
    data = lzr.data.ArrayData(tokens()[:, :-1].contiguous(), tokens()[:, 1:].contiguous(), "tokens")
    found = lzr.check(plan, data, widths=(64, 128, 256), steps=3, seeds=2, lr=0.02, meet=True)
    slopes = [line.slope.value for line in found.lines if line.quantity == "update" and line.step == 3]
    assert max(abs(s) for s in slopes) < 0.2
    assert found.verdict.word != "exploding"


def test_timms_vision_transformer_and_resnet():
    pytest.importorskip("timm", reason="timm is not installed")
    from timm.models.resnet import BasicBlock, ResNet
    from timm.models.vision_transformer import VisionTransformer

    def vit(n, heads=None):
        return VisionTransformer(
            img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=n, depth=2, num_heads=heads or n // 16
        )

    def resnet(n):
        return ResNet(BasicBlock, [1] * 4, num_classes=10, in_chans=1, channels=(n,) + (2 * n,) * 3, stem_width=n)

    data = lzr.data.load("digits", flatten=False)
    for factory, widths, lr, steps in ((vit, (64, 128, 256), 2e-3, 4), (resnet, (24, 48, 96), 1e-2, 10)):
        plan = lzr.plan(lzr.Family(factory, base=widths[0]), lzr.mup(), "adamw")
        found = lzr.check(plan, data, widths=widths, steps=steps, seeds=3, lr=lr, meet=True)
        slopes = [line.slope.value for line in found.lines if line.quantity == "update" and line.step == steps]
        assert max(abs(s) for s in slopes) < 0.25, factory.__name__
    owed = lzr.plan(lzr.Family(lambda n: vit(n, heads=2), base=32), lzr.mup(), "adamw").obligations
    assert [o.kind for o in owed] == ["attention"] * 2
