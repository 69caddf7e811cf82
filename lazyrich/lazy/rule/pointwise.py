"""Nonlinearities: functions applied entry by entry, kept as curves until something else looks at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lazyrich.gaussian.crossing import crossings
from lazyrich.lazy.field import IDENTITY, SHIFT, SQUARE, Curve, Data, Field, Mix, Random, Source, Weight, number_of
from lazyrich.lazy.layout import Kind
from lazyrich.lazy.rule.parameter import changed
from lazyrich.lazy.rule.table import Call, register

# torch's name -> the activation's name and the names of its parameters in torch's order
NAMED: dict[str, tuple[str, tuple[str, ...]]] = {
    "relu": ("relu", ()),
    "erf": ("erf", ()),
    "sin": ("sin", ()),
    "cos": ("cos", ()),
    "exp": ("exp", ()),
    "abs": ("abs", ()),
    "sign": ("sign", ()),
    "tanh": ("tanh", ()),
    "sigmoid": ("sigmoid", ()),
    "special_expit": ("sigmoid", ()),
    "special_erf": ("erf", ()),
    "silu": ("silu", ()),
    "mish": ("mish", ()),
    "leaky_relu": ("leaky_relu", ("negative_slope",)),
    "gelu": ("gelu", ("approximate",)),
}
BENT = ("relu", "leaky_relu", "abs", "sign", "elu", "selu", "celu")  # at zero
OTHERS = (
    "softplus", "elu", "selu", "celu", "hardtanh", "relu6", "hardswish", "hardsigmoid", "log_sigmoid", "softshrink",
    "hardshrink", "square", "clamp", "clamp_min", "clamp_max", "threshold", "expm1", "atan", "sinh", "cosh", "asinh", "erfc",
    "exp2", "sqrt", "rsqrt", "log", "log1p", "reciprocal", "logical_not", "special_erfc", "special_expm1", "special_exp2",
    "special_log1p", "special_ndtr", "special_log_ndtr",
)  # fmt: skip


@register(*NAMED, *OTHERS, says="K -> E[phi(u) phi(v)]; Theta -> Theta E[phi'(u) phi'(v)]", moments=True)
def apply(call: Call) -> Any:
    """A function of one variable."""
    op = call.node.op
    rest, kwargs, target = call.args[1:], dict(call.kwargs), call.node.target
    if op in NAMED:
        name, parameters = NAMED[op]
        given = dict(zip(parameters, rest, strict=False)) | {k: v for k, v in kwargs.items() if k in parameters}
        spec: Any = (name, tuple(sorted(given.items())))
    else:
        spec = SQUARE if op == "square" else None
    return through(call, call.args[0], lambda x: target(x, *rest, **kwargs), spec, kinks=_kinks(op, (*rest, *kwargs.values())))


def _kinks(op: str, given: Sequence[Any]) -> tuple[float, ...]:
    """Where a function of torch's has kinks or jumps beside zero."""
    numbers = [float(v) for v in given if isinstance(v, (int, float))]
    if op in ("softshrink", "hardshrink"):
        size = numbers[0] if numbers else 0.5
        return (-size, size)
    fixed = dict.fromkeys(BENT, (0.0,)) | {"relu6": (0.0, 6.0), "hardswish": (-3.0, 3.0), "hardsigmoid": (-3.0, 3.0)}
    bounded = {"hardtanh": (numbers or [-1.0, 1.0])[:2], "threshold": numbers[:1]} | dict.fromkeys(
        ("clamp", "clamp_min", "clamp_max"), numbers
    )
    return fixed.get(op, tuple(bounded.get(op, ())))


@register("pow", says="as a nonlinearity", moments=True)
def power(call: Call) -> Any:
    """A power with a constant exponent."""
    exponent = call.args[1]
    if not isinstance(exponent, (int, float)):
        raise call.refuse("its exponent is no number", "use a constant exponent")
    return through(call, call.args[0], lambda x: x**exponent, SQUARE if exponent == 2 else None)


