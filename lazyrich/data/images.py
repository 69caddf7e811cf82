"""MNIST and Fashion-MNIST from wherever the user has them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from lazyrich.data.download import Fetch, download_file, fetch_url
from lazyrich.data.idx import read_idx
from lazyrich.errors import DataError

# the folder names looked for: those of Debian and of torchvision
FOLDERS = {"mnist": ("mnist", "MNIST/raw"), "fashion_mnist": ("fashion-mnist", "FashionMNIST/raw")}
PARTS = {"train": "train", "test": "t10k"}
DEBIAN = Path("/usr/share/datasets")
# sha256 of the published label files after gunzip: both data sets use the same file names, so only content tells them apart
_LABELS = {
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5": ("mnist", "train"),
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2": ("mnist", "test"),
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9": ("fashion_mnist", "train"),
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34": ("fashion_mnist", "test"),
}


def read_images(
    name: str, root: str | Path | None = None, split: str = "train", download: bool = False, fetch: Fetch = fetch_url
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) as uint8.

    Looked for in ``root`` alone where it is given, else in ``$LAZYRICH_DATA``, each as ``mnist/``, as torchvision's
    ``MNIST/raw/`` and as files directly in it, then in ``./data`` and in Debian's package folder; then, only when asked,
    downloaded into the first of these places.

    Args:
        name: mnist or fashion_mnist.
        root: the folder to look in.
        split: train or test.
        download: allow the network, when nothing is found.
        fetch: ``fetch(url) -> bytes``, for tests and proxies.

    Raises:
        DataError: if nothing is found (every place is listed), a file is damaged, images and labels do not pair up, or the
            files are those of the other data set.
    """
    if split not in PARTS:
        raise DataError(f"got split '{split}', expected one of {', '.join(PARTS)}")
    files = [f"{PARTS[split]}-{part}-ubyte" for part in ("images-idx3", "labels-idx1")]
    tried = places(name, root)
    for place in tried:
        found = [_either(place, file) for file in files]
        if found[0] and found[1]:
            return _pair(found[0], found[1], name, split)
    if download:
        images, labels = (_either(tried[0], file) or download_file(name, f"{file}.gz", tried[0], fetch) for file in files)
        return _pair(images, labels, name, split)
    mend = "give the root= that holds it, or none to look in the usual places" if root else "set $LAZYRICH_DATA or root= to it"
    raise DataError(
        f"found no {name} ({split}) in {', '.join(_told(place, files) for place in tried)}; {mend}, allow "
        "download=True, or (Debian, Fashion-MNIST) install the package dataset-fashion-mnist"
    )


def places(name: str, root: str | Path | None = None) -> list[Path]:
    """Every folder that is looked in, in order; a ``root`` that was asked for is looked in alone.

    Example:
        >>> [place.as_posix() for place in places("mnist", "here")][:3]
        ['here/mnist', 'here/MNIST/raw', 'here']
    """
    debian, torchvision = FOLDERS[name]
    asked = root or os.environ.get("LAZYRICH_DATA")
    under = [Path(asked).expanduser() / part for part in (debian, torchvision, "")] if asked else []
    if root:
        return under
    return list(dict.fromkeys([*under, Path("data") / debian, Path("data") / torchvision, DEBIAN / debian]))


def _either(place: Path, file: str) -> Path | None:
    return next((p for p in (place / file, place / f"{file}.gz") if p.is_file()), None)


def _told(place: Path, files: list[str]) -> str:
    """A place, and the file that it lacks where it has the other one."""
    missing = [file for file in files if not _either(place, file)]
    return f"{place} (without {missing[0]})" if len(missing) == 1 else str(place)


def _pair(image_file: Path, label_file: Path, name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{image_file.parent} holds images {images.shape} and labels {labels.shape}, which do not pair up: expected "
            f"(N, H, W) and (N,) in {image_file.name} and {label_file.name}; fetch both again"
        )
    return images, _known(labels, label_file, name, split)


def _known(labels: np.ndarray, file: Path, name: str, split: str) -> np.ndarray:
    """Labels that are not those of another published data set under the same file name."""
    header = b"\x00\x00\x08\x01" + len(labels).to_bytes(4, "big")
    is_really = _LABELS.get(hashlib.sha256(header + labels.tobytes()).hexdigest(), (name, split))
    if is_really != (name, split):
        raise DataError(
            f"{file} holds the labels of {' '.join(is_really)}, expected {name} {split}; put each data set into a folder "
            f"of its own ({', '.join(folder for folder, _ in FOLDERS.values())})"
        )
    return labels
