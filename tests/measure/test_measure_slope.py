"""Slopes and their intervals."""

import math

import numpy as np
import pytest

from lazyrich.errors import LazyrichError
from lazyrich.measure import fit_slope
from lazyrich.measure.scatter import Scatter
from lazyrich.measure.slope import Slope

WIDTHS = [64, 128, 256, 512]


def test_an_exact_power_is_found_whatever_level_each_seed_has():
    slope = fit_slope(WIDTHS, [[c * w**-0.75 for w in WIDTHS] for c in (1.0, 30.0)])
    assert slope.value == pytest.approx(-0.75, abs=1e-10)
    assert slope.half_width < 1e-6


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        table = [[w**0.3 * math.exp(0.2 * rng.standard_normal()) for w in WIDTHS] for _ in range(3)]
        slope = fit_slope(WIDTHS, table)
        covered += slope.low <= 0.3 <= slope.high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("seeds", [3, 10])
def test_what_all_seeds_deviate_by_alike_is_not_averaged_away(seeds):
    draw, covered = np.random.default_rng(0).standard_normal, 0
    for _ in range(200):
        table = np.exp(-0.5 * np.log(WIDTHS) + 0.1 * draw((1, 4)) + 0.02 * draw((seeds, 4)) + draw((seeds, 1)))
        table[0, 1] = math.nan if seeds == 10 else table[0, 1]
        slope = fit_slope(WIDTHS, table)
        covered += slope.low <= -0.5 <= slope.high
    assert covered >= 180  # seeds as if they told all: two thirds of three, a third of ten


def test_two_widths_and_one_seed_have_no_lack_of_fit():
    two = fit_slope([64, 128], [[1.0, 2.0], [1.0, 2.1], [1.0, 1.9]])
    assert two.half_width == pytest.approx(fit_slope([64, 128], [[1.0, 2.0], [1.0, 2.1], [1.0, 1.9]], bent=False).half_width)
    bent = [[1.0, 2.0, 3.0, 9.0]]
    assert fit_slope(WIDTHS, bent) == fit_slope(WIDTHS, bent, bent=False)
    assert fit_slope(WIDTHS, bent * 2).half_width == pytest.approx(fit_slope(WIDTHS, bent).half_width)


def test_the_slope_is_that_of_the_geometric_mean():
    rng = np.random.default_rng(1)
    table = np.exp(rng.standard_normal((5, 4)))
    mean = np.log(table).mean(0)
    expected = np.polyfit(np.log(WIDTHS), mean, 1)[0]
    assert fit_slope(WIDTHS, table.tolist()).value == pytest.approx(expected, abs=1e-10)


def test_zeros_and_nans_are_left_out():
    table = [[1.0, 2.0, float("nan"), 8.0], [1.0, 2.0, 0.0, 8.0]]
    slope = fit_slope([1, 2, 4, 8], table)
    assert slope.value == pytest.approx(1.0)
    assert slope.points == 6


def test_too_little_to_fit_is_nan_or_an_endless_interval():
    assert math.isnan(fit_slope([64, 128], [[1.0, float("nan")]]).value)
    assert math.isnan(fit_slope([64, 128], [[1.0, float("nan")], [float("nan"), 2.0]]).value)
    assert math.isinf(fit_slope([64, 128], [[1.0, 2.0]]).high)


def test_a_row_of_another_length_is_refused():
    with pytest.raises(LazyrichError, match="expected \\(seeds, 2\\)"):
        fit_slope([64, 128], [[1.0, 2.0, 3.0]])


def test_one_seed_at_two_widths_gives_the_rounded_slope_too():
    assert fit_slope([10, 30], [[10**-0.3, 30**-0.3]]).value == -0.3


@pytest.mark.parametrize(
    ("widths", "values"), [(None, [[1.0]]), ([0, 2], [[1.0, 2.0]]), ([-1, 2], [[1.0, 2.0]]), (["a", 2], [[1.0, 2.0]]),
                           ([1, 2], [["a", 2.0]]), ([1, 2], [[1.0, 2.0], [1.0]]), ([1, 2], None)]
)  # fmt: skip
def test_what_is_no_table_of_numbers_is_refused(widths, values):
    with pytest.raises(LazyrichError, match="got .*expected"):
        fit_slope(widths, values)


def test_a_slope_that_rounds_to_zero_has_no_minus():
    assert str(Slope(-0.001, -0.1, 0.098, 12)) == "+0.00 ± 0.10"


def test_values_that_are_not_finite_are_no_part_of_the_scatter():
    full, short = [1.0, 1.2, 1.1, 1.3], [1.1, 0.9, 1.0]
    reach = Scatter([full, short]).reach(0, 1)
    for missing in (math.nan, math.inf):
        assert Scatter([full, [*short, missing]]).reach(0, 1) == reach > 0


def test_one_seed_beside_groups_of_several_may_differ_by_anything():
    assert Scatter([[1.0], [1.0, 1.1]]).reach(0, 1) == math.inf
