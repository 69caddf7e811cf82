"""``lazyrich sweep``, ``merge`` and ``export`` from the outside."""

import csv
import importlib
import json
import signal
import sqlite3

import numpy as np
import pytest

from lazyrich.cli import main
from lazyrich.cli.sweep import axes_of
from lazyrich.errors import StoreError
from lazyrich.sweep import Outcome, Store, Trial

FILE = """
import os, signal
def train(lr, seed=0):
    if lr > 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if lr > 3:
        raise ValueError("too large")
    return {"loss": (lr - 1) ** 2 + seed}
"""


@pytest.fixture
def words(tmp_path):
    (tmp_path / "train.py").write_text(FILE)
    return ["sweep", f"{tmp_path / 'train.py'}:train", "--axis"]


def test_a_sweep_ends_with_a_table_and_a_page_and_continues(words, tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*words, "lr=0.5,1,2", "seed=0:2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "loss is lowest, 0.5, at lr=1, and highest, 1.5, at lr=2." in said
    assert said.splitlines()[-1] == f"page: {out / 'report.html'}"
    assert main([*words, "lr=0.5,1,2,3", "seed=0:2", "--out", str(out)]) == 0
    assert "8 trials: 8 done" in capsys.readouterr().out
    assert main(["report", str(out)]) == 0
    assert json.loads((out / "result.json").read_text())["counts"]["done"] == 8


def test_an_interruption_while_the_first_page_is_drawn_is_one(words, tmp_path, capsys, monkeypatch):
    drawn = []

    def render(*_, **__):
        drawn.append(1)
        if len(drawn) == 1:
            raise KeyboardInterrupt
        raise ImportError("cannot import name 'Figure' from partially initialized module")  # as matplotlib does from then on

    monkeypatch.setattr("lazyrich.report.render", render)
    assert main([*words, "lr=0.5,1", "--out", str(tmp_path / "run")]) == 130
    assert len(drawn) > 1 and "ImportError" not in capsys.readouterr().err


@pytest.fixture
def interruptible():
    """A shell that starts a job in the background has it ignore Ctrl-C, and Python keeps to that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_cuts_no_import_short_unless_it_comes_twice(tmp_path, capsys, times):
    """Half a module would break whoever imports it next, with a traceback in place of 'stopped'."""
    body = f"""
import os, pathlib, signal
try:
    for _ in range({times}):
        os.kill(os.getpid(), signal.SIGINT)
    pathlib.Path("{tmp_path}/whole").touch()
except KeyboardInterrupt:
    raise ImportError("cannot import name 'Figure' from partially initialized module") from None
def train(lr):
    import time
    time.sleep(20)
"""
    (tmp_path / "slow.py").write_text(body)
    assert main(["sweep", f"{tmp_path / 'slow.py'}:train", "--axis", "lr=1", "--out", str(tmp_path / "run")]) == 130
    assert "lazyrich: stopped" in capsys.readouterr().err
    assert (tmp_path / "whole").exists() is (times == 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupted_sweep_shows_what_is_finished(tmp_path, capsys):
    (tmp_path / "stop.py").write_text(
        "def train(lr):\n    if lr == 3:\n        raise KeyboardInterrupt\n    return {'loss': lr, 'error': 2 * lr}\n"
    )
    out = tmp_path / "run"
    assert main(["sweep", f"{tmp_path / 'stop.py'}:train", "--axis", "lr=1,2,3,4", "--out", str(out)]) == 130
    kept = json.loads((out / "result.json").read_text())["counts"]
    assert (kept["done"], kept["to come"]) == (2, 2)
    assert 'http-equiv="refresh"' not in (out / "report.html").read_text()
    for name in ("result.json", "report.html"):
        (out / name).unlink()
    assert main(["report", str(out)]) == 0  # as after a kill: from the store alone
    assert json.loads((out / "result.json").read_text())["counts"]["done"] == 2
    assert main(["export", str(out), str(tmp_path / "rows.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [row["returned_error"] for row in rows] == ["2", "4"]


def test_what_no_file_takes_is_kept_as_words(tmp_path, capsys):
    (tmp_path / "odd.py").write_text(
        "class Mute(Exception):\n    def __str__(self):\n        raise RuntimeError\n"
        "def train(x):\n    if x == 1:\n        raise ValueError('bad \\udcff name')\n    if x == 2:\n        raise Mute\n"
        "    return {'loss': 2**2000 if x == 3 else x, 'text': '\\udcff'}\n"
    )
    out = tmp_path / "run"
    assert main(["sweep", f"{tmp_path / 'odd.py'}:train", "--axis", "x=1,2,3,4", "--out", str(out)]) == 2
    heard = capsys.readouterr()
    assert "2 of 4 trials failed" in heard.err and "bad \\udcff name" in heard.out and "it does not say what" in heard.out
    assert main(["export", str(out), str(tmp_path / "rows.csv")]) == 0


def test_failures_keep_what_is_finished_and_end_with_status_2(words, tmp_path, capsys):
    out = tmp_path / "run"
    more = ["--executor", "processes", "--workers", "2", "--retries", "1"]
    assert main([*words, "lr=1,4,6", *more, "--out", str(out)]) == 2
    heard = capsys.readouterr()
    assert "2 of 3 trials failed; the others are kept" in heard.err
    assert len(heard.err.strip().splitlines()) == 1
    assert "failed after 1: lr=4: ValueError: too large" in heard.out
    assert "died after 2: lr=6: the process was killed by SIGKILL" in heard.out
    assert "killed by SIGKILL" in (out / "report.html").read_text()


def test_a_failure_of_several_lines_is_one_line(tmp_path, capsys):
    (tmp_path / "long.py").write_text("def train(x):\n    raise ValueError('one\\ntwo')\n")
    assert main(["sweep", f"{tmp_path / 'long.py'}:train", "--axis", "x=1", "--out", str(tmp_path / "run")]) == 2
    assert "failed after 1: x=1: ValueError: one two (" in capsys.readouterr().out


def test_an_axis_with_an_infinite_value_has_a_page(tmp_path, capsys):
    (tmp_path / "norm.py").write_text("def norm(p, i):\n    return {'n': i + (0 if p == float('inf') else p)}\n")
    out = tmp_path / "run"
    assert main(["sweep", f"{tmp_path / 'norm.py'}:norm", "--axis", "p=1,2,inf", "i=0:2", "--out", str(out)]) == 0
    assert "n is lowest, 0, at p=inf, i=0" in capsys.readouterr().out
    assert "n against i" in (out / "report.html").read_text() and "p=inf" in (out / "report.html").read_text()
    assert "Infinity" not in (out / "result.json").read_text()  # which is no JSON
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0 and (out / "report.html").exists()


def test_words_of_an_axis_are_numbers_json_or_text():
    found = axes_of(["p=inf,-Infinity,NaN,1e-3", 'w="","c,d"', "v=a(b),[1]", "s=[[1, 2], [3]]", "t=[1],[2, 3]", "n=-2:1"])
    assert repr(found["p"]) == "[inf, -inf, nan, 0.001]"
    assert found["w"] == ["", "c,d"] and found["v"] == ["a(b)", [1]]
    assert found["s"] == [[1, 2], [3]] and found["t"] == [[1], [2, 3]] and found["n"] == [-2, -1, 0]


def test_shards_merge_and_export(words, tmp_path, capsys):
    axes = ["lr=0.5,1,2", "seed=0:2"]
    parts = [str(tmp_path / f"part{i}") for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        assert main([*words, *axes, "--shard", f"{i}/2", "--out", part]) == 0
    assert main(["merge", str(tmp_path / "all"), *parts]) == 0
    assert "6 trials in" in capsys.readouterr().out
    assert main([*words, *axes, "--out", str(tmp_path / "all")]) == 0
    assert "6 trials: 6 done" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "all"), str(tmp_path / "t.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert sorted((float(r["lr"]), float(r["loss"])) for r in rows)[0] == (0.5, 0.25)
    assert main(["export", str(tmp_path / "all"), str(tmp_path / "t.parquet")]) == 0
    assert main(["export", str(tmp_path / "all"), str(tmp_path / "t.json")]) == 0
    assert len(json.loads((tmp_path / "t.json").read_text())) == 6


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["lr"], "got --axis 'lr', expected name=values"),
        (["lr=1", "lr=2"], "axis 'lr' is there twice"),
        (["lr=1,1"], "axis 'lr' has 1 twice"),
        (["lr=1,"], "got --axis 'lr=1,' with an empty value"),
        (["lr=[1,"], "got --axis 'lr=[1,', where [1 is no JSON"),
        (["lr=1", "seed=0:100000000000"], "axis 'seed' has 100,000,000,000 values, more than the 1,000,000"),
        (["seed=3:3"], "expected a list of at least one value"),
        (["lr=1", "--executor", "slurm"], "got executor 'slurm'"),
        (["lr=1", "--executor", "dask://127.0.0.1:1"], "127.0.0.1:1"),
        (["lr=1", "--executor", "dask://"], "got executor 'dask://' without a place, expected dask://HOST:PORT"),
        (["lr=1", "--executor", ""], "got nothing after --executor"),
        (["lr=1", "--track="], "got nothing after --track"),
        (["lr=1", "--shard", "3/2"], "got shard '3/2'"),
        (["lr=1", "--track", "paper"], "got tracker 'paper'"),
        (["lr=1", "--timeout", "3"], "got a timeout for executor 'inline'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, tmp_path, capsys, more, says, monkeypatch):
    if "dask://127.0.0.1:1" in more:
        distributed = importlib.import_module("distributed")
        impatient = lambda *args, timeout, whole=distributed.Client, **named: whole(*args, timeout=timeout / 10, **named)  # noqa: E731
        monkeypatch.setattr(distributed, "Client", impatient)
    assert main([*words, *more, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["merge", "{}/into"], "got no stores to merge"),
        (["merge", "{}/into", "{}/nothing"], "nothing is no store of trials"),
        (["export", "{}/nothing", "{}/t.csv"], "nothing is no store of trials"),
    ],
)
def test_stores_that_are_not_there_are_named_and_not_made(given, says, tmp_path, capsys):
    assert main([word.format(tmp_path) for word in given]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_a_page_that_is_drawn_beside_a_running_sweep_goes_on_loading_itself(words, tmp_path, capsys):
    out, again = tmp_path / "run", 'http-equiv="refresh"'
    assert main([*words, "lr=1", "--out", str(out)]) == 0
    with Store(out / "trials") as other:
        for busy in (False, True):  # looking at the store is no work on it
            assert not busy or other.claim(Trial("k", {"lr": 2}))
            assert main(["report", str(out)]) == 0
            assert (again in (out / "report.html").read_text()) is busy
    assert main(["report", str(out)]) == 0
    assert again not in (out / "report.html").read_text()


def test_a_table_of_an_unknown_kind_is_refused(words, tmp_path, capsys):
    assert main([*words, "lr=1", "--out", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "t.xls")]) == 2
    assert "expected one that ends in .parquet, .csv or .json" in capsys.readouterr().err


def test_an_export_is_of_the_latest_code_and_says_what_it_left_out(words, tmp_path, capsys):
    run, table = str(tmp_path / "run"), tmp_path / "t.csv"
    assert main([*words, "lr=1,2", "--out", run]) == 0
    with sqlite3.connect(tmp_path / "run" / "trials" / "trials.sqlite") as db:
        db.execute("UPDATE trials SET key = 'o' || key, code = 'old'")
    db.close()
    assert main([*words, "lr=3", "--out", run]) == 0

    def rows(*more):
        assert main(["export", run, str(table), *more]) == 0
        return [(row["lr"], row.get("code")) for row in csv.DictReader(table.read_text().splitlines())]

    capsys.readouterr()
    assert rows() == [("3", None)]
    assert "2 more of other functions or older code left out: --every-code writes them too" in capsys.readouterr().out
    with Store(tmp_path / "run" / "trials") as store:
        ((name, _), *_) = store.functions()
    assert rows("--function", name) == [("3", None)]
    assert "2 more of older code left out" in capsys.readouterr().out
    assert [code == "old" for _, code in rows("--every-code")] == [True, True, False]
    assert "left out" not in capsys.readouterr().out


def test_trials_are_forgotten_by_kind(words, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main([*words, "lr=1,2,4", "--out", run]) == 2
    with sqlite3.connect(tmp_path / "run" / "trials" / "trials.sqlite") as db:
        db.execute("UPDATE trials SET code = 'old' WHERE settings LIKE '%1%'")
    db.close()
    capsys.readouterr()
    for more, says in (["--failed"], "1 of 3"), (["--older-code"], "1 of 2"), (["--failed", "--older-code"], "0 of 1"):
        assert main(["forget", run, *more]) == 0
        assert says in capsys.readouterr().out
    assert main(["forget", run]) == 2
    assert "expected --failed, --older-code or both" in capsys.readouterr().err


def test_forgotten_trials_are_not_to_come_and_one_trial_is_one(words, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main([*words, "lr=1,2,4", "--out", run]) == 2
    assert " 1 trial failed." in f" {json.loads((tmp_path / 'run' / 'result.json').read_text())['sentence']}"
    assert main(["forget", run, "--failed"]) == 0
    assert main(["report", run]) == 0
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["counts"]["to come"] == 0 and "to come" not in found["sentence"]


def test_a_page_is_written_elsewhere_where_the_folder_cannot_be(words, tmp_path, capsys, monkeypatch):
    run, page = str(tmp_path / "run"), tmp_path / "page.html"
    assert main([*words, "lr=1,2", "--out", run]) == 0
    (tmp_path / "run" / "result.json").unlink()

    def refused(path, value):
        raise StoreError(f"cannot write {path}")

    monkeypatch.setattr("lazyrich.files.write_json", refused)
    assert main(["report", run, "--out", str(page)]) == 0
    assert "loss is lowest" in page.read_text() and not (tmp_path / "run" / "result.json").exists()


def test_arrays_that_no_table_takes_and_those_that_are_damaged_are_named(tmp_path, capsys):
    for key in ("a", "b"):
        with Store(tmp_path / "part") as store:
            store.put(Outcome(key, {"lr": key}, "done", {"loss": 1}, {"curve": np.ones(3)}), "f", "c")
    assert main(["export", str(tmp_path / "part"), str(tmp_path / "t.csv")]) == 0
    assert "arrays are not in the table: curve" in capsys.readouterr().out
    (tmp_path / "part" / "arrays" / "a.npz").write_bytes(b"")
    assert main(["merge", str(tmp_path / "all"), str(tmp_path / "part")]) == 2
    assert "1 new trials were taken over, 1 left out: there is no array 'curve' of trial a" in capsys.readouterr().err
    with Store(tmp_path / "all") as store:
        assert [outcome.key for outcome in store.all()] == ["b"] and store.array("b", "curve").shape == (3,)


def test_a_report_before_the_first_trial_is_told_so(tmp_path, capsys):
    Store(tmp_path / "run" / "trials").close()
    assert main(["report", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "no trial of" in said and "is finished yet" in said and len(said.strip().splitlines()) == 1


def test_a_merge_of_another_version_leaves_no_folder(tmp_path, capsys):
    for name in ("good", "old"):
        Store(tmp_path / name / "trials").close()
    with sqlite3.connect(tmp_path / "old" / "trials" / "trials.sqlite") as db:
        db.execute("UPDATE meta SET value='0'")
    db.close()
    assert main(["merge", *(str(tmp_path / name) for name in ("new", "good", "old"))]) == 2
    assert "written by another version" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
