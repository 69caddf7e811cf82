"""``lazyrich kernel``: accuracies, the run folder, its page, and bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from lazyrich.cli import main
from lazyrich.cli.kernel import _sentence
from lazyrich.report import render

NETS = """
from torch import nn


def relu(width, depth=1):
    hidden = [layer for _ in range(depth - 1) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), *hidden, nn.Linear(width, 10))


def softmax(width):
    return nn.Sequential(nn.Linear(64, width), nn.Softmax(1), nn.Linear(width, 10))


def conv(width):
    return nn.Sequential(nn.Conv2d(1, width, 3, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, 10))


def three(width):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 3))


def numbers():
    import torch
    return torch.randn(40, 64), torch.randn(40)


def one():
    import torch
    return torch.randn(1, 64), torch.tensor([0])
"""
SMALL = ["--base", "16", "--finite-width", "32", "--seeds", "2", "--steps", "60", "--train", "24", "96", "--test", "200"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAZYRICH_DATA", raising=False)
    Path("net.py").write_text(NETS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with both kernels and finite networks."""
    place = tmp_path_factory.mktemp("kernel")
    (place / "net.py").write_text(NETS)
    words = ["kernel", f"{place / 'net.py'}:relu", "--w", "2", "--b", "0.1", *SMALL, "--out", str(place / "run")]
    assert main(words) == 0
    return place / "run"


