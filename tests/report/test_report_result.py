"""What cannot be shown truly is refused, by the name of its place."""

from __future__ import annotations

import json

import pytest
from sample_result import sample

from lazyrich.errors import ReportError
from lazyrich.report.result import read_result
from lazyrich.report.source import read_source

_REQUIRED = ("kind", "title", "verdict", "theory", "settings", "lines", "curves", "losses", "reproduce")


@pytest.mark.parametrize("key", _REQUIRED)
def test_missing_key_is_named(key):
    result = sample()
    del result[key]
    with pytest.raises(ReportError, match=rf"result: got no key '{key}', expected one; "):
        read_source(result)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda r: r["verdict"].pop("word"), "result.verdict"),
        (lambda r: r["verdict"].update(word="splendid"), "result.verdict.word: got 'splendid'"),
        (lambda r: r.update(kind="dial"), "result.kind: got 'dial'"),
        (lambda r: r["lines"][3].pop("slope"), r"result.lines\[3\]: got no key 'slope'"),
        (lambda r: r["lines"][3].update(slope="steep"), r"result.lines\[3\].slope: got str 'steep'"),
        (lambda r: r["lines"].insert(0, 7), r"result.lines\[0\]: got int 7"),
        (lambda r: r.update(curves={}), "result.curves: got dict"),
        (lambda r: r["curves"][1]["mean"].pop(), r"result.curves\[1\].low: got 5 numbers, expected 4"),
        (lambda r: r["curves"][0]["widths"].pop(), r"result.curves\[0\].mean: got 5 numbers, expected 4"),
        (lambda r: r["curves"][0]["widths"].__setitem__(0, None), r"result.curves\[0\].widths"),
        (lambda r: r["losses"][0].update(width=0), r"result.losses\[0\].width"),
        (lambda r: r["losses"][0].update(mean="2.3"), r"result.losses\[0\].mean: got str"),
        (lambda r: r["plan"]["rows"][2].pop(), r"result.plan.rows\[2\]"),
        (lambda r: r["theory"].update(scheme=[1]), "result.theory.scheme: got list"),
        (lambda r: r.update(theory=None), "result.theory: got NoneType None, expected a mapping"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(change, place):
    result = sample()
    change(result)
    with pytest.raises(ReportError, match=place):
        read_result(result)


def test_errors_in_a_list_name_the_result():
    bad = sample()
    del bad["lines"]
    with pytest.raises(ReportError, match=r"result\[1\]: got no key 'lines'"):
        read_source([sample(), bad])


@pytest.mark.parametrize("source", [[], ()])
def test_empty_list_is_refused(source):
    with pytest.raises(ReportError, match="got an empty list"):
        read_source(source)


@pytest.mark.parametrize("source", [3, None, object(), [None]])
def test_what_is_no_result_is_refused(source):
    with pytest.raises(ReportError, match=r"expected a result; pass what lazyrich.check returned"):
        read_source(source)


def test_folder_without_result_is_refused(tmp_path):
    with pytest.raises(ReportError, match=f"folder {tmp_path} without result.json"):
        read_source(str(tmp_path))
    with pytest.raises(ReportError, match="does not exist"):
        read_source(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00", b"{'kind': 1}"])
def test_invalid_json_is_refused(content, tmp_path):
    file = tmp_path / "result.json"
    file.write_bytes(content)
    with pytest.raises(ReportError, match=str(file)):
        read_source(tmp_path)


def test_errors_of_a_file_name_the_file(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps([{"kind": "check"}]))
    with pytest.raises(ReportError, match=r"result.json: result\[0\]: got no key 'verdict'"):
        read_source(tmp_path)


@pytest.mark.parametrize("word", ["NaN", "inf", "-Infinity", None, float("nan"), float("-inf"), 10**400])
def test_every_spelling_of_no_number_is_none(word):
    result = sample()
    result["lines"][0]["slope"] = word
    assert read_result(result).lines[0].slope is None


def test_last_takes_the_last_step_in_the_networks_order():
    result = read_result(sample())
    last = result.last("update")
    assert [line.layer for line in last] == ["fc1", "fc2", "fc3", "readout"]
    assert {line.step for line in last} == {5}


def test_a_diverged_layer_is_the_farthest():
    worst = read_result(sample("inconclusive")).worst
    assert worst is not None and worst.layer == "readout" and worst.slope is None
