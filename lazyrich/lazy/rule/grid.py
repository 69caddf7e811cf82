"""Every feature beside several numbers, along an axis of its own: radial functions around centres, features of frequencies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lazyrich.lazy.field import Curve, Data, Field, Mix
from lazyrich.lazy.layout import Atom, Kind
from lazyrich.lazy.rule.pointwise import through, times
from lazyrich.lazy.rule.table import Call


def shifted(call: Call, value: Any, data: Any, alpha: float) -> Mix | None:
    """``h[..., None] + alpha * centres``; None where it is no such sum."""
    return _each(value, data, lambda part, c, name: through(call, part, lambda x: x + alpha * c, None, name))


def stretched(call: Call, value: Any, data: Any) -> Mix | None:
    """``h[..., None] * frequencies``; None where it is no such product."""
    return _each(value, data, lambda part, c, name: times(call, part, c, name))


def _each(value: Any, data: Any, function: Callable[[Any, float, str], Any]) -> Mix | None:
    """As many features for each as there are numbers: stretches of them are functions of one field."""
    base = value.base if isinstance(value, Curve) else value
    if not isinstance(data, Data) or not data.constant or not isinstance(base, Field) or not base.gaussian:
        return None
    shape, axes = data.tensors[0].shape, value.layout.axes
    long = [i - len(shape) for i, size in enumerate(shape) if size > 1]
    if len(shape) > len(axes) or len(long) != 1 or axes[long[0]]:
        return None
    layout = value.layout.replaced(long[0], (Atom(Kind.FEATURE, int(shape[long[0]])),))
    wide = replace(value, base=base.laid(layout)) if isinstance(value, Curve) else base.laid(layout)
    numbers = data.tensors[0].flatten().tolist()
    return Mix(tuple((1 / len(numbers), function(wide, c, f".{i}")) for i, c in enumerate(numbers)), layout)
