"""MNIST and Fashion-MNIST: found wherever they lie, downloaded only when asked, and never half."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lazyrich.data import download, images, load
from lazyrich.data.download import CHECKSUMS, MIRRORS
from lazyrich.data.images import FOLDERS, places, read_images
from lazyrich.errors import DataError

BOTH = pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def pixels(n: int, shift: int = 0) -> np.ndarray:
    return (np.arange(n * 784).reshape(n, 28, 28) * 7 + shift) % 256


def put(
    folder: Path, n: int = 5, *, labels: int | None = None, split: str = "train", zipped: bool = False, shift: int = 0
) -> Path:
    """A small image set in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    part = {"train": "train", "test": "t10k"}[split]
    files = {f"{part}-images-idx3-ubyte": pixels(n, shift), f"{part}-labels-idx1-ubyte": np.arange(labels or n) % 10}
    for file, array in files.items():
        raw = idx(array)
        (folder / (f"{file}.gz" if zipped else file)).write_bytes(gzip.compress(raw) if zipped else raw)
    return folder


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data but a test's own, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAZYRICH_DATA", raising=False)
    sound = images.places
    monkeypatch.setattr(
        images, "places", lambda *a: [tmp_path / "debian" / p.name if p.parts[:2] == ("/", "usr") else p for p in sound(*a)]
    )
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *a, **k: pytest.fail("the network was used"))


@BOTH
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("layout", [0, 1, None])
def test_files_are_found_in_every_layout_below_root(
    tmp_path: Path, name: str, zipped: bool, split: str, layout: int | None
) -> None:
    folder = tmp_path / "here" / ("" if layout is None else FOLDERS[name][layout])
    put(folder, split=split, zipped=zipped)
    x, y = read_images(name, tmp_path / "here", split)
    assert np.array_equal(x, pixels(5))
    assert y.tolist() == [0, 1, 2, 3, 4]


@BOTH
def test_files_are_found_through_the_environment(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "env" / FOLDERS[name][0], 3)
    with pytest.raises(DataError):
        read_images(name)
    monkeypatch.setenv("LAZYRICH_DATA", str(tmp_path / "env"))
    assert len(read_images(name)[1]) == 3


@BOTH
def test_files_are_found_in_the_working_folder_and_in_debians(tmp_path: Path, name: str) -> None:
    put(tmp_path / "debian" / FOLDERS[name][0], 3)
    assert len(read_images(name)[1]) == 3
    put(tmp_path / "data" / FOLDERS[name][1], 4)
    assert len(read_images(name)[1]) == 4


def test_root_stands_alone_and_the_environment_comes_before_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAZYRICH_DATA", str(tmp_path / "env"))
    put(tmp_path / "data" / "mnist", 3)
    assert len(read_images("mnist")[1]) == 3
    put(tmp_path / "env" / "mnist", 4)
    assert len(read_images("mnist")[1]) == 4
    with pytest.raises(DataError, match="none to look in the usual places"):
        read_images("mnist", tmp_path / "root")
    put(tmp_path / "root" / "mnist", 5)
    assert len(read_images("mnist", tmp_path / "root")[1]) == 5


def test_fashion_below_root_is_not_taken_for_mnist(tmp_path: Path) -> None:
    put(tmp_path / "here" / "fashion-mnist")
    put(tmp_path / "here" / "FashionMNIST" / "raw")
    with pytest.raises(DataError, match="found no mnist"):
        read_images("mnist", tmp_path / "here")


def test_images_without_labels_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "here" / "mnist")
    (tmp_path / "here" / "mnist" / "train-labels-idx1-ubyte").unlink()
    put(tmp_path / "here" / "MNIST" / "raw", 3)
    assert len(read_images("mnist", tmp_path / "here")[1]) == 3


@BOTH
def test_not_found_lists_every_place_and_what_to_do(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYRICH_DATA", str(tmp_path / "env"))
    with pytest.raises(DataError) as caught:
        read_images(name)
    message = str(caught.value)
    for place in images.places(name):
        assert str(place) in message
    assert f"{tmp_path / 'env'}," in message
    assert all(str(tmp_path / "env" / layout) in message for layout in FOLDERS[name])
    assert "$LAZYRICH_DATA" in message
    assert "download=True" in message


def test_without_a_root_the_working_folder_itself_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAZYRICH_DATA", raising=False)
    assert all(place != Path("data") for place in places("mnist"))
    assert places("mnist")[0] == Path("data/mnist")
    assert places("mnist")[-1] == Path("/usr/share/datasets/mnist")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="got split 'validation', expected one of train, test"):
        read_images("mnist", split="validation")


def test_images_and_labels_of_different_length_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "mnist", 5, labels=4)
    with pytest.raises(DataError, match=r"images \(5, 28, 28\) and labels \(4,\), which do not pair up"):
        read_images("mnist", tmp_path)


def test_images_in_the_place_of_labels_are_refused(tmp_path: Path) -> None:
    folder = put(tmp_path / "mnist", 5)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(pixels(5)))
    with pytest.raises(DataError, match="do not pair up"):
        read_images("mnist", tmp_path)


