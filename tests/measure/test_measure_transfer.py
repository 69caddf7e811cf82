"""Transfer: optima of known curves to the digit, and a study that finds what a kill left undone."""

import dataclasses
import math
import re
import sys

import numpy as np
import pytest
import torch

import lazyrich as lzr
from lazyrich.errors import LazyrichError, SweepError, Unfinished, UsageError
from lazyrich.measure.debt import debts
from lazyrich.measure.ends import ends_of
from lazyrich.measure.optimum import Optimum, _stable, loss_at, optimum
from lazyrich.measure.slope import fit_slope
from lazyrich.measure.transfer_result import TransferResult, summarise, transferred
from lazyrich.scaling.obligation import Obligation
from lazyrich.sweep import Store

LRS = [2.0**k for k in range(-8, 1)]


def bowl(best: float, loss: float = 0.1, steep: float = 0.2) -> list[float]:
    """log(loss) a parabola in log2(lr) around ``best`` (in octaves)."""
    return [loss * math.exp(steep * (math.log2(lr) - best) ** 2) for lr in LRS]


@pytest.mark.parametrize("best", [-5.0, -4.3, -2.7])
def test_the_optimum_of_a_parabola_is_exact(best):
    found = optimum(LRS, bowl(best))
    assert math.log2(found.lr) == pytest.approx(best, abs=1e-9)
    assert found.loss == pytest.approx(0.1)
    assert not found.edge


