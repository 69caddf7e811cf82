"""Bad input ends with one line and status 2, Ctrl-C with 130; finished work is kept and continued."""

from __future__ import annotations

import importlib
import json
import os
import stat
from pathlib import Path

import pytest

from lazyrich.cli import main

TINY = ["--base", "8", "--widths", "8", "16", "--seeds", "2", "--steps", "2"]

NETS = """
import torch
from torch import nn


def crash(width):
    raise RuntimeError("no such luck")


def leaves(width):
    raise SystemExit(0)


class Leaver(nn.Linear):
    def __init__(self, width):
        super().__init__(64, width)

    def forward(self, x):
        raise SystemExit(0)


def stubborn(width):
    return nn.Linear(64, 10)


def lazy(width):
    return nn.Sequential(nn.LazyLinear(width), nn.Linear(width, 10))


def nothing(width):
    return None


def wrong_input(width):
    return nn.Sequential(nn.Linear(63, width), nn.Linear(width, 10))


def wrong_output(width):
    return nn.Sequential(nn.Linear(64, width), nn.Linear(width, 3))


def returns_text(width):
    class Net(nn.Linear):
        def forward(self, x):
            return "out"
    return nn.Sequential(nn.Linear(64, width), Net(width, 10))


class Nan(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Linear(64, width), nn.Linear(width, 10)

    def forward(self, x):
        return self.b(self.a(x)) / 0.0 * 0.0


def unclear(width):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(64, width))
            self.out = nn.Linear(width, 10)

        def forward(self, x):
            return self.out(x @ self.table)
    return Net()


def deep(width, depth):
    return nn.Sequential(nn.Linear(64, width), *[nn.Linear(width, width) for _ in range(depth)], nn.Linear(width, 10))


class Two(nn.Sequential):
    def forward(self, x):
        return super().forward(x), x


def pair(width):
    return Two(nn.Linear(64, width), nn.Linear(width, 10))


def one_class():
    return torch.randn(40, 64), torch.zeros(40, dtype=torch.long)


def many_labels():
    return torch.randn(40, 64), torch.arange(40)


def triple():
    return torch.randn(40, 64), torch.zeros(40, dtype=torch.long), 3


def fails(lr):
    raise ValueError("too large")


def raising(error):
    class Net(nn.Linear):
        def forward(self, x):
            raise error
    return lambda width: nn.Sequential(Net(64, width), nn.Linear(width, 10))


key, name, division, silent = map(raising, (KeyError("k"), NameError("no F"), ZeroDivisionError("by 0"), ValueError()))
good = lambda width: nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10))
number = 3


def data():
    return torch.full((32, 64), float("nan")), torch.zeros(32, dtype=torch.long)
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAZYRICH_DATA", raising=False)
    Path("net.py").write_text(NETS)
    Path("broken.py").write_text("def make(width:\n")


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which a command refuses."""
    assert main(list(words)) == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("lazyrich: ")
    return lines[0]


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("net.py:missing", ["missing", "net.py"]),
        ("nowhere.py:make", ["nowhere.py"]),
        ("no.such.module:make", ["no.such.module"]),
        ("broken.py:make", ["broken.py"]),
        ("justaword", ["justaword", "module:"]),
        ("net.py:number", ["number"]),
        ("net.py:crash", ["no such luck", "RuntimeError"]),
        ("net.py:leaves", ["the factory 'leaves' failed at width 8: SystemExit: 0"]),
        ("net.py:Leaver", ["ended the program by sys.exit(0) at", "net.py:19", "let it raise an error"]),
        ("net.py:stubborn", ["width"]),
        ("net.py:lazy", ["azy"]),
        ("net.py:nothing", ["NoneType", "Module"]),
        ("net.py:unclear", ["'table'", "on the command line --roles 'table=vector'"]),
        ("net.py:wrong_input", ["64", "63"]),
        ("net.py:wrong_output", ["got label 9 for 3 outputs", "give the network 10 outputs"]),
        ("net.py:returns_text", ["str"]),
    ],
)
def test_a_factory_that_cannot_serve_is_refused(factory: str, says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "check", factory, *TINY)
    assert [word for word in says if word not in line] == [], line


