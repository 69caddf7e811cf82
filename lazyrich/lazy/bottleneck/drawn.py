"""A function drawn from a Gaussian process, one that can be asked anywhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.lazy.bottleneck.gauss import generator, normal
from lazyrich.lazy.bottleneck.side import Side, counted, gram


class DrawnFunction:
    """g ~ GP(0, K) with d independent outputs: the same function at every call, differentiable by autograd.

    It is drawn where it is asked. g(u) = K(u, Z) K(Z, Z)^{-1} g(Z) passes through the values at the centres Z. Where the
    conditional variance K(u, u) - K(u, Z) K(Z, Z)^{-1} K(Z, u) exceeds ``tolerance`` K(u, u), u becomes a centre and its value
    is drawn from the conditional law, so the values have the law of the process up to that variance. Points asked earlier see
    later centres only within the tolerance.

    Args:
        side: its ``nngp`` is K; of a decoder, say.
        outputs: d.
        seed: of the draw.
        tolerance: relative conditional variance below which g is interpolated. Gradients are those of the interpolant: their
            error is about sqrt(tolerance) over the kernel's length for smooth activations. The kernels of rectifiers have a kink:
            they need 1e-5 or so, and their gradients converge slowly.
        most: centres it may take (a draw costs their number cubed).

    Raises:
        KernelError: for a tolerance outside [1e-12, 1), and when more centres would be needed.

    Example:
        >>> class Linear:
        ...     def nngp(self, x1, x2=None):
        ...         return x1 @ (x1 if x2 is None else x2).T
        ...     ntk = nngp
        >>> g = DrawnFunction(Linear(), outputs=3)
        >>> one = torch.ones(1, 2, dtype=torch.float64)
        >>> bool(torch.allclose(g(2 * one), 2 * g(one)))  # a draw of a linear function
        True
    """

    def __init__(self, side: Side, outputs: int, seed: int = 0, tolerance: float = 1e-9, most: int = 400) -> None:
        if not 1e-12 <= tolerance < 1:
            raise KernelError(f"got tolerance={tolerance!r}, expected one in [1e-12, 1): float64 resolves no smaller variance")
        self.side, self.outputs, self.tolerance = side, counted(outputs, "outputs"), tolerance
        self.most, self._rng = counted(most, "most"), generator(seed)
        self.centres = torch.empty(0, 0, dtype=torch.float64)
        self._lower = torch.empty(0, 0, dtype=torch.float64)  # Cholesky factor of K(Z, Z)
        self._white = torch.empty(0, self.outputs, dtype=torch.float64)  # g(Z) = lower @ white

    def __call__(self, u: Tensor) -> Tensor:
        """Values at the rows of u: (N, k) -> (N, d)."""
        self._cover(u.detach())
        weights = torch.linalg.solve_triangular(self._lower.T, self._white, upper=True)
        return gram(self.side.nngp(u, self.centres), (len(u), len(self.centres)), "nngp") @ weights

    def _cover(self, u: Tensor) -> None:
        """Take centres among the rows of u, the most uncertain first, until every row is certain enough."""
        with torch.no_grad():
            own = gram(self.side.nngp(u), (len(u), len(u)), "nngp")
            if not len(self.centres):
                self.centres = u[:0]
            cross = self.side.nngp(self.centres, u) if len(self.centres) else own[:0]
            seen = torch.linalg.solve_triangular(self._lower, cross, upper=False)  # (M, N)
            variance = own.diagonal().clone()
            unknown = variance - seen.square().sum(0)
            while float((unknown / variance.clamp(min=1e-300)).max()) > self.tolerance:
                at = int((unknown / variance.clamp(min=1e-300)).argmax())
                spread = math.sqrt(float(unknown[at]))
                row = (own[at] - seen[:, at] @ seen) / spread
                self._add(u[at], seen[:, at], spread)
                seen = torch.cat([seen, row[None]])
                unknown = unknown - row.square()

    def _add(self, point: Tensor, row: Tensor, spread: float) -> None:
        m = len(self.centres)
        if m >= self.most:
            raise KernelError(
                f"got more than most={self.most} centres for a drawn function (tolerance={self.tolerance:.1g}), expected "
                "fewer; a kernel with a kink (rectifiers) needs tolerance=1e-5; or raise most=, or start from a wide frozen decoder"
            )
        lower = torch.zeros(m + 1, m + 1, dtype=torch.float64)
        lower[:m, :m], lower[m, :m], lower[m, m] = self._lower, row, spread
        self._lower, self.centres = lower, torch.cat([self.centres, point[None]])
        self._white = torch.cat([self._white, normal(self._rng, 1, self.outputs)])
