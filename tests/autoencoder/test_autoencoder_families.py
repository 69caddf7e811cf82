"""Families of autoencoders: roles, mirrors, ties and obligations; denoising and variational studies; widths that do not matter."""

import math

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.autoencoder import Pair, Vae, collapse, coupled, halves, importance_bound, mirrors, plain, study
from lazyrich.autoencoder.mirror import cosine
from lazyrich.errors import AutoencoderError, LazyrichError

FAMILIES = {"dense": lzr.zoo.autoencoder, "conv": lzr.zoo.conv_autoencoder, "tied": lzr.zoo.tied_autoencoder,
            "vae": lzr.autoencoder.vae}  # fmt: skip
FEW = {"schemes": ["mup"], "widths": [8, 16], "seeds": 2, "steps": 12, "samples": 200, "test": 90, "lrs": [0.01]}


@pytest.mark.parametrize("name", FAMILIES)
def test_updates_keep_their_size_under_mup_at_every_width(name):
    family = lzr.Family(FAMILIES[name], base=32)
    plan = lzr.plan(family, lzr.mup(), "adam")
    x, moved, widths = lzr.data.load("digits").x[:64], {}, (128, 512) if name == "conv" else (256, 1024)
    for width in widths:
        sizes = []
        for seed in range(4):
            net = plan.build(width, seed, meet=True)
            read = plain(net)
            before = read(x).detach()
            adam = plan.optimizer(net, lr=1e-3)
            for _ in range(3):
                adam.zero_grad()
                (read(x) - x).square().mean().backward()
                adam.step()
            sizes.append(float((read(x) - before).detach().square().mean().sqrt()))
        moved[width] = sum(sizes) / len(sizes)
    slope = math.log(moved[widths[1]] / moved[widths[0]]) / math.log(4)
    assert abs(slope) < 0.13, moved


def test_tied_halves_are_one_tensor_that_owes_a_multiplier():
    family = lzr.Family(lzr.zoo.tied_autoencoder, base=16)
    plan = lzr.plan(family, lzr.mup(), "adam")
    assert [o.where for o in plan.obligations] == ["decoder.3", "encoder.3"]
    net = plan.build(64, 0, meet=True)
    found = mirrors(net, torch.randn(20, 64))
    assert [m.weight for m in found] == [pytest.approx(1.0)] * 2
    assert len(list(net.parameters())) == 6
    x = torch.randn(3, 64)
    w, v = net.encoder[1].weight[:, :, 0], net.encoder[3].weight[:, :, 0]
    h = torch.tanh(x @ w.T + net.encoder[1].bias)
    z = 16 / 64 * h @ v.T + net.encoder[3].bias
    back = 16 / 64 * torch.tanh(z @ v + net.decoder[1].bias) @ w + net.decoder[3].bias
    torch.testing.assert_close(net(x), back)


def test_convolutional_halves_mirror_each_other_and_couple():
    family = lzr.Family(lzr.zoo.conv_autoencoder, base=8)
    net = lzr.plan(family, lzr.mup(), init=coupled(family, 0.5)).build(16)
    assert [m.weight for m in mirrors(net, torch.randn(20, 64))] == [pytest.approx(0.5, abs=1e-4)] * 3
    assert halves(net)[1](torch.zeros(2, 8)).shape == (2, 64)
    with pytest.raises(LazyrichError, match="multiple of 4"):
        lzr.Family(lambda n: lzr.zoo.conv_autoencoder(n, inputs=100), base=8).build(8)


def test_a_weight_of_zero_has_no_angle_and_says_none():
    family = lzr.Family(lzr.zoo.autoencoder, base=16)
    net = lzr.plan(family, lzr.mup(), init={"decoder.readout.weight": lzr.init.zero()}).build(16)
    outer, inner = mirrors(net, torch.randn(20, 64))
    assert outer.weight is None
    assert outer.angle is None
    assert inner.weight is not None
    assert cosine(torch.zeros(2, 2), torch.eye(2)) is None


