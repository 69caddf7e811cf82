"""Classes as numbers that regression can fit."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.amount import counted, real
from lazyrich.errors import KernelError
from lazyrich.inference.layout import tensor


def one_hot_targets(labels: Tensor, classes: int | None = None, on: float | None = None, off: float | None = None) -> Tensor:
    """Regression targets of a classification: ``on`` in the column of the label, ``off`` elsewhere.

    By default centred, 1 - 1/C and -1/C, so each row sums to zero; for ten classes these are the 0.9 and -0.1 of Lee et al.
    2018 (arXiv:1711.00165, section 3).

    Args:
        labels: (N,), whole numbers 0 .. C-1.
        classes: C; the largest label + 1 by default.
        on: value for the label.
        off: value for the other classes.

    Returns:
        (N, C) float64.

    Raises:
        KernelError: for labels that are not whole numbers from 0 to C-1, and values that are not finite.

    Example:
        >>> one_hot_targets(torch.tensor([1, 0]), on=1.0, off=0.0)
        tensor([[0., 1.],
                [1., 0.]], dtype=torch.float64)
    """
    labels = labels_of(labels)
    classes = int(labels.max()) + 1 if classes is None else counted("classes", classes, refusal=KernelError)
    if int(labels.max()) >= classes:
        raise KernelError(
            f"got label {int(labels.max())}, expected labels below {classes}; pass classes={int(labels.max()) + 1}"
        )
    on, off = 1 - 1 / classes if on is None else on, -1 / classes if off is None else off
    for name, value in (("on", on), ("off", off)):
        if not abs(real(value)) < float("inf"):
            raise KernelError(f"got {name} {value!r}, expected a finite number; pass such as on=1.0, off=0.0")
    return off + (on - off) * torch.nn.functional.one_hot(labels, classes).to(torch.float64)


def labels_of(labels: Tensor) -> Tensor:
    """Labels as int64, (N,).

    Raises:
        KernelError: for anything but whole numbers from 0 in one dimension.
    """
    labels = tensor(labels, "labels")
    if labels.ndim != 1 or not labels.numel():
        raise KernelError(f"got labels of shape {tuple(labels.shape)}, expected (N,): one class a sample")
    if not bool((labels == labels.to(torch.int64)).all()) or int(labels.min()) < 0:
        raise KernelError("got labels that are not whole numbers from 0, expected classes 0, 1, ...")
    return labels.to(torch.int64)
