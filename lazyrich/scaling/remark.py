"""What a plan does that a person may not expect, and that is no fault of it."""

from __future__ import annotations

from lazyrich.family import Family, Role
from lazyrich.family.role import giving, grown
from lazyrich.scaling.optimizer import is_entrywise
from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.seat import seats
from lazyrich.scaling.weighed import weighed


def remarks(family: Family, scheme: Scheme, optimizer: str) -> list[str]:
    """One sentence for each attention whose keys or values have a fixed size: they are planned as readouts, which start small.

    Another for each matrix of one row that is taken for a vector, where the network's code sums over it: shapes tell nothing.

    Example:
        >>> import lazyrich as lzr
        >>> remarks(lzr.Family(lzr.zoo.transformer), lzr.mup(), "adamw")
        []
    """
    power = 0.5 - scheme.layers(is_entrywise(optimizer)).output.init
    if scheme.global_rate or power == 0:
        return []
    found = _rows(family)
    for path in seats(family.sketch(family.base)):
        own = [
            info
            for info in family.tensors.values()
            if info.axes.contracted and info.name.startswith(f"{path}." if path else "")
        ]
        fixed = [info.name for info in own if info.role is Role.OUTPUT]
        if fixed and len(fixed) < len(own):
            found.append(
                f"in the attention '{path}' {', '.join(fixed)} give a fixed number of features, so they are planned as readouts: "
                f"what they give starts as width^{power:g} and reaches size one as it learns. Where keys and values shall start at "
                "size one, let the number of their heads grow with the width"
            )
    return found


def _rows(family: Family) -> list[str]:
    """Of matrices of one row or column that are planned as vectors."""
    asked = [
        info.name
        for info in family.tensors.values()
        if info.role is Role.VECTOR and len(info.shape) == 2 and 1 in info.shape and not family.given(info.name)
    ]
    read = weighed(family.sketch(family.base)) if asked else set()
    return [
        f"'{name}' of shape {family.tensors[name].shape} is planned as a vector, as a gain or a bias would be, but the "
        f"network's code sums over it, as a readout does: give {giving(name, Role.OUTPUT)}"
        for name in asked
        if any((name, axis) in read for axis in grown(family.tensors[name].shape, family.tensors[name].probe_shape))
    ]