@pytest.mark.parametrize("name", ["conv", "tied"])
def test_studies_train_every_family(name):
    found = study(FAMILIES[name], "digits", ["default", "orthogonal"], **FEW)
    assert len(found.cells) == 4
    for cell in found.cells:
        for seed in cell["seeds"]:
            assert 0 < seed["unexplained"] < 1.5
            assert seed["mirror after"] is not None
            assert seed["evidence bound"] is None
    assert "evidence bound" not in str(found)


def test_a_variational_study_trains_the_bound_and_reads_the_means():
    found = study(lzr.autoencoder.vae, "digits", ["default"], **{**FEW, "steps": 100})
    cell = found.cells[-1]
    assert cell["engine"] == "loop"
    assert cell["curve"][-1][1] < cell["curve"][0][1]
    for seed in cell["seeds"]:
        assert 0 <= seed["active latents"] <= 8
        assert seed["mirror after"] is not None
        assert seed["code rate"] >= 0
        assert seed["evidence bound"] is not None
    assert "evidence bound" in str(found)
    more = study(lzr.autoencoder.vae, "digits", ["default"], beta=20.0, **{**FEW, "steps": 100})
    rate = [sum(s["code rate"] for c in f.cells for s in c["seeds"]) for f in (found, more)]
    assert rate[1] < 0.5 * rate[0]
    assert more.settings["beta"] == 20.0
    assert "beta" not in found.settings


def bernoulli(width, inputs=64, code=4):
    return Vae(lzr.zoo.MLP(width, 1, inputs, 2 * code), lzr.zoo.MLP(width, 1, code, inputs), likelihood="bernoulli")


def test_a_bernoulli_likelihood_refuses_values_outside_zero_and_one():
    net, x = bernoulli(8), torch.linspace(0, 1, 128).reshape(2, 64)
    loss = lzr.autoencoder.objective()
    assert float(loss(net(x), x).detach()) > 0
    assert bool((importance_bound(net, x, 3) < 0).all())
    for bad in (x - 0.5, 2 * x, x * torch.nan):
        for call in (lambda bad=bad: loss(net(x), bad), lambda bad=bad: importance_bound(net, bad, 3)):
            with pytest.raises(
                AutoencoderError, match=r"for a bernoulli likelihood, expected them in \[0, 1\]; rescale them|not finite"
            ):
                call()
    wide = lzr.data.ArrayData(3 * torch.rand(60, 64), torch.zeros(60, dtype=torch.long), "wide")
    with pytest.raises(AutoencoderError, match="training inputs of 'wide' from .* to 2.9.* for a bernoulli"):
        study(bernoulli, wide, ["default"], **FEW)
    tame = lzr.data.ArrayData(wide.x / 3, wide.y, "tame")
    found = study(bernoulli, tame, ["default"], **{**FEW, "steps": 3, "widths": [8], "seeds": 1})
    assert found.cells[0]["seeds"][0]["evidence bound"] < 0


class Own(nn.Module):
    """A variational autoencoder as people write it."""

    def __init__(self, width, inputs=64, code=4):
        super().__init__()
        self.encoder, self.decoder = lzr.zoo.MLP(width, 1, inputs, width), lzr.zoo.MLP(width, 1, code, inputs)
        self.mean, self.log_variance = nn.Linear(width, code), nn.Linear(width, code)

    def forward(self, x):
        mean, log_variance = (part(self.encoder(x)) for part in (self.mean, self.log_variance))
        return self.decoder(mean + torch.randn_like(mean) * (log_variance / 2).exp()), mean, log_variance


