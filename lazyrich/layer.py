"""Layers by module path, as people read them."""

from __future__ import annotations


def shown(path: str) -> str:
    """A layer's name for tables, figures and sentences: the path of tensors that the network itself holds is empty.

    Example:
        >>> shown("hidden.0"), shown("")
        ('hidden.0', '(network)')
    """
    return path or "(network)"
