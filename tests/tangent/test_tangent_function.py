"""A network as a function: refusals, and derivatives that are right where torch's fused operations are not."""

import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import jacfwd, jacrev, vmap
from torch.utils.checkpoint import checkpoint

from lazyrich.errors import TangentError
from lazyrich.tangent import (
    NetworkFunction,
    NtkOperator,
    contracted,
    features,
    hierarchy,
    higher_kernels,
    layer_alignment,
    linearize,
    ntk_of,
    ntk_velocity,
    target_alignment,
    taylor,
)
from lazyrich.tangent.mixing import differ, refuse_mixed


def f64(model):
    return model.double().eval()


def second(function, x, name, how):
    """d^2 f / d theta_name d x of the summed output."""

    def scalar(p, x):
        return function({name: p}, x).square().sum()

    return how(how(scalar, argnums=0), argnums=1)(function.parameters[name], x)


@pytest.mark.parametrize("nested", [jacrev, jacfwd])
def test_second_derivatives_through_a_layer_norm_agree_with_differences(nested):
    model = f64(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)))
    nn.init.normal_(model[1].weight)
    function, x = NetworkFunction(model), torch.randn(2, 3, dtype=torch.float64)
    got = second(function, x, "1.weight", nested)
    step, want = 1e-5, torch.zeros_like(got)

    def gradient(x):
        p = function.parameters["1.weight"].clone().requires_grad_()
        return torch.autograd.grad(function({"1.weight": p}, x).square().sum(), p)[0]

    for i in range(2):
        for j in range(3):
            e = torch.zeros_like(x)
            e[i, j] = step
            want[:, i, j] = (gradient(x + e) - gradient(x - e)) / (2 * step)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)


def test_a_transformer_layer_is_twice_differentiable_sample_by_sample():
    model = f64(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True))
    function, x = NetworkFunction(model), torch.randn(3, 5, 8, dtype=torch.float64)
    name = "self_attn.in_proj_weight"
    one = vmap(jacfwd(jacrev(lambda p, x: function.one({name: p}, x)[0])), in_dims=(None, 0))
    hessian = one(function.parameters[name], x).reshape(3, 24 * 8, 24 * 8)
    torch.testing.assert_close(hessian, hessian.mT, rtol=1e-8, atol=1e-10)
    assert float(hessian.abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), r"1 \(BatchNorm1d\) mixes the samples.*model.eval\(\)"),
        (nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1)), r"1 \(Dropout\) draws at random.*model.eval\(\)"),
        (nn.LSTM(3, 3, 2, dropout=0.1), r"the model \(LSTM\) drops at random"),
        (nn.Linear(3, 3).requires_grad_(False), "no trainable parameters"),
    ],
)
def test_what_is_no_fixed_function_of_a_sample_is_refused_by_its_place(model, says):
    with pytest.raises(TangentError, match=says):
        NetworkFunction(model.train())


def test_inputs_are_refused_with_the_mend():
    function = NetworkFunction(nn.Linear(3, 2))
    for x, says in [
        (torch.zeros(0, 3), "at least one sample"),
        (torch.full((2, 3), torch.nan), "not finite"),
        (torch.zeros(2, 3, dtype=torch.float64), r"x is torch.float64 but the parameters are torch.float32; call x.to"),
        (torch.zeros(2, 4), r"does not take x of shape \(2, 4\)"),
    ]:
        with pytest.raises(TangentError, match=says):
            function.check(x)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, x: ntk_of(m, {"x": x}), "x1: got dict, expected a tensor.*wrap the network"),
        (lambda m, x: ntk_of(m, x, "a"), "x2: got str, expected a tensor"),
        (lambda m, x: NtkOperator(m, x.numpy()), r"x: got ndarray.*torch.as_tensor\(x\)"),
        (lambda m, x: layer_alignment(m, {"x": x}, torch.arange(4)), "x: got dict, expected a tensor.*wrap the network"),
        (lambda m, x: higher_kernels(m, {"x": x}), "x: got dict, expected a tensor.*wrap the network"),
        (lambda m, x: higher_kernels(m, x, x.numpy()), r"x_test: got ndarray.*torch.as_tensor\(x_test\)"),
        (lambda m, x: linearize(m)({"x": x}), "x: got dict, expected a tensor.*wrap the network"),
    ],
)
def test_inputs_that_are_no_tensor_are_refused_with_how_to_give_one(call, says):
    with pytest.raises(TangentError, match=says):
        call(nn.Linear(3, 2), torch.randn(4, 3))


