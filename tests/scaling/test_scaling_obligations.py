"""Obligations: the forward multipliers that no initialisation or learning rate replaces, and the hooks that meet them."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lazyrich as lzr
from lazyrich.errors import PlanError
from lazyrich.scaling.remark import remarks
from lazyrich.scaling.weighed import weighed

F = nn.functional


def modes():
    return torch._C._len_torch_function_stack()


@pytest.fixture(autouse=True)
def no_mode_stays_active():
    before = modes()
    yield
    assert modes() == before


# --- tied readouts --------------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """A table that is read out with itself; ``first`` says which of the two is registered first."""

    def __init__(self, n, first="embed", heads=1):
        super().__init__()
        parts = {"embed": nn.Embedding(7, n), "body": nn.Linear(n, n)}
        readouts = {f"readout{i}": nn.Linear(n, 7) for i in range(heads)}
        for readout in readouts.values():
            readout.weight = parts["embed"].weight
        order = {**parts, **readouts} if first == "embed" else {**readouts, **parts}
        for name, part in order.items():
            self.add_module(name, part)
        self.heads = heads

    def forward(self, tokens, factor=1.0):
        h = torch.tanh(self.body(self.embed(tokens)))
        return sum(
            F.linear(h * factor, self.embed.weight, getattr(self, f"readout{i}").bias)
            if factor != 1.0
            else getattr(self, f"readout{i}")(h)
            for i in range(self.heads)
        )


TOKENS = torch.arange(7)


@pytest.mark.parametrize("first", ["embed", "readout"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("scheme", "factor"), [(lzr.mup(), 1 / 4), (lzr.ntk(), 1 / 2), (lzr.richness(0.5, gamma=2.0), 1 / 8)])
def test_a_tied_readout_is_listed_and_met_by_multiplication_and_released_exactly(first, heads, scheme, factor):
    family = lzr.Family(lambda n: Tied(n, first, heads), base=8)
    plan = lzr.plan(family, scheme)
    assert [(o.kind, o.where) for o in plan.obligations] == [("tied readout", f"readout{i}") for i in range(heads)]
    model = plan.build(32)
    assert [o.factor(model) for o in plan.obligations] == pytest.approx([factor] * heads)
    plain, by_hand = model(TOKENS), model(TOKENS, factor=factor)
    plan.meet_(model)
    assert torch.allclose(model(TOKENS), by_hand, rtol=1e-6, atol=1e-7)
    assert not torch.allclose(model(TOKENS), plain, rtol=1e-2, atol=1e-3)
    plan.meet_(model)  # meeting twice is meeting once
    assert torch.allclose(model(TOKENS), by_hand, rtol=1e-6, atol=1e-7)
    plan.release_(model)
    assert torch.equal(model(TOKENS), plain)


def test_a_tied_table_is_drawn_and_trained_as_an_input():
    family = lzr.Family(Tied, base=8)
    for optimizer, rate in (("sgd", 4.0), ("adamw", 1.0)):
        base, wide = (lzr.plan(family, lzr.mup(), optimizer).settings(n)["embed.weight"] for n in (8, 32))
        assert (wide.std, wide.lr) == pytest.approx((base.std, rate))


@pytest.mark.parametrize("scheme", [lzr.standard(), lzr.standard(max_stable=True)])
def test_the_plain_network_owes_nothing(scheme):
    for factory in (Tied, lambda n: nn.MultiheadAttention(n, 2)):
        assert lzr.plan(lzr.Family(factory, base=8), scheme).obligations == ()


def test_an_untied_network_owes_nothing():
    assert lzr.plan(lzr.Family(lzr.zoo.transformer, base=16), lzr.mup()).obligations == ()


def test_a_tied_readout_trains_at_one_scale_only_when_its_obligation_is_met():
    """Measured: the slope of one SignSGD step's change of the output."""

    def slope(meet):
        family, widths = lzr.Family(lzr.zoo.tied_transformer, base=16), (16, 64, 256)
        plan = lzr.plan(family, lzr.mup(), "signsgd")
        x, logs = torch.randint(16, (4, 64), generator=torch.Generator().manual_seed(0)), []
        for n in widths:
            found = []
            for seed in range(3):
                model = plan.build(n, seed, meet=meet)
                optimizer = plan.optimizer(model, lr=1e-3)
                before = model(x)
                F.cross_entropy(before, torch.arange(4)).backward()
                optimizer.step()
                found.append(math.log(float((model(x) - before).detach().square().mean().sqrt())))
            logs.append(sum(found) / 3)
        return (logs[-1] - logs[0]) / math.log(widths[-1] / widths[0])

    assert abs(slope(meet=True)) < 0.2
    assert slope(meet=False) > 0.7


class TiedByCode(nn.Module):
    """A table that the network's own code reads out with; ``how`` it says so."""

    def __init__(self, n, how="linear"):
        super().__init__()
        self.embed, self.body, self.how = nn.Embedding(7, n), nn.Linear(n, n), how

    def forward(self, tokens):
        h = torch.tanh(self.body(self.embed(tokens)))
        if self.how == "looked up":
            return h + F.one_hot(tokens, 7).to(h.dtype) @ self.embed.weight
        return F.linear(h, self.embed.weight) if self.how == "linear" else h @ self.embed.weight.T


