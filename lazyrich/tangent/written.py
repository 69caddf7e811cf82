"""Operations written out whose fused forms have wrong or no derivatives under nested transforms, and how they are put in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._pytree import tree_map_only

from lazyrich.tangent import bags, lengths, matrices, products, spectra

MARKS = ("__get__", "__set__", "requires_grad_", "retain_grad", "register_hook")  # what is read off a tensor, and written on it


class _WrittenOut(TorchFunctionMode):
    """Operations written out whose fused forms have wrong or no derivatives under nested transforms (torch 2.13, 2.14).

    Wrong are second derivatives of the norms, and per-sample derivatives of PReLU where there are as many samples as outputs;
    gated units, normalised weights and some curves have no second forward derivatives. Of lengths, matrices, products
    and spectra see there.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        written = WRITTEN.get(func, func)
        if torch.is_grad_enabled() or getattr(func, "__name__", "") in MARKS:
            return written(*args, **(kwargs or {}))
        return _untracked(written, args, kwargs or {})


def _untracked(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Under no_grad inside of a network: forward derivatives do not stop there by themselves, as backward ones do.

    What changes a tensor in place changes its values, and leaves its derivatives as they were.
    """
    own: dict[int, Tensor] = {}

    def still(t: Tensor) -> Tensor:
        values = t.detach()
        own[id(values)] = t
        return values

    given = tree_map_only(Tensor, still, (args, kwargs))
    out = function(*given[0], **given[1])
    return tree_map_only(Tensor, lambda t: own.get(id(t), t), out)


def _mean(input: Tensor, axes: tuple[int, ...]) -> Tensor:
    """As a sum, whose gradient is one number for all of its terms, which torch's own mean divides one by one."""
    return input.sum(axes, keepdim=True) / math.prod(input.shape[i] for i in axes)


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    axes = tuple(range(-len(tuple(normalized_shape)), 0))
    mean = partial(_mean, axes=axes)
    centred = input + -mean(input)  # the gradient's sum is negated, not each of its entries
    out = centred * (mean(centred.square()) + eps).rsqrt()
    out = out * weight if weight is not None else out
    return out + bias if bias is not None else out


def _instance_norm(
    input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5, *_: Any,
) -> Tensor:  # fmt: skip
    shape, mean = (1, -1, *(1 for _ in input.shape[2:])), partial(_mean, axes=tuple(range(2, input.dim())))
    centred = input + -(mean(input) if use_input_stats else running_mean.reshape(shape))
    out = centred * ((mean(centred.square()) if use_input_stats else running_var.reshape(shape)) + eps).rsqrt()
    out = out * weight.reshape(shape) if weight is not None else out
    return out + bias.reshape(shape) if bias is not None else out


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    shape = (1, -1, *(1 for _ in input.shape[2:])) if weight.numel() > 1 else (1,)
    return torch.where(input > 0, input, weight.reshape(shape) * input)


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    first, second = input.chunk(2, dim)
    return first * torch.sigmoid(second)


def _curve(formula: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """An activation by its formula, also in place."""

    def written(input: Tensor, inplace: bool = False) -> Tensor:
        return input.copy_(formula(input.clone())) if inplace else formula(input)

    return written


def _copysign(input: Tensor, other: Any) -> Tensor:
    """By a sign that is constant: gradients do not pass through second forward derivatives of torch's."""
    other = torch.as_tensor(other, dtype=input.dtype, device=input.device)
    same = torch.signbit(input) == torch.signbit(other)
    return torch.where(same, input, -input)


def _rrelu(input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False) -> Tensor:
    if training:
        return F.rrelu(input, lower, upper, training, inplace)
    return F.leaky_relu(input, (lower + upper) / 2, inplace)


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    """As two products: torch's own operation has no batched form, so that vectorised passes take it sample by sample."""
    out = (torch.einsum("...i,oij->...oj", input1, weight) * input2.unsqueeze(-2)).sum(-1)
    return out + bias if bias is not None else out


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    axes = [i for i in range(v.dim()) if i != dim % v.dim() or dim == -1]  # -1: all of them
    return v * (g / v.square().sum(axes, keepdim=True).sqrt())


def _scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
    """Products, a place of the axis at a time, at which none meet: their own forward derivative is wrong."""
    if reduce != "prod":
        return torch.scatter_reduce(input, dim, index, src, reduce, include_self=include_self)
    out = input if include_self else input.scatter(dim, index, 1.0)
    src = src[tuple(slice(size) for size in index.shape)]
    for at, value in zip(index.split(1, dim), src.split(1, dim), strict=True):
        out = out.scatter(dim, at, out.gather(dim, at) * value)
    return out


def _masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """By looking up which entry of the source a place takes: its own forward derivative has the wrong shape."""
    input, mask = torch.broadcast_tensors(input, mask)
    if not source.numel():
        return torch.masked_scatter(input, mask, source)
    at = (mask.flatten().cumsum(0) - 1).clamp(min=0)
    return torch.where(mask, source.flatten()[at].reshape(mask.shape), input)


def _lstm(*args: Any) -> Any:
    """Without oneDNN, whose fused layer has no forward derivative (its public switch warns of graphics cards)."""
    was = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        return torch.lstm(*args)
    finally:
        torch._C._set_mkldnn_enabled(was)


WRITTEN: dict[Any, Any] = {
    torch.lstm: _lstm,
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.instance_norm: _instance_norm,
    F.prelu: _prelu,
    torch.prelu: _prelu,
    F.glu: _glu,
    F.bilinear: _bilinear,
    torch.bilinear: _bilinear,
    F.silu: _curve(lambda h: h * torch.sigmoid(h)),
    F.mish: _curve(lambda h: h * torch.tanh(F.softplus(h))),
    F.hardsigmoid: _curve(lambda h: F.relu6(h + 3) / 6),
    F.rrelu: _rrelu,
    torch.copysign: _copysign,
    Tensor.copysign: _copysign,
    torch._weight_norm: _weight_norm,
    torch.scatter_reduce: _scatter_reduce,
    Tensor.scatter_reduce: _scatter_reduce,
    torch.masked_scatter: _masked_scatter,
    Tensor.masked_scatter: _masked_scatter,
    Tensor.masked_scatter_: lambda input, *args, **kwargs: input.copy_(_masked_scatter(input.clone(), *args, **kwargs)),
    Tensor.scatter_reduce_: lambda input, *args, **kwargs: input.copy_(_scatter_reduce(input.clone(), *args, **kwargs)),
    **bags.WRITTEN,
    **lengths.WRITTEN,
    **matrices.WRITTEN,
    **products.WRITTEN,
    **spectra.WRITTEN,
}


@contextmanager
def smooth() -> Iterator[None]:
    """Within it, every operation has right derivatives of any order: no fused norms, no fused attention.

    Gradients are enabled, unless a network does this inside of another: where they are not, the network itself says so.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    within = any(isinstance(mode, _WrittenOut) for mode in _get_current_function_mode_stack())
    try:
        with nullcontext() if within else torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _WrittenOut():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
