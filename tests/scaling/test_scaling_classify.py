"""The Dynamical Dichotomy as a table of literals, its invariances, and its exponents measured on real networks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyrich as lzr
from lazyrich.scaling import classify
from lazyrich.scaling.exponents import Exponents, Layers


def sp(c):
    return lzr.abc(a=(0, 0, 0), b=(0, 0.5, 0.5), c=c)


# (scheme, hidden layers, stable, nontrivial, regime, r, 2a+c of the readout, a+b+r of the readout): Yang & Hu 2021, Table 1,
# its equivalent lists, and the uniform parameterisations UP_s of Yang et al.
SGD = {
    "SP at its largest stable rate": (sp(1), 2, True, True, "kernel", 0.5, 1, 1),
    "SP": (sp(0), 2, False, False, "unstable", -1, 0, -0.5),
    "SP, c = 1/2": (sp(0.5), 2, False, False, "unstable", 0.0, 0.5, 0.5),
    "NTP": (lzr.abc(a=(0, 0.5, 0.5), b=(0, 0, 0), c=0), 2, True, True, "kernel", 0.5, 1, 1),
    "MFP, one hidden layer": (lzr.abc(a=(0, 1, 1), b=(0, 0, 0), c=-1), 1, True, True, "feature learning", 0, 1, 1),
    "MFP, deep with a = 1": (lzr.abc(a=(0, 1, 1), b=(0, 0, 0), c=-1), 2, False, False, "trivial", 0, 1, 1),  # signals vanish
    "muP": (lzr.abc(a=(-0.5, 0, 0.5), b=(0.5,) * 3, c=0), 2, True, True, "feature learning", 0, 1, 1),
    "muP, list ii": (lzr.abc(a=(0, 0.5, 1), b=(0, 0, 0), c=-1), 2, True, True, "feature learning", 0, 1, 1),
    "muP, list iii": (lzr.abc(a=(0, 0, 0), b=(0, 0.5, 1), c=(-1, 0, 1)), 2, True, True, "feature learning", 0, 1, 1),
    "readout rate too small": (lzr.abc(a=(0, 0.5, 0.5), b=(0, 0, 0), c=1), 2, True, False, "trivial", 1.5, 2, 2),
    "features blow up": (lzr.abc(a=(0, 0.5, 1), b=(0, 0, 0), c=(-2, -2, -1)), 2, False, False, "unstable", -1, 1, 0),
    "UP_0.125": (lzr.abc(a=(0, 0, 0), b=(0, 0.5, 0.875), c=(-0.75, 0.25, 1)), 2, True, True, "kernel", 0.125, 1, 1),
}


@pytest.mark.parametrize("name", SGD)
def test_sgd_table(name):
    scheme, hidden, stable, nontrivial, regime, r, rate, reach = SGD[name]
    verdict, out = scheme.classify("sgd", hidden), scheme.sgd.output
    assert (verdict.stable, verdict.regime) == (stable, regime)
    assert verdict.r == pytest.approx(r, abs=1e-12)
    assert out.rate(False) == pytest.approx(rate)
    assert out.init + verdict.r == pytest.approx(reach)
    if stable:
        assert verdict.nontrivial == nontrivial
    assert verdict.faithful


def test_the_named_schemes_are_the_rows_of_the_table():
    for made, name in ((lzr.ntk(), "NTP"), (lzr.mup(), "muP"), (lzr.mean_field(), "muP"), (lzr.standard(True), None)):
        mine, row = made.classify("sgd"), SGD[name or "SP at its largest stable rate"][0].classify("sgd")
        assert (mine.regime, mine.r, mine.layer_r) == (row.regime, row.r, row.layer_r)
    assert lzr.standard().classify("sgd").regime == "unstable"
    assert lzr.spectral().classify("sgd").regime == lzr.spectral().classify("adam").regime == "feature learning"


def test_the_reason_names_the_inequality_that_breaks():
    assert "2a+c = 0.5 < 1" in sp(0.5).classify("sgd").why
    assert "hidden layers: a+b = 1, must be 1/2" in SGD["MFP, deep with a = 1"][0].classify("sgd").why
    assert "input layer: a+b = 0.5" in lzr.abc(a=(0, 0, 0.5), b=(0.5,) * 3, c=0).classify("sgd").why
    assert "blows up at initialisation" in lzr.abc(a=(0, 0.5, 0), b=(0, 0, 0), c=0).classify("sgd").why
    assert "features blow up" in SGD["features blow up"][0].classify("sgd").why


def test_sp_freezes_its_input_layer():
    assert sp(1).classify("sgd").layer_r == pytest.approx((1.5, 0.5, 0.0))
    assert lzr.mup().classify("sgd").layer_r == pytest.approx((0, 0, 0))


@pytest.mark.parametrize("s", [0, 0.1, 0.25, 0.5])
def test_the_richness_scale_is_the_uniform_parameterisation(s):
    scheme = lzr.richness(0.5 - s)
    for optimizer, entrywise in (("sgd", False), ("adam", True)):
        verdict = scheme.classify(optimizer)
        assert verdict.layer_r == pytest.approx((s, s, 0)), "every layer is trained maximally, the readout at NTC"
        assert scheme.layers(entrywise).output.init == pytest.approx(1 - s)
        assert verdict.stable and verdict.nontrivial and verdict.faithful
        assert verdict.regime == ("feature learning" if s == 0 else "kernel")


# rows (a, b, c, d) of Yang & Littwin 2023; then stable, regime, r, faithful
ENTRYWISE = {
    "SP": (((0, 0, 0, 0), (0, 0.5, 0, 0), (0, 0.5, 0, 0)), False, "unstable", -1, False),
    "NTP": (((0, 0, 0.5, 0.5), (0.5, 0, 1, 1), (0.5, 0, 0.5, 0.5)), True, "kernel", 0.5, True),
    "muP": (((0, 0, 0, 1), (0, 0.5, 1, 1), (1, 0, 0, 1)), True, "feature learning", 0, True),
    # the largest rate of SP at which nothing blows up, with gradients brought to size one
    "SP at n^-3/2": (((0, 0, 1.5, 0.5), (0, 0.5, 1.5, 0.5), (0, 0.5, 1.5, 0)), True, "kernel", 0.5, True),
    # b of the readout above its c: updates outgrow the initial weights
    "b > c": (((0, 0, 0, 1), (0, 0.5, 1, 1), (0.5, 0.7, 0.5, 0.5)), False, "unstable", 0, False),
    # muP with a gradient multiplier n^d that leaves gradients of the readout, or of a layer below it, at the size 1/n
    "muP, readout's d": (((0, 0, 0, 1), (0, 0.5, 1, 1), (1, 0, 0, 0)), True, "feature learning", 0, False),
    "muP, body's d": (((0, 0, 0, 1), (0, 0.5, 1, 0), (1, 0, 0, 1)), True, "feature learning", 0, False),
    "readout rate too large": (((0, 0, 0, 1), (0, 0.5, 1, 1), (0.5, 0.5, 0, 0.5)), False, "unstable", 0, True),
}


@pytest.mark.parametrize("name", ENTRYWISE)
def test_entrywise_table(name):
    rows, stable, regime, r, faithful = ENTRYWISE[name]
    verdict = classify(Layers(*(Exponents(*row) for row in rows)), entrywise=True)
    assert (verdict.stable, verdict.regime, verdict.faithful) == (stable, regime, faithful)
    assert verdict.r == pytest.approx(r)


def test_the_named_entrywise_schemes_are_the_rows_of_the_table():
    for made, name in ((lzr.ntk(), "NTP"), (lzr.mup(), "muP")):
        assert made.entrywise == Layers(*(Exponents(*row) for row in ENTRYWISE[name][0]))
    mine = lzr.standard(max_stable=True).classify("adam")
    assert (mine.stable, mine.regime, mine.r) == (True, "kernel", 0.5)


def test_sp_with_adam_at_rate_1_over_n_moves_features():
    verdict = sp(1).classify("adam")
    assert verdict.r == 0, "unlike SGD at the same rate"
    assert sp(1).classify("sgd").r == 0.5


exponent = st.integers(-8, 8).map(lambda k: k / 4)
layer = st.tuples(exponent, exponent, exponent, exponent).map(lambda row: Exponents(*row))
layers = st.tuples(layer, layer, layer).map(lambda rows: Layers(*rows))
# the table's neighbourhood, so that stable schemes are met too
near = st.sampled_from([lzr.mup(), lzr.ntk(), lzr.richness(0.25), lzr.standard(True), lzr.mean_field(), sp(0.5)])


@given(layers, st.tuples(exponent, exponent, exponent), st.booleans(), st.sampled_from([1, 2]))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_verdict_does_not_see_the_gauge(rows, thetas, entrywise, hidden):
    moved = Layers(*(row.shifted(theta, entrywise) for row, theta in zip(rows, thetas, strict=True)))
    one, two = (replace(classify(it, entrywise, hidden), why="") for it in (moved, rows))  # the words may quote b and c
    assert one == two


@given(near, st.tuples(*[st.floats(-2, 2)] * 3), st.sampled_from(["sgd", "adam"]))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_named_scheme_is_its_shift(scheme, thetas, optimizer):
    one, two = scheme.classify(optimizer), scheme.shift(thetas).classify(optimizer)
    assert (one.regime, one.stable, one.nontrivial, one.faithful) == (two.regime, two.stable, two.nontrivial, two.faithful)
    assert math.isclose(one.r, two.r, abs_tol=1e-9)


@given(layers, st.sampled_from([1, 2]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_r_with_one_rate_is_definition_3_2(rows, hidden):
    c = rows.input.c
    rows = Layers(*(Exponents(row.a, row.b, c) for row in rows))
    body = [2 * rows.input.a + 1] + [2 * rows.hidden.a] * (hidden > 1)
    r = min(rows.output.a + rows.output.b, 2 * rows.output.a + c) + c - 1 + min(body)
    verdict = classify(rows, False, hidden)
    assert verdict.r == pytest.approx(r, abs=1e-12)
    stable = (
        rows.input.a + rows.input.b == 0
        and (hidden == 1 or rows.hidden.a + rows.hidden.b == 0.5)
        and rows.output.a + rows.output.b >= 0.5
        and r >= 0
        and 2 * rows.output.a + c >= 1
        and rows.output.a + rows.output.b + r >= 1
    )
    assert verdict.stable == stable
    if stable:
        assert verdict.nontrivial == (rows.output.a + rows.output.b + r == 1 or 2 * rows.output.a + c == 1)
        assert (verdict.regime == "feature learning") == (verdict.nontrivial and r == 0)


# --- measured on networks -------------------------------------------------------------------------------------------------

WIDTHS, SEEDS, INPUTS = (64, 128, 256, 512), 32, 10


def one_step(rows, n, seed, lr=0.3):
    """RMS of the last hidden layer, of its change and of the output's change in one SGD step of a two-hidden-layer net."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (INPUTS, n, n, 1)
    x = torch.randn(4, INPUTS, generator=generator, dtype=torch.float64)  # first, so that a seed's inputs are one at all widths
    w = [
        (n**-row.b * torch.randn(q, p, generator=generator, dtype=torch.float64)).requires_grad_()
        for row, p, q in zip(rows, sizes[:-1], sizes[1:], strict=True)
    ]

    def forward(weights):
        h1 = x @ (n**-rows.input.a * weights[0]).T / INPUTS**0.5
        h2 = torch.tanh(h1) @ (n**-rows.hidden.a * weights[1]).T
        return h2, torch.tanh(h2) @ (n**-rows.output.a * weights[2]).T

    h, f = forward(w)
    grads = torch.autograd.grad(f.sum(), w)  # the error signal is one
    moved = [v - lr * n**-row.c * grad for v, row, grad in zip(w, rows, grads, strict=True)]
    h_after, f_after = forward(moved)
    return [float(v.detach().square().mean().sqrt()) for v in (h, h_after - h, f_after - f)]


