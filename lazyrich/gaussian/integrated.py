"""Dual activations of any function: a series in the correlation where it suffices, integration over the plane where not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.gaussian.dual import Dual, common_dtype, correlation
from lazyrich.gaussian.jump import LEAST, added, jumps, sizes
from lazyrich.gaussian.plane import integrate
from lazyrich.gaussian.quadrature import REACH, Integrand, expectation, sampled
from lazyrich.gaussian.series import expand
from lazyrich.gaussian.table import tabulate

TOLERANCE = 1e-10


@dataclass(frozen=True)
class Integrated(Dual):
    """The dual of ``phi``; its derivative is taken by autograd, its jumps are found.

    Example:
        >>> made = Integrated("tanh", Integrand(torch.tanh))
        >>> round(float(made.variance(torch.tensor(1.0))), 6), made.error < 1e-10
        (0.394295, True)
    """

    phi: Integrand

    @cached_property
    def error(self) -> float:
        """Largest difference between two ways of integrating, or two numbers of nodes, for variances 1/4, 1 and 4."""
        q1, q2 = (t.flatten() for t in torch.meshgrid(sampled([0.25, 1, 4]), sampled([0.25, 1, 4]), indexing="ij"))
        worst = 0.0
        with torch.no_grad():
            for rho in (-0.7, 0.4, 0.95, 0.999):
                r = torch.full_like(q1, rho)
                for f in (self.phi, self.phi.derivative):
                    exact = integrate(f.finer, f.finer, r, q1, q2)
                    series, far = expand(f, f, r, q1, q2, TOLERANCE)
                    direct = integrate(f, f, r, q1, q2)
                    gaps = torch.stack([direct - exact, torch.where(far, 0.0, series - exact)]).abs()
                    worst = max(worst, float(gaps.nan_to_num(float("inf")).max()))
        return worst

    def kernel(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """E[phi(u) phi(v)]."""
        return expect(self.phi, self.phi, c, q1, q2, jumps=self._broken).to(common_dtype(c, q1, q2))

    def slope(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """E[phi'(u) phi'(v)], phi' as autograd takes it, so away from jumps."""
        return expect(self.phi.derivative, self.phi.derivative, c, q1, q2, jumps=True).to(common_dtype(c, q1, q2))

    def derivative(self, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """d/dc E[phi(u) phi(v)], with the jumps of phi that u or v may reach."""
        places = self._jumps(torch.maximum(q1.max(), q2.max()))
        if not places:
            return self.slope(c, q1, q2)
        split = replace(self, phi=replace(self.phi, kinks=tuple(sorted({*self.phi.kinks, *places}))))
        slope = split.slope(c, q1, q2)
        return slope + added(split.phi, places, c, q1, q2).to(slope.dtype)

    def derivative_variance(self, q: Tensor) -> Tensor:
        """E[phi'^2]; infinite where phi jumps within reach of q."""
        return torch.where(_within(self._jumps(q), q), math.inf, self.slope_variance(q))

    @cached_property
    def _broken(self) -> bool:
        """Whether phi itself jumps at one of its kinks, so that autograd misses a part of the kernel's gradient."""
        with torch.no_grad():
            at = torch.tensor(self.phi.kinks, dtype=torch.float64)
            around = torch.maximum(self.phi(at - 1).abs(), self.phi(at + 1).abs())
            return bool((sizes(self.phi, self.phi.kinks).abs() > LEAST * around).any())

    def _jumps(self, q: Tensor) -> tuple[float, ...]:
        """Where phi jumps within reach of the variances; on a declared kink exactly there."""
        with torch.no_grad():  # not nearer than rounding of phi, as of log(1 + e^x) - log 2, looks like jumps
            found = jumps(self.phi, float(q.detach().max().clamp(min=1e-8).sqrt()) * REACH) if q.numel() else ()
        near = [
            next((kink for kink in self.phi.kinks if abs(kink - at) < 1e-6 * (1 + abs(kink))), round(at, 9)) for at in found
        ]
        return tuple(near)

    def variance(self, q: Tensor) -> Tensor:
        """E[phi^2]."""
        return self._moment(q, lambda x: self.phi(x) ** 2)

    def slope_variance(self, q: Tensor) -> Tensor:
        """E[phi'^2]."""
        slope = self.phi.derivative
        return self._moment(q, lambda x: slope(x) ** 2)

    def bend_variance(self, q: Tensor) -> Tensor:
        """E[phi''^2] by pieces between the places where phi'' jumps; infinite where phi or phi' does within reach of q.

        Raises:
            KernelError: if torch cannot differentiate phi twice.
        """
        reach = q.detach().sqrt() * REACH
        largest = float(reach.max()) if q.numel() else 0.0
        with torch.no_grad():
            rough = _within((*jumps(self.phi, largest), *jumps(self.phi.derivative, largest)), q)
            smooth = self._bend(q, largest) if not bool(rough.all()) else torch.zeros_like(q)
            return torch.where(rough, math.inf, smooth)

    def _bend(self, q: Tensor, reach: float) -> Tensor:
        slope, bend = self.phi.derivative, self.phi.derivative.derivative
        x = torch.linspace(-reach, reach, 100, dtype=torch.float64)
        try:
            lost = not bool(bend(x).any()) and not torch.allclose(slope(x), slope(x[:1]))  # as of once_differentiable
            pieces = Integrand(lambda x: bend(x) ** 2, (*self.phi.kinks, *jumps(bend, reach)), bend.nodes)
            found = expectation(pieces, q).to(common_dtype(q))
        except RuntimeError as error:
            raise self._once(error) from error
        if lost:
            raise self._once("its second derivative is zero where the first varies")
        return found

    def _once(self, why: object) -> KernelError:
        return KernelError(
            f"got activation '{self.name}', which torch cannot differentiate twice ({why}); expected a second derivative, write it "
            "with operations that have one"
        )

    def mean(self, q: Tensor) -> Tensor:
        """E[phi]."""
        return self._moment(q, self.phi)

    def _moment(self, q: Tensor, of: Any) -> Tensor:
        return expectation(Integrand(of, self.phi.kinks), q).to(common_dtype(q))


def _within(places: tuple[float, ...], q: Tensor) -> Tensor:
    """Whether variables of variance q reach one of the places."""
    reach = q.detach().sqrt() * REACH
    return torch.stack([reach >= abs(place) for place in places]).any(0) if places else torch.zeros_like(q).bool()


def expect(f: Integrand, g: Integrand, c: Tensor, q1: Tensor, q2: Tensor, jumps: bool = False) -> Tensor:
    """E[f(u) g(v)] for (u, v) ~ N(0, [[q1, c], [c, q2]]), in float64, differentiable in c, q1 and q2.

    Args:
        f: of u.
        g: of v.
        c: covariance.
        q1: variance of u.
        q2: variance of v.
        jumps: whether f and g jump at their kinks, so that their derivatives would miss what is there.

    Example:
        >>> one = torch.ones((), dtype=torch.float64)
        >>> float(expect(Integrand(torch.sin), Integrand(lambda x: x), 0.5 * one, one, one).round(decimals=6))  # e^-1/2 / 2
        0.303265
    """
    common_dtype(c, q1, q2)  # refuses what is none
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in (c, q1, q2))):
        return _value(f, g, c.detach(), q1.detach(), q2.detach())
    c, q1, q2 = torch.broadcast_tensors(c.double(), q1.double(), q2.double())
    if jumps and (f.kinks or g.kinks):
        s = (q1 * q2).sqrt()
        rho = (c / s).clamp(-1, 1).flatten()
        return integrate(f, g, rho, q1.flatten(), q2.flatten()).reshape(c.shape)
    return _Expectation.apply(f, g, c, q1, q2)


