"""Looking changes nothing, and sees every unit."""

import torch
from torch import nn

import lazyrich as lzr
from lazyrich.measure.updates import UpdateProbe
from lazyrich.measure.watch import capture, loose_tensors, state_of, units
from lazyrich.train import train


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.5)
        self.shift = nn.Parameter(torch.zeros(16))
        self.last = nn.Linear(16, 10)

    def forward(self, x):
        h = self.drop(torch.relu(self.norm(self.first(x)))) + self.shift
        return self.last(torch.tanh(self.first(h.repeat(1, 4)) + h))


def test_a_parametrized_layer_is_one_unit_that_is_watched_by_its_features():
    """The parametrization's own output is the weight, whose entries fall with the width however the layer behaves."""

    class Normed(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.enter, self.readout = nn.Linear(64, n), nn.Linear(n, 10)
            self.mix = nn.utils.parametrizations.weight_norm(nn.Linear(n, n))

        def forward(self, x):
            return self.readout(torch.tanh(self.mix(torch.tanh(self.enter(x)))))

    assert list(units(Normed(8))) == ["enter", "readout", "mix"]
    original = "mix.parametrizations.weight.original"
    family = lzr.Family(Normed, base=32, roles={f"{original}0": "vector", f"{original}1": "hidden"})
    found = lzr.check(lzr.plan(family, lzr.mup()), "digits", widths=(32, 64, 128), steps=3, seeds=2)
    slopes = {line.layer: line.slope.value for line in found.lines if line.quantity == "update" and line.step == 3}
    assert set(slopes) == {"enter", "mix", "readout"}
    assert max(map(abs, slopes.values())) < 0.25


def test_units_are_the_modules_that_hold_weights():
    model = lzr.zoo.transformer(16)
    found = units(model)
    assert "blocks.0.attention.query" in found
    assert "blocks.0" not in found
    assert loose_tensors(model) == ["position"]
    encoder = nn.TransformerEncoderLayer(16, 4)
    assert "self_attn" in units(encoder)
    assert "self_attn.out_proj" not in units(encoder)


def test_a_unit_that_is_called_twice_is_recorded_twice():
    model = Noisy()
    _, calls = capture(model, state_of(model), torch.randn(4, 64))
    assert list(calls) == ["first", "norm", "first#2", "last"]


def test_a_watched_training_is_bit_for_bit_the_unwatched_one():
    data = lzr.data.load("digits")

    def run(probes):
        torch.manual_seed(0)
        model = Noisy()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        done = train(model, sgd, lambda s: data.batch(32, s), nn.functional.cross_entropy, 4, probes=probes)
        return done.losses, model.state_dict(), model

    x, y = data.batch(16, 0)
    probe = UpdateProbe(x, y, nn.functional.cross_entropy, [1, 4])
    (plain, weights, _), (watched, same, model) = run([]), run([probe])
    assert plain == watched
    assert all(torch.equal(weights[k], same[k]) for k in weights)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert set(probe.records) == {1, 4}


def test_the_captured_output_is_the_networks_own():
    model, x = lzr.zoo.convnet(8), torch.randn(3, 64)
    output, calls = capture(model, state_of(model), x)
    assert torch.equal(output, model(x))
    assert torch.equal(calls["readout"].output, model(x))


def test_the_terms_that_the_probe_records_match_a_direct_decomposition():
    data, model = lzr.data.load("digits"), lzr.zoo.mlp(32)
    x, y = data.batch(16, 0)
    before = state_of(model)
    probe = UpdateProbe(x, y, nn.functional.cross_entropy, [2])
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    train(model, sgd, lambda s: data.batch(32, s), nn.functional.cross_entropy, 2, probes=[probe])
    after, record = state_of(model), probe.records[2]["hidden.1"]
    h0, h1 = (torch.tanh(x @ s["hidden.0.weight"].T + s["hidden.0.bias"]) for s in (before, after))
    parts = lzr.decompose(
        model.hidden[1],
        {"weight": before["hidden.1.weight"], "bias": before["hidden.1.bias"]},
        {"weight": after["hidden.1.weight"], "bias": after["hidden.1.bias"]},
        h0,
        h1,
    )
    for name in ("layer", "passthrough", "interaction"):
        exact = float(getattr(parts, name).square().mean().sqrt())
        assert abs(record[name] / exact - 1) < 1e-3, name


def test_uuc_is_the_mean_first_order_change_of_the_per_sample_loss():
    data, model = lzr.data.load("digits"), lzr.zoo.mlp(32)
    x, y = data.batch(16, 0)
    loss = nn.functional.cross_entropy
    start = loss(model(x), y, reduction="none").detach()
    probe = UpdateProbe(x, y, loss, [1])
    train(model, torch.optim.SGD(model.parameters(), lr=1e-3), lambda s: (x, y), loss, 1, probes=[probe])
    change = (loss(model(x), y, reduction="none").detach() - start).abs().mean()
    assert abs(probe.records[1]["readout"]["uuc"] / float(change) - 1) < 0.02
    assert all(-unit["uuc"] <= unit["signed uuc"] < 0 for unit in probe.records[1].values())  # gradient descent descends
