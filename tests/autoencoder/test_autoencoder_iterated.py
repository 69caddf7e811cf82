"""Iteration, memory, tied networks, geometry: against maps whose answers are known, and against trained networks."""

import math

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.autoencoder import (
    Pair,
    Trained,
    Vae,
    codes,
    collapse,
    fit,
    halves,
    importance_bound,
    iterate,
    jacobian,
    memory,
    noisy,
    spectral_radius,
    stretch,
    tied_draw,
    tied_signal,
    used,
)
from lazyrich.autoencoder.metric import radius
from lazyrich.errors import AutoencoderError
from lazyrich.inference import posterior


def turn(angle, shrink=1.0):
    c, s = math.cos(angle), math.sin(angle)
    return shrink * torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("angle", "shrink", "period"), [(0.7, 0.5, 1), (math.pi / 2, 1.0, 4), (math.pi, 1.0, 2), (0.7, 1.0, 0)]
)
def test_fixed_points_cycles_and_wandering_are_told_apart(angle, shrink, period):
    matrix = turn(angle, shrink)
    found = iterate(lambda x: x @ matrix.T, torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64))
    assert found.period.tolist() == [period, period]
    assert found.settled == float(period > 0)


def test_iterates_that_blow_up_have_no_period():
    found = iterate(lambda x: x**3, torch.tensor([[2.0], [0.5]], dtype=torch.float64), steps=20)
    assert found.period.tolist() == [0, 1]
    assert found.steps.tolist()[0] == 20
    assert found.steps.tolist()[1] < 6


