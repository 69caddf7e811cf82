"""``lazyrich transfer`` from the outside: the page, the plans, continuing, and one clear line on bad input."""

import importlib
import json
import shlex

import pytest
import torch

from lazyrich.cli import main
from lazyrich.cli.command import Live
from lazyrich.cli.report import refresh_sweep
from lazyrich.cli.transfer import _without as without
from lazyrich.sweep import Outcome, Store

WORDS = ["transfer", "lazyrich.zoo:mlp", "--base", "8", "--widths", "8", "16", "--steps", "5", "--seeds", "2", "--lrs",
         "0.001", "0.004", "0.016", "0.064"]  # fmt: skip


def test_a_study_ends_with_plans_and_a_page(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*WORDS, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "best lr" in said
    assert said.splitlines()[-1] == f"page: {out / 'report.html'}"
    page = (out / "report.html").read_text()
    assert "Loss against learning rate" in page
    assert page.count("<svg") >= 3
    assert json.loads((out / "mup-adam.json").read_text())
    before = (out / "result.json").read_text()
    assert main([*WORDS, "--out", str(out)]) == 0, "the same command continues"
    assert json.loads((out / "result.json").read_text())["schemes"] == json.loads(before)["schemes"]
    assert main(["report", str(out)]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--widths", "8"], "at least two increasing"),
        (["--lrs", "0.1"], "four or more, positive and increasing"),
        (["--scheme", "nonsense"], "nonsense"),
        (["--samples", "0"], "n = 0"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, words, says):
    assert main([*WORDS, *words, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1


def test_another_study_does_not_continue_this_one(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main([*WORDS, "--out", out]) == 0
    assert "other settings" not in capsys.readouterr().out
    assert main([*WORDS, "--steps", "6", "--out", out]) == 0
    assert "finished trials of other settings" in capsys.readouterr().out


def test_shards_are_merged_by_the_command_line(tmp_path, capsys):
    parts = [str(tmp_path / f"part{i}") for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        assert main([*WORDS, "--shard", f"{i}/2", "--out", part]) == 0
        assert f"shard {i}/2" in capsys.readouterr().out
    assert main(["merge", str(tmp_path / "all"), *parts]) == 0
    assert "8 trials" in capsys.readouterr().out
    assert main([*WORDS, "--out", str(tmp_path / "all")]) == 0
    assert main([*WORDS, "--shard", "3/2"]) == 2


def test_the_page_is_there_while_trainings_run_and_says_what_is_missing(tmp_path, monkeypatch, capsys):
    module, out, pages = importlib.import_module("lazyrich.sweep.sweep"), tmp_path / "run", []
    partly = []
    monkeypatch.setattr(module, "EVERY", 0.0)
    monkeypatch.setattr(module, "SHARE", 0.0)
    drawn = Live.draw

    def watched(self, result):
        drawn(self, result)
        partly.extend(refresh_sweep(out, busy)[1] for busy in (False, True))
        pages.append((out / "report.html").read_text())

    monkeypatch.setattr(Live, "draw", watched)
    assert main([*WORDS[:-5], "--widths", "8", "16", "24", "--lrs", *WORDS[-4:], "--out", str(out)]) == 0
    assert 'http-equiv="refresh"' in pages[0]
    assert "and to draw them, give its command again: lazyrich transfer" in partly[0]
    assert all("its store holds 4 finished trials by now" in said for said in partly[:2])
    assert partly[1].endswith("The study is running: it draws them itself.")
    assert "Not finished: 4 of 12 trials are in." in pages[0]
    assert "24" not in pages[0].split("Optima by scheme and width")[1].split("</table>")[0]
    last = (out / "report.html").read_text()
    assert 'http-equiv="refresh"' not in last
    assert "Not finished" not in last
    assert refresh_sweep(out) == (None, "")


def test_depths_are_compared_at_the_widest_width(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*WORDS, "--depths", "2", "3", "--scheme", "mup", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "the best learning rate at depth 2, 3 is an end of the grid" in said
    assert {p.name for p in out.glob("mup*.json")} == {"mup-adam-depth2.json", "mup-adam-depth3.json"}
    assert "The best learning rate against depth" in (out / "report.html").read_text()


def test_a_loss_of_ones_own_is_named_and_its_code_is_part_of_the_key(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [*WORDS[:-5], "--seeds", "1", "--scheme", "mup", "--out", "run", "--lrs", *WORDS[-4:]]
    for i, factor in enumerate((1, 2)):  # a process runs a file once, so the changed one has another name
        file = tmp_path / f"mine{i}.py"
        file.write_text(
            f"from torch.nn.functional import cross_entropy\ndef mine(f, y):\n    return {factor} * cross_entropy(f, y)\n"
        )
        assert main([*words, "--loss", f"mine{i}.py:mine"]) == 0
        assert json.loads((tmp_path / "run" / "result.json").read_text())["settings"]["loss"] == "mine"
        assert ("finished trials of other settings" in capsys.readouterr().out) is bool(i)


def test_the_export_has_a_row_a_learning_rate(tmp_path, capsys):
    out, table = tmp_path / "run", tmp_path / "t.json"
    assert main([*WORDS, "--scheme", "mup", "--test", "99", "--out", str(out)]) == 0
    assert json.loads((out / "result.json").read_text())["settings"]["evaluated on"] == "99 held-out samples"
    assert main(["export", str(out), str(table)]) == 0
    assert "lists are in one cell: lrs, losses; --tidy writes a row an entry" in capsys.readouterr().out
    assert main(["export", str(out), str(table), "--tidy"]) == 0
    rows = json.loads(table.read_text())
    curves = json.loads((out / "result.json").read_text())["schemes"][0]["curves"]
    for curve in curves:
        for i, lr in enumerate(curve["lrs"]):
            found = [row["loss"] for row in rows if (row["width"], row["lr"]) == (curve["width"], lr)]
            assert min(found) == curve["low"][i] and max(found) == curve["high"][i]
    assert len(rows) == sum(len(c["lrs"]) for c in curves) * len({row["seed"] for row in rows})


def test_an_export_of_several_studies_says_which_column_tells_them_apart(tmp_path, capsys):
    out, table = str(tmp_path / "run"), tmp_path / "t.json"
    words = [*WORDS, "--scheme", "mup", "--seeds", "1", "--out", out]
    for steps, several in (("4", False), ("5", True)):
        assert main([*words, "--steps", steps]) == 0
        capsys.readouterr()
        assert main(["export", out, str(table)]) == 0
        studies = [row["study"] for row in json.loads(table.read_text())]
        said = f"(steps, data, ...), told apart by the column study; last finished: {studies[-1]}"
        assert (said in capsys.readouterr().out) is several


def test_an_export_says_where_a_network_was_edited(tmp_path, capsys):
    def kept(network, width):
        settings = {"plan": "a", "width": width, "study": "s"}
        outcome = Outcome(str(width), settings, "done", {"network": network, "losses": [1.0]})
        with Store(tmp_path / "trials") as store:
            store.put(outcome, "lazyrich.measure.transfer.run_row", "1")
        assert main(["export", str(tmp_path), str(tmp_path / "t.csv")]) == 0
        return "they are of 2 networks, one as it was before an edit" in capsys.readouterr().out

    assert [kept("net, depth 2 1", 8), kept("net, depth 2 1", 16), kept("net, depth 2 9", 32)] == [False, False, True]


def test_residual_branches_are_scaled_with_the_depth(tmp_path, capsys):
    words = [*WORDS, "--scheme", "mup", "--depths", "1", "2", "--branches", "blocks.*", "--depth-exponent", "1", "--seeds", "1"]
    words[1] = "lazyrich.zoo:residual_mlp"
    for extra, owed in (([], True), (["--meet"], False)):
        assert main([*words, *extra, "--out", str(tmp_path / "run")]) == 0
        said = capsys.readouterr().out
        assert (
            "unmet in mup() · adam · depth 2: residual branch at blocks.*: 2 residual branches were tuned as 1" in said
        ) is owed
    (duty,) = json.loads((tmp_path / "run" / "mup-adam-depth2.json").read_text())["obligations"]
    assert (duty["base_size"], duty["exponent"]) == (1, -1)


def test_the_output_ends_with_lines_that_run_and_a_command_for_a_wider_grid(tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert main([*WORDS, "--scheme", "mup", "--out", str(out)]) == 0
    *_, wider, plans, lazy, factory, load, build, step, page = capsys.readouterr().out.splitlines()
    assert plans.startswith("plans: ") and page.startswith("page: ")
    scope: dict = {}
    exec("\n".join([lazy, factory, load, build, step]), scope)
    assert scope["model"](torch.zeros(2, 64)).shape == (2, 10)
    assert isinstance(scope["optimizer"], torch.optim.Adam)
    html = (out / "report.html").read_text()
    assert "Train by it" in html and "plan.optimizer(model, lr=" in html
    command = shlex.split(wider.partition(": ")[2])
    assert command.count("--lrs") == 1 and command[-3:] == ["0.064", "0.256", "1.02"]
    assert main(command[1:]) == 0
    stored = capsys.readouterr().out
    assert "of other settings" not in stored


def test_lines_that_run_are_given_for_a_factory_in_a_file_whatever_it_calls_itself(tmp_path, capsys):
    file = tmp_path / "net.py"
    file.write_text("import lazyrich\nmine = lambda width: lazyrich.zoo.mlp(width)\n")
    words = ["transfer", f"{file}:mine", *WORDS[2:], "--scheme", "mup", "--seeds", "1", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    said = capsys.readouterr().out
    scope: dict = {}
    exec(said[said.index("\nimport lazyrich") : said.index("\npage: ")], scope)
    assert scope["model"](torch.zeros(2, 64)).shape == (2, 10)


def test_an_option_is_taken_out_of_a_command_with_its_values():
    assert without("--lrs", ["f:g", "--lrs", "1", "2", "--seeds", "3", "--lrs=4", "--out", "x"]) == [
        "f:g", "--seeds", "3", "--out", "x"
    ]  # fmt: skip
