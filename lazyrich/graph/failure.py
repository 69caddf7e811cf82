"""What a failed trace says: why, where in the module tree, and the mend."""

from __future__ import annotations

import re
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.errors import KernelError

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)


def failure(module: nn.Module, example: Tensor, error: Exception) -> KernelError:
    """The refusal of a module that the tracer stumbles over.

    Example:
        >>> refusal = failure(nn.Linear(3, 4), torch.zeros(2, 5), RuntimeError("sizes [2, 5] X [3, 4]"))
        >>> str(refusal).rpartition(": ")[2]
        'sizes [2, 5] X [3, 4]; give inputs of the shape that it reads'
    """
    shape = f"(batch, {', '.join(map(str, example.shape[1:]))})"
    why, mend = _why(error)
    place = _place(module, error)
    where = f"at {place}: " if place else ""
    return KernelError(
        f"{type(module).__name__} cannot be traced on inputs of shape {shape} {example.dtype}: {where}{why}; {mend}"
    )


def _why(error: Exception) -> tuple[str, str]:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
    if "data-dependent" in str(error) or "GuardOnDataDependent" in type(error).__name__:
        return "a branch depends on the data, so there is no one graph", "keep Python branches off tensor values"
    if "Constraints violated" in first:
        why = "it does not take any number of samples (it picks, joins or counts some)"
        return why, "treat all samples alike, and write x.shape[0] for len(x)"
    if "missing a required argument" in first:
        return f"{first} of its forward", "wrap it in a module whose forward takes one tensor and splits it"
    if re.search(r"\b(shape|size|dim|channel)", first, re.IGNORECASE):
        return first, "give inputs of the shape that it reads"
    if "type" in first:
        return first, "give inputs of the dtype that it reads"
    return first, "write this with torch's own operations, whatever the values"


def _place(module: nn.Module, error: Exception) -> str:
    """Of the innermost module that was running, and the innermost line that is not torch's."""
    paths = {id(part): path for path, part in module.named_modules()}
    running, line = None, ""
    for frame, number in _frames(error):
        part = frame.f_locals.get("self")
        if isinstance(part, nn.Module) and id(part) in paths:
            running = part
        file = frame.f_code.co_filename
        if running is not None and Path(file).is_absolute() and not file.startswith((_TORCH, _HERE)):
            line = f", {Path(file).name}:{number}"
    if running is None:
        return ""
    kind = type(running).__name__
    return (f"module '{paths[id(running)]}' ({kind})" if paths[id(running)] else f"the network's own forward ({kind})") + line


def _frames(error: Exception) -> list[tuple[FrameType, int]]:
    """From the outermost to the innermost."""
    found: list[tuple[FrameType, int]] = []
    step: Any = error.__traceback__
    while step is not None:
        found.append((step.tb_frame, step.tb_lineno))
        step = step.tb_next
    return found