def test_radii_are_those_of_the_jacobian():
    net = lzr.zoo.autoencoder(16).double()
    x = torch.randn(3, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slopes = jacobian(net, x)
    step = 1e-6 * torch.eye(64, dtype=torch.float64)[5]
    torch.testing.assert_close(slopes[:, :, 5], (net(x + step) - net(x - step)).detach() / 2e-6, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(spectral_radius(lambda x: x @ turn(0.3, 0.7).T, torch.zeros(2, 2, dtype=torch.float64)),
                               torch.full((2,), 0.7, dtype=torch.float64))  # fmt: skip


@pytest.mark.parametrize("activation", ["erf", "relu"])
def test_a_lazy_autoencoder_is_asked_for_its_memory_as_a_network_is(activation):
    """f(x) = Theta(x, X) Theta(X, X)^-1 X, which a network in the kernel regime ends at from outputs of zero."""
    k = lzr.kernel(lzr.zoo.MLP(64, 2, 5, 5, activation), init=lzr.init.variance(1.0, 0.1))
    x, z = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gram = k.ntk(x)

    def lazy(at):
        return posterior(gram, x, k.ntk(at, x)).mean

    step = 1e-5 * torch.eye(5, dtype=torch.float64)
    slopes = torch.stack([(lazy(z + d) - lazy(z - d)) / 2e-5 for d in step], 2)
    torch.testing.assert_close(jacobian(lazy, z), slopes, rtol=1e-6, atol=1e-8)
    found = memory(lazy, x, steps=30)
    assert float(found.error.max()) < 1e-8
    torch.testing.assert_close(found.radius, torch.linalg.eigvals(jacobian(lazy, x)).abs().amax(-1))


@pytest.mark.slow
def test_an_overparameterised_autoencoder_stores_its_images_as_attractors():
    data = lzr.data.load("digits").subset(10)
    x = data.x.double()[:6] / 4
    torch.manual_seed(0)
    net = lzr.zoo.MLP(256, 10, 64, 64, "relu").double()
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 1200, 1e-6)
    for _ in range(1200):
        adam.zero_grad()
        (net(x) - x).square().mean().backward()
        adam.step()
        schedule.step()
    found = memory(net, x)
    assert found.attractors == 1.0
    assert float(found.radius.max()) < 1
    assert float(found.returned.double().mean()) == 1.0
    assert "100% of the training points are attractors" in found.sentence
    fresh = memory(lzr.zoo.MLP(256, 10, 64, 64, "relu").double(), x)
    assert fresh.attractors == 0.0


@pytest.mark.parametrize("phi", [torch.tanh, torch.relu, torch.nn.functional.gelu])
@pytest.mark.parametrize(("depth", "ratio"), [(1, 1.0), (3, 1.0), (3, 0.8)])
def test_random_tied_autoencoders_return_signal_and_noise_as_predicted(phi, depth, ratio):
    x = torch.randn(3000, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x = x / x.square().mean().sqrt()
    theory = tied_signal(phi, depth, 1.5, 0.1, 0.05, ratio)
    draws = [tied_draw(phi, x, depth, 1.5, 0.1, 0.05, ratio, seed=s) for s in range(3)]
    for name in ("signal", "noise"):
        values = torch.tensor([getattr(d, name) for d in draws])
        slack = 4 * math.hypot(theory.signal, theory.noise) / math.sqrt(3 * 3000 * ratio**depth)  # Monte-Carlo error
        assert float(values.mean()) == pytest.approx(getattr(theory, name), rel=0.03, abs=slack)


def test_a_decoder_of_another_nonlinearity_is_drawn_as_it_is_predicted():
    x = torch.randn(3000, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    x = x / x.square().mean().sqrt()
    theory = tied_signal(torch.tanh, 2, 1.5, 0.1, 0.05, decoder=torch.relu)
    found = tied_draw(torch.tanh, x, 2, 1.5, 0.1, 0.05, decoder=torch.relu)
    assert found.signal == pytest.approx(theory.signal, rel=0.1)
    assert found.noise == pytest.approx(theory.noise, rel=0.05)
    assert abs(tied_signal(torch.tanh, 2, 1.5, 0.1, 0.05).signal - theory.signal) > 0.2 * theory.signal


@pytest.mark.parametrize("phi", [torch.tanh, torch.relu, torch.sigmoid])
@pytest.mark.parametrize("depth", [1, 3])
def test_an_input_of_zero_is_the_limit_of_small_ones(phi, depth):
    zero, small = (tied_signal(phi, depth, 1.5, mean_square=size) for size in (0.0, 1e-8))
    assert zero.signal == pytest.approx(small.signal, rel=1e-5)
    assert zero.noise == pytest.approx(small.noise, rel=1e-3, abs=1e-3)
    if phi is torch.relu:  # knows no scale
        assert zero.signal == pytest.approx(tied_signal(phi, depth, 1.5).signal, rel=1e-6)


@pytest.mark.parametrize("beta", [1.5, 2.5, 4.0, 4.5])
def test_signal_and_noise_of_deep_tied_rectifiers_cross_over_at_four_and_two(beta):
    """Deep down a layer multiplies the signal by beta / 4 and the noise by beta / 2 (once on the way in and once back)."""
    found = {depth: tied_signal(torch.relu, depth, beta) for depth in (20, 100, 200)}
    for a, b in ((20, 100), (100, 200)):
        slope = math.log(found[b].signal / found[a].signal) / (b - a)
        assert slope == pytest.approx(math.log(beta / 4), abs=1e-5)
        slope = math.log(found[b].noise / found[a].noise) / (b - a)
        assert slope == pytest.approx(math.log(beta / 2), abs=1e-5)


def test_tied_rectifiers_are_integrated_as_the_recursion_says():
    """Against the trapezoidal rule on a fine grid, two layers; the kink of the decoder is no node of either."""
    z = torch.linspace(-9, 9, 6001, dtype=torch.float64)
    w = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    for weight in (0.5, 4.0, 100.0):
        root, beta, power = (
            math.sqrt(weight),
            weight,
            weight**2 / 4,
        )  # at the code: variance weight^2 / 2, of which half is left
        back = torch.relu(beta * 0.5 * torch.relu(root * z)[:, None] + math.sqrt(beta * power) * z)
        gain, rho = float((w * z) @ back @ w) / root, float(w @ back**2 @ w)
        found = tied_signal(torch.relu, 2, weight)
        assert found.signal == pytest.approx(beta * gain, rel=1e-6)
        assert found.noise == pytest.approx(math.sqrt(beta * rho), rel=1e-6)


def test_deep_tied_autoencoders_keep_their_input_longest_near_unit_weights():
    """Trainable deep tied tanh networks start with weights of variance about 1 / n (Li & Nguyen 2019)."""
    kept = {weight: tied_signal(torch.tanh, 60, weight).signal for weight in (0.7, 1.2, 3.0)}
    assert kept[1.2] > 10 * kept[0.7]
    assert kept[1.2] > 10 * kept[3.0]
    for words, says in (
        ({"depth": 0}, "depth = 0, expected"),
        ({"out_bias": -1.0}, "got out_bias = -1.0, expected"),
        ({"mean_square": -2.0, "weight": 0.0}, "got weight = 0.0, mean_square = -2.0, expected"),
    ):
        with pytest.raises(AutoencoderError, match=says):
            tied_signal(torch.tanh, **{"depth": 1, "weight": 1.0, **words})
    for x in (torch.zeros(5), torch.ones(2, 5)):
        with pytest.raises(AutoencoderError, match="expected one, \\(n_0,\\), that is not zero"):
            tied_draw(torch.tanh, x, 1, 1.0)


def test_pairs_of_any_halves_fit_or_say_why():
    x = torch.zeros(4, 6)
    assert fit(Pair(nn.Linear(6, 2), nn.Linear(2, 6)), x) == (2, 6)
    cases = [
        (Pair(nn.Linear(6, 2), nn.Linear(3, 6)), "the decoder does not take what the encoder gives, of shape \\(2, 2\\)"),
        (Pair(nn.Linear(5, 2), nn.Linear(2, 6)), "the encoder does not take the data, of shape \\(2, 6\\)"),
        (Pair(nn.Linear(6, 2), nn.Linear(2, 5)), "returns 5 numbers a sample where the data has 6"),
        (Pair(nn.Linear(6, 8), nn.Linear(8, 6)), "the code has 8 numbers a sample, more than the data's 6"),
        (Pair(nn.Linear(6, 4), nn.Linear(2, 6)), "a variational autoencoder is given as lazyrich.autoencoder.Vae"),
        (Tied(), "a Tied whose decoder is a method, expected a module; for tied weights .*tied_autoencoder"),
        (Both(), "the model returns a tuple, expected the reconstruction alone, a tensor; a variational"),
        (nn.Sequential(nn.Linear(6, 6)), "expected the modules 'encoder' and 'decoder'"),
    ]
    for model, says in cases:
        with pytest.raises(AutoencoderError, match=says):
            fit(model, x)
    assert fit(Pair(nn.Linear(6, 8), nn.Linear(8, 6)), x, wide=True) == (8, 6)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 2)

    def decoder(self, z):
        return nn.functional.linear(z, self.encoder.weight.T)

    def forward(self, x):
        return self.decoder(self.encoder(x))


class Both(Pair):
    """Returns the code beside the reconstruction."""

    def __init__(self):
        super().__init__(nn.Linear(6, 2), nn.Linear(2, 6))

    def forward(self, x):
        z = self.encoder(x)
        return self.decoder(z), z


@pytest.mark.parametrize("call", [iterate, jacobian, spectral_radius, memory])
def test_maps_that_return_no_tensor_say_what_to_give(call):
    for model, name in ((lzr.autoencoder.vae(8, 6, 2), "Variational"), (Both(), "tuple")):
        with pytest.raises(AutoencoderError, match=f"returns a {name}, expected a tensor .*autoencoder.plain\\(model\\)"):
            call(model, torch.zeros(4, 6))
    assert call(lzr.autoencoder.plain(lzr.autoencoder.vae(8, 6, 2)), torch.ones(4, 6)) is not None


PAIR = Pair(nn.Linear(6, 2), nn.Linear(2, 6))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: codes(nn.Linear(6, 2), torch.zeros(4, 5)),
            r"the encoder reads 6 numbers a sample, got inputs of shape \(4, 5\)",
        ),
        (lambda: codes("3", torch.zeros(4, 5)), "got '3' of type str for encoder"),
        (lambda: jacobian(PAIR, torch.zeros(4, 5)), "the map reads 6 numbers a sample"),
        (lambda: spectral_radius(PAIR, torch.zeros(4, 5)), "the map reads 6 numbers a sample"),
        (lambda: memory(PAIR, torch.zeros(4, 5)), "the map reads 6 numbers a sample"),
        (lambda: iterate(PAIR, torch.zeros(4, 5)), "the map reads 6 numbers a sample"),
        (lambda: jacobian(PAIR, torch.zeros(0, 6)), r"got x of shape \(0, 6\)"),
        (lambda: spectral_radius(PAIR, torch.zeros(0, 6)), r"got x of shape \(0, 6\)"),
        (lambda: memory(PAIR, torch.zeros(0, 6)), r"got x of shape \(0, 6\)"),
        (lambda: memory(PAIR, torch.ones(2, 6), disturbance="1"), "disturbance = '1'"),
        (lambda: iterate(PAIR, torch.zeros(4, 6), longest=0), "longest = 0, expected a whole number of at least 1"),
        (lambda: iterate(PAIR, torch.zeros(4, 6), steps="20"), "steps = '20'"),
        (lambda: used(torch.tensor([[math.nan, 1.0], [0.0, 1.0]])), "z with 1 values that are not finite"),
        (lambda: noisy(lambda step: None, gaussian=math.nan), "gaussian = nan"),
        (lambda: noisy(lambda step: None, masked="1"), "masked = '1'"),
        (lambda: noisy("3"), "got batches '3'"),
        (lambda: used([1.0]), "got codes of type list"),
        (lambda: used(torch.eye(2), floor=math.nan), "floor = nan"),
        (
            lambda: stretch(nn.Linear(2, 6), torch.zeros(4, 3)),
            r"the decoder reads 2 numbers a sample, got inputs of shape \(4, 3\)",
        ),
        (lambda: stretch(nn.Linear(2, 6), torch.zeros(0, 2)), r"got z of shape \(0, 2\)"),
        (lambda: fit(PAIR, torch.zeros(0, 6)), r"got x of shape \(0, 6\)"),
        (lambda: fit(PAIR, "3"), "got x of type str"),
        (lambda: iterate(PAIR, torch.zeros(4, 6).long()), "got x of torch.int64"),
        (lambda: halves("3"), "got '3' of type str for model"),
        (lambda: halves(nn.Linear), "got the class Linear for model"),
        (lambda: tied_signal("relu", 1, 2.0), "got phi 'relu'"),
        (lambda: tied_signal(torch.relu, "1", 2.0), "depth = '1'"),
        (lambda: tied_signal(torch.relu, 1, None), "weight = None"),
        (lambda: tied_signal(torch.relu, 1, 2.0, ratio=math.inf), "ratio = inf"),
        (lambda: tied_draw(torch.relu, [1.0, 2.0], 1, 2.0), "got an input of list"),
        (lambda: tied_draw(torch.relu, torch.ones(4), 1, 2.0, bias="0"), "bias = '0'"),
        (lambda: tied_draw(torch.relu, torch.tensor([math.nan, 1.0]), 1, 2.0), "1 values that are not finite"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_in_words(call, says):
    with pytest.raises(AutoencoderError, match=says):
        call()


class Twice(nn.Sequential):
    def forward(self, x):
        h = super().forward(x)
        return h, -h


def test_codes_and_stretches():
    net = lzr.zoo.autoencoder(16)
    z = codes(net.encoder, torch.randn(30, 64))
    assert z.shape == (30, 8)
    assert not z.requires_grad
    found = stretch(net.decoder, z)
    referee = torch.stack(
        [torch.linalg.svdvals(torch.autograd.functional.jacobian(lambda c: net.decoder(c[None])[0], row)) for row in z]
    )
    torch.testing.assert_close(found.largest, referee[:, 0])
    torch.testing.assert_close(found.smallest, referee[:, -1])
    torch.testing.assert_close(found.volume, referee.log().mean(1))
    both = Twice(net.encoder)  # as one that returns means and log-variances
    torch.testing.assert_close(codes(both, torch.ones(2, 64)), net.encoder(torch.ones(2, 64)).detach())
    assert used(torch.cat([z, 0 * z], 1)) == used(z)
    assert used(torch.zeros(3, 2)) == 0
    assert used(torch.diag(torch.tensor([1.0, 0.1, 0.02]))) == 2  # by variances: a thousandth of the largest is the floor
    for bad in (z[0], torch.zeros(0, 3)):
        with pytest.raises(AutoencoderError, match="expected \\(samples, k\\) with at least one"):
            used(bad)
    with pytest.raises(AutoencoderError, match="expected \\(samples, k\\)"):
        stretch(net.decoder, z[0])


def test_a_code_wider_than_the_outputs_has_directions_that_are_lost():
    decoder, z = nn.Linear(6, 3), torch.zeros(2, 6)
    found = stretch(decoder, z)
    assert found.smallest.tolist() == [0.0, 0.0]
    assert found.condition == math.inf
    assert found.volume.tolist() == [-math.inf, -math.inf]
    torch.testing.assert_close(found.largest, torch.linalg.svdvals(decoder.weight.detach())[:1].expand(2))
    assert stretch(lambda code: 0 * code, z).condition == math.inf


def shaky(inputs, outputs):
    """A network that is another map of every call while it trains, and moves its statistics."""
    body = nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh()
    return nn.Sequential(*body, nn.Linear(8, outputs), nn.Dropout(0.5).eval())


BACK = nn.Linear(3, 6)
MEASURES = {
    "iterate": lambda net, x: iterate(net, x, steps=9).last,
    "jacobian": jacobian,
    "spectral_radius": spectral_radius,
    "memory": lambda net, x: memory(net, x, steps=9).error,
    "stretch": lambda net, x: stretch(net, x).largest,
    "codes": codes,
    "collapse": lambda net, x: collapse(Vae(net, BACK), x).rates,
    "importance_bound": lambda net, x: importance_bound(Vae(net, BACK), x, 5),
}


def test_a_point_of_zero_is_measured_by_the_size_of_the_others():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    kept, pushed = memory(lambda x: x, x, steps=9), memory(lambda x: x + torch.tensor([0.3, 0.4]), x, steps=9)
    assert kept.error.tolist() == [0.0, 0.0]
    assert not kept.returned[0]  # it was disturbed as well, and the identity brings nothing back
    assert pushed.error.tolist() == pytest.approx([0.1, 0.1])
    assert "largest reconstruction error 10%" in pushed.sentence
    assert memory(lambda x: x, torch.zeros(2, 2), steps=9).error.tolist() == [0.0, 0.0]


def test_distances_are_relative_to_where_a_sample_began():
    assert iterate(lambda x: x / 2, torch.tensor([[3.0, 4.0]]), steps=9).distance[:2, 0].tolist() == [0.5, 0.25]


def test_the_condition_of_a_decoder_is_a_geometric_mean():
    assert stretch(lambda z: z**2 / 2, torch.tensor([[1.0, 1.0], [16.0, 1.0]])).condition == pytest.approx(4.0)


class Clip(nn.Module):
    """A rectifier by an index that depends on the numbers, which torch's transforms cannot stack."""

    def forward(self, h):
        h = h.clone()
        h[h < 0] = 0
        return h


def test_networks_that_cannot_be_stacked_have_the_numbers_of_those_that_can():
    torch.manual_seed(0)
    plain = Pair(
        nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)), nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 6))
    )
    odd = Pair(
        nn.Sequential(plain.encoder[0], Clip(), plain.encoder[2]), nn.Sequential(plain.decoder[0], Clip(), plain.decoder[2])
    )
    x = torch.randn(30, 6)
    torch.testing.assert_close(stretch(odd.decoder, x[:, :3]).largest, stretch(plain.decoder, x[:, :3]).largest)
    torch.testing.assert_close(jacobian(odd, x), jacobian(plain, x))
    radii = [radius(Trained(net, net, net, (), x, None, x)) for net in (odd, plain)]
    assert radii[0] == pytest.approx(radii[1])
    assert radii[0] == pytest.approx(float(spectral_radius(plain, x[:24]).median()), rel=1e-4)


@pytest.mark.parametrize("name", MEASURES)
def test_networks_are_measured_in_evaluation_mode_and_keep_their_modes(name):
    torch.manual_seed(0)
    net, x = shaky(6, 6), torch.randn(4, 6)
    found = MEASURES[name](net, x)
    assert [m.training for m in net] == [True, True, True, True, True, False]
    assert not net[1].running_mean.any()
    torch.testing.assert_close(found, MEASURES[name](net.eval(), x))
    assert not net.training


def test_noise_disturbs_inputs_alone_and_the_same_way_twice():
    batches = noisy(lambda step: (torch.ones(50, 40), torch.ones(50, 40)), gaussian=0.5, masked=0.25)
    (x, y), (again, _), (other, _) = batches(3), batches(3), batches(4)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert bool((y == 1).all())
    assert float((x == 0).double().mean()) == pytest.approx(0.25, abs=0.04)
    assert float(x[x != 0].std()) == pytest.approx(0.5, rel=0.1)
    with pytest.raises(AutoencoderError, match="masked = 1.0"):
        noisy(batches, masked=1.0)