def test_diverged_runs_do_not_count_and_an_end_of_the_grid_is_told():
    losses = bowl(-4.0)
    losses[6:] = [math.nan, math.inf, math.nan]
    assert math.log2(optimum(LRS, losses).lr) == pytest.approx(-4.0, abs=1e-9)
    falling = [2.0**-k for k in range(len(LRS))]
    assert optimum(LRS, falling).edge
    assert optimum(LRS, falling).lr == LRS[-1]
    stopped = [*falling[:5], *[math.nan] * 4]
    assert not optimum(LRS, stopped).edge, "beyond it training diverges, so it is no end of the grid"
    between = [3.0, math.nan, 2.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert optimum(LRS, between).edge, "one that diverged on the way does not move the grid's end"
    assert optimum(LRS, [float(k) for k in range(1, 10)]).edge, "the first is an end too"
    assert math.isnan(optimum(LRS, [math.nan] * 9).lr)


@pytest.mark.parametrize("start", [math.inf, 0.46])
def test_a_point_that_exploded_beyond_the_lowest_is_no_part_of_its_bowl(start):
    fine = [0.372, 0.341, 0.304, 0.266, 0.242, 0.224, 0.217, 0.323, 6.53, 1.29e16, 6.5e29]
    coarse = [0.394, 0.331, 0.25, 4.017]
    for lrs, losses in (([2.0 ** (k / 2) for k in range(-6, 5)], fine), ([0.03125, 0.125, 0.5, 2.0], coarse)):
        found = optimum(lrs, losses, start)
        assert found.lr == lrs[int(np.argmin(losses))] and found.loss == pytest.approx(min(losses))
        assert not found.edge


def test_a_cliff_of_any_height_below_which_the_loss_falls_leaves_the_lowest_point():
    for height in (1.0, 3.0, 10.0, 300.0):
        losses = [2.3 / (1 + 4 * 2.0**k) * (1.0 if k < 0 else math.exp(height * (k + 1))) for k in range(-8, 1)]
        found = optimum(LRS, losses, 2.3)
        assert 0.85 * min(losses) <= found.loss <= min(losses)
        assert abs(math.log2(found.lr / LRS[7])) <= 0.5
    assert optimum(LRS, [3.0, 2.9, 2.7, 2.5, 2.4, 2.5, 2.7, 2.9, 3.0], 2.3).lr == pytest.approx(LRS[4]), "nothing is gained"


@pytest.mark.parametrize(
    ("octaves", "heights", "start", "kept"),
    [
        ([-3, -2, -1, 0, 1, 2, 3], [9, 4, 1, 0, 1, 4, 9], math.inf, 7),  # the bend of the points behind it is at most 2
        ([-3, -2, -1, 0, 1, 2, 3], [9, 4, 1, 0, 11, 35, 71], math.inf, 7),  # three times the bend: 6 ahead (ahead + 1)
        ([-3, -2, -1, 0, 1, 2, 3], [9, 4, 1, 0, 13, 35, 71], math.inf, 4),
        ([-3, -2, -1, 0, 1, 2, 3], [9, 4, 1, 0, 11, 37, 71], math.inf, 5),
        ([-3, -2, -1, 0, 1, 2, 3], [9, 4, 1, 0, 11, 35, 73], math.inf, 6),
        ([-3, -2, -1, 0, 1, 2, 3], [9, 4, 1, 0, 1, 4, 9], 3.5, 5),  # above the loss at the start
        ([-3, -2, -1, 0, 1, 2, 3], [9, 4, 1, 0, 1, 4, 9], -1.0, 7),  # nothing is gained, all are
        ([-1.5, -1, 0, 1], [1.5, 1, 0, 11], math.inf, 4),  # a bend of 1.5 / (1.5 * 0.5)
        ([-1.5, -1, 0, 1], [1.5, 1, 0, 13], math.inf, 3),
        ([-1, 0, 1, 2], [1, 0, 230, 230], math.inf, 4),  # one point behind it, with a bottom halfway: 30 times a bend of 4
        ([-1, 0, 1, 2], [1, 0, 250, 250], math.inf, 2),
        ([-2, 0, 1, 2], [1, 0, 8, 8], math.inf, 4),  # as far as the parabola reaches: 3 times
        ([-2, 0, 1, 2], [1, 0, 10, 10], math.inf, 2),
    ],
)
def test_points_are_gone_beyond_a_multiple_of_the_largest_bend_and_above_the_start(octaves, heights, start, kept):
    assert _stable(np.array(octaves, float), np.array(heights, float) - 0.25, start - 0.25) == kept


def test_the_lowest_point_is_the_answer_where_no_parabola_has_its_bottom_between():
    assert optimum([1.0, 4.0, 8.0], [1.0, 0.5, math.inf], 2.0).step == 2.0, "the larger gap"
    assert optimum([1.0, 2.0, 8.0], [1.0, 0.5, math.inf], 2.0).step == 2.0
    assert optimum([2.0], [1.0], 2.0).step == 0.0


def test_the_loss_between_grid_points_is_interpolated_and_infinite_beyond():
    assert loss_at(LRS, bowl(-4.0), 2.0**-4) == pytest.approx(0.1)
    middle = loss_at([1.0, 4.0], [1.0, 16.0], 2.0)
    assert middle == pytest.approx(4.0)
    assert loss_at(LRS, [1.0] * 5 + [math.nan] * 4, 2.0**-3) == math.inf


def study(shift: float, scatter: float = 0.0, widths=(64, 128, 256), wider: float = 0.9):
    """Curves of three seeds whose optimum moves by ``shift`` octaves a doubling."""
    curves, start = {}, {}
    for i, width in enumerate(widths):
        moves = (-scatter, 0.0, scatter) if i % 2 else (scatter, 0.0, -scatter)
        curves[width] = np.array([bowl(-3.0 + shift * i + move, 0.1 * wider**i) for move in moves])
        start[width] = 2.3
    return transferred("s", LRS, curves, start)


@pytest.mark.parametrize(("shift", "word"), [(0.0, True), (0.1, True), (-1.0, False), (-0.5, False)])
def test_the_shift_is_the_slope_of_the_optima(shift, word):
    found = study(shift, scatter=0.02)
    assert found.shift.value == pytest.approx(shift, abs=1e-6)
    assert found.transfers is word
    assert ("does not transfer" in found.sentence) is not word


def test_the_regret_is_the_part_of_the_gain_that_the_transferred_rate_costs():
    found = study(-1.0)
    at = 0.081 * math.exp(0.2 * 4)  # two octaves off at the widest
    assert found.regret[256] == pytest.approx((at - 0.081) / (2.3 - 0.081), rel=1e-6)
    assert found.regret[64] == pytest.approx(0.0, abs=1e-9)
    assert "Multiply the learning rate by 0.5 at every doubling" in found.sentence


def test_scatter_and_ends_of_the_grid_make_no_claim():
    assert study(-0.3, scatter=1.0).transfers is None
    assert "inconclusive" in study(-0.3, scatter=1.0).sentence
    at_end = study(3.0)
    assert at_end.edges == (128, 256)
    assert at_end.transfers is None
    assert "end of the grid" in at_end.sentence


def test_the_regret_has_an_interval_from_the_seeds_scatter_at_both_rates():
    draw, covered, studies = np.random.default_rng(0).standard_normal, 0, 100
    for _ in range(studies):
        wide = [
            [v * math.exp(0.3 * (math.log2(lr) + 3) * t) for lr, v in zip(LRS, bowl(-4.0), strict=True)] for t in 0.1 * draw(3)
        ]
        found = transferred("s", LRS, {64: np.array([bowl(-3.0)] * 3), 128: np.array(wide)}, {64: 2.3, 128: 2.3})
        truth = 0.1 * (math.exp(0.2) - 1) / (2.3 - 0.1)
        covered += abs(found.regret[128] - truth) <= found.regret_error[128]
        assert found.regret_error[64] == 0.0
    assert covered >= 0.9 * studies
    assert f"{100 * found.regret[128]:.2f} ± {100 * found.regret_error[128]:.2f}%" in str(found_result(found))
    assert math.isnan(
        transferred("s", LRS, {w: np.array([bowl(-3.0)]) for w in (64, 128)}, {64: 2.3, 128: 2.3}).regret_error[128]
    )


def found_result(found):
    made = {"command": "", "versions": {}, "date": "", "notes": []}
    return TransferResult("t", (found,), tuple(found.curves), found.ends.lrs, {}, made)


@pytest.mark.parametrize(("octaves", "truth"), [(2, 0.3), (2, -0.3), (1, 0.0)])
def test_a_rate_that_is_the_last_before_divergence_is_known_to_a_step_of_the_grid(octaves, truth):
    lrs, words, draw = [0.1 * 2.0 ** (octaves * k) for k in range(-4, 5)], [], np.random.default_rng(0).standard_normal
    for _ in range(10):
        curves = {}
        for i, width in enumerate((64, 128, 256, 512)):
            last = [0.1 * 2 ** (0.5 + truth * i + 0.05 * draw()) for _ in range(3)]
            curves[width] = np.array([[1 / (1 + 5 * lr) if lr <= at else math.nan for lr in lrs] for at in last])
        found = transferred("s", lrs, curves, dict.fromkeys(curves, 2.3))
        assert found.shift.low <= truth <= found.shift.high
        words.append(found.transfers)
    assert all(word is True for word in words) if truth == 0 else True not in words
    assert truth <= 0 or "at width 64, 128, 256, 512 the best rate is known to a step of the grid only" in found.sentence


def test_a_seed_whose_best_rate_is_an_end_of_the_grid_makes_no_claim():
    curves = {width: np.array([bowl(-3.0), bowl(-3.0), bowl(-3.0)]) for width in (64, 128)}
    curves[128][2] = [2.0**-k / 4 for k in range(9)]
    found = transferred("s", LRS, curves, dict.fromkeys(curves, 2.3))
    assert not found.best[128].edge and found.edges == (128,) and found.transfers is None
    assert "at width 128 is an end of the grid for some seeds" in found.sentence


def test_wider_is_better_is_checked():
    assert study(0.0).wider_is_better
    assert not study(0.0, wider=1.3).wider_is_better


def test_one_seed_tells_no_scatter_and_few_seeds_raise_few_false_alarms():
    def better(losses):
        curves = {16 * 2**i: np.array([bowl(-4.0, loss) for loss in row]) for i, row in enumerate(losses)}
        return transferred("s", LRS, curves, dict.fromkeys(curves, 2.3)).wider_is_better

    assert better([[0.1], [0.2]]) is None and better([[0.1], [0.05]]) is None
    draw = np.random.default_rng(0).standard_normal
    alarms = [sum(not better(0.1 * np.exp(0.05 * draw((widths, 2)))) for _ in range(200)) for widths in (2, 4)]
    assert max(alarms) <= 10  # two standard errors of two seeds: 26 and more
    assert not better([[0.100, 0.101], [0.120, 0.121]])


CURVED = {
    "steeper above": lambda d: np.where(d < 0, 0.04, 0.25) * d**2,
    "wedge": lambda d: 0.2 * abs(d),
    "smooth": lambda d: 0.1 * (np.exp(0.9 * d) - 0.9 * d - 1),
    "falls until it diverges": lambda d: np.where(d > 0, np.nan, -0.25 * d),
    "parabola": lambda d: 0.05 * d**2,
}


def drawn(kind, shift, widths, seeds, noise, draw, rates=tuple(2.0**k for k in range(-8, 3))):
    """A study of curves that differ in where their lowest point lies alone, at any place of the grid."""
    octaves, first = np.log2(rates), draw.uniform(-3, -2)
    rows = {
        64 * 2**i: 0.5 * np.exp(CURVED[kind](octaves - first - shift * i) + noise * draw.standard_normal((seeds, len(rates))))
        for i in range(widths)
    }
    return transferred("s", rates, rows, dict.fromkeys(rows, 2.3))


@pytest.mark.parametrize("kind", ["steeper above", "wedge", "falls until it diverges"])
def test_where_the_grid_lies_on_a_curve_makes_no_width_worse(kind):
    draw = np.random.default_rng(0)
    told = [drawn(kind, -0.5, 4, 3, 0.005, draw).wider_is_better for _ in range(15)]
    assert told.count(False) <= 1, "most of these studies said so of the seeds' scatter alone"
    assert None in told


def test_what_the_grid_hides_is_said_and_what_it_does_not_is_found(tmp_path):
    draw = np.random.default_rng(3)
    hidden = next(found for _ in range(20) if (found := drawn("wedge", -0.5, 4, 3, 0.005, draw)).wider_is_better is None)
    alone = transferred("s", LRS, {8: np.array([bowl(-3.0)]), 16: np.array([bowl(-3.0)])}, {8: 2.3, 16: 2.3})
    told = (hidden, "known only to a step of the grid", "by the grid"), (alone, "not measured", "not measured")
    for study_of, words, cell in told:
        result = found_result(study_of)
        assert words in str(result)
        page = lzr.render(result, tmp_path / "page.html").read_text()
        assert cell in page.split("wider is better</th>")[1].split("</table>")[0]
    clean = [drawn("parabola", -0.3, 4, 3, 0.005, draw).wider_is_better for _ in range(10)]
    assert clean.count(None) <= 3


@pytest.mark.parametrize("widths", [2, 3, 4])
@pytest.mark.parametrize("kind", ["steeper above", "wedge", "smooth"])
def test_the_shift_of_a_curve_that_is_no_parabola_is_within_its_interval(kind, widths):
    draw = np.random.default_rng(0)
    studies = [drawn(kind, -0.3, widths, seeds, 0.003, draw).shift for seeds in (3, 8) for _ in range(10)]
    assert sum(shift.low <= -0.3 <= shift.high for shift in studies) >= 17


def test_the_interval_of_a_clean_parabola_grows_by_half_at_most():
    draw = np.random.default_rng(0)
    found = [drawn("parabola", 0.0, 4, 3, 0.015, draw) for _ in range(20)]
    wider = [f.shift.half_width / fit_slope(list(f.curves), rates_of(f), bent=False).half_width for f in found]
    assert np.median(wider) <= 1.5
    assert sum(f.shift.low <= 0 <= f.shift.high for f in found) >= 18


def rates_of(found):
    rates = [2.0**k for k in range(-8, 3)]
    return [[optimum(rates, rows[seed], 2.3).lr for rows in found.curves.values()] for seed in range(3)]


def test_the_best_loss_is_not_far_above_one_that_was_measured():
    rates, measured = (
        [2 ** (-4 + k / 2) for k in range(10)],
        [1.97, 1.804, 1.55, 1.222, 0.901, 0.657, 0.535, 0.705, 3.577, 31.8],
    )
    found = optimum(rates, measured, 2.4)
    assert 0.95 * min(measured) <= found.loss <= min(measured)
    wedge = [math.exp(abs(k) / 2) for k in range(-4, 5)]
    assert optimum([2 ** (k / 2) for k in range(-4, 5)], wedge).loss <= 1.05


def test_a_wider_loss_that_is_larger_within_the_scatter_is_told_as_that(tmp_path):
    def told(*factors):
        scattered = {
            8 * 2**i: [bowl(-3.0, 0.1 * f * noise) for noise in ((0.9, 1.0, 1.1) if i else (1.1, 0.9, 1.0))]
            for i, f in enumerate(factors)
        }
        rows = [{"plan": 0, "width": w, "start": 2.3, "losses": row} for w, rows in scattered.items() for row in rows]
        found = summarise(
            [lzr.plan(PAIR, lzr.mup(), "adam")],
            list(scattered),
            LRS,
            rows,
            {},
            {"command": "", "versions": {}, "date": "", "notes": []},
        )
        assert found.schemes[0].wider_is_better
        return str(found), lzr.render(found, tmp_path / "page.html").read_text()

    said, page = told(1.0, 1.02, 0.9)
    assert re.search(r"adam: the loss rises \(0.0\d+ to 0.1\d+ at width 16\), but within the seeds' scatter: add seeds", said)
    assert "no width is worse" not in said and "<td>within the scatter</td>" in page
    said, page = told(1.0, 0.9)
    assert "no width is worse than a narrower one" in said and "<td>yes</td>" in page


def test_a_width_with_a_loss_that_rises_a_little_at_every_doubling_is_worse_than_the_first():
    def rising(count, *orders):
        curves = {
            16 * 2**i: np.array([bowl(-3.0, 0.1 * 1.05**i * (1 + 0.05 * seed)) for seed in orders[i % len(orders)]])
            for i in range(count)
        }
        return transferred("s", LRS, curves, dict.fromkeys(curves, 2.3)).wider_is_better

    assert rising(2, (-1, 0, 1), (1, -1, 0))
    assert not rising(6, (-1, 0, 1)), "every seed finds it so"


def test_losses_that_are_zero_or_negative_are_losses():
    plateau = [1.0, 0.5, 0.1, 0.0, 0.0, 0.0, 0.2, 1.0, 2.0]
    assert optimum(LRS, plateau).lr == pytest.approx(2.0**-4, rel=0.5)
    assert loss_at(LRS, plateau, LRS[4]) == pytest.approx(0.0, abs=0.02)
    below = [0.05 * (math.log2(lr) + 4.3) ** 2 - 5 for lr in LRS]
    assert math.log2(optimum(LRS, below).lr) == pytest.approx(-4.3, abs=1e-9)
    assert optimum(LRS, below).loss == pytest.approx(-5.0)
    curves = {w: np.array([below, below]) for w in (16, 32)}
    assert transferred("s", LRS, curves, {16: 0.0, 32: 0.0}).transfers


def test_the_narrowest_width_has_no_regret_on_any_grid():
    rough = np.array([[5.0, 1.0, 3.0, 9.0]])
    found = transferred("s", [0.001, 0.01, 0.1, 1.0], {16: rough, 32: rough}, {16: 9.0, 32: 9.0})
    assert found.regret[16] == found.regret[32] == 0.0


def test_a_width_that_gains_nothing_is_not_said_to_diverge():
    early, late = [[5, 4, 3.5, 4, 5, 6.0]], [[4, 3.5, 4, 5, 6, 7.0]]
    lrs, start = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32], {16: 2.3, 32: 2.3, 64: 2.3}
    moved = transferred("s", lrs, {16: np.array(early), 32: np.array(late), 64: np.array(late)}, start)
    kept = transferred("s", lrs, {w: np.array(early) for w in start}, start)
    assert "diverges" not in moved.sentence + kept.sentence
    assert "training gains nothing" in kept.sentence
    assert "nan" not in kept.sentence
    lost = transferred("s", lrs, {16: np.array(early), 32: np.array(early) * math.nan, 64: np.array(early)}, start)
    assert lost.wider_is_better is None


