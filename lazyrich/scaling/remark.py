"""What a plan does that a person may not expect, and that is no fault of it."""

from __future__ import annotations

from lazyrich.family import Family, Role
from lazyrich.scaling.optimizer import is_entrywise
from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.seat import seats


def remarks(family: Family, scheme: Scheme, optimizer: str) -> list[str]:
    """One sentence for each attention whose keys or values have a fixed size: they are planned as readouts, which start small.

    Example:
        >>> import lazyrich as lzr
        >>> remarks(lzr.Family(lzr.zoo.transformer), lzr.mup(), "adamw")
        []
    """
    power = 0.5 - scheme.layers(is_entrywise(optimizer)).output.init
    if scheme.global_rate or power == 0:
        return []
    found = []
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
