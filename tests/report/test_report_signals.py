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
