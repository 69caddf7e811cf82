"""Nonlinearities: functions applied entry by entry, kept as curves until something else looks at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from lazyrich.lazy.field import IDENTITY, Curve, Field, Mix
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
    "silu": ("silu", ()),
    "mish": ("mish", ()),
    "leaky_relu": ("leaky_relu", ("negative_slope",)),
    "gelu": ("gelu", ("approximate",)),
}
OTHERS = (
    "softplus", "elu", "selu", "celu", "hardtanh", "relu6", "hardswish", "hardsigmoid", "log_sigmoid", "softshrink",
    "hardshrink", "square", "clamp", "clamp_min", "clamp_max", "threshold", "expm1", "atan", "sinh", "cosh", "asinh", "erfc",
    "exp2",
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
        spec = None
    return through(call, call.args[0], lambda x: target(x, *rest, **kwargs), spec)


@register("pow", says="as a nonlinearity", moments=True)
def power(call: Call) -> Any:
    """A power with a constant exponent."""
    exponent = call.args[1]
    if not isinstance(exponent, (int, float)):
        raise call.refuse("its exponent is no number", "use a constant exponent")
    return through(call, call.args[0], lambda x: x**exponent, None)


@register("neg", says="covariances unchanged")
def negative(call: Call) -> Any:
    """The sign does not matter to covariances, but to curves."""
    return times(call, call.args[0], -1.0)


def through(call: Call, value: Any, function: Callable[[Tensor], Tensor], spec: Any, part: str = "") -> Any:
    """A function on top of a field, a curve or a mixture."""
    key = call.node.name + part  # both passes give the same curve the same name
    if isinstance(value, Mix):
        return _each(value, lambda part, name: through(call, part, function, spec, name))
    if isinstance(value, Curve) and value.spec == IDENTITY:
        return Curve(value.base, key, function, spec, inner=value.scale)
    if isinstance(value, Curve):
        below = value.curve
        return Curve(value.base, key, lambda x: function(below(x)), None)
    return Curve(value, key, function, spec)


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
    return through(call, value, lambda x: x + offset, None)


def joined(call: Call, first: Any, second: Any, function: Callable[[Tensor, Tensor], Tensor], part: str = "") -> Any:
    """A function of two curves over one field, as one curve (of two mixtures part by part); None if there is no such field."""
    if isinstance(first, Mix) and isinstance(second, Mix) and _shares(first) == _shares(second):
        both = zip(first.parts, second.parts, strict=True)
        parts = [joined(call, a, b, function, f".{i}") for i, ((_, a), (_, b)) in enumerate(both)]
        return None if None in parts else Mix(tuple(zip(_shares(first), parts, strict=True)), first.layout)
    one, two = _parts(first), _parts(second)
    if one is None or two is None or one[0] is not two[0]:
        return None
    f, g = one[1], two[1]
    return Curve(one[0], call.node.name + part, lambda x: function(f(x), g(x)), None)


def _shares(mix: Mix) -> list[float]:
    return [share for share, _ in mix.parts]


def _parts(value: Any) -> tuple[Field, Callable[[Tensor], Tensor]] | None:
    if isinstance(value, Curve):
        return value.base, value.curve
    return (value, _same) if isinstance(value, Field) and value.gaussian else None
