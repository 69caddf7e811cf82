"""The page of an initialisation: every number finds its place, and a result that is no result is refused by its path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sample_signals import sample_signals

from lazyrich.errors import ReportError
from lazyrich.report import render


def page_of(result: Any, folder: Path) -> str:
    return render(result, folder / "page.html").read_text(encoding="utf-8")


def test_numbers_and_words_are_on_the_page(tmp_path: Path) -> None:
    page = page_of(sample_signals(), tmp_path)
    assert page.count('<svg class="figure"') == 3
    for text in ("Signals keep their size.", "predicted at infinite width", "0.275", "0.250", "+0.22", "+0.20", "8.80", "8.00"):
        assert text in page, text
    said = re.findall(r"<desc[^>]*>([^<]*)</desc>", page)
    assert any("body.blocks.1.linear: drawn 0.55, predicted 0.5" in d for d in said)
    assert "None" not in page


def test_what_repeats_a_study_is_on_the_page_and_short_names_leave_no_empty_band(tmp_path: Path) -> None:
    kept = {"settings": {"base": 64, "fingerprint": "0123abcd", "init": ["*=he(relu)"]}, "versions": {"torch": "2.9"}}
    page = page_of(sample_signals(**kept), tmp_path)
    for text in ("0123abcd", "*=he(relu)", "<dt>torch</dt><dd>2.9</dd>"):
        assert text in page, text

    def band(names: list[str]) -> float:
        """How far the lowest line of the axes is from the bottom of the first figure."""
        sample = sample_signals(layers=len(names))
        for line, name in zip(sample["lines"], names, strict=True):
            line["layer"] = name
        first = re.search(r'<svg class="figure".*?</svg>', page_of(sample, tmp_path), flags=re.S)
        assert first is not None
        return 290 - max(float(y) for y in re.findall(r"M [\d.]+ ([\d.]+) ?L", first.group()))

    assert (
        band(["0", "2", "4"]) < 30 < band(["hidden.0", "hidden.1", "readout"]) < 60 < band(["body.blocks.1.linear", "b", "c"])
    )


def test_many_layers_and_no_prediction(tmp_path: Path) -> None:
    many = sample_signals(layers=30, reason="no rule for softmax", inputs=[None, None])
    for line in many["lines"]:
        line |= {"level_predicted": None, "correlation_predicted": None, "gradient_predicted": None}
    page = page_of(many, tmp_path)
    assert "layer, in the table" in page
    assert "predicted at infinite width" not in page


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lines": []}, "result.lines: got none"),
        ({"inputs": [1.0]}, "result.inputs: got 1 numbers"),
        ({"lines": [{"layer": "a", "level": "high"}]}, r"result.lines\[0\].level"),
        ({"settings": None}, "result.settings"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=says):
        render(sample_signals(**changes), tmp_path / "page.html")
