"""The house itself: imports only run down, names are documented, files are short, and the face is fast."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import lazyrich

HOUSE = Path(lazyrich.__file__).parent
STOREYS = (
    {"errors"},
    {"amount", "compiled", "files", "functional", "layer", "memory", "reference"},
    {"fingerprint"},
    {"gaussian", "inference", "data", "sweep"},
    {"family", "graph"},
    {"init", "zoo"},
    {"scaling"},
    {"lazy", "tangent"},
    {"rich", "train"},
    {"measure"},
    {"autoencoder", "report"},
    {"cli"},
    {"__main__"},
)
STOREY_OF = {room: storey for storey, rooms in enumerate(STOREYS) for room in rooms}
LONGEST = 450
HEAVY = ("torch", "numpy", "matplotlib", "scipy", "sklearn")


@dataclass(frozen=True)
class Import:
    """One import of something of the package: ``name`` is empty for ``import module``."""

    module: str
    name: str
    line: int
    typing_only: bool


def module_of(file: Path, house: Path) -> str:
    """The dotted name of a file of the package."""
    parts = file.relative_to(house.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path, house: Path) -> Iterator[Import]:
    """Every import of the package in a file, also inside functions; relative ones made absolute."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for body in branch.body
        for node in ast.walk(body)
    }
    package = module_of(file, house).split(".")
    package = package if file.name == "__init__.py" else package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found = [(module, alias.name) for alias in node.names]
        else:
            continue
        for module, name in found:
            if module.split(".")[0] == house.name:
                yield Import(module, name, node.lineno, id(node) in typing_only)


def layering_faults(house: Path) -> list[str]:
    """Every import of a package that does not run down, in words."""
    faults = []
    for file in sorted(house.rglob("*.py")):
        if file == house / "__init__.py":
            continue
        room = module_of(file, house).split(".")[1]
        where = file.relative_to(house)
        if room not in STOREY_OF:
            faults.append(f"{where}: unknown room '{room}'; add it to the table STOREYS of tests/test_house.py")
            continue
        for found in imports_of(file, house):
            other = f"{found.module}.{found.name}".rstrip(".").split(".")
            if found.module == house.name:
                if found.name == "__version__":
                    continue
                if found.name not in STOREY_OF:
                    faults.append(f"{where}:{found.line}: imports '{found.name or house.name}' from the face")
                    continue
            target = other[1]
            if target == room:
                continue
            if target not in STOREY_OF:
                faults.append(f"{where}:{found.line}: unknown room '{target}'; add it to the table STOREYS")
            elif STOREY_OF[target] == STOREY_OF[room]:
                faults.append(f"{where}:{found.line}: '{room}' imports its sibling '{target}'")
            elif STOREY_OF[target] > STOREY_OF[room]:
                faults.append(f"{where}:{found.line}: '{room}' imports upward from '{target}'")
    return faults


def cycles(house: Path) -> list[list[str]]:
    """Circles of files that import each other when the program runs (imports for type checkers alone do not)."""
    files = {module_of(file, house): file for file in house.rglob("*.py") if file != house / "__init__.py"}
    graph: dict[str, set[str]] = {}
    for module, file in files.items():
        targets = set()
        for found in imports_of(file, house):
            whole = f"{found.module}.{found.name}"
            target = whole if whole in files else found.module
            if not found.typing_only and target in files and target != module:
                targets.add(target)
        graph[module] = targets
    found_cycles: list[list[str]] = []
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found_cycles.append([*path[path.index(module) :], module])
        elif module not in done:
            for target in sorted(graph[module]):
                walk(target, [*path, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])
    return found_cycles


def sources() -> list[Path]:
    found = sorted(HOUSE.rglob("*.py"))
    assert len(found) > 20, "the checks below look at no files"
    return found


def calls(file: Path) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def test_imports_only_run_down() -> None:
    assert sum(1 for file in sources() for _ in imports_of(file, HOUSE)) > 50, "the checker sees no imports"
    assert layering_faults(HOUSE) == []


