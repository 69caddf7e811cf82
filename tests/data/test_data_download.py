"""Downloads, with a fetch that stands in for the network: whole files from whichever mirror has them, or none."""

import gzip
import hashlib
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from lazyrich.data import download as download_module
from lazyrich.data import images as images_module
from lazyrich.data.download import CHECKSUMS, MIRRORS, download_file, fetch_url
from lazyrich.data.images import read_images
from lazyrich.errors import DataError


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path, monkeypatch):
    """No data of this machine to find instead of downloading."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAZYRICH_DATA", raising=False)
    monkeypatch.setattr(images_module, "DEBIAN", tmp_path / "debian")


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.astype(">u1").tobytes()


class Mirror:
    """A fake network: what it was asked for, and what it answers."""

    def __init__(self, monkeypatch, name: str = "mnist", broken: tuple[str, ...] = (), lying: tuple[str, ...] = ()):
        self.asked: list[str] = []
        self.broken, self.lying = broken, lying
        source = {f"train-{kind}-ubyte.gz": gzip.compress(idx(v), mtime=0) for kind, v in self.parts().items()}
        self.files = source
        for file, raw in source.items():
            monkeypatch.setitem(download_module.CHECKSUMS, (name, file), hashlib.md5(raw).hexdigest())

    @staticmethod
    def parts() -> dict[str, np.ndarray]:
        return {"images-idx3": np.full((3, 2, 2), 8), "labels-idx1": np.array([8, 1, 2])}

    def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        if url.startswith(self.broken):
            raise OSError("503 out of order")
        raw = self.files[url.rpartition("/")[2]]
        return raw[:-1] if url.startswith(self.lying) else raw


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path, monkeypatch):
    mirror = Mirror(monkeypatch)
    labels = mirror.files.pop("train-labels-idx1-ubyte.gz")
    with pytest.raises(KeyError):
        read_images("mnist", tmp_path, download=True, fetch=mirror)
    mirror.files["train-labels-idx1-ubyte.gz"] = labels
    mirror.asked.clear()
    read_images("mnist", tmp_path, download=True, fetch=mirror)
    assert [url.rpartition("/")[2] for url in mirror.asked] == ["train-labels-idx1-ubyte.gz"]


@pytest.mark.parametrize("fault", ["broken", "lying"])
def test_the_next_mirror_is_asked_when_one_fails_or_lies(tmp_path, monkeypatch, fault):
    mirror = Mirror(monkeypatch, **{fault: (MIRRORS["mnist"][0],)})
    path = download_file("mnist", "train-labels-idx1-ubyte.gz", tmp_path, mirror)
    assert [url.startswith(m) for url, m in zip(mirror.asked, MIRRORS["mnist"], strict=True)] == [True, True]
    assert path.read_bytes() == mirror.files[path.name]


def test_when_every_mirror_fails_each_failure_is_told_and_nothing_is_kept(tmp_path, monkeypatch):
    first, second = MIRRORS["mnist"]
    mirror = Mirror(monkeypatch, broken=(first,), lying=(second,))
    with pytest.raises(DataError) as caught:
        download_file("mnist", "train-labels-idx1-ubyte.gz", tmp_path, mirror)
    told = str(caught.value)
    assert first in told
    assert "503 out of order" in told
    assert f"expected {CHECKSUMS['mnist', 'train-labels-idx1-ubyte.gz']}" in told
    assert "by hand" in told
    assert list(tmp_path.iterdir()) == []


class Answers(BaseHTTPRequestHandler):
    """A server of this test: one good page, one that breaks off, nothing else."""

    def do_GET(self):
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", "9" if self.path == "/cut" else "4")
        self.end_headers()
        self.wfile.write(b"good")

    def log_message(self, *_):
        pass


def test_fetching_answers_bytes_and_turns_every_failure_into_an_oserror(monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert fetch_url(f"{url}/whole") == b"good"
        for page in ("missing", "cut"):
            with pytest.raises(OSError, match="404|IncompleteRead"):
                fetch_url(f"{url}/{page}")
        server.shutdown()
