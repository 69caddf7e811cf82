"""The page of a tangent study: every number finds its place, and a result that is no result is refused by its path."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_tangent import sample_tangent

from lazyrich.errors import ReportError
from lazyrich.measure.movement import kernel_distance
from lazyrich.report import render, tangent_figure
from lazyrich.report.canvas import drawing, sheet
from lazyrich.report.kernel_figure import log_x
from lazyrich.report.tangent_result import Few


def page_of(result: Any, folder: Path) -> str:
    return render(result, folder / "page.html").read_text(encoding="utf-8")


def test_numbers_and_words_are_on_the_page(tmp_path: Path) -> None:
    page = page_of(sample_tangent(), tmp_path)
    assert page.count('<svg class="figure"') == 8
    for text in ("This network moves.", "85.0%", "10.0% away", "class 1 against class 2", "has ended", "hidden.2", "0.700"):
        assert text in page
    descriptions = re.findall(r"<desc[^>]*>([^<]*)</desc>", page)
    assert any("p = 2 is off by 5.0%, p = 3 is off by 3.0%, p = 4 is off by 0.2%" in d for d in descriptions)
    assert any("tangent kernel 40.0%" in d for d in descriptions)
    assert "None" not in page
    assert "nan" not in re.sub(r"<style.*?</style>", "", page, flags=re.S)


def test_the_words_of_the_alignment_are_told_and_little_loss_is_not_nothing(tmp_path: Path) -> None:
    found = sample_tangent()
    found["moments"][-1]["loss"] = 1e-6
    page = page_of(found, tmp_path)
    assert "Unbiased: after training, free of the bias" in page and "which left less than 0.1% of the loss" in page
    assert ("Half-way is the first look" in page) == (">half-way</li>" in page)


def test_a_few_modes_have_a_tick_at_the_first() -> None:
    with drawing():
        axes = sheet(300, 200)[1]
        log_x(axes, [1, 2, 3, 4, 5, 6, 7, 8])
        assert axes.get_xticks()[0] == 1


def test_the_kernels_movement_apart_from_scale_is_a_movement(tmp_path: Path) -> None:
    before, after = torch.eye(2), torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    found = sample_tangent()
    found["moments"][-1]["ntk_distance"] = kernel_distance(before, after)
    best = (before * after).sum() / after.square().sum()
    cell = re.search(r"tangent kernel, scale apart</th><td class=\"n\">([0-9.]+)%", page_of(found, tmp_path))
    assert cell
    assert float(cell[1]) == pytest.approx(100 * float((best * after - before).norm() / before.norm()), abs=0.051)


def test_a_layer_of_the_networks_own_tensors_has_a_name_for_people(tmp_path: Path) -> None:
    found = sample_tangent(peak="")
    for moment in found["moments"]:
        moment["alignment"][0]["layer"] = ""
        moment["features"] = {"": moment["features"].pop("hidden.0"), **moment["features"]}
    page = page_of(found, tmp_path)
    assert 'peaks at <span class="name">(network)</span>' in page
    assert page.count('<th scope="row" class="name">(network)</th>') == 2
    assert page.count("<strong>0.700</strong>") == 1
    assert not re.search(r'<(?:th|span) [^>]*class="name[^"]*"></', page)


@pytest.mark.parametrize(
    ("names", "drawn"),
    [
        ("inp rec inp#2 rec#2 inp#3 rec#3 inp#4 rec#4 out", "inp rec rec#3 inp#4 rec#4 out"),
        ("inp rec inp#2 rec#2 out", "inp rec inp#2 rec#2 out"),
        ("a b c d e f a#2 b#2", "c d e f a#2 b#2"),
        ("a b c d e f g h i j", "a c e f h j"),
    ],
)
def test_every_module_is_drawn_before_one_is_drawn_twice(names: str, drawn: str, tmp_path: Path) -> None:
    found = sample_tangent()
    for moment in found["moments"]:
        moment["features"] = dict.fromkeys(names.split(), 0.3)
    legend = re.findall(r"</svg>([^<]+)</li>", page_of(found, tmp_path).partition("What moves</h")[2].partition("</ul>")[0])
    assert [name for name in legend if name != "tangent kernel"] == drawn.split()


def test_the_headline_and_the_hierarchy_are_said_to_be_two_trainings(tmp_path: Path) -> None:
    page = page_of(sample_tangent(), tmp_path)
    assert "all samples and outputs for 100 steps, which left 10.0% of the loss; so its errors need not be those at" in page
    assert "in a network with kinks (ReLU and its kin) they do not see units switch" in page
    unknown = sample_tangent()
    unknown["moments"][-1]["loss"] = None
    assert "all samples and outputs for 100 steps; so its errors need not be those at" in page_of(unknown, tmp_path)


def test_corrections_are_shown_where_there_are_some_and_losses_where_they_compare() -> None:
    """The network learns to rounding, and the expansion ends after two times: what matters is a corner of the whole."""
    times = tuple(i / 24 for i in range(25))
    network, two = tuple(0.25 * 1e-25**t for t in times), tuple(0.25 * 0.05**t for t in times)
    three, four = (0.25, 0.23, *[None] * 23), (0.25, 0.22, 0.15, *[None] * 22)
    errors = tuple((None, *row[1:]) for row in (two, three, four))
    few = Few("the output", 4, (2, 3, 4), times, network, (two, three, four), errors, 1 / 24, (0.1, 0.2, 0.01))
    loss, error = tangent_figure.few_losses(few, "loss"), tangent_figure.few_errors(few, "error")
    for drawn in (loss, error):
        words = re.findall(r">([^<>]+)</text>", drawn)
        assert "0.2" in words and "0.25" not in words and "1" not in words  # the time axis
        assert "10⁻" not in "".join(words)
    assert marks(error) - marks(error, without=1) == 1  # the only error of p = 3 is seen


def marks(drawn: str, without: int | None = None) -> int:
    """Points that a figure marks, without those of one of its curves."""
    curves = [group.count("<use") for group in re.findall(r"<g clip-path[^>]*>(.*?)</g>", drawn, flags=re.S) if "<use" in group]
    return sum(count for i, count in enumerate(curves) if i != without)


def test_many_layers_and_no_classes(tmp_path: Path) -> None:
    many = sample_tangent(layers=30)
    for moment in many["moments"]:
        moment["accuracy"] = moment["linear_accuracy"] = None
    page = page_of(many, tmp_path)
    assert "layer, in the table" in page
    assert "test accuracy" not in page
    assert page.count("blocks.17.attention.projection") >= 2  # in both tables


def test_a_network_without_a_limit_and_one_that_never_moved(tmp_path: Path) -> None:
    page = page_of(sample_tangent(limit={"reason": "softmax has no rule"}), tmp_path)
    assert "Without a kernel at infinite width: softmax has no rule." in page
    still = sample_tangent()
    still["moments"] = still["moments"][:1]
    assert "<svg" in page_of(still, tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("moments",), [], "result.moments"),
        (("moments", 0, "step"), None, r"result.moments\[0\].step"),
        (("moments", 1, "alignment"), "high", r"result.moments\[1\].alignment"),
        (("few", "predicted"), [[1.0]], "result.few.predicted"),
        (("few", "errors", 1), [1.0, 2.0], "result.few.errors"),
        (("spectra", 0, "modes"), [1], r"result.spectra\[0\]"),
        (("reproduce",), None, "result.reproduce"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(path: tuple[Any, ...], value: Any, says: str, tmp_path: Path) -> None:
    result = copy.deepcopy(sample_tangent())
    inner: Any = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ReportError, match=says):
        render(result, tmp_path / "page.html")
