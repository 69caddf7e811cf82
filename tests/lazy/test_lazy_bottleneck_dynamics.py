"""The closed dynamics of a bottleneck, against networks that are trained."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lazyrich as lzr
from lazyrich.errors import KernelError
from lazyrich.lazy.bottleneck import BottleneckDynamics, DrawnFunction, halves
from lazyrich.lazy.bottleneck.tableau import DORMAND_PRINCE
from lazyrich.reference import resolve

DOUBLE = torch.float64


def study(function: str):
    return resolve(f"{Path(__file__).parents[2] / 'studies' / 'bottleneck'}.py:{function}")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


class Features:
    """A frozen random erf layer with a trained readout: its kernels are exact at every width."""

    def __init__(self, inputs: int, outputs: int, seed: int, width: int = 40) -> None:
        self.inner, self.shift = normal(width, inputs, seed=seed), normal(width, seed=seed + 1)
        self.readout = normal(width, outputs, seed=seed + 2)

    def hidden(self, x: Tensor) -> Tensor:
        return torch.erf(x @ self.inner.T + self.shift) / math.sqrt(len(self.inner))

    def __call__(self, x: Tensor) -> Tensor:
        return self.hidden(x) @ self.readout

    def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        return self.hidden(x1) @ self.hidden(x1 if x2 is None else x2).T

    ntk = nngp


X, Y = normal(6, 4, seed=1), normal(6, 3, seed=2)
ENCODER, DECODER = Features(4, 2, seed=3), Features(2, 3, seed=6)


def trained(eta: float, steps: int, x: Tensor = X, phi=lambda u: u) -> tuple[Tensor, Tensor]:
    """Latents and outputs after descent on both readouts, by autograd."""
    first, second = (side.readout.clone().requires_grad_() for side in (ENCODER, DECODER))
    for _ in range(steps):
        f = DECODER.hidden(phi(ENCODER.hidden(X) @ first)) @ second
        slopes = torch.autograd.grad((f - Y).square().sum() / (2 * len(X)), (first, second))
        first.data -= eta * slopes[0]
        second.data -= eta * slopes[1]
    u = (ENCODER.hidden(x) @ first).detach()
    return u, (DECODER.hidden(phi(u)) @ second).detach()


def closed(encoder=ENCODER, decoder=DECODER, g0=DECODER, **more) -> BottleneckDynamics:
    return BottleneckDynamics(encoder, decoder, X, Y, 2, u0=ENCODER(X), g0=g0, **more)


def test_descent_is_exact_where_the_kernels_are():
    path = closed().descend(0.5, 80, every=30)
    u, f = trained(0.5, 80)
    assert path.times.tolist() == [0, 15, 30, 40]
    assert float(path.latent_movement[-1]) > 0.5
    torch.testing.assert_close(path.latents[-1], u, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(path.outputs[-1], f, rtol=1e-10, atol=1e-10)
    assert float(path.loss[-1]) == pytest.approx(float((f - Y).square().sum() / 12), rel=1e-10)


def test_descent_is_exact_behind_a_nonlinear_bottleneck():
    path = closed(g0=lambda u: DECODER(torch.tanh(u)), bottleneck=torch.tanh).descend(0.5, 40)
    u, f = trained(0.5, 40, phi=torch.tanh)
    torch.testing.assert_close(path.latents[-1], u, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(path.outputs[-1], f, rtol=1e-10, atol=1e-10)


def test_other_inputs_follow_the_same_path():
    new = normal(3, 4, seed=9)
    path = closed().descend(0.5, 40)
    u, f = path.predict(ENCODER.ntk(new, X), ENCODER(new))
    expected_u, expected_f = trained(0.5, 40, new)
    torch.testing.assert_close(u, expected_u, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(f, expected_f, rtol=1e-10, atol=1e-10)


class Altered:
    """A decoder or encoder whose tangent kernel has lost something."""

    def __init__(self, side, change) -> None:
        self.side, self.change, self.nngp = side, change, side.nngp

    def ntk(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        return self.change(self.side.ntk(x1, x2))


DROPPED = {
    "the encoder": {"encoder": Altered(ENCODER, torch.zeros_like)},
    "other samples in the encoder": {"encoder": Altered(ENCODER, lambda k: torch.diag(k.diagonal()))},
    "the decoder": {"decoder": Altered(DECODER, torch.zeros_like)},
    "what the decoder's gradient has learnt": {"decoder": Altered(DECODER, lambda k: k.detach())},
    "the gradient at initialisation": {"g0": lambda u: DECODER(u).detach() + 0 * u.sum()},
    "the past": {"decoder": Altered(DECODER, lambda k: k * (torch.arange(k.shape[1]) >= k.shape[1] - 6))},
}


@pytest.mark.parametrize("term", DROPPED)
def test_every_term_of_the_dynamics_is_needed(term):
    u, f = trained(0.5, 80)
    path = closed(**DROPPED[term]).descend(0.5, 80, every=80)
    assert float((path.outputs[-1] - f).norm() / f.norm() + (path.latents[-1] - u).norm() / u.norm()) > 0.02


def test_flow_is_the_limit_of_small_steps():
    path = closed().flow([0.0, 5.0, 20.0], tolerance=1e-9)
    coarse, fine = trained(0.04, 500), trained(0.02, 1000)
    for at, (a, b) in zip((path.latents[-1], path.outputs[-1]), zip(coarse, fine, strict=True), strict=True):
        torch.testing.assert_close(at, 2 * b - a, rtol=1e-4, atol=1e-4)  # what remains is of second order in the step
        assert float((at - 2 * b + a).norm()) < 0.05 * float((at - b).norm())


def test_one_time_of_a_flow_is_that_after_the_start():
    alone, path = closed().flow(3.0), closed().flow([0.0, 3.0])
    assert alone.times.tolist() == [0.0, 3.0] and torch.equal(alone.outputs, path.outputs)
    assert closed().flow(0).times.tolist() == [0.0]


def test_flow_starts_from_latents_of_zero():
    """They have no size to which a step's error could be relative."""
    start = BottleneckDynamics(ENCODER, DECODER, X, Y, 2, u0=torch.zeros(6, 2), g0=DECODER)
    path, steps = start.flow([0.0, 2.0], tolerance=1e-8), start.descend(1e-2, 200)
    assert float(path.latents[-1].norm()) > 0.01
    torch.testing.assert_close(path.latents[-1], steps.latents[-1], rtol=2e-2, atol=1e-3)
    still = BottleneckDynamics(ENCODER, DECODER, X, 0 * Y, 2, u0=torch.zeros(6, 2), g0=lambda u: 0 * u @ Y[:2])
    assert still.flow([0.0, 2.0]).latents.abs().max() == 0


