"""The rectifier family a min(x, 0) + b max(x, 0): ReLU, leaky ReLU, absolute value, identity.

Arc-cosine kernels (Cho & Saul 2009), with s = sqrt(q1 q2), theta = arccos(c / s):
E phi' phi' = (a^2 + b^2)/2 - (a - b)^2 theta / (2 pi), E phi phi = (a - b)^2 sqrt(s^2 - c^2) / (2 pi) + c E phi' phi'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.gaussian.dual import Dual


@dataclass(frozen=True)
class Rectifier(Dual):
    """a below zero, b above."""

    a: float = 0.0
    b: float = 1.0

    @property
    def homogeneous(self) -> float | None:
        """Positively homogeneous of degree one."""
        return 1.0

    def both(self, c: Tensor, q1: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel and slope, sharing the angle.

        The angle is atan2(sqrt((s - c)(s + c)), c), which keeps its digits near 0 where arccos loses half of them.
        """
        square, half = (self.a - self.b) ** 2 / (2 * math.pi), (self.a**2 + self.b**2) / 2
        if square == 0:
            slope = torch.full_like(c * (q1 * q2), half)
            return half * c.expand_as(slope), slope
        if any(t.requires_grad for t in (c, q1, q2)):
            s = (q1 * q2).sqrt()
            root = ((s - c) * (s + c)).clamp(min=torch.finfo(c.dtype).tiny).sqrt()
            slope = half - square * torch.atan2(root, c)
            return square * root + c * slope, slope
        root = q1.sqrt() * q2.sqrt()
        root, c = torch.broadcast_tensors(root, c)
        slope = root + c
        root = root.contiguous() if root.is_contiguous() else root.clone()
        root = (root - c).mul_(slope).clamp_(min=0).sqrt_()
        slope = torch.atan2(root, c, out=slope).mul_(-square).add_(half)
        return root.mul_(square).addcmul_(c, slope), slope

    def kernel(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """E phi phi."""
        return self.both(c, q1, q2)[0]

    def slope(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """E phi' phi'."""
        return self.both(c, q1, q2)[1]

    def variance(self, q: Tensor) -> Tensor:
        """(a^2 + b^2) q / 2."""
        return (self.a**2 + self.b**2) / 2 * q

    def slope_variance(self, q: Tensor) -> Tensor:
        """(a^2 + b^2) / 2."""
        return torch.full_like(q, (self.a**2 + self.b**2) / 2)

    def mean(self, q: Tensor) -> Tensor:
        """(b - a) sqrt(q / (2 pi))."""
        return (self.b - self.a) * (q / (2 * math.pi)).sqrt()
