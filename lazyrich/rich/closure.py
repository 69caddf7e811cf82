"""Mean-field flows that close on a few numbers a particle, because of a symmetry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyrich.errors import RichError


@dataclass(frozen=True)
class Closure:
    """A two-layer network's risk as a function of a few means over its particles.

    Where a symmetry makes R(rho) depend on particles only through m = <moments(r)> of some coordinates r of each, the mean-field
    flow is that of these coordinates alone,

        dr_i/dt = -xi(t) M dR/dr_i,   R = risk(m),   m = (1/M) sum_i moments(r_i),

    which is -2 xi grad Psi with Psi half the first variation of R (Mei, Montanari & Nguyen 2018, arXiv:1804.06561). r must be
    coordinates of unit length, as a radius is.

    Attributes:
        moments: r (M, k) to (M, m), differentiable, float64.
        risk: m (m,) to one number.

    Example:
        >>> flow = Closure(lambda r: r, lambda m: (1 - m[0]) ** 2).follow(torch.zeros(5, 1).double(), [0.0, 1.0])
        >>> round(float(flow.risk[1] / flow.risk[0]), 4), round(float(torch.tensor(-4.0).exp()), 4)
        (0.0183, 0.0183)
    """

    moments: Callable[[Tensor], Tensor]
    risk: Callable[[Tensor], Tensor]

    def at(self, r: Tensor) -> tuple[float, Tensor]:
        """R and -M dR/dr, (M, k)."""
        leaf = r.detach().requires_grad_()
        with torch.enable_grad():
            risk = self.risk(self.moments(leaf).mean(0))
            (slope,) = torch.autograd.grad(risk, leaf)
        return float(risk.detach()), -len(r) * slope

    def follow(
        self, start: Tensor, times: list[float], schedule: Callable[[float], float] = lambda t: 1.0, tolerance: float = 1e-8
    ) -> ClosedFlow:
        """Integrate from time 0, looking at ``times`` (increasing), by scipy's adaptive Runge-Kutta method.

        Args:
            start: (M, k), the particles' coordinates.
            times: of the looks.
            schedule: xi.
            tolerance: relative and absolute, of a coordinate.

        Raises:
            RichError: for times that do not increase, or a flow that cannot be integrated.
        """
        from scipy.integrate import solve_ivp  # slow to import, and nothing else in the room needs it

        if not times or sorted(set(times)) != list(times) or times[0] < 0:
            raise RichError(f"got times {times}, expected increasing times from 0 on")
        shape = start.shape

        def slope(t: float, flat: np.ndarray) -> np.ndarray:
            r = torch.from_numpy(flat).reshape(shape)
            return (schedule(t) * self.at(r)[1]).flatten().numpy()

        y0 = start.double().flatten().numpy()
        span = (0.0, times[-1] or 1e-12)
        found = solve_ivp(slope, span, y0, t_eval=times, rtol=tolerance, atol=tolerance)
        if not found.success or not np.isfinite(found.y).all():
            raise RichError(f"the flow cannot be followed beyond time {found.t[-1] if len(found.t) else 0:g}: {found.message}")
        looks = torch.from_numpy(found.y.T.copy()).reshape(len(times), *shape)
        risks = torch.tensor([self.at(r)[0] for r in looks], dtype=torch.float64)
        return ClosedFlow(torch.tensor(times, dtype=torch.float64), looks, risks)


@dataclass(frozen=True)
class ClosedFlow:
    """Particles of a closed flow at each look.

    Attributes:
        times: (looks,).
        coordinates: of M particles with k numbers each, (looks, M, k).
        risk: (looks,).

    Example:
        >>> flow = Closure(lambda r: r, lambda m: (1 - m[0]) ** 2).follow(torch.zeros(5, 1).double(), [0.0, 1.0])
        >>> flow.coordinates.shape, flow.rows()[0]["risk"]
        (torch.Size([2, 5, 1]), 1.0)
    """

    times: Tensor
    coordinates: Tensor
    risk: Tensor

    def rows(self) -> list[dict[str, Any]]:
        """One row a look."""
        means = self.coordinates.mean(1)
        return [
            {"time": float(t), "risk": float(r)} | {f"mean_{i}": float(v) for i, v in enumerate(mean)}
            for t, r, mean in zip(self.times, self.risk, means, strict=True)
        ]
