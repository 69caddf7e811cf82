"""Sweeps: every trial once, continued where they stopped, with everything that can go wrong in a trial an outcome."""

import functools
import json
import math
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from lazyrich.errors import StoreError, SweepError
from lazyrich.fingerprint import fingerprint
from lazyrich.sweep import Futures, Inline, Outcome, Processes, Proposals, Results, Store, executor_for, grid, shard_of, sweep
from lazyrich.sweep.blank import blank
from lazyrich.sweep.tidy import tidied
from lazyrich.sweep.trial import _by_text, name_of, trial_of


def raised(error):
    def raising(*_):
        raise error

    return raising


def loss(lr, seed=0):
    return {"loss": lr + seed, "curve": np.arange(3) * lr}


def test_a_grid_is_the_product_of_its_axes():
    assert grid({"a": [1, 2], "b": ["x"]}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    assert len(grid({"a": range(10), "b": range(10), "c": [None]})) == 100
    with pytest.raises(SweepError, match="1,001,000 trials, more than 1,000,000"):
        grid({"a": range(1001), "b": range(1000)})


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({}, "no axes"),
        ({"lr": []}, "axis 'lr' is \\[\\], expected a list of at least one value"),
        ({"lr": "abc"}, "axis 'lr' is 'abc'"),
        ({"lr": [1, 2, 1]}, "axis 'lr' has 1 twice"),
        ({"a": range(2000), "b": range(2000)}, "4,000,000 trials"),
        ({"a": range(10**30)}, "axis .a. is range.*more than 1,000,000 values"),
        ({"model": [object()]}, "axis 'model' holds an object"),
        ({"z": [np.complex64(1)]}, "axis 'z' holds a complex"),
    ],
)
def test_axes_that_span_nothing_are_refused(axes, says, tmp_path):
    with pytest.raises(SweepError, match=says):
        sweep(loss, axes, tmp_path / "s")


def test_lists_are_refused_where_they_repeat_or_are_empty(tmp_path):
    with pytest.raises(SweepError, match="empty list"):
        sweep(loss, [], tmp_path / "s")
    with pytest.raises(SweepError, match=r"\{'lr': 1\} are there twice"):
        sweep(loss, [{"lr": 1}, {"lr": 2}, {"lr": 1}], tmp_path / "s")


def test_values_come_back_in_the_order_of_the_grid_and_arrays_from_beside_them(tmp_path):
    results = sweep(loss, {"lr": [0.5, 0.25], "seed": [0, 1]}, tmp_path / "s")
    assert [row["loss"] for row in results.rows()] == [0.5, 1.5, 0.25, 1.25]
    assert [row["status"] for row in results.rows()] == ["done"] * 4
    np.testing.assert_array_equal(results.array({"lr": 0.25, "seed": 1}, "curve"), [0, 0.25, 0.5])
    assert str(results) == f"4 trials: 4 done (in {tmp_path / 's'})"
    mean = results.mean("loss")
    assert mean == [
        {"lr": 0.5, "mean": 1.0, "std": math.sqrt(0.5), "count": 2},
        {"lr": 0.25, "mean": 0.75, "std": math.sqrt(0.5), "count": 2},
    ]


def test_the_same_call_continues(tmp_path):
    calls = []

    def counted(lr):
        calls.append(lr)
        if lr == 3 and calls.count(3) == 1:
            raise KeyboardInterrupt
        return lr

    with pytest.raises(KeyboardInterrupt):
        sweep(counted, {"lr": [1, 2, 3, 4]}, tmp_path / "s", code="1")
    results = sweep(counted, {"lr": [1, 2, 3, 4]}, tmp_path / "s", code="1")
    assert calls == [1, 2, 3, 3, 4]
    assert [row["value"] for row in results.rows()] == [1, 2, 3, 4]
    sweep(counted, {"lr": [4, 5]}, tmp_path / "s", code="1")  # another grid shares what it has in common
    assert calls == [1, 2, 3, 3, 4, 5]


def test_changed_code_runs_again_and_says_so(tmp_path):
    sweep(loss, {"lr": [1]}, tmp_path / "s", code="old")
    results = sweep(loss, {"lr": [1]}, tmp_path / "s", code="new")
    assert "The code of" in str(results)
    assert "1 outcome of other code is" in str(results)
    with Store(tmp_path / "s") as store:
        assert len(store.all()) == 2


def test_the_latest_outcomes_are_of_the_code_asked_for_last(tmp_path):
    for code, lrs in ("first", [1, 2]), ("second", [1]), ("first", [2]):
        sweep(loss, {"lr": lrs}, tmp_path / "s", code=code)
    sweep(loss, {"lr": [3]}, tmp_path / "old", code="second")
    sweep(loss, {"lr": [4]}, tmp_path / "new", code="second")
    with Store(tmp_path / "new") as store:
        store.merge(tmp_path / "s")
        assert store.codes() == {name_of(loss): "second"}  # the other folder's wish is the older one
    with Store(tmp_path / "s") as store:
        assert [(o.code, o.settings["lr"]) for o in store.latest()] == [("first", 1), ("first", 2)]
        assert store.codes() == {name_of(loss): "first"}
        store.ask("another", "whose trials are to come")
        assert len(store.latest()) == 2
        store.merge(tmp_path / "old")
        assert [o.settings["lr"] for o in store.latest(name_of(loss))] == [1, 3]
        store._db.execute("DROP TABLE asked")  # as another version left it
    with Store(tmp_path / "s") as store:
        assert {o.code for o in store.latest()} == {"second"}  # which finished last