def test_flow_keeps_to_its_tolerance():
    best = closed().flow([0.0, 10.0], tolerance=1e-11)
    errors = []
    for tolerance in (1e-4, 1e-6, 1e-8):
        path = closed().flow([0.0, 10.0], tolerance=tolerance)
        errors.append(float((path.outputs[-1] - best.outputs[-1]).abs().max()))
        assert errors[-1] < 20 * tolerance
    assert errors[2] < 0.01 * errors[0]


def test_the_flow_descends_by_the_tangent_kernel():
    """dL/dt = - e^T Theta_f e with Theta_f of section 7b, here from the Jacobians of the trained function."""
    path = closed().flow([0.0, 3.0], tolerance=1e-10)
    later = closed().flow([0.0, 3.0 - 1e-3, 3.0, 3.0 + 1e-3], tolerance=1e-10)
    u, e = path.latents[-1], (path.outputs[-1] - Y) / 6
    j = torch.stack([torch.autograd.functional.jacobian(path.decoder, row[None])[0, :, 0] for row in u])
    theta = torch.einsum("ab,ij->aibj", DECODER.ntk(u), torch.eye(3, dtype=DOUBLE))
    theta = theta + torch.einsum("ab,aic,bjc->aibj", ENCODER.ntk(X), j, j)
    rate = -torch.einsum("ai,aibj,bj->", e, theta, e)  # dL = sum_b e_b df_b
    assert float((later.loss[3] - later.loss[1]) / 2e-3) == pytest.approx(float(rate), rel=1e-4)