def test_no_files_import_in_a_circle() -> None:
    assert cycles(HOUSE) == []


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A small package whose imports run down, to be spoilt."""
    house = tmp_path / "lazyrich"
    for room, text in {
        "errors": "",
        "files": "from lazyrich.errors import A\n",
        "reference": "from .errors import A\n",
        "data/__init__": "from lazyrich.data.load import load\n",
        "data/load": "import lazyrich.errors\nfrom lazyrich import __version__\n",
        "train/__init__": "def f():\n    from lazyrich.data import load\n",
        "__init__": "from lazyrich.train import f\n",
    }.items():
        file = house / f"{room}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return house


def test_the_checker_accepts_a_sound_tree(fake: Path) -> None:
    assert layering_faults(fake) == []
    assert cycles(fake) == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("data/load.py", "from lazyrich.train import f", "'data' imports upward from 'train'"),
        ("data/load.py", "def g():\n    import lazyrich.train.loop", "'data' imports upward from 'train'"),
        ("data/load.py", "from ..train import f", "'data' imports upward from 'train'"),
        ("data/load.py", "from lazyrich import train", "'data' imports upward from 'train'"),
        ("reference.py", "from lazyrich.files import x", "'reference' imports its sibling 'files'"),
        ("reference.py", "from . import files", "'reference' imports its sibling 'files'"),
        ("train/__init__.py", "import lazyrich as lzr", "from the face"),
        ("train/__init__.py", "from lazyrich import Family", "from the face"),
        ("attic/__init__.py", "", "unknown room 'attic'; add it to the table"),
        ("train/__init__.py", "from lazyrich.attic import x", "unknown room 'attic'; add it to the table"),
    ],
)
def test_the_checker_catches_an_import_that_does_not_run_down(fake: Path, file: str, text: str, complaint: str) -> None:
    (fake / file).parent.mkdir(exist_ok=True)
    (fake / file).write_text(text)
    faults = layering_faults(fake)
    assert len(faults) == 1
    assert complaint in faults[0]


@pytest.mark.parametrize("text", ["from lazyrich.data import x", "from . import batch", "def g():\n    from .batch import x"])
def test_the_checker_catches_a_circle(fake: Path, text: str) -> None:
    (fake / "data" / "load.py").write_text(text)
    (fake / "data" / "batch.py").write_text("from lazyrich.data.load import load")
    assert len(cycles(fake)) == 1
    assert "lazyrich.data.load" in cycles(fake)[0]


def test_no_file_is_called_utils() -> None:
    assert [f for f in sources() if f.stem in ("utils", "util", "helpers", "misc")] == []


def test_no_file_is_long() -> None:
    sizes = {str(f.relative_to(HOUSE)): len(f.read_text(encoding="utf-8").splitlines()) for f in sources()}
    assert {file: n for file, n in sizes.items() if n > LONGEST} == {}


def dangers(file: Path) -> list[str]:
    """Calls and imports in a file that run what they read."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        module = getattr(node, "module", None) or "" if names else ""
        whole = {module.split(".")[0], *(name.split(".")[0] for name in names)}
        found += [f"imports {name}" for name in whole & {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}]
        found += [f"imports os.{name}" for name in names if module == "os" and name in ("system", "popen")]
        if module == "torch" and "load" in names:
            found.append("imports torch.load by its bare name")
    for call, name in calls(file):
        given = {k.arg: ast.unparse(k.value) for k in call.keywords}
        if name in ("eval", "exec", "builtins.eval", "builtins.exec", "os.system", "os.popen"):
            found.append(f"calls {name}")
        if name == "torch.load" and given.get("weights_only") != "True":
            found.append("calls torch.load without weights_only=True")
        if given.get("shell", "False") != "False":
            found.append("shell=True")
    return found


