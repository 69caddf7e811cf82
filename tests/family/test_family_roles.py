"""Roles: which sides of a tensor grow, read from what its module does with it and from two builds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import FamilyError
from lazyrich.family import Axes, register
from lazyrich.family.semantics import read_axes


class Net(nn.Module):
    """Holds named modules and parameters; never run."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def roles(factory, base=8, **options):
    return {name: str(role) for name, role in lzr.Family(factory, base=base, **options).roles.items()}


def one(make, leaf="weight", base=8, **options):
    return roles(lambda n: Net(part=make(n)), base, **options)[f"part.{leaf}"]


# (what, how it is built at width n, role of its weight); fan-in and fan-out of each shape are told in the comment
LAYERS = [
    ("linear in", lambda n: nn.Linear(3, n), "input"),
    ("linear between", lambda n: nn.Linear(n, n), "hidden"),
    ("linear out", lambda n: nn.Linear(n, 3), "output"),
    ("conv1d in", lambda n: nn.Conv1d(3, n, 5), "input"),
    ("conv2d between", lambda n: nn.Conv2d(n, 2 * n, 3), "hidden"),
    ("conv3d out", lambda n: nn.Conv3d(n, 3, 2), "output"),
    ("1x1 conv as a readout", lambda n: nn.Conv2d(n, 10, 1), "output"),
    ("grouped conv, growing groups' channels", lambda n: nn.Conv2d(n, n, 3, groups=2), "hidden"),
    ("grouped conv, growing number of groups", lambda n: nn.Conv2d(n, n, 3, groups=n // 4), "input"),
    ("grouped conv whose base looks depthwise", lambda n: nn.Conv2d(n, n, 3, groups=8), "hidden"),
    ("depthwise conv", lambda n: nn.Conv2d(n, n, 3, groups=n), "vector"),
    ("depthwise conv with a multiplier", lambda n: nn.Conv1d(n, 2 * n, 3, groups=n), "vector"),
    ("transposed in", lambda n: nn.ConvTranspose2d(3, n, 2), "input"),  # weight is (3, n, 2, 2)
    ("transposed between", lambda n: nn.ConvTranspose1d(n, n, 2), "hidden"),
    ("transposed out", lambda n: nn.ConvTranspose2d(n, 3, 2), "output"),  # weight is (n, 3, 2, 2)
    ("transposed depthwise", lambda n: nn.ConvTranspose2d(n, n, 2, groups=n), "vector"),
    ("transposed grouped, growing number of groups", lambda n: nn.ConvTranspose2d(n, n, 2, groups=n // 4), "input"),
    ("transposed grouped, groups' outputs grow too", lambda n: nn.ConvTranspose1d(n, n**2, 2, groups=n // 4), "input"),
    ("transposed grouped, one group at the base", lambda n: nn.ConvTranspose1d(n, n, 2, groups=n // 8), "input"),
    ("transposed grouped", lambda n: nn.ConvTranspose2d(n, n, 2, groups=2), "hidden"),
    ("embedding", lambda n: nn.Embedding(11, n), "input"),
    ("embedding bag", lambda n: nn.EmbeddingBag(11, n), "input"),
    ("layer norm", lambda n: nn.LayerNorm(n), "vector"),
    ("layer norm over positions too", lambda n: nn.LayerNorm((5, n)), "vector"),
    ("rms norm", lambda n: nn.RMSNorm(n), "vector"),
    ("group norm", lambda n: nn.GroupNorm(4, n), "vector"),
    ("batch norm", lambda n: nn.BatchNorm2d(n), "vector"),
    ("prelu", lambda n: nn.PReLU(n), "vector"),
    ("bilinear out", lambda n: nn.Bilinear(n, 3, 2), "output"),
    ("bilinear between", lambda n: nn.Bilinear(n, 3, n), "hidden"),
    ("bilinear in", lambda n: nn.Bilinear(2, 3, n), "input"),
]


@pytest.mark.parametrize(("make", "role"), [case[1:] for case in LAYERS], ids=[case[0] for case in LAYERS])
def test_a_weight_is_read_by_what_its_module_sums_over(make, role):
    assert one(make) == role


@pytest.mark.parametrize(
    "make",
    [
        lambda n: nn.Linear(3, n),
        lambda n: nn.Conv2d(3, n, 3),
        lambda n: nn.ConvTranspose2d(3, n, 3),
        lambda n: nn.Bilinear(3, 3, n),
        lambda n: nn.LayerNorm(n),
        lambda n: nn.BatchNorm1d(n),
    ],
)
def test_a_bias_that_grows_is_a_vector(make):
    assert one(make, "bias") == "vector"


def test_a_bias_of_a_readout_is_fixed():
    assert one(lambda n: nn.Linear(n, 3), "bias") == "fixed"


def test_the_kernel_counts_as_fan_in():
    tensors = lzr.Family(lambda n: nn.Conv2d(n, n, 3), base=8).tensors
    assert tensors["weight"].axes == Axes(produced=(0,), contracted=(1, 2, 3))
    swapped = lzr.Family(lambda n: nn.ConvTranspose2d(n, n, 3), base=8).tensors
    assert swapped["weight"].axes == Axes(produced=(1,), contracted=(0, 2, 3))


def test_attention_is_read_through_its_packed_and_separate_projections():
    packed = roles(lambda n: nn.MultiheadAttention(n, 4, add_bias_kv=True))
    assert packed == {
        "in_proj_weight": "hidden",
        "in_proj_bias": "vector",
        "bias_k": "vector",
        "bias_v": "vector",
        "out_proj.weight": "hidden",
        "out_proj.bias": "vector",
    }
    separate = roles(lambda n: nn.MultiheadAttention(n, 4, kdim=3, vdim=n))
    assert (separate["q_proj_weight"], separate["k_proj_weight"], separate["v_proj_weight"]) == ("hidden", "input", "hidden")


def test_axes_that_no_role_tells():
    """Of the extra key and value, and of a transposed depthwise kernel with two filters a channel."""
    attention, kernel = nn.MultiheadAttention(8, 2, add_bias_kv=True), nn.ConvTranspose2d(4, 8, 3, groups=4)
    assert read_axes(attention, "bias_k", (1, 1, 8)) == read_axes(attention, "bias_v", (1, 1, 8)) == Axes(produced=(2,))
    assert read_axes(kernel, "weight", tuple(kernel.weight.shape)) == Axes(produced=(0, 1), taps=(2, 3), each=2)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell])
def test_recurrent_weights_have_their_gates_on_the_fan_out(kind):
    found = roles(lambda n: kind(3, n))
    assert {role for name, role in found.items() if "weight_ih" in name} == {"input"}
    assert {role for name, role in found.items() if "weight_hh" in name} == {"hidden"}
    assert {role for name, role in found.items() if "bias" in name} == {"vector"}


def test_a_projected_lstm_with_a_fixed_projection():
    found = roles(lambda n: nn.LSTM(3, n, proj_size=2))
    assert found["weight_hr_l0"] == "output"
    assert found["weight_hh_l0"] == "input"  # it reads the two projected units


def test_a_whole_transformer_layer_has_a_role_everywhere():
    found = roles(lambda n: nn.TransformerEncoderLayer(n, 2, 4 * n))
    assert {name: role for name, role in found.items() if role != "vector"} == dict.fromkeys(
        ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"), "hidden"
    )


class Plain(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(*shape))


PLAIN = [
    ("one axis", lambda n: (n,), "vector"),
    ("positions to broadcast", lambda n: (1, 5, n), "vector"),
    ("a row to broadcast", lambda n: (1, n), "vector"),
    ("a square", lambda n: (n, n), "hidden"),
    ("both grow alike", lambda n: (4 * n, n), "hidden"),
    ("experts", lambda n: (3, n, 2 * n), "hidden"),
    ("nothing grows", lambda n: (3, 5), "fixed"),
]


@pytest.mark.parametrize(("shape", "role"), [case[1:] for case in PLAIN], ids=[case[0] for case in PLAIN])
def test_a_plain_parameter_is_read_by_its_shape(shape, role):
    assert roles(lambda n: Net(body=nn.Linear(3, n), p=Plain(*shape(n))))["p.table"] == role


@pytest.mark.parametrize("shape", [lambda n: (5, n), lambda n: (n, 5), lambda n: (n, n // 2 + 1), lambda n: (n, n, n)])
def test_a_plain_parameter_with_two_readings_is_refused_with_the_mend(shape):
    def factory(n):
        return Net(body=nn.Linear(3, n), p=Plain(*shape(n)))

    with pytest.raises(FamilyError, match=r"'p\.table'.*roles=\{'p\.table': 'vector'\}"):
        roles(factory)
    both = sum(a != b for a, b in zip(shape(8), shape(16), strict=True)) > 1
    for role in ("vector", "input", "output", "fixed", *(["hidden"] if both else [])):
        assert roles(factory, roles={"p.table": role})["p.table"] == role
    if not both:
        with pytest.raises(FamilyError, match=r"the role hidden.*axis \d grows alone; expected output if it is summed over"):
            roles(factory, roles={"p.table": "hidden"})


@pytest.mark.parametrize(
    ("make", "given", "own"),
    [
        (lambda n: nn.Linear(n, 3), "input", "output"),
        (lambda n: nn.Linear(3, n), "output", "input"),
        (lambda n: nn.Conv2d(n, n, 3), "vector", "hidden"),
        (lambda n: nn.ConvTranspose1d(n, 2, 3), "input", "output"),
    ],
)
def test_a_role_that_the_layer_contradicts_is_refused(make, given, own):
    with pytest.raises(FamilyError, match=rf"'part.weight' the role {given}, .*axes \(.*grow; expected {own} \(what it has"):
        one(make, roles={"part.weight": given})
    family = lzr.Family(lambda n: Net(part=make(n)), base=8, roles={"part.weight": own})
    plain = lzr.Family(lambda n: Net(part=make(n)), base=8)
    assert family.tensors["part.weight"].axes == plain.tensors["part.weight"].axes  # a kernel's axes are summed over too


@pytest.mark.parametrize("role", ["hidden", "output"])
@pytest.mark.parametrize(
    ("make", "leaf"),
    [
        (lambda n: nn.Linear(3, n), "bias"),
        (lambda n: nn.Conv1d(3, n, 2), "bias"),
        (nn.LayerNorm, "weight"),
        (lambda n: nn.GroupNorm(2, n), "bias"),
    ],
)
def test_biases_and_gains_are_no_matrices(make, leaf, role):
    with pytest.raises(FamilyError, match=rf"'part.{leaf}' the role {role}, but its layer's {leaf} .*expected vector"):
        one(make, leaf, roles={f"part.{leaf}": role})
    assert one(make, leaf, roles={f"part.{leaf}": "input"}) == "input"  # these two are scaled alike


def test_a_role_that_decides_nothing_is_taken():
    assert one(lambda n: nn.Linear(3, n), "weight", roles={"part.weight": "fixed"}) == "fixed"
    assert one(lambda n: nn.Linear(3, 4), "weight", roles={"part.weight": "input"}) == "input"  # nothing grows


def test_an_override_gives_the_axes_that_its_role_speaks_of():
    def axes(role):
        family = lzr.Family(lambda n: Net(body=nn.Linear(3, n), p=Plain(5, n)), base=8, roles={"*.table": role})
        return family.tensors["p.table"].axes

    assert (axes("output").contracted, axes("output").produced) == ((1,), (0,))
    assert (axes("input").contracted, axes("input").produced) == ((0,), (1,))
    assert axes("vector").contracted == ()


def test_a_registered_module_type_is_read_by_its_reader():
    class Flipped(nn.Module):  # keeps its weight as (in, out)
        def __init__(self, rows, columns):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(rows, columns))

    with pytest.raises(FamilyError, match="cannot tell the role"):
        one(lambda n: Flipped(n, 3))
    register(Flipped, lambda module, name, shape: Axes((1,), (0,)) if name == "weight" else None)
    assert one(lambda n: Flipped(n, 3)) == "output"
    assert one(lambda n: Flipped(3, n)) == "input"


@pytest.mark.parametrize("override", [{"nothing.*": "vector"}, {"weight": "input"}])
def test_an_override_that_matches_nothing_is_refused(override):
    with pytest.raises(FamilyError, match="matches no tensor"):
        roles(lambda n: Net(part=nn.Linear(3, n)), roles=override)


def test_an_override_with_an_unknown_role_is_refused():
    with pytest.raises(FamilyError, match="'matrix'.*expected one of input, hidden"):
        roles(lambda n: nn.Linear(3, n), roles={"weight": "matrix"})


def test_two_growing_sums_are_refused():
    with pytest.raises(FamilyError, match=r"'weight'.*sums over two growing axes.*Say which: .*'output'.* \(or fixed\)"):
        roles(lambda n: nn.Bilinear(n, n, 3))
    assert roles(lambda n: nn.Bilinear(n, n, 3), roles={"weight": "output"})["weight"] == "output"


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def test_parametrizations_are_refused_by_the_names_of_all_that_have_no_role():
    def doubled(n):
        return nn.Sequential(*(nn.utils.parametrize.register_parametrization(nn.Linear(*s), "weight", Doubled())
                               for s in ((3, n), (n, n))))  # fmt: skip

    says = r"--roles '0.parametrizations.weight.original=input' '1.parametrizations.weight.original=hidden'"
    with pytest.raises(FamilyError, match=says):  # all at once, by their axes
        roles(doubled)
    with pytest.raises(FamilyError, match=r"^'1.parametrizations.weight.original': hidden originals"):
        roles(doubled, roles={"0.*": "input"})
    assert roles(doubled, roles={"0.*l": "input", "1.*l": "hidden"})["1.parametrizations.weight.original"] == "hidden"


def test_a_weight_norm_is_read_as_its_layer_and_its_gains():
    tensors = lzr.Family(lambda n: nn.Sequential(nn.Linear(3, n), WEIGHT_NORM(nn.Linear(n, 2))), base=8).tensors
    gain, weight = (tensors[f"1.parametrizations.weight.original{i}"] for i in (0, 1))
    assert (str(weight.role), weight.kind, weight.axes, weight.norm_of) == ("output", "Linear", Axes((0,), (1,)), "")
    assert (str(gain.role), gain.norm_of) == ("fixed", weight.name)


WEIGHT_NORM = nn.utils.parametrizations.weight_norm
NO_PLAN = {
    "orthogonal": (nn.utils.parametrizations.orthogonal, "'1.weight' .*singular values.*may start orthogonal"),
    "spectral norm": (nn.utils.parametrizations.spectral_norm, "'1.weight' .*initial size has no effect"),
    "norms of columns": (lambda layer: WEIGHT_NORM(layer, dim=1), "gains along dim=1"),
    "two": (
        lambda layer: nn.utils.parametrize.register_parametrization(WEIGHT_NORM(layer), "weight", Doubled()),
        "beside another",
    ),
    "older weight norm": (nn.utils.weight_norm, "layer '1' has torch's older WeightNorm"),
    "older spectral norm": (nn.utils.spectral_norm, "layer '1' has torch's older SpectralNorm"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", NO_PLAN)
def test_parametrizations_whose_weight_no_plan_can_scale_are_refused_with_roles_too(kind):
    norm, words = NO_PLAN[kind]
    with pytest.raises(FamilyError, match=words):
        roles(lambda n: nn.Sequential(nn.Linear(3, n), norm(nn.Linear(n, n))), roles={"1.*": "hidden"})


def tie(first, second):
    second.weight = first.weight
    return second


def test_a_table_tied_to_the_readout_is_one_input_with_an_output_alias():
    def factory(n):
        net = Net(embed=nn.Embedding(11, n), body=nn.Linear(n, n), readout=nn.Linear(n, 11, bias=False))
        tie(net.embed, net.readout)
        return net

    tensors = lzr.Family(factory, base=8).tensors
    assert set(tensors) == {"embed.weight", "body.weight", "body.bias"}
    info = tensors["embed.weight"]
    assert (str(info.role), info.aliases, info.axes.produced) == ("input", ("readout.weight",), (1,))
    assert [str(use) for use in info.uses] == ["input", "output"]


def test_a_readout_that_comes_before_its_table_is_an_input_too():
    def factory(n):
        net = Net(readout=nn.Linear(n, 11, bias=False), body=nn.Linear(n, n), embed=nn.Embedding(11, n))
        tie(net.embed, net.readout)
        return net

    info = lzr.Family(factory, base=8).tensors["readout.weight"]
    assert (str(info.role), info.aliases, info.axes.produced) == ("input", ("embed.weight",), (1,))
    assert [str(use) for use in info.uses] == ["output", "input"]


def test_hidden_layers_that_share_a_weight_are_one_hidden_tensor():
    def factory(n):
        net = Net(first=nn.Linear(n, n), second=nn.Linear(n, n))
        tie(net.first, net.second)
        return net

    info = lzr.Family(factory, base=8).tensors["first.weight"]
    assert (str(info.role), info.aliases) == ("hidden", ("second.weight",))


def irreconcilable(n):
    net = Net(body=nn.Linear(3, n), gain=Plain(1, n), head=nn.Linear(n, 1))
    net.head.weight = net.gain.table  # added like a position in one place, summed over in the other
    return net


def test_a_tie_between_roles_that_nothing_reconciles_is_refused():
    with pytest.raises(FamilyError, match=r"'gain\.table' as vector, 'head\.weight' as output"):
        roles(irreconcilable)


@pytest.mark.parametrize("name", ["gain.table", "head.weight"])
def test_an_override_of_either_name_settles_a_tie(name):
    for role in ("vector", "output"):
        assert roles(irreconcilable, roles={name: role})["gain.table"] == role


def test_buffers_have_no_role():
    found = roles(lambda n: Net(norm=nn.BatchNorm1d(n)))
    assert set(found) == {"norm.weight", "norm.bias"}


def test_sides_may_grow_at_different_rates():
    found = roles(lambda n: nn.Sequential(nn.Linear(n, 4 * n), nn.Linear(4 * n, n), nn.Linear(n, n // 8 * 3)))
    assert {found[f"{i}.weight"] for i in range(3)} == {"hidden"}


def test_a_fixed_bottleneck_is_a_readout_and_a_new_input():
    found = roles(lzr.zoo.autoencoder)
    assert (found["encoder.readout.weight"], found["decoder.hidden.0.weight"]) == ("output", "input")
    assert (found["encoder.hidden.0.weight"], found["decoder.readout.weight"]) == ("input", "output")


def test_roles_do_not_come_from_names():
    found = roles(lambda n: Net(readout=nn.Linear(3, n), embed=nn.Linear(n, n), hidden=nn.Linear(n, 3)))
    assert (found["readout.weight"], found["embed.weight"], found["hidden.weight"]) == ("input", "hidden", "output")
