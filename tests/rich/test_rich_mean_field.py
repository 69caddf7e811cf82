"""Two-layer mean field: particles against exact flows, the radial closure, noise and its free energy."""

from __future__ import annotations

import math

import pytest
import torch

from lazyrich.errors import RichError
from lazyrich.rich import Closure, IsotropicGaussians, entropy, mean_field

TIMES = [0.0, 1.0, 3.0, 5.0, 10.0, 20.0]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_radial_flow_has_the_known_risks_and_radii():
    problem = IsotropicGaussians()
    flow = problem.closure().follow(problem.start(3000, 1).norm(dim=1, keepdim=True), TIMES)
    assert torch.allclose(flow.risk, torch.tensor([1.672, 1.060, 0.944, 0.685, 0.152, 0.048]).double(), atol=0.012)
    radii = torch.tensor([row["mean_0"] for row in flow.rows()])
    assert torch.allclose(radii, torch.tensor([0.797, 1.413, 1.861, 2.337, 3.474, 4.123]), rtol=0.01)


def test_the_closed_means_are_those_of_samples():
    problem, tau = IsotropicGaussians(dimension=3), 1.8
    w = problem.start(1, 0, size=2.0)
    x = tau * torch.randn(400_000, 3, dtype=torch.float64, generator=rng())
    values = problem.neuron(w, x)
    exact = problem.closure().moments(w.norm(dim=1, keepdim=True))[0, 0]
    assert abs(float(values.mean() - exact)) < 4 * float(values.std()) / len(x) ** 0.5


def test_full_batch_particles_are_a_two_layer_network_under_sgd():
    x, y = torch.randn(6, 3, dtype=torch.float64, generator=rng()), torch.randn(6, dtype=torch.float64, generator=rng(1))
    start = torch.randn(9, 4, dtype=torch.float64, generator=rng(2))

    def neuron(theta, x):
        return theta[:, 0] * torch.tanh(x @ theta[:, 1:].T)

    outer, inner = start[:, :1].T.clone().requires_grad_(), start[:, 1:].clone().requires_grad_()
    optimizer = torch.optim.SGD([outer, inner], lr=2 * 0.05 * len(start) / 2)  # on the halved square
    for _ in range(4):
        optimizer.zero_grad()
        (y - (torch.tanh(x @ inner.T) @ outer.T)[:, 0] / len(start)).square().mean().backward()
        optimizer.step()
    flow = mean_field(neuron, start, (x, y), 0.2, eps=0.05, looks=4)
    assert torch.allclose(flow.particles[-1], torch.cat([outer.T, inner], 1).detach(), atol=1e-12)
    assert flow.times.tolist() == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_a_schedule_runs_the_same_course_at_another_speed():
    x, y = torch.randn(6, 3, dtype=torch.float64, generator=rng()), torch.randn(6, dtype=torch.float64, generator=rng(1))
    start = torch.randn(9, 4, dtype=torch.float64, generator=rng(2))
    found = mean_field(NEURON, start, (x, y), 0.2, eps=0.05, decay=0.1, schedule=lambda t: 2.0 if t < 0.075 else 0.5)
    half = mean_field(NEURON, start, (x, y), 0.2, eps=0.1, decay=0.1).particles[-1]
    rest = mean_field(NEURON, half, (x, y), 0.05, eps=0.025, decay=0.1).particles[-1]
    torch.testing.assert_close(found.particles[-1], rest, rtol=0, atol=1e-14)
    closure, radii = (problem := IsotropicGaussians()).closure(), problem.start(200, 1).norm(dim=1, keepdim=True)
    faster, plain = (closure.follow(radii, *at) for at in (([0.0, 0.5, 1.0], lambda t: 2 * t), ([0.0, 0.25, 1.0],)))
    torch.testing.assert_close(faster.coordinates, plain.coordinates, rtol=0, atol=1e-6)