def test_the_method_has_the_order_that_it_claims():
    a, b, gap = DORMAND_PRINCE.a, np.array(DORMAND_PRINCE.b), np.array(DORMAND_PRINCE.gap)
    c = np.array([sum(row) for row in a])
    full = np.array([[*row, *[0.0] * (7 - len(row))] for row in a])
    for p in range(5):
        assert b @ c**p == pytest.approx(1 / (p + 1), abs=1e-14)
    assert b @ full @ c == pytest.approx(1 / 6, abs=1e-14)
    for p in range(4):  # the embedded method has order four
        assert gap @ c**p == pytest.approx(0, abs=1e-14)


def test_the_studys_kernel_is_that_of_the_module():
    class Erf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.erf(x)

    net = nn.Sequential(nn.Linear(4, 8, bias=False), Erf(), nn.Linear(8, 3, bias=False))
    traced, written = lzr.kernel(net, init=lzr.init.variance(w=1.0, b=0.0)), study("HiddenLayer")()
    torch.testing.assert_close(traced.ntk(X), written.ntk(X))
    torch.testing.assert_close(traced.nngp(X, Y @ normal(3, 4)), written.nngp(X, Y @ normal(3, 4)))
    both = [BottleneckDynamics(side, side, X, X, 4, u0=X).descend(0.1, 5).latents for side in (traced, written)]
    torch.testing.assert_close(both[0], both[1])


def test_wide_networks_follow_the_closed_form():
    widths, seeds = (128, 512, 2048), range(5)
    compare = study("compare")
    errors = np.array([[compare(width, seed, steps=100)["latent error"] for width in widths] for seed in seeds])
    median = np.median(errors, axis=0)
    assert median[-1] < 0.04
    assert study("median_slope")(widths, errors) == pytest.approx(-0.5, abs=0.25)


@pytest.mark.slow
def test_the_closed_form_is_the_limit_of_infinite_width():
    table, widths, slope = study("closed_dynamics")((128, 512, 2048, 8192)), (128, 512, 2048, 8192), study("median_slope")
    assert np.median(table["latent error"][:, -1]) < 0.02
    assert slope(widths, table["latent error"]) == pytest.approx(-0.5, abs=0.15)
    assert slope(widths, table["encoder move"]) == pytest.approx(-0.5, abs=0.05)
    assert slope(widths, table["latent move"]) == pytest.approx(0, abs=0.15)


def test_a_drawn_function_is_one_function():
    g = DrawnFunction(study("HiddenLayer")(), outputs=3, seed=4)
    u = normal(7, 2)
    first = g(u)
    g(normal(30, 2, seed=5))
    torch.testing.assert_close(g(u), first, rtol=1e-3, atol=1e-3)
    assert torch.equal(DrawnFunction(study("HiddenLayer")(), outputs=3, seed=4)(u), first)


def test_drawn_functions_have_the_process_as_their_law():
    kernel, u = study("HiddenLayer")(), normal(3, 2)
    at = u.repeat(1, 1).requires_grad_()
    draws = DrawnFunction(kernel, outputs=20_000, seed=1)
    f = draws(at).detach()
    torch.testing.assert_close(f @ f.T / 20_000, kernel.nngp(u), rtol=0.05, atol=0.02)
    later = normal(2, 2, seed=8)
    joint = torch.cat([u, later])
    f = draws(joint).detach()
    torch.testing.assert_close(f @ f.T / 20_000, kernel.nngp(joint), rtol=0.05, atol=0.02)


def test_training_from_a_drawn_start_descends():
    kernel = study("HiddenLayer")()
    path = BottleneckDynamics(kernel, kernel, X, X, 2, seed=3).flow([0.0, 2.0, 10.0], tolerance=1e-4)
    assert bool((path.loss.diff() < 0).all())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_traced_sides_train_from_a_drawn_start(activation):
    def side(inputs: int, outputs: int):
        net = nn.Sequential(nn.Linear(inputs, 8), activation(), nn.Linear(8, outputs))
        return lzr.kernel(net, init=lzr.init.variance(w=1.5, b=0.1))

    decoder = side(2, 4)
    g0 = DrawnFunction(decoder, outputs=4, seed=2, tolerance=1e-5)
    path = BottleneckDynamics(side(4, 2), decoder, X.float(), X, 2, g0=g0, seed=1).descend(0.1, 15)
    assert bool((path.loss.diff() < 0).all())
    assert float(path.loss[-1]) < 0.8 * float(path.loss[0])
    assert path.latents.dtype == DOUBLE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NTP", "hybrid", "muP-SGD", "muP-Adam"])
