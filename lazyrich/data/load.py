"""One verb for all data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyrich.data.arrays import ArrayData
from lazyrich.data.images import FOLDERS, read_images
from lazyrich.errors import DataError
from lazyrich.reference import resolve

TARGETS = ("labels", "input")


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

    Args:
        spec: ``"digits"`` (1797 8x8 images, always there), ``"mnist"``, ``"fashion_mnist"``, a reference
            ``module:function`` to something that returns data, or the data itself: an ArrayData, a pair (x, y) of tensors
            or arrays, inputs alone (with ``target="input"``), or any map-style Dataset, which is read once. Named images
            come standardised: mean 0, variance 1 over all entries. One's own arrays are taken as they are.
        root: folder of the image files.
        split: train or test, for MNIST and Fashion-MNIST.
        target: ``labels``, or ``input`` for an autoencoder.
        n: keep only so many samples, chosen by ``seed``.
        flatten: vectors (N, d) instead of (N, 1, H, W), for named images.
        download: allow the network for MNIST and Fashion-MNIST.
        seed: of the choice of n samples.

    Raises:
        DataError: for data that is missing, unreadable or not what it should be.

    Example:
        >>> load("digits").x.shape
        torch.Size([1797, 64])
    """
    if target not in TARGETS:
        raise DataError(f"got target '{target}', expected one of {', '.join(TARGETS)}")
    data = _read(spec, root, split, flatten, download, alone=target == "input")
    data = data.subset(n, seed) if n is not None else data
    return data.as_autoencoder() if target == "input" else data


def _read(spec: Any, root: str | Path | None, split: str, flatten: bool, download: bool, alone: bool) -> ArrayData:
    if not isinstance(spec, str):
        return _from_object(spec, getattr(spec, "name", type(spec).__name__), alone)
    name = spec.replace("-", "_")
    if name == "digits":
        data = _digits()
    elif name in FOLDERS:
        images, labels = read_images(name, root, split, download)
        data = ArrayData(_floats(images, name).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)), name)
    elif ":" in spec:
        return _from_object(resolve(spec)(), spec, alone)
    else:
        raise DataError(f"got data '{spec}', expected digits, {', '.join(FOLDERS)}, or module:function")
    data = data.standardize()
    return data.flatten() if flatten else data


def _digits() -> ArrayData:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return ArrayData(_floats(pixels, "digits").reshape(-1, 1, 8, 8), torch.from_numpy(labels).long(), "digits")


def _from_object(value: Any, name: str, alone: bool) -> ArrayData:
    if isinstance(value, ArrayData):
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        if not alone:
            raise DataError(f"'{name}' is inputs without targets; give a pair (x, y), or target='input'")
        x = _floats(value, name)
        return ArrayData(x, x.flatten(1), name)
    if isinstance(value, (tuple, list)) and len(value) == 2 and not hasattr(value, "__getitems__"):
        return ArrayData(_floats(value[0], name), _targets(value[1], name), name)
    if hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        return _from_dataset(value, name)
    raise DataError(f"got data of type {type(value).__name__}, expected (x, y), a map-style Dataset or a name")


def _from_dataset(dataset: Any, name: str) -> ArrayData:
    if len(dataset) == 0:
        raise DataError(f"'{name}' is empty")
    items = [dataset[i] for i in range(len(dataset))]
    if not isinstance(items[0], (tuple, list)) or len(items[0]) != 2:
        raise DataError(f"an item of '{name}' is {type(items[0]).__name__}, expected a pair (input, target)")
    try:
        x = torch.stack([torch.as_tensor(np.asarray(item[0])) for item in items])
        y = torch.stack([torch.as_tensor(np.asarray(item[1])) for item in items])
    except (RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"the items of '{name}' do not stack: {str(error).splitlines()[0]}") from error
    return ArrayData(_floats(x, name), _targets(y, name), name)


def _floats(values: Any, name: str) -> Tensor:
    tensor = _tensor(values, name)
    # integer inputs stay integers only when they are tokens, that is a (N, T) table; images are scaled by standardisation
    return tensor if not tensor.is_floating_point() and tensor.dim() == 2 else tensor.float()


def _targets(values: Any, name: str) -> Tensor:
    tensor = _tensor(values, name)
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def _tensor(values: Any, name: str) -> Tensor:
    try:
        return values if isinstance(values, Tensor) else torch.tensor(np.asarray(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"'{name}' holds {type(values).__name__} that is no array of numbers: {error}") from error