def test_one_pass_follows_the_closed_flow_at_small_steps():
    problem = IsotropicGaussians()
    watch = problem.draw(rng(9), 8000)
    found = mean_field(problem.neuron, problem.start(400, 0), problem.draw, 1.0, eps=5e-4, watch=watch, looks=2)
    flow = problem.closure().follow(problem.start(3000, 1).norm(dim=1, keepdim=True), [0.0, 0.5, 1.0])
    assert float((found.risk - flow.risk).abs().max()) < 0.06
    assert float(found.particles[-1].norm(dim=1).mean()) == pytest.approx(float(flow.coordinates[-1].mean()), rel=0.06)


@pytest.mark.slow
def test_one_pass_tracks_the_flow_to_time_ten_and_larger_steps_do_not():
    problem = IsotropicGaussians()
    watch = problem.draw(rng(9), 20_000)
    flow = problem.closure().follow(problem.start(4000, 1).norm(dim=1, keepdim=True), TIMES[:-1])
    at = [0, 1, 3, 5, 10]
    small, large = (
        mean_field(problem.neuron, problem.start(800, 0), problem.draw, 10.0, eps=eps, watch=watch, looks=10)
        for eps in (2e-4, 1e-3)
    )
    assert float((small.risk[at] - flow.risk).abs().max()) < 0.06
    radii = small.particles[at].norm(dim=2).mean(1)
    assert torch.allclose(radii[-1], flow.coordinates[-1].mean(), rtol=0.05)
    assert abs(float(large.risk[10] - flow.risk[4])) > 0.3


def still(theta, x):
    return theta[:, 0].sin().expand(len(x), -1)


def test_noise_has_the_variance_that_the_free_energy_asks_for():
    """Without a signal the minimum of (lambda/2) E|theta|^2 - Ent/beta is normal with variance 1/(beta lambda)."""
    theta = torch.randn(4000, 1, dtype=torch.float64, generator=rng()) * 0.2
    nothing = torch.zeros(1, 1).double(), torch.zeros(1).double()
    flow = mean_field(lambda t, x: 0 * still(t, x), theta, nothing, 5.0, eps=0.02, decay=1.0, temperature=0.5, looks=10)
    assert float(flow.particles[-1].var()) == pytest.approx(0.5, rel=0.08)
    exact = 0.25 - 0.5 * 0.5 * math.log(2 * math.pi * math.e * 0.5)
    energy = flow.free_energy()
    assert float(energy[-1]) == pytest.approx(exact, abs=0.02)
    assert (energy.diff() < 0.02).all()
    assert float(energy[0]) > exact + 0.2


def test_noisy_particles_settle_at_the_gibbs_density():
    """rho ~ exp(-beta Psi_lambda) with Psi = V + U rho: solved on a grid, against particles (one neuron parameter)."""
    x, y = torch.zeros(1, 1).double(), torch.tensor([0.6]).double()
    flow = mean_field(still, torch.zeros(6000, 1).double(), (x, y), 8.0, eps=0.02, decay=1.0, temperature=0.3, looks=8)
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    mean = torch.zeros((), dtype=torch.float64)
    for _ in range(500):
        density = torch.softmax(-((mean - 0.6) * grid.sin() + grid.square() / 2) / 0.3, 0)
        mean = 0.7 * mean + 0.3 * (density @ grid.sin())
    assert float(flow.particles[-1].sin().mean()) == pytest.approx(float(mean), abs=0.03)
    assert float(flow.particles[-1].mean()) == pytest.approx(float(density @ grid), abs=0.03)
    assert float(flow.risk[-1]) == pytest.approx(float((0.6 - mean) ** 2), abs=0.03)


@pytest.mark.parametrize("dimension", [1, 3])
def test_entropy_of_a_normal_cloud(dimension):
    cloud = 2 * torch.randn(5000, dimension, dtype=torch.float64, generator=rng())
    exact = dimension * (0.5 * math.log(2 * math.pi * math.e) + math.log(2))
    assert entropy(cloud) == pytest.approx(exact, abs=0.06)