def test_a_fingerprint_follows_the_file_and_the_bound_arguments():
    assert fingerprint(loss) == fingerprint(loss) != fingerprint(test_a_grid_is_the_product_of_its_axes)
    assert fingerprint(functools.partial(loss, 1)) != fingerprint(functools.partial(loss, 2)) != fingerprint(loss)
    assert name_of(functools.partial(loss, 1)).endswith("test_sweep.loss")
    assert trial_of({"a": (1, 2)}, "f", "c").key == trial_of({"a": [1, 2]}, "f", "c").key
    assert trial_of({"a": 1, "b": 2}, "f", "c").key == trial_of({"b": 2, "a": 1}, "f", "c").key


def test_what_a_function_raises_is_an_outcome_and_can_be_tried_again(tmp_path):
    broken = [True]

    def fragile(lr):
        if lr == 2 and broken[0]:
            raise ValueError("no such luck")
        return lr

    results = sweep(fragile, {"lr": [1, 2, 3]}, tmp_path / "s", code="1")
    assert [o.status for o in results.outcomes] == ["done", "failed", "done"]
    assert "failed after 1: lr=2: ValueError: no such luck" in str(results)
    assert "test_sweep.py" in results.failures[0].error
    broken[0] = False
    assert len(sweep(fragile, {"lr": [1, 2, 3]}, tmp_path / "s", code="1").failures) == 1
    assert not sweep(fragile, {"lr": [1, 2, 3]}, tmp_path / "s", code="1", retry_failed=True).failures
    broken[0] = True
    assert not sweep(fragile, {"lr": [1, 2, 3]}, tmp_path / "s", code="1", retry_failed=True).failures  # done stays done


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (object(), "returned an object for 'value'"),
        ({"x": {1, 2}}, "returned a set for 'x'"),
        (np.array([object()]), "array of objects"),
        ({"layers": {"fc": torch.ones(2)}}, "a Tensor of shape (2,) for 'layers/fc', expected"),
        ({"z": [np.complex64(1j)]}, "returned a complex for 'z'"),
        ({"when": np.datetime64("2020-01-01")}, "returned a date for 'when'"),
        ({"w": torch.eye(2).to_sparse()}, "'w' is a sparse tensor, expected one that is an array; return its to_dense()"),
        ({"h": {1: "int", "1": "str"}}, "among the names of 'h' is 1 twice"),
    ],
)
def test_what_cannot_be_kept_is_a_failure(returned, says, tmp_path):
    results = sweep(lambda lr: returned, {"lr": [1]}, tmp_path / "s")
    assert says in results.failures[0].error


def test_numbers_of_any_kind_are_kept(tmp_path):
    def kinds(lr):
        return {"t": torch.tensor(1.5), "n": np.float32(2), "many": torch.ones(2, 2), "nan": math.nan, "text": "a", "list": [1]}

    row = sweep(kinds, {"lr": [1]}, tmp_path / "s").rows()[0]
    assert (row["t"], row["n"], row["text"], row["list"]) == (1.5, 2.0, "a", [1])
    assert math.isnan(row["nan"])


def test_tensors_of_one_number_and_of_few_bits_are_kept(tmp_path):
    def kinds(lr):
        return {
            "losses": [torch.tensor(2.0), np.float32(1)], "layers": {"fc": torch.tensor(3)},
            "half": torch.tensor(1.5, dtype=torch.bfloat16), "many": torch.ones(2, dtype=torch.bfloat16),
        }  # fmt: skip

    results = sweep(kinds, {"lr": [1]}, tmp_path / "s")
    assert results.outcomes[0].value == {"losses": [2.0, 1.0], "layers": {"fc": 3}, "half": 1.5}
    np.testing.assert_array_equal(results.array({"lr": 1}, "many"), [1, 1])


def test_settings_are_found_as_they_were_given(tmp_path):
    results = sweep(lambda x: {"a": np.full(2, str(x))}, {"x": [(1, 2), 1, True, np.float32(0.5)]}, tmp_path / "s")
    for x, word in ((1, 2), "[1, 2]"), (True, "True"), (1, "1"), (np.float32(0.5), "0.5"):
        assert results.array({"x": x}, "a")[0] == word
    with pytest.raises(SweepError, match="among the names of the settings is 1 twice"):
        trial_of({"1": 0, 1: 0}, "f", "c")


def test_shards_part_the_trials_and_merge(tmp_path):
    axes = {"lr": list(range(7))}
    parts = [sweep(loss, axes, tmp_path / f"part{i}", shard=(i, 3)) for i in (1, 2, 3)]
    assert [len(p.outcomes) for p in parts] == [3, 2, 2]
    with Store(tmp_path / "all") as store:
        assert store.merge(tmp_path / "part1", tmp_path / "part2", tmp_path / "part3") == 7
        assert store.merge(tmp_path / "part1") == 0
    calls = []
    whole = sweep(loss, axes, tmp_path / "all", progress=lambda *what: calls.append(what))
    assert len(calls) == 1  # nothing was left to run
    np.testing.assert_array_equal(whole.array({"lr": 5}, "curve"), [0, 5, 10])
    assert shard_of("3/3") == (3, 3)
    for text in ("0/3", "4/3", "1", "a/b", "-1/3"):
        with pytest.raises(SweepError, match="expected i/n"):
            shard_of(text)
    with pytest.raises(StoreError, match="no store of trials"):
        Store(tmp_path / "new").merge(tmp_path / "nothing")