def test_a_network_that_centres_its_batch_is_refused():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x):
            return self.inner(x - x.mean(0))

    with pytest.raises(TangentError, match="Centred mixes samples"):
        NetworkFunction(Centred()).check(torch.randn(4, 3))


class Shaped(nn.Linear):
    """Outputs in another shape than that of rows, one a sample."""

    def forward(self, x):
        return self.shape(super().forward(x))


@pytest.mark.parametrize(
    ("shape", "says", "sizes"),
    [
        (lambda y: y.sum(0), "Shaped returns 3 rows of outputs for . sample.* sum over other axes alone", (1, 2, 5)),
        (
            lambda y: torch.cat([y, y]),
            "Shaped returns . rows of outputs for . sample.*, expected .*one row a sample",
            (1, 2, 5),
        ),
        (lambda y: y[:, :0], "Shaped returns rows of no outputs, expected .* at least one a sample", (1, 2, 5)),
        (lambda y: y @ y.T, "Shaped mixes samples", (2, 5)),  # as many outputs as samples
    ],
)
def test_outputs_without_one_row_a_sample_are_refused_as_such(shape, says, sizes):
    model = Shaped(4, 3)
    model.shape = shape
    for n in sizes:
        with pytest.raises(TangentError, match=says):
            NetworkFunction(model).check(torch.randn(n, 4))


def test_mixing_shows_although_the_first_samples_are_equal():
    class Centred(nn.Linear):
        def forward(self, x):
            h = super().forward(x)
            return h - h.mean(0)

    x = torch.randn(4, 3)
    x[1] = x[0]
    with pytest.raises(TangentError, match="mixes samples"):
        NetworkFunction(Centred(3, 2)).check(x)
    NetworkFunction(nn.Linear(3, 2)).check(x[:2])  # all are alike: nothing to tell


@pytest.mark.parametrize("n", [3, 4, 7, 50])
def test_what_takes_the_best_two_of_a_batch_is_seen_to_mix(n):
    class Chosen(nn.Linear):
        def forward(self, x):
            h = super().forward(x)
            return h * (h >= h.topk(min(2, len(h)), 0)[0][-1:])

    torch.manual_seed(0)
    with pytest.raises(TangentError, match="Chosen mixes samples"):
        ntk_of(Chosen(3, 2), torch.randn(n, 3))
    NetworkFunction(nn.Linear(3, 2)).check(torch.randn(n, 3))


class Limited(nn.Module):
    """Experts that take four samples, or their share of a batch, and leave the rest out."""

    def __init__(self, least=4):
        super().__init__()
        self.least, self.gate = least, nn.Linear(3, 4)
        self.experts = nn.ModuleList(nn.Linear(3, 2) for _ in range(4))

    def forward(self, x):
        chances, out = self.gate(x).softmax(-1), x.new_zeros(len(x), 2)
        for i, expert in enumerate(self.experts):
            taken = torch.where(chances.argmax(-1) == i)[0][: max(self.least, math.ceil(len(x) / 4))]
            out = out.index_add(0, taken, chances[taken, i, None] * expert(x[taken]))
        return out


@pytest.mark.parametrize(
    "call",
    [
        ntk_of, lambda m, x: ntk_of(m, x, block=4), lambda m, x: ntk_of(m, x[:3], x), lambda m, x: NtkOperator(m, x, block=4),
        lambda m, x: contracted(m, x, torch.ones(64, 2)), lambda m, x: linearize(m)(x), features,
    ],
)  # fmt: skip
def test_what_mixes_samples_in_large_batches_alone_is_refused_whatever_the_block(call):
    x = torch.randn(64, 3)
    with pytest.raises(TangentError, match="Limited mixes samples where many go together: .* on 64 of x.*capacity"):
        call(Limited(), x)
    if call is not features:  # its experts hold some of the samples
        call(Limited(least=64), x)


