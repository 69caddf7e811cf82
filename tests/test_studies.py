"""The numbers of docs/evidence.md: the studies' own functions, held to the tolerances that are claimed."""

from __future__ import annotations

from pathlib import Path

import pytest

import lazyrich as lzr
from lazyrich.reference import resolve

STUDIES = Path(__file__).parent.parent / "studies"
RICHNESS = (0.0, 0.25, 0.5)


def study(name: str, function: str):
    return resolve(f"{STUDIES / name}.py:{function}")


@pytest.mark.parametrize("adam", [False, True])
def test_the_abc_symmetry_is_exact_at_finite_width(adam):
    largest = study("symmetry", "largest_difference")
    assert max(largest(scheme, adam) for scheme in (lzr.mup(), lzr.richness(0.25))) < 1e-10


@pytest.mark.slow
def test_the_spectral_condition_holds_at_any_shape():
    shapes = ((16, 256, 256, 4), (16, 2048, 2048, 4), (16, 4096, 1024, 4), (16, 1024, 4096, 4))
    found = {shape: study("spectral", "geometric_means")(shape, seeds=2) for shape in shapes}
    for shape, rows in found.items():
        assert (rows[:, 0] >= 1).all(), shape
        assert (rows[:, 0] <= 2).all(), shape
        assert (rows[:, 2] >= 0.008).all(), shape
        assert (rows[:, 2] <= 0.032).all(), shape
    updates = [float(u) for rows in found.values() for u in rows[:, 1]]
    assert max(updates) / min(updates) < 2.6


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["linear", "tanh"])
@pytest.mark.parametrize("r", RICHNESS)
def test_the_corrected_richness_table_is_measured(activation, r):
    slopes = study("richness_table", "norms")(study("richness_table", "measure")(activation, lzr.richness(r)))
    for layer in ("hidden.0", "hidden.1"):
        assert slopes[f"h {layer}"] == pytest.approx(0.5, abs=0.06)
        assert slopes[f"dh {layer}"] == pytest.approx(r, abs=0.06)
        assert slopes[f"layer {layer}"] == pytest.approx(r, abs=0.06)
        assert slopes[f"uuc {layer}"] == pytest.approx(0, abs=0.06)
    assert slopes["pass hidden.1"] == pytest.approx(r, abs=0.06)
    assert slopes["h readout"] == pytest.approx(-r, abs=0.06)
    assert slopes["dh readout"] == pytest.approx(0, abs=0.06)
    assert slopes["uuc readout"] == pytest.approx(0, abs=0.06)


@pytest.mark.slow
def test_the_table_as_the_notes_print_it_is_trivial():
    printed = lzr.abc(a=(-0.25, 0.75, 1), b=(0.25, 0.25, 0.25), c=0)
    slopes = study("richness_table", "norms")(study("richness_table", "measure")("linear", printed))
    assert slopes["h hidden.1"] == pytest.approx(0, abs=0.06)
    assert slopes["dh readout"] == pytest.approx(-2, abs=0.06)
    assert printed.classify("sgd").regime == "trivial"


@pytest.mark.slow
@pytest.mark.parametrize("r", RICHNESS)
def test_features_and_kernels_move_as_the_richness_says(r):
    slopes = study("movement", "slopes")(r)
    expected = {"features": (r - 0.5, 0.08), "feature kernel": (2 * r - 1, 0.15), "tangent kernel": (2 * r - 1, 0.15)}
    expected["Fort distance"] = (4 * r - 2, 0.3)
    for quantity, (slope, tolerance) in expected.items():
        assert slopes[quantity].value == pytest.approx(slope, abs=tolerance), quantity


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp", "convnet", "transformer"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_mup_passes_the_coordinate_check(network, optimizer):
    result = study("coordinate_check", "check")(network, lzr.mup(), optimizer)
    assert result.verdict.word == "well-behaved"
    assert all(line.agrees for line in result.updates), str(result)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp", "convnet", "transformer"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_standard_fails_it_and_the_readout_is_named(network, optimizer):
    result = study("coordinate_check", "check")(network, lzr.standard(), optimizer)
    assert result.verdict.word == "exploding"
    last = result.updates[-1] if network != "transformer" else next(u for u in result.updates if u.role == "output")
    assert last.verdict == "exploding"
    assert any(mend.startswith(last.layer) and "learning rate must fall as 1/width" in mend for mend in result.verdict.mends)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [lzr.mup(), lzr.standard()], ids=lambda scheme: scheme.name)
def test_a_transformer_that_hardly_moves_is_inconclusive(scheme):
    assert study("coordinate_check", "check")("transformer", scheme, "sgd", lr=3e-5, seeds=3).verdict.word == "inconclusive"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [lzr.ntk(), lzr.richness(0.25), lzr.mup()], ids=lambda s: s.name)
@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.05), ("adam", 0.001)])
def test_conv_slopes_are_dense_slopes_with_channels_as_the_width(scheme, optimizer, lr):
    slopes, net = study("conv_and_dense", "update_slopes"), study("conv_and_dense", "Conv")
    conv, dense = slopes(net, scheme, optimizer, lr), slopes(lambda n: lzr.zoo.mlp(n, depth=2), scheme, optimizer, lr)
    assert conv.keys() == dense.keys()
    for layer, slope in conv.items():
        assert slope.value == pytest.approx(dense[layer].value, abs=0.05), layer


def test_balance_points_follow_their_powers_of_the_depth():
    balances, slope = (study("equilibrium", name) for name in ("balances", "slope"))
    depths = (300, 1000, 3000)
    for name, power, tolerance in (("relu", 0.65, 0.05), ("erf", 2 / 3, 0.03), ("relu, residual", 1.0, 0.02)):
        assert slope(depths, balances(name, depths)) == pytest.approx(power, abs=tolerance), name


@pytest.mark.slow
def test_alignment_peaks_inside_a_trained_network():
    _, after = study("equilibrium", "mean_alignment")(seeds=4)
    peak = int(after.argmax())
    assert 0 < peak < len(after) - 1
    assert float(after[peak] - after[0]) > 0.05
    assert float(after[peak] - after[-1]) > 0.03