@pytest.mark.parametrize("how", ["linear", "matmul"])
def test_a_table_that_the_code_reads_out_with_is_owed_by_hand(how):
    plan = lzr.plan(lzr.Family(lambda n: TiedByCode(n, how), base=8), lzr.mup())
    (owed,) = plan.obligations
    assert (owed.kind, owed.where, owed.hooked) == ("tied product", "embed", False)
    assert "'embed.weight' is an input table, and drawn as one, that the network's own code also reads out with" in owed.why
    assert "by width^-1 (1 at the base)" in owed.why
    with pytest.warns(UserWarning, match="not met: tied product at embed"):
        model = plan.build(32, meet=True)
    assert torch.equal(model(TOKENS), plan.build(32)(TOKENS))
    assert lzr.plan(lzr.Family(lambda n: TiedByCode(n, how), base=8), lzr.standard()).obligations == ()


def test_a_table_that_only_looks_up_owes_nothing():
    assert lzr.plan(lzr.Family(lambda n: TiedByCode(n, "looked up"), base=8), lzr.mup()).obligations == ()


# --- attention ------------------------------------------------------------------------------------------------------------


class Attends(nn.Module):
    """One attention, in float64; ``heads`` a number, or None for heads of size 4."""

    def __init__(self, n, heads=2, bias=True, separate=False, batch_first=True):
        super().__init__()
        sizes = {"kdim": 3, "vdim": 5} if separate else {}
        self.attention = nn.MultiheadAttention(n, heads or n // 4, bias=bias, batch_first=batch_first, **sizes).double()
        if bias:
            nn.init.normal_(self.attention.in_proj_bias)

    def forward(self, q, k, v, **options):
        return self.attention(q, k, v, **options)


def by_hand(attention, q, k, v, scale):
    """Attention as its formula says: softmax(scale q.k) v, head by head."""
    n, heads = attention.embed_dim, attention.num_heads
    weights = attention.in_proj_weight.chunk(3) if attention.in_proj_weight is not None else [
        attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight
    ]  # fmt: skip
    biases = attention.in_proj_bias.chunk(3) if attention.in_proj_bias is not None else (0, 0, 0)
    q, k, v = (x @ w.T + b for x, w, b in zip((q, k, v), weights, biases, strict=True))
    mixed, maps = [], []
    for i in range(heads):
        cut = slice(i * n // heads, (i + 1) * n // heads)
        a = torch.softmax(scale * q[..., cut] @ k[..., cut].transpose(1, 2), dim=-1)
        maps.append(a)
        mixed.append(a @ v[..., cut])
    return attention.out_proj(torch.cat(mixed, dim=-1)), torch.stack(maps, dim=1)


def inputs(n, separate):
    generator = torch.Generator().manual_seed(0)
    sizes = (n, 3, 5) if separate else (n, n, n)
    return [torch.randn(2, 6, size, generator=generator, dtype=torch.float64) for size in sizes]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("width", [8, 32])
def test_growing_heads_get_logits_over_d(width, separate, bias, need_weights):
    family = lzr.Family(lambda n: Attends(n, 2, bias, separate), base=8)
    plan = lzr.plan(family, lzr.mup())
    model = plan.build(width, meet=True)
    d, q_k_v = width // 2, inputs(width, separate)
    scale = 4**-0.5 * 4 / d  # 1/sqrt(d) at the base, where d = 4, and 1/d from there
    expected, maps = by_hand(model.attention, *q_k_v, scale)
    plain, _ = by_hand(model.attention, *q_k_v, d**-0.5)
    assert torch.allclose(plain, expected, rtol=1e-4) == (width == 8)
    for mode in (model.train(), model.eval()):
        for grad in (True, False):  # evaluation without gradients takes torch's fast path
            with torch.set_grad_enabled(grad):
                out, weights = mode(*q_k_v, need_weights=need_weights, average_attn_weights=False)
            assert torch.allclose(out, expected, rtol=1e-9, atol=1e-12)
            assert weights is None or torch.allclose(weights, maps, rtol=1e-9, atol=1e-12)
    lzr.plan(family, lzr.mup()).release_(model)
    assert torch.allclose(model(*q_k_v)[0], plain, rtol=1e-9, atol=1e-12)


def test_gradients_go_through_a_met_attention():
    plan = lzr.plan(lzr.Family(Attends, base=8), lzr.mup())
    model, q_k_v = plan.build(32, meet=True), inputs(32, False)
    model(*q_k_v)[0].square().sum().backward()
    hooked = {name: p.grad.clone() for name, p in model.named_parameters()}
    plan.release_(model).zero_grad()
    by_hand(model.attention, *q_k_v, 4**-0.5 * 4 / 16)[0].square().sum().backward()
    for name, p in model.named_parameters():
        assert torch.allclose(hooked[name], p.grad, rtol=1e-8, atol=1e-10), name


@pytest.mark.parametrize(
    ("scheme", "exponent"), [(lzr.mup(), -0.5), (lzr.ntk(), None), (lzr.richness(0.25), -0.25), (lzr.richness(0.5), -0.5)]
)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_growing_heads_owe_depends_on_the_richness(scheme, exponent, optimizer):
    found = lzr.plan(lzr.Family(Attends, base=8), scheme, optimizer).obligations
    assert [o.exponent for o in found] == pytest.approx([] if exponent is None else [exponent])


def test_heads_of_a_fixed_size_owe_nothing():
    assert lzr.plan(lzr.Family(lambda n: Attends(n, None), base=8), lzr.mup()).obligations == ()


def test_growing_heads_are_found_in_two_builds_too():
    pair = lzr.Family.from_builds(Attends(8), Attends(16), base=8)
    assert [(o.kind, o.where) for o in lzr.plan(pair, lzr.mup()).obligations] == [("attention", "attention")]


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_torch_encoder_layer_is_met_in_training_and_in_its_fast_path(norm_first):
    def factory(n):
        return nn.TransformerEncoderLayer(n, 2, 2 * n, dropout=0.0, batch_first=True, norm_first=norm_first)

    plan = lzr.plan(lzr.Family(factory, base=8), lzr.mup())
    assert [o.where for o in plan.obligations] == ["self_attn"]
    model, x = plan.build(32, meet=True), torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    training = model.train()(x).detach()
    with torch.no_grad():
        assert torch.allclose(model.eval()(x), training, rtol=1e-4, atol=1e-5)
        plan.release_(model)
        assert not torch.allclose(model(x), training, rtol=1e-4, atol=1e-5)


def test_an_exception_in_the_forward_leaves_no_mode_active():
    model = lzr.plan(lzr.Family(Attends, base=8), lzr.mup()).build(32, meet=True)
    before = modes()
    with pytest.raises((RuntimeError, IndexError, AssertionError)):
        model(torch.zeros(2, 3, 5), torch.zeros(1), torch.zeros(1))
    assert modes() == before
    q_k_v = inputs(32, False)
    assert torch.allclose(model(*q_k_v)[0], by_hand(model.attention, *q_k_v, 4**-0.5 * 4 / 16)[0], rtol=1e-9)


def test_an_exception_in_an_earlier_hook_takes_no_foreign_mode_away():
    model = lzr.plan(lzr.Family(Attends, base=8), lzr.mup()).build(32, meet=True)

    def fails(module, args):
        raise ValueError("not now")

    handle = model.attention.register_forward_pre_hook(fails, prepend=True)
    with torch.device("cpu"):  # a mode of its own
        inside = modes()
        with pytest.raises(ValueError, match="not now"):
            model(*inputs(32, False))
        assert modes() == inside
    handle.remove()
    model(*inputs(32, False))


# --- residual branches ----------------------------------------------------------------------------------------------------


class Deep(nn.Module):
    def __init__(self, n, depth):
        super().__init__()
        self.embed = nn.Linear(3, n)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(n, n), nn.Tanh()) for _ in range(depth))

    def forward(self, x, factor=1.0):
        h = self.embed(x)
        for block in self.blocks:
            h = h + (block(h) if factor == 1.0 else factor * block(h))
        return h


