"""Which forward multipliers a scheme asks of a family: found from its tied tensors, its attentions and its branches."""

from __future__ import annotations

from collections.abc import Sequence

from lazyrich.family import Family, Role, TensorInfo
from lazyrich.family.role import grown
from lazyrich.scaling.obligation import Obligation, branches
from lazyrich.scaling.optimizer import is_entrywise
from lazyrich.scaling.scheme import Scheme


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
        found += [o for info in family.tensors.values() for o in _tied(info, scheme, is_entrywise(optimizer))]
        found += _attention(family, scheme, optimizer)
    found += [_residual(family, pattern, base_depth, depth_exponent) for pattern in residual]
    return tuple(found)


def _tied(info: TensorInfo, scheme: Scheme, entrywise: bool) -> list[Obligation]:
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
            1 / scheme.gamma,
            info.name,
            axis,
        )
        for name in readouts
    ]


def _attention(family: Family, scheme: Scheme, optimizer: str) -> list[Obligation]:
    """Logits q.k/sqrt(d) of heads that grow need d^-(1/2 + richness): 1/d when features are learned."""
    exponent = -(0.5 - scheme.classify(optimizer).layer_r[1])
    if exponent == 0:
        return []
    small, large = (_heads(family, width) for width in (family.base, family.probe))
    return [
        Obligation(
            "attention",
            path,
            f"its heads grow from {size} to {large[path]} and its logits are scaled by 1/sqrt(d) where the scheme needs "
            f"d^{exponent - 0.5:g}",
            exponent,
            size,
        )
        for path, size in small.items()
        if large.get(path, size) != size
    ]


def _heads(family: Family, width: int) -> dict[str, int]:
    """Head size of every attention at a width: of modules that carry it as ``head_dim``, as torch's and most libraries' do."""
    sizes = {path: getattr(module, "head_dim", None) for path, module in family.sketch(width).named_modules()}
    return {path: size for path, size in sizes.items() if isinstance(size, int) and not isinstance(size, bool)}


def _residual(family: Family, pattern: str, base_depth: int | None, exponent: float) -> Obligation:
    count = len(branches(family.sketch(family.base), pattern))
    why = f"{count} residual branches were tuned as {base_depth or count}; each is scaled by (depth ratio)^-{exponent:g}"
    return Obligation("residual branch", pattern, why, -exponent, base_depth or count)
