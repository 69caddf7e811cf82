"""What a network or a loss raises, as one sentence that says what it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from lazyrich.errors import TrainError

RAISED = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError, AssertionError, NotImplementedError)


def refusal(what: str, error: Exception, **given: Any) -> TrainError:
    """The error to raise from another one: what failed, why in its first line, and the shapes that were given.

    Of an ``output`` that is no tensor it says how a loss takes one out of it.

    Example:
        >>> import torch
        >>> print(refusal("the model does not take the data", ValueError("too wide"), inputs=torch.zeros(4, 2)))
        the model does not take the data: ValueError: too wide (inputs (4, 2) float32)
    """
    first = (str(error).splitlines() or [""])[0]
    shapes = ", ".join(f"{name} {_shape(value)}" for name, value in given.items())
    return TrainError(f"{what}: {type(error).__name__}: {first} ({shapes}){_mend(given.get('output'))}")


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