def test_an_end_of_the_grid_makes_no_claim_on_depth():
    falling = {"losses": [2.0, 1.0, 0.5, 0.4], "start": 3.0}
    plans = [lzr.plan(lzr.Family(lzr.zoo.residual_mlp, base=8, depth=d), lzr.mup(), "adam") for d in (1, 2)]
    trials = [{"plan": p, "width": w, "seed": 0, **falling} for p in (0, 1) for w in (8, 16)]
    found = summarise(plans, [8, 16], [1e-3, 1e-2, 1e-1, 1.0], trials, {}, {})
    assert found.depths[0].edges == (1, 2)
    assert "depth 1, 2 is an end of the grid" in found.depths[0].sentence


PAIR = lzr.Family(lzr.zoo.mlp, base=8)
SMALL = {"data": "digits", "widths": [8, 16], "lrs": [1e-3, 4e-3, 1.6e-2, 6.4e-2], "seeds": 2, "steps": 8, "evaluate": 64}


def losses(result):
    return np.array([row["loss"] for row in result.rows()])


def test_stacked_and_single_trainings_agree_and_the_same_call_gives_the_same_numbers():
    plan = lzr.plan(PAIR, lzr.mup(), "adam")
    first, again, loop = (lzr.transfer(plan, engine=e, **SMALL) for e in ("vmap", "vmap", "loop"))
    assert np.array_equal(losses(first), losses(again))
    np.testing.assert_allclose(losses(first), losses(loop), rtol=1e-3)


