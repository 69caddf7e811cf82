"""The kernel numbers of docs/evidence.md: the studies' own functions, held to the tolerances that are claimed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lazyrich.measure import fit_slope
from lazyrich.reference import resolve

STUDIES = Path(__file__).parent.parent / "studies"


def study(name: str, function: str):
    return resolve(f"{STUDIES / name}.py:{function}")


def constant(name: str, key: str):
    return study(name, "main").__globals__[key]


def test_the_edge_of_chaos_runs_through_the_published_points():
    weights = study("phase_diagram", "edge")("tanh", np.array(constant("phase_diagram", "BIASES")))
    assert weights == pytest.approx(constant("phase_diagram", "PUBLISHED")["tanh"], abs=5e-5)


def test_depth_scales_peak_on_the_edge_of_chaos():
    weights = np.linspace(1.0, 2.6, 17)
    scales = study("phase_diagram", "depth_scales")("tanh", weights, np.array([0.05]))[0]
    assert weights[scales.argmax()] == pytest.approx(1.7610, abs=0.1)
    assert scales[0] < scales[8] > scales[-1]


@pytest.mark.slow
def test_an_ensemble_of_wide_networks_is_the_predicted_gaussian():
    z, off, sampling = study("ensemble", "errors")(512, 400)
    assert z < 3
    assert off < 2 * sampling < 0.2


@pytest.mark.slow
def test_the_closed_dynamics_of_a_bottleneck_are_approached_as_one_over_the_root_of_the_width():
    widths = constant("bottleneck", "WIDTHS")
    found = study("bottleneck", "closed_dynamics")()
    slope = study("bottleneck", "median_slope")
    assert slope(widths, found["latent error"]) == pytest.approx(-0.5, abs=0.15)
    assert float(np.median(found["latent error"], 0)[-1]) < 0.02
    assert fit_slope(widths, found["encoder move"]).value == pytest.approx(-0.5, abs=0.05)
    assert fit_slope(widths, found["latent move"]).value == pytest.approx(0, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "low", "high"), [("muP-SGD", 1.2, 2.0), ("muP-Adam", 0.8, 1.25)])
def test_mup_delays_a_bottleneck_under_sgd_and_not_under_adam(name, low, high):
    steps = study("bottleneck", "parameterisations")(name)["steps"]
    ratio = float(np.exp(np.log(steps[:, -1] / steps[:, 0]).mean()))
    assert low <= ratio <= high


@pytest.mark.slow
def test_an_encoder_in_ntk_parameterisation_moves_less_and_less():
    found = study("bottleneck", "parameterisations")("NTP")["encoder"]
    assert fit_slope(constant("bottleneck", "MOVE_WIDTHS"), found).value == pytest.approx(-0.45, abs=0.1)


def test_unbiased_metrics_of_features_are_right_where_biased_ones_are_not():
    similarity, directions = study("feature_metrics", "similarity"), study("feature_metrics", "directions")
    assert abs(similarity(True)) < 0.02
    assert similarity(False) > 0.95
    assert directions(True) == pytest.approx(1, abs=0.05)
    assert directions(False) == pytest.approx(1 / 11, abs=0.005)  # 1 / (1 / 100 + 1 / 1000)


@pytest.mark.parametrize("seed", range(2))
def test_expansions_of_higher_order_follow_what_training_reached(seed):
    errors = study("taylor_orders", "errors")(seed)
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < errors[0] / 20


def test_kernels_of_networks_of_finite_width_scatter_as_their_scale_does():
    errors = [study("kernel_convergence", "nngp_error")(512, seed) for seed in range(4)]
    assert max(errors) < 2 * 5 / np.sqrt(16 * 512)


@pytest.mark.slow
def test_tangent_kernels_approach_their_limit_as_the_root_of_the_width():
    slope, _ = study("kernel_convergence", "ntk_slope")()
    assert slope.value == pytest.approx(-0.5, abs=0.1)
