"""Functions of one neuron's noise, and an orthonormal basis of those that were met so far."""

from __future__ import annotations

import torch
from torch import Tensor


class Basis:
    """Orthonormal functions q_k with <q_j q_k> = delta_jk that span all rows met so far, up to a tolerance.

    A row f_t = sum_k c_tk q_k + rest; a rest with <rest^2> > tolerance <f_t^2> becomes the next function. Since kernels of a
    smooth training are of low rank in time, few are needed, and nothing of the past has to be stored but coefficients.

    Attributes:
        values: (K, S), the functions at S samples.
        weight: of a sample in the mean <.>, 1/S.
    """

    def __init__(self, like: Tensor, weight: float, tolerance: float) -> None:
        self.values = like.new_zeros(0, like.shape[-1])
        self.weight, self.tolerance = weight, tolerance

    def __len__(self) -> int:
        return len(self.values)

    def coefficients(self, rows: Tensor) -> Tensor:
        """<f q_k>, (rows, K)."""
        return self.weight * rows @ self.values.T

    def take(self, rows: Tensor) -> tuple[Tensor, list[tuple[int, Tensor, float]]]:
        """Coefficients of rows (p, S) in the basis, which grows where it must.

        Returns:
            Coefficients (p, K), and for each new function: the row that made it, that row's coefficients on the earlier
            functions, and the norm that it was divided by; whoever keeps derivatives of the functions repeats these steps.
        """
        norms = self.weight * rows.square().sum(1)
        first = self.coefficients(rows)
        rests = rows - first @ self.values
        again = self.coefficients(rests)
        rests, found = rests - again @ self.values, first + again
        old, made, new = len(self), [], []
        for i in range(len(rows)):
            rest, mine = rests[i], []
            for _ in range(2 if new else 0):
                block = torch.stack(new)
                part = self.weight * block @ rest
                rest = rest - part @ block
                mine.append(part)
            inner = sum(mine) if mine else rows.new_zeros(0)
            size = float(self.weight * rest.square().sum())
            assert isinstance(inner, Tensor)
            found = torch.nn.functional.pad(found, (0, old + len(new) - found.shape[1]))
            found[i, old:] = inner
            if size > self.tolerance * float(norms[i]) and size > 1e-280:
                made.append((i, found[i].clone(), size**0.5))
                found = torch.nn.functional.pad(found, (0, 1))
                found[i, -1] = size**0.5
                new.append(rest / size**0.5)
        if new:
            self.values = torch.cat([self.values, torch.stack(new)])
        return found, made
