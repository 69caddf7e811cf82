"""Features turned among one another by fixed numbers, as rotary positions (Su et al. 2021, arXiv:2104.09864) do it.

Such features are exchangeable no more, so nothing can follow but bookkeeping of axes, further fixed numbers, norms of single heads,
and a product over all of them with a field of other weights, which is zero up to its fluctuations whatever the fixed numbers are.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

from lazyrich.errors import KernelError
from lazyrich.lazy.field import IDENTITY, Curve, Data, Field, Mix, Random, Source, Turned, Weight, number_of
from lazyrich.lazy.layout import Atom, Kind, Layout, size_of
from lazyrich.lazy.rule.table import Call, Function, register

CUT = ("slice", "narrow", "select", "chunk", "split", "split_with_sizes", "unbind", "tensor_split")
SCALE = ("mul", "div")
NORM = ("rms_norm", "layer_norm")  # of one head: odd in its features, so their mean stays zero
COMPLEX = ("view_as_complex", "view_as_real")
MOVE = (
    "transpose", "swapaxes", "permute", "t", "mT", "numpy_T", "movedim", "view", "reshape", "flatten", "unflatten", "squeeze",
    "unsqueeze", "_unsafe_view", "contiguous", "clone", "to", "_to_copy", "alias", "type_as", "float", "double", "neg", "expand",
    "repeat_interleave",
)  # fmt: skip
JOIN = ("add", "sub", "cat", "stack")
LOGITS = ("matmul", "bmm", "einsum", "scaled_dot_product_attention")


def ruled(call: Call, function: Function) -> Any:
    """What a rule makes of its inputs; where it refuses fixed numbers on single features, what is left of the features' law."""
    if call.run.turned:  # asked of every operation of every tile, so it must cost nothing where there is none
        given = next((_bare(v) for v in _members(call) if isinstance(_bare(v), Turned)), None)
        if given is not None:
            return _followed(call, function, given)
    try:
        return function(call)
    except KernelError as refusal:
        turned = _started(call, refusal)
        if turned is None:
            raise
        refusal.__traceback__ = None  # its frames hold this tile's arrays, and what is returned holds it
        return turned


@register("view_as_complex", "view_as_real", says="pairs of features: only towards logits of independent queries and keys")
def pairs_of(call: Call) -> Any:
    """Complex features have no kernel of their own."""
    raise call.refuse("it makes complex numbers of features", "write the turn in real numbers, or turn queries and keys alone")


def _followed(call: Call, function: Function, given: Turned) -> Any:
    """What may follow on turned features, else the refusal that they carry."""
    op, (first, *rest) = call.node.op, call.args
    if op in MOVE or (op in CUT and not _cuts_features(call, given)):
        return function(call)
    if op in (*CUT, *COMPLEX):
        return _relaid(call, first, given.reason)
    if op in JOIN:
        return _joined(call, given.reason)
    if op in NORM:
        return _normed(call, first, given.reason)
    if op in SCALE:
        value, other = (first, rest[0]) if isinstance(_bare(first), Turned) or op == "div" else (rest[0], first)
        if isinstance(_bare(value), Turned) and number_of(other) is not None:
            return function(call)
        if isinstance(_bare(value), Turned) and isinstance(other, Data):
            return _scaled(call, value, other, given.reason)
    if op in LOGITS and _are_factors(call):
        return function(call)
    raise given.reason


def _started(call: Call, reason: KernelError) -> Any:
    """A branch of mean zero on which fixed numbers, a selection or a norm act feature by feature; None for anything else."""
    op, random = call.node.op, [v for v in _members(call) if isinstance(v, Random)]
    if len(random) != 1 or not _centred(random[0]):
        return None
    (value,) = random
    if op in (*CUT, *COMPLEX) and (op in COMPLEX or _cuts_features(call, value)):
        return _relaid(call, value, reason)
    if op in NORM:
        return _normed(call, value, reason)
    other = call.args[0] if op == "mul" and call.args[0] is not value else call.args[1] if len(call.args) > 1 else None
    if op in SCALE and isinstance(other, Data) and other is not value:
        return _scaled(call, value, other, reason)
    return None


def _are_factors(call: Call) -> bool:
    """Whether what is turned is multiplied with another branch over its features, and not weighed by one."""
    two = call.args[1] if call.node.op == "einsum" else call.args[:2]
    others = [*call.args[2:], *call.kwargs.values()]
    return all(isinstance(v, Random) for v in two) and not any(isinstance(_bare(v), Turned) for v in others)


def _members(call: Call) -> list[Any]:
    """The arguments, those of lists one by one."""
    return [one for v in (*call.args, *call.kwargs.values()) for one in (v if isinstance(v, (list, tuple)) else (v,))]


def _bare(value: Any) -> Any:
    return value.base if isinstance(value, Curve) and value.spec == IDENTITY else value


def _centred(value: Any) -> bool:
    if isinstance(value, Mix):
        return all(_centred(part) for _, part in value.parts)
    bare = _bare(value)
    return isinstance(bare, Field) and bare.centred