@pytest.mark.parametrize(("depth", "base_depth"), [(8, 2), (2, 8), (3, None), (3, 3)])
def test_residual_branches_are_scaled_by_the_root_of_the_depth_ratio(depth, base_depth):
    family = lzr.Family(Deep, base=8, depth=depth)
    plan = lzr.plan(family, lzr.mup(), branches=["blocks.*"], base_depth=base_depth)
    assert [(o.kind, o.where) for o in plan.obligations] == [("residual branch", "blocks.*")]
    model, x = plan.build(16), torch.ones(2, 3)
    factor = math.sqrt((base_depth or depth) / depth)
    plain, expected = model(x), model(x, factor=factor)
    plan.meet_(model)
    assert torch.allclose(model(x), expected, rtol=1e-6)
    assert torch.allclose(plain, expected, rtol=1e-4) == (factor == 1)
    plan.release_(model)
    assert torch.equal(model(x), plain)


# --- hooks ----------------------------------------------------------------------------------------------------------------


def met_models():
    """(model that is met by hooks, its inputs) for each kind of hook."""
    tied = lzr.plan(lzr.Family(lzr.zoo.tied_transformer, base=16), lzr.mup())
    attention = lzr.plan(lzr.Family(Attends, base=8), lzr.mup())
    deep = lzr.plan(lzr.Family(Deep, base=8, depth=4), lzr.mup(), branches=["blocks.*"], base_depth=2)
    multipliers = lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.ntk(), "sgd", gauge="multipliers")
    tokens = torch.randint(16, (2, 64), generator=torch.Generator().manual_seed(0))
    return {
        "tied": (tied, tied.build(32, meet=True), (tokens,)),
        "attention": (attention, attention.build(32, meet=True), tuple(inputs(32, False))),
        "residual": (deep, deep.build(16, meet=True), (torch.ones(2, 3),)),
        "multipliers": (multipliers, multipliers.build(32, meet=True), (torch.ones(2, 64),)),
    }