def test_an_expansion_looks_again_at_batches_that_grow():
    expansion, x = linearize(Limited()), torch.randn(64, 3)
    expansion(x[:4])
    with pytest.raises(TangentError, match="mixes samples where many go together"):
        expansion(x)


class Fixed(nn.Module):
    """It runs in single precision alone, and centres large batches."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x):
        h = self.inner(x.float())
        return h - (len(x) > 4) * h.mean(0)


class Longer(Fixed):
    """It adds a row to large batches."""

    def forward(self, x):
        h = self.inner(x)
        return torch.cat([h, h[:1]]) if len(x) > 4 else h


@pytest.mark.parametrize("kind", [Fixed, Longer])
def test_mixing_is_refused_in_a_precision_of_ones_own_and_where_rows_are_added(kind):
    function, x = NetworkFunction(kind()), torch.randn(8, 3)
    with pytest.raises(TangentError, match=f"{kind.__name__} mixes samples where many go together"):
        refuse_mixed(function, x)
    refuse_mixed(function, x[:4])


@pytest.mark.parametrize(
    ("together", "apart", "found"),
    [
        ([[1.0], [1.0]], [[1.002], [1.0]], "double"),
        ([[1.0], [1.0]], [[1.02], [1.0]], "double float"),
        ([[1.0], [1.0]], [[1.0005], [1.0]], ""),
        ([[1e4], [1.0]], [[1e4], [2.0]], "double float"),
        ([[1e4], [1e-3]], [[1e4], [2e-3]], ""),  # rounding of the larger row
        ([[math.inf, 1.0]], [[1.0, 1.0]], "double float"),
        ([[1.0, 1.0]], [[math.nan, 1.0]], "double float"),
        ([[math.inf, 1.0]], [[math.inf, 2.0]], "double float"),
        ([[math.inf, 1.0]], [[math.inf, 1.0]], ""),
        ([[1.0]], [[1.0], [1.0]], "double float"),
    ],
)
def test_outputs_differ_where_a_row_does_beyond_rounding(together, apart, found):
    for kind in ("double", "float"):
        assert differ(*(getattr(torch.tensor(rows), kind)() for rows in (together, apart))) == (kind in found)


def test_signs_that_rounding_throws_over_are_not_taken_for_mixing():
    class Signs(nn.Linear):
        def forward(self, x):
            h = super().forward(x) * 0  # as sums that cancel up to rounding
            return self.weight.sum() * (h + 1e-9 * (len(x) > 4) * (x.dtype == torch.float32) - 5e-10).sign()

    ntk_of(Signs(3, 1), torch.randn(9, 3))


def test_random_numbers_are_told_by_their_source_whatever_they_give():
    class DropPath(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (torch.rand(len(x), 1) > 1e-9)  # never drops in a test

    class Dropped(nn.Linear):
        def forward(self, x):
            return F.dropout(super().forward(x), 0.5)

    class Python(nn.Linear):
        def forward(self, x):
            return super().forward(x) * random.random()

    class Counted(nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) / self.calls

    with pytest.raises(TangentError, match="it draws at random or keeps a count.*do either outside of the network"):
        NetworkFunction(Counted(3, 2)).check(torch.randn(4, 3))
    for model in (DropPath(3, 2), Dropped(3, 2), Python(3, 2)):
        with pytest.raises(TangentError, match="it draws at random"):
            NetworkFunction(model).check(torch.randn(4, 3))


def test_a_module_at_two_paths_keeps_its_parameters():
    layer = nn.Linear(3, 3)
    model, x = nn.Sequential(layer, nn.Tanh(), layer), torch.randn(4, 3)
    function = NetworkFunction(model)
    changed = {"0.weight": 2 * layer.weight.detach()}
    expected = torch.tanh(x @ changed["0.weight"].T + layer.bias) @ changed["0.weight"].T + layer.bias
    assert torch.allclose(function(changed, x), expected, atol=1e-6)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["0.weight", "0.bias"]
    assert model[2].weight is layer.weight


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_old_norms_that_set_their_weight_anew_leave_the_model_as_it_was(norm):
    model, x = nn.Sequential(norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 1)).eval(), torch.randn(5, 3)
    kept = model[0].weight
    v = torch.ones(5, 1)
    product = NtkOperator(model, x).matvec(v)
    assert torch.allclose(ntk_of(model, x).reshape(5, 5) @ v, product, rtol=1e-4)
    assert model[0].weight is kept
    model(x)  # now the weight is a result, which torch does not copy
    assert torch.allclose(linearize(model)(x), model(x), atol=1e-6)
    model.append(nn.Identity())[3].kept = [model(x)]
    with pytest.raises(TangentError, match="Sequential cannot be copied.*hold no results"):
        linearize(model)


class Keeps(nn.Linear):
    """Registers what it needs in its first pass, and keeps what it computes."""

    def __init__(self):
        super().__init__(3, 2)
        self.seen, self.log, self.last, self.of = {"first": 0}, [], None, {"names"}

    def forward(self, x):
        h = super().forward(x)
        if not hasattr(self, "turn"):
            self.register_buffer("turn", torch.ones(2) + 0 * h.detach()[0], persistent=False)
            self.add_module("extra", nn.Identity())
        self.seen["h"], self.both, self.last = h, (h, h), h
        self.seen, self.of = {**self.seen, "again": h}, self.of | {"h"}
        self.log.append(h)
        return torch.tanh(h * self.turn)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(
    "call",
    [
        lambda model, x: NetworkFunction(model).check(x),
        ntk_of,
        lambda model, x: NtkOperator(model, x).matvec(torch.ones(8, 1)),
        lambda model, x: contracted(model, x, torch.ones(4, 2)),
        lambda model, x: taylor(model, 2)(x),
        features,
    ],
)
def test_a_network_that_keeps_what_it_computes_stays_as_it_was(call):
    model, x = Keeps(), torch.rand(4, 3)
    names, seen, log = set(vars(model)), model.seen, model.log
    call(model, x)
    assert set(vars(model)) == names
    assert model.seen is seen and model.log is log
    assert (seen, log, model.last, model.of) == ({"first": 0}, [], None, {"names"})
    assert not model._buffers and not model._modules and not model._non_persistent_buffers_set
    model.register_full_backward_hook(lambda *_: None)
    assert ntk_of(model, x).shape == (4, 4, 2, 2)


@pytest.mark.parametrize("curve", [nn.SiLU, nn.Mish, nn.Hardsigmoid, nn.RReLU])
@pytest.mark.parametrize("inplace", [False, True])
def test_curves_without_fused_second_derivatives_are_expanded_also_without_gradients(curve, inplace):
    model = f64(nn.Sequential(nn.Linear(3, 4), curve(inplace=inplace), nn.Linear(4, 1)))
    x = torch.randn(2, 3, dtype=torch.float64)
    expansion = taylor(model, 2)
    expansion(x).sum().backward()
    with torch.no_grad():
        assert torch.allclose(expansion(x), model(x), rtol=1e-12)
        kernels = higher_kernels(model, x, order=4)
    assert torch.allclose(kernels.k2, ntk_of(model, x).reshape(2, 2), rtol=1e-10)


class Checkpointed(nn.Linear):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)


class Reentrant(nn.Linear):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=True)


class Waves(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.waves = nn.Parameter(torch.ones(sizes[1], dtype=torch.complex64))

    def forward(self, x):
        return (super().forward(x) * self.waves).real


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(h):
        return h.sign()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g


class Cube(torch.autograd.Function):
    """With a forward derivative, which is right once."""

    generate_vmap_rule = True

    @staticmethod
    def forward(h):
        return h**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.saved_tensors[0] ** 2 * g

    @staticmethod
    def jvp(ctx, dh):
        return 3 * ctx.saved_tensors[0] ** 2 * dh


class Own(nn.Linear):
    def __init__(self, kind, *sizes):
        super().__init__(*sizes)
        self.kind = kind

    def forward(self, x):
        return self.kind.apply(super().forward(x))


def test_functions_of_ones_own_are_taken_where_backward_derivatives_do():
    x, v = torch.randn(4, 3), torch.ones(4, 2)
    signs, cubes = Own(Sign, 3, 2), Own(Cube, 3, 2)
    want = ntk_of(nn.Linear(3, 2), x)
    assert torch.allclose(ntk_of(signs, x), want, atol=1e-5)
    assert torch.allclose(contracted(signs, x, v, order=2, keep=2), want.transpose(1, 2).flatten(2).flatten(0, 1), atol=1e-5)
    assert torch.allclose(
        NtkOperator(cubes, x).matvec(v.reshape(8, 1))[:, 0], (ntk_of(cubes, x).sum((1, 3))).flatten(), rtol=1e-4
    )
    assert torch.equal(linearize(cubes)(x), cubes(x))


class Fitted(nn.Linear):
    """By a solution that torch does not derive."""

    def forward(self, x):
        return torch.linalg.ldl_solve(
            *torch.linalg.ldl_factor(torch.eye(2) + self.weight @ self.weight.T), super().forward(x).T
        ).T


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: NtkOperator(Checkpointed(3, 2), x).matvec(torch.ones(8, 1)), "Checkpointed.*switch checkpointing off"),
        (lambda x: hierarchy(Checkpointed(3, 2), x, torch.ones(4, 2), times=[1]), "Checkpointed.*switch checkpointing off"),
        (lambda x: NtkOperator(nn.Sequential(nn.Linear(3, 3), Reentrant(3, 2)), x), "switch checkpointing off"),
        (lambda x: ntk_of(nn.Sequential(nn.Linear(3, 3), Reentrant(3, 2)), x), "switch checkpointing off"),
        (lambda x: linearize(Checkpointed(3, 2))(x), "Checkpointed.*switch checkpointing off"),
        (lambda x: linearize(nn.Bilinear(3, 3, 2))(x, x), "got 2 inputs for Bilinear.*one tensor and splits it"),
        (lambda x: contracted(Own(Sign, 3, 2), x, torch.ones(4, 2)), "Own has an operation.*h.sign"),
        (lambda x: taylor(Own(Sign, 3, 2), 1)(x), "Own has an operation.*plain operations"),
        (lambda x: higher_kernels(Own(Sign, 3, 2), x, order=2), "Own has an operation.*plain operations"),
        (lambda x: NtkOperator(Own(Sign, 3, 2), x).matvec(torch.ones(8, 1)), "Own has an operation.*plain operations"),
        (lambda x: taylor(Own(Cube, 3, 2), 2)(x), "Own: forward derivatives of Cube's own jvp.*plain operations"),
        (lambda x: contracted(Own(Cube, 3, 2), x, torch.ones(4, 2)), "forward derivatives of Cube's own jvp"),
        (lambda x: taylor(Fitted(3, 2), 1)(x), "Fitted has an operation.*linalg_ldl_solve.*plain operations"),
        (lambda x: ntk_of(Waves(3, 2), x), "'waves' is torch.complex64.*view_as_real"),
        (lambda x: NtkOperator(Waves(3, 2), x), "'waves' is torch.complex64.*view_as_real"),
    ],
)
def test_what_torch_cannot_take_is_told_with_the_mend(call, says):
    with pytest.raises(TangentError, match=says):
        call(torch.randn(4, 3))


class Signs(nn.Linear):
    def forward(self, x):
        return super().forward(x).sign()


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: ntk_of(m, x),
        lambda m, x: ntk_of(m, x, x + 1, per="tensor"),
        lambda m, x: layer_alignment(m, x, torch.tensor([0, 1, 0, 1])),
        lambda m, x: NtkOperator(m, x),
        lambda m, x: linearize(m)(x),
        lambda m, x: taylor(m, 2)(x),
        lambda m, x: higher_kernels(m, x, order=2),
    ],
)
def test_outputs_that_move_in_jumps_are_refused(call):
    with pytest.raises(TangentError, match="Signs: .*a sign, a rounding"):
        call(Signs(3, 2), torch.randn(4, 3))


def test_gradients_that_vanish_at_a_point_only_are_taken():
    saddle, x = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)), torch.randn(4, 3)
    for p in saddle.parameters():
        nn.init.zeros_(p)
    dead = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(dead[0].bias, -100)
    for model, at in ((saddle, x), (nn.Linear(3, 2, bias=False), 0 * x), (dead, x), (nn.Linear(3, 2), x[:1])):
        kernel = ntk_of(model, at)
        assert torch.allclose(
            NtkOperator(model, at).matvec(torch.eye(2 * len(at))), kernel.transpose(1, 2).flatten(2).flatten(0, 1)
        )
        assert linearize(model)(at).shape == (len(at), 2)


def test_gradients_that_are_zero_everywhere_make_kernels_of_zeros():
    dead = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    nn.init.constant_(dead[0].weight, -1)
    quiet, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.rand(4, 3)
    nn.init.zeros_(quiet[2].weight)
    quiet[2].requires_grad_(False)
    for model in (dead, quiet):
        found = layer_alignment(model, x, torch.tensor([0, 1, 0, 1]))
        assert not ntk_of(model, x).any()
        assert not NtkOperator(model, x).matvec(torch.eye(8)).any()
        assert found.whole.centred == found.whole.share == 0 and found.whole.speed == 0
        assert torch.equal(taylor(model, 2)(x), model(x))


class Listed(nn.Linear):
    """Layers in a plain list, which torch does not find."""

    def __init__(self, inner):
        super().__init__(3, 3)
        self.inner = [inner]

    def forward(self, x):
        return self.inner[0](x)


@pytest.mark.parametrize(
    "call", [ntk_of, NtkOperator, lambda m, x: contracted(m, x, torch.ones(4, 1)), lambda m, x: linearize(m)(x)]
)
def test_outputs_of_other_tensors_than_the_parameters_are_refused(call):
    with pytest.raises(TangentError, match="Listed: the outputs depend on none of its parameters.*nn.ModuleList"):
        call(Listed(nn.Linear(3, 1)), torch.randn(4, 3))


@pytest.mark.parametrize("kind", ["FullyShardedDataParallel", "FSDPModule"])
@pytest.mark.parametrize(
    "call",
    [
        ntk_of, NtkOperator, features, lambda m, x: contracted(m, x, torch.ones(4, 1)), higher_kernels, lambda m, _: linearize(m),
        lambda m, x: layer_alignment(m, x, torch.tensor([0, 1, 0, 1])),
    ],
)  # fmt: skip
def test_sharded_networks_are_refused_also_within_others(call, kind):
    shard = type(kind, (nn.Linear,), {"__module__": "torch.distributed.fsdp"})
    net = nn.Sequential(type("Own", (shard,), {})(3, 2), nn.Linear(2, 1))
    with pytest.raises(TangentError, match=r"0 \(Own\) shards its parameters.*give what it wraps.*full_state_dict=True"):
        call(net, torch.randn(4, 3))


def test_a_network_that_refuses_to_be_copied_is_told_by_its_words():
    class Own(nn.Linear):
        def __deepcopy__(self, memo):
            raise AssertionError("no copies of Own")

    with pytest.raises(TangentError, match=r"cannot be copied \(no copies of Own\)"):
        linearize(Own(3, 1))


def under_inference(call):
    with torch.inference_mode():
        return call()


class After(nn.Module):
    """A function of a layer's outputs."""

    def __init__(self, function):
        super().__init__()
        self.a, self.function = nn.Linear(3, 2), function

    def forward(self, x):
        return self.function(self.a(x))


