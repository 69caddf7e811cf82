"""What the axes of a module's own tensors mean: a table from module type to axes, open to the user's types.

Shapes: a Linear weight is (out, in); a Conv weight (out, in/groups, *kernel); a ConvTranspose weight
(in, out/groups, *kernel); an Embedding (rows, dim); a recurrent weight (gates*hidden, in).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lazyrich.errors import FamilyError
from lazyrich.family.role import Axes

Reader = Callable[[nn.Module, str, tuple[int, ...]], "Axes | None"]

SUMMING = (nn.Linear, nn.Bilinear, _ConvNd)  # whose weights do what their shapes say
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _NormBase)  # whose gains and biases are no matrices
ELEMENTWISE = Axes(produced=(0,))
_READERS: dict[type[nn.Module], Reader] = {}


def register(module_type: type[nn.Module], reader: Reader) -> None:
    """Teach the family room what the axes of a module type's tensors mean.

    Args:
        module_type: the ``nn.Module`` subclass that owns the tensors.
        reader: ``reader(module, tensor_name, shape) -> Axes`` or None for a tensor it does not know.

    Example:
        >>> class Conv1D(nn.Module):  # a layer that keeps its weight as (in, out)
        ...     pass
        >>> register(Conv1D, lambda module, name, shape: Axes((1,), (0,)) if name == "weight" else Axes((0,)))
    """
    _READERS[module_type] = reader


def read_axes(module: nn.Module, name: str, shape: tuple[int, ...]) -> Axes:
    """Axes of the tensor ``name`` that ``module`` owns; unknown owners give ``known=False``.

    Example:
        >>> read_axes(nn.Linear(3, 5), "weight", (5, 3))
        Axes(produced=(0,), contracted=(1,), known=True)
    """
    for cls in type(module).__mro__:
        reader = _READERS.get(cls)
        axes = reader(module, name, shape) if reader else None
        if axes is not None:
            return axes
    if len(shape) <= 1:
        return Axes(produced=tuple(range(len(shape))))
    return Axes(known=False)


def _linear(module: nn.Module, name: str, shape: tuple[int, ...]) -> Axes | None:
    return {"weight": Axes((0,), (1,)), "bias": ELEMENTWISE}.get(name)


def _bilinear(module: nn.Module, name: str, shape: tuple[int, ...]) -> Axes | None:
    return {"weight": Axes((0,), (1, 2)), "bias": ELEMENTWISE}.get(name)


def _embedding(module: nn.Module, name: str, shape: tuple[int, ...]) -> Axes | None:
    return Axes((1,), (0,)) if name == "weight" else None


def _conv(module: nn.Module, name: str, shape: tuple[int, ...]) -> Axes | None:
    if name == "bias":
        return ELEMENTWISE
    if name != "weight":
        return None
    transposed, groups = isinstance(module, _ConvTransposeNd), int(module.groups)  # type: ignore[arg-type]
    channels, kernel = (0, 1) if transposed else (1, 0), tuple(range(2, len(shape)))
    gap = math.prod(module.stride) if transposed else 1  # type: ignore[arg-type]
    spread = 1 if transposed else math.prod(module.stride)  # type: ignore[arg-type]
    if groups > 1 and module.in_channels == groups:  # depthwise: every channel has its own filter, none are summed
        each = int(module.out_channels) // groups  # type: ignore[arg-type]
        return Axes(produced=(channels[0], channels[1]) if transposed else (0,), taps=kernel, each=each, gap=gap, spread=spread)
    if transposed:
        gap *= groups  # its first axis holds the channels of all groups, and an output sums over those of its own
    else:
        spread *= groups  # as an input feeds the outputs of its own
    return Axes(produced=(channels[1],), contracted=(channels[0], *kernel), gap=gap, spread=spread)


def regrouped(axes: Axes, small: nn.Module, large: nn.Module) -> Axes:
    """Axes of a kernel between two builds: where its groups grow, its first axis tells nothing of one group.

    Raises:
        FamilyError: if the input channels of a transposed kernel's group grow too, for then the kernel's shape at another width
            does not tell its fan-in.

    Example:
        >>> small, large = (nn.ConvTranspose1d(n, n, 3, groups=n // 4) for n in (8, 16))
        >>> regrouped(read_axes(large, "weight", (8, 4, 3)), small, large).fans((8, 4, 3))
        (12.0, 12.0)
    """
    if not isinstance(large, _ConvNd) or not axes.contracted or small.groups == large.groups:
        return axes
    before, after = int(small.groups), int(large.groups)  # type: ignore[arg-type]
    if not isinstance(large, _ConvTransposeNd):
        each, wide = int(small.out_channels) // before, int(large.out_channels) // after  # type: ignore[arg-type]
        spread = axes.spread // after
        return replace(axes, each=each, spread=spread) if each == wide else replace(axes, spread=spread * before)
    block, wide = (int(one.in_channels) // int(one.groups) for one in (small, large))  # type: ignore[arg-type]
    if block != wide:
        raise FamilyError(
            f"a {type(large).__name__} has {small.groups} groups of {block} input channels at the base width and {large.groups} of "
            f"{wide} at the probe width: its shape at another width would not tell what it sums over. Let only one of the two grow"
        )
    each = int(small.out_channels) // before  # type: ignore[arg-type]
    return Axes(produced=(0, 1), taps=axes.contracted[1:], each=each, gap=axes.gap // after, block=block)


def _attention(module: nn.Module, name: str, shape: tuple[int, ...]) -> Axes | None:
    if name.endswith("proj_weight"):
        return Axes((0,), (1,))
    if name in ("bias_k", "bias_v"):
        return Axes(produced=(2,))
    return ELEMENTWISE if name.endswith("bias") else None


def _recurrent(module: nn.Module, name: str, shape: tuple[int, ...]) -> Axes | None:
    if name.startswith("weight_"):
        return Axes((0,), (1,))
    return ELEMENTWISE if name.startswith("bias_") else None


def _norm(module: nn.Module, name: str, shape: tuple[int, ...]) -> Axes | None:
    return Axes(produced=tuple(range(len(shape)))) if name in ("weight", "bias") else None


for _types, _reader in (
    ((nn.Linear,), _linear),
    ((nn.Bilinear,), _bilinear),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    ((_ConvNd,), _conv),
    ((nn.MultiheadAttention,), _attention),
    ((nn.RNNBase, nn.RNNCellBase), _recurrent),
    (NORMS, _norm),
):
    for _type in _types:
        register(_type, _reader)
