"""The verbs that train nothing, help, and the examples that help prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lazyrich.cli import VERBS, main

SMALL = {
    "check": ["--widths", "64", "128", "--seeds", "1", "--steps", "2", "--out", "tmp"],
    "kernel": ["--train", "16", "32", "--test", "50", "--finite-width", "64", "--steps", "5", "--seeds", "1", "--out", "tmp"],
    "depth": ["--depths", "2", "4", "--steps", "2", "--seeds", "1", "--out", "tmp"],
    "init": ["--width", "64", "--seeds", "2", "--samples", "4", "--out", "tmp"],
    "limit": ["--steps", "5", "--samples", "5", "--test", "2", "--widths", "64", "128", "--neurons", "800", "--out", "tmp"],
    "demo": ["--widths", "64", "128", "--seeds", "1", "--out", "tmp"],
    "autoencoder": ["--steps", "4", "--samples", "100", "--lrs", "0.01", "--out", "tmp"],
    "transfer": ["--widths", "32", "64", "--steps", "4", "--out", "tmp"],
    "tangent": ["--steps", "4", "--samples", "8", "--few", "2", "--out", "tmp"],
    "dial": ["--steps", "4", "--samples", "100", "--test", "50", "--out", "tmp"],
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``lazyrich VERB --help`` prints, without its frames."""
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code in (0, None)
    return capsys.readouterr().out


