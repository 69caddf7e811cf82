"""The samples of a kernel run: nested training sets and a test set, or the few that an explanation needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lazyrich.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from lazyrich.data import ArrayData


@dataclass(frozen=True)
class Split:
    """Nested training sets (the first n of ``x``) and a test set, in double precision."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    sizes: tuple[int, ...]
    classes: int
    name: str
    fingerprint: str


def few_of(spec: str, root: str | None, flatten: bool) -> Tensor:
    """What an explanation needs of the data: a sample or two, without a test set.

    Example:
        >>> tuple(few_of("digits", None, True).shape)
        (2, 64)
    """
    from lazyrich.data import load

    x = load(spec, root=root, flatten=flatten).x[:2]
    return x.double() if x.is_floating_point() else x


def split_of(spec: str, root: str | None, sizes: Sequence[int], test: int, flatten: bool, seed: int) -> Split:
    """The first samples of a shuffle to train on, and others to test on.

    Raises:
        UsageError: for data without classes, or of too few samples.

    Example:
        >>> found = split_of("digits", None, [8, 32], 100, True, 0)
        >>> tuple(found.x.shape), tuple(found.test_x.shape), found.classes
        ((32, 64), (100, 64), 10)
    """
    from lazyrich.data import load
    from lazyrich.data.images import FOLDERS

    data = load(spec, root=root, flatten=flatten)
    if data.classes == 1:
        raise UsageError(f"got data '{spec}' of one class only, expected two or more; kernels are compared as classifiers")
    if data.classes is None or data.y.dim() != 1:
        raise UsageError(f"got data '{spec}' without classes, expected one label a sample; kernels are compared as classifiers")
    rest: ArrayData
    if spec.replace("-", "_") in FOLDERS:
        if sizes[-1] > len(data):
            raise UsageError(f"got --train {sizes[-1]}, expected at most the {len(data)} samples of {spec}")
        few, rest = data.subset(sizes[-1], seed), load(spec, root=root, split="test", flatten=flatten)
        rest = rest.subset(min(test, len(rest)), seed)
    else:
        if sizes[-1] >= len(data):
            raise UsageError(
                f"got --train {sizes[-1]} of the {len(data)} samples of {spec}, expected fewer: the rest is the test set; "
                f"try --train {' '.join(str(n) for n in sizes if n < len(data)) or len(data) // 2}"
            )
        shuffled = data.subset(len(data), seed)
        few, rest = shuffled, data
        kept = slice(sizes[-1], min(len(data), sizes[-1] + test))
        return _of(few.x[: sizes[-1]], few.y[: sizes[-1]], shuffled.x[kept], shuffled.y[kept], sizes, data)
    return _of(few.x, few.y, rest.x, rest.y, sizes, data)


def _of(x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, sizes: Sequence[int], data: ArrayData) -> Split:
    wide = (t.double() if t.is_floating_point() else t for t in (x, test_x))
    return Split(next(wide), y, next(wide), test_y, tuple(sizes), data.classes or 0, data.name, data.fingerprint())
