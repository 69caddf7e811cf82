"""At which modules of a network attention logits are scaled: once for each attention, however many modules tell its heads' size."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from torch import nn

from lazyrich.scaling.attention import attends, head_size

WORDS = ("attention", "attn")  # of functions of other packages that attend


def seats(model: nn.Module) -> list[str]:
    """Paths of the modules that attend, in the model's order; of one whose heads' size only a module around it tells, that one.

    A ``head_dim`` tells a size and makes no attention by itself: blocks and whole models have one, and rotary tables.

    Example:
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.head_dim, self.mix = 4, nn.MultiheadAttention(8, 2)
        >>> seats(nn.Sequential(Block()))
        ['0.mix']
    """
    modules = dict(model.named_modules())
    speaking = [path for path in modules if _speaks(modules[path])]
    told = [path for path in speaking if head_size(modules[path]) is not None]
    told = [path for path in told if attends(modules[path]) or not any(_inside(other, path) for other in told)]
    found = {_teller(path, modules, told) for path in speaking if path in told or not any(_inside(p, path) for p in told)}
    opaque = [
        path
        for path, module in modules.items()
        if head_size(module) is not None
        and any(True for _ in module.parameters())
        and not any(path == other or _inside(path, other) or _inside(other, path) for other in {*speaking, *found})
    ]
    found |= {path for path in opaque if not any(_inside(other, path) for other in opaque)}
    return [path for path in modules if path in found]


def around(path: str, paths: list[str]) -> bool:
    """Whether a module has another of them inside.

    Example:
        >>> around("blocks", ["blocks", "blocks.0"]), around("blocks.0", ["blocks", "blocks.0"])
        (True, False)
    """
    return any(_inside(other, path) for other in paths)


def _teller(path: str, modules: Mapping[str, nn.Module], told: list[str]) -> str:
    """Where the size of an attention's heads is read: at itself, else at the nearest module around that tells no other."""
    if path in told:
        return path
    outer = path
    while outer:
        outer = outer.rpartition(".")[0]
        if head_size(modules[outer]) is not None:
            return path if around(outer, told) else outer
    return path


def _speaks(module: nn.Module) -> bool:
    """Whether a module attends itself, or calls what by its name does."""
    if isinstance(module, nn.MultiheadAttention) or attends(module):
        return True
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    if code is None or type(module).__module__.partition(".")[0] == "torch":
        return False
    parts = {part for path, _ in module.named_modules() for part in path.split(".")}
    return any(word in name.lower() for name in code.co_names if name not in parts for word in WORDS)


def _inside(path: str, outer: str) -> bool:
    return path != outer and (not outer or path.startswith(f"{outer}."))