@pytest.mark.parametrize(
    "verb", ["check --widths 8 16", "kernel --train 8 --test 4 --no-finite", "tangent --samples 4 --few 2"]
)
@pytest.mark.parametrize(("net", "says"), [("key", "'k'"), ("name", "no F"), ("division", "by 0"), ("silent", "ValueError")])
def test_whatever_a_forward_raises_is_told_in_one_line(
    verb: str, net: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *options = verb.split()
    line = refusal(capsys, verb, f"net.py:{net}", "--base", "8", *options)
    assert says in line and "does not take" in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--widths", "4", "8"], ["width 4", "base width 8"]),
        (["--widths", "32", "16"], ["[32, 16]", "increasing"]),
        (["--widths", "16", "16"], ["increasing"]),
        (["--widths", "16"], ["at least two"]),
        (["--steps", "0"], ["steps = 0"]),
        (["--seeds", "0"], ["seeds = 0"]),
        (["--lr", "-1"], ["lr", "positive"]),
        (["--lr", "nan"], ["lr", "positive"]),
        (["--scheme", "mupp"], ["mupp", "mean_field"]),
        (["--scheme", "richness(0.7)"], ["0.7", "1/2"]),
        (["--scheme", "richness(__import__('os'))"], ["expected one of"]),
        (["--optimizer", "lion2"], ["lion2", "adamw"]),
        (["--data", "nowhere"], ["nowhere", "digits"]),
        (["--data", "mnist", "--data-root", "nowhere"], ["found no mnist", "nowhere/mnist", "root="]),
        (["--data-root", "nowhere"], ["root 'nowhere'", "not read from image files"]),
        (["--data", "net.py:data"], ["nan"]),
        (["--loss", "hinge"], ["hinge", "cross_entropy"]),
        (["--device", "cuda:99"], ["cuda:99"]),
        (["--device", "toaster"], ["toaster"]),
        (["--device", "meta"], ["meta", "try cpu"]),
        (["--roles", "conv"], ["conv", "="]),
        (["--roles", "0.weight=boss"], ["boss", "hidden"]),
        (["--roles", "nothing*=hidden"], ["nothing*"]),
        (["--depth", "2"], ["depth"]),
        (["--weight-decay", "-0.1"], ["weight_decay = -0.1", "not negative"]),
        (["--init", "*=-1"], ["-1", "standard deviation"]),
        (["--base", "0"], ["base width 0", "at least 1"]),
    ],
)
def test_an_option_that_makes_no_check_is_refused(
    words: list[str], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, "check", "net.py:good", *TINY, *words)
    assert [word for word in says if word.lower() not in line.lower()] == [], line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "check net.py:good --widhts 8",
            "got --widhts, 8, which is no option; perhaps you meant --widths; lazyrich check --help",
        ),
        ("check net.py:good more", "got more, which is no option; lazyrich check --help tells more"),
        ("check", "got no FACTORY, expected one; lazyrich check --help tells more"),
        ("check net.py:good --steps x", "got 'x' after --steps, expected a whole number"),
        ("check net.py:good --lr x", "got 'x' after --lr, expected a number"),
        ("check net.py:good --depth x", "got 'x' after --depth, expected a whole number"),
        ("check net.py:good --target no", "got 'no' after --target, expected one of 'labels', 'input'"),
        (
            "check net.py:good --scheme",
            "got nothing after --scheme, expected one or more values; lazyrich check --help tells which",
        ),
        ("kernel net.py:good --train --test 10", "got nothing after --train, expected one or more values"),
        ("sweep", "got no FUNCTION and no --axis, expected both"),
        ("sweep net.py:good --axis", "got nothing after --axis, expected one or more values"),
    ],
)
def test_words_that_a_verb_does_not_take_are_refused_in_one_line(
    words: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, *words.split()).startswith(f"lazyrich: {says}")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("plan net.py:deep", "It takes a second argument: give a depth (depth=3, on the command line --depth 3)"),
        ("plan net.py:pair --depth 3", "It takes the width alone: leave out the depth"),
        ("plan net.py:stuborn", "'net.py' has no 'stuborn'; did you mean stubborn?"),
        ("plan net.py:zzz", "'net.py' has no 'zzz'; its callables are Leaver, Nan, Two, crash, data, deep"),
        ("plan net.py:good --roles x*=hidden", "the tensors are 0.weight, 0.bias, 2.weight, 2.bias"),
        ("plan net.py:good --branches x*", "matches no module of the model; its modules are 0, 1, 2"),
        ("kernel net.py:pair --train 8 --test 8", "the network returns tuple, expected one tensor (N, ...)"),
        ("kernel net.py:good --data net.py:one_class", "got data 'net.py:one_class' of one class only, expected two or more"),
        ("check net.py:good --data net.py:many_labels", "got label 39 for 10 outputs, expected labels from 0 to 9"),
        ("check net.py:good --data net.py:triple", "got 3 things for 'net.py:triple', expected a pair (x, y)"),
        ("sweep net.py:fails --axis lr=1 --workers 0", "got workers=0, expected at least 1"),
        ("sweep net.py:fails --axis lr=1 --executor processes --workers 0", "got workers=0, expected at least 1"),
        ("sweep net.py:fails --axis lr=1 --executor processes --retries -1", "got retries=-1, expected at least 0"),
        ("sweep net.py:fails --axis lr=1", "1 of 1 trial failed: mend the cause"),
    ],
)
def test_what_is_refused_says_what_to_give_instead(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, *words.split())
    assert says in line
    assert not line.endswith("...")


