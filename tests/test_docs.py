"""The code of README.md and of the tutorial runs as it is printed."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from lazyrich.cli import main

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str, str]]:
    found = [match.groups() for match in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))]
    assert found, f"{page} shows no code"
    return found


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mynet", raising=False)


def run_page(page: str) -> dict[str, Any]:
    """Every block in order: files are written, Python and commands are run."""
    names: dict[str, Any] = {}
    for language, note, text in blocks(page):
        if note.strip().startswith("file="):
            Path(note.strip().removeprefix("file=")).write_text(text)
        elif language == "python":
            exec(compile(text, page, "exec"), names)
        elif language == "sh":
            for line in text.splitlines():
                words = shlex.split(line)
                assert words[0] == "lazyrich"
                assert main(words[1:]) == 0, line
    return names


def test_the_tutorial_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    run_page("docs/tutorial.md")
    out = capsys.readouterr().out
    assert "standard() · adamw\nExploding" in out
    assert Path("runs/mynet/report.html").exists()
    assert Path("plan.json").exists()
    assert Path("runs/tangent-Net-ntk-digits-width32/report.html").exists()
    assert Path("runs/transfer-net/mup-adam.json").exists()
    assert Path("runs/dial-net/report.html").exists()


def test_the_page_on_kernels_runs_and_its_rules_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from torch.nn import functional as F

    import lazyrich as lzr
    from lazyrich.lazy.rule import RULES

    before = dict(RULES)
    try:
        names = run_page("docs/kernel.md")
        assert "a leaky rectifier" in capsys.readouterr().out

        class Plain(names["Net"]):
            def forward(self, x):
                return self.last(F.leaky_relu(self.second(F.leaky_relu(self.first(x), 0.2)), 0.2))

        class Summed(names["Net"]):
            def forward(self, x):
                return self.last(torch.relu(torch.ones(5, 5).tril() @ self.second(torch.relu(self.first(x)))).mean(1))

        init = lzr.init.variance(2.0, 0.1)
        for kernel, other, x in (("kernel", Plain(), names["x"]), ("sums", Summed(), names["words"])):
            pairs = zip(names[kernel](x), lzr.kernel(other, init=init)(x), strict=True)
            assert all(torch.allclose(found, known, rtol=1e-8) for found, known in pairs)
    finally:
        RULES.clear()
        RULES.update(before)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_the_page_on_training_runs_from_top_to_bottom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "lm", raising=False)
    run_page("docs/training.md")
    out = capsys.readouterr().out
    assert "residual branch at blocks.*" in out
    assert "tied readout at head" in out
    assert "LM · mup() · adamw · exponent 1\n" in out


def test_the_page_on_limits_runs_from_top_to_bottom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pair", raising=False)
    run_page("docs/limit.md")
    out = capsys.readouterr().out
    assert "kernel: r = 0.5 > 0" in out
    assert "feature learning: " in out
    off = [re.search(r"stays is off by (\d+)%, networks of 256 by (\d+)%", line) for line in out.splitlines()]
    stays, networks = zip(*[map(int, found.groups()) for found in off if found], strict=True)
    assert stays[0] <= 2
    assert stays[2] > 5 * networks[2] > 0
    assert max(networks) < 10
    moves = [float(word) for word in re.findall(r"kernels move by ([\d.]+)%", out)]
    assert moves[0] == pytest.approx(4 * moves[1], rel=0.1)  # n^(2r - 1) from 64 to 1024
    assert float(re.search(r"test error ([\d.]+)%", out)[1]) < 8  # type: ignore[index]
    assert Path("runs/pair/report.html").exists()


@pytest.mark.filterwarnings("ignore")  # Optuna's own
def test_the_page_on_sweeps_runs_from_top_to_bottom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "train", raising=False)
    run_page("docs/sweep.md")
    out = capsys.readouterr().out
    assert "12 trials in first.csv" in out
    assert "6 trials in runs/whole/trials, 6 of them new" in out
    assert Path("runs/first/report.html").exists()


def test_the_examples_of_the_readme_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for text in [text for language, _, text in blocks("README.md") if language == "python"]:
        exec(compile(text, "README.md", "exec"), names)
    assert "Well-behaved" in capsys.readouterr().out
    assert Path("report.html").exists()
    predicted, trained = names["flow"].test, names["net"](names["grid"])[:, 0].detach()  # type: ignore[attr-defined,operator]
    assert float((predicted - trained).abs().max()) < 0.25
    assert float((names["start"]["f0_test"] - trained).abs().max()) > 0.9  # type: ignore[index]
    assert Path("tangent.png").exists()


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)", text) if not t.startswith("http")]
    assert [t for t in targets if not ((ROOT / page).parent / t).exists()] == []


def test_the_page_on_autoencoders_runs_from_top_to_bottom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    run_page("docs/autoencoder.md")
    out = capsys.readouterr().out
    assert out.count("transposed: 0.500") == 2
    assert "tanh is critical" in out
    sizes = {
        word: float(size) for word, size in re.findall(r"\('(\w+', \d+)\): ([\d.]+)", out.partition("code at the start")[2])
    }
    assert sizes["default', 128"] < 0.8 * sizes["default', 32"]
    assert sizes["folded', 128"] > 0.7 * sizes["folded', 32"] > sizes["default', 32"]
    assert "100% of the training points are attractors" in out
    assert out.count("bias:") == 4
    for run in ("start", "folded", "vae", "conv"):
        assert Path(f"runs/{run}/report.html").exists()
    assert ">code size</th>" in Path("runs/folded/report.html").read_text(encoding="utf-8")
    assert "evidence bound" in Path("runs/vae/report.html").read_text(encoding="utf-8")