def test_nothing_runs_what_it_reads() -> None:
    # functions travel as bytes between processes of one sweep, over pipes that it opened itself; never from disk
    assert {str(f.relative_to(HOUSE)): dangers(f) for f in sources() if dangers(f)} == {
        "sweep/packed.py": ["imports cloudpickle"]
    }


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import pickle as p",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "from torch import load",
        "subprocess.run('ls', shell=True)",
        "os.system('ls')",
        "from os import system",
        "eval('1')",
        "exec('1')",
    ],
)
def test_the_danger_checker_catches(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.py").write_text(text)
    assert len(dangers(tmp_path / "x.py")) == 1


@pytest.mark.parametrize("text", ["model.eval()", "torch.load(path, weights_only=True)", "subprocess.run(['ls'], shell=False)"])
def test_the_danger_checker_lets_pass(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.py").write_text(text)
    assert dangers(tmp_path / "x.py") == []


ROOMS = [
    "lazyrich",
    *sorted(f"lazyrich.{file.parent.name}" for file in HOUSE.glob("*/__init__.py") if file.parent.name != "cli"),
]


def own_docstring(value: object) -> str | None:
    """The docstring of a module, class or function itself, not one that it inherits."""
    return vars(value).get("__doc__") if isinstance(value, type) else getattr(value, "__doc__", None)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_exists_and_says_what_it_is(room: str) -> None:
    module = importlib.import_module(room)
    assert module.__doc__, f"{room} has no docstring"
    assert module.__all__, f"{room} shows nothing"
    assert len(set(module.__all__)) == len(module.__all__)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert missing == []
    documented = {
        n: getattr(module, n) for n in module.__all__ if callable(getattr(module, n)) or hasattr(getattr(module, n), "__path__")
    }
    bare = [name for name, value in documented.items() if not is_alias(value) and not (own_docstring(value) or "").strip()]
    assert bare == []


def is_alias(value: object) -> bool:
    """A name for a type, such as ``Callable[...]``: it can hold no docstring of its own."""
    return not isinstance(value, type) and hasattr(value, "__origin__")


def test_every_name_of_the_face_is_listed_by_dir() -> None:
    assert set(lazyrich.__all__) <= set(dir(lazyrich))


FIRST_IMPORTS = """
import sys

def loaded(*names):
    return [name for name in names if name in sys.modules]

import lazyrich.report
assert loaded("torch", "matplotlib", "jinja2") == [], "the room of reports"
import lazyrich.data
assert loaded("sklearn", "scipy", "torch") == ["torch"], "the room of data"
import lazyrich.zoo
from lazyrich.zoo import MLP, mlp
from lazyrich.family import zoo
assert lazyrich.zoo.MLP is MLP is zoo.MLP and mlp is zoo.mlp and lazyrich.zoo.__all__ == zoo.__all__, "the name that people write"
lazyrich.dmft
assert loaded("scipy", "sklearn", "matplotlib", "sympy") == [], "the room of the rich limit"
from lazyrich.report import figure
from lazyrich.report.result import Loss
figure.losses([Loss(64, (1.0, 2.0), (None, None), (None, None))], "k")
assert loaded("matplotlib.pyplot") == [], "a figure"
"""


def test_rooms_import_only_what_they_need_and_the_zoo_has_the_name_that_people_write() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_IMPORTS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_of_the_face_is_an_attribute_error_that_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="no attribute 'chekc'.*check"):
        _ = lazyrich.chekc


FIRST_LOOKS = {
    "import lazyrich": ["-c", "import lazyrich"],
    "lazyrich --help": ["-m", "lazyrich", "--help"],
    "lazyrich --version": ["-m", "lazyrich", "--version"],
}


@pytest.mark.parametrize("look", FIRST_LOOKS)
def test_a_first_look_imports_nothing_heavy(look: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *FIRST_LOOKS[look]], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr[-500:]
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in run.stderr.splitlines() if "|" in line}
    assert "lazyrich" in imported, "the import times were not read"
    assert imported & set(HEAVY) == set()


def test_a_file_whose_examples_come_first_does_not_hide_the_function_of_its_name() -> None:
    files = ["lazyrich/data/load.py", "tests/data/test_data_load.py"]  # of those that have such a name, the quickest to import
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", "a_data_set_is_read_once"]
    light = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=HOUSE.parent, capture_output=True, text=True, env=light)
    assert done.returncode == 0, done.stdout
