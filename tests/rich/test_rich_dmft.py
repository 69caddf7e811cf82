"""The rich limit against wide networks that are trained alike, against the lazy limit, and against an exact linear case."""

from __future__ import annotations

import pytest
import torch

from lazyrich.errors import LazyrichError, RichError
from lazyrich.gaussian import dual
from lazyrich.rich import Layer, Network, solve
from lazyrich.rich.curve import NAMED, curve_of
from lazyrich.rich.objective import LOSSES, Objective

STEPS = 12


def data(samples=3, inputs=5, outputs=1):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, inputs, dtype=torch.float64, generator=generator)
    return x, torch.randn(samples, outputs, dtype=torch.float64, generator=generator).sign()


class Wide:
    """The finite network that the limit is of, by autograd."""

    def __init__(self, network: Network, width: int, seed: int, phi) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        sizes = [network.inputs, *[width] * network.depth, network.outputs]
        self.network, self.width, self.phi = network, width, phi
        self.weights = [draw(b, a).requires_grad_() for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        self.biases = [(draw(b) if b == width else torch.zeros(b).double()).requires_grad_() for b in sizes[1:]]

    def __call__(self, x):
        """Outputs (P, C) and feature kernels of the hidden layers."""
        kernels, h = [], x
        for i, (layer, w, b) in enumerate(zip(self.network.layers, self.weights, self.biases, strict=True)):
            last = i == self.network.depth
            scale = layer.weight**0.5 / (self.network.gamma0 * self.width if last else h.shape[1] ** 0.5)
            h = scale * h @ w.T + layer.bias**0.5 * b
            if not last:
                h = self.phi(h)
                kernels.append((h @ h.T / self.width).detach())
        return h, kernels

    def train(self, x, y, steps, lr, loss="squared", momentum=0.0, batches=None):
        """Outputs at every step (T + 1, P, C), and the last feature kernels."""
        tensors, outputs = [*self.weights, *self.biases], []
        speed = [torch.zeros_like(p) for p in tensors]
        for t in range(steps + 1):
            f, kernels = self(x)
            outputs.append(f.detach())
            part = slice(None) if batches is None or t == steps else batches[t]
            gradients = torch.autograd.grad(LOSSES[loss](f[part], y[part]), tensors, allow_unused=True)
            with torch.no_grad():
                for p, v, g in zip(tensors, speed, gradients, strict=True):
                    # the output bias is not divided by gamma_0 n, so it is not multiplied by its inverse
                    rate = lr if p is self.biases[-1] else lr * self.network.gamma0**2 * self.width
                    v.mul_(momentum).add_(torch.zeros_like(p) if g is None else g)
                    p -= rate * v
        return torch.stack(outputs), kernels


def wide(network, x, y, phi, width=1000, seeds=4, **how):
    runs = [Wide(network, width, seed, phi).train(x, y, STEPS, **how) for seed in range(seeds)]
    kernels = [torch.stack([run[1][i] for run in runs]).mean(0) for i in range(network.depth)]
    return torch.stack([run[0] for run in runs]).mean(0), kernels


def off(a, b):
    return float((a - b).norm() / b.norm())


def test_two_hidden_layers_train_as_wide_networks_do_and_need_their_responses():
    network, (x, y) = Network.uniform(5, depth=2, gamma0=1.5), data()
    f, kernels = wide(network, x, y, torch.tanh, width=1500, lr=0.6)
    limit = solve(network, x, y, STEPS, lr=0.6)
    found = [off(limit.outputs, f), *(off(limit.features(i + 1), kernels[i]) for i in range(2))]
    assert found[0] < 0.015 and max(found[1:]) < 0.04
    assert min(limit.movement(1), limit.movement(2)) > 0.5  # far from lazy, so that agreement says something
    wrong = solve(network, x, y, STEPS, lr=0.6, responses=False)
    assert off(wrong.outputs, f) > 0.03 and off(wrong.features(1), kernels[0]) > 0.05


CASES = {
    "logistic": (Network.uniform(5, 2, gamma0=1.0), torch.tanh, {"lr": 1.0, "loss": "logistic"}),
    "momentum": (Network.uniform(5, 1, gamma0=1.0), torch.tanh, {"lr": 0.15, "momentum": 0.8}),
    "biases": (Network.uniform(5, 2, gamma0=1.0, bias=0.5), torch.tanh, {"lr": 0.3}),
    "variance": (Network.uniform(5, 2, gamma0=1.0, weight=1.7), torch.sin, {"lr": 0.2}),
    "outputs": (Network.uniform(5, 2, gamma0=1.0, outputs=3), torch.tanh, {"lr": 0.4}),
    "rectifier": (Network.uniform(5, 2, gamma0=1.0, weight=2.0), torch.relu, {"lr": 0.2}),
    "three layers": (Network.uniform(5, 3, gamma0=1.0), torch.tanh, {"lr": 0.4}),
}


@pytest.mark.parametrize("name", CASES)
def test_every_option_trains_as_wide_networks_do(name):
    network, phi, how = CASES[name]
    network = Network(network.inputs, network.layers, phi, network.outputs, network.gamma0)
    x, y = data(outputs=network.outputs)
    f, kernels = wide(network, x, y, phi, **how)
    limit = solve(network, x, y, STEPS, **how)
    assert off(limit.outputs[1:], f[1:]) < 0.05
    assert off(limit.features(network.depth), kernels[-1]) < 0.06
    assert limit.movement(network.depth) > 0.15


def test_batches_are_those_of_the_network():
    network, (x, y) = Network.uniform(5, 1), data(samples=4)
    batches = [torch.tensor([t % 4, (t + 1) % 4]) for t in range(STEPS)]
    f, _ = wide(network, x, y, torch.tanh, lr=0.3, batches=batches)
    assert off(solve(network, x, y, STEPS, lr=0.3, batches=batches).outputs[1:], f[1:]) < 0.04
    assert off(solve(network, x, y, STEPS, lr=0.3).outputs[1:], f[1:]) > 0.06


def test_the_lazy_end_is_gradient_descent_with_the_tangent_kernel():
    x, y = data()
    erf, base = dual("erf"), x @ x.T / 5
    features, tangent = base, base
    for _ in range(2):
        q = features.diagonal()
        features, slope = erf.both(features, q[:, None], q[None])
        tangent = features + slope * tangent
    f = [torch.zeros_like(y)]
    for _ in range(STEPS):
        f.append(f[-1] - 0.6 / 3 * tangent @ (f[-1] - y))
    lazy = solve(Network.uniform(5, 2, activation="erf", gamma0=0.01), x, y, STEPS, lr=0.6, samples=8000)
    assert off(lazy.tangent(0), tangent) < 0.02
    assert off(lazy.outputs, torch.stack(f)) < 0.025
    rich = solve(Network.uniform(5, 2, activation="erf", gamma0=1.5), x, y, STEPS, lr=0.6)
    assert off(rich.outputs, torch.stack(f)) > 0.1


def test_one_hidden_linear_layer_is_a_linear_network_of_few_numbers():
    """Weights stay in the span of their start: W_t = W_0 A + w_0 b, w_t = W_0 c + w_0 e, exactly in the limit."""
    x, y = data(samples=4)
    gamma, lr = 1.3, 0.3
    inner, outer = torch.eye(6, 5).double(), torch.eye(6).double()[5]
    f = []
    for _ in range(STEPS + 1):
        f.append(x @ (inner.T @ outer) / (gamma * 5**0.5))
        pull = lr * gamma * (y[:, 0] - f[-1]) @ x / (4 * 5**0.5)
        inner, outer = inner + torch.outer(outer, pull), outer + inner @ pull
    limit = solve(Network.uniform(5, 1, activation="linear", gamma0=gamma), x, y, STEPS, lr=lr, samples=400)
    assert off(limit.outputs[:, :, 0], torch.stack(f)) < 1e-9


def test_deep_linear_networks_need_few_samples():
    network, (x, y) = Network.uniform(5, 3, activation="linear"), data()
    few, many = (solve(network, x, y, STEPS, lr=0.1, samples=n, seed=n) for n in (800, 3000))
    assert off(few.outputs, many.outputs) < 1e-9
    f, _ = wide(network, x, y, lambda h: h, lr=0.1)
    assert off(few.outputs[1:], f[1:]) < 0.06


def test_the_stated_error_is_the_error():
    network, (x, y) = Network.uniform(5, 2), data()
    exact = solve(network, x, y, 6, lr=0.3, samples=40000).outputs
    found = [solve(network, x, y, 6, lr=0.3, samples=1200, seed=s, replicates=6) for s in range(6)]
    real = torch.stack([run.outputs - exact for run in found])[:, 1:].square().mean().sqrt()
    stated = torch.stack([run.outputs_error for run in found])[:, 1:].square().mean().sqrt()
    assert 0.5 < real / stated < 2


def test_test_inputs_are_watched_and_change_nothing():
    network, (x, y) = Network.uniform(5, 1, activation="linear"), data(samples=4)
    alone = solve(network, x[:3], y[:3], STEPS, samples=400)
    watched = solve(network, x[:3], y[:3], STEPS, samples=400, x_test=x[[3, 0]])
    assert torch.allclose(alone.outputs, watched.outputs, atol=1e-9)
    assert torch.allclose(watched.test_outputs[:, 1], watched.outputs[:, 0], atol=1e-9)
    assert watched.features(1).shape == (5, 5) and watched.preactivations[0].shape == (2, 5, 400)


def test_the_same_call_gives_the_same_numbers_and_a_table():
    network, (x, y) = Network.uniform(5, 1), data()
    one, two = (solve(network, x, y, 4, samples=400) for _ in range(2))
    assert torch.equal(one.outputs, two.outputs) and not torch.equal(
        one.outputs, solve(network, x, y, 4, samples=400, seed=1).outputs
    )
    assert len(one.rows()) == 5 and "feature kernels of the hidden layers move by" in str(one)


def test_a_name_is_the_function_that_it_is_for_kernels():
    """Referee: E phi(u)^2 by the dual activation, and by quadrature of the function."""
    one = torch.ones((), dtype=torch.float64)
    u = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    weight = torch.exp(-u.square() / 2) / (2 * torch.pi) ** 0.5
    assert {"identity", "linear", "tanh", "relu", "leaky_relu", "swish", "softplus", "softshrink", "abs"} <= set(NAMED)
    for name, phi in NAMED.items():
        found = torch.trapezoid(weight * curve_of(name).phi(u).square(), u)
        assert float(found) == pytest.approx(float(dual(name).variance(one)), rel=1e-6), name
        assert curve_of(name).phi is phi


def test_derivatives_count_as_far_as_they_are_those_of_the_function():
    smooth = {name for name in NAMED if curve_of(name).smooth}
    assert {"tanh", "gelu", "silu", "elu", "exp", "softplus", "identity"} <= smooth
    assert smooth.isdisjoint({"relu", "leaky_relu", "selu", "hardtanh", "hardsigmoid", "hardswish", "sign", "softshrink"})
    assert not curve_of(lambda h: h.sin() + (h - h.sin()).detach()).smooth  # a slope of one's own


REFUSED = [
    ({"lr": 60.0, "steps": 40}, r"training diverges at step \d+: .*largest stable one at initialisation is"),
    ({"rise": 0.5}, "training diverges at step 0: "),
    ({"rise": "x"}, "got rise = 'x', expected a positive number"),
    ({"memory": 1e5}, "lower samples, steps or the number of inputs"),
    ({"loss": "hinge"}, "got loss 'hinge', expected one of squared"),
    ({"loss": "half_mse"}, "got loss 'half_mse'.* half_mse is called squared here"),
    ({"samples": 100}, "got 100 samples in 4 replicates"),
    ({"x_test": torch.zeros(2, 3)}, r"got x_test of shape \(2, 3\), expected \(samples, 5\)"),
    ({"y": torch.zeros(3, 2)}, r"got y of shape \(3, 2\)"),
    ({"x": torch.full((3, 5), torch.nan)}, "got x with numbers that are not finite"),
    ({"steps": 0}, "got steps = 0"),
    ({"steps": "x"}, "got steps = 'x'"),
    ({"lr": "x"}, "got lr = 'x'"),
    ({"samples": "x"}, "got samples = 'x'"),
    ({"x": None}, "got x NoneType"),
    ({"y": None}, "got y NoneType"),
    ({"network": "n"}, "got str, expected a network of the limit"),
    ({"batches": [torch.tensor([0])]}, "got 1 batches for 5 steps"),
    ({"batches": [[0]] * 5}, r"got batches\[0\] list, expected indices"),
    ({"batches": [torch.tensor([0.5])] * 5}, r"got batches\[0\] torch.float32 of shape \(1,\), expected indices"),
    ({"device": "nowhere"}, "got device 'nowhere', which cannot be used here .*try cpu"),
    ({"batches": [torch.tensor([3])] * 5}, r"batches\[0\] is empty or has indices outside 0 to 2"),
    ({"loss": "logistic", "y": torch.zeros(3, 1)}, "other numbers than"),
    ({"loss": "cross_entropy", "y": torch.ones(3, 1) / 2}, "rows are no probabilities"),
    ({"network": Network.uniform(5, activation="tanhh")}, "got activation 'tanhh', expected one of"),
    ({"network": Network.uniform(5, activation=lambda h: h.cumsum(0))}, "does not act entry by entry"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[words[:20] for _, words in REFUSED])
def test_what_cannot_be_solved_is_refused(change, words):
    x, y = data()
    given = {"network": Network.uniform(5, depth=2), "x": x, "y": y, "steps": 5, "samples": 400} | change
    with pytest.raises(LazyrichError, match=words):
        solve(**given)


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 0},
        {"depth": "2"},
        {"gamma0": 0.0},
        {"gamma0": "1"},
        {"weight": 0.0},
        {"weight": -1.0},
        {"weight": "1"},
        {"outputs": 0},
    ],
)
def test_networks_that_make_no_sense_are_refused(wrong):
    with pytest.raises(RichError, match="expected"):
        Network.uniform(5, **wrong)


@pytest.mark.parametrize("wrong", [{"inputs": float("nan")}, {"inputs": "5"}, {"layers": 2}, {"layers": (1.0, 2.0)}])
def test_fields_of_a_network_that_are_none_are_refused(wrong):
    with pytest.raises(RichError, match=f"got {next(iter(wrong))} = .*expected"):
        Network(**({"inputs": 5, "layers": (Layer(), Layer())} | wrong))


def test_losses_are_sums_over_outputs_and_means_over_samples():
    f, y = torch.tensor([[0.3, -1.0], [2.0, 0.5], [0.0, 0.1]]), torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    each = {"squared": (f - y) ** 2 / 2, "logistic": (1 + (-y * f).exp()).log()}
    for name, values in each.items():
        assert float(LOSSES[name](f, y)) == pytest.approx(float(values.sum()) / 3)


def test_the_loss_is_that_of_all_samples_while_a_batch_drives_the_step():
    y, outputs = torch.zeros(3, 1, dtype=torch.float64), torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    loss, delta = Objective("squared", y, 3, [torch.tensor([0])])(outputs, 0)
    assert loss == pytest.approx((1 + 4 + 9) / 6)
    assert delta.flatten().tolist() == [-1.0, 0.0, 0.0]
