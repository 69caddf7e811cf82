"""Which forward multipliers a scheme asks of a family: found from its tied tensors, its attentions and its branches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lazyrich.errors import PlanError
from lazyrich.family import Family, Role, TensorInfo
from lazyrich.family.role import grown
from lazyrich.scaling.attention import attends, head_size, law, refuses, source_of, watched
from lazyrich.scaling.obligation import BY_HAND, Obligation, branches, module_at
from lazyrich.scaling.optimizer import is_entrywise
from lazyrich.scaling.readout import readouts
from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.seat import around, seats
from lazyrich.scaling.skip import skips
from lazyrich.scaling.weighed import weighed


def duties(
    family: Family,
    scheme: Scheme,
    optimizer: str,
    residual: Sequence[str] = (),
    base_depth: int | None = None,
    depth_exponent: float = 0.5,
) -> tuple[Obligation, ...]:
    """The obligations of a scheme on a family: tied readouts, attentions whose heads grow, residual branches."""
    found: list[Obligation] = []
    if not scheme.global_rate:
        read = readouts(family) if scheme.gamma != 1 else frozenset()
        found += [
            o for info in family.tensors.values() for o in _tied(info, scheme, is_entrywise(optimizer), info.name in read)
        ]
        found += _tied_by_code(family, scheme, is_entrywise(optimizer))
        found += _attention(family, scheme, optimizer)
    found += [_residual(family, pattern, base_depth, depth_exponent) for pattern in residual]
    return tuple(found)


def _tied(info: TensorInfo, scheme: Scheme, entrywise: bool, last: bool) -> list[Obligation]:
    """The readouts that a table is; what divides the output divides the last one alone, and no bottleneck."""
    layers = scheme.layers(entrywise)
    exponent = layers.input.init - layers.output.init
    if info.role is not Role.INPUT or Role.OUTPUT not in info.uses:
        return []
    axis = grown(info.shape, info.probe_shape)[0]
    readouts = [name for name, use in zip((info.name, *info.aliases), info.uses, strict=True) if use is Role.OUTPUT]
    return [
        Obligation(
            "tied readout",
            name.rpartition(".")[0],
            f"'{name}' is tied to an input table and drawn as one, so the readout must be multiplied by width^{exponent:g}",
            exponent,
            info.shape[axis],
            1 / scheme.gamma if last else 1.0,
            info.name,
            axis,
        )
        for name in readouts
    ]


def _tied_by_code(family: Family, scheme: Scheme, entrywise: bool) -> list[Obligation]:
    """Input tables of a network without a readout that its own code reads out with: no layer, so no hook can scale it."""
    layers, infos = scheme.layers(entrywise), family.tensors.values()
    exponent = layers.input.init - layers.output.init
    tables = {info.name: info for info in infos if info.role is Role.INPUT}
    if exponent == 0 or not tables or any(Role.OUTPUT in (info.role, *info.uses) for info in infos):
        return []
    read = sorted(weighed(family.sketch(family.base)))
    return [
        Obligation("tied product", tables[name].owner, TIED.format(name, f"{exponent:g}", 1 / scheme.gamma), 0.0, 1.0)
        for name, axis in read
        if name in tables and axis in tables[name].axes.produced
    ]


TIED = (
    "'{0}' is an input table, and drawn as one, that the network's own code also reads out with (F.linear or @), so there the "
    "product must be multiplied by width^{1} ({2:g} at the base): if the code does not do so yet, do it there, no hook can, or "
    "give the readout a layer whose weight is the table"
)


def _attention(family: Family, scheme: Scheme, optimizer: str) -> list[Obligation]:
    """Logits q.k/sqrt(d) of heads that grow need d^-(1/2 + richness): 1/d when features are learned."""
    exponent = -(0.5 - scheme.classify(optimizer).layer_r[1])
    if exponent == 0:
        return []
    model, large = family.sketch(family.base), dict(family.sketch(family.probe).named_modules())
    small, paths = dict(model.named_modules()), seats(model)
    found = [(path, _of_heads(path, small[path], large[path], exponent)) for path in paths if path in large]
    owed = [path for path, duty in found if duty]
    return [_parted(duty, exponent) if around(path, owed) else duty for path, duty in found if duty]


def _parted(duty: Obligation, exponent: float) -> Obligation:
    """An attention around another one: a hook on it would scale the inner one's logits once more."""
    return Obligation("attention", duty.where, AROUND.format(f"{exponent - 0.5:g}"), 0.0, 1.0)


def _of_heads(path: str, small: nn.Module, large: nn.Module, exponent: float) -> Obligation | None:
    """What the heads of one module ask for, if it has any that grow and do not follow the scheme's law already."""
    sizes = head_size(small), head_size(large)
    if None in sizes and _grows(small, large) and refuses(small):
        return Obligation("attention", path, UNCLEAR.format(source_of(small), f"{exponent - 0.5:g}"), 0.0, 1.0)
    size, wide = sizes
    if size is None or wide is None or size == wide:
        return None
    found = law(small, large) if attends(small) else None
    if found is not None and abs(found - exponent) < abs(exponent) / 3:
        return None
    off = 0.0 if found is None or abs(found) < 0.1 else round(found, 1)  # of the code's own law from 1/sqrt(d)
    own = "1/sqrt(d)" if not off else "a constant" if off == 0.5 else f"about d^{off - 0.5:g}"
    why = f"its heads grow from {size} to {wide} and its logits are scaled by {own} where the scheme needs d^{exponent - 0.5:g}"
    seen = watched(small)
    if seen and seen.by_hand:
        why += f"; they are written out by hand ({source_of(small)}): {BY_HAND}"
    elif seen and seen.scaled:
        why += f"; its code gives torch the scale ({source_of(small)}): {BY_HAND}"
    return Obligation("attention", path, why, exponent - off, size)


UNCLEAR = (
    "it looks like an attention ({}) whose heads' size cannot be read; if it grows with the width, logits must be scaled by d^{}: "
    "give the module its size as an attribute head_dim and plan again, or scale them by hand"
)


AROUND = (
    "its own code looks like an attention's and there is another attention inside, which is scaled by itself; if it has logits of "
    "its own, scale them by d^{} by hand, no hook can tell the two apart"
)


def _grows(small: nn.Module, large: nn.Module) -> bool:
    return [p.shape for p in small.parameters()] != [p.shape for p in large.parameters()]


def _residual(family: Family, pattern: str, base_depth: int | None, exponent: float) -> Obligation:
    model = family.sketch(family.base)
    paths = branches(model, pattern)
    _refuse_skip(pattern, paths[0], module_at(model, paths[0]))
    count = len(paths)
    why = f"{count} residual branches were tuned as {base_depth or count}; each is scaled by (depth ratio)^-{exponent:g}"
    return Obligation("residual branch", pattern, why, -exponent, base_depth or count)


def _refuse_skip(pattern: str, path: str, block: nn.Module) -> None:
    if not skips(block):
        return
    inside = [name for name, child in block.named_children() if any(True for _ in child.children())]
    such = f", such as {' and '.join(repr(f'{pattern}.{name}') for name in inside)}" if inside else ""
    raise PlanError(
        f"branches= pattern '{pattern}' names blocks that hold the skip themselves: with weights of zero '{path}' "
        f"({type(block).__name__}) returns its input, so its factor would scale the stream. Name the branches inside{such}; where "
        "one is no module, make it one"
    )
