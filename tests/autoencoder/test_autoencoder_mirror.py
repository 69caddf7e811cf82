"""Mirrored layers of encoder and decoder: what is tied, and what is not."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

import lazyrich as lzr
from lazyrich.autoencoder import (
    STARTS,
    MirrorProbe,
    Pair,
    Vae,
    collapse,
    coupled,
    importance_bound,
    mirrored,
    mirrors,
    start_for,
    transposed,
)
from lazyrich.errors import AutoencoderError


def test_mirrors_see_what_is_tied_and_what_is_not():
    torch.manual_seed(0)
    net, x = lzr.zoo.autoencoder(32), torch.randn(40, 64)
    assert all(abs(m.weight) < 0.2 for m in mirrors(net, x))
    with torch.no_grad():
        for encoder, decoder in mirrored(net):
            parts = dict(net.named_modules())
            parts[decoder].weight.copy_(parts[encoder].weight.T)
    tied = mirrors(net, x)
    assert [m.weight for m in tied] == pytest.approx([1.0, 1.0])
    assert [m.angle for m in tied] == pytest.approx([0.0, 0.0], abs=1e-3)
    assert [(m.encoder, m.decoder) for m in tied] == mirrored(net)
    with pytest.raises(AutoencoderError, match="no mirror images"):
        mirrored(Pair(nn.Linear(6, 2), nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 6))))


def operator(layer, size):
    """A linear layer as a matrix, by automatic differentiation."""
    zero = torch.zeros(1, *size, dtype=torch.float64)
    return torch.autograd.functional.jacobian(lambda x: layer(x).flatten(), zero).flatten(1)


AROUND = {"padding": 1, "padding_mode": "circular", "bias": False, "dtype": torch.float64}  # no edges: each entry counts alike
APART = {"stride": 2, "bias": False, "dtype": torch.float64}  # patches that do not overlap
OPERATORS = {
    "dense": (nn.Linear(6, 4, bias=False, dtype=torch.float64), (6,), nn.Linear(4, 6, bias=False, dtype=torch.float64), (4,)),
    "conv": (nn.Conv2d(3, 4, 3, **AROUND), (3, 5, 5), nn.Conv2d(4, 3, 3, **AROUND), (4, 5, 5)),
    "line": (nn.Conv1d(4, 4, 3, **AROUND), (4, 5), nn.Conv1d(4, 4, 3, **AROUND), (4, 5)),
    "transposed": (nn.Conv2d(3, 4, 2, **APART), (3, 6, 6), nn.ConvTranspose2d(4, 3, 2, **APART), (4, 3, 3)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2, **AROUND), (4, 5, 5), nn.Conv2d(6, 4, 3, groups=2, **AROUND), (6, 5, 5)),
    "depthwise": (nn.Conv2d(3, 3, 3, groups=3, **AROUND), (3, 5, 5), nn.Conv2d(3, 3, 3, groups=3, **AROUND), (3, 5, 5)),
    "depthwise transposed": (
        nn.Conv2d(3, 3, 2, groups=3, **APART), (3, 6, 6), nn.ConvTranspose2d(3, 3, 2, groups=3, **APART), (3, 3, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_cosines_are_those_of_the_layers_as_operators(name):
    encoder, size, decoder, code = OPERATORS[name]
    for tied in (False, True):
        if tied and "groups" not in name and name != "depthwise":  # starts couple no channels that are in groups
            transposed(1.0)(Pair(encoder, decoder), torch.zeros(1, *size), 0)
        there, back = operator(encoder, size), operator(decoder, code)
        expected = float((back * there.T).sum() / (back.norm() * there.norm()))
        (found,) = mirrors(Pair(encoder, decoder), torch.randn(6, *size, dtype=torch.float64))
        assert found.weight == pytest.approx(expected, abs=1e-9)
    if "groups" not in name and name != "depthwise":
        assert found.weight == pytest.approx(1.0)
        assert found.angle == pytest.approx(0.0, abs=1e-3)


class Up(nn.Module):
    """Strided convolutions, and upsampling with plain ones back."""

    def __init__(self, width):
        super().__init__()
        down = nn.Conv2d(1, width, 3, 2, 1), nn.Tanh(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.Flatten()
        up = nn.Upsample(scale_factor=2), nn.Conv2d(2 * width, width, 3, 1, 1), nn.Tanh(), nn.Upsample(scale_factor=2)
        self.encoder = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *down, nn.Linear(8 * width, 5))
        self.decoder = nn.Sequential(
            nn.Linear(5, 8 * width), nn.Unflatten(1, (2 * width, 2, 2)), *up, nn.Conv2d(width, 1, 3, 1, 1), nn.Flatten()
        )

    def forward(self, x):
        return self.decoder(self.encoder(x))


def test_upsampling_decoders_mirror_strided_encoders():
    x, family = torch.randn(30, 64), lzr.Family(Up, base=4)
    assert mirrored(Up(4)) == [("encoder.1", "decoder.6"), ("encoder.3", "decoder.3"), ("encoder.5", "decoder.0")]
    for make in (lambda: lzr.plan(family, lzr.mup(), init=coupled(family, 0.5)).build(8), lambda: half(Up(4), x)):
        assert [m.weight for m in mirrors(make(), x)] == pytest.approx([0.5] * 3, abs=1e-4)


def half(net, x):
    STARTS["half"](net, x, 0)
    return net


def test_pairs_that_are_no_mirror_images_say_which_and_what_is():
    longer = Pair(nn.Linear(6, 2), nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 6)))
    with pytest.raises(
        AutoencoderError, match=r"1 weights \('encoder' \(Linear, 2 x 6\)\) against 2 .*expected as many layers"
    ):
        mirrored(longer)
    kernels = Pair(nn.Conv2d(1, 4, (3, 1)), nn.Conv2d(4, 1, (1, 3)))
    with pytest.raises(
        AutoencoderError, match=r"'decoder' \(Conv2d, 1 x 4 x 1 x 3\) does not undo 'encoder'.*Conv2d\(b, a, k\)"
    ):
        mirrored(kernels)
    with pytest.raises(
        AutoencoderError, match=r"'decoder.6' \(Conv2d, .*\) cannot start as inverse of 'encoder.1'.*expected matrices"
    ):
        STARTS["inverse"](Up(4), torch.zeros(1, 64), 0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: mirrors(Pair(nn.Linear(6, 2), nn.Linear(2, 6)), torch.zeros(4, 5)),
            "reads 6 numbers a sample, got inputs of shape",
        ),
        (lambda: importance_bound(Vae(nn.Linear(6, 4), nn.Linear(2, 6)), torch.zeros(4, 5)), "reads 6 numbers a sample"),
        (lambda: collapse(Vae(nn.Linear(6, 4), nn.Linear(2, 6)), torch.zeros(4, 5)), "reads 6 numbers a sample"),
        (lambda: STARTS["cascading"](lzr.zoo.autoencoder(16), torch.randn(20, 60), 0), "reads 64 numbers a sample"),
        (lambda: STARTS["cascading"](lzr.zoo.autoencoder(16), torch.full((20, 64), torch.nan), 0), "not finite"),
        (lambda: STARTS["default"]("3", torch.zeros(1, 64), 0), "got '3' of type str for model"),
        (lambda: STARTS["orthogonal"](None, torch.zeros(1, 64), 0), "got None of type NoneType for model"),
        (lambda: mirrored("3"), "got '3' of type str for model"),
        (lambda: transposed("3"), "correlation = '3'"),
        (lambda: coupled(None), "got None, expected a family"),
        (lambda: coupled(lzr.Family(lzr.zoo.autoencoder, base=16), "3"), "correlation = '3'"),
        (lambda: MirrorProbe(torch.zeros(4, 6), every=-1), "every = -1"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_in_words(call, says):
    with pytest.raises(AutoencoderError, match=says):
        call()


def test_of_a_variational_head_the_means_mirror_the_decoder():
    torch.manual_seed(0)
    net, x = lzr.autoencoder.vae(16), torch.randn(30, 64)
    spread = net.encoder.readout.weight[8:].clone()
    STARTS["cascading"](net, x, 0)
    assert torch.equal(net.encoder.readout.weight[8:], spread)
    assert [m.weight for m in mirrors(net, x)] == pytest.approx([1.0, 1.0])
    assert [m.weight for m in mirrors(lzr.autoencoder.plain(net), x)] == pytest.approx([1.0, 1.0])
    torch.testing.assert_close(
        net.decoder.hidden[0].weight / net.decoder.hidden[0].weight.norm(),
        net.encoder.readout.weight[:8].T / net.encoder.readout.weight[:8].norm(),
    )
    single = Vae(nn.Linear(6, 4), nn.Linear(2, 6))
    transposed(0.5)(single, torch.zeros(1, 6), 0)
    assert [m.weight for m in mirrors(single, torch.randn(9, 6))] == pytest.approx([0.5])
    probe, adam = MirrorProbe(x, every=1), torch.optim.Adam(net.parameters(), lr=0.01)
    lzr.train.train(net, adam, lambda step: (x, x), lzr.autoencoder.objective(), 2, probes=[probe])
    assert [row["encoder"] for row in probe.rows()] == ["encoder.hidden.0", "encoder.readout"] * 3
    with pytest.raises(AutoencoderError, match="'encoder.readout' gives means and log-variances"):
        coupled(lzr.Family(lzr.autoencoder.vae, base=16))


def test_mirrors_are_read_in_evaluation_mode_and_leave_every_mode_as_it_was():
    encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    net, x = Pair(encoder, nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5).eval(), nn.Linear(8, 6))), torch.randn(9, 6)
    found = [mirrors(net, x) for _ in range(2)]
    assert found[0] == found[1]
    STARTS["cascading"](net, x, 0)
    assert not encoder[1].running_mean.any()
    assert (net.training, encoder[2].training, net.decoder[1].training) == (True, True, False)


def test_the_probe_sees_halves_turn_towards_each_other_in_ensembles_too():
    """Linear halves under gradient descent with decay: W_dec and W_enc^T become one (Baldi & Hornik 1989; Kunin et al. 2019)."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=draw) @ torch.diag(torch.tensor([2.0, 1.5, 1.0, 0.3, 0.2, 0.1]))
    found = {}
    for engine in ("loop", "vmap"):
        nets = [Pair(nn.Linear(6, 3, bias=False), nn.Linear(3, 6, bias=False)) for _ in range(2)]
        for i, net in enumerate(nets):
            for j, p in enumerate(net.parameters()):
                p.data = 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * i + j))
        probes = [MirrorProbe(x, every=400) for _ in nets]
        members = [
            lzr.train.Member(net, torch.optim.SGD(net.parameters(), lr=0.05, weight_decay=0.05), lambda step: (x, x), [probe])
            for net, probe in zip(nets, probes, strict=True)
        ]
        lzr.train.train_all(members, nn.functional.mse_loss, 400, engine=engine)
        found[engine] = [[row["weight"] for row in probe.rows()] for probe in probes]
    for before, after in found["loop"]:
        assert abs(before) < 0.6
        assert after > 0.98
    assert [w for run in found["vmap"] for w in run] == pytest.approx([w for run in found["loop"] for w in run], rel=1e-3)


