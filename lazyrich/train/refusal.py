"""What a network or a loss raises, as one sentence that says what it was given."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from lazyrich.errors import TrainError

RAISED = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError, AssertionError, NotImplementedError)


def refusal(what: str, error: Exception, **given: Any) -> TrainError:
    """The error to raise from another one: what failed, why in its first line, and the shapes that were given.

    Example:
        >>> import torch
        >>> print(refusal("the model does not take the data", ValueError("too wide"), inputs=torch.zeros(4, 2)))
        the model does not take the data: ValueError: too wide (inputs (4, 2) float32)
    """
    first = (str(error).splitlines() or [""])[0]
    return TrainError(f"{what}: {type(error).__name__}: {first} ({', '.join(f'{k} {_shape(v)}' for k, v in given.items())})")


def _shape(value: Any) -> str:
    found = [f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tree_leaves(value) if isinstance(t, Tensor)]
    return ", ".join(found) or type(value).__name__
