"""Image files: tried in a stated order, and nothing else passes for them."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from lazyrich.data import images as images_module
from lazyrich.data import load
from lazyrich.data.images import read_images
from lazyrich.errors import DataError

HERE = os.environ.get("LAZYRICH_DATA")


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path, monkeypatch):
    """No data of this machine: an empty working folder, no variable, no Debian package."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.delenv("LAZYRICH_DATA", raising=False)
    monkeypatch.setattr(images_module, "DEBIAN", tmp_path / "debian")


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.astype(">u1").tobytes()


def write(folder: Path, mark: int, split: str = "train", zipped: bool = True, n: int = 4, labels: int | None = None) -> Path:
    """A tiny data set whose first label, and first pixel, is a mark to know it by."""
    folder.mkdir(parents=True, exist_ok=True)
    part = {"train": "train", "test": "t10k"}[split]
    pixels = np.arange(n * 6).reshape(n, 2, 3)
    pixels[0, 0, 0] = mark
    numbers = np.arange(labels or n) % 10
    numbers[0] = mark
    for kind, values in (("images-idx3", pixels), ("labels-idx1", numbers)):
        raw = idx(values)
        name = f"{part}-{kind}-ubyte" + (".gz" if zipped else "")
        (folder / name).write_bytes(gzip.compress(raw) if zipped else raw)
    return folder


def mark(name: str = "mnist", root: Path | None = None, split: str = "train") -> int:
    images, labels = read_images(name, root, split)
    assert images[0, 0, 0] == labels[0]
    return int(labels[0])


def test_places_are_tried_in_the_stated_order(tmp_path, monkeypatch):
    root, variable = tmp_path / "root", tmp_path / "variable"
    monkeypatch.setenv("LAZYRICH_DATA", str(variable))
    write(tmp_path / "debian" / "mnist", mark=1)
    assert mark() == 1
    write(Path("data/MNIST/raw"), mark=2)
    assert mark() == 2
    write(variable, mark=3)
    assert mark() == 3
    write(variable / "mnist", mark=4)
    assert mark() == 4
    with pytest.raises(DataError, match="found no mnist"):  # whoever names a root wants no other place's files
        mark(root=root)
    write(root, mark=5)
    assert mark(root=root) == 5
    write(root / "MNIST" / "raw", mark=6)
    assert mark(root=root) == 6
    write(root / "mnist", mark=7)
    assert mark(root=root) == 7
    assert mark() == 4


def test_known_labels_under_the_wrong_name_are_refused(tmp_path, monkeypatch):
    write(tmp_path, mark=3, zipped=False)
    known = hashlib.sha256((tmp_path / "train-labels-idx1-ubyte").read_bytes()).hexdigest()
    monkeypatch.setitem(images_module._LABELS, known, ("mnist", "train"))
    assert mark("mnist", root=tmp_path) == 3
    with pytest.raises(DataError, match="holds the labels of mnist train, expected fashion_mnist train"):
        mark("fashion_mnist", root=tmp_path)


def test_a_folder_with_half_of_the_files_is_told(tmp_path):
    (write(tmp_path / "mnist", mark=1) / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"mnist \(without train-labels-idx1-ubyte\)"):
        mark(root=tmp_path)


def test_labels_beyond_ten_classes_are_refused(tmp_path):
    write(tmp_path / "mnist", mark=10)
    with pytest.raises(DataError, match="label 10, expected labels below classes = 10"):
        load("mnist", root=tmp_path)


def real(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        return read_images(name, HERE, split)
    except DataError as error:
        pytest.skip(f"$LAZYRICH_DATA is set but: {error}")


needs_images = pytest.mark.skipif(not HERE, reason="needs real images: set LAZYRICH_DATA to their folder")


@needs_images
@pytest.mark.parametrize("split", ["train", "test"])
def test_each_real_data_set_is_refused_under_the_name_of_the_other(tmp_path, split):
    real("mnist", split)
    folder = next(p for p in images_module.places("mnist", HERE) if any(p.glob("t10k-labels*")))
    with pytest.raises(DataError, match=f"holds the labels of mnist {split}, expected fashion_mnist {split}"):
        read_images("fashion_mnist", folder, split)