class _Expectation(torch.autograd.Function):
    """Price 1958: d/dc E[f g] = E[f' g'], d/dq1 E[f g] = E[f'' g] / 2, by parts (E[u f'(u) g(v)] - c E[f' g']) / (2 q1)."""

    @staticmethod
    def forward(ctx: Any, f: Integrand, g: Integrand, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        ctx.pair = f, g
        ctx.save_for_backward(c, q1, q2)
        return _value(f, g, c, q1, q2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (f, g), (c, q1, q2), grad = ctx.pair, ctx.saved_tensors, grads[0]
        kinked = bool(f.kinks or g.kinks)
        slope = expect(f.derivative, g.derivative, c, q1, q2, jumps=kinked)
        results: list[Tensor | None] = [None, None, grad * slope]
        for asked, q, (first, second, a, b) in zip(
            ctx.needs_input_grad[3:], (q1, q2), ((f, g, q1, q2), (g, f, q2, q1)), strict=True
        ):
            if not asked:
                results.append(None)
            elif kinked:
                zero = q == 0
                rise = expect(first.radial, second, c, a, b, jumps=True) - c * slope
                results.append(grad * torch.where(zero, 0.0, rise / (2 * torch.where(zero, 1.0, q))))
            else:
                results.append(grad * expect(first.derivative.derivative, second, c, a, b) / 2)
        return tuple(results)


def _value(f: Integrand, g: Integrand, c: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    with torch.no_grad():
        shape = np.broadcast_shapes(c.shape, q1.shape, q2.shape)
        rho = correlation(c, q1, q2).expand(shape)
        q1, q2 = (q.double().clamp(min=0) for q in (q1, q2))
        if math.prod(shape):
            largest = torch.maximum(q1.max(), q2.max())
            f, g = f.within(largest), g.within(largest)
        total, far = expand(f, g, rho, q1, q2, TOLERANCE)
        if bool(far.any()):
            total[far] = tabulate(f, g, rho[far], q1.expand(shape)[far], q2.expand(shape)[far], TOLERANCE)
        return total