def slopes(rows):
    """Slope in log-log over widths with its standard error, for each of the three sizes."""
    logs = np.log([[one_step(rows, n, seed) for seed in range(SEEDS)] for n in WIDTHS])  # widths x seeds x sizes
    x = np.log(WIDTHS) - np.log(WIDTHS).mean()
    by_seed = np.einsum("w,wsk->sk", x, logs) / (x**2).sum()
    return by_seed.mean(0), by_seed.std(0, ddof=1) / math.sqrt(SEEDS)


@pytest.mark.parametrize("scheme", [lzr.ntk(), lzr.richness(0.25), lzr.mup(), lzr.mean_field(), sp(1)], ids=lambda s: s.name)
def test_features_move_as_the_verdict_says(scheme):
    mean, error = slopes(scheme.sgd)
    expected = (0.0, -scheme.classify("sgd").r, 0.0)
    assert (abs(mean - expected) < 0.06 + 3 * error).all(), (mean, error, expected)
    assert (error < 0.06).all(), "the interval is too wide to tell anything"


@pytest.mark.parametrize("r", [0.0, 0.25, 0.5])
def test_the_richness_table_needs_its_square_roots(r):
    """g = A/sqrt(n_0), A/sqrt(n), 1/sqrt(n) with sigma = 1/A moves the function; A/n_0, A/n, 1/n does not."""
    right, _ = slopes(lzr.abc(a=(-r, 0.5 - r, 0.5), b=(r, r, r), c=0).sgd)
    printed, error = slopes(lzr.abc(a=(-r, 1 - r, 1), b=(r, r, r), c=0).sgd)
    assert abs(right[2]) < 0.1
    assert printed[0] + 3 * error[0] < -0.4, "signals vanish"
    assert printed[2] + 3 * error[2] < -1, "the function does not move"
