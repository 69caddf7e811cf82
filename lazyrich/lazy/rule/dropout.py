"""Dropout: nothing in eval mode; in training it adds variance to every entry by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from lazyrich.lazy.rule.table import Call, register


@register("dropout", "alpha_dropout", "feature_dropout", says="eval: passes through; training: variances divided by 1 - p")
def dropout(call: Call) -> Any:
    """Masks are drawn afresh for each sample, so only a sample's covariance with itself at one position changes."""
    p, training = float(call.args[1]), bool(call.args[2])
    if not training or p == 0:
        return call.args[0]
    if call.node.op not in ("dropout", "native_dropout"):
        raise call.refuse("only plain dropout has a rule in training", "put the network in eval mode, model.eval()")
    field, scale = call.field(), 1 / (1 - p)
    if field.full:
        raise call.refuse("dropout in training before a mean over positions has no rule", "put the network in eval mode")
    if call.run.alone:
        return field.mapped(lambda k: k * scale, lambda m: m, gaussian=False)
    if not call.run.mirrored:
        return replace(field, gaussian=False, origin=None)
    return field.mapped(lambda k: _own(k, scale), None, gaussian=False)


@register("native_dropout", says="as dropout")
def between_layers(call: Call) -> list[Any]:
    """What recurrent layers of several layers have between them, which returns its mask too."""
    return [dropout(call), None]


def _own(k: Tensor, scale: float) -> Tensor:
    """Only samples with themselves, in the arrays of a batch with itself."""
    k = k.clone()
    k.diagonal(dim1=0, dim2=1).mul_(scale)
    return k