def first(output):
    return output[0] if isinstance(output, tuple) else output


def whole_pickle(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("kind", ["tied", "residual", "attention", "multipliers"])
@pytest.mark.parametrize("copied", [copy.deepcopy, whole_pickle])
def test_hooks_survive_a_copy_and_leave_it_on_release(kind, copied):
    plan, model, x = met_models()[kind]
    expected = first(model(*x))
    other = copied(model)
    assert torch.equal(first(other(*x)), expected)
    plan.release_(other)
    assert not torch.allclose(first(other(*x)), expected, rtol=1e-3, atol=1e-6)
    assert torch.equal(first(model(*x)), expected), "the original keeps its hooks"
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._forward_hooks_always_called for m in other.modules())


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["tied", "residual", "attention", "multipliers"])
def test_met_models_compile_whole_and_export(kind, training):
    _, model, x = met_models()[kind]
    model.train(training)
    expected = first(model(*x))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(first(compiled(*x)), expected)
    program = torch.export.export(model, x, strict=False)
    torch.testing.assert_close(first(program.module(check_guards=False)(*x)), expected)


@pytest.mark.filterwarnings("ignore")
def test_attentions_of_every_make_compile_whole():
    plan = lzr.plan(lzr.Family(Reads, base=16), lzr.mup())
    model, x = plan.build(64, meet=True), torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(x), model(x, factor=1.0))


@pytest.mark.filterwarnings("ignore")
def test_torchs_fused_encoder_layer_does_not_go_past_a_met_attention():
    """In evaluation mode without gradients the layer would not call its attention at all."""

    class Encodes(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.embed, self.readout = nn.Linear(3, n), nn.Linear(n, 2)
            layer = nn.TransformerEncoderLayer(n, 2, n, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1)

        def forward(self, x):
            return self.readout(self.encoder(self.embed(x)))

    plan = lzr.plan(lzr.Family(Encodes, base=8), lzr.mup())
    model, x = plan.build(64, meet=True).eval(), torch.randn(2, 5, 3)
    with torch.no_grad():
        fast = model(x)
    torch.testing.assert_close(fast, model.train()(x).detach())
    plan.release_(model.eval())
    with torch.no_grad():
        assert not torch.allclose(fast, model(x), atol=1e-4)


def test_somebody_elses_forward_is_called_and_given_back():
    plan = lzr.plan(lzr.Family(Reads, base=16), lzr.mup())
    model, x, calls = plan.build(64), torch.randn(2, 5, 3), []
    own = model.attention.forward
    model.attention.forward = lambda *args: calls.append(1) or own(*args)
    wrapped = model.attention.forward
    plan.meet_(model)
    model(x)
    assert calls == [1]
    plan.release_(model)
    assert model.attention.forward is wrapped


@pytest.mark.parametrize("kind", ["tied", "residual", "attention", "multipliers"])
def test_hooks_are_not_in_the_state_dict(kind):
    plan, model, x = met_models()[kind]
    expected = first(model(*x))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    plain = plan.release_(copy.deepcopy(model))
    assert set(state) == set(plain.state_dict())
    with torch.no_grad():
        for p in plain.parameters():
            p.zero_()
    plain.load_state_dict(state)
    assert torch.equal(first(plan.meet_(plain)(*x)), expected)


def test_release_leaves_the_users_own_hooks():
    plan, model, x = met_models()["tied"]
    seen = []
    model.readout.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    model.readout.register_forward_pre_hook(lambda module, args: seen.append(None))
    plan.release_(model)(*x)
    assert len(seen) == 2


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")], ids=["module.", "_orig_mod."])
@pytest.mark.parametrize("kind", ["tied", "residual", "attention", "multipliers"])
def test_obligations_are_met_behind_a_wrapper(kind, wrap):
    plan, model, x = met_models()[kind]
    expected = first(model(*x))
    plan.release_(model)
    plan.meet_(wrap(model))
    assert torch.equal(first(model(*x)), expected)


def test_an_obligation_at_a_module_that_is_not_there_is_refused():
    plan = lzr.plan(lzr.Family(Attends, base=8), lzr.mup())
    with pytest.raises(PlanError, match="'attention', which this model does not have"):
        plan.meet_(nn.Linear(3, 3))


# --- attention of one's own -----------------------------------------------------------------------------------------------


class Heads(nn.Module):
    """Four heads that grow; by torch's function, or written out by hand."""

    def __init__(self, n, by_hand=False):
        super().__init__()
        self.qkv, self.out, self.head_dim, self.by_hand = nn.Linear(n, 3 * n), nn.Linear(n, n), n // 4, by_hand

    def forward(self, x, factor=1.0):
        q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if self.by_hand:
            mixed = (factor * q @ k.transpose(-1, -2) / self.head_dim**0.5).softmax(-1) @ v
        else:
            mixed = nn.functional.scaled_dot_product_attention(factor * q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Reads(nn.Module):
    def __init__(self, n, by_hand=False):
        super().__init__()
        self.embed, self.attention, self.readout = nn.Linear(3, n), Heads(n, by_hand), nn.Linear(n, 2)

    def forward(self, x, factor=1.0):
        return self.readout(self.attention(self.embed(x), factor))


def test_attention_of_ones_own_is_scaled_where_it_calls_torchs_function():
    plan = lzr.plan(lzr.Family(Reads, base=16), lzr.mup())
    assert [(o.kind, o.where, o.exponent) for o in plan.obligations] == [("attention", "attention", -0.5)]
    model, x = plan.build(64), torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    plain, expected = model(x), model(x, factor=0.5)
    plan.meet_(model)
    assert torch.allclose(model(x), expected, atol=1e-6)
    assert not torch.allclose(plain, expected, atol=1e-4)
    plan.release_(model)
    assert torch.equal(model(x), plain)


def test_attention_written_by_hand_is_an_error_that_names_its_file_and_line():
    plan = lzr.plan(lzr.Family(lambda n: Reads(n, by_hand=True), base=16), lzr.mup())
    model = plan.build(64, meet=True)
    line = Heads.forward.__code__.co_firstlineno
    words = rf"'attention' \(Heads\) calls no scaled_dot.*multiply them by 0.5 in .*test_scaling_obligations.py:{line}"
    with pytest.raises(lzr.LazyrichError, match=words):
        model(torch.randn(2, 5, 3))
    plan.release_(model)
    assert model(torch.randn(2, 5, 3)).shape == (2, 5, 2)


class Saves(nn.Module):
    """Four heads that grow, with a checkpoint around nothing, the core of the attention, or the whole of it."""

    def __init__(self, n, around="", reentrant=False):
        super().__init__()
        self.embed, self.attention, self.around, self.reentrant = nn.Linear(3, n), Heads(n), around, reentrant
        if around == "core":
            self.attention.forward = self.core

    def core(self, x):
        q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in self.attention.qkv(x).chunk(3, -1))
        mixed = checkpoint(F.scaled_dot_product_attention, q, k, v, use_reentrant=self.reentrant)
        return self.attention.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x):
        h = self.embed(x)
        return checkpoint(self.attention, h, use_reentrant=self.reentrant) if self.around == "all" else self.attention(h)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_around_an_attention_keeps_its_gradients_and_one_inside_is_refused(reentrant):
    x, found = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)), []
    for around in ("", "all"):
        plan = lzr.plan(lzr.Family(lambda n, a=around: Saves(n, a, reentrant), base=16), lzr.mup())
        model = plan.build(64, meet=True)
        model(x).square().sum().backward()
        found.append(model.attention.qkv.weight.grad)
    assert torch.equal(*found)
    model = lzr.plan(lzr.Family(lambda n: Saves(n, "core", reentrant), base=16), lzr.mup()).build(64, meet=True)
    with torch.no_grad():
        model(x)  # nothing is run again
    with pytest.raises(
        PlanError, match="'attention' runs torch's attention under torch.utils.checkpoint.*whole module instead"
    ):
        model(x)


