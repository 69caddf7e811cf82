"""The check over depth: published exponents come out, what is unscaled explodes, and what is kept is continued."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import pytest

import lazyrich as lzr
from lazyrich.cli import main
from lazyrich.measure.slope import Slope

DEPTHS = (2, 6, 18)
SMALL = {"depths": DEPTHS, "steps": 3, "seeds": 3}


def plans(exponent, optimizer="adamw", **options):
    def plan_at(depth):
        family = lzr.Family(lzr.zoo.residual_mlp, base=32, depth=depth)
        given = {"branches": ["blocks.*"], "base_depth": 2, "depth_exponent": exponent} | options
        return lzr.plan(family, lzr.mup(), optimizer, **given)

    return plan_at


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    place = tmp_path_factory.mktemp("depth")
    return {e: lzr.check_depth(plans(e), "digits", folder=place / f"{e}", **SMALL) for e in (0.5, 1.0)}, place


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_own_parts_go_as_depth_to_the_exponent_less_one(found, exponent):
    result = found[0][exponent]
    own = {line.layer: line for line in result.lines if line.quantity == "own"}
    inside = [line for line in own.values() if line.inside]
    assert len(inside) == 6
    assert len(own) == 9
    for line in inside:
        assert line.predicted == exponent - 1
        assert line.slope.value == pytest.approx(exponent - 1, abs=0.13), line.layer
    for line in result.lines:
        if line.quantity == "update" and not line.inside:
            assert abs(line.slope.value) < 0.13, line.layer
    assert result.word in (("well-behaved",) if exponent == 1 else ("well-behaved", "lazy"))


def test_branches_that_are_not_scaled_explode():
    result = lzr.check_depth(plans(1.0), "digits", meet=False, **SMALL | {"depths": (2, 8, 32)})
    assert result.word == "exploding"
    assert "meet the obligation" in result.sentence
    met = dataclasses.replace(result, settings={k: {**v, "obligations met": True} for k, v in result.settings.items()})
    assert "obligations met, so it comes from elsewhere" in met.sentence
    assert max(line.slope.value for line in result.lines if line.quantity == "update") > 0.15


@pytest.mark.parametrize("depths", [(2, 8), (4, 8), (3, 6, 12)])
def test_branches_are_compared_where_the_same_part_of_all_lies_below_them(depths):
    """A network of two branches has none that sees as much as the fifth of eight but its last."""
    result = lzr.check_depth(plans(1.0), "digits", **SMALL | {"depths": depths})
    slopes = {line.layer: line.slope.value for line in result.lines if line.quantity == "update"}
    places = {2: ["first of", "1/2 through"], 4: ["first of", "1/2 through", "3/4 through"],
              3: ["first of", "1/3 through", "2/3 through"]}[depths[0]]  # fmt: skip
    assert [name.partition(" blocks")[0] for name in slopes if name.endswith(": norm")] == places
    inside = [slope for name, slope in slopes.items() if name.endswith(": norm")]
    assert max(inside) - min(inside) < 0.13  # seeds and steps move all of them alike


def test_the_same_call_continues_and_another_is_refused(found):
    results, place = found
    trials = {p.name: p.stat().st_mtime_ns for p in (place / "1.0" / "trials").iterdir()}
    assert len(trials) == 9
    again = lzr.check_depth(plans(1.0), "digits", folder=place / "1.0", **SMALL)
    assert again.to_dict() == results[1.0].to_dict()
    assert {p.name: p.stat().st_mtime_ns for p in (place / "1.0" / "trials").iterdir()} == trials
    with pytest.raises(lzr.LazyrichError, match=r"holds another run \(steps: \d there, 2 now\)"):
        lzr.check_depth(plans(1.0), "digits", folder=place / "1.0", **SMALL | {"steps": 2})


def test_words(found):
    result = found[0][1.0]
    update = next(line for line in result.lines if line.quantity == "update")

    def slope(value):
        return dataclasses.replace(update, slope=Slope(value, value - 0.05, value + 0.05, 6))

    assert [slope(v).word for v in (0.5, 0.15, 0.0, -0.5)] == ["exploding", "inconclusive", "well-behaved", "vanishing"]
    lazy = dataclasses.replace(slope(-0.5), layer="first of blocks.*: up")
    assert lazy.word == "lazy"
    assert "depth_exponent=1 keeps them learning" in dataclasses.replace(result, lines=(*result.lines, lazy)).sentence
    assert dataclasses.replace(result, lines=(*result.lines, slope(-0.5))).word == "vanishing"
    assert dataclasses.replace(result, diverged=(18,)).word == "exploding"
    assert "diverged at depth 18" in dataclasses.replace(result, diverged=(18,)).sentence


def test_slopes_that_cannot_be_told_are_no_good_news(found):
    result = found[0][1.0]
    updates = [line for line in result.lines if line.quantity == "update"]
    outside = [line.layer for line in updates if not line.inside]

    def with_width(half, layers):
        return tuple(
            dataclasses.replace(line, slope=Slope(0.02, 0.02 - (half if line.layer in layers else 0.1), 0.12, 6))
            for line in updates
        )

    loose = dataclasses.replace(result, lines=with_width(1.2, [line.layer for line in updates]))
    assert {line.word for line in loose.lines} == {"inconclusive"}
    assert loose.word == "inconclusive"
    assert "add depths, seeds or steps" in loose.sentence
    assert dataclasses.replace(result, lines=with_width(1.2, outside[:1])).word == "well-behaved"  # a few do not decide
    assert dataclasses.replace(result, lines=with_width(1.2, outside[-1:])).word == "inconclusive"  # but the function does
    assert f"the update of {outside[1]} goes" in dataclasses.replace(result, lines=with_width(0.35, outside[1:2])).sentence


@pytest.mark.parametrize(
    ("plan_at", "options", "words"),
    [
        (plans(1.0), {"depths": (4,)}, "two or more increasing"),
        (plans(1.0), {"depths": (8, 4)}, "two or more increasing"),
        (plans(1.0), {"depths": (0, 4)}, "got depth 0"),
        (plans(1.0), {"depths": (2, "b")}, "expected whole numbers"),
        (plans(1.0, base_depth=None), {}, "one base_depth= for all"),
        (plans(1.0, branches=(), depth_exponent=0.5), {}, "names no residual branches"),
        (plans(1.0, branches=["blocks.0"]), {}, "'blocks.0' matches 1 module at depth 2 and 1 at depth 18, expected more in a"),
        (plans(1.0), {"steps": 0}, "steps = 0"),
        (plans(1.0), {"lr": -1.0}, "lr = -1.0"),
        (plans(1.0), {"width": 16}, "below the base width 32"),
    ],
)
def test_bad_input_is_refused(plan_at, options, words):
    with pytest.raises(lzr.LazyrichError, match=words):
        lzr.check_depth(plan_at, "digits", **SMALL | options)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    words = "depth lazyrich.zoo:residual_mlp --depths 2 6 --depth-exponent 1 --steps 2 --seeds 2 --base 16 --out run"
    assert main(shlex.split(words)) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "residual_mlp · mup() · adamw · exponent 1"
    assert lines[-1] == "page: run/report.html"
    assert json.loads(Path("run/result.json").read_text())["depths"] == [2, 6]
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert page.count('<svg class="figure"') == 2 + 9  # both forests, and a panel for every layer
    assert "built-in" not in page
    assert "lazyrich depth lazyrich.zoo:residual_mlp" in page
    assert main(["report", "run", "--out", "again.html"]) == 0
    assert Path("again.html").read_text(encoding="utf-8") == page
    result = json.loads(Path("run/result.json").read_text())
    Path("run/result.json").write_text(json.dumps(result | {"word": "fine"}))
    assert main(["report", "run"]) == 2
    assert "expected one of well-behaved" in capsys.readouterr().err
    assert main(shlex.split(words.replace("--depths 2 6", "--depths 6") + "2")) == 2
    assert "two or more increasing" in capsys.readouterr().err
    assert main(shlex.split("depth lazyrich.zoo:residual_mlp --branches 'layers.*' --out other")) == 2
    assert "matches no module" in capsys.readouterr().err