def spread(h):
    return torch.sparse.mm(torch.eye(2).to(h).to_sparse(), h.T).T.tanh()


def times(h):
    return (torch.eye(2).to(h).to_sparse() @ h.T).T.tanh()


class Rows(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)
        self.held = torch.eye(2).to_sparse_csr()

    def forward(self, x):
        return (self.held @ super().forward(x).T).T


def pushed(h):
    """A derivative in what a layer gives, by plain autograd."""
    with torch.enable_grad():
        at = h.detach().requires_grad_()
        return h * torch.autograd.grad(at.square().sum(), at, create_graph=True)[0]


class Packed(nn.GRU):
    def forward(self, x):
        steps = nn.utils.rnn.pack_padded_sequence(x[..., None], 1 + (x[:, 1] > 0.5).long(), True, False)
        return super().forward(steps)[1][0]


def hooked():
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    net[1].register_full_backward_hook(lambda *_: None)
    return net


class Product(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, w):
        return x @ w.T

    @staticmethod
    def setup_context(ctx, inputs, _):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w, g.T @ x


class Batched(nn.Linear):
    def forward(self, x):
        return torch.tanh(Product.apply(x, self.weight)) + self.bias


def tokens(**options):
    return nn.Sequential(nn.Embedding(5, 2, **options), nn.Flatten(), nn.Linear(6, 1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: under_inference(lambda: ntk_of(nn.Linear(3, 1), x)), "use torch.no_grad"),
        (lambda x: ntk_of(nn.Linear(3, 1), under_inference(x.clone), x), "'x1' was made under torch.inference_mode"),
        (lambda x: ntk_of(nn.DataParallel(nn.Linear(3, 1)), x), r"the model \(DataParallel\).*model.module"),
        (lambda x: linearize(torch.jit.script(nn.Linear(3, 1))), "give the unscripted model"),
        (lambda x: ntk_of(tokens(max_norm=0.1), x.long()), r"0 \(Embedding\) shortens.*max_norm to None"),
        (lambda x: linearize(tokens(scale_grad_by_freq=True)), r"0 \(Embedding\) scales its gradients"),
        (lambda x: NtkOperator(tokens(scale_grad_by_freq=True), x.long()), r"0 \(Embedding\) scales its gradients"),
        (lambda x: higher_kernels(tokens(scale_grad_by_freq=True), x.long()), r"0 \(Embedding\) scales its gradients"),
        (lambda x: ntk_of(nn.Linear(3, 1), x.to_sparse()), r"torch.sparse_coo.*x1.to_dense\(\)"),
        (lambda x: linearize(nn.Linear(3, 1))(x.to_sparse_csr()), r"torch.sparse_csr.*x.to_dense\(\)"),
        (lambda x: linearize(nn.Linear(3, 1))(torch.nested.nested_tensor([x[0], x[1]])), "nested tensor.*to_padded_tensor"),
        (lambda x: ntk_of(nn.Linear(3, 1), x.to("meta")), "device meta"),
        (lambda x: ntk_of(After(lambda h: h.sum()), x), r"After returns a tensor without axes, expected outputs \(N, ...\)"),
        (lambda x: linearize(After(lambda h: h.sum()))(x), "After returns a tensor without axes"),
        (
            lambda x: ntk_of(After(lambda h: F.batch_norm(h, None, None, training=True)), x),
            "After mixes samples: .* batch norm",
        ),
        (lambda x: NtkOperator(After(spread), x).matvec(torch.ones(8, 1)), r"After .*to_dense\(\)"),
        (lambda x: higher_kernels(After(spread), x, order=3), r"After .*\); multiply by .*to_dense\(\)"),
        (lambda x: contracted(After(spread), x, torch.ones(4, 2)), r"After .*\); multiply by .*to_dense\(\)"),
        (lambda x: contracted(After(spread), x, torch.ones(4, 2), keep=2), r"After .*\); multiply by .*to_dense\(\)"),
        (lambda x: linearize(After(spread))(x), r"After .*\); multiply by .*to_dense\(\)"),
        (lambda x: linearize(After(times))(x), r"After .*'SparseCPU' backend\); multiply by .*to_dense\(\)"),
        (lambda x: linearize(Rows())(x), r"Rows cannot be copied .*multiply by .*to_dense\(\)"),
        (lambda x: NtkOperator(Rows(), x).matvec(torch.ones(8, 1)), r"Rows .*multiply by .*to_dense\(\)"),
        (lambda x: linearize(Packed(1, 2, batch_first=True))(x), "Packed .*pack_padded_sequence.*at its own last step"),
        (lambda x: NtkOperator(After(pushed), x).matvec(torch.ones(8, 1)), "After .*with torch.func.grad.*takes it as it is"),
        (lambda x: linearize(After(pushed))(x), "After .*with torch.func.grad"),
        (lambda x: NtkOperator(hooked(), x), r"1 \(Tanh\) has a full backward hook.*remove\(\) of the handle"),
        (lambda x: higher_kernels(hooked(), x), r"1 \(Tanh\) has a full backward hook"),
        (lambda x: contracted(hooked(), x, torch.ones(4, 2)), r"1 \(Tanh\) has a full backward hook"),
        (lambda x: contracted(Batched(3, 2), x, torch.ones(4, 2), keep=2), "Batched .*write the autograd.Function in plain"),
        (lambda x: ntk_velocity(Batched(3, 2), x, torch.ones(4, 2)), "Batched .*write the autograd.Function in plain"),
        (lambda x: target_alignment(torch.eye(4), torch.tensor([1, -1, 1, -1])), r"-1 among them.*y.float\(\)"),
        (lambda x: ntk_of(nn.Linear(3, 1), x, block=True), "block = True"),
        (lambda x: NtkOperator(nn.Linear(3, 1), x, block=True), "block = True"),
    ],
)
def test_what_has_a_plain_mend_is_refused_with_it(call, says):
    with pytest.raises(TangentError, match=says):
        call(torch.rand(4, 3))