class OwnScale(Heads):
    """Logits scaled by a power of the head's size, given to torch's function."""

    def __init__(self, n, power=1.0):
        super().__init__(n)
        self.power = power

    def forward(self, x, factor=1.0):
        q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, scale=self.head_dim**-self.power)
        return self.out(mixed.transpose(1, 2).flatten(2))


def with_scale(power):
    def make(n):
        model = Reads(n)
        model.attention = OwnScale(n, power)
        return model

    return make


@pytest.mark.parametrize(("power", "factor"), [(0.5, 0.5), (1.0, 1.0)])
def test_logits_that_follow_the_schemes_law_already_are_left_alone(power, factor):
    plan = lzr.plan(lzr.Family(with_scale(power), base=16), lzr.mup())
    model, x = plan.build(64), torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    plain = model(x)
    met = plan.meet_(model)(x)
    plan.release_(model)
    model.attention.head_dim = model.attention.head_dim / factor ** (1 / power)
    assert torch.allclose(met, model(x), atol=1e-6)
    assert torch.equal(met, plain) == (factor == 1.0)


def test_logits_of_another_law_are_refused():
    plan = lzr.plan(lzr.Family(with_scale(0.7), base=16), lzr.mup())
    with pytest.raises(lzr.LazyrichError, match="scales its logits by .* neither 1/sqrt"):
        plan.build(64, meet=True)(torch.randn(2, 5, 3))


class Rotary(nn.Module):
    """Tells the size of heads that others have."""

    def __init__(self, size):
        super().__init__()
        self.head_dim = size
        self.register_buffer("table", torch.ones(size), persistent=False)

    def forward(self, x):
        return x * self.table


class Turned(Heads):
    def __init__(self, n):
        super().__init__(n)
        self.rotary = Rotary(self.head_dim)

    def forward(self, x, factor=1.0):
        self.rotary(x[..., : self.head_dim])
        return super().forward(x, factor)


class Core(nn.Module):
    """An attention without a size of its own, in a module that has the size and no attention."""

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