def test_shards_share_the_costly_values_of_every_axis(tmp_path):
    axes = {"seed": list(range(10)), "width": [1, 2, 4, 8]}
    parts = [sweep(lambda seed, width: 0, axes, tmp_path / f"{i}", shard=(i, 4)).rows() for i in (1, 2, 3, 4)]
    assert [len(rows) for rows in parts] == [10] * 4
    assert all(1 <= sum(row["width"] == 8 for row in rows) <= 5 for rows in parts)
    assert len({(row["seed"], row["width"]) for rows in parts for row in rows}) == 40
    assert parts[0] == sorted(parts[0], key=lambda row: (row["seed"], row["width"]))


def test_a_proposer_sees_what_came_of_its_last_proposals(tmp_path):
    seen = []

    def halve(outcomes):
        seen.append([o.value["loss"] for o in outcomes])
        lr = outcomes[-1].settings["lr"] / 2 if outcomes else 1.0
        return [{"lr": lr}] if lr > 0.2 else []

    results = sweep(loss, halve, tmp_path / "s")
    assert [row["lr"] for row in results.rows()] == [1.0, 0.5, 0.25]
    assert seen == [[], [1.0], [0.5], [0.25]]


def test_optuna_asks_and_is_told(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def proposals():
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        return Proposals(study, lambda t: {"lr": t.suggest_float("lr", 0.01, 1.0, log=True)}, "loss", trials=10)

    calls = []

    def bowl(lr):
        calls.append(lr)
        return {"loss": (math.log(lr) + 2) ** 2}

    propose = proposals()
    first = sweep(bowl, propose, tmp_path / "s", code="1")
    assert propose.study.best_value == min(row["loss"] for row in first.rows())
    assert len(first.outcomes) == len(calls) == 10
    again = sweep(bowl, proposals(), tmp_path / "s", code="1")
    assert len(calls) == 10
    assert again.rows() == first.rows()
    with pytest.raises(SweepError, match="did not return 'accuracy'"):
        sweep(bowl, Proposals(optuna.create_study(), lambda t: {"lr": 1.0}, "accuracy", 4, 1), tmp_path / "s")


def test_any_pool_of_futures_will_do(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        results = sweep(loss, {"lr": list(range(20))}, tmp_path / "s", executor=Futures(pool, 4))
    assert [row["loss"] for row in results.rows()] == list(range(20))


def test_export(tmp_path):
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    results = sweep(loss, {"lr": [0.5, 0.25], "seed": [0, 1]}, tmp_path / "s")
    assert list(results.to_pandas()["loss"]) == [0.5, 1.5, 0.25, 1.25]
    assert list(pandas.read_parquet(results.to_parquet(tmp_path / "t.parquet"))["loss"]) == [0.5, 1.5, 0.25, 1.25]
    data = results.to_xarray()
    assert isinstance(data, xarray.Dataset)
    assert float(data["loss"].sel(lr=0.25, seed=1)) == 1.25


def test_tables_tell_outcomes_of_several_codes_apart(tmp_path):
    xarray = pytest.importorskip("xarray")
    for code in ("old", "new"):
        results = sweep(lambda lr, code=code: {"loss": len(code) * lr}, {"lr": [1, 2]}, tmp_path / "s", name="f", code=code)
    assert "code" not in results.to_pandas()
    with Store(tmp_path / "s") as store:
        mixed = Results(tuple(store.all()), 4, tmp_path / "s")
    assert [(row["function"], row["code"]) for row in mixed.rows()] == [("f", "old")] * 2 + [("f", "new")] * 2
    assert (
        isinstance(data := mixed.to_xarray(), xarray.Dataset) and float(data["loss"].sel(lr=2, function="f", code="old")) == 6
    )


def test_settings_that_are_returned_are_in_a_table_once(tmp_path):
    trials = [{"lr": 1, "rates": [1, 2]}, {"lr": 2, "rates": [3]}]
    results = sweep(lambda lr, rates: {"lr": 1, "rates": rates, "loss": 2 * lr}, trials, tmp_path / "s")
    for row, trial in zip(results.rows(), trials, strict=True):
        assert list(row) == ["lr", "rates", "returned_lr", "loss", "status", "error", "seconds"]
        assert row["rates"] == trial["rates"] and row["lr"] == trial["lr"] and row["returned_lr"] == 1


def test_results_refuse_names_that_are_not_there(tmp_path):
    results = sweep(loss, {"lr": [1]}, tmp_path / "s")
    with pytest.raises(SweepError, match="no trial returned 'accuracy'; they returned loss"):
        results.mean("accuracy")
    with pytest.raises(SweepError, match="no axis 'seed'; the axes are lr"):
        results.mean("loss")
    with pytest.raises(SweepError, match="no finished trial"):
        results.array({"lr": 9}, "curve")
    with pytest.raises(StoreError, match="no array 'weights'"):
        results.array({"lr": 1}, "weights")


def test_a_folder_of_something_else_or_of_another_version_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    with pytest.raises(StoreError, match="is no store of trials"):
        Store(tmp_path / "other")
    Store(tmp_path / "s").close()
    with sqlite3.connect(tmp_path / "s" / "trials.sqlite") as db:
        db.execute("UPDATE meta SET value='0'")
    with pytest.raises(StoreError, match="store version 0, expected 1"):
        Store(tmp_path / "s")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "trials.sqlite").write_text("not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(StoreError, match="is no store of trials"):
        Store(tmp_path / "t")


def test_a_store_that_another_process_makes_just_now_is_opened(tmp_path, monkeypatch):
    def made_meanwhile(folder):
        blank(folder / "trials.sqlite")
        return iter([folder / "trials.sqlite"])

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", made_meanwhile)
        with Store(tmp_path) as store:
            assert store.claim(trial_of({"lr": 1}, "f", "1"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(StoreError, match="is no store"):
        Store(tmp_path / "other")


def test_an_empty_file_of_trials_is_a_lost_one(tmp_path):
    file = tmp_path / "s" / "trials.sqlite"
    sweep(loss, {"lr": [1]}, tmp_path / "s")
    file.write_bytes(b"")
    for opens in (lambda: Store(tmp_path / "s"), lambda: Store(tmp_path / "t").merge(tmp_path / "s")):
        with pytest.raises(StoreError, match=r"trials.sqlite is empty \(0 bytes\).* restore it .* or remove it"):
            opens()
    assert not file.stat().st_size
    file.unlink()
    file.mkdir()
    with pytest.raises(StoreError, match="trials.sqlite is a folder, expected a file of trials; move it away"):
        Store(tmp_path / "s")


def test_a_store_cut_off_as_it_is_made_is_made_again(tmp_path, monkeypatch):
    """What a kill leaves before the store has its name: no empty file of trials, and nothing that takes the folder."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", raised(KeyboardInterrupt()))
        patch.setattr(os, "unlink", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            Store(tmp_path / "s")
    (left,) = (tmp_path / "s").iterdir()
    assert left.name.startswith(".trials.sqlite.")
    assert sweep(loss, {"lr": [1]}, tmp_path / "s").rows()[0]["loss"] == 1


def test_a_store_is_made_on_disks_without_links(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", raised(PermissionError(1, "Operation not permitted")))
    assert sweep(loss, {"lr": [1]}, tmp_path / "s").rows()[0]["loss"] == 1


@pytest.mark.parametrize("tables", ["DROP TABLE trials", "ALTER TABLE trials ADD COLUMN more TEXT"])
def test_tables_of_something_else_are_no_full_disk(tables, tmp_path):
    Store(tmp_path / "s").close()
    with sqlite3.connect(tmp_path / "s" / "trials.sqlite") as db:
        db.execute(tables)
    with pytest.raises(StoreError, match=r"is no store of trials \((no such table|table trials has 12 columns)"):
        sweep(loss, {"lr": [1]}, tmp_path / "s")


def test_the_first_outcome_of_a_trial_stays(tmp_path):
    with Store(tmp_path / "s") as store:
        assert store.put(Outcome("k", {}, "failed", error="x"), "f", "c")
        assert store.put(Outcome("k", {}, "done", {"a": 1}), "f", "c")
        assert not store.put(Outcome("k", {}, "done", {"a": 2}), "f", "c")
        assert store.get(["k"])["k"].value == {"a": 1}


def test_the_arrays_of_the_first_outcome_stay_too(tmp_path):
    def kept(folder, **arrays):
        with Store(tmp_path / folder) as store:
            store.put(Outcome("k", {}, "done", {}, arrays), "f", "c")

    kept("a", first=np.ones(2), second=np.zeros(3))
    kept("b", second=np.full(4, 7.0), first=np.full(5, 8.0))
    kept("a", second=np.full(4, 7.0))
    with Store(tmp_path / "a") as store:
        assert store.merge(tmp_path / "b") == 0
        np.testing.assert_array_equal(store.array("k", "first"), [1, 1])
        np.testing.assert_array_equal(store.array("k", "second"), [0, 0, 0])
    assert [file.name for file in (tmp_path / "a" / "arrays").iterdir()] == ["k.npz"]


def test_an_outcome_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    """What a power cut would show, and no kill does: rows are synced by SQLite, arrays before their row."""
    synced, sync = [], os.fsync

    def noted(handle):
        synced.append((os.readlink(f"/proc/self/fd/{handle}"), os.fstat(handle).st_size, len(store.all())))
        sync(handle)

    with Store(tmp_path / "s") as store:
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        monkeypatch.setattr(os, "fsync", noted)
        store.put(Outcome("k", {}, "done", {}, {"a": np.ones(1000)}), "f", "c")
        monkeypatch.undo()
    (array, size, before), (folder, _, meanwhile) = synced
    assert array.endswith(".part") and size > 8000 and folder == str(tmp_path / "s" / "arrays") and before == meanwhile == 0


def test_forgotten_trials_run_again_and_leave_no_arrays(tmp_path):
    calls = []

    def counted(lr):
        calls.append(lr)
        return {"curve": np.ones(lr)}

    results = sweep(counted, {"lr": [1, 2]}, tmp_path / "s", code="1")
    assert results.array_names() == ["curve"]
    with Store(tmp_path / "s") as store:
        assert store.forget([results.outcomes[0].key]) == 1
        assert [file.stem for file in (tmp_path / "s" / "arrays").iterdir()] == [results.outcomes[1].key]
    assert sweep(counted, {"lr": [1, 2]}, tmp_path / "s", code="1").array({"lr": 1}, "curve").shape == (1,)
    assert calls == [1, 2, 1]


def test_a_trial_is_claimed_by_one_process_until_that_is_gone(tmp_path):
    trial = trial_of({"lr": 1}, "f", "c")
    first, second = Store(tmp_path / "s"), Store(tmp_path / "s")
    assert first.claim(trial) and first.claim(trial)  # its own
    assert not second.claim(trial)
    first.close()
    assert second.claim(trial)
    gone = subprocess.run(  # claims, and ends without a word
        [sys.executable, "-c", "import sys, os; from lazyrich.sweep import Store; from lazyrich.sweep.trial import trial_of\n"
         f"Store({str(tmp_path / 's')!r}).claim(trial_of({{'lr': 2}}, 'f', 'c')) and os._exit(7)"],
        check=False,
    )  # fmt: skip
    assert gone.returncode == 7

    def owners():
        return second._db.execute("SELECT COUNT(*) FROM owners").fetchone()[0]

    assert owners() == 2
    Store(tmp_path / "s").close()
    assert owners() == 1  # whoever opens the store next forgets it
    assert second.claim(trial_of({"lr": 2}, "f", "c"))
    second._db.execute("INSERT INTO owners VALUES ('far', 'another machine', 1, '', 0)")
    second._db.execute("INSERT INTO claims VALUES ('k3', 'far')")
    assert second.claim(trial.__class__("k3", {}))  # silent for too long
    now = (socket.gethostname(), os.getpid(), "at another time", time.time())
    second._db.execute("INSERT INTO owners VALUES ('reused', ?, ?, ?, ?)", now)
    second._db.execute("INSERT INTO claims VALUES ('k4', 'reused')")
    assert second.claim(trial.__class__("k4", {}))  # its process is gone, and another has the number
    second._db.execute("INSERT INTO owners VALUES ('unknown', ?, ?, '', ?)", (socket.gethostname(), gone_number(), time.time()))
    second._db.execute("INSERT INTO claims VALUES ('k5', 'unknown')")
    assert second.claim(trial.__class__("k5", {}))  # its process is gone, and nobody knew when it began


def gone_number():
    """Of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_arrays_that_are_put_again_while_a_trial_is_forgotten_stay(tmp_path, monkeypatch):
    store, other = Store(tmp_path / "s"), Store(tmp_path / "s")
    outcome = Outcome("k", {}, "done", 1, {"curve": np.arange(3)})
    store.put(outcome, "f", "c")
    begun, whole = [], store._transaction

    def transaction():
        begun.append(len(begun) == 1 and other.put(outcome, "f", "c"))  # between its rows and its arrays
        return whole()

    monkeypatch.setattr(store, "_transaction", transaction)
    assert store.forget(["k"]) == 1
    assert begun[1] is True
    np.testing.assert_array_equal(other.array("k", "curve"), [0, 1, 2])


def test_of_what_is_done_here_nothing_is_read_elsewhere(tmp_path):
    for name in ("here", "there"):
        with Store(tmp_path / name) as store:
            store.put(Outcome("k", {}, "done", 1, {"curve": np.arange(3)}), "f", "c")
            store._array_file("k").write_bytes(b"damaged" if name == "there" else store._array_file("k").read_bytes())
    with Store(tmp_path / "here") as store:
        assert store.merge(tmp_path / "there") == 0


def test_a_full_disk_stops_the_sweep_and_keeps_what_is_finished(tmp_path):
    sweep(loss, {"lr": [1]}, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(StoreError, match=r"full.*finished trials are kept: make room, then repeat the same command"):
            for i in range(1000):
                store.put(Outcome(f"{i:032}", {"text": "x" * 500}, "done"), "f", "c")
        kept = len(store.all())
    assert kept > 2
    with Store(tmp_path / "s") as store:
        assert len(store.all()) == kept
        assert store.put(Outcome("more", {}, "done"), "f", "c")


def test_executors_by_name():
    assert isinstance(executor_for(), Inline)
    assert executor_for("processes", 3, 1, 5.0).timeout == 5.0 and executor_for("processes").retries == 2
    for call, says in [
        (lambda: executor_for("slurm"), "got executor 'slurm', expected inline, processes, ray"),
        (lambda: executor_for("inline", timeout=1.0), "timeout"),
        (lambda: executor_for(workers=4), "workers=4 for executor 'inline', which starts none; take processes"),
        (lambda: executor_for(retries=7), "retries=7 for executor 'inline', which does not count them; take processes or ray"),
        (lambda: executor_for("dask", 2, 9), "retries=9 for executor 'dask'.*allowed-failures"),
        (lambda: executor_for("dask://h:1", 2), "workers=2 for executor 'dask://h:1', which starts none; start the cluster"),
        (lambda: executor_for("ray://h:1", 2), "workers=2 for executor 'ray://h:1'"),
        (lambda: Processes(0), "workers=0"),
        (lambda: Futures(None, 0), "slots=0"),
        (lambda: Proposals(None, lambda t: {}, "loss", 0), "trials=0"),
    ]:
        with pytest.raises(SweepError, match=says):
            call()


def test_settings_may_come_from_a_generator(tmp_path):
    found = sweep(loss, ({"lr": lr} for lr in (1, 2)), tmp_path / "s")
    assert [outcome.settings["lr"] for outcome in found.outcomes] == [1, 2]


def test_names_of_folders_do_not_collide_with_run_folders(tmp_path):
    assert Path(sweep(loss, {"lr": [1]}, str(tmp_path / "s")).folder) == tmp_path / "s"


@pytest.mark.parametrize(
    ("trials", "says"),
    [
        ({"lr": 0.1}, "axis 'lr' is 0.1, expected a list"),
        ({"lr": None}, "axis 'lr' is None"),
        ({"lr": np.ones((2, 2))}, "axis 'lr' is"),
        ([1, 2], "got 1 among the trials"),
        ("lr=1", "got 'lr=1' among the trials"),
    ],
)
def test_trials_of_another_shape_are_refused(trials, says, tmp_path):
    with pytest.raises(SweepError, match=re.escape(says)):
        sweep(loss, trials, tmp_path / "s")


def test_executors_and_shards_go_by_name_and_true_is_not_one(tmp_path):
    assert len(sweep(loss, {"lr": [1, 2, 3, 4]}, tmp_path / "a", executor="inline", shard="1/2").outcomes) == 2
    assert len(grid({"x": [1, True]})) == 2
    with pytest.raises(SweepError, match="is a str in a trial"):
        sweep(lambda x, seed: {"word": "a"}, {"x": [1], "seed": [0]}, tmp_path / "b").mean("word")


def test_a_store_that_cannot_be_written_is_read_and_merged(tmp_path, monkeypatch):
    sweep(loss, {"lr": [1, 2]}, tmp_path / "old")
    able = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "old" not in str(path) and able(path, mode))
    before = sorted((f.name, f.stat().st_mtime_ns) for f in (tmp_path / "old").iterdir())
    with Store(tmp_path / "old") as store:
        found = store.all()
        assert len(found) == 2 and store.array(found[0].key, "curve").shape == (3,)
        with pytest.raises(StoreError, match="read but not written"):
            store.claim(trial_of({"lr": 3}, "f", "c"))
        with pytest.raises(StoreError, match="read but not written"):
            store.put(found[0], "f", "c")
    (tmp_path / "old" / "trials.sqlite").chmod(0o444)
    with Store(tmp_path / "old") as store:
        assert store.file.stat().st_mode & 0o200  # of the copy, which SQLite writes
    with Store(tmp_path / "new") as store:
        assert store.merge(tmp_path / "old") == 2
    assert before == sorted((f.name, f.stat().st_mtime_ns) for f in (tmp_path / "old").iterdir())


def test_a_damaged_array_is_named(tmp_path):
    sweep(loss, {"lr": [1]}, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        (outcome,) = store.all()
        for content in (b"", b"PK\x03\x04 nothing"):
            (tmp_path / "s" / "arrays" / f"{outcome.key}.npz").write_bytes(content)
            with pytest.raises(StoreError, match="there is no array 'curve'"):
                store.array(outcome.key, "curve")


def test_means_of_numbers_that_hardly_fit_are_means(tmp_path):
    given = {"large": [1e308, 1e308], "far": [1e200, -1e200], "ends": [math.inf, -math.inf], "up": [math.inf, 1.0]}
    results = sweep(lambda seed: {k: v[seed] for k, v in given.items()} | {"huge": 2**2000}, {"seed": [0, 1]}, tmp_path / "s")
    found = {name: results.mean(name)[0] for name in given}
    assert found["large"]["mean"] == 1e308 and found["large"]["std"] == 0.0
    assert found["far"]["mean"] == 0.0 and found["far"]["std"] == pytest.approx(math.sqrt(2) * 1e200)
    assert math.isnan(found["ends"]["mean"]) and found["up"]["mean"] == math.inf
    with pytest.raises(SweepError, match="'huge' is an integer that no float holds"):
        results.mean("huge")


def test_tables_of_several_exporters_do_not_meet(tmp_path):
    pandas = pytest.importorskip("pandas")
    results = sweep(loss, {"lr": [1, 2]}, tmp_path / "s")
    deep = tmp_path / "deep" / "rows.parquet"
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(results.to_parquet, [deep] * 8)) == [deep] * 8
    assert len(pandas.read_parquet(deep)) == 2 and [file.name for file in deep.parent.iterdir()] == ["rows.parquet"]


def test_tables_without_numbers_or_with_several_kinds(tmp_path):
    results = sweep(lambda lr: {"loss": math.nan, "odd": [1] if lr == 1 else "a"}, {"lr": [1, 2]}, tmp_path / "s")
    assert [row["loss"] for row in json.loads(results.write(tmp_path / "rows.json").read_text())] == [None, None]
    pytest.importorskip("pyarrow")
    with pytest.raises(SweepError, match="do not fit the columns"):
        results.write(tmp_path / "rows.parquet")


@pytest.mark.parametrize("huge", [2**70, [1, -(2**70)], {"steps": 2**70}])
def test_integers_of_more_than_64_bits_are_refused_by_column(tmp_path, huge):
    pytest.importorskip("pyarrow")
    results = sweep(lambda lr: {"loss": lr, "count": huge}, {"lr": [1, 2]}, tmp_path / "s")
    with pytest.raises(SweepError, match="column 'count' holds an integer of more than 64 bits"):
        results.write(tmp_path / "rows.parquet")
    assert str(2**70) in results.write(tmp_path / "rows.csv").read_text()


def test_studies_are_told_numbers_of_one_objective(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with pytest.raises(SweepError, match="2 objectives"):
        Proposals(optuna.create_study(directions=["minimize"] * 2), lambda t: {}, "loss", 4)
    proposals = Proposals(optuna.create_study(), lambda t: {"lr": t.suggest_float("lr", 0.0, 1.0)}, "loss", 4, 1)
    with pytest.raises(SweepError, match="'loss' is 'low', expected a number"):
        sweep(lambda lr: {"loss": "low"}, proposals, tmp_path / "s")


@pytest.mark.filterwarnings("ignore")  # brute force is experimental
def test_samplers_that_have_tried_everything_end_the_search(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    for sampler in (optuna.samplers.GridSampler({"a": list(range(6))}), optuna.samplers.BruteForceSampler(seed=0)):
        study = optuna.create_study(sampler=sampler)
        propose = Proposals(study, lambda t: {"a": t.suggest_int("a", 0, 5)}, "value", trials=50)
        results = sweep(lambda a: a, propose, tmp_path / type(sampler).__name__)
        assert sorted(row["a"] for row in results.rows()) == list(range(6)) and study.best_value == 0
        most = 6 if isinstance(sampler, optuna.samplers.GridSampler) else 8
        assert len(study.trials) <= most and all(t.state.name == "COMPLETE" for t in study.trials)


def test_a_space_that_prunes_is_refused(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)

    def space(asked):
        raise optuna.TrialPruned

    study = optuna.create_study()
    with pytest.raises(SweepError, match="the space raised TrialPruned for Optuna's trial 0, expected settings"):
        sweep(lambda a: a, Proposals(study, space, "value", 4), tmp_path / "s")
    assert {t.state.name for t in study.trials} == {"FAIL"}


@pytest.fixture
def stored_study(tmp_path):
    """A study on disk, opened anew by each call with the same seed."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)

    def opened():
        return optuna.create_study(
            study_name="x", storage=f"sqlite:///{tmp_path / 'o.db'}", load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=0),
        )  # fmt: skip

    return opened


def lr_of(asked):
    return {"lr": asked.suggest_float("lr", 0.01, 1.0)}


def test_a_stored_study_continues_and_is_told_nothing_twice(tmp_path, stored_study):
    calls = []

    def train(lr):
        calls.append(lr)
        if len(calls) == 3:
            raise ValueError("no such luck")
        return {"loss": lr}

    def run(trials, code="1"):
        return sweep(train, Proposals(stored_study(), lr_of, "loss", trials, 2), tmp_path / "s", name="f", code=code)

    first = run(4)
    assert run(4).rows() == first.rows() and len(calls) == len(stored_study().trials) == 4
    more = run(6)
    assert len(calls) == len(set(calls)) == len(stored_study().trials) == 6
    assert more.rows()[:4] == first.rows() and len(more.failures) == 1
    with pytest.raises(SweepError, match="the study was told outcomes of another function or of older code"):
        run(6, code="2")
    assert len(stored_study().trials) == 6


def test_an_interrupted_search_leaves_no_running_trials_and_is_shown(tmp_path, stored_study):
    calls, seen = [], []

    def train(lr):
        calls.append(lr)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return {"loss": lr}

    def run(**more):
        return sweep(train, Proposals(stored_study(), lr_of, "loss", 8), tmp_path / "s", name="f", code="1", **more)

    with pytest.raises(KeyboardInterrupt):
        run(so_far=seen.append)
    assert [t.state.name for t in stored_study().trials] == ["COMPLETE"] * 5 + ["FAIL"] * 3
    assert len(seen[-1].outcomes) == 5 and seen[-1].total == 8
    assert len(run().outcomes) == 8 and len(calls) == 9
    assert sum(t.state.name == "COMPLETE" for t in stored_study().trials) == 8


def test_what_fails_of_one_cause_everywhere_is_said_once(tmp_path):
    def half(lr, seed):
        raise ValueError("no such key" if lr < 3 else f"lr {lr}")

    said = str(sweep(half, {"lr": [1, 2, 3], "seed": range(4)}, tmp_path / "s"))
    assert said.count("no such key") == 1
    assert "lr=1, seed=0 and 7 more alike: ValueError: no such key" in said
    assert "lr=3, seed=0 and 3 more alike: ValueError: lr 3" in said


@pytest.mark.parametrize("words", ["database or disk is full", "disk I/O error"])
def test_what_is_kept_on_a_full_disk_can_be_read(words, tmp_path, monkeypatch):
    def doubled(lr):
        return {"loss": 2 * lr}

    folder, write, enter = tmp_path / "s", sqlite3.OperationalError(words), Store._enter
    sweep(doubled, {"lr": [1, 2]}, folder)

    def full(store):
        if store.file.parent == folder:  # the copy lies elsewhere
            with store._said():
                raise write
        enter(store)

    monkeypatch.setattr(Store, "_enter", full)
    with Store(folder) as store:
        assert [o.value["loss"] for o in store.all()] == [2, 4]
    assert sweep(doubled, {"lr": [1, 2]}, folder).rows()[1]["loss"] == 4
    with pytest.raises(StoreError, match=f"{words}; finished trials are kept: make room, then repeat the same command"):
        sweep(doubled, {"lr": [1, 3]}, folder)
    with Store(folder) as store, pytest.raises(StoreError, match=words):
        store.put(Outcome("k", {}, "done"), "f", "c")


def test_a_tidy_table_has_a_row_an_entry_of_a_list(tmp_path):
    def curve(lr, r=1):
        if lr == 3:
            raise ValueError("none")
        return {"steps": [0, 1], "points": [{"r": 1, "lr": 7, "loss": lr}, {"r": 1, "lr": 8, "loss": 2 * lr}]}

    found = sweep(curve, {"lr": [1, 3], "r": [1]}, tmp_path / "s")
    rows = found.rows(tidy=True)
    assert [(row["lr"], row.get("steps"), row.get("points_lr"), row.get("loss")) for row in rows] == [
        (1, 0, 7, 1), (1, 1, 8, 2), (3, None, None, None)
    ]  # fmt: skip
    assert found.write(tmp_path / "t.csv", tidy=True).read_text().count("\n") == 4
    uneven = sweep(lambda lr: {"a": [1], "b": [1, 2]}, {"lr": [1]}, tmp_path / "u")
    with pytest.raises(SweepError, match=r"lists of different lengths \(a of 1, b of 2\)"):
        uneven.rows(tidy=True)
    same = [{"lr": 1, "points": [{"lr": 1, "loss": 2}, {"lr": 3, "loss": 4}]}]
    assert tidied(same) == [{"lr": 1, "loss": 2}, {"lr": 1, "points_lr": 3, "loss": 4}]


def test_the_name_that_is_there_twice_is_said():
    with pytest.raises(SweepError, match="among the names of settings is 1 twice, as text and as another kind"):
        _by_text({"lr": 0, 1: 1, "1": 2}, "settings")


def needy(lr, width, *, depth=2):
    raise AssertionError("no trial runs")


@pytest.mark.parametrize(
    ("function", "trials", "says"),
    [
        (
            needy,
            {"lr": [1, 2]},
            r"needy needs 'width', which the settings {'lr': 1} lack, .*; add an axis .*--axis width=\.\.\.",
        ),
        (needy, [{"lr": 1, "width": 2}, {"depth": 1}], r"needs 'lr' and 'width', .*; add axes of .*--axis lr=\.\.\. width="),
        (needy, {"lr": [1], "width": [2], "wdth": [3]}, "takes no 'wdth', .*; it takes lr, width, depth: leave out that axis"),
        (math.sqrt, {"x": [1.0]}, "math.sqrt takes 'x' by position alone, .*; wrap it"),
    ],
)
def test_settings_that_the_function_does_not_take_are_refused_before_any_trial(function, trials, says, tmp_path):
    with pytest.raises(SweepError, match=says):
        sweep(function, trials, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_misspelt_axis_is_named_beside_what_is_missing(tmp_path):
    with pytest.raises(SweepError, match=r"needs 'width', .*; it takes no 'widht', if that was meant$"):
        sweep(lambda lr, width: lr / width, {"lr": [1], "widht": [2]}, tmp_path / "s")
    with pytest.raises(SweepError, match=r"needs 'width', .*\(--axis width=\.\.\.\)$"):
        sweep(lambda width, **rest: width, {"lr": [1]}, tmp_path / "s")


def test_a_decorator_may_give_arguments_itself(tmp_path):
    @functools.wraps(needy)
    def seeded(**settings):
        return {"loss": settings["lr"]}

    assert sweep(seeded, {"lr": [1]}, tmp_path / "s").outcomes[0].status == "done"


@pytest.mark.parametrize("where", ["folder that is not there", "folder of a store"])
def test_a_function_that_cannot_travel_leaves_no_store(where, tmp_path):
    if there := where == "folder of a store":
        Store(tmp_path / "s").close()
    lock = threading.Lock()
    with pytest.raises(SweepError, match="cannot be sent to another process: .*lock"):
        sweep(lambda lr: lock, {"lr": [1]}, tmp_path / "s", executor="processes")
    assert (tmp_path / "s").exists() == there


def test_a_shard_without_trials_has_a_store(tmp_path):
    assert sweep(lambda lr: lr, {"lr": [1]}, tmp_path / "s", shard="2/2").total == 0
    assert Store(tmp_path / "s").merge(tmp_path / "s") == 0


def test_a_worker_starts_without_torch():
    """Which takes a second to load; a killed worker costs that time at each start."""
    code = "import sys, lazyrich.sweep.worker; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
