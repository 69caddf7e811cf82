"""A fingerprint follows everything that a function holds, and nothing else."""

import functools
import importlib
import sys

import numpy as np
import pytest
import torch
from torch import nn

from lazyrich.errors import UsageError
from lazyrich.family import Family
from lazyrich.fingerprint import fingerprint
from lazyrich.reference import resolve
from lazyrich.sweep.trial import name_of


def closed(k):
    return lambda x: k * x


def taking(data, x=1, *, scale=2):
    return data


class Trainer:
    def __init__(self, k):
        self.k = k

    def run(self, x):
        return self.k * x

    def __call__(self, x):
        return self.k * x


def zeros(at=None):
    data = np.zeros(5000)
    if at is not None:
        data[at] = 1.0
    return data


def written(text):
    """As in a notebook: no file, or a file that is not there."""
    names = {"nn": nn}
    exec(compile(text, "<cell 3>", "exec"), names)
    return names["made"]


NET = "class Net(nn.Module):\n    def forward(self, x):\n        return x.{}()\ndef made(n):\n    return Net()"
LINE = (lambda x: x / 2), (lambda x: x / 3)
PAIRS = {
    "lambdas of one line": (lambda: LINE[0], lambda: LINE[1]),
    "closures": (lambda: closed(1), lambda: closed(2)),
    "attributes of a bound method": (lambda: Trainer(1).run, lambda: Trainer(2).run),
    "attributes of an object": (lambda: Trainer(1), lambda: Trainer(2)),
    "one entry of a large array": (
        lambda: functools.partial(taking, zeros()),
        lambda: functools.partial(taking, zeros(2500)),
    ),
    "one entry of a tensor": (lambda: closed(torch.zeros(9)), lambda: closed(torch.eye(3).flatten())),
    "keywords": (lambda: functools.partial(taking, scale=1), lambda: functools.partial(taking, scale=3)),
    "functions as arguments": (
        lambda: functools.partial(taking, torch.relu),
        lambda: functools.partial(taking, torch.sin),
    ),
    "closures in closures": (lambda: closed(closed(1)), lambda: closed(closed(2))),
    "code without a file": (lambda: written("made = lambda x: 2 * x"), lambda: written("made = lambda x: 3 * x")),
    "classes": (lambda: functools.partial(taking, nn.ReLU), lambda: functools.partial(taking, nn.Tanh)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_a_function_holds_counts(name):
    one, other = PAIRS[name]
    assert fingerprint(one()) == fingerprint(one()) != fingerprint(other())


def test_circles_and_parents_end():
    def circle(k):
        node = Trainer(k)
        node.parent, node.children = node, [Trainer(k) for _ in range(5)]
        for child in node.children:
            child.parent, child.siblings = node, node.children
        return node.run

    assert fingerprint(circle(1)) == fingerprint(circle(1)) != fingerprint(circle(2))
    assert fingerprint(closed(np.array([closed, 1], dtype=object))) == fingerprint(closed(np.array([closed, 1], dtype=object)))
    assert fingerprint(closed(torch.zeros(2, device="meta"))) == fingerprint(closed(torch.zeros(2, device="meta")))


def test_a_family_follows_its_factory():
    def factory(act):
        return lambda n: nn.Sequential(nn.Linear(4, n), act, nn.Linear(n, 2))

    one, same, other = (Family(factory(act), base=4).fingerprint for act in (nn.ReLU(), nn.ReLU(), nn.Tanh()))
    assert one == same != other


def test_a_file_is_the_same_one_in_every_folder(tmp_path):
    found = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "net.py").write_text("class Held:\n    pass\n\ndef run(a, kind=Held):\n    return {'v': a}\n")
        function = resolve(f"{tmp_path / place / 'net.py'}:run")
        found.append((name_of(function), fingerprint(function)))
    assert found[0] == found[1] and found[0][0] == "net.run"


MODULE = "class Kept:\n    def __call__(self, x):\n        return x\n\ndef run(x):\n    return [x for _ in (0, 1)]\n"
EDITS = {
    "the function": MODULE.replace("(0, 1)", "(0, 2)"),
    "another": MODULE.replace("return x\n", "return 2 * x\n"),
    "a line": "K = 2\n" + MODULE,
}


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """A module of a folder of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which two edits in one second would share
    file = tmp_path / "edited_module.py"
    file.write_text(MODULE)
    importlib.invalidate_caches()
    yield importlib.import_module(file.stem), file
    del sys.modules[file.stem]


@pytest.mark.parametrize("edit", EDITS)
def test_a_file_that_was_edited_since_its_import_is_refused(edited, edit):
    module, file = edited
    partial = functools.partial(taking, module.run)
    first = fingerprint(module.run), fingerprint(module.Kept()), fingerprint(partial)
    file.write_text(EDITS[edit])
    for function in (module.run, module.Kept(), partial):
        with pytest.raises(UsageError, match="edited_module.py' was edited after it was imported.*reload the module"):
            fingerprint(function)
    importlib.reload(module)
    assert fingerprint(module.run) != first[0] and fingerprint(module.Kept()) != first[1]
    file.write_text(MODULE)
    importlib.reload(module)
    assert (fingerprint(module.run), fingerprint(module.Kept()), fingerprint(partial.func)) == (*first[:2], fingerprint(taking))


def test_a_file_that_was_edited_before_the_first_look_is_refused_where_the_function_changed(edited):
    module, file = edited
    file.write_text(EDITS["the function"])
    with pytest.raises(UsageError, match="was edited after it was imported"):
        fingerprint(module.run)
    file.write_text("# more lines\n" + MODULE)
    assert fingerprint(importlib.reload(module).run)
