"""What a network is: a family (its width left open), the roles of its tensors, and reference architectures."""

from lazyrich.family import zoo
from lazyrich.family.family import Family, TensorInfo, as_family
from lazyrich.family.law import Law
from lazyrich.family.role import Axes, Role
from lazyrich.family.semantics import register

__all__ = ["as_family", "Axes", "Family", "Law", "Role", "TensorInfo", "register", "zoo"]
