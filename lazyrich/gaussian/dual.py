"""What a nonlinearity does to Gaussian variables: E[phi(u) phi(v)] and its derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Dual:
    """The dual activation of a function phi, for (u, v) ~ N(0, [[q1, c], [c, q2]]).

    Arguments are tensors that broadcast against each other, float32 or float64; results keep dtype and device.

    Attributes:
        name: of the activation.
        error: estimated largest absolute error; 0 for closed forms.
    """

    name: str
    error: float = field(default=0.0, kw_only=True)

    @property
    def homogeneous(self) -> float | None:
        """Degree of positive homogeneity, if phi has one."""
        return None

    def kernel(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """E[phi(u) phi(v)]."""
        raise NotImplementedError

    def slope(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """E[phi'(u) phi'(v)], the derivative of ``kernel`` in c."""
        raise NotImplementedError

    def both(self, c: Tensor, q1: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel and slope."""
        return self.kernel(c, q1, q2), self.slope(c, q1, q2)

    def variance(self, q: Tensor) -> Tensor:
        """E[phi(sqrt(q) z)^2]."""
        return self.kernel(q, q, q)

    def slope_variance(self, q: Tensor) -> Tensor:
        """E[phi'(sqrt(q) z)^2]."""
        return self.slope(q, q, q)

    def mean(self, q: Tensor) -> Tensor:
        """E[phi(sqrt(q) z)]."""
        raise NotImplementedError


Function = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Closed(Dual):
    """A dual activation by formulas."""

    of_kernel: Function
    of_slope: Function
    of_mean: Callable[[Tensor], Tensor]
    degree: float | None = None

    @property
    def homogeneous(self) -> float | None:
        """Degree of positive homogeneity, if phi has one."""
        return self.degree

    def kernel(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """By the formula."""
        return self.of_kernel(c, q1, q2)

    def slope(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """By the formula."""
        return self.of_slope(c, q1, q2)

    def mean(self, q: Tensor) -> Tensor:
        """By the formula."""
        return self.of_mean(q)


Options = dict[str, Any]
