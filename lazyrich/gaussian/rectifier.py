"""The rectifier family a min(x, 0) + b max(x, 0): ReLU, leaky ReLU, absolute value, identity.

Arc-cosine kernels (Cho & Saul 2009, Eqs. (3)-(6)), with s = sqrt(q1 q2) and theta = arccos(c / s):
E phi' phi' = (a^2 + b^2)/2 - (a - b)^2 theta / (2 pi), E phi phi = (a - b)^2 sqrt(s^2 - c^2) / (2 pi) + c E phi' phi'.
The angle is 2 atan(t), t = sqrt((s - c) / (s + c)), which keeps its digits near 0, where arccos loses half of them, and
sqrt(s^2 - c^2) = t (s + c). An arc tangent costs a third of atan2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np  # its broadcast_shapes loads nothing; torch's takes seconds the first time
import torch
from torch import Tensor

from lazyrich.gaussian.arctangent import arctangent_
from lazyrich.gaussian.dual import Dual, Pair, common_dtype, product
from lazyrich.gaussian.rectifier_loop import rectify

CHUNK = 1 << 18  # entries a thread that are worked on at a time: they stay in its cache


@dataclass(frozen=True)
class Rectifier(Dual):
    """a below zero, b above.

    Where both variances are zero the angle is 0, as on the diagonal; where one is, phi' counts as (a + b)/2 at zero.

    Example:
        >>> half, one = torch.tensor(0.5), torch.tensor(1.0)
        >>> [round(float(v), 6) for v in Rectifier("relu", 0.0, 1.0).both(half, one, one)]
        [0.304499, 0.333333]
    """

    a: float = 0.0
    b: float = 1.0

    @property
    def homogeneous(self) -> float | None:
        """Positively homogeneous of degree one."""
        return 1.0

    @property
    def bend(self) -> float:
        """(a - b)^2 / (2 pi), the weight of the angle."""
        return (self.a - self.b) ** 2 / (2 * math.pi)

    @property
    def half(self) -> float:
        """(a^2 + b^2) / 2, the slope on the diagonal."""
        return (self.a**2 + self.b**2) / 2

    def both(self, c: Tensor, q1: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel and slope, sharing the angle."""
        dtype = common_dtype(c, q1, q2)
        if self.bend == 0:
            slope = torch.full(np.broadcast_shapes(c.shape, q1.shape, q2.shape), self.half, dtype=dtype, device=c.device)
            return slope * c, slope
        if torch.is_grad_enabled() and any(t.requires_grad for t in (c, q1, q2)):
            kernel, slope = self._smooth(c.double(), q1.double(), q2.double())
        else:
            c_, q1_, q2_ = (t.detach() for t in (c, q1, q2))
            if dtype == torch.float32 and all(_fits(q) for q in (q1_, q2_)):
                kernel, slope = self._fresh(c_, *_root(q1_), *_root(q2_))
            else:
                kernel, slope = self._fresh(c_.double(), q1_.double(), q2_.double())
        zero1, zero2 = q1 == 0, q2 == 0
        if bool(zero1.any()) or bool(zero2.any()):
            slope = torch.where(zero1 != zero2, (self.a + self.b) ** 2 / 4, slope)
        return kernel.to(dtype), slope.to(dtype)

    def prepared(self, q: Tensor) -> tuple[Tensor, ...]:
        """The variances, and their roots in two parts where kernels can start from those."""
        exact = q.requires_grad or not _fits(q, zeros=False) or self.bend == 0
        return (q,) if exact else (q, *_root(q))

    def between(
        self, c: Tensor, first: Sequence[Tensor], second: Sequence[Tensor], tangent: bool, below: Tensor | None = None
    ) -> Pair:
        """From roots in two parts, if both batches have them."""
        if len(first) == len(second) == 2 and not c.requires_grad:
            return self._fresh(c, *first, *second, below=below)
        return super().between(c, first, second, tangent, below)

    def _smooth(self, c: Tensor, q1: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
        """With gradients; on the diagonal that of the angle, which is infinite, counts as zero."""
        square = q1 * q2
        s = torch.where(square > 0, square, 1.0).sqrt() * (square > 0)
        gap = (s - c) * (s + c)
        root = torch.where(gap > 0, gap, 1.0).sqrt() * (gap > 0)
        flat = root == 0
        angle = torch.where(flat, math.pi * (c < 0).to(c), torch.atan2(root, torch.where(flat, 1.0, c)))
        slope = self.half - self.bend * angle
        return self.bend * root + c * slope, slope

    def _fresh(self, c: Tensor, *scales: Tensor, below: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Without gradients, in place on two fresh buffers, from q1 and q2 or from both parts of both roots."""
        shape = np.broadcast_shapes(c.shape, scales[0].shape, scales[-1].shape)
        kernel, slope = (torch.empty(shape, dtype=c.dtype, device=c.device) for _ in range(2))
        with torch.no_grad():
            scales = (*scales, scales[2] + scales[3]) if len(scales) == 4 else scales
            if len(scales) == 5 and rectify(c, scales, below, (self.half, self.bend), kernel, slope):
                return kernel, slope
            self._walk((c, *scales), kernel, slope)
        return kernel, product(slope, below)

    def _walk(self, given: Sequence[Tensor], kernel: Tensor, slope: Tensor) -> None:
        """In chunks along the first axes."""
        chunk = CHUNK * torch.get_num_threads() if kernel.device.type == "cpu" else 1 << 26
        if kernel.numel() <= chunk or kernel.dim() == 0:
            return self._fill(*given, kernel, slope)
        given = [t.expand(kernel.shape) for t in given]
        rows = max(1, chunk * len(kernel) // kernel.numel())
        for i in range(0, len(kernel), rows):
            *parts, k, m = (t[i : i + rows] if rows > 1 else t[i] for t in (*given, kernel, slope))
            if rows > 1:
                self._fill(*parts, k, m)
            else:
                self._walk(parts, k, m)
        return None

    def _fill(self, c: Tensor, *arrays: Tensor) -> None:
        first, *scales, kernel, slope = arrays
        first = first.expand(kernel.shape)
        total, tangent = kernel, slope  # s + c, and t: first s - c
        if len(scales) == 1:
            torch.mul(first, *scales, out=tangent).sqrt_()
            torch.add(tangent, c, out=total)
            tangent.sub_(c)
        else:  # s - c and s + c to the last digit of the inputs
            low1, high2, low2, root2 = scales
            torch.mul(first, high2, out=tangent)
            torch.add(tangent, c, out=total).addcmul_(first, low2).addcmul_(low1, root2)
            tangent.sub_(c).addcmul_(first, low2).addcmul_(low1, root2)
        numbers = torch.finfo(kernel.dtype)
        total.clamp_(min=numbers.tiny)
        torch.div(total, tangent.clamp_(min=0), out=tangent)  # 1/t^2: a reciprocal root costs half a root
        tangent.clamp_(min=numbers.max**-0.5).rsqrt_()  # a bound, so that opposite inputs have no root of inf * 0
        kernel.mul_(tangent)
        arctangent_(tangent)
        torch.sub(self.half, tangent, alpha=2 * self.bend, out=slope)
        kernel.mul_(self.bend).addcmul_(c, slope)

    def kernel(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """E phi phi."""
        return self.both(c, q1, q2)[0]

    def slope(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """E phi' phi'."""
        return self.both(c, q1, q2)[1]

    def variance(self, q: Tensor) -> Tensor:
        """(a^2 + b^2) q / 2."""
        return self.half * q

    def slope_variance(self, q: Tensor) -> Tensor:
        """(a^2 + b^2) / 2."""
        return torch.full_like(q, self.half)

    def bend_variance(self, q: Tensor) -> Tensor:
        """Infinite, unless there is no kink."""
        return torch.full_like(q, math.inf if self.bend else 0.0)

    def mean(self, q: Tensor) -> Tensor:
        """(b - a) sqrt(q / (2 pi))."""
        return (self.b - self.a) / math.sqrt(2 * math.pi) * q.sqrt()


def _fits(q: Tensor, zeros: bool = True) -> bool:
    """Whether sums and products of roots neither underflow nor overflow."""
    if q.numel() == 0:
        return True
    low, high = (float(v) for v in q.detach().aminmax())
    if low == 0 and zeros:
        low = float(torch.where(q.detach() > 0, q.detach(), 1.0).amin())
    numbers = torch.finfo(q.dtype)
    return low > numbers.tiny**0.4 and high < numbers.max**0.4


def _root(q: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(q) = high + low, high with half its digits, so that products of two highs are exact (Dekker 1971)."""
    root = q.sqrt()
    large = root * (2.0 ** (12 if q.dtype == torch.float32 else 27) + 1)
    high = large - (large - root)
    return high, (q - high * high) / (root + high).clamp(min=torch.finfo(q.dtype).tiny)