class Projects(Heads):
    def __init__(self, n):
        super().__init__(n)
        self.core = Core()

    def forward(self, x, factor=1.0):
        q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return self.out(self.core(factor * q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", [Heads, Turned, Projects])
def test_an_attention_is_scaled_once_however_many_modules_tell_the_size_of_its_heads(kind):
    def make(n):
        model = Reads(n)
        model.attention, model.head_dim = kind(n), n // 4
        return model

    plan = lzr.plan(lzr.Family(make, base=16), lzr.mup())
    assert [o.where for o in plan.obligations] == ["attention"]
    model, x = plan.build(64), torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = model(x, factor=0.5)
    torch.testing.assert_close(plan.meet_(model)(x), expected)


def test_an_attention_around_another_is_left_to_a_person():
    class Nests(Heads):
        def __init__(self, n):
            super().__init__(n)
            self.inner = Heads(n)

        def forward(self, x, factor=1.0):
            return super().forward(self.inner(x, factor))

    plan = lzr.plan(lzr.Family(reading(Nests), base=16), lzr.mup())
    assert [(o.where, o.exponent) for o in plan.obligations] == [("attention", 0.0), ("attention.inner", -0.5)]
    model, x = plan.build(64), torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = model(x, factor=0.5)
    with pytest.warns(UserWarning, match="no hook can tell the two apart"):
        torch.testing.assert_close(plan.meet_(model)(x), expected)


# --- attention whose heads no attribute tells -----------------------------------------------------------------------------------


class Nameless(nn.Module):
    """Four growing heads, as many write them: no attribute says how large they are."""

    def __init__(self, n, how="torch", power=0.5):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(n, n) for _ in range(3))
        self.how, self.power = how, power

    def forward(self, x, factor=1.0):
        q, k, v = (f(x).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        scale = factor * q.shape[-1] ** -self.power
        if self.how == "torch":
            mixed = F.scaled_dot_product_attention(q, k, v, scale=scale)
        elif self.how == "einsum":
            mixed = F.softmax(torch.einsum("bhid, bhjd -> bhij", q, k) * scale, -1) @ v
        else:
            hidden = torch.ones(x.shape[1], x.shape[1], device=x.device).triu(1).bool()
            mixed = ((q * scale) @ k.transpose(-1, -2)).masked_fill(hidden, -1e9).softmax(-1) @ v
        return mixed.transpose(1, 2).flatten(2)


class Picky(Nameless):
    """Takes what no other module gives it."""

    def forward(self, x, rotation):
        return super().forward(x * rotation)


def reading(kind, *how):
    def make(n):
        model = Reads(n)
        model.attention = kind(n, *how)
        return model

    return make


@pytest.mark.parametrize("how", ["torch", "einsum", "before"])
def test_heads_are_found_by_what_a_module_does_and_those_of_the_right_law_owe_nothing(how):
    plan = lzr.plan(lzr.Family(reading(Nameless, how), base=16), lzr.mup())
    (owed,) = plan.obligations
    assert (owed.where, owed.exponent, owed.base_size) == ("attention", -0.5, 4)
    assert owed.factor(plan.family.sketch(64)) == pytest.approx(0.5)
    assert owed.hooked == (how == "torch")
    assert ("Nameless.forward, test_scaling_obligations.py:" in owed.why) == (how != "torch")
    assert lzr.plan(lzr.Family(reading(Nameless, how, 1.0), base=16), lzr.mup()).obligations == ()
    assert lzr.plan(lzr.Family(reading(Nameless, how), base=16), lzr.ntk(), "sgd").obligations == ()
    unscaled = lzr.plan(lzr.Family(reading(Nameless, how, 0.0), base=16), lzr.mup()).obligations
    assert "logits are scaled by a constant where the scheme needs d^-1" in unscaled[0].why
    assert (unscaled[0].exponent, unscaled[0].hooked) == (-1.0, False)  # none reaches a scale that the code gives
    steep = lzr.plan(lzr.Family(reading(Nameless, how, 0.75), base=16), lzr.mup()).obligations
    assert "scaled by about d^-0." in steep[0].why and not steep[0].hooked


def test_nameless_heads_are_met_as_others():
    plan = lzr.plan(lzr.Family(reading(Nameless), base=16), lzr.mup())
    model, x = plan.build(64), torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = model(x, factor=0.5)
    assert torch.allclose(plan.meet_(model)(x), expected, atol=1e-6)


def test_heads_that_cannot_be_read_are_an_obligation_that_says_so():
    plan = lzr.plan(lzr.Family(reading(Picky), base=16), lzr.mup())
    (owed,) = plan.obligations
    assert "heads' size cannot be read" in owed.why
    assert "head_dim" in owed.why
    model = plan.build(64)
    assert owed.factor(model) == 1.0
    with pytest.warns(UserWarning, match="not met: attention at attention"):
        plan.meet_(model)


def test_a_look_at_an_attention_leaves_it_as_it_was():
    class Remembers(Nameless):
        def forward(self, x, factor=1.0):
            self.seen = x
            return super().forward(x, factor)

    plan = lzr.plan(lzr.Family(reading(Remembers), base=16), lzr.mup())
    model = plan.build(64, meet=True)
    assert not hasattr(model.attention, "seen")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        plan.obligations[0].factor(model)
        assert torch.equal(torch.rand(2), expected)


def test_softmaxes_that_are_no_attention_owe_nothing():
    class Router(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.gate, self.lift = nn.Parameter(torch.randn(3, n)), nn.Linear(n, n)

        def forward(self, x):
            return self.lift(x) * (x @ self.gate.transpose(0, 1)).softmax(-1)[..., :1]

    family = lzr.Family(reading(Router), base=16, roles={"attention.gate": "output"})
    assert lzr.plan(family, lzr.mup()).obligations == ()


# --- calls by name, and other outputs ---------------------------------------------------------------------------------------------


def test_an_attention_called_by_names_is_scaled_too():
    class Named(Heads):
        def forward(self, x, factor=1.0):
            q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
            return self.out(F.scaled_dot_product_attention(key=k, value=v, query=factor * q).transpose(1, 2).flatten(2))

    plan = lzr.plan(lzr.Family(reading(Named), base=16), lzr.mup())
    model, x = plan.build(64), torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = model(x, factor=0.5)
    torch.testing.assert_close(plan.meet_(model)(x), expected)


def test_torchs_projected_attention_called_by_names_is_scaled_too():
    def forward(q, k, v):
        a = model.attention
        return F.multi_head_attention_forward(
            query=q, key=k, value=v, embed_dim_to_check=32, num_heads=2, in_proj_weight=a.in_proj_weight,
            in_proj_bias=a.in_proj_bias, bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0,
            out_proj_weight=a.out_proj.weight, out_proj_bias=a.out_proj.bias,
        )  # fmt: skip

    plan = lzr.plan(lzr.Family(lambda n: Attends(n, batch_first=False), base=8), lzr.mup())
    model, q_k_v = plan.build(32), inputs(32, False)
    expected = plan.meet_(model)(*q_k_v)[0]
    plan.release_(model).attention.forward = forward
    torch.testing.assert_close(plan.meet_(model)(*q_k_v)[0], expected)


def test_a_tied_head_called_by_name_is_scaled_and_released():
    class Calls(Tied):
        def forward(self, tokens):
            return self.readout0(input=self.embed(tokens))

    plan = lzr.plan(lzr.Family(Calls, base=8), lzr.mup())
    model = plan.build(32)
    bias, plain = model.readout0.bias, model(TOKENS)
    torch.testing.assert_close(plan.meet_(model)(TOKENS) - bias, (plain - bias) / 4)
    assert torch.equal(plan.release_(model)(TOKENS), plain)
    with pytest.raises(PlanError, match="a Linear whose input a plan scales was called with a, b, expected"):
        plan.meet_(model).readout0(a=1, b=2)


class Pairs(Deep):
    """Branches that return more than the stream, in a container of their own."""

    def __init__(self, n, depth, holds=tuple):
        super().__init__(n, depth)
        for block in self.blocks:
            block.register_forward_hook(lambda module, args, out: holds([out, None]))

    def forward(self, x, factor=1.0):
        h = self.embed(x)
        for block in self.blocks:
            h = h + factor * block(h)[0]
        return h


@pytest.mark.parametrize("holds", [tuple, list])
def test_of_several_outputs_of_a_branch_the_first_is_scaled(holds):
    plan = lzr.plan(lzr.Family(lambda n: Pairs(n, 4, holds), base=8), lzr.mup(), branches=["blocks.*"], base_depth=1)
    model, x = plan.build(16), torch.ones(2, 3)
    expected = model(x, factor=0.5)
    torch.testing.assert_close(plan.meet_(model)(x), expected)


def test_an_output_that_cannot_be_scaled_is_refused_by_the_modules_name():
    family = lzr.Family(lambda n: Pairs(n, 4, lambda out: {0: out[0]}), base=8)
    plan = lzr.plan(family, lzr.mup(), branches=["blocks.*"], base_depth=1)
    with pytest.raises(PlanError, match=r"module 'blocks.0' \(Sequential\), which a plan scales, returned a dict"):
        plan.build(16, meet=True)(torch.ones(2, 3))


class Experts(nn.Module):
    """A router's softmax, and products by einsum, on vectors without positions: ``how`` the router's output goes to its softmax."""

    def __init__(self, n, how="straight"):
        super().__init__()
        self.inp, self.router, self.out, self.how = nn.Linear(12, n), nn.Linear(n, 4), nn.Linear(n, 3), how
        self.up, self.down = nn.Parameter(torch.randn(4, n, 2 * n)), nn.Parameter(torch.randn(4, 2 * n, n))

    def mixed(self, h):
        logits, chosen = self.router(h), None
        if self.how == "best":
            logits, chosen = (logits / 2).topk(2)
        gate = logits.softmax(-1)
        gate = gate if chosen is None else torch.zeros(*h.shape[:1], 4, device=h.device).scatter(1, chosen, gate)
        wide = torch.einsum("bn,enf->ebf", h, self.up).tanh()
        return torch.einsum("be,ebn->bn", gate, torch.einsum("ebf,efn->ebn", wide, self.down))

    def forward(self, x):
        h = torch.tanh(self.inp(x))
        return self.out(self.mixed(self.mixed(h)))


@pytest.mark.parametrize("how", ["straight", "best"])
def test_routers_of_experts_are_no_attention(how):
    assert lzr.plan(lzr.Family(lambda n: Experts(n, how), base=16), lzr.mup()).obligations == ()


def test_an_attention_of_other_inputs_beside_a_router_is_still_one():
    class Both(Picky):
        def __init__(self, n):
            super().__init__(n)
            self.router = nn.Linear(n, 2)

        def forward(self, x, rotation):
            return super().forward(x, rotation) * self.router(x).softmax(-1)[..., :1]

    (owed,) = lzr.plan(lzr.Family(reading(Both), base=16), lzr.mup()).obligations
    assert "heads' size cannot be read" in owed.why


def test_an_obligation_of_the_network_as_a_whole_says_so():
    (owed,) = lzr.plan(lzr.Family(Picky, base=16), lzr.mup()).obligations
    assert str(owed).startswith("attention in the whole network: it looks like")


# --- remarks ----------------------------------------------------------------------------------------------------------------------


class Grouped(nn.Module):
    """Heads of a fixed size, that grow in number; those of keys and values do, or are ``fixed``."""

    def __init__(self, n, fixed):
        super().__init__()
        self.head_dim, other = 4, 8 if fixed else n
        self.query, self.key, self.value, self.out = nn.Linear(n, n), nn.Linear(n, other), nn.Linear(n, other), nn.Linear(n, n)

    def forward(self, x, factor=1.0):
        q, k, v = (f(x).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (self.query, self.key, self.value))
        return self.out(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))


def test_keys_and_values_of_a_fixed_size_are_remarked():
    family = lzr.Family(reading(Grouped, True), base=16)
    (said,) = remarks(family, lzr.mup(), "adamw")
    assert "in the attention 'attention' attention.key.weight, attention.value.weight give a fixed" in said
    assert "starts as width^-0.5" in said
    assert remarks(family, lzr.ntk(), "adamw") == remarks(family, lzr.standard(), "sgd") == []
    assert remarks(lzr.Family(reading(Grouped, False), base=16), lzr.mup(), "adamw") == []


class Products(nn.Module):
    """Plain products with parameters of one's own."""

    def __init__(self, forward):
        super().__init__()
        self.vector, self.matrix = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8, 5))
        self.flat, self.square = nn.Parameter(torch.randn(40)), nn.Parameter(torch.randn(8, 8))
        self.rule = forward

    def forward(self, x):
        return self.rule(self, x)


