"""One verb for all data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lazyrich.data.arrays import ArrayData
from lazyrich.data.images import FOLDERS, read_images
from lazyrich.data.own import from_object, from_reference
from lazyrich.errors import DataError

TARGETS = ("labels", "input")
# how a file of one's own is read, by its ending, in the one line that a message has
_TABLE = "import numpy; t = numpy.loadtxt('{}', delimiter='DELIMITER'); return t[:, :-1], t[:, -1].astype(int)"
READS = {
    ".csv": _TABLE.replace("DELIMITER", ","),
    ".tsv": _TABLE.replace("DELIMITER", "\\t"),
    ".npz": "import numpy; d = numpy.load('{}'); return d['x'], d['y']",
    ".npy": "import numpy; t = numpy.load('{}'); return t[:, :-1], t[:, -1].astype(int)",
    ".pt": "import torch; x, y = torch.load('{}'); return x, y",
    ".pth": "import torch; x, y = torch.load('{}'); return x, y",
}


def load(
    spec: Any,
    *,
    root: str | Path | None = None,
    split: str = "train",
    target: str = "labels",
    n: int | None = None,
    flatten: bool = True,
    download: bool = False,
    seed: int = 0,
) -> ArrayData:
    """Load data as tensors.

    Named images (scikit-learn's digits: 1797 of 8x8, always there; MNIST and Fashion-MNIST: 60000 or 10000 of 28x28) come
    standardised: mean 0 and variance 1 over all entries of the split, so that ||x||^2 is about d.
    One's own numbers are taken as they are, in float32; ``load(...).standardize()`` scales them the same way.

    Args:
        spec: ``"digits"``, ``"mnist"``, ``"fashion_mnist"``, a reference ``package.module:function`` or
            ``path/to/file.py:function`` to something that returns data, or the data itself: an ArrayData, a pair (x, y) of
            tensors or arrays, inputs alone (with ``target="input"``), or any map-style Dataset, which is read once. Whole
            numbers (int32, int64) in a table (N, T) are tokens and stay whole; all other inputs become float32.
        root: folder of the image files; given, it must hold them.
        split: train or test, for MNIST and Fashion-MNIST; all other data comes whole, as train.
        target: ``labels``, or ``input`` for an autoencoder: y is x, flattened.
        n: keep only so many samples, chosen by ``seed``.
        flatten: vectors (N, d) instead of (N, 1, H, W), for named images.
        download: allow the network for MNIST and Fashion-MNIST, when they are found nowhere.
        seed: of the choice of n samples.

    Raises:
        DataError: for data that is missing, unreadable or not what it should be.
        UsageError: for a reference that leads nowhere.

    Example:
        >>> digits = load("digits")
        >>> digits.x.shape, digits.classes
        (torch.Size([1797, 64]), 10)
    """
    if target not in TARGETS:
        raise DataError(f"got target '{target}', expected one of {', '.join(TARGETS)}")
    name = spec.replace("-", "_") if isinstance(spec, str) else None
    if root and name not in FOLDERS:
        raise DataError(
            f"got root '{root}' for data that is not read from image files; leave it out (it serves {', '.join(FOLDERS)})"
        )
    if name in FOLDERS:
        data = _images(name, *read_images(name, root, split, download), flatten)
    elif split != "train":
        raise DataError(f"got split '{split}' for data that comes whole; hold samples out yourself and pass them as (x, y)")
    elif name == "digits":
        data = _images(name, *_digits(), flatten)
    else:
        data = _own(spec, alone=target == "input")
    data = data.subset(n, seed) if n is not None else data
    return data.as_autoencoder() if target == "input" else data


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels).reshape(-1, 8, 8), np.asarray(labels)


def _images(name: str, images: np.ndarray, labels: np.ndarray, flatten: bool) -> ArrayData:
    """Images (N, H, W) of ten classes, standardised."""
    pixels = torch.from_numpy(images.astype(np.float32)).unsqueeze(1)
    data = ArrayData(pixels, torch.from_numpy(labels.astype(np.int64)), name, classes=10).standardize()
    return data.flatten() if flatten else data


def _own(spec: Any, alone: bool) -> ArrayData:
    if not isinstance(spec, str):
        return from_object(spec, _name(spec), alone)
    if ":" in spec:
        return from_reference(spec, alone)
    known = f"digits, {', '.join(FOLDERS)}, or module:function (path/to/file.py:function)"
    if (reads := READS.get(Path(spec).suffix.lower())) is not None:
        raise DataError(
            f"got data '{spec}', a file, expected {known}; bring what it holds by a function of your own and give own.py:data; "
            f"own.py is then: def data(): {reads.format(spec)}"
        )
    raise DataError(f"got data '{spec}', expected {known}")


def _name(value: Any) -> str:
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and name else type(value).__name__
