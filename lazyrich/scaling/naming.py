"""Names of tensors and modules behind the wrappers that compile, DDP and FSDP put around a model."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def bare(name: str, known: Collection[str] = ()) -> str:
    """The name that the bare model gives; stripping stops at a known name, since a model may call its own part ``module``.

    Example:
        >>> bare("module._orig_mod.readout.weight"), bare("module.module.weight", {"module.weight"})
        ('readout.weight', 'module.weight')
    """
    for wrapper in WRAPPERS:
        while name not in known and ("." + name).find("." + wrapper) >= 0:
            name = ("." + name).replace("." + wrapper, ".", 1)[1:]
    return name


def parameters(model: nn.Module, known: Collection[str] = ()) -> dict[str, nn.Parameter]:
    """Parameters under their bare names.

    Example:
        >>> list(parameters(nn.DataParallel(nn.Linear(2, 2, bias=False))))
        ['weight']
    """
    return {bare(name, known): parameter for name, parameter in model.named_parameters()}


def submodule(model: nn.Module, path: str) -> nn.Module | None:
    """The module at a bare path, or None.

    Example:
        >>> submodule(nn.DataParallel(nn.Sequential(nn.ReLU())), "0")
        ReLU()
    """
    modules = model.named_modules(remove_duplicate=False)
    return next((module for name, module in modules if bare(name, {path}) == path), None)
