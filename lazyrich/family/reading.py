"""The reading of a tensor: which role it has, and what its axes do."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from torch import nn

from lazyrich.errors import FamilyError
from lazyrich.family.parametrized import norms, place
from lazyrich.family.role import Axes, Role, axes_for, grown, refuse_contradiction, role_of
from lazyrich.family.semantics import NORMS, SUMMING, read_axes, regrouped


def reading(
    small: nn.Module,
    model: nn.Module,
    name: str,
    base: tuple[int, ...],
    probe: tuple[int, ...],
    overrides: Mapping[str, Role],
    alone: bool = True,
) -> tuple[Role, Axes]:
    """The role and axes of one name of a tensor: what was given, unless the layer contradicts it, else what the layer does.

    Args:
        small: the network at the base width.
        model: the wider one, which axes are read off: a grouped convolution may look depthwise at the base by chance.
        name: of the tensor.
        base: its shape at the base width.
        probe: in the wider network.
        overrides: roles that were given, by patterns.
        alone: whether it has no other name; of tied tensors the layers may well disagree.

    Raises:
        FamilyError: if nothing tells the role, or the one that was given cannot be.

    Example:
        >>> reading(nn.Linear(3, 4), nn.Linear(3, 8), "weight", (4, 3), (8, 3), {})
        (<Role.INPUT: 'input'>, Axes(produced=(0,), contracted=(1,), known=True))
    """
    owner, leaf = place(name)
    module = model.get_submodule(owner)
    for pattern, role in overrides.items():
        if fnmatch.fnmatch(name, pattern):
            known = alone and isinstance(module, (*SUMMING, *NORMS)) and leaf in ("weight", "bias") and grown(base, probe)
            try:
                own = reading(small, model, name, base, probe, {}) if known else None
            except FamilyError:  # what the layer does has no role of its own
                own = None
            if own is None:
                return role, axes_for(name, role, base, probe)
            refuse_contradiction(name, role, own[0], base, probe)
            return role, own[1]
    axes = Axes(produced=(0,)) if name in norms(model) else read_axes(module, leaf, base)
    axes = regrouped(axes, small.get_submodule(owner), module)
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and 0 in grown(base, probe):
        raise FamilyError(
            f"the table '{name}' grows in rows ({base[0]} -> {probe[0]}); a row is looked up, never summed over, so rows "
            "are no width. Keep the vocabulary fixed."
        )
    return role_of(name, axes, base, probe)