def normed(wrap):
    torch.manual_seed(0)
    return Pair(nn.Sequential(wrap(nn.Linear(8, 6)), nn.Tanh(), wrap(nn.Linear(6, 3))),
                nn.Sequential(wrap(nn.Linear(3, 6)), nn.Tanh(), wrap(nn.Linear(6, 8))))  # fmt: skip


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_starts_write_through_parametrizations(wrap):
    x = torch.randn(30, 8)
    for name in ("transposed", "cascading"):
        net = normed(wrap)
        start_for(name)(net, x, 0)
        net(x)
        assert [m.weight for m in mirrors(net, x)] == pytest.approx([1.0, 1.0], abs=1e-5)
    head = Vae(wrap(nn.Linear(8, 6)), wrap(nn.Linear(3, 8)))
    before = head.encoder.weight.detach().clone()
    start_for("cascading")(head, x, 0)
    assert mirrors(head, x)[0].weight == pytest.approx(1.0)
    if wrap is parametrizations.weight_norm:
        torch.testing.assert_close(head.encoder.weight[3:], before[3:])  # log-variances are no part of the start


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize(
    ("wrap", "why"),
    [
        (nn.utils.weight_norm, "torch's older norms"),
        (nn.utils.spectral_norm, "torch's older norms"),
        (lambda layer: register_parametrization(layer, "weight", Doubled()), "no right_inverse"),
        (parametrizations.orthogonal, "makes another weight of it"),
    ],
)
def test_weights_that_cannot_be_written_refuse_a_start_by_name(wrap, why):
    with pytest.raises(
        AutoencoderError, match=f"weight of 'encoder.0' .* takes no start: .*{why}.*take the parametrization off"
    ):
        start_for("cascading")(normed(wrap), torch.randn(30, 8), 0)


def test_the_angle_of_a_mirror_is_the_largest():
    net = Pair(nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False))
    with torch.no_grad():
        net.encoder.weight.copy_(torch.eye(4)[:2])
        net.decoder.weight.copy_(torch.eye(4)[[0, 2]].T)  # one direction in common, one at a right angle
    assert mirrors(net, torch.randn(8, 4))[0].angle == pytest.approx(math.pi / 2)
