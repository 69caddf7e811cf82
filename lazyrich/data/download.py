"""Files of MNIST and Fashion-MNIST from public mirrors: the only use of the network, and only when asked."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from lazyrich.errors import DataError

Fetch = Callable[[str], bytes]

MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion_mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # an S3 website answers http only
    ),
}
# md5 of the gzipped files, as torchvision publishes them
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


def fetch_url(url: str) -> bytes:
    """What the network answers; a minute of silence is an error (OSError)."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def download_file(name: str, file: str, place: Path, fetch: Fetch = fetch_url) -> Path:
    """One file from the first mirror that has it whole, kept in a folder: there is the whole file or none.

    Args:
        name: mnist or fashion_mnist.
        file: name of the gzipped file.
        place: folder to keep it in, made where it is missing.
        fetch: ``fetch(url) -> bytes``, raising OSError when it fails.

    Raises:
        DataError: if no mirror has it (each failure is told), or the folder cannot be written.
    """
    failures = []
    for mirror in MIRRORS[name]:
        try:
            raw = fetch(mirror + file)
        except OSError as error:
            failures.append(f"{mirror}{file}: {error}")
            continue
        got, expected = hashlib.md5(raw, usedforsecurity=False).hexdigest(), CHECKSUMS[name, file]
        if got == expected:
            return _keep(raw, place / file)
        failures.append(f"{mirror}{file} has md5 {got}, expected {expected}")
    raise DataError(f"cannot download {file} ({'; '.join(failures)}); put it into {place} by hand")


def _keep(raw: bytes, path: Path) -> Path:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as out:
            out.write(raw)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise DataError(f"cannot keep {path}: {error.strerror or error}; give another root=") from error
    return path