class TiedHead(nn.Module):
    def __init__(self, tied, **options):
        super().__init__()
        self.words, self.out = nn.Embedding(5, 3, **options), nn.Linear(3, 5, bias=False)
        if tied:
            self.out.weight = self.words.weight

    def forward(self, x):
        return self.out(torch.tanh(self.words(x)).mean(1))


def cast(self, x):
    return self.out(F.embedding(x, self.words.weight.float(), 0).double().mean(1))


KERNELS = [
    lambda model, x: ntk_of(model, x).transpose(1, 2).reshape(10, 10),
    lambda model, x: NtkOperator(model, x).matvec(torch.eye(10, dtype=torch.float64)),
    lambda model, x: higher_kernels(model, x, order=2).k2,
    lambda model, x: contracted(model, x, torch.ones(2, 5), order=2, keep=2),
]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_tied_table_whose_row_of_padding_half_trains_is_refused_and_others_have_one_kernel(kernel):
    x = torch.tensor([[0, 1, 2], [3, 0, 4]])
    with pytest.raises(TangentError, match="'words.weight' of TiedHead is a tied table with padding_idx=0: .* or untie"):
        kernel(TiedHead(True, padding_idx=0).double(), x)
    with pytest.raises(TangentError, match="'words.weight' of Cast"):
        kernel(type("Cast", (TiedHead,), {"forward": cast})(True, padding_idx=0).double(), x)
    for model in (TiedHead(True).double(), TiedHead(False, padding_idx=0).double()):
        rows = [torch.autograd.grad(f, list(model.parameters()), retain_graph=True) for f in model(x).flatten()]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        assert torch.allclose(kernel(model, x), jacobian @ jacobian.T, rtol=1e-9, atol=1e-12)


