"""How Gram matrices and targets are laid out: one kernel shared by all outputs, or one with axes for outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyrich.errors import KernelError

# the largest |K - K^T| / max|K| that rounding explains, by the precision the Gram comes in
_ASYMMETRY = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Layout:
    """The axes of one problem: N samples, K outputs.

    Attributes:
        samples: N.
        outputs: K.
        full: Grams are (N, K, N, K) and act on all outputs at once; otherwise (N, N), shared by the outputs.
        flat: the targets came as (N,), so results lose their output axis too.
        device: where the Grams are.
    """

    samples: int
    outputs: int
    full: bool
    flat: bool
    device: torch.device = field(default=torch.device("cpu"), repr=False)

    def gram(self, gram: Tensor, name: str) -> Tensor:
        """A Gram matrix of the training inputs with themselves as a symmetric float64 matrix, (N, N) or (N K, N K)."""
        matrix = symmetric(self._matrix(gram, name), name)
        expected = self.samples * (self.outputs if self.full else 1)
        if len(matrix) != expected:
            raise KernelError(f"got {name} of shape {_shape(gram)}, expected one for {self.samples} training samples")
        return matrix

    def square(self, gram: Tensor, name: str, rows: int) -> Tensor:
        """A Gram matrix of ``rows`` inputs with themselves, as a symmetric float64 matrix."""
        return Layout(rows, self.outputs, self.full, self.flat, self.device).gram(gram, name)

    def cross(self, gram: Tensor, name: str) -> Tensor:
        """A Gram matrix of M inputs with the training inputs as a float64 matrix, (M, N) or (M K, N K)."""
        matrix = self._matrix(gram, name)
        if matrix.shape[1] != self.samples * (self.outputs if self.full else 1):
            raise KernelError(
                f"got {name} of shape {_shape(gram)}, expected (inputs, {self.samples}): one column a training sample; "
                "transpose it if its rows are the training samples"
            )
        return finite(matrix, name)

    def columns(self, values: Tensor | None, name: str, rows: int | None = None) -> Tensor:
        """Targets or outputs as float64 columns, (N, K) or (N K, 1); zeros for None."""
        rows = self.samples if rows is None else rows
        if values is None:
            found = torch.zeros(rows, self.outputs, dtype=torch.float64, device=self.device)
        else:
            found = tensor(values, name).to(self.device, torch.float64)
            expected = (rows,) if self.flat else (rows, self.outputs)
            if tuple(found.shape) not in {expected, (rows, self.outputs)}:
                raise KernelError(f"got {name} of shape {_shape(found)}, expected {expected}")
            found = finite(found.reshape(rows, self.outputs), name)
        return found.reshape(-1, 1) if self.full else found

    def restore(self, columns: Tensor) -> Tensor:
        """Columns (..., N, K) or (..., N K, 1) as the caller lays outputs out: (..., N, K), or (..., N) for flat targets."""
        found = columns.reshape(*columns.shape[:-2], -1, self.outputs)
        return found.squeeze(-1) if self.flat else found

    def restore_covariance(self, matrix: Tensor) -> Tensor:
        """A covariance (..., M, M), or (..., M, K, M, K) where outputs have axes of their own."""
        if not self.full or self.flat:
            return matrix
        rows, k = matrix.shape[-1] // self.outputs, self.outputs
        return matrix.reshape(*matrix.shape[:-2], rows, k, rows, k)

    def restore_variance(self, vector: Tensor) -> Tensor:
        """A diagonal (..., M), or (..., M, K) where outputs have axes of their own."""
        return vector.reshape(*vector.shape[:-1], -1, self.outputs) if self.full and not self.flat else vector

    def _matrix(self, gram: Tensor, name: str) -> Tensor:
        found = tensor(gram, name)
        if found.ndim == 4 and self.full:
            a, k, b, j = found.shape
            if (k, j) != (self.outputs, self.outputs):
                raise KernelError(
                    f"got {name} of shape {_shape(found)}, expected output axes of {self.outputs}, as the targets"
                )
            return found.reshape(a * k, b * j)
        if found.ndim != 2:
            raise KernelError(f"got {name} of shape {_shape(found)}, expected (rows, columns), or (rows, K, columns, K)")
        return torch.kron(found, torch.eye(self.outputs, dtype=found.dtype, device=found.device)) if self.full else found


def check_starts(test: Tensor | None, f0_train: Tensor | None, f0_test: Tensor | None) -> None:
    """Refuse initial outputs on one side alone, which would leave the other at zero unasked.

    Raises:
        KernelError: for ``f0_train`` without ``f0_test`` where there are test inputs, and for the reverse.
    """
    if test is None and f0_test is not None:
        raise KernelError("got f0_test without theta_td, expected test inputs to go with it; pass theta_td=")
    if test is not None and (f0_train is None) != (f0_test is None):
        got, missing = ("f0_train", "f0_test") if f0_test is None else ("f0_test", "f0_train")
        raise KernelError(f"got {got} without {missing}, expected the initial outputs of one network on both; pass {missing}=")


def layout_of(y: Tensor, *grams: Tensor | None) -> Layout:
    """The layout of a problem from its targets, (N,) or (N, K), and its Grams; full as soon as one of them is.

    Raises:
        KernelError: for targets that are neither (N,) nor (N, K), or are empty.

    Example:
        >>> layout_of(torch.zeros(5, 3), torch.eye(5))
        Layout(samples=5, outputs=3, full=False, flat=False)
    """
    y, grams = tensor(y, "y"), tuple(tensor(gram, "the Gram") for gram in grams if gram is not None)
    if y.ndim not in (1, 2) or y.numel() == 0:
        raise KernelError(f"got y of shape {_shape(y)}, expected (N,) or (N, K) with at least one sample")
    full = any(gram.ndim == 4 for gram in grams)
    device = next((gram.device for gram in grams), y.device)
    return Layout(len(y), 1 if y.ndim == 1 else y.shape[1], full, y.ndim == 1, device)


def symmetric(gram: Tensor, name: str) -> Tensor:
    """A finite, square, symmetric matrix in float64; what rounding left asymmetric is averaged.

    Raises:
        KernelError: for a matrix that is not square, not finite, or asymmetric beyond rounding.
    """
    gram = tensor(gram, name)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or gram.numel() == 0:
        raise KernelError(f"got {name} of shape {_shape(gram)}, expected a square matrix with a row a sample")
    tolerance = _ASYMMETRY.get(gram.dtype, 1e-8)
    matrix = finite(gram.to(torch.float64), name)
    gap, size = float((matrix - matrix.T).detach().abs().max()), float(matrix.detach().abs().max())
    if gap > tolerance * size:
        raise KernelError(
            f"got {name} that is not symmetric: entries differ by {gap:.2g} from their mirror images where the largest is "
            f"{size:.2g}, expected K(x, x') = K(x', x); pass the Gram of the training inputs with themselves"
        )
    return (matrix + matrix.T) / 2


def finite(values: Tensor, name: str) -> Tensor:
    """The values themselves, in float64.

    Raises:
        KernelError: where a value is NaN or infinite.
    """
    wrong = ~torch.isfinite(values.detach())
    if wrong.any():
        where = tuple(int(i) for i in wrong.nonzero()[0])
        raise KernelError(f"got {name} with {int(wrong.sum())} values that are not finite (first at {where}), expected numbers")
    return values.to(torch.float64)


def precision(gram: Tensor) -> float:
    """The rounding error of the numbers that a Gram came in, relative to the largest: eps of its dtype.

    Example:
        >>> precision(torch.eye(2)) == torch.finfo(torch.float32).eps
        True
    """
    gram = tensor(gram, "the Gram")
    return float(torch.finfo(gram.dtype if gram.is_floating_point() else torch.float64).eps)


def tensor(values: Any, name: str) -> Tensor:
    """The values as a tensor of real numbers.

    Raises:
        KernelError: for anything else.
    """
    try:
        # by way of numpy, since torch reads a Python number in float32
        found = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise KernelError(f"got {name} of type {type(values).__name__}, expected a tensor") from error
    if found.is_complex():
        raise KernelError(f"got {name} of {found.dtype}, expected real numbers")
    return found


def _shape(values: Tensor) -> tuple[int, ...]:
    return tuple(values.shape)
