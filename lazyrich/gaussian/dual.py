"""What a nonlinearity does to Gaussian variables: E[phi(u) phi(v)] and its derivative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.errors import KernelError

Pair = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Dual:
    """The dual activation of a function phi, for (u, v) ~ N(0, [[q1, c], [c, q2]]).

    Arguments are tensors that broadcast against each other, float32 or float64; results keep their dtype and device, and are
    computed in float64 where float32 would lose digits. Gradients flow to every argument that asks for them.

    Attributes:
        name: of the activation.

    Example:
        >>> from lazyrich.gaussian import dual
        >>> one = torch.ones((), dtype=torch.float64)
        >>> float(dual("relu").variance(one)), dual("relu").homogeneous, dual("relu").error
        (0.5, 1.0, 0.0)
    """

    name: str

    @property
    def homogeneous(self) -> float | None:
        """Degree of positive homogeneity, phi(t x) = t^degree phi(x) for t > 0, if phi has one."""
        return None

    @property
    def error(self) -> float:
        """Estimated largest absolute error at moderate variances; 0 for closed forms."""
        return 0.0

    def kernel(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """E[phi(u) phi(v)]."""
        raise NotImplementedError

    def slope(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """E[phi'(u) phi'(v)], phi' as autograd takes it: what tangent kernels are made of (of "sign" also its jump)."""
        raise NotImplementedError

    def derivative(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """d/dc of ``kernel``: ``slope``, and what jumps of phi add to it, infinite where u and v jump as one."""
        return self.slope(c, q1, q2)

    def both(self, c: Tensor, q1: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel and slope, sharing what they have in common."""
        return self.kernel(c, q1, q2), self.slope(c, q1, q2)

    def prepared(self, q: Tensor) -> tuple[Tensor, ...]:
        """What kernels need of one batch's variances, made once for all other batches: q first, then what ``between`` takes."""
        return (q,)

    def between(
        self, c: Tensor, first: Sequence[Tensor], second: Sequence[Tensor], tangent: bool, below: Tensor | None = None
    ) -> Pair:
        """Kernel, and slope if asked for, from what is ``prepared`` of two batches: all behind q where both have more, else q.

        The slope comes times ``below``, the tangent kernel below the nonlinearity, where that is given.
        """
        (q1,), (q2,) = first, second
        if not tangent:
            return self.kernel(c, q1, q2), None
        kernel, slope = self.both(c, q1, q2)
        return kernel, product(slope, below)

    def variance(self, q: Tensor) -> Tensor:
        """E[phi(sqrt(q) z)^2], z standard normal."""
        return self.kernel(q, q, q)

    def slope_variance(self, q: Tensor) -> Tensor:
        """E[phi'(sqrt(q) z)^2]."""
        return self.slope(q, q, q)

    def derivative_variance(self, q: Tensor) -> Tensor:
        """d/dc of ``kernel`` on the diagonal: ``slope_variance``, infinite where phi jumps."""
        return self.slope_variance(q)

    def bend_variance(self, q: Tensor) -> Tensor:
        """E[phi''(sqrt(q) z)^2], the derivative of ``slope`` in c on the diagonal; infinite where phi or phi' jumps."""
        with torch.enable_grad():
            c = q.detach().clone().requires_grad_()
            slope = self.slope(c, q.detach(), q.detach())
            if not slope.requires_grad:
                return torch.zeros_like(q)
            return torch.autograd.grad(slope.sum(), c)[0]

    def mean(self, q: Tensor) -> Tensor:
        """E[phi(sqrt(q) z)]."""
        raise NotImplementedError


Function = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Closed(Dual):
    """A dual activation by formulas, evaluated in float64.

    Example:
        >>> square = Closed("square", lambda c, q1, q2: q1 * q2 + 2 * c**2, lambda c, q1, q2: 4 * c, lambda q: q, 2.0)
        >>> float(square.variance(torch.tensor(2.0)))
        12.0
    """

    of_kernel: Function
    of_slope: Function
    of_mean: Callable[[Tensor], Tensor]
    degree: float | None = None
    kinked: bool = False

    @property
    def homogeneous(self) -> float | None:
        """The degree given."""
        return self.degree

    def kernel(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """By the formula."""
        return _in_double(self.of_kernel, c, q1, q2)

    def slope(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """By the formula."""
        return _in_double(self.of_slope, c, q1, q2)

    def bend_variance(self, q: Tensor) -> Tensor:
        """From the slope's formula; infinite for a function that is ``kinked``."""
        return torch.full_like(q, float("inf")) if self.kinked else super().bend_variance(q)

    def mean(self, q: Tensor) -> Tensor:
        """By the formula."""
        dtype = common_dtype(q)
        return self.of_mean(q.double()).to(dtype)


def common_dtype(*tensors: Tensor) -> torch.dtype:
    """The floating dtype that the arguments share.

    Raises:
        KernelError: for what is no tensor, integers, complex numbers and half precision.

    Example:
        >>> common_dtype(torch.ones(2), torch.ones(2, dtype=torch.float64))
        torch.float64
    """
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise KernelError(
                f"got variances or covariances of type {type(tensor).__name__}, expected tensors; pass torch.as_tensor(...)"
            )
        if tensor.dtype not in (torch.float32, torch.float64):
            raise KernelError(f"got variances or covariances in {tensor.dtype}, expected float32 or float64; cast them first")
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def product(slope: Tensor, below: Tensor | None) -> Tensor:
    """Slope times tangent kernel, written over the slope, which nobody else reads.

    Example:
        >>> product(torch.tensor([0.5]), torch.tensor([4.0]))
        tensor([2.])
    """
    if below is None:
        return slope
    if slope.shape != below.shape or slope.requires_grad or below.requires_grad or not slope.is_contiguous():
        return slope * below
    return slope.mul_(below)


def correlation(c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    """Rho = c / sqrt(q1 q2) in float64, clamped to [-1, 1], exactly 1 for c = q1 = q2; 0 where a variance is 0.

    Example:
        >>> correlation(torch.tensor([0.3, 0.0]), torch.tensor([0.3, 0.0]), torch.tensor([0.3, 1.0]))
        tensor([1., 0.], dtype=torch.float64)
    """
    p1, p2 = q1.double().clamp(min=0), q2.double().clamp(min=0)
    s = (p1 * p2).sqrt() if _moderate(p1) and _moderate(p2) else p1.sqrt() * p2.sqrt()
    rho = torch.where(s > 0, c.double() / s.clamp(min=1e-300), torch.zeros((), dtype=torch.float64, device=c.device))
    return rho.clamp(-1, 1)


def _moderate(q: Tensor) -> bool:
    """Whether products of two neither underflow nor overflow."""
    return not bool(((q > 0) & (q < 1e-150) | (q > 1e150)).any())


def _in_double(formula: Function, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    dtype = common_dtype(c, q1, q2)
    return formula(c.double(), q1.double(), q2.double()).to(dtype)