def test_a_stopped_study_is_continued(tmp_path, monkeypatch):

    module = sys.modules["lazyrich.measure.transfer"]
    plan = lzr.plan(PAIR, lzr.mup(), "adam")
    whole, trained = module.run_row, []

    def counted(grid, plan, scheme, width, seed, lrs):
        trained.append((width, seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return whole(grid, plan, scheme, width, seed, lrs)

    monkeypatch.setattr(module, "run_row", counted)
    with pytest.raises(KeyboardInterrupt):
        lzr.transfer(plan, folder=tmp_path / "run", **SMALL)
    result = lzr.transfer(plan, folder=tmp_path / "run", **SMALL)
    assert trained == [(8, 0), (16, 0), (8, 1), (8, 1), (16, 1)]
    monkeypatch.undo()
    assert np.array_equal(losses(result), losses(lzr.transfer(plan, **SMALL)))


def test_more_widths_and_seeds_continue_a_study_and_other_settings_do_not(tmp_path):
    plan, shown = lzr.plan(PAIR, lzr.mup(), "adam"), []
    lzr.transfer(plan, folder=tmp_path / "run", **SMALL)
    more = SMALL | {"widths": [8, 16, 24]}
    lzr.transfer(plan, folder=tmp_path / "run", progress=lambda done, total, what: shown.append((done, total)), **more)
    assert shown[0] == (4 * len(SMALL["lrs"]), 6 * len(SMALL["lrs"]))
    other = lzr.transfer(plan, folder=tmp_path / "run", **(SMALL | {"steps": SMALL["steps"] + 1}))
    assert "6 finished trials of other settings" in other.reproduce["notes"][0]


def test_processes_and_shards_give_the_same_numbers(tmp_path):
    plan = lzr.plan(PAIR, lzr.mup(), "adam")
    whole = lzr.transfer(plan, folder=tmp_path / "one", executor="processes", workers=1, **SMALL)
    assert np.array_equal(losses(whole), losses(lzr.transfer(plan, **SMALL)))
    for part in ("1/2", "2/2"):
        with pytest.raises(Unfinished, match=f"shard {part}: 2 of 4 trials are in"):
            lzr.transfer(plan, folder=tmp_path / part.replace("/", "of"), shard=part, **SMALL)
    with Store(tmp_path / "all") as store:
        assert store.merge(tmp_path / "1of2", tmp_path / "2of2") == 4
    assert np.array_equal(losses(whole), losses(lzr.transfer(plan, folder=tmp_path / "all", **SMALL)))


def test_shards_go_on_with_other_learning_rates(tmp_path, monkeypatch):
    module, trained = sys.modules["lazyrich.measure.transfer"], []
    plan = lzr.plan(PAIR, lzr.mup(), "adam")

    def known(grid, plan, scheme, width, seed, lrs):
        trained.extend((width, seed, lr) for lr in lrs)
        row = {"plan": plan, "scheme": scheme, "width": width, "seed": seed, "start": 2.3, "lrs": lrs}
        return row | {"losses": [width * lr + seed + 1 for lr in lrs]}

    monkeypatch.setattr(module, "run_row", known)
    options = SMALL | {"seeds": 3}
    for lrs in (options["lrs"], sorted([*options["lrs"], 0.1])):
        for part in ("1/2", "2/2"):
            with pytest.raises(Unfinished, match=f"shard {part}: 3 of 6 trials are in"):
                lzr.transfer(plan, folder=tmp_path / part.replace("/", "of"), shard=part, **options | {"lrs": lrs})
    assert len(trained) == len(set(trained)) == 6 * 5
    with Store(tmp_path / "all") as store:
        store.merge(tmp_path / "1of2", tmp_path / "2of2")
    found = lzr.transfer(plan, folder=tmp_path / "all", **options | {"lrs": lrs})
    assert len(trained) == 30
    assert [(row["width"], row["seed"], row["lr"]) for row in found.rows()] == sorted(trained)
    with pytest.raises(Unfinished, match="shard 9/9: 0 of 6 trials"):
        lzr.transfer(plan, folder=tmp_path / "none", shard="9/9", **options)


def test_all_widths_of_one_seed_come_first(monkeypatch):
    module, seen = sys.modules["lazyrich.measure.transfer"], []

    def noted(function, grid, trials, *_, **__):
        seen.extend((trial["seed"], trial["width"]) for trial in trials)
        raise Unfinished("seen")

    monkeypatch.setattr(module, "run_trainings", noted)
    with pytest.raises(Unfinished):
        lzr.transfer(lzr.plan(PAIR, lzr.mup(), "adam"), **SMALL)
    assert seen == [(0, 8), (0, 16), (1, 8), (1, 16)]


def test_a_training_that_fails_is_said_after_the_others_are_kept(tmp_path, monkeypatch):
    module, plan = sys.modules["lazyrich.measure.transfer"], lzr.plan(PAIR, lzr.mup(), "adam")
    whole = module.run_row

    def broken(grid, plan, scheme, width, seed, lrs):
        if (width, seed) == (8, 1):
            raise RuntimeError("no luck")
        return whole(grid, plan, scheme, width, seed, lrs)

    monkeypatch.setattr(module, "run_row", broken)
    with pytest.raises(SweepError, match=r"3 done, 1 failed[\s\S]*width=8, seed=1.*RuntimeError: no luck"):
        lzr.transfer(plan, folder=tmp_path / "run", **SMALL)


def test_a_learning_rate_that_diverges_is_a_result():
    plan = lzr.plan(PAIR, lzr.standard(), "sgd")
    found = lzr.transfer(plan, **(SMALL | {"lrs": [0.01, 0.1, 1.0, 1e4], "loss": "mse", "data": toy(), "evaluate": 32}))
    assert np.isnan(losses(found).reshape(-1, 4)[:, 3]).all()
    assert np.isfinite(losses(found).reshape(-1, 4)[:, 0]).all()


def toy():
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    return x, x[:, :10].clone()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"widths": [8]}, "at least two increasing"),
        ({"widths": [16, 8]}, "at least two increasing"),
        ({"widths": [0, 8]}, "at least two increasing"),
        ({"widths": [32, "a"]}, "got widths .*'a'.*expected whole numbers"),
        ({"widths": [8, 16.5]}, "got widths with 16.5"),
        ({"lrs": [0.1, 0.2, 0.4, "a"]}, "four or more, positive and increasing"),
        ({"lrs": [0.1, 0.2, 0.4, math.inf]}, "four or more, positive and increasing"),
        ({"lrs": 0.1}, "got learning rates 0.1, expected four or more"),
        ({"lrs": [0.1, 0.2, 0.4]}, "four or more, positive and increasing"),
        ({"lrs": [0.1, 0.2, 0.4, 0.3]}, "four or more, positive and increasing"),
        ({"lrs": [-0.1, 0.2, 0.4, 0.8]}, "four or more, positive and increasing"),
        ({"seeds": 0}, "seeds = 0"),
        ({"steps": 0}, "steps = 0"),
        ({"device": "nothing"}, "device 'nothing'"),
    ],
)
def test_what_makes_no_study_is_refused(change, says):
    with pytest.raises(UsageError, match=says):
        lzr.transfer(lzr.plan(PAIR, lzr.mup(), "adam"), **(SMALL | change))


