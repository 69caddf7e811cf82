"""The page in a browser: no sideways scrolling on a phone, no complaint, no request to anywhere."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from sample_depth import sample_depth
from sample_limit import sample_limit
from sample_result import sample, samples
from sample_signals import sample_signals
from sample_tangent import sample_tangent

from lazyrich.report import render

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_BROWSER = os.environ.get("LAZYRICH_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
_QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
]
_MEASURE = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="f" style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe>
<pre id="out"></pre>
<script>
document.getElementById("f").addEventListener("load", (event) => {{
  const page = event.target.contentDocument;
  page.querySelectorAll("details").forEach((fold) => {{ fold.open = true; }});
  const root = page.documentElement;
  const size = (matrix) => Math.hypot(matrix.a, matrix.b);
  const out = {{
    scroll: root.scrollWidth, client: root.clientWidth,
    figures: [...page.querySelectorAll("svg.figure")].filter((f) => f.getClientRects().length)
      .map((f) => f.getBoundingClientRect().height),
    small: Math.min(...[...page.querySelectorAll("svg.figure text")].filter((t) => t.getClientRects().length)
      .map((t) => parseFloat(getComputedStyle(t).fontSize) * size(t.getScreenCTM()))),
  }};
  document.getElementById("out").textContent = "measured " + JSON.stringify(out);
}});
</script>"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(_BROWSER is None, reason="needs chromium (or its path in LAZYRICH_CHROMIUM)"),
]


def _browse(file: Path, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert _BROWSER is not None
    command = [
        _BROWSER,
        *_QUIET,
        f"--user-data-dir={folder / 'profile'}",
        *flags,
        "--dump-dom",
        file.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    deep = sample("exploding", names={"fc1": "a" * 120}, layers=8)
    made = {"four": samples(), "deep": deep, "tangent": sample_tangent(), "tangent deep": sample_tangent(layers=30)}
    made["limit"] = sample_limit(layers=3)
    made["init"] = sample_signals()
    points = [
        {"layer": f"body.{i}.linear", "weight": 1.5 + i, "bias": 0.05, "chi_perp": 0.9, "chi_parallel": 0.5} for i in range(3)
    ]
    phase = {
        "activation": "tanh",
        "word": "chaotic",
        "sentence": "Chaotic.",
        "points": points,
        "edge": [[1.0, 0.0], [1.8, 0.1]],
    }
    made["phase"] = sample_signals(phase=phase, no_phase="")
    made["depth"] = sample_depth()
    return {name: render(result, folder / f"{name.replace(' ', '-')}.html") for name, result in made.items()}


@pytest.mark.parametrize("width", [360, 375, 1400])
@pytest.mark.parametrize("name", ["four", "deep", "tangent", "tangent deep", "limit", "init", "phase", "depth"])
def test_page_does_not_scroll_sideways(name, width, pages, tmp_path):
    wrapper = tmp_path / "wrapper.html"
    page = html.escape(pages[name].read_text(encoding="utf-8"), quote=True)
    wrapper.write_text(_MEASURE.format(width=width, page=page), encoding="utf-8")
    done = _browse(wrapper, tmp_path, "--window-size=1500,1000", "--virtual-time-budget=8000")
    found = re.search(r"measured (\{[^<]*\})", done.stdout[done.stdout.index('id="out"') :])
    assert found, done.stderr[-2000:]
    seen = json.loads(html.unescape(found[1]))
    assert seen["client"] == width
    assert seen["scroll"] <= seen["client"]
    assert seen["figures"] and min(seen["figures"]) > 60
    assert seen["small"] >= 9


def test_page_is_quiet_and_alone(pages, tmp_path):
    log = tmp_path / "net.json"
    done = _browse(pages["four"], tmp_path, f"--log-net-log={log}")
    assert "well-behaved" in done.stdout
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert _asked(log, pages["four"]) == []


def test_the_watch_sees_a_page_that_asks(tmp_path):
    """The test above would fail on a page with a request and a complaint."""
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><img src="http://127.0.0.1:9/x.png"><script>console.error("oh")</script>')
    log = tmp_path / "net.json"
    done = _browse(page, tmp_path, f"--log-net-log={log}")
    assert any("CONSOLE" in line for line in done.stderr.splitlines())
    assert _asked(log, page) == ["http://127.0.0.1:9/x.png"]


def _asked(log: Path, page: Path) -> list[str]:
    """What the page asked the network for; the browser's own errands have no file as their initiator."""
    text = log.read_text(encoding="utf-8", errors="replace")
    try:
        events = json.loads(text)["events"]
    except ValueError:  # the log's end is missing when the browser leaves in haste
        events = json.loads(text.rstrip().rstrip(",") + "]}")["events"]
    asked = []
    for event in events:
        params = event.get("params") or {}
        url = str(params.get("url", ""))
        if url.startswith(("http", "ws")) and str(params.get("initiator", "")) in (
            "file://",
            "null",
            page.as_uri(),
        ):
            asked.append(url)
    return sorted(set(asked))