def test_rates_may_be_numbers_of_numpy_and_torch():
    function = NetworkFunction(nn.Linear(3, 1))
    rates = function.rates({"weight": np.float32(0.5), "bias": torch.tensor(0.25)})
    assert rates == {"weight": 0.5, "bias": 0.25}
    found = layer_alignment(function.model, torch.randn(4, 3), torch.rand(4, 1), {"weight": torch.tensor(0.5)})
    assert isinstance(found.whole.speed, float)


def test_what_is_compiled_goes_by_the_names_of_what_it_wraps():
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.rand(4, 3)
    compiled = torch.compile(net, backend="eager")
    start = torch._dynamo.utils.counters["frames"].copy()
    found = ntk_of(compiled, x, per="tensor", rates={"0.weight": 0.5})
    assert list(found) == [name for name, _ in net.named_parameters()]
    torch.testing.assert_close(found["0.weight"], 0.5 * ntk_of(net, x, per="tensor")["0.weight"])
    torch.testing.assert_close(linearize(compiled)(x), net(x))
    assert [layer.layer for layer in layer_alignment(compiled, x, torch.tensor([0, 1, 0, 1])).layers] == ["0", "2"]
    assert torch._dynamo.utils.counters["frames"] == start  # nothing was traced


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_parts_run_as_they_were_written(whole):
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.rand(4, 3)
    kernel = ntk_of(net, x)
    if whole:
        net.compile(backend="eager")
    else:
        net[0] = torch.compile(net[0], backend="eager")
    start = torch._dynamo.utils.counters["frames"].copy()
    torch.testing.assert_close(ntk_of(net, x), kernel)
    wide = kernel.transpose(1, 2).reshape(8, 8)
    torch.testing.assert_close(NtkOperator(net, x).matvec(torch.eye(8)), wide)
    assert taylor(net, 2)(x).shape == (4, 2)
    assert torch._dynamo.utils.counters["frames"] == start
