"""``lazyrich tangent``: the printed words, the run folder, its page, and bad input."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from lazyrich.cli import main

NETS = """
from torch import nn


def relu(width, depth=1):
    hidden = [layer for _ in range(depth - 1) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), *hidden, nn.Linear(width, 10))


def mixing(width):
    return nn.Sequential(nn.Linear(64, width), nn.BatchNorm1d(width), nn.Linear(width, 10))


def dropping(width):
    return nn.Sequential(nn.Linear(64, width), nn.Dropout(0.5), nn.Linear(width, 10))


def signed(width):
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 1))


def narrow(width):
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 3))


def softmax(width):
    return nn.Sequential(nn.Linear(64, width), nn.Softmax(1), nn.Linear(width, 10))


def same():
    import torch
    return torch.randn(40, 64), torch.zeros(40, dtype=torch.long)
"""
SMALL = ["--base", "8", "--samples", "12", "--test", "20", "--few", "4", "--steps", "10"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAZYRICH_DATA", raising=False)
    Path("net.py").write_text(NETS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tangent")
    (place / "net.py").write_text(NETS)
    assert main(["tangent", f"{place / 'net.py'}:relu", *SMALL, "--width", "16", "--out", str(place / "run")]) == 0
    return place / "run"


def test_the_result_and_its_page(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["kind"] == "tangent"
    assert result["moments"][-1]["step"] == 10
    assert [row["layer"] for row in result["moments"][-1]["alignment"]] == ["1", "3", "(whole)"]
    assert sorted(p.name for p in finished.iterdir()) == ["report.html", "result.json", "settings.json", "trials"]
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert page.count('<svg class="figure"') == 8
    assert "lazyrich tangent" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_same_command_continues_and_another_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in (finished / "trials").iterdir()}
    words = ["tangent", f"{finished.parent / 'net.py'}:relu", *SMALL, "--width", "16", "--out", str(finished)]
    assert main(words) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "relu at width 16 · ntk() · digits"
    assert re.match(r"This network .* its tangent kernel moved by", lines[1])
    assert any(line.startswith("hierarchy on 4 samples") for line in lines)
    assert lines[-1] == f"page: {finished / 'report.html'}"
    assert {p.name: p.stat().st_mtime_ns for p in (finished / "trials").iterdir()} == before
    assert main([*words, "--seed", "1"]) == 2
    assert "holds another run (seed" in capsys.readouterr().err


def test_the_page_can_be_drawn_again_and_beside_others(finished: Path, small_run: Path) -> None:
    from lazyrich.report import render

    assert main(["report", str(finished), "--out", "again.html"]) == 0
    assert Path("again.html").read_text(encoding="utf-8") == (finished / "report.html").read_text(encoding="utf-8")
    both = [json.loads((finished / "result.json").read_text()), *json.loads((small_run / "result.json").read_text())]
    page = render(both, "both.html").read_text(encoding="utf-8")
    assert "2 results" in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_a_network_without_a_limit_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tangent", "net.py:softmax", *SMALL, "--out", "run"]) == 0
    assert "no kernel at infinite width" in capsys.readouterr().out
    assert "softmax" in Path("run/report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_of_the_help_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tangent", "--help"])
    example = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("lazyrich tangent "))
    assert main(shlex.split(example)[1:]) == 0
    assert Path(capsys.readouterr().out.strip().splitlines()[-1].removeprefix("page: ")).exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["net.py:missing"], "missing"),
        (["net.py:mixing"], "BatchNorm1d"),
        (["net.py:dropping"], "Dropout"),
        (["net.py:narrow"], "3 outputs for 'digits' with 10"),
        (["net.py:relu", "--images", "--data", "net.py:same"], "one class only"),
        (["net.py:relu", "--scheme", "nonsense"], "nonsense"),
        (["net.py:relu", "--width", "4"], "width 4"),
        (["net.py:relu", "--samples", "5000"], "1797"),
        (["net.py:relu", "--few", "99"], "few = 99"),
        (["net.py:relu", "--steps", "0"], "steps = 0"),
        (["net.py:relu", "--lr", "1e9"], "diverges"),
        (["net.py:relu", "--data", "cifar"], "cifar"),
        (["net.py:relu", "--autoencoder"], "10 outputs for 'digits' with 64"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tangent", *SMALL, *words, "--out", "run"]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(err) == 1, err
    assert err[0].startswith("lazyrich: ")
    assert says in err[0]


def test_two_classes_are_chosen_for_a_network_of_one_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tangent", "net.py:signed", *SMALL, "--classes", "3", "8", "--out", "run"]) == 0
    assert "digits 3 8" in capsys.readouterr().out