def example_of(verb: str, text: str) -> list[str]:
    found = re.findall(rf"^[\s│|]*(lazyrich {verb} .*?)[\s│|]*$", text.partition("xample")[2], re.MULTILINE)
    assert len(found) == 1, f"lazyrich {verb} --help shows no example, or several: {found}"
    return shlex.split(found[0])[1:]


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb_and_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for verb, what in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(what)}$", out, re.MULTILINE)
    assert "lazyrich check lazyrich.zoo:mlp" in out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    from lazyrich import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_says_what_it_does_and_explains_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(verb, capsys)
    assert f"usage: lazyrich {verb}" in text
    lines = text.splitlines()
    bare = []
    for i, line in enumerate(lines):
        option = re.match(r"^[\s│|]*(--?[a-z][\w-]*(?:, --[\w-]+)*)", line)
        if option and "--help" not in line and "usage:" not in line:
            told = re.sub(r"[\s│|]", "", " ".join(lines[i : i + 3]).replace(option.group(1), ""))
            if len(re.sub(r"\{[^}]*\}|\(default:[^)]*\)|[A-Z|\[\]]", "", told)) < 10:
                bare.append(option.group(1))
    assert bare == []


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("report", "transfer", "dial")])
def test_help_tells_no_empty_default(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = re.sub(r"[\s│|]+", " ", help_of(verb, capsys))
    assert "(default: )" not in text
    assert "(default: None)" not in text
    assert "{None}" not in text


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        ("merge", ["INTO", "FROM ..."]),
        ("export", ["STORE", "FILE"]),
        ("init", ["inputs, at least 2", "drawn, at least 2"]),
        ("tangent", ["samples, at least 4", "2 to 24"]),
        ("limit", ["samples, at least 3", "at least 400"]),
        ("kernel", ["each at least 2"]),
        ("plan", ["lion", "muon_rms", "adafactor", "shampoo"]),
        ("check", ["lion", "muon_rms", "adafactor"]),
    ],
)
def test_help_names_what_an_option_takes(verb: str, says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = re.sub(r"[\s│|]+", " ", help_of(verb, capsys))
    assert [word for word in says if word not in text] == []


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("demo", "report")])
def test_the_example_of_a_verb_runs_as_printed(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = example_of(verb, help_of(verb, capsys))
    assert words[0] == verb
    if verb in ("merge", "export", "forget"):  # their examples read what the example of sweep wrote
        assert main(example_of("sweep", help_of("sweep", capsys))) == 0
    assert main([*words, *SMALL.get(verb, [])]) == 0
    out, err = capsys.readouterr()
    assert out.strip()
    assert "lazyrich: " not in err


def test_the_examples_of_demo_and_report_run_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    demo = example_of("demo", help_of("demo", capsys))
    words = [word for word in demo if word not in ("--out", demo[-1])] if "--out" in demo else demo
    assert demo[-2:] == ["--out", "runs/demo"], "the example of report below draws the folder of this one"
    assert main([*words, *SMALL["demo"][:-2], "--out", "runs/demo"]) == 0
    out = capsys.readouterr().out
    page = Path(out.strip().splitlines()[-1].removeprefix("page: "))
    drawn = page.read_bytes()
    assert len([line for line in out.splitlines() if " · " in line]) >= 9, "a sentence for each case and scheme"
    page.unlink()
    assert main(example_of("report", help_of("report", capsys))) == 0
    assert capsys.readouterr().out == f"page: {page}\n"
    assert page.read_bytes() == drawn


def test_report_draws_where_it_is_told(capsys: pytest.CaptureFixture[str], small_run: Path) -> None:
    assert main(["report", str(small_run), "--out", "elsewhere/page.html"]) == 0
    assert capsys.readouterr().out == "page: elsewhere/page.html\n"
    assert "<html" in Path("elsewhere/page.html").read_text(encoding="utf-8")
    assert main(["report", str(small_run / "result.json"), "--out", "other.html"]) == 0
    assert Path("other.html").read_bytes() == Path("elsewhere/page.html").read_bytes()


def test_plan_prints_a_row_for_every_tensor_and_saves_what_it_printed(capsys: pytest.CaptureFixture[str]) -> None:
    import lazyrich as lzr

    assert main(["plan", "lazyrich.zoo:mlp", "--width", "256", "--save", "deep/plan.json"]) == 0
    out = capsys.readouterr().out
    for tensor in lzr.Family(lzr.zoo.mlp, base=64).tensors:
        assert re.search(rf"^\W*{re.escape(tensor)}\b", out, re.MULTILINE)
    assert out.splitlines()[-1] == "plan: deep/plan.json"
    assert lzr.Plan.load("deep/plan.json", family=lzr.Family(lzr.zoo.mlp, base=64)).table(256) in out


def test_plan_depends_on_scheme_optimizer_and_width(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for words in ([], ["--width", "512"], ["--scheme", "standard"], ["--optimizer", "sgd"], ["--depth", "3"], ["--base", "32"]):
        assert main(["plan", "lazyrich.zoo:mlp", *words]) == 0
        printed.append(capsys.readouterr().out)
    assert len(set(printed)) == len(printed)


def test_an_obligation_is_printed_with_the_way_to_meet_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "lazyrich.zoo:tied_transformer"]) == 0
    assert re.search(r"^obligation: .*plan\.meet_\(model\)", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "sgd", "adam"),
    [
        ("mup", "feature learning", "feature learning"),
        ("ntk", "kernel", "kernel"),
        ("standard", "unstable", "unstable"),
    ],
)
def test_scheme_tells_the_regime_under_both_kinds_of_optimizer(
    name: str, sgd: str, adam: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scheme", name]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{name}()\n")
    assert re.findall(r"^under (\w+): ([\w -]+) \(", out, re.MULTILINE) == [("sgd", sgd), ("adam", adam)]


def test_scheme_without_hidden_layers_shows_no_hidden_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scheme", "mup", "--hidden-layers", "1"]) == 0
    assert "hidden" not in re.sub(r"under.*\n.*\n", "", capsys.readouterr().out)


def test_the_installed_command_and_the_module_answer_alike(tmp_path: Path) -> None:
    answers = []
    for command in ([str(Path(sys.executable).parent / "lazyrich")], [sys.executable, "-m", "lazyrich"]):
        if not Path(command[0]).exists():
            pytest.skip("the script is not installed beside this Python")
        run = subprocess.run([*command, "scheme", "mup"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
        bad = subprocess.run([*command, "chekc"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
        answers.append((run.returncode, run.stdout, run.stderr, bad.returncode, bad.stdout, bad.stderr))
    assert answers[0] == answers[1]
    code, out, err, bad_code, bad_out, bad_err = answers[0]
    assert (code, err, bad_code, bad_out) == (0, "", 2, "")
    assert out.startswith("mup")
    assert bad_err.startswith("lazyrich: got 'chekc', expected one of check, ")
    assert bad_err.count("\n") == 1


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    run = subprocess.run(
        f"{shlex.quote(sys.executable)} -m lazyrich scheme mup | true",
        shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert "Traceback" not in run.stderr