def _plain(call: Call, value: Any) -> tuple[Field, float]:
    """A branch and the number that multiplies its features, root mean square."""
    if isinstance(value, Mix):
        parts = [(share, *_plain(call, part)) for share, part in value.parts]
        field = call.run.field(Mix(tuple((share, part) for share, part, _ in parts), value.layout), call)
        return field, math.sqrt(sum(share * number**2 for share, _, number in parts))
    number = abs(value.scale * value.inner) if isinstance(value, Curve) else 1.0
    field = call.run.field(_bare(value), call)
    return field, number * (field.size if isinstance(field, Turned) else 1.0)


def _without_law(call: Call, field: Field, layout: Layout, reason: KernelError, size: float) -> Turned:
    call.run.turned = True
    kept = {f.name: getattr(field, f.name) for f in fields(Field)} | {"layout": layout, "origin": None}
    return Turned(**kept, size=size, reason=reason)


def _scaled(call: Call, value: Any, numbers: Data, reason: KernelError) -> Turned:
    """Times fixed numbers; some that grow with the size of a head count as its logits' scale does."""
    field, size = _plain(call, value)
    factors = [1 / t if call.node.op == "div" else t for t in numbers.tensors]
    root = math.sqrt(max(float(t.abs().square().mean()) for t in factors))
    return _without_law(call, field, field.layout, reason, size * root)


def _normed(call: Call, value: Any, reason: KernelError) -> Turned:
    """Over one head, with gains, and with a bias of mean zero."""
    field, size = _plain(call, value)[0], 1.0
    gain, bias = call.get(2, "weight"), call.get(3, "bias") if call.node.op == "layer_norm" else None
    for parameter in (gain, bias):
        if isinstance(parameter, Data):
            raise reason
        if not isinstance(parameter, Weight):
            continue
        drawn = call.run.entry(parameter)
        if parameter is bias and drawn.mean:
            raise reason
        if parameter is gain:
            size = math.sqrt(drawn.mean**2 + drawn.variance)
        if drawn.variance:
            field = replace(field, sources=field.sources | {Source(parameter.name)})
    return _without_law(call, field, field.layout, reason, size)


def _relaid(call: Call, value: Any, reason: KernelError) -> Any:
    """The branch, or every piece that is cut from it, under the layout that was traced."""
    field, size = _plain(call, value)
    op, shapes = call.node.op, call.node.shapes or (call.node.shape or (),)
    if op == "view_as_complex":
        layouts = [Layout(field.layout.axes[:-1])]
    elif op == "view_as_real":
        layouts = [Layout((*field.layout.axes, (Atom(Kind.FEATURE, 2),)))]
    else:
        at, keeps = field.layout.axis(_dim(call)), op not in ("select", "unbind")
        layouts = [field.layout.replaced(at, *(((Atom(Kind.FEATURE, shape[at]),),) if keeps else ())) for shape in shapes]
    found = [_without_law(call, field, layout, reason, size) for layout in layouts]
    return found if call.node.shapes else found[0]


def _dim(call: Call) -> int:
    """The axis that is cut."""
    return call.get(2 if "split" in call.node.op or call.node.op == "chunk" else 1, "dim", 0)


def _cuts_features(call: Call, value: Any) -> bool:
    """Whether the axis that is cut holds features, and no copies of them."""
    axis = value.layout.axes[value.layout.axis(_dim(call))]
    return bool(axis) and all(a.kind is Kind.FEATURE for a in axis)


def _joined(call: Call, reason: KernelError) -> Turned:
    """Sums and joined stretches of features, of branches alone."""
    op = call.node.op
    parts = list(call.args[:2] if op in ("add", "sub") else call.args[0])
    if not all(isinstance(v, Random) and _centred(v) for v in parts):
        raise reason
    bare, sizes = zip(*(_plain(call, v) for v in parts), strict=True)
    layout, dim = bare[0].layout, call.get(1, "dim", 0)
    if op == "stack":
        at = dim % (len(layout.axes) + 1)
        layout = Layout((*layout.axes[:at], (Atom(Kind.FEATURE, len(parts)),), *layout.axes[at:]))
        shares = [1 / len(parts)] * len(parts)
    elif op == "cat":
        at = layout.axis(dim)
        if not all(field.layout.axes[at] and all(a.kind is Kind.FEATURE for a in field.layout.axes[at]) for field in bare):
            raise reason
        counts = [size_of(field.layout.axes[at]) for field in bare]
        layout, shares = layout.replaced(at, (Atom(Kind.FEATURE, sum(counts)),)), [n / sum(counts) for n in counts]
    else:
        shares = [1.0, float(call.kwargs.get("alpha", 1)) ** 2]
    size = math.sqrt(sum(share * number**2 for share, number in zip(shares, sizes, strict=True)))
    joined = replace(bare[0], sources=frozenset().union(*(field.sources for field in bare)))
    return _without_law(call, joined, layout, reason, size)
