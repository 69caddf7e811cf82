"""One pass through a graph: fields of two batches against each other, or of one batch against itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp
from torch.utils._pytree import tree_map_only

from lazyrich.errors import KernelError, LazyrichError
from lazyrich.family import Role
from lazyrich.gaussian import Dual
from lazyrich.gaussian.dual import product
from lazyrich.graph import Graph, Node, Ref
from lazyrich.graph.node import Batch
from lazyrich.lazy import few, jump
from lazyrich.lazy.combination import CASTS
from lazyrich.lazy.field import (
    IDENTITY,
    Curve,
    Data,
    Field,
    Mix,
    Overlap,
    Random,
    Source,
    Weight,
    dual_of,
    exact,
    with_diagonal,
)  # fmt: skip
from lazyrich.lazy.layout import Axis, Kind, Layout, plain
from lazyrich.lazy.returned import returned
from lazyrich.lazy.rule import output
from lazyrich.lazy.rule.product import rescaled
from lazyrich.lazy.rule.table import Call, Need, checked, rule_of
from lazyrich.lazy.rule.turned import ruled
from lazyrich.lazy.tile import gram
from lazyrich.lazy.weights import Drawn, Weights

INPUT = Source("the input")
Moments = dict[str, tuple[Tensor, ...]]


@dataclass
class Run:
    """The state of a pass.

    Attributes:
        graph: to go through.
        weights: laws and rates.
        needs: which position covariances of each node somebody reads.
        readouts: tensors of weights that no later weight sums over.
        inputs: one batch (with itself, sample by sample) or two (all pairs).
        tangent: whether tangent kernels are asked for.
        first, second: at every node that needs them variances and means of both batches, filled in a pass of one batch, and
            behind them what the nonlinearity there prepared of the variances.
        mirrored: the two batches are the same samples, so the arrays' diagonal is known exactly.
        duals: evaluated activations by node, kept between passes.
        used: what every tensor was taken for: its law and rate, and the fan-in that divides both.
        ways: how every tensor was used, which must be one way.
        watch: told every node with its value.
    """

    graph: Graph
    weights: Weights
    needs: Mapping[str, Need]
    readouts: frozenset[str]
    inputs: tuple[Tensor, ...]
    tangent: bool
    first: Moments = field(default_factory=dict)
    second: Moments = field(default_factory=dict)
    mirrored: bool = False
    duals: dict[str, Dual] = field(default_factory=dict)
    used: dict[str, tuple[Drawn, float]] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    watch: Callable[[Node, Any], None] | None = None
    turned: bool = False  # whether any features have been turned so far
    averaged: bool = False  # the mean of tangent kernels over initialisations is asked for, whatever training makes of them
    random: KernelError | None = None  # why the tangent kernel itself is random at every width
    _evaluated: dict[int, tuple[Any, Field]] = field(default_factory=dict)
    _read: dict[tuple[int, int, bool], tuple[Data, Field]] = field(default_factory=dict)
    _readers: dict[int, tuple[Curve, int]] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """Whether one batch meets itself, sample by sample."""
        return len(self.inputs) == 1

    def output(self) -> Field:
        """The field that the network returns."""
        values: dict[str, Any] = {}
        last_use = self.graph.last_uses
        for node in self.graph:
            if node.op == "output":
                return returned(self, node, values)
            values[node.name] = self.value(node, values)
            if self.watch is not None:
                self.watch(node, values[node.name])
            for name in last_use.get(node.name, ()):
                self._forget(values.pop(name, None), values)
        raise KernelError("the network returns nothing")

    def _forget(self, gone: Any, values: Mapping[str, Any]) -> None:
        """Let go of the arrays of a value that nobody reads any more, unless it has other names."""
        if isinstance(gone, (Curve, Mix, Data)) and not any(value is gone for value in _leaves(list(values.values()))):
            self._evaluated.pop(id(gone), None)
            self._readers.pop(id(gone), None)
            for key in [key for key, (data, _) in self._read.items() if data is gone]:
                del self._read[key]

    def value(self, node: Node, values: Mapping[str, Any]) -> Any:
        """What an operation makes of the values of others."""
        if node.op == "input":
            return Data(self.inputs, shape=node.shape or ())
        if node.op == "parameter":
            return Weight(str(node.target), node.shape or ())
        if node.op == "constant":
            return _constant(self._cast(self.graph.constants[node.name]))
        args = _filled(node.args, values)
        kwargs = {key: _filled(value, values) for key, value in node.kwargs.items()}
        found = list(_leaves((*args, *kwargs.values())))
        if any(isinstance(v, Overlap) for v in found):
            call = Call(node, args, kwargs, self)
            scaled = rescaled(call)
            if scaled is not None:
                return scaled
            args, kwargs = (tree_map_only(Overlap, lambda v: self.steady(call, v), v) for v in (args, kwargs))
            found = list(_leaves((*args, *kwargs.values())))
        if not any(isinstance(v, (*Random, Weight)) for v in found):
            return self.computed(node, args, kwargs, found)
        rule = rule_of(node)
        if rule is None:
            raise Call(node, args, kwargs, self).no_rule()
        value = ruled(Call(node, args, kwargs, self), checked(rule))
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, Curve):
                kept, readers = self._readers.get(id(one), (one, 1))
                self._readers[id(one)] = (kept, readers + self.graph.uses[node.name] - 1)
        if isinstance(value, Field) and value.full and self.needs.get(node.name, Need.NONE) < Need.ALL:
            return value.reduced()
        return value

    def _cast(self, tensor: Tensor) -> Tensor:
        like = self.inputs[0]
        return tensor.to(like) if tensor.is_floating_point() and like.is_floating_point() else tensor

    def computed(self, node: Node, args: Any, kwargs: Any, found: Sequence[Any]) -> Any:
        """An operation on plain tensors and numbers, done as it is for each batch."""
        if torch.Tag.nondeterministic_seeded in (getattr(node.target, "tags", None) or ()) and _draws(node, kwargs):
            raise KernelError(
                f"{node.op} at {node.place}: it draws at random, so the kernel would be another each time; call model.eval(), or "
                "draw outside of the network"
            )
        if all(v.constant for v in found if isinstance(v, Data)):
            return tree_map_only(Tensor, _constant, self._done(node, _side(args, 0), _side(kwargs, 0)))
        if node.shape is not None and not any(isinstance(size, Batch) for size in node.shape):
            raise KernelError(
                f"{node.op} at {node.place}: it computes one value from all samples, so there is no kernel between two samples "
                "alone; treat every sample by itself"
            )
        results = [self._done(node, _side(args, i), _side(kwargs, i)) for i in range(len(self.inputs))]
        if isinstance(results[0], Tensor):
            return Data(tuple(results), shape=node.shape or ())
        if isinstance(results[0], (list, tuple)):
            shapes = node.shapes or [()] * len(results[0])
            return [Data(ts, shape=shape) for ts, shape in zip(zip(*results, strict=True), shapes, strict=True)]
        return Data(tuple(results))  # a size

    def _done(self, node: Node, args: Any, kwargs: Any) -> Any:
        """What torch makes of plain tensors, in the inputs' own precision: the trace holds that of the module's parameters."""
        try:
            made = node.target(*args, **kwargs)
        except (LazyrichError, Warning, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # torch raises errors of every kind
            first = (str(error).splitlines() or [""])[0]
            raise KernelError(
                f"{node.op} at {node.place}: on what holds no weights (inputs, constants) it fails with {type(error).__name__}: "
                f"{first}; give inputs on which the network itself runs, or do this to the data before",
                node=node.name,
            ) from error
        plain = self.inputs[0].is_floating_point() and isinstance(args[0] if args else None, Tensor)
        if plain and node.op in CASTS and made.is_floating_point() and args[0].is_floating_point():
            made = args[0]
        return tree_map_only(Tensor, self._cast, made)

    def steady(self, call: Call, value: Overlap) -> Data:
        """A product of two fields as numbers, if it is scaled so that it does not fluctuate."""
        self.refuse_unsteady(call, value)
        return value.data()

    def refuse_unsteady(self, call: Call, value: Overlap) -> None:
        """Logits that stay random."""
        if not value.steady:
            scale = value.inner * value.factor
            raise call.refuse(
                f"its logits are scaled by {scale:.3g} = {scale * math.sqrt(value.dim):.3g}/sqrt(d), so they stay random at "
                "infinite width and no kernel in closed form is known",
                "scale them by 1/d (scaled_dot_product_attention(..., scale=1/d), the 1/d attention of muP)",
            )

    def read_once(self, value: Any) -> bool:
        """Whether one operation alone reads a curve, under whatever names it goes, so that its arrays may be written over."""
        return isinstance(value, Curve) and self._readers.get(id(value), (value, 2))[1] == 1

    def field(self, value: Any, call: Call) -> Field:
        """A random value evaluated as a field."""
        if isinstance(value, Field):
            return value
        if isinstance(value, (Curve, Mix)):
            if id(value) not in self._evaluated:
                made = self._curve(value, call) if isinstance(value, Curve) else self._mix(value, call)
                self._evaluated[id(value)] = (value, made)
            return self._evaluated[id(value)][1]
        raise call.no_field(value)

    def _curve(self, curve: Curve, call: Call) -> Field:
        """E[phi(u) phi(v)], and for the tangent kernel its derivative times what came from below."""
        call = replace(call, node=curve.maker(self.graph, call.node))  # the nonlinearity's own place, not its reader's
        base = curve.base if curve.inner == 1.0 else curve.base.scaled(curve.inner)
        if curve.spec == IDENTITY:
            return base.scaled(curve.scale)
        if not base.gaussian:
            raise call.refuse(
                "a nonlinearity acts on features that are not independent Gaussians in the limit",
                "put a linear layer before it",
            )
        known = self.duals.get(curve.key)
        if known is None:
            known = self.duals[curve.key] = dual_of(curve, self.graph, call.node)
            few.tell(call, curve)
        base, first, second = self._variances(curve.key, known, base)
        mean = known.mean(base.own_diagonal()) if self.alone else None
        below = None if base.own else base.ntk  # gains below need the slope itself
        if self.alone and not base.full:
            nngp = known.variance(base.nngp)
            slope = product(known.slope_variance(base.nngp), below) if self.tangent else None
        else:
            nngp, slope = known.between(base.nngp, first, second, self.tangent, below)
        if self.mirrored or (self.alone and base.full):
            q = self.first[curve.key][0]
            nngp = with_diagonal(base, nngp, known.variance(q))
            if slope is not None:
                slope = with_diagonal(base, slope, known.slope_variance(q), below)
        ntk = None if slope is None else self._tangent(curve, known, base, slope, call)
        result = Field(base.layout, base.order, nngp, ntk, base.full, base.sources, False, base.centred and curve.odd, mean)
        return result.scaled(curve.scale) if curve.scale != 1.0 else result

    def _tangent(self, curve: Curve, known: Dual, base: Field, slope: Tensor, call: Call) -> Tensor | None:
        """Theta E[phi'(u) phi'(v)], the ``slope`` found; gains below, whose part is own u v, give own E[u phi'(u) v phi'(v)]."""
        if base.ntk is None:
            return None
        jump.tell(call, curve, known)
        output.tell_random(call, base, "phi'(f) of the outputs f", curve)
        if base.uneven:
            raise call.refuse(
                "a nonlinearity acts on a sum of which one branch has trained gains, whose part of the tangent kernel is not known",
                "put a linear layer before it, or freeze the gains (requires_grad_(False), of a norm elementwise_affine=False)",
            )
        if not base.own:
            return slope
        return slope * (base.ntk - base.own * base.nngp) + base.own * self._stretched(curve, known, base, call)

    def _stretched(self, curve: Curve, known: Dual, base: Field, call: Call) -> Tensor:
        """E[u phi'(u) v phi'(v)], the kernel of x phi'(x)."""
        if known.homogeneous is not None:
            own, factor = known, known.homogeneous**2
        else:
            key, factor = f"{curve.key}.stretched", 1.0
            if key not in self.duals:
                stretched = replace(curve, key=key, function=lambda x: jvp(curve.function, (x,), (x,))[1], spec=None)
                self.duals[key] = dual_of(stretched, self.graph, call.node)
            own = self.duals[key]
        if self.alone and not base.full:
            return factor * own.variance(base.nngp)
        base, (q1, q2), _ = self.moments(curve.key, base)
        found = own.kernel(base.nngp, q1, q2)
        if self.mirrored or self.alone:
            found = with_diagonal(base, found, own.variance(self.first[curve.key][0]))
        return factor * found

    def _variances(self, key: str, known: Dual, value: Field) -> tuple[Field, list[Tensor], list[Tensor]]:
        """What a nonlinearity needs of both batches' variances, laid out against the arrays; the diagonal made exact."""
        first, second = ((), ()) if self.alone else (self.first[key][2:], self.second[key][2:])
        if not (first and second):
            value, (q1, q2), _ = self.moments(key, value)
            return value, [q1], [q2]
        value = exact(value, self.first[key][0]) if self.mirrored else value
        pairs = [value.at_positions(a, b) for a, b in zip(first, second, strict=True)]
        return value, [a for a, _ in pairs], [b for _, b in pairs]

    def moments(self, key: str, value: Field) -> tuple[Field, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Variances and means of both batches at a node, laid out against the arrays; diagonals made exact."""
        if self.alone:
            q = value.own_diagonal()
            if bool((q < 0).any()):  # rounding of what is zero, as of a mean that was taken off
                q = q.clamp(min=0)
                value = exact(value, q)
            m = torch.zeros_like(q) if value.mean is None else value.mean
            self.first[key] = (q, m)
            return value, value.at_positions(q, q), value.at_positions(m, m)
        (q1, m1, *_), (q2, m2, *_) = self.first[key], self.second[key]
        if self.mirrored:
            value = exact(value, q1)
        return value, value.at_positions(q1, q2), value.at_positions(m1, m2)

    def _mix(self, mix: Mix, call: Call) -> Field:
        parts = [(share, self.field(part, call)) for share, part in mix.parts]
        parts = [(share, part.merged()) for share, part in parts]
        full = all(part.full for _, part in parts)
        parts = [(share, part if full else part.reduced()) for share, part in parts]
        first = parts[0][1]
        nngp = sum(share * part.nngp for share, part in parts)
        ntk = sum(share * part.ntk for share, part in parts) if self.tangent else None  # type: ignore[operator]
        sources, behind = (frozenset().union(*found) for found in zip(*((p.sources, p.behind) for _, p in parts), strict=True))
        centred = all(part.centred for _, part in parts)
        layout = Layout(tuple(_widened(*axes) for axes in zip(mix.layout.axes, first.layout.axes, strict=True)))
        mean = sum(share * part.mean for share, part in parts if part.mean is not None) if self.alone else None
        mean = mean if isinstance(mean, Tensor) else None
        return Field(
            layout, first.order, nngp, ntk, full, sources, False, centred, mean, mixed=len(parts) > 1, behind=behind  # type: ignore
        )  # fmt: skip

    def shared_field(self, data: Data, feature: int, full: bool, call: Call) -> Field:
        """Inputs as a field, the same one for all layers that read them alike."""
        key = (id(data), feature % len(data.shape), full) if data.shape else (id(data), feature, full)
        if key not in self._read:
            self._read[key] = (data, self.as_field(data, feature, full, call))
        return self._read[key][1]

    def as_field(self, data: Data, feature: int, full: bool, call: Call) -> Field:
        """Inputs (or constants) as a field: covariances are means of products over one axis of theirs."""
        shape = data.shape
        batches = [size for size in shape if isinstance(size, Batch)]
        if not -len(shape) <= feature < len(shape):
            raise call.refuse(f"it reads data of shape {shape} without a feature axis", "give data with a feature axis")
        if len(batches) != (not data.constant) or batches not in ([], [Batch()]):
            raise call.refuse(
                f"it reads data of shape {shape}, where samples are mixed with other axes (B is their number)",
                "keep the samples on an axis of their own until the first layer",
            )
        if not data.tensors[0].is_floating_point():
            raise call.refuse(f"it reads data in {data.tensors[0].dtype}, expected real numbers", "give x.float()")
        layout = plain(shape, feature % len(shape))
        tensors = [self._rows(t, shape, feature) for t in data.tensors]
        lead = (len(self.inputs[0]), *((len(self.inputs[1]),) if not self.alone else ()))
        first, second = tensors[0], tensors[-1] if not data.constant else tensors[0]
        nngp = gram(first, second, self.alone, full)
        if data.constant:
            nngp = nngp.expand(*lead, *nngp.shape[len(lead) :])
        sizes = [a.size for a in layout.positions]
        nngp = nngp.reshape(*lead, *sizes, *(sizes if full else ()))
        ntk = nngp.new_zeros(()).expand_as(nngp) if self.tangent else None
        mean = first.mean(-1).expand(lead[0], -1).reshape(lead[0], *sizes) if self.alone else None
        return Field(layout, layout.positions, nngp, ntk, full, frozenset({INPUT}), mean=mean)

    def _rows(self, tensor: Tensor, shape: Sequence[Any], feature: int) -> Tensor:
        """(batch, positions, features)."""
        batch = [i for i, s in enumerate(shape) if isinstance(s, Batch)]
        tensor = tensor.movedim(feature, -1)
        order = [i for i in range(len(shape)) if i != feature % len(shape)]
        tensor = tensor.movedim(order.index(batch[0]), 0) if batch else tensor.unsqueeze(0)
        return tensor.reshape(tensor.shape[0], -1, tensor.shape[-1])

    def summed(self, weight: Weight, fan_in: float, role: Role) -> Drawn:
        """A weight that is summed over."""
        return self._use(weight, self.weights.summed(weight.name, fan_in, role), fan_in)

    def added(self, weight: Weight, role: Role) -> Drawn:
        """A bias."""
        return self._use(weight, self.weights.added(weight.name, role), 1.0)

    def entry(self, weight: Weight) -> Drawn:
        """A tensor whose entries act one by one."""
        return self._use(weight, self.weights.entry(weight.name), 1.0)

    def _use(self, weight: Weight, drawn: Drawn, fan_in: float) -> Drawn:
        self.used[weight.name] = (drawn, fan_in)
        return drawn.changed(weight.scale, weight.shift)

    def one_way(self, call: Call, name: str, way: str) -> None:
        """Refuse a tensor that is used in two ways: what they produce is dependent."""
        if self.ways.setdefault(name, way) != way:
            raise call.refuse(
                f"'{name}' is used as {self.ways[name]} and as {way}, which makes the features around it dependent",
                "untie them, one tensor for each use",
            )

    def role(self, name: str, below: Field) -> Role:
        """The role of a weight, from what it sums over and what follows it."""
        if name in self.readouts:
            return Role.OUTPUT
        return Role.INPUT if below.sources == frozenset({INPUT}) else Role.HIDDEN


def _widened(wide: Axis, own: Axis) -> Axis:
    """An axis of joined branches: all of their features, and the positions of one of them."""
    places = iter([a for a in own if a.kind is Kind.POSITION])
    if not any(a.kind is Kind.FEATURE for a in wide):
        return own
    return tuple(a if a.kind is not Kind.POSITION else next(places) for a in wide)


def _draws(node: Node, kwargs: Mapping[str, Any]) -> bool:
    """Dropout draws in training only."""
    training = node.args[2] if len(node.args) > 2 else kwargs.get("train", kwargs.get("training", True))
    p = node.args[1] if len(node.args) > 1 else kwargs.get("p", 1.0)
    return "dropout" not in node.op or (bool(training) and p != 0)


def _constant(tensor: Tensor) -> Data:
    return Data((tensor,), constant=True, shape=tuple(tensor.shape))


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(v, values) for v in value)
    return value


def _leaves(values: Sequence[Any]):
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _leaves(value)
        else:
            yield value


def _side(value: Any, i: int) -> Any:
    if isinstance(value, Data):
        return value.tensors[0 if value.constant else i]
    if isinstance(value, (list, tuple)):
        return type(value)(_side(v, i) for v in value)
    if isinstance(value, dict):
        return {k: _side(v, i) for k, v in value.items()}
    return value