@pytest.mark.parametrize(
    ("forward", "found"),
    [
        (lambda m, x: x @ m.matrix, {("matrix", 0)}),
        (lambda m, x: torch.matmul(x, m.matrix), {("matrix", 0)}),
        (lambda m, x: torch.mm(x[0], m.matrix), {("matrix", 0)}),
        (lambda m, x: F.linear(x, m.matrix.T), {("matrix", 0)}),
        (lambda m, x: F.linear(x, weight=m.square), {("square", 1)}),
        (lambda m, x: (x @ m.matrix) @ m.matrix.T, {("matrix", 0), ("matrix", 1)}),
        (lambda m, x: (x @ m.vector)[..., None] * (x @ m.matrix), {("matrix", 0)}),  # a vector has no axis of rows
        (lambda m, x: F.linear(x, m.vector)[..., None] + F.linear(x, m.square), {("square", 1)}),
        (lambda m, x: F.linear(x, m.flat[:24].view(3, 8)), set()),  # a part of it: its axes are none of the tensor's
        (lambda m, x: x * m.vector + m.square.sum(), set()),
    ],
)
def test_products_with_matrices_are_seen_with_the_axis_that_is_summed_over(forward, found):
    assert weighed(Products(forward)) == found


class OneOutput(nn.Module):
    """A linear layer of one's own with one output; ``sums`` over the width, or is a gain."""

    def __init__(self, n, sums=True):
        super().__init__()
        self.embed, self.weight, self.sums = nn.Linear(3, n), nn.Parameter(torch.randn(1, n)), sums

    def forward(self, x):
        h = torch.tanh(self.embed(x))
        return F.linear(h, self.weight) if self.sums else h * self.weight


def test_a_matrix_of_one_row_that_is_summed_over_is_remarked():
    (said,) = remarks(lzr.Family(OneOutput, base=16), lzr.mup(), "adamw")
    assert said.startswith("'weight' of shape (1, 16) is planned as a vector")
    assert "roles={'weight': 'output'}" in said
    assert remarks(lzr.Family(OneOutput, base=16, roles={"weight": "vector"}), lzr.mup(), "adamw") == []
    assert remarks(lzr.Family(lambda n: OneOutput(n, sums=False), base=16), lzr.mup(), "adamw") == []
