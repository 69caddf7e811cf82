"""``lazyrich dial`` from the outside: the page, continuing, and one clear line on bad input."""

import json

import pytest

from lazyrich.cli import main

WORDS = ["dial", "lazyrich.zoo:mlp", "--base", "8", "--widths", "8", "16", "--steps", "5", "--seeds", "2", "--samples", "80",
         "--test", "40", "--richness", "0.01", "1"]  # fmt: skip


def test_a_dial_ends_with_a_page_and_continues(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*WORDS, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "gamma_0" in said
    assert said.splitlines()[-1] == f"page: {out / 'report.html'}"
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 6
    assert "Movement against width" in page
    before = json.loads((out / "result.json").read_text())
    assert main([*WORDS, "--out", str(out)]) == 0
    assert json.loads((out / "result.json").read_text())["points"] == before["points"]
    for run in (out, out / "result.json"):
        assert main(["report", str(run)]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--richness", "1"], "at least 2 increasing"),
        (["--r", "0.9"], "0 <= r <= 1/2"),
        (["--samples", "0"], "samples = 0"),
        (["--optimizer", "nonsense"], "nonsense"),
        (["--optimizer", "muon"], "no known law"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, words, says):
    assert main([*WORDS, *words, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1


def test_a_network_that_is_no_fixed_function_is_refused_before_it_trains(tmp_path, capsys):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def net(width):\n"
        "    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10))\n"
    )
    assert main(["dial", f"{tmp_path / 'net.py'}:net", "--steps", "5", "--out", str(tmp_path / "run")]) == 2
    heard = capsys.readouterr().err
    assert "fixed function of its weights" in heard and "Dropout" in heard and "trials failed" not in heard