@pytest.mark.parametrize(
    "call",
    [
        collapse,
        importance_bound,
        lambda net, x: lzr.autoencoder.objective()(net(x), x),
        lambda net, x: study(Own, "digits", ["default"], **FEW),
    ],
)
def test_variational_networks_of_other_kinds_are_told_how_to_be_wrapped(call):
    with pytest.raises(AutoencoderError, match=r"lazyrich.autoencoder.Vae.*means and log-variances side by side"):
        call(Own(8), torch.zeros(3, 64))


def wide(width):
    return Pair(lzr.zoo.MLP(width, 1, 64, 70), lzr.zoo.MLP(width, 1, 70, 64))


@pytest.mark.parametrize(
    ("factory", "words"), [(wide, {"noise": 0.5}), (wide, {"masked": 0.3}), (lambda n: lzr.autoencoder.vae(n, code=70), {})]
)
def test_codes_wider_than_the_data_are_for_tasks_that_the_identity_does_not_solve(factory, words):
    few = {**FEW, "steps": 5, "widths": [8], "seeds": 1}
    found = study(factory, "digits", ["default", "cascading", "inverse"], **few, **words)
    assert len(found.cells) == 3
    assert all(cell["seeds"][0]["stretch"] is None for cell in found.cells)
    assert "Best: start" in str(found)
    with pytest.raises(AutoencoderError, match=r"70 numbers a sample, more than the data's 64.*denoising \(noise or masked\)"):
        study(wide, "digits", ["default"], **few)


def test_means_of_a_variational_network_share_its_tensors():
    net = lzr.autoencoder.vae(16)
    read = plain(net)
    assert isinstance(net, Vae)
    assert read.encoder.encoder is net.encoder
    x = torch.randn(5, 64)
    torch.testing.assert_close(read(x), net.eval()(x).reconstruction)
    assert plain(nn.Linear(2, 2)).in_features == 2
    assert collapse(net, x).active >= 0
    assert importance_bound(net, x, 3).shape == (5,)


def test_denoising_shows_disturbed_inputs_and_asks_for_the_clean_ones():
    seen = {}
    for noise in (0.0, 1.0):
        found = study(lzr.zoo.autoencoder, "digits", ["default"], noise=noise, **FEW)
        seen[noise] = found.cells[0]["curve"][-1][1]
        assert ("noise" in found.settings) == (noise > 0)
    assert seen[1.0] > seen[0.0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"noise": -1.0}, "got noise = -1"), ({"warm_up": 5}, "which has no objective"),
     ({"masked": 1.0}, "masked = 1"), ({"beta": -1.0}, "beta = -1"),
     ({"factory": lambda n: Pair(nn.Linear(64, 4), lzr.zoo.MLP(n, 2, 4, 64)), "starts": ["default", "transposed"]},
      "start 'transposed' does not suit this network: .*no mirror images.*leave this start out")],
)  # fmt: skip
def test_tasks_and_starts_that_do_not_fit_are_refused_before_training(changes, says):
    words = {"factory": lzr.zoo.autoencoder, "starts": ["default"], **FEW, **changes}
    with pytest.raises(AutoencoderError, match=says):
        study(words.pop("factory"), "digits", **words)


def test_a_bernoulli_network_is_looked_at_by_its_probabilities():
    net, x = bernoulli(8), torch.rand(20, 64)
    read = plain(net)
    torch.testing.assert_close(read(x), net.eval()(x).reconstruction.sigmoid())
    assert halves(read)[1](torch.zeros(2, 4)).min() > 0  # the decoder by itself too: its stretches and radii are those of means
    assert [m.decoder for m in mirrors(net, x)] == ["decoder.readout", "decoder.hidden.0"]
    found = study(
        bernoulli, (x.repeat(4, 1), torch.zeros(80).long()), ["default"], **{**FEW, "steps": 3, "widths": [8], "seeds": 1}
    )
    assert all(0 <= v <= 1 for row in found.cells[0]["outputs"] for v in row)
    assert None not in [found.cells[0]["seeds"][0][name] for name in ("decoder early", "mirror shared", "stretch", "radius")]
