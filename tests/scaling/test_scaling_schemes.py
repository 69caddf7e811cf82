"""Schemes as data: read from text, from numbers and from JSON, and refused in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import lazyrich as lzr
from lazyrich.errors import UsageError
from lazyrich.scaling import parse
from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.table.spectral import init_std, rate, target_norm

GOOD = {
    "mup": lzr.mup(),
    "mup()": lzr.mup(),
    "  ntk  ": lzr.ntk(),
    "mean_field": lzr.mean_field(),
    "spectral": lzr.spectral(),
    "standard": lzr.standard(),
    "standard(max_stable=True)": lzr.standard(max_stable=True),
    "richness(0.25)": lzr.richness(0.25),
    "richness(r=0.5, gamma=2)": lzr.richness(0.5, gamma=2),
    "abc(a=(-0.5, 0, 0.5), b=(0.5, 0.5, 0.5), c=0)": lzr.abc((-0.5, 0, 0.5), (0.5, 0.5, 0.5), 0),
    "abc([0, 0, 0], [0, 0.5, 1], c=(-1, 0, 1))": lzr.abc((0, 0, 0), (0, 0.5, 1), (-1, 0, 1)),
}


@pytest.mark.parametrize("text", GOOD)
def test_a_schemes_text_is_read(text):
    assert parse(text) == GOOD[text]


@pytest.mark.parametrize("scheme", GOOD.values(), ids=lambda s: s.name)
def test_a_schemes_name_reads_back_as_the_scheme(scheme):
    assert parse(scheme.name) == scheme


BAD = [
    "__import__('os')",
    "__import__('os').system('exit 3')",
    "mup(__import__('os'))",
    "mup.__class__",
    "(lambda: 1)()",
    "[mup][0]",
    "mup() or ntk()",
    "mup; ntk",
    "richness(*[0.25])",
    "richness(**{'r': 0.25})",
    "richness(0.25",
    "mup(",
    "",
    "   ",
    "unknown",
    "Mup",
    "richness",
    "richness(2)",
    "richness(-0.1)",
    "richness('x')",
    "richness(1j)",
    "richness(0.25, gamma=0)",
    "richness(0.25, gamma=-1)",
    "richness(0.25, 1, 2)",
    "richness(0.25, alpha=1)",
    "mup(1)",
    "abc()",
    "abc(1, 2, 3)",
    "abc(a=(0, 0), b=(0, 0, 0), c=0)",
    "abc(a=(0, 0, 0), b=(0, 0, 0, 0), c=0)",
    "abc(a=(0, 0, 0), b=(0, 0, 0), c=(0, 0))",
    "abc(a='abc', b='abc', c=0)",
    "abc(a=(None, 0, 0), b=(0, 0, 0), c=0)",
    "mup\x00",
    "richness(" + "(" * 500 + "0.25" + ")" * 500 + ")",
    "richness(" + "-" * 20000 + "0.25)",
]


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:40].replace("\x00", "NUL"))
def test_a_text_that_is_no_scheme_is_refused_in_one_sentence(text):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"), [("sp", "standard"), ("SP", "standard"), ("muP", "mup"), ("NTP()", "ntk"), ("µP", "mup")]
)
def test_other_names_of_schemes_are_answered_with_ours(text, name):
    with pytest.raises(UsageError, match=f"which is called {name} here; expected one of"):
        parse(text)


def test_nothing_in_a_text_is_run(tmp_path):
    mark = tmp_path / "ran"
    for text in (f"mup(open({str(mark)!r}, 'w'))", f"open({str(mark)!r}, 'w')", f"richness(r=open({str(mark)!r}, 'w'))"):
        with pytest.raises(UsageError):
            parse(text)
    assert not mark.exists()


@pytest.mark.parametrize("scheme", GOOD.values(), ids=lambda s: s.name)
def test_a_scheme_survives_json(scheme):
    assert Scheme.from_dict(json.loads(json.dumps(scheme.to_dict()))) == scheme


def test_what_is_no_saved_scheme_is_refused():
    data = lzr.mup().to_dict()
    for broken in ({}, {**data, "sgd": None}, {**data, "extra": 1}, {k: v for k, v in data.items() if k != "entrywise"}):
        with pytest.raises(UsageError, match="not a saved scheme"):
            Scheme.from_dict(broken)


def test_optimizers_without_a_rule_are_refused():
    with pytest.raises(UsageError, match="got optimizer 'rmsprop'"):
        lzr.mup().classify("rmsprop")


@pytest.mark.parametrize("text", ["mup().shift(0.5)", "mup.shift(0.5)", "mup().shift((0.5, 0, 0.25)).shift(-1)"])
def test_a_shifted_scheme_is_read_from_its_text(text):
    found = lzr.scaling.parse(text)
    assert lzr.scaling.parse(found.name) == found
    assert found.sgd.output.init == lzr.mup().sgd.output.init
    assert found.sgd.input.a != lzr.mup().sgd.input.a


@pytest.mark.parametrize("text", ["mup().shift()", "mup().shift('x')", "mup().shift((1, 2))", "mup().shift(1, 2)", "mup().drop(1)",
                                  "nothing().shift(1)", "richness('x')", "richness(0.1, gamma='x')"])  # fmt: skip
def test_text_that_is_no_scheme_is_refused(text):
    with pytest.raises(lzr.LazyrichError, match="expected"):
        lzr.scaling.parse(text)


@pytest.mark.parametrize(
    "make", [lambda: lzr.richness("x"), lambda: lzr.mup().shift("x"), lambda: lzr.abc((0, 0, "a"), (0, 0, 0), 0)]
)
def test_exponents_that_are_no_numbers_are_refused(make):
    with pytest.raises(lzr.LazyrichError, match="expected"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: lzr.abc((0, 0, 0), (0, 0, 0), float("nan")),
        lambda: lzr.abc((0, 0, 0), (0, float("inf"), 0), 0),
        lambda: lzr.abc(1, (0, 0, 0), 0),
        lambda: lzr.abc({"input": 0, "hidden": 0, "output": 0}, (0, 0, 0), 0),
        lambda: lzr.abc((0, 0, True), (0, 0, 0), 0),
        lambda: lzr.abc((0, 0, 0), (0, 0, 0), None),
        lambda: lzr.abc((0, 0, 0), (0, 0, 0), True),
        lambda: lzr.abc((0, 0, 0), (0, 0, 0), "0"),
        lambda: lzr.abc((0, 0, 0), (0, 0, 0), 0, 1),
        lambda: lzr.mup().shift(True),
        lambda: lzr.richness(0.25, gamma=float("inf")),
        lambda: lzr.mup().shift(float("nan")),
    ],
)
def test_exponents_that_are_not_finite_are_refused(make):
    with pytest.raises(UsageError, match="finite"):
        make()


@pytest.mark.parametrize(("fan_out", "fan_in"), [(1600, 400), (400, 1600), (10, 1000)])
def test_the_spectral_scheme_gives_weights_and_updates_their_norm(fan_out, fan_in):
    """Updates of rank one: under SGD by a gradient whose backward signal has entries 1/fan_out, else of entries of size one."""
    weights = torch.randn(fan_out, fan_in, generator=torch.Generator().manual_seed(0)) * init_std(fan_out, fan_in)
    signs = torch.ones(fan_out, fan_in)
    target = target_norm(fan_out, fan_in)
    assert target < float(torch.linalg.matrix_norm(weights, 2)) < 2.1 * target
    for rank_one in (rate(fan_out, fan_in) * signs / fan_out, rate(fan_out, fan_in, entrywise=True) * signs):
        assert float(torch.linalg.matrix_norm(rank_one, 2)) == pytest.approx(target, rel=1e-3)


def test_numbers_of_numpy_are_numbers():
    one = lzr.abc(np.array([0.0, 0.5, 1.0]), [np.float32(0)] * 3, c=np.float32(-1))
    other = lzr.abc((0.0, 0.5, 1.0), (0.0,) * 3, c=-1.0)
    assert one == other and json.dumps(one.to_dict()) == json.dumps(other.to_dict())
    assert lzr.mup().shift(np.float32(0.5)).sgd == lzr.mup().shift(0.5).sgd