def test_the_result_holds_accuracies_spectra_and_matrices(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["kind"] == "kernel"
    assert [row["train"] for row in result["rows"]] == [24, 96]
    last = result["rows"][-1]
    assert last["nngp"] > 0.8
    assert last["ntk"] > 0.8
    assert abs(last["network"]["mean"] - last["ntk"]) < 0.1
    assert last["network"]["low"] <= last["network"]["mean"] <= last["network"]["high"]
    for spectrum in result["spectra"]:
        assert spectrum["cumulative"][-1] == pytest.approx(1)
        assert spectrum["eigenvalues"] == sorted(spectrum["eigenvalues"], reverse=True)
        assert 1 < spectrum["effective_rank"] < 96
    assert {m["kernel"] for m in result["matrices"]} == {"nngp", "ntk"}
    assert all(len(m["cells"]) == 96 and len(m["bounds"]) == 11 for m in result["matrices"])
    grams = np.load(finished / "kernel.npy", allow_pickle=False)
    assert grams.shape == (2, 96, 96)
    np.testing.assert_array_equal(grams, grams.transpose(0, 2, 1))
    assert sorted(p.name for p in finished.iterdir()) == ["kernel.npy", "report.html", "result.json", "settings.json", "trials"]


def test_the_same_command_continues_and_another_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in (finished / "trials").iterdir()}
    words = ["kernel", f"{finished.parent / 'net.py'}:relu", "--w", "2", "--b", "0.1", *SMALL, "--out", str(finished)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    lines = out.strip().splitlines()
    assert lines[0] == "relu · ntk() · digits"
    assert re.match(r"(The|No difference between the) (finite network|kernel) .* 96 training samples", lines[1])
    assert any(re.match(r" +train +nngp +ntk +width 32", line) or line.startswith("train") for line in lines)
    assert sum("effective rank" in line for line in lines) == 2
    assert lines[-1] == f"page: {finished / 'report.html'}"
    assert {p.name: p.stat().st_mtime_ns for p in (finished / "trials").iterdir()} == before
    assert main([*words, "--noise", "0.1"]) == 2
    assert "holds another run (noise" in capsys.readouterr().err
    assert "Traceback" not in err


@pytest.mark.parametrize("network", [0.752, 0.79, 0.82])
def test_what_the_test_samples_cannot_tell_apart_is_not_called_as_good(network: float) -> None:
    row = {"train": 100, "ntk": 0.79, "network": {"mean": network, "fitted": 1.0}}
    said = _sentence(row, {"kernels": ["ntk"], "test": 200, "finite width": 64})
    assert said.startswith("No difference between the finite network and its kernel is shown on 100 training samples")
    assert f"{network:.1%} at width 64 against 79.0% for the NTK" in said


def test_an_edited_network_is_another_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.py").write_text(NETS + "# edited\n")
    words = ["kernel", "net.py:relu", "--w", "2", "--b", "0.1", *SMALL, "--out", str(finished)]
    assert main(words) == 2
    assert "holds another run (network" in capsys.readouterr().err


def test_the_page_is_one_file_with_the_figures_and_can_be_drawn_again(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert page.count('<svg class="figure"') == 5
    for title in ("Accuracy against training size", "Spectrum of the kernel", "Power of the targets", "NTK between training"):
        assert title in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert main(["report", str(finished), "--out", "again.html"]) == 0
    assert Path("again.html").read_text(encoding="utf-8") == page


def test_one_network_has_no_range_and_a_sample_with_itself_no_cell(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    cells = result["matrices"][0]["cells"]  # 96 samples in 96 cells
    assert all((value is None) == (i == j) for i, row in enumerate(cells) for j, value in enumerate(row))
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "cells of one sample with itself are blank" in page
    assert "the band is the range over several" in page
    for row in result["rows"]:
        row["network"]["low"] = row["network"]["high"] = row["network"]["mean"]
    result["matrices"] = [{**m, "cells": [[0.5] * 4] * 4} for m in result["matrices"]]
    alone = render([result], "alone.html").read_text(encoding="utf-8")
    assert "width 32 is trained by SGD from its own draw, with its output before training taken off.</p>" in alone
    for word in ("band", ">range<", "its range", "blank"):
        assert word not in alone.partition("<body")[2], word


def test_results_of_both_kinds_share_a_page(finished: Path, small_run: Path) -> None:
    both = [json.loads((finished / "result.json").read_text()), *json.loads((small_run / "result.json").read_text())]
    page = render(both, "both.html").read_text(encoding="utf-8")
    assert "2 results" in page
    assert "Slopes against theory" in page
    assert "What the kernel finds easy" in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_kernels_alone_need_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["kernel", "net.py:conv", "--images", "--base", "16", "--train", "40", "--test", "50", "--kernel", "nngp"]
    assert main([*words, "--no-finite", "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].startswith("At infinite width the NNGP of this network, given 40 training samples, classifies")
    assert not Path("run/trials").exists()
    assert np.load("run/kernel.npy").shape == (1, 40, 40)


def test_a_rule_of_initialisation_draws_as_its_variance_does() -> None:
    words = ["kernel", "net.py:relu", "--train", "20", "--test", "20", "--kernel", "nngp", "--no-finite", "--out"]
    assert main([*words, "ruled", "--init", "*=he(relu)"]) == 0
    assert main([*words, "drawn", "--w", "2"]) == 0
    np.testing.assert_allclose(np.load("ruled/kernel.npy"), np.load("drawn/kernel.npy"), rtol=1e-5)


def test_explain_tells_the_rule_of_every_operation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernel", "--explain", "net.py:relu"]) == 0
    out = capsys.readouterr().out
    assert "relu" in out
    assert "the kernel can be computed" in out
    assert not Path("runs").exists()
    assert main(["kernel", "--explain", "net.py:softmax"]) == 0
    assert "No kernel" in capsys.readouterr().out


@pytest.mark.parametrize("data", ["one", "numbers"])
def test_explain_needs_no_more_than_a_sample(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernel", "--explain", "net.py:relu", "--data", f"net.py:{data}"]) == 0
    assert "the kernel can be computed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["net.py:softmax", "--train", "8"], "softmax"),
        (["net.py:missing"], "missing"),
        (["net.py:relu", "--w", "2", "--init", "*=he(relu)"], "expected one of both"),
        (["net.py:three", "--train", "8"], "outputs (3,) for 10 classes"),
        (["net.py:conv", "--train", "8"], "--images gives the network images"),
        (["lazyrich.zoo:autoencoder", "--train", "8", "--no-finite"], "a bottleneck"),
        (["net.py:relu", "--scheme", "mup"], "no kernel"),
        (["net.py:relu", "--scheme", "nonsense"], "nonsense"),
        (["net.py:relu", "--train", "5000"], "1797"),
        (["net.py:relu", "--train", "1"], "at least 2"),
        (["net.py:relu", "--test", "0"], "--test 0"),
        (["net.py:relu", "--b", "0.1"], "--w"),
        (["net.py:relu", "--w", "-1"], "--w -1"),
        (["net.py:relu", "--noise", "-1"], "--noise -1"),
        (["net.py:relu", "--finite-width", "8"], "--finite-width 8"),
        (["net.py:relu", "--data", "net.py:numbers"], "without classes"),
        (["net.py:relu", "--data", "cifar"], "cifar"),
        (["net.py:relu", "--images", "--data", "mnist"], "found no mnist"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernel", *words]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(err) == 1, err
    assert err[0].startswith("lazyrich: ")
    assert says in err[0]
