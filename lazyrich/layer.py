"""Layers by module path, as people read them."""

from __future__ import annotations


def shown(path: str) -> str:
    """A layer's name for tables, figures and sentences: the path of tensors that the network itself holds is empty.

    Example:
        >>> shown("hidden.0"), shown("")
        ('hidden.0', '(network)')
    """
    return path or "(network)"


def spoken(path: str) -> str:
    """A layer's name inside a sentence, a caption or a heading, where the number that an ``nn.Sequential`` gives it says nothing.

    Example:
        >>> spoken("2"), spoken("hidden.0"), spoken("")
        ('layer 2', 'hidden.0', '(network)')
    """
    return f"layer {path}" if path.isdigit() else shown(path)