def test_a_truncated_data_file_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("images")
    folder.mkdir()
    for part, magic in (("train-images-idx3-ubyte", b"\0\0\x08\x03"), ("train-labels-idx1-ubyte", b"\0\0\x08\x01")):
        (folder / part).write_bytes(magic + b"\0\0\0\x09")
    line = refusal(capsys, "check", "net.py:good", *TINY, "--data", "mnist", "--data-root", str(folder))
    assert "train-images-idx3-ubyte" in line


def test_losses_that_are_not_finite_are_a_verdict_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "net.py:good", *TINY, "--lr", "1e30", "--out", "run"]) == 0
    assert "stopped being finite at width 8, 16" in capsys.readouterr().out
    assert Path("run/report.html").exists()


def test_a_loss_that_is_not_finite_before_any_step_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "the loss of 'Nan' is nan before any step (width 8" in refusal(capsys, "check", "net.py:Nan", *TINY, "--out", "run")
    assert main(["check", "net.py:good", *TINY, "--out", "run"]) == 0  # the folder is free for the mended network


def test_another_data_set_has_another_default_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.py").write_text("import torch\n\n\ndef rows():\n    return torch.randn(40, 64), torch.arange(40) % 10\n")
    for data in ("digits", "own.py:rows"):
        assert main(["check", "net.py:good", *TINY, "--data", data]) == 0
    assert len(list(Path("runs").iterdir())) == 2


def test_another_runs_folder_is_refused_and_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "net.py:good", *TINY, "--out", "run"]) == 0
    capsys.readouterr()
    before = {p: p.read_bytes() for p in Path("run").rglob("*.json")}
    line = refusal(capsys, "check", "net.py:good", *TINY, "--lr", "0.5", "--out", "run")
    assert "run" in line
    assert "lr" in line
    assert {p: p.read_bytes() for p in Path("run").rglob("*.json")} == before


