"""Nonlinearities: functions applied entry by entry, kept as curves until something else looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lazyrich.lazy.field import Curve, Field, Mix
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
    "hardshrink", "square", "sqrt", "rsqrt", "reciprocal", "clamp", "clamp_min", "clamp_max", "threshold", "log1p", "expm1",
    "atan", "sinh", "cosh", "asinh", "erfc", "exp2", "threshold", "rrelu", "softsign",
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


@register("neg", says="K and Theta unchanged")
def negative(call: Call) -> Any:
    """The sign does not matter to covariances, but to curves."""
    value = call.args[0]
    return value if isinstance(value, Field) and value.mean is None else times(call, value, -1.0)


def through(call: Call, value: Any, function: Callable[[Tensor], Tensor], spec: Any) -> Any:
    """A function on top of a field, a curve or a mixture."""
    if isinstance(value, Mix):
        return Mix(tuple((share, through(call, part, function, spec)) for share, part in value.parts), value.layout)
    if isinstance(value, Curve):
        below = value.curve
        return Curve(value.base, _key(call, value), lambda x: function(below(x)), None)
    return Curve(value, _key(call, value), function, spec)


def times(call: Call, value: Any, factor: float) -> Any:
    """A random value times a number."""
    if isinstance(value, Mix):
        return Mix(tuple((share, times(call, part, factor)) for share, part in value.parts), value.layout)
    if isinstance(value, Curve):
        return Curve(value.base, _key(call, value), value.function, value.spec, value.scale * factor)
    return value.scaled(factor)


def plus(call: Call, value: Any, offset: float) -> Any:
    """A random value plus a number."""
    if offset == 0:
        return value
    return through(call, value, lambda x: x + offset, None)


def joined(call: Call, first: Any, second: Any, function: Callable[[Tensor, Tensor], Tensor]) -> Curve | None:
    """A function of two curves over one field, as one curve; None if they are not over one field."""
    one, two = _parts(first), _parts(second)
    if one is None or two is None or one[0] is not two[0]:
        return None
    f, g = one[1], two[1]
    return Curve(one[0], call.node.name, lambda x: function(f(x), g(x)), None)


def _parts(value: Any) -> tuple[Field, Callable[[Tensor], Tensor]] | None:
    if isinstance(value, Curve):
        return value.base, value.curve
    return (value, lambda x: x) if isinstance(value, Field) and value.gaussian else None


def _key(call: Call, value: Any) -> str:
    """A name that both passes give to the same curve; parts of a mixture get names of their own."""
    first = call.args[0]
    if isinstance(first, Mix):
        base = [part.base if isinstance(part, Curve) else part for _, part in first.parts]
        mine = value.base if isinstance(value, Curve) else value
        return f"{call.node.name}.{next(i for i, b in enumerate(base) if b is mine)}"
    return call.node.name
