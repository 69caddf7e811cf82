"""Summaries: means over seeds, sentences that are right about where a value is lowest, and results while trials run."""

import pytest

from lazyrich import render
from lazyrich.errors import SweepError
from lazyrich.sweep import summarise, sweep
from lazyrich.sweep import sweep as run_sweep


def bowl(lr, width, seed):
    if lr > 3:
        raise ValueError("too large")
    return {"loss": (lr - 1) ** 2 + 1 / width + seed, "name": "x", "ok": True}


AXES_OF_TWO = {"a": [1, 2], "seed": [0, 1]}
AXES = {"lr": [0.5, 1, 2, 4], "width": [8, 16], "seed": [0, 1]}


@pytest.fixture
def found(tmp_path):
    return summarise(sweep(bowl, AXES, tmp_path / "s"), "bowl", "lazyrich sweep ...")


def test_means_are_over_seeds_along_the_other_axes(found):
    assert found.axes == ("lr", "width")
    assert found.values == ("loss",)
    assert len(found.rows) == 6
    assert found.rows[0] == {
        "settings": {"lr": 0.5, "width": 8},
        "count": 2,
        "loss": {"mean": 0.875, "low": 0.375, "high": 1.375},
    }


def test_the_sentence_names_the_ends_and_the_failures(found):
    assert found.sentence == (
        "4 trials failed. loss is lowest, 0.5625, at lr=1, width=16, and highest, 1.625, at lr=2, width=8."
    )
    assert "4 failed" in str(found)


def test_the_page_shows_curves_rows_and_failures(found, tmp_path):
    page = render(found, tmp_path / "page.html").read_text()
    assert "loss against lr" in page
    assert "width=16: 0.8125" in page or "width=16: 0.812" in page
    assert page.count("ValueError: too large") == 4
    assert '<td class="n">0.5625</td>' in page
    assert 'http-equiv="refresh"' not in page
    assert 'http-equiv="refresh" content="5"' in render(found, tmp_path / "page.html", refresh=5).read_text()


def test_sweeps_of_words_and_of_nothing_numeric_have_pages_too(tmp_path):
    words = summarise(sweep(lambda a: {"word": "x"}, {"a": ["p", "q"]}, tmp_path / "w"))
    assert words.sentence == "No trial returned a number."
    assert "No trial returned a number." in render(words, tmp_path / "w.html").read_text()
    named = summarise(sweep(lambda a: {"size": len(a)}, {"a": ["p", "qq"]}, tmp_path / "n"))
    assert "lowest, 1, at a=p" in render(named, tmp_path / "n.html").read_text()


def test_what_is_no_finite_number_is_shown_and_is_neither_low_nor_high(tmp_path):
    losses = [1.0, float("nan"), float("inf"), 2**2000]
    found = summarise(sweep(lambda a: {"loss": losses[a]}, {"a": [0, 1, 2, 3]}, tmp_path / "s"))
    assert [str(row["loss"]["mean"]) for row in found.rows] == ["1.0", "nan", "inf", "inf"]
    assert found.sentence == "loss is lowest, 1, at a=0. loss is not finite in 3 of 4 trials."
    assert found.to_dict()["figures"][0]["curves"][0]["mean"] == [1.0, None, None, None]
    page = render(found, tmp_path / "page.html").read_text()
    assert "1 at 0, not finite at 1, not finite at 2" in page
    assert "A cross at the upper edge marks a mean of the curve of its colour that is not finite." in page
    assert '<td class="n">nan</td>' in page


def test_a_mean_over_seeds_of_which_one_is_not_finite_is_not_finite(tmp_path):
    found = summarise(sweep(lambda a, seed: a / (a - seed) if a != seed else float("inf"), AXES_OF_TWO, tmp_path / "s"))
    assert "inf (1 of 2 not finite)" in str(found)
    assert found.rows[0]["value"] == {"mean": float("inf"), "low": 1.0, "high": 1.0, "odd": "1 of 2 not finite"}
    assert "inf (1 of 2 not finite)" in render(found, tmp_path / "page.html").read_text()


