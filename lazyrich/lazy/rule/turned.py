"""Features turned among one another by fixed numbers, as rotary positions (Su et al. 2021, arXiv:2104.09864) do it.

Such features are exchangeable no more, so nothing can follow but bookkeeping of axes, further fixed numbers, and a product over all
of them with a field of other weights, which is zero up to its fluctuations whatever the fixed numbers are.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from lazyrich.errors import KernelError
from lazyrich.lazy.field import IDENTITY, Curve, Data, Field, Mix, Random, Turned
from lazyrich.lazy.layout import Atom, Kind, Layout, size_of
from lazyrich.lazy.rule.table import Call, Function, register

CUT = ("slice", "narrow", "select", "chunk", "split", "split_with_sizes", "unbind", "tensor_split")
SCALE = ("mul", "div")
NORM = ("rms_norm", "layer_norm")  # of one head: odd in its features
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
    op, given = call.node.op, [value for value in _members(call) if isinstance(_bare(value), Turned)]
    if not given:
        try:
            return function(call)
        except KernelError as refusal:
            value = _acted_on(call)
            if value is None:
                raise
            return _relaid(call, value, refusal)
    reason = _bare(given[0]).reason
    if op in JOIN:
        return _joined(call, reason)
    if op in (*SCALE, *NORM) and _acted_on(call) is not None:
        return given[0]
    if op in COMPLEX or (op in CUT and _cut_features(call, _bare(given[0]))):
        return _relaid(call, given[0], reason)
    factors = [v for v in _members(call)[:2] if isinstance(v, Random)]
    if op in (*MOVE, *SCALE, *CUT) or (
        op in LOGITS and len(factors) == 2 and not any(v is g for v in _members(call)[2:] for g in given)
    ):
        return function(call)
    raise reason


@register("view_as_complex", "view_as_real", says="pairs of features: only towards logits of independent queries and keys")
def pairs_of(call: Call) -> Any:
    """Complex features have no kernel of their own."""
    raise call.refuse("it makes complex numbers of features", "write the turn in real numbers, or turn queries and keys alone")


def _members(call: Call) -> list[Any]:
    """The arguments, those of lists one by one."""
    return [one for v in (*call.args, *call.kwargs.values()) for one in (v if isinstance(v, (list, tuple)) else (v,))]


def _bare(value: Any) -> Any:
    return value.base if isinstance(value, Curve) and value.spec == IDENTITY else value


def _acted_on(call: Call) -> Any:
    """The one branch of mean zero that fixed numbers, or a selection, act on; None where it is something else."""
    random = [v for v in _members(call) if isinstance(v, Random)]
    if call.node.op not in (*CUT, *SCALE, *NORM, *COMPLEX) or len(random) != 1:
        return None
    (value,) = random
    numbers = call.node.op not in SCALE or isinstance(call.args[1 - call.args.index(value)], Data)
    return value if numbers and _centred(value) else None


def _centred(value: Any) -> bool:
    if isinstance(value, Mix):
        return all(_centred(part) for _, part in value.parts)
    bare = _bare(value)
    return isinstance(bare, Field) and bare.centred


def _relaid(call: Call, value: Any, reason: KernelError) -> Any:
    """The branch, or every piece that is cut from it, under the layout that was traced."""
    bare = _bare(value)
    field = call.run.field(bare, call)
    op = call.node.op
    if op in (*SCALE, *NORM):
        layouts = [field.layout]
    elif op == "view_as_complex":
        layouts = [Layout(field.layout.axes[:-1])]
    elif op == "view_as_real":
        layouts = [Layout((*field.layout.axes, (Atom(Kind.FEATURE, 2),)))]
    else:
        at = field.layout.axis(_dim(call))
        if not _cut_features(call, field):
            raise reason
        keeps = op not in ("select", "unbind")
        shapes = call.node.shapes or (call.node.shape or (),)
        layouts = [field.layout.replaced(at, *(((Atom(Kind.FEATURE, shape[at]),),) if keeps else ())) for shape in shapes]
    found = [_wrapped(value, _without_law(field, layout, reason)) for layout in layouts]
    return found if call.node.shapes else found[0]


def _dim(call: Call) -> int:
    """The axis that is cut."""
    return call.get(2 if "split" in call.node.op or call.node.op == "chunk" else 1, "dim", 0)


def _cut_features(call: Call, field: Field) -> bool:
    """Whether it holds features, and no copies of them."""
    axis = field.layout.axes[field.layout.axis(_dim(call))]
    return bool(axis) and all(a.kind is Kind.FEATURE for a in axis)


def _without_law(field: Field, layout: Layout, reason: KernelError) -> Turned:
    kept = {f.name: getattr(field, f.name) for f in fields(Field)} | {"layout": layout, "origin": None}
    return Turned(**kept, reason=reason)


def _wrapped(value: Any, field: Turned) -> Any:
    """Under the number that multiplied the branch."""
    return replace(value, base=field) if isinstance(value, Curve) else field


def _joined(call: Call, reason: KernelError) -> Any:
    """Sums and joined stretches of features."""
    parts = [v for v in _members(call) if isinstance(v, Random)]
    if not all(_centred(v) for v in parts) or any(isinstance(v, Data) for v in _members(call)):
        raise reason
    bare = [call.run.field(_bare(v), call) for v in parts]
    layout, dim = bare[0].layout, call.get(1, "dim", 0)
    if call.node.op == "stack":
        at = dim % (len(layout.axes) + 1)
        layout = Layout((*layout.axes[:at], (Atom(Kind.FEATURE, len(parts)),), *layout.axes[at:]))
    elif call.node.op == "cat":
        at = layout.axis(dim)
        if any(a.kind is not Kind.FEATURE for a in layout.axes[at]):
            raise reason
        layout = layout.replaced(at, (Atom(Kind.FEATURE, sum(size_of(f.layout.axes[at]) for f in bare)),))
    joined = replace(bare[0], sources=frozenset().union(*(f.sources for f in bare)))
    return _wrapped(parts[0], _without_law(joined, layout, reason))
