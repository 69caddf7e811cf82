"""The page of a limit study: every number finds its place, and a result that is no result is refused by its path."""

from __future__ import annotations

import copy
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from sample_limit import sample_limit

from lazyrich.errors import ReportError
from lazyrich.report import render
from lazyrich.report.limit_figure import _in_turns


def page_of(result: Any, folder: Path) -> str:
    return render(result, folder / "page.html").read_text(encoding="utf-8")


def test_numbers_and_words_are_on_the_page(tmp_path: Path) -> None:
    page = page_of(sample_limit(), tmp_path)
    assert page.count('<svg class="figure"') == 2 + 2 * 3 + 1 + 2
    for text in (
        "features move.",
        "slope −0.50 ± 0.10",
        "36.0%",
        "95.0%",
        "± 0.2%",
        "dark is −0.3, bright 1.2",
        "0.0500",
        "of width 1024",
        "0.880",
    ):
        assert text in page, text
    said = re.findall(r"<desc[^>]*>([^<]*)</desc>", page)
    assert any("After 2 steps: infinite width 0.05, kernel that stays 0.2, width 64 0.06" in d for d in said)
    assert any(
        "width 64 10.0%, width 256 5.0%, width 1024 2.5%; kernel that stays 36.0%; sampling error 0.2%" in d for d in said
    )
    assert any("Entries from −0.3 to 1.2." in d for d in said)
    assert any("hidden.1: limit 0.9, before 0.4, width 64 0.88" in d for d in said)
    assert any("before has standard deviation 0.4, after has standard deviation 0.5" in d for d in said)
    assert "None" not in page
    assert "nan" not in re.sub(r"<style.*?</style>", "", page, flags=re.S)


def test_the_guide_is_in_the_legend_and_a_slope_that_tells_nothing_is_undetermined(tmp_path: Path) -> None:
    result = sample_limit()
    page = page_of(result, tmp_path)
    assert "</svg><span>width<sup>−1/2</sup></span></li>" in page and "undetermined" not in page
    result["slope"] |= {"value": -0.23, "low": -3.75, "high": 3.29}
    page = page_of(result, tmp_path)
    assert "slope undetermined" in page and "3.52" not in page
    result["slope"] |= {"low": None, "high": None}
    assert "slope undetermined" in page_of(result, tmp_path)


def test_starts_that_coincide_are_drawn_side_by_side() -> None:
    """Dashes of several lines share a period and lie in slots of their own."""
    dashes = [_in_turns(i, 3) for i in range(3)]
    assert len({sum(pattern or ()) for _, pattern in dashes}) == 1
    slots = [(-offset, -offset + pattern[0]) for offset, pattern in dashes if pattern]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(slots)) and slots[-1][1] < sum(dashes[0][1] or ())


def test_the_kernel_that_stays_is_as_far_as_the_limit_moved(tmp_path: Path) -> None:
    """||Phi_0 - Phi|| / ||Phi|| from the movement over ||Phi_0||, here 3.28 and 5.53 in squares."""
    assert f"{100 * 0.95 * (3.28 / 5.53) ** 0.5:.1f}%" in page_of(sample_limit(), tmp_path)


def test_many_layers_diverged_widths_and_no_test(tmp_path: Path) -> None:
    many = sample_limit(layers=9)
    none = {
        "loss": [],
        "off": None,
        "offs": [],
        "mean_off": None,
        "test_loss": None,
        "kernels": {},
        "alignment": {},
        "diverged": 2,
    }
    many["widths"][0] |= none
    many["theory"] |= {"test_loss": None, "fixed_test_loss": None}
    many["slope"] = {"value": None, "low": None, "high": None, "points": 0}
    page = page_of(many, tmp_path)
    assert "5 deeper layers are in the table only" in page
    assert "diverged" in page
    assert "test loss" not in page
    assert "slope" not in page
    gone = sample_limit(widest={"width": None, "layers": []})
    gone["widths"] = [line | none for line in gone["widths"]]
    assert "after, in the widest networks" not in page_of(gone, tmp_path)


def test_layers_that_a_sequential_numbers_are_called_layers(tmp_path: Path) -> None:
    result = sample_limit(layers=1)
    for layer in (*result["theory"]["layers"], *result["widest"]["layers"]):
        layer["layer"] = "2"
    for line in result["widths"]:
        line["kernels"], line["alignment"] = {"2": 0.1}, {"2": [0.88, 0.02]}
    page = page_of(result, tmp_path)
    for text in (
        "Feature kernel of layer 2, before",
        "Pre-activations of layer 2",
        "layer 2: limit 0.9",
        '<span class="name">layer 2</span> moves',
    ):
        assert text in page, text
    assert '<span class="name">2</span>' not in page


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("widths",), [], "no layers or no widths"),
        (("theory", "fixed_loss"), [0.5], "losses of different lengths"),
        (("theory", "layers", 0, "kernel"), [[1.0, 2.0]], r"result.theory.layers\[0\].kernel"),
        (("theory", "layers", 1, "after"), [0.1], r"result.theory.layers\[1\]"),
        (("widths", 0, "offs"), "many", r"result.widths\[0\].offs"),
        (("reproduce",), None, "result.reproduce"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(path: tuple[Any, ...], value: Any, says: str, tmp_path: Path) -> None:
    result = copy.deepcopy(sample_limit())
    inner: Any = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ReportError, match=says):
        render(result, tmp_path / "page.html")
