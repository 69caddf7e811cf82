"""What callers give: numbers, counts, modules and samples, refused in words where they mean nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.amount import counted, real
from lazyrich.errors import AutoencoderError, out_of_memory

MISFITS = (RuntimeError, TypeError, ValueError, IndexError, AttributeError)


def count(value: Any, name: str, least: int = 1) -> int:
    """A count as an integer.

    Raises:
        AutoencoderError: for what is no whole number, or is too small.

    Example:
        >>> count(8, "width")
        8
    """
    return counted(name, value, least, AutoencoderError)


def several(values: Any, name: str) -> list[Any]:
    """The values of an axis; one alone is a list of one.

    Raises:
        AutoencoderError: for no value, and for one that is there twice.

    Example:
        >>> several(64, "widths"), several("mup", "schemes"), several((8, 16), "widths")
        ([64], ['mup'], [8, 16])
    """
    found = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    if not found:
        raise AutoencoderError(f"got an empty axis, {name}, expected at least one; pass a list of them")
    if twice := [value for i, value in enumerate(found) if value in found[:i]]:
        raise AutoencoderError(f"{name} has {twice[0]} twice, expected every value once; leave one of them out")
    return found


def check_sizes(least: float = 0.0, above: bool = False, **values: Any) -> None:
    """Refuse what is no finite number from ``least`` on, or above it.

    Raises:
        AutoencoderError: with every name and what it was.

    Example:
        >>> check_sizes(beta=0.5)
    """
    wrong = [
        f"{name} = {value!r}"
        for name, value in values.items()
        if not (real(value) > least if above else real(value) >= least) or math.isinf(real(value))
    ]
    if wrong:
        bound = "above" if above else "of at least"
        raise AutoencoderError(f"got {', '.join(wrong)}, expected finite numbers {bound} {least:g}; pass one for each")


def check_names(values: list[Any], name: str) -> list[str]:
    """Refuse what are no names.

    Raises:
        AutoencoderError: with the first that is none.

    Example:
        >>> check_names(["mup"], "schemes")
        ['mup']
    """
    if odd := [value for value in values if not isinstance(value, str)]:
        raise AutoencoderError(f"got {odd[0]!r} among {name}, expected names; write them as the command line does")
    return values


def check_modules(**given: Any) -> None:
    """Refuse what holds no tensors that could be trained or looked at.

    Raises:
        AutoencoderError: for anything but modules.

    Example:
        >>> check_modules(encoder=nn.Linear(6, 2))
    """
    for name, value in given.items():
        if not isinstance(value, nn.Module):
            raise AutoencoderError(
                f"got {_said(value)} for {name}, expected a torch.nn.Module; pass one such as torch.nn.Linear(64, 8), a function "
                "wrapped in a module of your own"
            )


def check_maps(**given: Any) -> None:
    """Refuse what is neither a module nor a function.

    Raises:
        AutoencoderError: for anything else, classes among them.

    Example:
        >>> check_maps(decoder=torch.tanh)
    """
    for name, value in given.items():
        if isinstance(value, type) or not callable(value):
            raise AutoencoderError(f"got {_said(value)} for {name}, expected a module or a function of a tensor; pass one")


def _said(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"{value!r} of type {type(value).__name__}"


def check_samples(x: Any, name: str = "x", least: int = 1, floating: bool = True) -> Tensor:
    """Samples (N, ...), at least so many, of finite real numbers; whole ones, as embeddings read, where ``floating`` is false.

    Raises:
        AutoencoderError: for anything else.

    Example:
        >>> check_samples(torch.zeros(4, 6)).shape
        torch.Size([4, 6])
    """
    if not isinstance(x, Tensor):
        raise AutoencoderError(
            f"got {name} of type {type(x).__name__}, expected a tensor (samples, ...); pass torch.as_tensor(...)"
        )
    if x.is_complex() or (floating and not x.is_floating_point()):
        raise AutoencoderError(f"got {name} of {x.dtype}, expected real numbers with a floating point; pass {name}.float()")
    if x.dim() < 2 or not x.numel():
        raise AutoencoderError(
            f"got {name} of shape {tuple(x.shape)}, expected (samples, ...) with at least {least} of them; for one sample pass "
            f"{name}[None]"
        )
    if len(x) < least:
        raise AutoencoderError(f"got {len(x)} sample in {name}, expected at least {least}; pass more")
    if bad := int((~torch.isfinite(x)).sum()):
        raise AutoencoderError(
            f"got {name} with {bad} values that are not finite, expected numbers; drop their samples, or put numbers in their place"
        )
    return x


@contextmanager
def reading(module: Any, x: Any, name: str = "encoder") -> Iterator[None]:
    """What fails inside is a module that does not read its inputs, said with what it reads and what it got.

    Raises:
        AutoencoderError: in place of torch's own error; running out of memory stays what it is.

    Example:
        >>> with reading(nn.Linear(6, 2), torch.zeros(4, 5)):
        ...     _ = nn.Linear(6, 2)(torch.zeros(4, 5))
        Traceback (most recent call last):
        ...
        lazyrich.errors.AutoencoderError: the encoder reads 6 numbers a sample, got inputs of shape (4, 5) (mat1 and mat2 shapes \
cannot be multiplied (4x5 and 6x2)); pass inputs of its size
    """
    try:
        yield
    except MISFITS as error:
        if out_of_memory(error):
            raise
        got = f"inputs of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AutoencoderError(f"the {name} {_reads(module)}, got {got} ({said}); {_mend(module, x)}") from error


def _mend(module: Any, x: Any) -> str:
    if not isinstance(x, Tensor):
        return "pass a tensor, torch.as_tensor(...)"
    weight = getattr(_first(module), "weight", None)
    if weight is None or weight.dtype == x.dtype or isinstance(_first(module), (nn.Embedding, nn.EmbeddingBag)):
        return "pass inputs of its size"
    return f"its weights are of {weight.dtype} and the inputs of {x.dtype}: pass inputs.to({weight.dtype})"


def _first(module: Any) -> nn.Module | None:
    parts = module.modules() if isinstance(module, nn.Module) else ()
    return next((part for part in parts if getattr(part, "weight", None) is not None), None)


def _reads(module: Any) -> str:
    """What the first dense layer takes, where that is the first layer with a weight."""
    first = _first(module)
    if isinstance(first, nn.Linear):
        return f"reads {first.in_features} numbers a sample"
    return "does not read what it was given" if first is None else f"begins with {first}"