def test_parameterisations_of_one_autoencoder_move_and_slow_down_as_the_theory_says(name):
    widths = (64, 256, 1024, 4096)
    table = study("parameterisations")(name, widths)
    steps = np.exp(np.log(table["steps"]).mean(0))
    low, high = {"muP-SGD": (1.2, 2.0), "muP-Adam": (0.8, 1.25)}.get(name, (0.8, 1.25))
    assert low <= steps[-1] / steps[0] <= high
    encoder = np.polyfit(np.log(widths), np.log(table["encoder"]).mean(0), 1)[0]
    assert encoder == pytest.approx(0 if name.startswith("muP") else -0.45, abs=0.1)
    for part in ("latents", "decoder"):
        assert np.polyfit(np.log(widths), np.log(table[part]).mean(0), 1)[0] == pytest.approx(0, abs=0.1)


def test_divergence_that_the_kernel_cannot_follow_names_the_learning_rate_and_the_step():
    class Erf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.erf(x)

    def side(inputs: int):
        net = nn.Sequential(nn.Linear(inputs, 16), Erf(), nn.Linear(16, 1))
        return lzr.kernel(net, init=lzr.init.variance(1.5, 0.2))

    start = BottleneckDynamics(side(5), side(2), (x := normal(4, 5)), x, 2)
    with pytest.raises(KernelError, match="at step [1-9][0-9]* with learning_rate=100 .*smaller learning rate"):
        start.descend(100.0, 200)
    assert float(start.descend(0.1, 20).loss.diff().max()) < 0


