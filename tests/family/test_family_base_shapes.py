"""Files of base shapes as the package mup writes them."""

from __future__ import annotations

import pytest
from torch import nn

import lazyrich as lzr

FILE = """\
# This is a base shape file encoded in yaml
# - `null` indicates a dimension is "finite", i.e. a non-"width" dimension
hidden.0.bias:
- 32
hidden.0.weight:
- 32
- null
hidden.1.bias:
-   32
hidden.1.weight: [32, 32]
readout.bias:
- null
readout.weight:
    - null
    - 32
"""


def test_the_plan_is_that_of_the_files_base_width(tmp_path):
    (tmp_path / "net.bsh").write_text(FILE)
    family = lzr.Family.from_mup(tmp_path / "net.bsh", lzr.zoo.mlp)
    assert family.base == 32
    plan = lzr.plan(family, lzr.mup(), "adam")
    settings = plan.settings(128)
    # mup's own rules at four times the base width, in this gauge: hidden and readout rates a fourth, as are readout variances
    rates = [settings[name].lr for name in ("hidden.0.weight", "hidden.1.weight", "readout.weight", "readout.bias")]
    assert rates == [1.0, 0.25, 0.25, 1.0]
    spread = settings["readout.weight"].std / lzr.Family(lzr.zoo.mlp, base=32).laws(32)["readout.weight"].std
    assert spread == pytest.approx(0.25)


def wider(n):
    return lzr.zoo.MLP(2 * n)


def test_the_width_is_what_the_factory_calls_it(tmp_path):
    (tmp_path / "net.bsh").write_text(FILE.replace("32", "64") + "extra.bias: [32]\n")

    class Extra(lzr.zoo.MLP):
        def __init__(self, n):
            super().__init__(2 * n)
            self.extra = nn.ParameterDict({"bias": nn.Parameter(nn.Linear(1, n).bias.detach())})

    assert lzr.Family.from_mup(tmp_path / "net.bsh", Extra).base == 32


@pytest.mark.parametrize(
    ("text", "factory", "words"),
    [
        (FILE.replace("hidden.1", "hidden.7"), lzr.zoo.mlp, "differ in hidden.1.bias, hidden.1.weight, hidden.7.bias"),
        (FILE, wider, "at no width \\(tried widths 32\\); give Family"),
        (FILE.replace("- null\nreadout.weight", "- 10\nreadout.weight"), lzr.zoo.mlp, "calls \\[0\\] widths"),
        (FILE.replace("32", "null"), lzr.zoo.mlp, "no axis is a width"),
        (FILE.replace("- 32", "- wide", 1), lzr.zoo.mlp, "line 4: got 'wide', expected a whole number or null"),
        ("- 3\n", lzr.zoo.mlp, "line 1: got '- 3', expected a tensor's name"),
        ("", lzr.zoo.mlp, "holds no base shapes"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, text, factory, words):
    (tmp_path / "net.bsh").write_text(text)
    with pytest.raises(lzr.LazyrichError, match=words):
        lzr.Family.from_mup(tmp_path / "net.bsh", factory)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(lzr.LazyrichError, match="cannot read the base shapes"):
        lzr.Family.from_mup(tmp_path / "none.bsh", lzr.zoo.mlp)
