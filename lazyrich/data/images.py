"""MNIST and Fashion-MNIST from wherever the user has them."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lazyrich.data.idx import read_idx
from lazyrich.errors import DataError

FOLDERS = {"mnist": ("mnist", "MNIST/raw"), "fashion_mnist": ("fashion-mnist", "FashionMNIST/raw")}
PARTS = {"train": "train", "test": "t10k"}
MIRRORS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion_mnist": "https://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
# md5 of the gzipped files at the mirrors, as torchvision publishes them
CHECKSUMS = {
    ("mnist", "train-images-idx3-ubyte.gz"): "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ("mnist", "train-labels-idx1-ubyte.gz"): "d53e105ee54ea40749a09fcbcd1e9432",
    ("mnist", "t10k-images-idx3-ubyte.gz"): "9fb629c4189551a2d022fa330f9573f3",
    ("mnist", "t10k-labels-idx1-ubyte.gz"): "ec29112dd5afa0611ce80d1b7f02629c",
    ("fashion_mnist", "train-images-idx3-ubyte.gz"): "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ("fashion_mnist", "train-labels-idx1-ubyte.gz"): "25c81989df183df01b3e8a0aad5dffbe",
    ("fashion_mnist", "t10k-images-idx3-ubyte.gz"): "bef4ecab320f06d8554ea6380940ec79",
    ("fashion_mnist", "t10k-labels-idx1-ubyte.gz"): "bb300cfdad3c16e7a12a480ee83cd310",
}
Fetch = Callable[[str], bytes]


def read_images(
    name: str, root: str | Path | None = None, split: str = "train", download: bool = False, fetch: Fetch | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) as uint8.

    Looked for in ``root``, ``$LAZYRICH_DATA``, ``./data`` and Debian's package folder, each as ``mnist/``, as torchvision's
    ``MNIST/raw/``, and as plain files; then, only when asked, downloaded into the first of these.

    Args:
        name: mnist or fashion_mnist.
        root: a folder to look in first.
        split: train or test.
        download: allow the network, when nothing is found.
        fetch: ``fetch(url) -> bytes``, for tests and other mirrors.

    Raises:
        DataError: if nothing is found (every place is listed), or images and labels do not pair up.
    """
    if split not in PARTS:
        raise DataError(f"got split '{split}', expected one of {', '.join(PARTS)}")
    names = [f"{PARTS[split]}-{part}-ubyte" for part in ("images-idx3", "labels-idx1")]
    tried = places(name, root)
    for place in tried:
        files = [path for path in (_either(place, file) for file in names) if path]
        if len(files) == len(names):
            return _pair(read_idx(files[0]), read_idx(files[1]), place)
    if download:
        target = tried[0]
        files = [_download(name, f"{file}.gz", target, fetch or _fetch) for file in names]
        return _pair(read_idx(files[0]), read_idx(files[1]), target)
    raise DataError(
        f"found no {name} ({split}) in {', '.join(map(str, tried))}; set $LAZYRICH_DATA or root= to its folder, "
        "allow download=True, or (Debian) install the package dataset-fashion-mnist"
    )


def places(name: str, root: str | Path | None = None) -> list[Path]:
    """Every folder that is looked in, in order."""
    roots = [Path(r) for r in (root, os.environ.get("LAZYRICH_DATA"), "data") if r]
    under = [r / folder for r in roots for folder in FOLDERS[name]] + roots[: -1 if root else None]
    return [*under, Path("/usr/share/datasets") / FOLDERS[name][0]]


def _either(place: Path, file: str) -> Path | None:
    return next((p for p in (place / file, place / f"{file}.gz") if p.is_file()), None)


def _pair(images: np.ndarray, labels: np.ndarray, place: Path) -> tuple[np.ndarray, np.ndarray]:
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(f"{place} holds images {images.shape} and labels {labels.shape}, which do not pair up")
    return images, labels


def _download(name: str, file: str, place: Path, fetch: Fetch) -> Path:
    raw = fetch(MIRRORS[name] + file)
    got, wanted = hashlib.md5(raw).hexdigest(), CHECKSUMS[name, file]
    if got != wanted:
        raise DataError(f"downloaded {file} has md5 {got}, expected {wanted}; the mirror or the connection is broken")
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place)
        with os.fdopen(handle, "wb") as out:
            out.write(raw)
        os.replace(temporary, place / file)
    except OSError as error:
        raise DataError(f"cannot keep {file} in {place}: {error.strerror or error}; give another root=") from error
    return place / file


def _fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read()
    except OSError as error:
        raise DataError(f"cannot download {url}: {error}; put the files into $LAZYRICH_DATA by hand") from error
