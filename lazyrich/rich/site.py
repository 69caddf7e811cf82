"""One neuron of a layer, driven by its own noise: what is random in the limit, by samples or exactly for linear networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lazyrich.rich.basis import Basis
from lazyrich.rich.curve import Curve
from lazyrich.rich.noise import Noise


class Derivatives:
    """Derivatives of functions with respect to the noise directions met so far, (K, D, S) with room to grow."""

    def __init__(self, like: Tensor) -> None:
        self.count, self.room = 0, like.new_zeros(8, 8, like.shape[-1])

    def grow(self, count: int, directions: int) -> None:
        """Room for more functions and directions; derivatives with respect to noise not met yet are zero."""
        k, d, s = self.room.shape
        if count > k or directions > d:
            bigger = self.room.new_zeros(max(k, int(1.5 * count)) if count > k else k, max(d, int(1.5 * directions)), s)
            bigger[: self.count, :d] = self.room[: self.count]
            self.room = bigger

    def combine(self, coefficients: Tensor, directions: int) -> Tensor:
        """sum_k c_pk dq_k, (p, D, S)."""
        self.grow(self.count, directions)
        s, k = self.room.shape[-1], coefficients.shape[1]
        flat = self.room.reshape(len(self.room), -1)[:k, : directions * s]
        return (coefficients @ flat).reshape(len(coefficients), directions, s)

    def append(self, rows: Tensor, made: list[tuple[int, Tensor, float]]) -> None:
        """Derivatives of new functions of a basis, made from rows (p, D, S) as ``Basis.take`` says."""
        for row, before, norm in made:
            fresh = (rows[row] - self.combine(before[None], rows.shape[1])[0]) / norm
            self.grow(self.count + 1, rows.shape[1])
            self.room[self.count, : rows.shape[1]] = fresh
            self.count += 1


class Site:
    """A neuron of layer l: pre-activations h from above noise xi, back-propagated fields z from below noise zeta.

        h_t = sum_k a_tk xi_k + beta + sum_k c_tk gamma_k,   z_t = sum_k b_tk zeta_k + sum_k e_tk phi_k,   g_t = z_t phi'(h_t)

    phi_k, gamma_k are the orthonormal bases of the phi(h_s), g_s met so far. Gaussian noise enters by samples; the responses
    <dphi(h_t)/dzeta_k>, <dg_t/dxi_k> are means of derivatives that are carried along, or for kinked phi (where phi'' misses
    what is at the kink) correlations <phi(h_t) zeta_k>, <g_t xi_k>, with what they are without feature learning, whose mean
    is zero, taken off.
    """

    def __init__(
        self,
        curve: Curve,
        noise: Noise,
        beta: Tensor,
        tolerance: float,
        derivatives: bool,
        above: Iterable[Tensor] = (),
        below: Iterable[Tensor] = (),
    ) -> None:
        self.curve, self.draw, self.beta = curve, noise.draw, beta
        self.above, self.below = iter(above), iter(below)  # the first xi and zeta, where they have a law of their own
        first = beta
        self.features, self.gradients = (Basis(first, 1 / len(first), tolerance) for _ in range(2))
        self.noises: list[Tensor] = []
        self.xi: list[int] = []
        self.zeta: list[int] = []
        self.derivatives = derivatives
        if derivatives:
            self.d_features, self.d_gradients = Derivatives(first), Derivatives(first)

    def held(self) -> int:
        """Bytes of what is kept for the steps to come."""
        kept = [*self.noises, self.features.values, self.gradients.values]
        kept += [self.d_features.room, self.d_gradients.room] if self.derivatives else []
        return sum(t.numel() * t.element_size() for t in kept)

    def _field(self, of: list[int], given: Iterator[Tensor], coefficients: Tensor) -> Tensor:
        while len(of) < coefficients.shape[1]:
            of.append(len(self.noises))
            self.noises.append(self.draw(next(given, None)))
        return coefficients @ torch.stack([self.noises[i] for i in of])

    def _seeds(self, of: list[int], coefficients: Tensor) -> Tensor:
        seeds = coefficients.new_zeros(len(coefficients), len(self.noises))
        seeds[:, of] = coefficients
        return seeds[:, :, None]

    def forward(self, above: Tensor, learned: Tensor) -> Tensor:
        """H of rows: coefficients on xi (p, .) and on the gradients met so far (p, .); keeps h for ``backward``."""
        u = self._field(self.xi, self.above, above) + self.beta
        self.u, self.h = u, u + learned @ self.gradients.values
        self.phi, self.slope, self.bend = self.curve.jet(self.h)
        if self.derivatives:
            self.d_h = self._seeds(self.xi, above) + self.d_gradients.combine(learned, len(self.noises))
            self.d_phi = self.slope[:, None] * self.d_h
        return self.h

    def take_features(self) -> Tensor:
        """phi(h) of the rows in the basis of features, which grows."""
        found, made = self.features.take(self.phi)
        if self.derivatives:
            self.d_features.append(self.d_phi, made)
        return found

    def feature_response(self) -> Tensor:
        """<dphi(h)/dzeta_k>, (p, .)."""
        if self.derivatives:
            return self.d_phi[:, self.zeta].mean(2)
        return self._correlation(self.phi - self.curve.phi(self.u), self.zeta)

    def backward(self, below: Tensor, learned: Tensor, outputs: int) -> Tensor:
        """G of rows (p, C): coefficients on zeta (p C, .) and on the features (p C, .)."""
        r = self._field(self.zeta, self.below, below)
        z = r + learned @ self.features.values
        slope = self.slope.repeat_interleave(outputs, 0)
        self.g = z * slope
        if self.derivatives:
            d_z = self._seeds(self.zeta, below) + self.d_features.combine(learned, len(self.noises))
            d_h = torch.nn.functional.pad(self.d_h, (0, 0, 0, len(self.noises) - self.d_h.shape[1]))
            bend = self.bend.repeat_interleave(outputs, 0)
            self.d_g = slope[:, None] * d_z + (bend * z)[:, None] * d_h.repeat_interleave(outputs, 0)
        else:
            self.still = r * self.curve.jet(self.u)[1].repeat_interleave(outputs, 0)
        return self.g

    def take_gradients(self) -> Tensor:
        """G of the rows in the basis of gradients, which grows."""
        found, made = self.gradients.take(self.g)
        if self.derivatives:
            self.d_gradients.append(self.d_g, made)
        return found

    def gradient_response(self) -> Tensor:
        """<dg/dxi_k>, (p C, .)."""
        if self.derivatives:
            return self.d_g[:, self.xi].mean(2)
        return self._correlation(self.g - self.still, self.xi)

    def _correlation(self, rows: Tensor, of: list[int]) -> Tensor:
        if not of:
            return rows.new_zeros(len(rows), 0)
        return rows @ torch.stack([self.noises[i] for i in of]).T / rows.shape[1]
