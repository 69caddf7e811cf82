"""What a network or a loss raises, as one sentence that says what it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lazyrich.errors import TrainError


def refusal(what: str, error: Exception, **given: Any) -> TrainError:
    """The error to raise from another one: what failed, why in its first line, and the shapes that were given.

    Of an ``output`` that is no tensor it says how a loss takes one out of it.

    Example:
        >>> print(refusal("the model does not take the data", ValueError("too wide"), inputs=torch.zeros(4, 2)))
        the model does not take the data: ValueError: too wide (inputs (4, 2) float32)
    """
    first = (str(error).splitlines() or [""])[0]
    shapes = ", ".join(f"{name} {_shape(value)}" for name, value in given.items())
    return TrainError(f"{what}: {type(error).__name__}: {first} ({shapes}){_mend(given.get('output'))}")


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """One step; torch refuses rates that the tensors' own numbers cannot hold, which Adam's bias correction divides by 0.1 first.

    Raises:
        TrainError: for such rates.

    Example:
        >>> w = torch.ones(1, requires_grad=True)
        >>> w.grad = torch.ones(1)
        >>> take_step(torch.optim.SGD([w], lr=1e39))
        Traceback (most recent call last):
        ...
        lazyrich.errors.TrainError: got learning rates up to 1e+39 and weight decays up to 0, ...
    """
    try:
        optimizer.step()
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        lr, decay = (max(float(group.get(name, 0.0)) for group in optimizer.param_groups) for name in ("lr", "weight_decay"))
        kinds = sorted({str(p.dtype).removeprefix("torch.") for group in optimizer.param_groups for p in group["params"]})
        raise TrainError(
            f"got learning rates up to {lr:g} and weight decays up to {decay:g}, expected numbers that {' and '.join(kinds)} "
            "holds, also over Adam's bias correction; lower them"
        ) from error


def _mend(output: Any) -> str:
    if output is None or isinstance(output, Tensor):
        return ""
    return (
        f"; the output is a {type(output).__name__}: give a loss that takes what it wants of it, such as "
        f"loss=lambda out, t: torch.nn.functional.cross_entropy({_part(output)}, t), on the command line --loss FILE.py:FUNCTION"
    )


def _part(output: Any) -> str:
    """The logits or the first tensor in an output, as one writes it."""
    if hasattr(output, "logits"):
        return "out.logits"
    if isinstance(output, Mapping):
        known = [key for key, value in output.items() if isinstance(value, Tensor)]
        return f"out[{('logits' if 'logits' in known or not known else known[0])!r}]"
    if isinstance(output, Sequence):
        return f"out[{next((i for i, value in enumerate(output) if isinstance(value, Tensor)), 0)}]"
    return "out.logits"


def _shape(value: Any) -> str:
    found = [f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tree_leaves(value) if isinstance(t, Tensor)]
    return ", ".join(found) or type(value).__name__