@register("gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "maximum", "minimum", "max", "min", "fmax", "fmin",
          "logaddexp", says="of functions of one field a function", moments=True)  # fmt: skip
def compare(call: Call) -> Any:
    """A function of two variables, of which one may be a number."""
    target = call.node.target.overloadpacket  # which finds the overload for two tensors
    if call.node.op in ("max", "min") and not (len(call.args) == 2 and isinstance(call.args[1], (*Random, Data, Weight))):
        raise call.refuse("the extreme of correlated variables has no known kernel", "use average pooling or strides")
    meet = call.node.op not in ("eq", "ne", "logical_and", "logical_or", "logaddexp")
    whole = joined(call, call.args[:2], lambda a, b: target(a, b).to(a.dtype), meet=meet)
    if whole is None:
        raise call.refuse(
            "it joins two branches that are not functions of one field", "take functions of one field, or numbers"
        )
    return whole


@register("prelu", says="as leaky_relu at its first slope; Theta + rate E[min(u, 0) min(v, 0)]", moments=True)
def prelu(call: Call) -> Any:
    """A leaky rectifier whose slope below zero is learnt, whether one slope serves all features or one each."""
    value, weight = call.args[0], call.args[1]
    if not isinstance(weight, Weight):
        raise call.refuse("its slope is computed from others", "only plain parameters have a known law")
    call.run.one_way(call, weight.name, "a slope")
    drawn = call.run.entry(weight)
    if drawn.variance:
        raise call.refuse(f"the slopes '{weight.name}' are drawn at random", "start all of them at one number")
    channels = value.layout.axes[min(1, len(value.layout.axes) - 1)]
    if weight.shape != (1,) and not all(a.kind is Kind.FEATURE for a in channels):
        raise call.refuse("its slopes belong to positions", "give it the features as channels (axis 1), or one slope for all")
    spec = ("leaky_relu", (("negative_slope", drawn.mean),))
    rectified = through(call, value, lambda x: torch.where(x > 0, x, drawn.mean * x), spec)
    if drawn.rate == 0:
        return rectified
    field = call.run.field(rectified, call)  # in every pass, so that all know its moments by one name
    if any(s.name == weight.name for s in field.touched):
        raise call.refuse(f"the slope '{weight.name}' acts twice on one branch", "untie the two, or put a linear layer between")
    ntk = field.ntk
    if call.run.tangent or call.run.alone:  # alone, its moments are kept for passes to come
        below = call.run.field(through(call, value, lambda x: x.clamp(max=0), None, ".below"), call)
        ntk = None if ntk is None else ntk + below.nngp * drawn.rate
    return replace(field, ntk=ntk, sources=field.sources | {Source(weight.name)}, origin=None)


@register("neg", says="covariances unchanged")
def negative(call: Call) -> Any:
    """The sign does not matter to covariances, but to curves."""
    if isinstance(call.args[0], Weight):
        return changed(call)
    return times(call, call.args[0], -1.0)


def through(
    call: Call,
    value: Any,
    function: Callable[[Tensor], Tensor],
    spec: Any = None,
    part: str = "",
    kinks: tuple[float, ...] = (),
) -> Any:
    """A function on top of a field, a curve or a mixture: what a rule for a nonlinearity returns.

    Args:
        call: of the rule.
        value: that the function is applied to, entry by entry.
        function: tensor -> tensor, in float64 and differentiable.
        spec: (name, parameters) of an activation of ``lazyrich.gaussian`` that it is, for its closed form.
        part: tells several functions at one node apart.
        kinks: where it has kinks or jumps beside zero.
    """
    key = call.node.name + part  # both passes give the same curve the same name
    if isinstance(value, Weight):
        raise call.computed()
    if isinstance(value, Mix):
        return _each(value, lambda part, name: through(call, part, function, spec, name, kinks))
    if isinstance(value, Curve) and value.spec == IDENTITY:
        return Curve(value.base, key, function, spec, inner=value.scale, kinks=kinks)
    if isinstance(value, Curve):
        below = value.curve
        return Curve(value.base, key, lambda x: function(below(x)), None, kinks=(*value.breaks, *_reached(below, kinks)))
    return Curve(value, key, function, spec, kinks=kinks)