def test_numbers_are_looked_at_before_networks_are_made():
    made = []

    def factory(n):
        made.append(n)
        return lzr.zoo.mlp(n)

    plan = lzr.plan(lzr.Family(factory, base=8), lzr.mup(), "adam")
    made.clear()
    with pytest.raises(UsageError, match="four or more"):
        lzr.transfer(plan, **SMALL | {"lrs": [0.1, 0.2, 0.4]})
    assert made == []


def test_no_plan_is_refused():
    with pytest.raises(UsageError, match="got no plan"):
        lzr.transfer([], **SMALL)


def test_the_shift_with_depth_is_the_slope_of_the_optima(monkeypatch):
    module, best = sys.modules["lazyrich.measure.transfer"], {2: -3.0, 4: -4.5, 8: -6.0}

    def known(grid, plan, scheme, width, seed, lrs):
        losses = bowl(best[grid.plans[grid.names.index(plan)].family.depth])
        return {"plan": plan, "scheme": scheme, "width": width, "seed": seed, "start": 2.3, "losses": losses} | {"lrs": lrs}

    monkeypatch.setattr(module, "run_row", known)
    plans = [lzr.plan(lzr.Family(lzr.zoo.mlp, base=8, depth=d), lzr.mup(), "adam") for d in best]
    found = lzr.transfer(plans, "digits", [8, 16], LRS, seeds=2)
    (deep,) = found.depths
    assert deep.shift.value == pytest.approx(-1.5, abs=1e-6)
    assert deep.depths == (2, 4, 8)
    assert "moves with the depth (-1.50" in deep.sentence
    assert found.schemes[1].name == "mup() · adam · depth 4"
    assert found.schemes[1].shift.value == pytest.approx(0, abs=1e-6)