def test_a_kernel_that_fails_near_the_start_is_not_taken_for_divergence():
    class Tired:
        calls = 0

        def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
            return x1 @ (x1 if x2 is None else x2).T

        def ntk(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
            self.calls += 1
            if self.calls > 3:
                raise KernelError("tired")
            return self.nngp(x1, x2)

    with pytest.raises(KernelError, match="^tired$"):
        BottleneckDynamics(Tired(), Tired(), X, Y, 2, g0=lambda u: u @ u.T @ Y).descend(1e-3, 20)


REFUSED = {
    "targets": (lambda: BottleneckDynamics(ENCODER, DECODER, X, Y[:3], 2), "targets of shape"),
    "u0": (lambda: BottleneckDynamics(ENCODER, DECODER, X, Y, 2, u0=X), "u0 of shape"),
    "g0": (lambda: BottleneckDynamics(ENCODER, DECODER, X, Y, 2, g0=lambda u: u), "g0 with values"),
    "latents": (lambda: BottleneckDynamics(ENCODER, DECODER, X, Y, 0), "latents=0"),
    "rate": (lambda: closed().descend(-1.0, 3), "learning_rate"),
    "rate in words": (lambda: closed().descend("a", 3), "learning_rate = 'a'"),
    "endless": (lambda: closed().flow([0.0, 2.0, math.inf]), "times that end with inf"),
    "endless alone": (lambda: closed().flow(math.inf), "times that end with inf"),
    "times in words": (lambda: closed().flow("a"), "times"),
    "most": (lambda: closed().flow([0.0, 2.0], most="a"), "most='a'"),
    "tolerance in words": (lambda: closed().flow([0.0, 2.0], tolerance="a"), "tolerance='a'"),
    "steps": (lambda: closed().descend(1.0, 0), "steps=0"),
    "divergence": (lambda: closed().descend(1e6, 400), "at step [0-9]+ with learning_rate=1e\\+06 .*smaller learning rate"),
    "targets in a list": (lambda: BottleneckDynamics(ENCODER, DECODER, X, Y.tolist(), 2), "targets of type list"),
    "targets of numpy": (lambda: BottleneckDynamics(ENCODER, DECODER, X, Y.numpy(), 2), "targets of type ndarray"),
    "a network": (
        lambda: BottleneckDynamics(nn.Linear(4, 2), DECODER, X, Y, 2),
        "the encoder of type Linear, .*lazyrich.kernel",
    ),
    "a decoder's network": (lambda: BottleneckDynamics(ENCODER, nn.Linear(2, 4), X, Y, 2), "the decoder of type Linear"),
    "start": (lambda: BottleneckDynamics(ENCODER, DECODER, X, Y, 2, g0=lambda u: Y * u.sum() / 0).descend(0.1, 3), "u0 and g0"),
    "times": (lambda: closed().flow([1.0, 2.0]), "begin with 0"),
    "tolerance": (lambda: closed().flow([0.0, 2.0], tolerance=0), "tolerance"),
    "centres": (lambda: closed().flow([0.0, 50.0], most=20), "most=20"),
    "input": (lambda: BottleneckDynamics(ENCODER, DECODER, X * math.nan, Y, 2), "not finite"),
    "draw": (lambda: DrawnFunction(DECODER, 2, most=2)(normal(9, 2)), "most=2"),
    "draw's tolerance": (lambda: DrawnFunction(DECODER, 2, tolerance=0.0), "tolerance"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused(what):
    attempt, words = REFUSED[what]
    with pytest.raises(KernelError, match=words):
        attempt()


def planned(**more) -> lzr.Plan:
    family = lzr.Family(lambda n: lzr.zoo.Autoencoder(n, inputs=5, code=2), base=64)
    return lzr.plan(family, lzr.ntk(), "sgd", init={"*": lzr.init.lecun()}, **more)


@pytest.mark.filterwarnings("ignore:got 'decoder.hidden.0.bias', whose entries are not normal")
@pytest.mark.parametrize("ask", ["kernel", "predict"])
def test_a_plan_with_a_bottleneck_has_no_kernel(ask):
    x = normal(4, 5)
    with pytest.raises(KernelError, match=r"linear at module 'decoder.hidden.0' .*'encoder.readout.weight'.*lazy.bottleneck"):
        lzr.kernel(planned()).ntk(x) if ask == "kernel" else lzr.rich.predict(planned(), (x, x), steps=1, lr=0.1)
    assert lzr.kernel(planned().family.build(64)).ntk(x).shape == (4, 4)  # of a module, all widths are taken to grow


def test_halves_of_a_plan_train_as_its_wide_networks():
    """Descent by theory from a network's own start, against the network under the plan's optimizer."""
    plan, x = planned(), normal(6, 5, seed=0)
    off = []
    for width in (128, 4096):
        errors = []
        for seed in range(3):
            model = plan.build(width, seed).double()
            with torch.no_grad():
                u0 = model.encoder(x)
            start = copy.deepcopy(model.decoder)
            path = BottleneckDynamics(*halves(plan, x), x, x, 2, u0=u0, g0=start).descend(0.02, steps=15, every=15)
            optimizer = plan.optimizer(model, lr=0.02)
            for _ in range(15):
                optimizer.zero_grad()
                ((model(x) - x).square().sum() / (2 * len(x))).backward()
                optimizer.step()
            with torch.no_grad():
                errors.append(float((model.encoder(x) - path.latents[-1]).norm() / (path.latents[-1] - u0).norm()))
        off.append(np.median(errors))
    assert off[1] < 0.03
    assert off[1] < 0.4 * off[0]


def test_halves_say_what_is_no_autoencoder():
    x = normal(3, 5)
    with pytest.raises(KernelError, match="loaded without its family; use Plan.load"):
        halves(replace(planned(), family=None), x)
    with pytest.raises(KernelError, match="has no module 'inner', but encoder, decoder"):
        halves(planned(), x, encoder="inner")
    with pytest.raises(KernelError, match="is neither in 'encoder' nor in 'encoder'"):
        halves(planned(), x, decoder="encoder")
    with pytest.raises(KernelError, match="latents start at width"):
        family = lzr.Family(lambda n: lzr.zoo.Autoencoder(n, inputs=5, code=2), base=64)
        halves(lzr.plan(family, lzr.richness(0.25), "sgd"), x)

    class Doubled(lzr.zoo.Autoencoder):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(KernelError, match="is not 'decoder' of 'encoder'"):
        halves(lzr.plan(lzr.Family(lambda n: Doubled(n, inputs=5, code=2), base=64), lzr.ntk(), "sgd"), x)
