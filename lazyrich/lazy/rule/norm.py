"""Norms over features: in the limit they divide by a number that does not fluctuate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lazyrich.lazy.field import Data, Field, Source, Weight
from lazyrich.lazy.layout import Kind, size_of
from lazyrich.lazy.rule import output
from lazyrich.lazy.rule.sums import gained, plus
from lazyrich.lazy.rule.table import Call, register


@register("layer_norm", "native_layer_norm", moments=True,
          says="K -> (K - m m') / sqrt(v v'), v = q - m^2 + eps; Theta -> Theta / sqrt(v v')")  # fmt: skip
def layer_norm(call: Call) -> Any:
    """Over the features, at every position by itself."""
    field = call.field().merged()
    normalised = len(call.args[1])
    if any(a.kind is not Kind.FEATURE for axis in field.layout.axes[-normalised:] for a in axis):
        raise call.refuse("it normalises over positions or samples as well", "normalise over the features alone")
    _refuse_partial(call, field, len(field.layout.axes) - normalised)
    output.refuse_few(call, field)
    eps = float(call.get(4, "eps", 1e-5))
    normal = _normalised(call, field, eps, centre=True, over=())
    return _affine(call, normal, call.get(2, "weight"), call.get(3, "bias"))


@register("rms_norm", "_fused_rms_norm", moments=True, says="K -> K / sqrt(q q'), Theta alike")
def rms_norm(call: Call) -> Any:
    """Over the features, without centring."""
    field = call.field().merged()
    eps = call.get(3, "eps")
    eps = torch.finfo(field.nngp.dtype).eps if eps is None else float(eps)
    _refuse_partial(call, field, len(field.layout.axes) - len(call.args[1]))
    output.refuse_few(call, field)
    normal = _normalised(call, field, eps, centre=False, over=())
    return _affine(call, normal, call.get(2, "weight"), None)


@register("group_norm", "native_group_norm", moments=True,
          says="as layer_norm, with m and v averaged over positions; many channels a group")  # fmt: skip
def group_norm(call: Call) -> Any:
    """Over the channels of a group and all positions."""
    field, groups = call.field().merged(), int(call.args[1])
    channels = size_of(field.layout.axes[1])
    output.refuse_few(call, field, groups)
    if groups > 1 and field.mixed:
        raise call.refuse("its groups hold stretches of joined branches with other laws", "normalise before joining")
    if channels == groups:
        raise call.refuse(
            "with one channel a group it divides by the variance of one channel over few positions, which fluctuates",
            "use fewer groups than channels, or a layer norm",
        )
    eps = float(call.get(4, "eps", 1e-5))
    normal = _normalised(call, field, eps, centre=True, over=tuple(range(1, 1 + len(field.order))))
    return _affine(call, normal, call.get(2, "weight"), call.get(3, "bias"))


@register("batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "instance_norm", says="refused")
def batch_norm(call: Call) -> Field:
    """Statistics over samples couple the whole batch; of a parameter they standardise a weight."""
    if isinstance(call.args[0], Weight):
        raise call.computed()
    if call.node.op == "instance_norm":
        raise call.refuse(
            "it divides by statistics over the positions of one channel, which fluctuate, so no kernel in closed form is known",
            "use group_norm of few groups, layer_norm or rms_norm",
        )
    if call.node.op == "batch_norm" and call.get(5, "training") is False:
        why = "in evaluation mode it divides by running statistics, numbers of single features that have no law at other widths"
    else:
        why = "it normalises by statistics over samples, so there is no kernel between two samples alone"
    raise call.refuse(why, "use layer_norm, group_norm or rms_norm")


def _refuse_partial(call: Call, field: Field, first: int) -> None:
    if any(a.kind is Kind.FEATURE for axis in field.layout.axes[:first] for a in axis):
        raise call.refuse("it normalises over a part of the features (one head)", "normalise over all features")


def _normalised(call: Call, field: Field, eps: float, centre: bool, over: tuple[int, ...]) -> Field:
    field, (q1, q2), (m1, m2) = call.run.moments(call.node.name, field)
    first, second = _statistics(q1, m1, field, over, eps, centre), _statistics(q2, m2, field, over, eps, centre)
    scale = first[1] * second[1]
    nngp = field.nngp
    if centre and (bool((m1 != 0).any()) or bool((m2 != 0).any())):
        nngp = nngp - first[0] * m2 - m1 * second[0] + first[0] * second[0]
    ntk = None if field.ntk is None else field.ntk * scale
    mean = field.mean
    if mean is not None:
        at = mean.shape[:1] + first[1].shape[1 : mean.dim()]
        centred, scales = (t.reshape(at) for t in first)
        mean = (mean - centred) * scales if centre else mean * scales
    return replace(field, nngp=nngp * scale, ntk=ntk, mean=mean, origin=None)


def _statistics(q: Tensor, m: Tensor, field: Field, over: tuple[int, ...], eps: float, centre: bool) -> tuple[Tensor, Tensor]:
    """The mean that is taken off, and one over the standard deviation."""
    if over:  # positions are averaged; axes of size one (the other batch, the other position) do not mind
        axes = tuple(range(field.lead, q.dim()))
        q, m = q.mean(axes, keepdim=True), m.mean(axes, keepdim=True)
    variance = q - m * m if centre else q
    return m, (variance + eps).rsqrt()


def _affine(call: Call, field: Field, weight: Weight | Data | None, bias: Weight | Data | None) -> Any:
    if isinstance(weight, Weight):
        field = gained(call, field, weight)
    elif weight is not None:
        field = field.scaled(_number(call, weight))
    if isinstance(bias, Weight):
        return _biased(call, field, bias)
    return field if bias is None else plus(_of_bias(call), field, _number(call, bias))


def _number(call: Call, data: Data) -> float:
    """Of constants that a norm multiplies or adds: the one that all features share."""
    first = data.tensors[0].flatten()
    if not data.constant or not bool((first == first[0]).all()):
        raise call.refuse(
            "its weight or bias is a fixed tensor that holds another number for each feature",
            "use parameters, or one number for all",
        )
    return float(first[0])


def _of_bias(call: Call) -> Call:
    """The same call under a name of its own: under the node's the norm itself keeps its moments."""
    return replace(call, node=replace(call.node, name=f"{call.node.name}.bias"))


def _biased(call: Call, field: Field, bias: Weight) -> Any:
    """A bias adds its variance, and its mean as any number is added: what follows sees shifted features."""
    call.run.one_way(call, bias.name, "a bias")
    drawn = call.run.entry(bias)
    ntk = None if field.ntk is None else field.ntk + drawn.rate
    sources, parted = field.sources | {Source(bias.name)}, bool(field.own and (drawn.variance or not field.gaussian))
    field = replace(
        field, nngp=field.nngp + drawn.variance, ntk=ntk, origin=None, sources=sources,
        uneven=field.uneven or (parted and bool(drawn.mean or drawn.variance)),
    )  # fmt: skip
    return plus(_of_bias(call), field, drawn.mean)