def test_a_study_goes_on_with_other_schemes_in_any_order(tmp_path, monkeypatch):
    module, trained = sys.modules["lazyrich.measure.transfer"], []

    def counted(grid, plan, scheme, width, seed, lrs, row=module.run_row):
        trained.append((scheme, width, seed))
        return row(grid, plan, scheme, width, seed, lrs)

    monkeypatch.setattr(module, "run_row", counted)
    one, other = (lzr.plan(PAIR, scheme, "adam") for scheme in (lzr.standard(), lzr.mup()))
    alone = lzr.transfer(one, folder=tmp_path, **SMALL)
    both = lzr.transfer([other, one], folder=tmp_path, **SMALL)
    assert len(trained) == len(set(trained))
    assert [scheme.name for scheme in both.schemes] == ["mup() · adam", "standard() · adam"]
    assert both.schemes[1].best == alone.schemes[0].best
    assert both.reproduce["notes"] == []


def test_a_study_goes_on_with_other_learning_rates(tmp_path, monkeypatch):
    module, trained, shown = sys.modules["lazyrich.measure.transfer"], [], []
    plan, more = lzr.plan(PAIR, lzr.mup(), "adam"), [5e-4, *SMALL["lrs"][1:], 0.1]

    def counted(grid, plan, scheme, width, seed, lrs, row=module.run_row):
        trained.append(lrs)
        return row(grid, plan, scheme, width, seed, lrs)

    monkeypatch.setattr(module, "run_row", counted)
    lzr.transfer(plan, folder=tmp_path, **SMALL)
    for _ in range(2):
        found = lzr.transfer(plan, folder=tmp_path, progress=lambda *given: shown.append(given), **SMALL | {"lrs": more})
    assert trained == 4 * [SMALL["lrs"]] + 4 * [[5e-4, 0.1]]
    assert shown[0][:2] == (12, 24)  # half of the rows, counted as their mean
    np.testing.assert_allclose(losses(found), losses(lzr.transfer(plan, **SMALL | {"lrs": more})), rtol=1e-4)
    assert found.lrs == tuple(more)
    assert found.reproduce["notes"] == []


def test_one_plan_twice_and_what_cannot_step_are_refused_before_training():
    plan = lzr.plan(PAIR, lzr.mup(), "adam")
    with pytest.raises(UsageError, match=r"got mup\(\) for adam twice"):
        lzr.transfer([plan, plan], **SMALL)
    with pytest.raises(LazyrichError, match="decay"):
        lzr.transfer(plan, weight_decay=0.1, **SMALL)


def test_a_network_that_does_not_read_the_data_is_refused_before_training():
    family = lzr.Family(lambda n: torch.nn.Sequential(torch.nn.Linear(7, n), torch.nn.Tanh(), torch.nn.Linear(n, 10)), base=8)
    with pytest.raises(UsageError, match=r"network of width 8 does not take inputs of shape \(64,\)"):
        lzr.transfer(lzr.plan(family, lzr.mup(), "adam"), **SMALL)


def five_outputs(n):
    return torch.nn.Sequential(torch.nn.Linear(64, n), torch.nn.Tanh(), torch.nn.Linear(n, 5))


def vector(output, target):
    return (output - torch.nn.functional.one_hot(target, 10)).square().mean(1)


