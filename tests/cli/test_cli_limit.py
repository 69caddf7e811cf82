"""``lazyrich limit``: the printed words, the run folder, its page, and bad input."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from lazyrich.cli import main

NETS = """
from torch import nn


def relu(width):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 1))


class Named(nn.Sequential):
    def forward(self, x):
        return {"logits": super().forward(x)}


def named(width):
    return Named(*relu(width))


def skipping(width):
    from lazyrich.family.zoo import ResidualMLP
    return ResidualMLP(width, outputs=1)


def normed(width):
    return nn.Sequential(nn.Linear(64, width), nn.LayerNorm(width), nn.Tanh(), nn.Linear(width, 1))
"""
SMALL = [
    "--base",
    "16",
    "--samples",
    "6",
    "--test",
    "2",
    "--steps",
    "5",
    "--widths",
    "16",
    "64",
    "--seeds",
    "2",
    "--neurons",
    "800",
]
PAIR = ["--classes", "3", "8"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAZYRICH_DATA", raising=False)
    Path("net.py").write_text(NETS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("limit")
    (place / "net.py").write_text(NETS)
    assert main(["limit", f"{place / 'net.py'}:relu", *SMALL, *PAIR, "--out", str(place / "run")]) == 0
    return place / "run"


def test_the_result_and_its_page(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["kind"] == "limit"
    assert [line["width"] for line in result["widths"]] == [16, 64]
    assert [layer["layer"] for layer in result["theory"]["layers"]] == ["0"]
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert page.count('<svg class="figure"') == 2 + 3 + 1 + 1
    assert "lazyrich limit" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_same_command_continues_and_another_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in (finished / "trials").iterdir()}
    words = ["limit", f"{finished.parent / 'net.py'}:relu", *SMALL, *PAIR, "--out", str(finished)]
    assert main(words) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "relu · mup() · digits 3 8"
    assert re.match(r"At infinite width 5 steps take the loss from 0\.5 to", lines[1])
    assert lines[-1] == f"page: {finished / 'report.html'}"
    assert {p.name: p.stat().st_mtime_ns for p in (finished / "trials").iterdir()} == before
    assert main([*words, "--seeds", "3"]) == 2
    assert "holds another run (seeds" in capsys.readouterr().err


def test_the_page_can_be_drawn_again_and_beside_others(finished: Path, small_run: Path) -> None:
    from lazyrich.report import render

    assert main(["report", str(finished), "--out", "again.html"]) == 0
    assert Path("again.html").read_text(encoding="utf-8") == (finished / "report.html").read_text(encoding="utf-8")
    both = [json.loads((finished / "result.json").read_text()), *json.loads((small_run / "result.json").read_text())]
    page = render(both, "both.html").read_text(encoding="utf-8")
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_the_example_of_the_help_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["limit", "--help"])
    text = capsys.readouterr().out
    example = next(line for line in text.splitlines() if line.strip().startswith("lazyrich limit "))
    assert main(shlex.split(example)[1:]) == 0
    assert Path(capsys.readouterr().out.strip().splitlines()[-1].removeprefix("page: ")).exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["net.py:missing"], "missing"),
        (["net.py:skipping", *PAIR], "covers fully connected networks"),
        (["net.py:normed", *PAIR], "covers fully connected networks"),
        (["net.py:named", *PAIR], "returns dict, expected one tensor"),
        (["net.py:relu"], "10 classes for a network of 1 output;"),
        (["net.py:relu", "--classes", "3", "11"], "no sample of class 11"),
        (["net.py:relu", "--classes", "3"], "two or more different ones"),
        (["net.py:relu", *PAIR, "--scheme", "standard"], "under SGD is unstable"),
        (["net.py:relu", *PAIR, "--widths", "64"], "two or more"),
        (["net.py:relu", *PAIR, "--samples", "5000"], "has 357"),
        (["net.py:relu", *PAIR, "--steps", "0"], "steps = 0"),
        (["net.py:relu", *PAIR, "--lr", "1e9"], "diverges"),
        (["net.py:relu", *PAIR, "--neurons", "10"], "got neurons = 10"),
        (["net.py:relu", "--data", "cifar"], "cifar"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["limit", *SMALL, *words, "--out", "run"]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(err) == 1, err
    assert err[0].startswith("lazyrich: ")
    assert says in err[0]