def test_what_makes_no_sense_is_refused():
    problem, theta = IsotropicGaussians(dimension=3), torch.randn(5, 3, dtype=torch.float64, generator=rng())
    watch = problem.draw(rng(), 10)
    with pytest.raises(RichError, match="watch"):
        mean_field(problem.neuron, theta, problem.draw, 1.0)
    with pytest.raises(RichError, match="eps"):
        mean_field(problem.neuron, theta, problem.draw, 1.0, eps=-1.0, watch=watch)
    with pytest.raises(RichError, match="expected \\(samples, particles\\)"):
        mean_field(problem.neuron, theta, (watch[0], watch[1][:, None]), 1.0)
    with pytest.raises(RichError, match="lower eps"):
        mean_field(lambda t, x: x @ t.T, 10 * theta, (100 * watch[0], watch[1]), 10.0, eps=0.5)
    with pytest.raises(RichError, match="increasing"):
        problem.closure().follow(theta[:, :1], [1.0, 0.5])
    with pytest.raises(RichError, match="coincide"):
        entropy(torch.zeros(9, 2))
    with pytest.raises(RichError, match="got 4 points, expected more than 4"):
        entropy(torch.eye(4))
    with pytest.raises(RichError, match="cannot be followed"):
        Closure(lambda r: r, lambda m: -(m[0] ** 4)).follow(torch.ones(2, 1), [0.0, 50.0])


def test_a_flow_prints_as_a_table():
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
    flow = mean_field(lambda t, x: x @ t.T, torch.ones(6, 1).double(), (x, x[:, 0]), 0.5, eps=0.1, looks=2)
    assert "6 particles took the risk from" in str(flow)
    assert [row["time"] for row in flow.rows()] == pytest.approx([0, 0.2, 0.5])


@pytest.mark.parametrize(
    "wrong", [{"dimension": "40"}, {"dimension": 0}, {"delta": math.nan}, {"low": "x"}, {"knees": (1.5, 0.5)}]
)
def test_a_problem_of_gaussians_that_is_none_is_refused(wrong):
    with pytest.raises(RichError, match=f"{next(iter(wrong))} = .*expected"):
        IsotropicGaussians(**wrong)


NEURON = lambda theta, x: torch.tanh(x @ theta[:, :3].T) * theta[:, 3]  # noqa: E731
FLOW = {"neuron": NEURON, "start": torch.ones(10, 4), "data": (torch.ones(6, 3), torch.ones(6)), "time": 0.01, "eps": 0.005}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"time": "3"}, "got time = '3'"),
        ({"time": math.inf}, "got time = inf"),
        ({"eps": None}, "got eps = None"),
        ({"eps": 1.0}, "expected 0 < eps <= time"),
        ({"batch": 1.5}, "got batch = 1.5"),
        ({"looks": 1.5}, "got looks = 1.5"),
        ({"decay": math.nan}, "got decay = nan"),
        ({"temperature": "x"}, "got temperature = 'x'"),
        ({"start": None}, "got start NoneType"),
        ({"neuron": None}, "got neuron NoneType"),
        ({"data": (torch.ones(6, 3),)}, "expected two tensors"),
        ({"data": "3"}, "expected two tensors"),
    ],
)
def test_a_flow_of_particles_that_is_none_is_refused(wrong, words):
    with pytest.raises(RichError, match=words):
        mean_field(**(FLOW | wrong))


@pytest.mark.parametrize("given", [(torch.randn(20, 2), 0), (torch.randn(20, 2), 1.5), (torch.randn(20),), (None,),
                                   (torch.full((9, 2), math.nan),)])  # fmt: skip
def test_a_cloud_that_is_none_is_refused(given):
    with pytest.raises(RichError, match="got (points|neighbour)"):
        entropy(*given)


def test_particles_of_another_type_than_the_inputs_are_named() -> None:
    x, start = torch.ones(5, 2, dtype=torch.float64), torch.ones(3, 2)
    with pytest.raises(
        RichError, match=r"shape \(3, 2\), torch.float32, .* \(5, 2\), torch.float64 .*pass start.to\(x.dtype\)"
    ):
        mean_field(lambda theta, x: torch.tanh(x @ theta.T), start, (x, x[:, 0]), time=0.1, eps=0.05)