@pytest.mark.parametrize(
    "words", ["check net.py:good --base 8 --widths 8 16", "demo", "sweep net.py:fails --axis lr=1", "dial net.py:good --base 8"]
)
@pytest.mark.parametrize("name", ["report.html", "result.json"])
def test_a_page_and_a_result_of_something_else_are_not_written_over(
    words: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine").mkdir()
    Path("mine", name).write_text("mine")
    line = refusal(capsys, *words.split(), "--out", "mine")
    assert f"mine holds a {name} of something else" in line and "give a new folder" in line
    assert [(item.name, item.read_text()) for item in Path("mine").iterdir()] == [(name, "mine")]


def test_a_folder_that_is_a_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").write_text("mine")
    assert "run" in refusal(capsys, "check", "net.py:good", *TINY, "--out", "run")
    assert Path("run").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("shut").mkdir()
    os.chmod("shut", stat.S_IRUSR | stat.S_IXUSR)
    assert "shut" in refusal(capsys, "check", "net.py:good", *TINY, "--out", "shut/run")


def test_a_folder_that_cannot_be_written_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", "shut/run")

    monkeypatch.setattr(Path, "mkdir", denied)
    assert "shut/run" in refusal(capsys, "check", "net.py:good", *TINY, "--out", "shut/run")


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_continues(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["check", "net.py:good", *TINY, "--out", "run"]
    check_module = importlib.import_module("lazyrich.measure.check")
    real, done = check_module.run_trial, []

    def interrupted(setup, width, seed):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append((width, seed))
        return real(setup, width, seed)

    monkeypatch.setattr(check_module, "run_trial", interrupted)
    assert main(words) == 130
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "the same command continues" in err
    kept = {p: p.read_bytes() for p in Path("run").rglob("trials/*.json")}
    assert len(kept) == 3

    again = []
    monkeypatch.setattr(check_module, "run_trial", lambda setup, w, s: again.append((w, s)) or real(setup, w, s))
    assert main(words) == 0
    assert again == [(16, 1)]
    assert {p: p.read_bytes() for p in kept} == kept
    continued = json.loads(Path("run/result.json").read_text())[0]
    capsys.readouterr()
    assert main([*words[:-1], "whole"]) == 0
    whole = json.loads(Path("whole/result.json").read_text())[0]
    assert continued["lines"] == whole["lines"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("init net.py:good --width 0", "width = 0"),
        ("init net.py:good --base 0", "base width 0"),
        ("plan net.py:good --base 0", "base width 0"),
        ("plan net.py:good --init *=-1", "init= -1"),
        ("plan net.py:good --base-depth 3", "--branches"),
        ("plan lazyrich.zoo:residual_mlp --branches blocks.* --base-depth 0", "base_depth = 0"),
        ("depth lazyrich.zoo:residual_mlp --depths 0 4", "depth 0"),
        ("depth lazyrich.zoo:residual_mlp --depths 2 4 --branches blocks.* blocks.0", "(2 of 'blocks.*', 1 of 'blocks.0')"),
        ("depth lazyrich.zoo:residual_mlp --depths 2 4 --weight-decay -1", "weight_decay = -1.0"),
        ("autoencoder --codes 0", "code = 0"),
        ("autoencoder --widths 0", "width = 0"),
        ("autoencoder --widths 8 16 --base 0", "base = 0"),
        ("autoencoder --add-start foo", "name=path/to/file.py:function"),
        ("autoencoder --add-metric foo", "name=path/to/file.py:function"),
        ("limit lazyrich.zoo:two_class --classes 3 8 --neurons 0", "neurons = 0"),
        ("scheme richness(x)", "'x' is no number"),
    ],
)
def test_every_refusal_names_what_was_given(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, *words.split(" "))
    assert says in line
    assert "object at 0x" not in line


def test_a_question_that_is_refused_prints_no_title(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scheme", "mup", "--hidden-layers", "0"]) == 2
    assert capsys.readouterr().out == ""


def test_a_plan_that_cannot_be_written_is_refused_before_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "net.py:good", "--save", "."]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "cannot write ." in said.err


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "net.py:missing"],
        ["plan", "net.py:good", "--scheme", "nope"],
        ["scheme", "nope"],
        ["scheme", "mup", "--hidden-layers", "0"],
        ["report", "nowhere"],
        ["report", "net.py"],
    ],
)
def test_the_other_verbs_refuse_alike(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refusal(capsys, *words)


UNTRAINED = """
import torch
from torch import nn

base = lambda width: nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10))
frozen = lambda width: base(width).requires_grad_(False)


class Silent(nn.Sequential):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


silent = lambda width: Silent(*base(width))
detached = lambda output, y: output.sum().detach()
number = lambda output, y: 3.0
several = lambda output, y: output
"""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["untrained.py:frozen"], "without a tensor that trains"),
        (["untrained.py:silent"], "below no_grad()"),
        (["untrained.py:base", "--loss", "untrained.py:detached"], "the loss, detach"),
        (["untrained.py:base", "--loss", "untrained.py:number"], "got float, no tensor; average"),
        (["untrained.py:base", "--loss", "untrained.py:several"], "got shape (16, 10); average"),
        (["untrained.py:base", "--lr", "1e38"], "got learning rates up to 1e+38"),
        (["untrained.py:base", "--lr", "1e39", "--optimizer", "sgd"], "expected numbers that float32 holds"),
    ],
)
def test_what_no_step_can_be_taken_with_is_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("untrained.py").write_text(UNTRAINED)
    assert says in refusal(capsys, "check", *words, *TINY)
