"""Checkpoints inside of an attention: what backward runs again runs outside of whatever scales the attention's logits."""

from __future__ import annotations

import sys
from types import CodeType

CHECKPOINT = "torch.utils.checkpoint"


def checkpointed(until: CodeType) -> bool:
    """Whether this call stands inside of ``torch.utils.checkpoint.checkpoint``, which the innermost call of a function made.

    Args:
        until: the function's code; a checkpoint around that call itself runs the whole of it again, and does no harm.

    Example:
        >>> from torch.utils.checkpoint import checkpoint
        >>> def inside():
        ...     return checkpoint(lambda: checkpointed(inside.__code__), use_reentrant=False)
        >>> def around():
        ...     return checkpointed(around.__code__)
        >>> inside(), checkpoint(around, use_reentrant=False)
        (True, False)
    """
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not until:
        if frame.f_globals.get("__name__") == CHECKPOINT:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