def test_a_damaged_file_is_refused_rather_than_passed_over(tmp_path: Path) -> None:
    folder = put(tmp_path / "root" / "mnist")
    put(tmp_path / "data" / "mnist")
    file = folder / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match=f"{file.name} holds 3910 bytes"):
        read_images("mnist", tmp_path / "root")


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A small image set behind urls, with its own checksums."""
    raw = {
        "train-images-idx3-ubyte.gz": gzip.compress(idx(pixels(6))),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(np.arange(6))),
    }
    for file, content in raw.items():
        monkeypatch.setitem(CHECKSUMS, ("mnist", file), hashlib.md5(content).hexdigest())
    return {place + file: content for place in MIRRORS["mnist"] for file, content in raw.items()}


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) if folder.exists() else []


def test_a_download_lands_below_root_and_is_found_from_then_on(tmp_path: Path, mirror: dict[str, bytes]) -> None:
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return mirror[url]

    x, y = read_images("mnist", tmp_path / "root", download=True, fetch=fetch)
    assert np.array_equal(x, pixels(6))
    assert y.tolist() == [0, 1, 2, 3, 4, 5]
    assert asked == [MIRRORS["mnist"][0] + file for file in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")]
    assert files_below(tmp_path / "root") == ["mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz"]
    again = read_images("mnist", tmp_path / "root", download=True, fetch=lambda url: pytest.fail("fetched again"))
    assert np.array_equal(again[0], x)


def test_nothing_is_fetched_unless_it_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="allow download=True"):
        read_images("mnist", tmp_path, fetch=lambda url: pytest.fail("fetched without leave"))


def test_nothing_is_fetched_when_the_files_are_there(tmp_path: Path) -> None:
    put(tmp_path / "data" / "mnist", 3)
    read_images("mnist", download=True, fetch=lambda url: pytest.fail("fetched in vain"))


def test_a_download_with_another_checksum_is_refused_and_not_kept(tmp_path: Path, mirror: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz has md5 [0-9a-f]{32}, expected [0-9a-f]{32}"):
        read_images("mnist", tmp_path / "root", download=True, fetch=lambda url: mirror[url] + b"x")
    assert files_below(tmp_path / "root") == []


def test_a_download_that_breaks_off_leaves_whole_files_only(tmp_path: Path, mirror: dict[str, bytes]) -> None:
    def fetch(url: str) -> bytes:
        if "labels" in url:
            raise DataError("the cable was cut")
        return mirror[url]

    with pytest.raises(DataError, match="cable"):
        read_images("mnist", tmp_path / "root", download=True, fetch=fetch)
    assert files_below(tmp_path / "root") == ["mnist/train-images-idx3-ubyte.gz"]
    x, _ = read_images("mnist", tmp_path / "root", download=True, fetch=mirror.__getitem__)
    assert len(x) == 6


def test_a_disk_that_fails_while_writing_leaves_no_part(
    tmp_path: Path, mirror: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.os, "replace", full)
    with pytest.raises(DataError, match="cannot keep .*No space left on device; give another root="):
        read_images("mnist", tmp_path / "root", download=True, fetch=mirror.__getitem__)
    assert files_below(tmp_path / "root") == []


def test_a_root_under_a_file_is_refused(tmp_path: Path, mirror: dict[str, bytes]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot keep"):
        read_images("mnist", tmp_path / "file" / "root", download=True, fetch=mirror.__getitem__)


def test_no_network_is_an_error_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(download.urllib.request, "urlopen", unreachable)
    with pytest.raises(DataError, match="cannot download .*https://.*Name or service not known.*; put it into"):
        read_images("fashion_mnist", tmp_path, download=True)


@BOTH
def test_every_file_that_can_be_downloaded_has_a_checksum_and_a_mirror(name: str) -> None:
    assert MIRRORS[name]
    known = {file for kind, file in CHECKSUMS if kind == name}
    assert known == {f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")}
    assert len(set(CHECKSUMS.values())) == len(CHECKSUMS)


def test_loaded_images_are_standardised_and_shaped_as_asked(tmp_path: Path) -> None:
    put(tmp_path / "mnist", 12)
    flat, square = load("mnist", root=tmp_path), load("mnist", root=tmp_path, flatten=False)
    assert flat.x.shape == (12, 784)
    assert square.x.shape == (12, 1, 28, 28)
    assert torch.equal(square.x.flatten(1), flat.x)
    assert flat.x.mean().item() == pytest.approx(0, abs=1e-5)
    assert flat.x.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    raw = torch.from_numpy(pixels(12).astype(np.float64))
    assert torch.allclose(flat.x.double(), ((raw - raw.mean()) / raw.std(correction=0)).flatten(1), atol=1e-5)
    assert flat.y.dtype == torch.int64
    assert flat.classes == 10


def test_a_hyphen_names_the_same_images(tmp_path: Path) -> None:
    put(tmp_path / "fashion-mnist", 4)
    assert torch.equal(load("fashion-mnist", root=tmp_path).x, load("fashion_mnist", root=tmp_path).x)