def broken(output, target):
    raise ValueError("no such target")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"loss": "mse"}, r"got labels for a squared error.*one-hot rows: .*one_hot_targets\(y, 10\)"),
        ({"factory": five_outputs}, "got label 9 for 5 outputs, expected labels from 0 to 4; give the network 10 outputs"),
        ({"loss": vector}, r"must be one number, got shape \(64,\); average it over the batch"),
        ({"loss": broken}, r"the loss does not take the model's output: ValueError: no such target \(output \(64, 10\)"),
        ({"loss": lambda f, y: 1.0}, "must be one number, got float"),
    ],
)
def test_a_loss_that_fits_neither_network_nor_targets_is_refused_before_training(change, says, monkeypatch):
    family = lzr.Family(change.pop("factory", lzr.zoo.mlp), base=8)
    for module in ("lazyrich.measure.transfer", "lazyrich.measure.dial"):
        monkeypatch.setattr(sys.modules[module], "run_trainings", lambda *_, **__: pytest.fail("trainings were begun"))
    with pytest.raises(LazyrichError, match=says):
        lzr.transfer(lzr.plan(family, lzr.mup(), "adam"), **SMALL | change)
    with pytest.raises(LazyrichError, match=says):
        lzr.dial(family, "digits", [0.1, 1.0], [8], 1, steps=2, samples=100, test=20, **change)


def test_joined_optimizers_train_by_themselves():
    plan = lzr.plan(PAIR, lzr.mup(), "muon")
    auto, loop = (lzr.transfer(plan, engine=e, **SMALL) for e in ("auto", "loop"))
    assert np.array_equal(losses(auto), losses(loop))


def test_a_page_is_drawn_of_the_seeds_that_all_begun_widths_share(monkeypatch):
    """Two workers, each with a seed of its own at a width of its own, have nothing to compare yet."""
    module, seen = sys.modules["lazyrich.measure.transfer"], []
    plan = lzr.plan(PAIR, lzr.mup(), "adam")

    def rows(*done, name=""):
        row = {"plan": name, "start": 3.0, "lrs": SMALL["lrs"], "losses": bowl(-3.0)[:4]}
        return tuple(row | {"width": w, "seed": s} for w, s in done)

    def trained(function, grid, trials, context, where, many, so_far, **_):
        for done in ([(8, 0)], [(8, 0), (16, 1)], [(8, 0), (16, 1), (16, 0)]):
            so_far(module.Trainings(rows(*done, name=trials[0]["plan"]), ()))
        return module.Trainings(rows((8, 0), (8, 1), (16, 0), (16, 1), name=trials[0]["plan"]), ())

    monkeypatch.setattr(module, "run_trainings", trained)
    lzr.transfer(plan, so_far=seen.append, **SMALL)
    assert [len(result.rows()) for result in seen] == [8]


class Attending(torch.nn.Module):
    """Heads that grow with the width, through torch's own attention."""

    def __init__(self, n, depth=1):
        super().__init__()
        self.read = torch.nn.Linear(8, n)
        self.blocks = torch.nn.ModuleList(torch.nn.MultiheadAttention(n, 2, batch_first=True) for _ in range(depth))
        self.head = torch.nn.Linear(n, 10)

    def forward(self, x):
        h = self.read(x.view(-1, 8, 8))
        for block in self.blocks:
            h = h + block(h, h, h, need_weights=False)[0]
        return self.head(h.mean(1))


def test_unmet_obligations_are_said_with_their_mend_and_a_plan_without_any_says_none():
    family = lzr.Family(Attending, base=8, depth=2)
    plans = [lzr.plan(family, scheme, "adam") for scheme in (lzr.standard(), lzr.mup())]
    owed, paid = (lzr.transfer(plans, meet=meet, **SMALL | {"seeds": 1, "steps": 1}) for meet in (False, True))
    (line,) = [note for note in owed.reproduce["notes"] if note.startswith("unmet")]
    assert line.startswith("unmet in mup() · adam · depth 2: attention at blocks.0, blocks.1: its heads grow from 4 to ")
    assert line.endswith("meet it with meet=True, or --meet") and line in str(owed)
    assert "unmet" not in str(paid)
    assert [found.settings["obligations met"] for found in (owed, paid)] == ["no", "yes"]
    none = lzr.transfer(lzr.plan(PAIR, lzr.mup(), "adam"), **SMALL | {"seeds": 1, "steps": 1})
    assert none.settings["obligations met"] == "none"


def test_a_debt_names_a_few_places_and_counts_the_others():
    between = [torch.nn.Identity() for _ in range(6)]
    family = lzr.Family(lambda n: torch.nn.Sequential(torch.nn.Linear(3, n), *between, torch.nn.Linear(n, 2)), base=8)
    plan = lzr.plan(family, lzr.mup(), "adam")
    owed = tuple(Obligation("residual branch", str(i), "scale it", -1.0, 2.0) for i in range(1, 7))  # one branch each, not two
    plan = dataclasses.replace(plan, obligations=owed)
    (line,) = debts([plan], [8, 16], meet=False)
    assert line.startswith("unmet: residual branch at 1, 2, 3, 4 and 2 more: scale it; meet it with ")
    assert debts([plan], [8, 16], meet=True) == ()


def test_branches_of_the_tuned_depth_owe_nothing_and_deeper_ones_do():
    for depth, word in ((1, "none"), (2, "no")):
        family = lzr.Family(lzr.zoo.residual_mlp, base=8, depth=depth)
        plan = lzr.plan(family, lzr.mup(), "adam", branches=["blocks.*"], base_depth=1)
        found = lzr.transfer(plan, **SMALL | {"seeds": 1, "steps": 1})
        assert found.settings["obligations met"] == word
        assert any("unmet: residual branch at blocks.*" in note for note in found.reproduce["notes"]) is (word == "no")


def test_an_edited_network_trains_again_and_the_older_trainings_are_told(tmp_path):
    def family(text):
        names = {"nn": torch.nn}
        exec(f"def net(n):\n    return nn.Sequential(nn.Linear(64, n), nn.{text}, nn.Linear(n, 10))", names)
        return lzr.Family(names["net"], base=8)

    before, after = (lzr.plan(family(text), lzr.mup(), "adam") for text in ("ReLU()", "Tanh()"))
    options = SMALL | {"seeds": 1, "steps": 1, "folder": tmp_path / "run"}
    assert lzr.transfer(before, **options).reproduce["notes"] == []
    told = lzr.transfer(after, **options).reproduce["notes"]
    assert told == [f"2 finished trials of the network as it was before are in {tmp_path / 'run'} too; they were not used."]
    beside = lzr.plan(after.family, lzr.standard(), "adam")
    assert lzr.transfer([after, beside], **options).reproduce["notes"] == told
    for depth in (1, 2):  # another depth is no edit
        plan = lzr.plan(lzr.Family(lzr.zoo.residual_mlp, base=8, depth=depth), lzr.mup(), "adam")
        assert lzr.transfer(plan, **options | {"folder": tmp_path / "deep"}).reproduce["notes"] == []


