"""Figures: the page's colours only, their own ids, the same bytes, the numbers in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sample_result import sample

import lazyrich.report
from lazyrich.report import figure
from lazyrich.report.result import Curve, Line, Loss, read_result
from lazyrich.report.scale import spans, thin
from lazyrich.report.transfer_figure import scheme_style

_CSS = (Path(lazyrich.report.__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")
_TEXT_TONES = ("ink", "muted", "link", "good", "bad", "warn", "theory", "update")
_MARK_TONES = (
    "update",
    "layer",
    "passthrough",
    "interaction",
    "theory",
    "bad",
    *(f"w{i}" for i in range(1, 7)),
)


def _schemes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", _CSS, flags=re.S)
    read = {name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", text)) for name, text in
            (("light", light), ("dark", dark))}  # fmt: skip
    return read


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, two: str) -> float:
    high, low = sorted((_luminance(one), _luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_out(scheme):
    colors = _schemes()[scheme]
    for ground in ("bg", "raised"):
        for name in _TEXT_TONES:
            assert _contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
    for name in _MARK_TONES:
        assert _contrast(colors[name], colors["bg"]) >= 3, name


def test_both_schemes_name_the_same_colours():
    schemes = _schemes()
    assert schemes["light"].keys() == schemes["dark"].keys()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_five_schemes_of_a_study_have_five_colours(scheme):
    colors = _schemes()[scheme]
    assert len({colors[scheme_style(i)[0]] for i in range(5)}) == 5
    assert len({str(scheme_style(i)) for i in range(40)}) == 40


@pytest.fixture(scope="module")
def drawings() -> dict[str, str]:
    result = read_result(sample("inconclusive"))
    curves = [result.curves_of("fc2", part)[0] for part in figure.PARTS]
    span = figure.panel_spans([curves])[0]
    return {
        "forest": figure.forest(result.last("update"), "a"),
        "narrow": figure.forest(result.last("update"), "b", narrow=True),
        "panel": figure.panel(curves, span, "c", "fc2", 0.5),
        "losses": figure.losses(result.losses, "d"),
    }


@pytest.mark.parametrize("name", ["forest", "narrow", "panel", "losses"])
def test_drawings_take_their_colours_from_the_page(name, drawings):
    assert re.findall(r"#(?:[0-9a-f]{6}|[0-9a-f]{3})\b(?!\")", drawings[name]) == []
    used = set(re.findall(r"var\(--(\w+)\)", drawings[name]))
    assert used and used <= _schemes()["light"].keys()


@pytest.mark.parametrize("name", ["forest", "narrow", "panel", "losses"])
def test_drawings_keep_their_ids_to_themselves(name, drawings):
    svg, key = drawings[name], {"forest": "a", "narrow": "b", "panel": "c", "losses": "d"}[name]
    ids = re.findall(r'\sid="([^"]*)"', svg)
    assert len(ids) == len(set(ids)) and all(i.startswith(f"{key}-") for i in ids)
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]*)', svg)) <= set(ids)


@pytest.mark.parametrize("name", ["forest", "narrow", "panel", "losses"])
def test_drawings_hold_texts_and_nothing_foreign(name, drawings):
    svg = drawings[name]
    assert "<text" in svg and "<style" not in svg and "<!--" not in svg and "xmlns" not in svg
    assert svg.count("<g ") + svg.count("<g>") == svg.count("</g>")


def test_description_says_the_numbers():
    line = Line("fc1", (), "input", "update", 5, -0.5, -0.6, -0.4, 0.0, False, "lazy", "")
    assert "fc1: −0.50, from −0.60 to −0.40, theory 0.00." in figure.forest([line], "k")


def test_forest_cuts_intervals_that_dwarf_the_slopes():
    wide = Line("a", (), "input", "update", 5, 0.0, -1e6, 1e6, 0.0, None, "", "")
    low, high = figure._forest_limits([wide])
    assert -2.5 < low < -0.5 and 0.5 < high < 2.5


def test_panels_share_one_steepness():
    flat = Curve("a", "update", 1, (64.0, 128.0), (1.0, 1.0), (None, None), (None, None))
    steep = Curve("b", "update", 1, (64.0, 128.0), (1e-3, 1e3), (None, None), (None, None))
    one, two = figure.panel_spans([[flat], [steep]])
    assert one.high - one.low == pytest.approx(two.high - two.low)
    assert two.low < -3 and two.high > 3


def test_spans_of_nothing():
    assert spans([[]])[0].ticks()
    assert spans([]) == []


@pytest.mark.parametrize("mean", [(), (None,), (0.0, 0.0), (2.0,), (1e-9, 1e9), (None, 1.0, None)])
def test_losses_of_any_shape_are_drawn(mean):
    none = (None,) * len(mean)
    assert figure.losses([Loss(64, mean, none, none)], "k").endswith("</svg>")


def test_the_last_of_thinned_values_is_kept():
    assert thin([1, 2, 3, 4], 2) == [1, 4]
    assert thin([1, 2, 3, 4, 5, 6], 3) == [3, 6]
    assert thin([1, 2], 5) == [1, 2]


def test_one_width_is_drawn():
    curve = Curve("a", "update", 1, (64.0,), (0.1,), (None,), (None,))
    assert figure.panel([curve], figure.panel_spans([[curve]])[0], "k", "a", 0.5).endswith("</svg>")
