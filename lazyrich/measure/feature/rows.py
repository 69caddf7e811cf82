"""The door of every estimator: features as a row a sample, and targets, refused where they are none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyrich.errors import MetricError
from lazyrich.tangent.alignment import targets_of

NUMBERS = {1: "one", 2: "two", 4: "four"}


def shaped(h: Any, name: str = "features") -> Tensor:
    """Features (samples, ...) flattened to (samples, units), without gradients; complex entries are two units each.

    Raises:
        MetricError: for what is no tensor or array, or has no axis of units.

    Example:
        >>> shaped(torch.ones(5, 3, 2, 2)).shape, shaped([[1.0, 2.0]]).shape
        (torch.Size([5, 12]), torch.Size([1, 2]))
    """
    try:
        x = torch.as_tensor(h).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise MetricError(f"got {name} of type {type(h).__name__}, expected a tensor or an array (samples, units)") from error
    if x.dim() < 2 or x[:1].numel() == 0:
        raise MetricError(
            f"got {name} of shape {tuple(x.shape)}, expected (samples, units) or (samples, ...), at least one of each; a column of "
            "one unit is h[:, None]"
        )
    return (torch.view_as_real(x) if x.is_complex() else x).flatten(1)


def rows(h: Any, least: int = 2, name: str = "features") -> Tensor:
    """Features (samples, units) in float64, all finite.

    Raises:
        MetricError: as ``shaped``; for fewer samples than ``least``, and entries that are not finite.

    Example:
        >>> rows(torch.ones(1, 3))
        Traceback (most recent call last):
        ...
        lazyrich.errors.MetricError: got 1 samples, expected at least two
    """
    x = shaped(h, name).double()
    if len(x) < least:
        raise MetricError(f"got {len(x)} samples, expected at least {NUMBERS.get(least, least)}")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).any(1).sum())
        raise MetricError(f"some {name} are not finite: those of {bad} of {len(x)} samples; remove these")
    return x


def centred(x: Tensor) -> Tensor:
    """Rows without their mean.

    Raises:
        MetricError: where that leaves no more than rounding.

    Example:
        >>> centred(torch.full((5, 3), 0.1))
        Traceback (most recent call last):
        ...
        lazyrich.errors.MetricError: all samples have the same features
    """
    rest = x - x.mean(0)
    if not float(rest.norm()) > 1e-14 * float(x.norm()):
        raise MetricError("all samples have the same features")
    return rest


def pair(h: Any, g: Any, least: int = 2, same_units: bool = False) -> tuple[Tensor, Tensor]:
    """Two sets of features of the same samples.

    Raises:
        MetricError: as ``rows``; for other numbers of samples, and with ``same_units`` of units.

    Example:
        >>> [f.shape for f in pair(torch.ones(5, 3), torch.ones(5, 2))]
        [torch.Size([5, 3]), torch.Size([5, 2])]
    """
    x, z = rows(h, least), rows(g, least, "features of the second set")
    if len(x) != len(z):
        raise MetricError(f"got {len(x)} and {len(z)} samples, expected the same samples in both sets")
    if same_units and x.shape[1] != z.shape[1]:
        raise MetricError(f"got {x.shape[1]} and {z.shape[1]} units, expected the same units in both sets")
    return x, z


def targets(y: Any, samples: int) -> Tensor:
    """Targets of so many samples, as they are: whole numbers are classes from 0.

    Raises:
        MetricError: for another number, classes below 0, and numbers that are not finite.

    Example:
        >>> targets([0, 1, 1], 3)
        tensor([0, 1, 1])
    """
    try:
        found = torch.as_tensor(y).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise MetricError(f"got targets of type {type(y).__name__}, expected a tensor or an array (samples,)") from error
    if found.dim() < 1 or len(found) != samples:
        raise MetricError(f"got {samples} samples and targets of shape {tuple(found.shape)}, expected as many of each")
    if found.is_floating_point():
        if not bool(torch.isfinite(found).all()):
            raise MetricError("some targets are not finite; remove those samples")
    elif found.is_complex() or int(found.min()) < 0:
        least = f"{found.dtype}" if found.is_complex() else f"{int(found.min())} among the classes"
        raise MetricError(
            f"got {least}, expected classes from 0 or numbers: y.unique(return_inverse=True)[1] makes classes of any labels, "
            "y.float() numbers"
        )
    return found


def columns(y: Any, samples: int) -> Tensor:
    """Targets as columns in float64: classes as one-hot rows, numbers as they are.

    Example:
        >>> columns([0, 1], 2).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    return targets_of(targets(y, samples)).double()
