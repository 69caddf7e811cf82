"""The page: complete, self-contained, safe, and written whole or not at all."""

from __future__ import annotations

import copy
import html.parser
import json
import os
import re

import pytest
from sample_result import NASTY, sample, samples

from lazyrich.errors import ReportError
from lazyrich.report import render


class _Reader(html.parser.HTMLParser):
    """Gathers what the tests ask of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.stack: list[str] = []
        self.broken: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "link", "br"):
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.broken.append(tag)

    def values(self, name: str) -> list[str]:
        return [value or "" for _, key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return render(samples(), tmp_path_factory.mktemp("page") / "four.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> str:
    return render(sample(), tmp_path_factory.mktemp("page") / "one.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("which", ["page", "single"])
def test_page_loads_nothing(which, request):
    text = request.getfixturevalue(which)
    reader = _Reader(text)
    links = [v for name in ("src", "href", "xlink:href", "srcset", "data", "action") for v in reader.values(name)]
    assert all(link.startswith(("#", "data:,")) for link in links)
    assert re.findall(r"url\((?!#)", text) == []
    assert "@import" not in text
    assert "http://" not in text and "https://" not in text
    assert not {"script", "iframe", "img", "object", "embed"} & set(reader.tags)


@pytest.mark.parametrize("which", ["page", "single"])
def test_page_is_well_formed_and_ids_are_unique(which, request):
    reader = _Reader(request.getfixturevalue(which))
    assert reader.broken == [] and reader.stack == []
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    targets = [v[1:] for v in reader.values("href") if v.startswith("#")]
    targets += [word for name in ("aria-labelledby", "aria-describedby") for v in reader.values(name) for word in v.split()]
    targets += re.findall(r"url\(#([^)]*)\)", " ".join(reader.values("clip-path")))
    assert set(targets) <= set(ids)


@pytest.mark.parametrize("which", ["page", "single"])
def test_headings_go_down_one_at_a_time(which, request):
    levels = [int(tag[1]) for tag in _Reader(request.getfixturevalue(which)).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_every_part_of_the_schema_is_shown(single):
    for words in (
        "well-behaved",
        "Every layer moves by the same amount",
        "feature learning",
        "Slopes against theory",
        "Updates against width",
        "What each update is made of",
        "Nontriviality",
        "Useful updates",
        "Maximality",
        "Loss by width",
        "weight decay x",
        "readout.weight",
        "tied readout",
        "not met",
        "lazyrich check examples/mlp.py:mlp",
        "cross_entropy",
        "2.13.0",
        "2026-11-23",
    ):
        assert words in single, words


def test_mends_and_overview_are_shown(page):
    assert "Lower --lr to 0.003 and run again." in page
    assert "divide its learning rate by width/64 (readout.weight)" in page
    assert "farthest layer" in page and 'href="#r4"' in page


def test_powers_are_raised_and_a_mend_is_told_once(tmp_path):
    result = sample("exploding")
    mend = "fc: update grows as width^+0.69 ± 0.05, expected 0"
    result["verdict"]["mends"], result["lines"][1]["mend"] = [mend], mend
    text = render(result, tmp_path / "p.html").read_text(encoding="utf-8")
    assert text.count("grows as width<sup>+0.69</sup> ± 0.05") == 1
    assert "width^+" not in text


def test_sentences_are_set_as_tables_are(tmp_path):
    result = sample("exploding")
    result["verdict"]["sentence"] = "abc(0, -0.5): -0.38 octaves (-0.40 to +1e-05) from gamma_0 = 0.1 on, as gamma_0^-1; --lr 3"
    result["theory"]["why"] = "r = -1 < 0: features blow up as n^1.5"
    text = render(result, tmp_path / "p.html").read_text(encoding="utf-8")
    assert "r = −1 &lt; 0: features blow up as n<sup>1.5</sup>" in text
    assert "abc(0, -0.5): −0.38 octaves (−0.40 to +1e-05) from γ₀ = 0.1 on, as γ₀<sup>−1</sup>; --lr 3" in text


def test_tables_have_captions_and_scopes(page):
    reader = _Reader(page)
    assert reader.tags.count("table") == reader.tags.count("caption")
    headers = reader.tags.count("th")
    assert headers == sum(1 for tag, name, _ in reader.attributes if tag == "th" and name == "scope")


def test_figures_are_named_and_described(page):
    figures = re.findall(r'<svg class="figure".*?</svg>', page, flags=re.S)
    assert len(figures) >= 4 * (2 + 4 + 4 + 1)
    for figure in figures:
        assert 'role="img"' in figure and "<title id=" in figure and "<desc id=" in figure
        assert re.search(r'viewBox="0 0 \d+ \d+"', figure)


def test_a_nasty_name_is_only_ever_text(page):
    assert "<script" not in page
    assert "&lt;script&gt;alert(" in page
    assert NASTY not in page


def test_every_text_is_escaped(tmp_path):
    result = sample("exploding")
    result["obligations"] = [{"kind": "", "where": "", "why": "", "factor": None, "met": False}]
    places = {
        "title": (result, "title"),
        "sentence": (result["verdict"], "sentence"),
        "mend": (result["lines"][1], "mend"),
        "command": (result["reproduce"], "command"),
        "setting": (result["settings"], "<script>name</script>"),
        "cell": (result["plan"]["rows"][0], 0),
        **{key: (result["obligations"][0], key) for key in ("kind", "where", "why")},
        "scheme": (result["theory"], "scheme"),
    }
    for field, (holder, key) in places.items():
        holder[key] = f'"><script>{field}</script><b style="color: red">'
    text = render([result, sample()], tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<script" not in text and '<b style="color' not in text
    assert {field for field in places if f"&lt;script&gt;{field}&lt;/script&gt;" in text} == set(places)
    assert _Reader(text).broken == []


def test_diverged_runs_are_words_and_not_nan(page):
    assert "diverged" in page
    assert not re.search(r"\b(nan|NaN|None|inf)\b", page)


def _without_numbers(value):
    if isinstance(value, dict):
        return {key: _without_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_numbers(item) for item in value]
    return float("nan") if isinstance(value, float) else value


def test_a_result_without_any_number_still_makes_a_page(tmp_path):
    result = sample("inconclusive")
    for key in ("lines", "curves", "losses"):
        result[key] = _without_numbers(result[key])
    text = render(result, tmp_path / "p.html").read_text(encoding="utf-8")
    assert "diverged" in text and not re.search(r"\b(nan|NaN|None|inf)\b", text)


def test_an_empty_result_still_makes_a_page(tmp_path):
    result = sample()
    result.update(lines=[], curves=[], losses=[], plan=None, obligations=[], settings={})
    text = render(result, tmp_path / "p.html").read_text(encoding="utf-8")
    assert "measured no slope" in text and "kept no losses" in text


@pytest.mark.parametrize("name", ["层.1", "a\nb", "$\\frac{1}{0}$", "x" * 300, "#010102", "&amp;", ""])
def test_odd_layer_names_pass(name, tmp_path, recwarn):
    path = render(sample(names={"fc1": name}), tmp_path / "p.html")
    assert _Reader(path.read_text(encoding="utf-8")).broken == []
    assert [str(w.message) for w in recwarn] == []


@pytest.mark.parametrize("word", ["well-behaved", "lazy", "exploding", "vanishing", "frozen", "inconclusive"])
def test_every_verdict_has_its_own_shape(word, tmp_path):
    result = sample()
    result["verdict"]["word"] = word
    text = render(result, tmp_path / "p.html").read_text(encoding="utf-8")
    assert f'id="icon-{word}"' in text and f'href="#icon-{word}"' in text and f".tone-{word}" in text


def test_same_result_gives_same_bytes(tmp_path):
    first = render(samples(), tmp_path / "a.html").read_bytes()
    assert render(samples(), tmp_path / "b.html").read_bytes() == first


def test_page_is_the_same_whatever_the_users_matplotlib_style(tmp_path):
    import matplotlib

    plain = render(sample(), tmp_path / "a.html").read_bytes()
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}):
        assert render(sample(), tmp_path / "b.html").read_bytes() == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_size_stays_small(page, single, tmp_path):
    assert len(page.encode()) < 600_000
    assert len(single.encode()) < 200_000
    deep = render([sample("exploding", layers=30)] * 4, tmp_path / "deep.html")
    assert deep.stat().st_size < 1_500_000


def test_a_deep_network_draws_the_layers_farthest_from_theory(tmp_path):
    result = sample("well-behaved", layers=40)
    line = next(ln for ln in result["lines"] if ln["layer"] == "transformer.h.39.attn.c_proj" and ln["step"] == 5)
    line["slope"] = 3.0
    text = render(result, tmp_path / "p.html").read_text(encoding="utf-8")
    assert "Update of transformer.h.39.attn.c_proj against width" in text
    assert "20 more are in the tables" in text


def test_result_objects_are_read_by_to_dict(tmp_path, single):
    class Result:
        def to_dict(self):
            return sample()

    assert render(Result(), tmp_path / "a.html").read_text(encoding="utf-8") == single
    assert render([Result()], tmp_path / "b.html").read_text(encoding="utf-8") == single


def test_result_is_not_changed(tmp_path):
    result = sample("exploding")
    before = copy.deepcopy(result)
    render(result, tmp_path / "p.html")
    assert result == before


@pytest.mark.parametrize("many", [False, True])
def test_run_folder_is_read(many, tmp_path, single, page):
    (tmp_path / "result.json").write_text(json.dumps(samples() if many else sample()), encoding="utf-8")
    path = render(str(tmp_path), tmp_path / "report.html")
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == (page if many else single)


@pytest.mark.parametrize(
    ("name", "mend"), [("net.py", "check the path"), ("result.json", "give the command that made it again")]
)
def test_a_file_that_is_no_result_is_told_as_what_it_is(name, mend, tmp_path):
    (tmp_path / name).write_text("x = 1")
    with pytest.raises(ReportError, match=f"not JSON .*expected a run's folder or its result.json; .*{mend}"):
        render(str(tmp_path / name), tmp_path / "p.html")


def test_missing_folder_is_made(tmp_path):
    assert render(sample(), str(tmp_path / "new" / "deep" / "p.html")).is_file()


def test_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="got .*cannot be written.*expected.*; choose"):
        render(sample(), tmp_path / "file" / "p.html")
    with pytest.raises(ReportError, match="expected a file to write; pass .*report.html"):
        render(sample(), tmp_path)


def test_a_failed_write_leaves_the_old_page_and_no_crumbs(tmp_path, monkeypatch):
    path = tmp_path / "p.html"
    path.write_text("old")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ReportError, match="Permission denied"):
        render(sample(), path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_write_leaves_only_the_page(tmp_path):
    path = render(sample(), tmp_path / "p.html")
    assert list(tmp_path.iterdir()) == [path]