def _reached(below: Callable[[Tensor], Tensor], kinks: tuple[float, ...]) -> tuple[float, ...]:
    """Where a function reaches these values: of a x + b exactly."""
    b, a_b, *others = below(torch.tensor([0.0, 1.0, -7.0, 0.3, 11.0], dtype=torch.float64)).tolist()
    a = a_b - b
    straight = all(abs(a * x + b - y) <= 1e-12 * (1 + abs(y)) for x, y in zip((-7.0, 0.3, 11.0), others, strict=True))
    if straight:
        return tuple((kink - b) / a for kink in kinks) if a else ()
    return tuple(place for kink in kinks for place in crossings(below, lambda x, kink=kink: torch.full_like(x, kink)))


def times(call: Call, value: Any, factor: float, part: str = "") -> Any:
    """A random value times a number."""
    key = call.node.name + part
    if isinstance(value, Mix):
        return _each(value, lambda part, name: times(call, part, factor, name))
    if isinstance(value, Curve):
        return replace(value, key=key, scale=value.scale * factor)
    return Curve(value, key, _same, IDENTITY, factor) if value.gaussian else value.scaled(factor)


def _each(mix: Mix, change: Callable[[Any, str], Any]) -> Mix:
    return Mix(tuple((share, change(part, f".{i}")) for i, (share, part) in enumerate(mix.parts)), mix.layout)


def _same(x: Tensor) -> Tensor:
    return x


def plus(call: Call, value: Any, offset: float) -> Any:
    """A random value plus a number."""
    if offset == 0:
        return value
    return through(call, value, lambda x: x + offset, (SHIFT, (("by", offset),)))


def joined(call: Call, values: Sequence[Any], function: Callable[..., Tensor], part: str = "", meet: bool = False) -> Any:
    """A function of numbers and curves over one field, as one curve (of mixtures part by part); None if there is no such field.

    ``meet``: of two, it has a kink or a jump where they meet.
    """
    mixes = [v for v in values if isinstance(v, Mix)]
    if mixes:
        if any(_shares(v) != _shares(mixes[0]) if isinstance(v, Mix) else number_of(v) is None for v in values):
            return None
        made = []
        for i in range(len(mixes[0].parts)):
            at = [v.parts[i][1] if isinstance(v, Mix) else v for v in values]
            made.append(joined(call, at, function, f"{part}.{i}", meet))
        return None if None in made else Mix(tuple(zip(_shares(mixes[0]), made, strict=True)), mixes[0].layout)
    parts = [_parts(v) for v in values]
    fields = [p[0] for p in parts if p is not None and p[0] is not None]
    if None in parts or not fields or any(f is not fields[0] for f in fields):
        return None
    curves = [p[1] for p in parts if p is not None]
    breaks = tuple(kink for v in values if isinstance(v, Curve) for kink in v.breaks)
    breaks += crossings(*curves) if meet else ()
    return Curve(fields[0], call.node.name + part, lambda x: function(*(f(x) for f in curves)), None, kinks=breaks)


def _shares(mix: Mix) -> list[float]:
    return [share for share, _ in mix.parts]


def _parts(value: Any) -> tuple[Field | None, Callable[[Tensor], Any]] | None:
    """The field that a value is a function of (none for a number), and the function."""
    if isinstance(value, Curve):
        return value.base, value.curve
    if isinstance(value, Field):
        return (value, _same) if value.gaussian else None
    number = number_of(value)
    return None if number is None else (None, lambda x: torch.full_like(x, number))
