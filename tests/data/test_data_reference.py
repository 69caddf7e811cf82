"""References: objects named in text, and every way to name one wrongly."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

import lazyrich as lzr
from lazyrich.errors import UsageError
from lazyrich.reference import resolve


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    (folder / name).write_text(text)
    return folder / name


def refused(reference: str) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(reference)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_module_and_a_name_on_a_face_are_resolved() -> None:
    assert resolve("math:sqrt") is math.sqrt
    assert resolve("os.path:join")("a", "b") in ("a/b", "a\\b")
    assert resolve("lazyrich.zoo:mlp") is lzr.zoo.mlp
    assert resolve("lazyrich.family.zoo:mlp") is lzr.zoo.mlp


def test_a_file_is_resolved_and_run_once(tmp_path: Path) -> None:
    text = """
from pathlib import Path
with open(Path(__file__).with_suffix(".log"), "a") as log:
    log.write("x")
def net(n):
    return n + 1
"""
    file = written(tmp_path, text)
    assert resolve(f"{file}:net")(2) == 3
    assert resolve(f"{file}:net") is resolve(f"{file}:net")
    assert file.with_suffix(".log").read_text() == "x"


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    found = []
    for n in (1, 2):
        (tmp_path / str(n)).mkdir()
        found.append(resolve(f"{written(tmp_path / str(n), f'def net(): return {n}')}:net")())
    assert found == [1, 2]


def test_a_relative_path_is_seen_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "def net(): return 7")
    monkeypatch.chdir(tmp_path)
    assert resolve("mine.py:net")() == 7
    assert resolve("./mine.py:net")() == 7


def test_a_file_may_import_its_neighbours_and_hold_dataclasses(tmp_path: Path) -> None:
    written(tmp_path, "SIZE = 5", "neighbour_of_mine.py")
    text = """
from __future__ import annotations
from dataclasses import dataclass
from neighbour_of_mine import SIZE
@dataclass
class Net:
    n: int = SIZE
"""
    before = list(sys.path)
    assert resolve(f"{written(tmp_path, text)}:Net")().n == 5
    assert sys.path == before


@pytest.mark.parametrize("reference", ["", "mlp", ":", "math:", ":sqrt", "mine.py"])
def test_a_reference_without_its_parts_is_refused(reference: str) -> None:
    assert refused(reference) == f"got '{reference}', expected package.module:callable or path/to/file.py:callable"


def test_a_missing_file_is_refused_with_the_folder_that_it_was_sought_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused("no/such.py:net")
    assert "there is no file 'no/such.py'" in message
    assert str(tmp_path) in message


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    assert "there is no file" in refused(f"{tmp_path / 'folder.py'}:net")


@pytest.mark.parametrize(
    "module", ["no_such_package", "no_such_package.module", "math.nothing", "lazyrich.zo", "os.path.nothing"]
)
def test_a_missing_module_is_refused(module: str) -> None:
    assert f"there is no module '{module}'" in refused(f"{module}:net")


def test_a_missing_name_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    file = written(tmp_path, "def net(n): pass\ndef other(n): pass\n_hidden = len\nsize = 3\n")
    assert refused(f"{file}:nett") == f"'{file}' has no 'nett'; did you mean net?"
    assert refused(f"{file}:zzzz") == f"'{file}' has no 'zzzz'; its callables are net, other"
    assert "its callables are none" in refused(f"{written(tmp_path, 'x = 1', 'empty.py')}:net")


def test_what_cannot_be_called_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "net = 3")
    assert f"'{file}:net' is int, expected a callable such as def net(width)" == refused(f"{file}:net")
    assert "is float, expected a callable" in refused("math:pi")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError('first line\\nsecond line')", "ValueError: first line;"),
        ("def net(:\n    pass", "SyntaxError"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise RuntimeError", "RuntimeError: ;"),
        ("raise SystemExit('a script')", "SystemExit: a script"),
    ],
)
def test_a_file_that_crashes_is_refused_with_its_first_line(tmp_path: Path, text: str, reason: str) -> None:
    file = written(tmp_path, text)
    message = refused(f"{file}:net")
    assert f"'{file}' crashed while it was imported" in message
    assert reason in message


def test_a_file_that_was_mended_after_a_crash_is_read_again(tmp_path: Path) -> None:
    file = written(tmp_path, "1 / 0")
    refused(f"{file}:net")
    written(tmp_path, "def net(): return 'mended, and longer than before'")
    assert resolve(f"{file}:net")() == "mended, and longer than before"


def test_a_package_that_crashes_is_told_from_one_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    written(tmp_path, "import no_such_package", "wants_another.py")
    written(tmp_path, "1 / 0", "divides.py")
    assert "'wants_another' crashed while it was imported: ModuleNotFoundError" in refused("wants_another:net")
    assert "'divides' crashed while it was imported: ZeroDivisionError" in refused("divides:net")
    assert "'divides.sub' crashed while it was imported: ZeroDivisionError" in refused("divides.sub:net")