def test_optimizers_of_other_usual_rates_have_no_grid_in_common():
    plans = [lzr.plan(PAIR, lzr.mup(), optimizer) for optimizer in ("adam", "sgd")]
    with pytest.raises(UsageError, match=r"got plans for adam \(about 0.003\), sgd \(about 0.1\) without.*give lrs="):
        lzr.transfer(plans, **SMALL | {"lrs": None})
    module = sys.modules["lazyrich.measure.transfer"]
    assert len(module._usual(plans[:1])) == 12


def test_samples_that_are_held_out_are_not_trained_on_and_the_loss_is_measured_on_them(tmp_path):
    x = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    data, plan = (x, torch.arange(24) % 10), lzr.plan(PAIR, lzr.mup(), "adam")
    options = SMALL | {"data": data, "seeds": 1, "steps": 60, "batch": 16, "evaluate": 16}
    seen, held = (lzr.transfer(plan, folder=tmp_path, test=test, **options) for test in (0, 8))
    assert losses(seen).min() < 0.1 < 2 < losses(held).min(), "random labels are learned by heart"
    assert seen.settings["evaluated on"] == "16 samples that are trained on"
    assert held.settings["evaluated on"] == "8 held-out samples"
    assert "measured on 8 held-out samples, the geometric" in lzr.render(held, tmp_path / "page.html").read_text()
    with pytest.raises(UsageError, match=r"got test = 24, expected 0 to 23"):
        lzr.transfer(plan, test=24, **options)


def several(*shifts, scatter=0.0):
    """A result of as many schemes, named by letters."""
    parts = [study(shift, scatter) for shift in shifts]
    schemes = tuple(dataclasses.replace(part, name=name) for name, part in zip("abcdef", parts, strict=False))
    reproduce = {"command": "c", "versions": {}, "date": "", "notes": []}
    return TransferResult("t", schemes, (64, 128, 256), tuple(LRS), {}, reproduce)


def test_what_is_true_of_several_schemes_is_said_once(tmp_path):
    found = several(0.0, 0.0, -1.0, scatter=2.0)
    first, *_ = found.sentences
    assert first.startswith("a (") and ", b (" in first and first.count("add seeds or widths, or a finer grid") == 1
    assert str(found).count("no width is worse than a narrower one") == 1
    page = lzr.render(found, tmp_path / "page.html").read_text()
    assert page.count('<p class="lead">') == len(found.sentences)


def test_an_interval_wider_than_the_grid_is_not_told_and_one_seed_has_words_for_none(tmp_path):
    wild = {w: np.array([bowl(-4.0 + move) for move in moves]) for w, moves in ((64, (-2, 2)), (128, (2, -2)))}
    one = {w: np.array([bowl(-4.0)]) for w in (64, 128)}
    for curves, said, on_page in (
        (wild, "its interval wider than the grid", "interval wider"),
        (one, "no interval with", "no interval"),
    ):
        found = dataclasses.replace(
            several(0.0), schemes=(transferred("s", LRS, curves, dict.fromkeys(curves, 2.3)),), widths=(64, 128)
        )
        assert said in found.sentence and "inf" not in found.sentence and found.schemes[0].transfers is None
        assert on_page in lzr.render(found, tmp_path / "page.html").read_text()


def test_the_end_of_a_grid_is_named_with_the_next_rates():
    falling, rising = ([2.0 ** (sign * k) for k in range(9)] for sign in (-1, 1))
    curves = {64: np.array([rising] * 2), 128: np.array([bowl(-4.0)] * 2), 256: np.array([falling] * 2)}
    said = transferred("s", LRS, curves, dict.fromkeys(curves, 900.0)).sentence
    assert "at width 64 is an end of the grid, its smallest rate" in said
    assert "at width 256 is an end of the grid, its largest rate; --lrs with 0.000977, 0.00195, 2, 4 too" in said


@pytest.mark.parametrize(("lr", "place"), [(0.1, "low"), (0.4, "high")])
def test_a_mean_at_an_end_of_the_grid_counts_where_no_seed_is_at_it(lr, place):
    inner = Optimum(0.2, 1.0, False)
    found = ends_of((0.1, 0.2, 0.4), {8: Optimum(lr, 1.0, True)}, {8: [inner, inner]})
    assert getattr(found, place) == found.places == found.whole == (8,)


@pytest.mark.parametrize(("far", "word"), [(False, True), (True, None)])
def test_a_seed_at_an_end_of_the_grid_beside_the_others_leaves_the_verdict(far, word):
    near = [bowl(-0.6), bowl(-0.7), bowl(-0.4)]
    near[2] = [*near[2][:-1], near[2][-2] * 0.9999]  # lowest at the last rate, by a hair
    curves = {w: np.array([bowl(-0.6), bowl(-0.7), bowl(-0.6)]) for w in (64, 128, 256)}
    curves[128] = np.array([bowl(-4.0), bowl(-4.1), near[2]] if far else near)
    found = transferred("s", LRS, curves, dict.fromkeys(curves, 2.3))
    assert found.edges == (128,) and not found.best[128].edge
    assert found.transfers is word
    assert "the best learning rate at width 128 is an end of the grid for some seeds, its largest rate" in found.sentence
    assert "octaves" in found.sentence
