"""References, in the corners: pickles, crashes half way, the path of imports."""

import dataclasses
import pickle
import sys

import pytest

from lazyrich.errors import UsageError
from lazyrich.reference import resolve


@pytest.fixture
def write(tmp_path):
    """Write a Python file and give its path; what it made importable is forgotten afterwards."""
    before = set(sys.modules)

    def writer(text: str, name: str = "mine.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    yield writer
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_function_of_a_file_is_found_by_absolute_and_relative_path(write, monkeypatch):
    file = write("def double(x):\n    return 2 * x\n")
    assert resolve(f"{file}:double")(4) == 8
    monkeypatch.chdir(file.parent)
    assert resolve("mine.py:double")(4) == 8
    assert resolve("./mine.py:double") is resolve(f"{file}:double")


def test_a_file_may_be_named_like_a_module_of_the_library(write):
    import math

    assert resolve(f"{write('def sqrt(x): return -x', 'math.py')}:sqrt")(9) == -9
    assert sys.modules["math"] is math


def test_the_path_is_put_back_after_a_crash_too(write):
    before = list(sys.path)
    with pytest.raises(UsageError):
        resolve(f"{write('1 / 0')}:f")
    assert sys.path == before


def test_dataclasses_and_pickles_of_a_file_work(write):
    text = (
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Point:\n    x: dataclasses.InitVar[int] = 0\n    y: int = 1\n"
    )
    point_class = resolve(f"{write(text)}:Point")
    assert [field.name for field in dataclasses.fields(point_class)] == ["y"]  # InitVar is seen through sys.modules
    assert pickle.loads(pickle.dumps(point_class(y=5))) == point_class(y=5)


@pytest.mark.parametrize("place", ["./model", "path/to/model", "my-model", "a..b", ".a"])
def test_a_place_that_is_neither_module_nor_file_is_told(place):
    with pytest.raises(UsageError, match="no module's name and does not end in .py"):
        resolve(f"{place}:f")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: "),
        ("import lazyrich_no_such", "ModuleNotFoundError: No module named 'lazyrich_no_such'"),
        ("raise ValueError('first\\nsecond')", "ValueError: first; mend"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("by", ["file", "package"])
def test_a_crash_while_importing_is_told_in_one_line_with_its_cause(write, monkeypatch, by, text, told):
    file = write(text, "lazyrich_test_crash.py")
    monkeypatch.syspath_prepend(str(file.parent))
    with pytest.raises(UsageError) as caught:
        resolve(f"{file}:f" if by == "file" else "lazyrich_test_crash:f")
    assert f"crashed while it was imported: {told}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert type(caught.value.__cause__).__name__ == told.partition(":")[0]


@pytest.mark.parametrize("fault", ["1 / 0", "raise SystemExit", "raise KeyboardInterrupt"])
def test_a_file_that_crashed_is_not_remembered_half_made(write, fault):
    file = write(f"def f():\n    return 1\n{fault}\n")
    with pytest.raises((UsageError, KeyboardInterrupt)):
        resolve(f"{file}:f")
    file.write_text("def f():\n    return 'mended'\n")
    assert resolve(f"{file}:f")() == "mended"


def test_a_missing_name_is_told_with_the_names_there_are_ones_own_first(write):
    file = write("from math import *\nNUMBER = 3\ndef wide(): pass\ndef deep(): pass\ndef _hidden(): pass\n")
    with pytest.raises(UsageError, match=r"has no 'narrow'; its callables are deep, wide, acos") as caught:
        resolve(f"{file}:narrow")
    assert "NUMBER" not in str(caught.value)
    assert "_hidden" not in str(caught.value)


def test_relative_imports_in_a_file_say_to_name_its_package(tmp_path):
    (tmp_path / "core.py").write_text("from .parts import layer\n")
    with pytest.raises(UsageError, match=r"relative import .*package\.module:callable"):
        resolve(f"{tmp_path / 'core.py'}:make")


def test_a_files_annotations_are_what_it_writes(write):
    assert resolve(f"{write('def f(x: int): ...')}:f").__annotations__ == {"x": int}


def test_a_file_that_was_edited_is_run_again(write):
    path = write("def f():\n    return 1\n")
    first = resolve(f"{path}:f")
    assert resolve(f"{path}:f") is first
    path.write_text("def f():\n    return 2\n")
    assert (first(), resolve(f"{path}:f")()) == (1, 2)