def test_trials_that_all_return_nan_are_not_said_to_return_no_number(tmp_path):
    found = summarise(sweep(lambda a: {"loss": float("nan")}, {"a": [1, 2]}, tmp_path / "s"))
    assert found.sentence == "loss is not finite in 2 of 2 trials."
    assert str(found).split()[:6] == ["a", "loss", "1", "nan", "2", "nan"]
    render(found, tmp_path / "page.html")


def test_lists_are_said_to_be_in_the_store_alone(tmp_path):
    found = summarise(sweep(lambda a: {"loss": a, "curve": [1, 2]}, {"a": [1, 2]}, tmp_path / "s"))
    assert "are not shown: curve; lazyrich export has them" in str(found)
    assert "are not shown: curve; lazyrich export has them" in render(found, tmp_path / "page.html").read_text()


def test_results_so_far_are_shown_while_trials_run(tmp_path, monkeypatch):
    import sys

    module = sys.modules["lazyrich.sweep.sweep"]
    monkeypatch.setattr(module, "EVERY", 0.0)
    monkeypatch.setattr(module, "SHARE", 0.0)
    seen = []
    run_sweep(lambda lr: lr, {"lr": [1, 2, 3]}, tmp_path / "s", so_far=lambda r: seen.append((len(r.outcomes), r.total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_results_so_far_are_not_drawn_again_before_it_is_time(tmp_path, monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["lazyrich.sweep.sweep"], "EVERY", 3600.0)
    seen = []
    run_sweep(lambda lr: lr, {"lr": [1, 2, 3]}, tmp_path / "s", so_far=lambda r: seen.append(len(r.outcomes)))
    assert seen == [1]


def test_curves_run_along_their_axis_in_whatever_order_the_trials_were_given(tmp_path):
    order = [{"lr": lr, "seed": seed} for lr in (4, 1, 2) for seed in (0, 1)]
    found = summarise(sweep(lambda lr, seed: {"loss": lr * (10 + seed)}, order, tmp_path / "s"))
    (figure,) = found.to_dict()["figures"]
    assert figure["curves"] == [
        {"label": "", "x": [1, 2, 4], "mean": [10.5, 21, 42], "low": [10, 20, 40], "high": [11, 22, 44]}
    ]


def test_a_page_that_cannot_be_drawn_stops_no_trial(tmp_path):
    def fails(results):
        raise ValueError("no picture")

    results = run_sweep(lambda lr: lr, {"lr": [1, 2, 3]}, tmp_path / "s", so_far=fails)
    assert len(results.outcomes) == 3
    assert results.notes == ("what is finished could not be shown while trials ran: ValueError: no picture",)


def test_a_shard_of_proposals_is_refused(tmp_path):
    with pytest.raises(SweepError, match="function that proposes trials"):
        run_sweep(lambda lr: lr, lambda outcomes: [], tmp_path / "s", shard="1/2")


@pytest.mark.parametrize(
    "trials", [None, 5, lambda outcomes: 5, lambda outcomes: [1]], ids=["none", "5", "5 proposed", "1 proposed"]
)
def test_what_is_no_trial_is_refused(tmp_path, trials):
    with pytest.raises(SweepError, match="expected"):
        run_sweep(lambda lr: lr, trials, tmp_path / "s")
    with pytest.raises(SweepError, match="got 5 as the function"):
        run_sweep(5, {"lr": [1]}, tmp_path / "s")


def test_a_sweep_that_has_begun_names_the_settings_of_what_it_shows(tmp_path):
    seen = []
    order = [{"lr": lr, "width": width, "seed": seed} for lr in (0.5, 1) for width in (8, 16) for seed in (0, 1)]
    sweep(bowl, order, tmp_path / "s", so_far=seen.append)  # the first is shown at once
    page = summarise(seen[0], "bowl")
    assert len(seen[0].outcomes) == 1
    assert page.axes == ("lr", "width")
    assert page.sentence == "7 of 8 trials are still to come. loss is lowest so far, 0.375, at lr=0.5, width=8."
