"""Run folders and files: finished work is durable, another run is refused, nothing is ever half written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lazyrich
from lazyrich import files
from lazyrich.errors import StoreError
from lazyrich.files import read_json, write_json, write_text
from lazyrich.sweep import RunFolder, folder

SETTINGS = {"lr": 0.1, "widths": [64, 128], "loss": "mse"}


def refused(path: Path, settings: dict[str, Any] | None = None) -> str:
    with pytest.raises(StoreError) as caught:
        RunFolder(path, SETTINGS if settings is None else settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_finished_trial_is_there_for_the_next_run(tmp_path: Path) -> None:
    RunFolder(tmp_path / "deep" / "run", SETTINGS).put("width64-seed0", {"loss": [1.5, None]})
    again = RunFolder(tmp_path / "deep" / "run", dict(SETTINGS))
    assert again.get("width64-seed0") == {"loss": [1.5, None]}
    assert again.get("width64-seed1") is None
    assert files_below(tmp_path) == ["deep/run/settings.json", "deep/run/trials/width64-seed0.json"]


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    RunFolder(tmp_path, SETTINGS)
    assert read_json(tmp_path / "settings.json") == {**SETTINGS, "lazyrich": lazyrich.__version__}


def test_a_run_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder(tmp_path, SETTINGS).put("a", 1)
    monkeypatch.setattr(folder, "__version__", "9.9")
    assert "lazyrich: '0" in refused(tmp_path)


def test_a_trial_may_be_put_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, SETTINGS)
    folder.put("a", 1)
    folder.put("a", 2)
    assert folder.get("a") == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 0.2}, "lr: 0.1 there, 0.2 now"),
        ({"widths": [64, 256]}, "widths: [64, 128] there, [64, 256] now"),
        ({"more": 1}, "more: absent there, 1 now"),
        ({"lr": 0.2, "loss": "half_mse"}, "loss: 'mse' there, 'half_mse' now, lr: 0.1 there, 0.2 now"),
        (
            {"lr": 0.2, "a": 1, "b": 1, "c": 1},
            "lr: 0.1 there, 0.2 now, a: absent there, 1 now, b: absent there, 1 now, and 1 more",
        ),
    ],
)
def test_another_run_is_refused_with_what_differs(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    RunFolder(tmp_path, SETTINGS).put("a", 1)
    message = refused(tmp_path, {**SETTINGS, **change})
    assert f"{tmp_path} holds another run ({told})" in message
    assert RunFolder(tmp_path, SETTINGS).get("a") == 1


def test_a_run_with_fewer_settings_is_another_run(tmp_path: Path) -> None:
    RunFolder(tmp_path, SETTINGS).put("a", 1)
    assert "(loss: 'mse' there, absent now)" in refused(tmp_path, {"lr": 0.1, "widths": [64, 128]})


@pytest.mark.parametrize("left", [[], ["trials"]], ids=["settings alone", "settings and an empty folder"])
def test_a_run_of_which_nothing_was_finished_gives_way_and_cannot_finish_there(tmp_path: Path, left: list[str]) -> None:
    old = RunFolder(tmp_path, SETTINGS)
    for name in left:
        (tmp_path / name).mkdir()
    new = RunFolder(tmp_path, {"lr": 0.2})
    with pytest.raises(StoreError, match="another run began in .* give each run a folder of its own"):
        old.put("a", 1)
    new.put("a", 2)
    assert "holds another run" in refused(tmp_path)


@pytest.mark.parametrize("name", ["result.json", "notes.txt"])
def test_a_run_with_a_result_or_something_else_does_not_give_way(tmp_path: Path, name: str) -> None:
    RunFolder(tmp_path, SETTINGS)
    (tmp_path / name).write_text("{}")
    assert "holds another run" in refused(tmp_path, {"lr": 0.2})


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert f"{tmp_path} exists and is no run folder" in refused(tmp_path)
    assert files_below(tmp_path) == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    assert "exists and is no run folder" in refused(tmp_path / "run")


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(tmp_path / "file" / "run")


@pytest.mark.parametrize("content", ["[1, 2]", '"text"', "3", "null"])
def test_settings_that_are_no_settings_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    assert "settings.json was not written by lazyrich" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_damaged_settings_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "settings.json").write_bytes(content)
    assert "settings.json is not JSON" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"loss": [1.', b"\xff\xfe\x00", b"not json"])
def test_a_damaged_trial_counts_as_unfinished(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path, SETTINGS)
    folder.put("a", {"loss": 1})
    (tmp_path / "trials" / "a.json").write_bytes(content)
    assert folder.get("a") is None
    folder.put("a", {"loss": 2})
    assert folder.get("a") == {"loss": 2}


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder(tmp_path, SETTINGS)
    monkeypatch.setattr(folder.os, "access", lambda path, mode: False)
    assert f"cannot write in {tmp_path}; give a folder that you may write to" in refused(tmp_path)


def test_a_disk_that_fails_leaves_the_old_content_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.json", "old")

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(StoreError, match="cannot write .*a.json: No space left on device"):
        write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old"
    assert files_below(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_breaks_off_leaves_no_part(tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(files.os, "chmod", broken)
    with pytest.raises((StoreError, KeyboardInterrupt)):
        write_text(tmp_path / "a.json", "new")
    assert files_below(tmp_path) == []


def test_text_and_json_come_back_as_written(tmp_path: Path) -> None:
    value = {"µ": [1, 2.5, None, True], "name": "größer"}
    path = write_json(tmp_path / "deep" / "er" / "a.json", value)
    assert read_json(path) == value
    assert json.loads(path.read_text(encoding="utf-8")) == value
    assert write_text(tmp_path / "b.txt", "größer\n").read_bytes() == "größer\n".encode()


def test_a_written_file_can_be_read_by_others(tmp_path: Path) -> None:
    assert write_text(tmp_path / "a", "x").stat().st_mode & 0o777 == 0o644


def test_a_file_that_is_missing_or_no_json_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read .*a.json: No such file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(StoreError, match="cannot read"):
        read_json(tmp_path)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(StoreError, match="a.json is not JSON .*was it written by lazyrich"):
        read_json(tmp_path / "a.json")
