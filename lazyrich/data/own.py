"""One's own data, in whatever shape it is handed over, as ArrayData."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyrich.data.arrays import ArrayData
from lazyrich.errors import DataError
from lazyrich.reference import resolve

_EXPECTED = "expected a pair (x, y) of tensors or arrays, a map-style Dataset, an ArrayData, or the name of data"


def from_reference(reference: str, alone: bool) -> ArrayData:
    """What a function ``module:function`` or ``file.py:function`` returns, as data.

    Raises:
        DataError: if the function crashes, or what it returns is no data.
        UsageError: if there is no such function.
    """
    function = resolve(reference)
    try:
        value = function()
    except Exception as error:  # the user's function may raise anything
        raise DataError(
            f"'{reference}' crashed when called without arguments: {_told(error)}; mend it and try again"
        ) from error
    return from_object(value, reference, alone)


def from_object(value: Any, name: str, alone: bool) -> ArrayData:
    """Data from an object.

    Args:
        value: ArrayData, a pair (x, y), inputs alone, or a map-style Dataset, which is read once.
        name: what the data is called.
        alone: inputs without targets will do (they become their own targets).

    Raises:
        DataError: if it is no such thing, or its contents are not sound.

    Example:
        >>> from_object((np.eye(3), [0, 1, 1]), "toy", alone=False).y
        tensor([0, 1, 1])
    """
    if isinstance(value, ArrayData):
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        return _inputs_alone(value, name, alone)
    if isinstance(value, (tuple, list)) and len(value) == 2 and not hasattr(value, "__getitems__"):
        return ArrayData(_inputs(value[0], name), _targets(value[1], name), name)
    if isinstance(value, Mapping):
        raise DataError(_of_names(value, name))
    if isinstance(value, torch.utils.data.DataLoader):
        raise DataError(
            f"got a DataLoader for '{name}', {_EXPECTED}; give its data set, loader.dataset: batches are drawn of that by a seed"
        )
    plain = isinstance(value, (str, bytes))
    if not plain and hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        return _from_dataset(value, name, alone)
    raise DataError(f"got data of type {type(value).__name__} for '{name}', {_EXPECTED}")


def _of_names(value: Mapping[str, Any], name: str) -> str:
    """What to return instead of arrays by name, such as a dictionary or what np.load reads from an archive."""
    names = [*value]
    pair = sorted(names, key=lambda key: key != "x") if len(names) == 2 else ["x", "y"]
    known = ", ".join(repr(key) for key in names[:8]) or "nothing"
    return (
        f"got data of type {type(value).__name__} for '{name}', which holds {known}, expected a pair (x, y); "
        f"return (d[{pair[0]!r}], d[{pair[1]!r}])"
    )


def _inputs_alone(value: Any, name: str, alone: bool) -> ArrayData:
    if not alone:
        raise DataError(f"'{name}' is inputs without targets; give a pair (x, y), or lazyrich.data.load(x, target='input')")
    x = _inputs(value, name)
    return ArrayData(x, x, name)


def _from_dataset(dataset: Any, name: str, alone: bool) -> ArrayData:
    items = _items(dataset, name)
    if alone and isinstance(items[0], (Tensor, np.ndarray)):
        return _inputs_alone(_stack(items, name), name, alone)
    for index, item in enumerate(items):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            got = f"{len(item)} things" if isinstance(item, (tuple, list)) else type(item).__name__
            if isinstance(dataset, tuple):  # what a function of three things returns; nobody writes a data set as one
                raise DataError(f"got {len(dataset)} things for '{name}', expected a pair (x, y); return two of them")
            raise DataError(f"item {index} of '{name}' is {got}, expected a pair (input, target); wrap the data set")
    x, y = (_stack([item[part] for item in items], name) for part in (0, 1))
    return ArrayData(_inputs(x, name), _targets(y, name), name)


def _items(dataset: Any, name: str) -> list[Any]:
    length = len(dataset)
    if length == 0:
        raise DataError(f"'{name}' is empty: its length is 0, expected at least 1 sample")
    items = []
    for index in range(length):
        try:
            items.append(dataset[index])
        except Exception as error:  # the user's data set may raise anything
            raise DataError(f"item {index} of '{name}' cannot be read: {_told(error)}; {_EXPECTED}") from error
    return items


def _stack(values: list[Any], name: str) -> Tensor:
    try:
        return torch.stack([_tensor(value, name) for value in values])
    except RuntimeError as error:
        raise DataError(f"the items of '{name}' do not stack: {_told(error)}; bring them to one shape and dtype") from error


def _inputs(values: Any, name: str) -> Tensor:
    """Float32, but int32 and int64 tables (N, T) are tokens, which an embedding wants as int64."""
    tensor = _tensor(values, name)
    tokens = tensor.dtype in (torch.int32, torch.int64) and tensor.dim() == 2
    return tensor.long() if tokens else tensor.float()


def _targets(values: Any, name: str) -> Tensor:
    tensor = _tensor(values, name)
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def _tensor(values: Any, name: str) -> Tensor:
    try:
        tensor = values.detach() if isinstance(values, Tensor) else torch.tensor(_native(np.asarray(values)))
    except Exception as error:  # whatever numpy says of the user's type
        raise DataError(f"'{name}' holds {type(values).__name__}, which is no array of numbers: {_told(error)}") from error
    if tensor.is_complex():
        raise DataError(f"'{name}' holds complex numbers ({tensor.dtype}), expected real ones; give torch.view_as_real(x)")
    return tensor


def _native(array: np.ndarray) -> np.ndarray:
    """The array in the byte order of this machine, the only one that torch reads."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
