"""Gram matrices that are known by their products with vectors."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lazyrich.amount import counted
from lazyrich.errors import KernelError, StoreError
from lazyrich.files import read_json
from lazyrich.inference.layout import finite, symmetric, tensor


@runtime_checkable
class Operator(Protocol):
    """Anything with ``shape`` (N, N) and ``matvec``, which takes (N, R) to K times it, (N, R).

    For preconditioning it may also have ``diagonal()`` -> (N,) and ``row(i)`` -> (N,).
    """

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        ...

    def matvec(self, v: Tensor) -> Tensor:
        """K v for v of shape (N, R)."""
        ...


class Dense:
    """A Gram matrix in memory as an operator.

    Example:
        >>> Dense(2 * torch.eye(2)).matvec(torch.ones(2, 1)).T
        tensor([[2., 2.]], dtype=torch.float64)
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = tensor(matrix, "matrix").to(torch.float64)
        if self.matrix.ndim != 2:
            raise KernelError(f"got matrix of shape {tuple(self.matrix.shape)}, expected (N, N): a row a sample")

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        return self.matrix.shape[0], self.matrix.shape[1]

    def matvec(self, v: Tensor) -> Tensor:
        """K v."""
        return self.matrix @ v.to(torch.float64)

    def diagonal(self) -> Tensor:
        """The diagonal, (N,)."""
        return self.matrix.diagonal()

    def row(self, i: int) -> Tensor:
        """Row i, (N,)."""
        return self.matrix[i]


class Streamed:
    """A Gram matrix that is never whole in memory: its rows come in blocks from a function or a file.

    Args:
        rows: ``rows(start, stop)`` -> K[start:stop], (stop - start, N), in any floating dtype.
        samples: N.
        block: rows at a time; memory is block N numbers.

    Example:
        >>> x = torch.arange(4.0)
        >>> k = Streamed(lambda i, j: torch.outer(x[i:j], x), samples=4, block=3)
        >>> k.matvec(torch.ones(4, 1)).T
        tensor([[ 0.,  6., 12., 18.]], dtype=torch.float64)
    """

    def __init__(self, rows: Callable[[int, int], Tensor], samples: int, block: int = 1024) -> None:
        if not callable(rows):
            raise KernelError(f"got rows {rows!r}, expected a function of start and stop; pass lambda i, j: gram[i:j]")
        self.rows, self.samples, self.block = (
            rows,
            counted("samples", samples, refusal=KernelError),
            counted("block", block, refusal=KernelError),
        )
        self._diagonal: Tensor | None = None

    @classmethod
    def mapped(cls, gram: str | os.PathLike[str] | np.memmap, block: int = 256) -> Streamed:
        """A Gram matrix in an .npy file, as ``lazyrich.lazy.write_gram`` writes it, or such a file's mapping.

        The file is read, not mapped, so that no more than a block of it counts as memory.

        Raises:
            KernelError: if the file is missing, no .npy file, not square, or half written: blocks are missing in the record
                that ``write_gram`` keeps beside it.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     np.save(f"{folder}/gram.npy", 2 * np.eye(3))
            ...     Streamed.mapped(f"{folder}/gram.npy").matvec(torch.ones(3, 1)).T
            tensor([[2., 2., 2.]], dtype=torch.float64)
        """
        try:
            found = gram if isinstance(gram, np.memmap) else np.load(gram, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise KernelError(f"cannot read a Gram matrix from {gram}: {error}; give an .npy file of shape (N, N)") from error
        if found.ndim != 2 or found.shape[0] != found.shape[1]:
            name = found.filename if isinstance(gram, np.memmap) else gram
            raise KernelError(f"{name} holds an array of shape {found.shape}, expected (N, N)")
        if isinstance(found, np.memmap) and found.filename is not None:
            _refuse_half_written(Path(found.filename))
        return cls(lambda i, j: _read(found, i, j), len(found), block)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        return self.samples, self.samples

    def matvec(self, v: Tensor) -> Tensor:
        """K v, block by block."""
        v = v.to(torch.float64)
        return torch.cat([self._rows(i, min(i + self.block, self.samples)) @ v for i in range(0, self.samples, self.block)])

    def diagonal(self) -> Tensor:
        """The diagonal, (N,); one pass over the rows, remembered."""
        if self._diagonal is None:
            starts = range(0, self.samples, self.block)
            blocks = [
                self._rows(i, min(i + self.block, self.samples)).diagonal(i).clone() for i in starts
            ]  # a view keeps its block
            self._diagonal = torch.cat(blocks)
        return self._diagonal

    def row(self, i: int) -> Tensor:
        """Row i, (N,)."""
        return self._rows(i, i + 1)[0]

    def _rows(self, start: int, stop: int) -> Tensor:
        found = torch.as_tensor(self.rows(start, stop))  # a memory map of numpy's gives its own
        if tuple(found.shape) != (stop - start, self.samples):
            raise KernelError(
                f"got rows({start}, {stop}) of shape {tuple(found.shape)}, expected ({stop - start}, {self.samples})"
            )
        return found.to(torch.float64)


def _refuse_half_written(path: Path) -> None:
    """By the record of ``write_gram`` beside the file; a matrix without one, or with another file of that name, is the user's."""
    beside = path.with_name(path.name + ".json")
    try:
        found = read_json(beside)
    except StoreError:
        return
    if not isinstance(found, dict) or not {"identity", "shape", "block", "done"} <= set(found):
        return
    try:
        side = math.ceil(found["shape"][0] / found["block"])
        done = {int(i) for i in found["done"]}
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise KernelError(f"got {beside}, expected the record of a matrix's blocks ({error}); remove both files") from error
    whole = side * (side + 1) // 2
    if missing := len(set(range(whole)) - done):
        raise KernelError(
            f"got {path} with {missing} of its {whole} blocks missing, expected a whole Gram matrix; the same call of write_gram "
            "finishes it"
        )


def _read(gram: np.memmap, start: int, stop: int) -> Tensor:
    """Rows of a mapped matrix, from its file where it is the whole of it."""
    path, row = gram.filename, gram.strides[0]
    if path is None or not gram.flags.c_contiguous or gram.offset + gram.nbytes != os.path.getsize(path):
        return torch.from_numpy(np.array(gram[start:stop]))
    values = np.fromfile(path, gram.dtype, (stop - start) * len(gram), offset=gram.offset + start * row)
    return torch.from_numpy(values.reshape(stop - start, len(gram)))


def operator_of(gram: Any, name: str) -> Operator:
    """An operator as it is, and a matrix in memory as one.

    Raises:
        KernelError: for what is neither an operator nor a symmetric matrix of finite numbers.

    Example:
        >>> operator_of(torch.eye(3), "gram").shape
        (3, 3)
    """
    if not isinstance(gram, Tensor) and hasattr(gram, "matvec"):
        return gram
    return Dense(symmetric(tensor(gram, name), name).detach().cpu())  # random starts are drawn on the CPU


def columns_of(operator: Operator, v: Tensor) -> Tensor:
    """K v with its shape and its numbers checked.

    Raises:
        KernelError: if the product has another shape than v, or is not finite.
    """
    product = operator.matvec(v)
    if tuple(product.shape) != tuple(v.shape):
        raise KernelError(f"got matvec of {tuple(v.shape)} -> {tuple(product.shape)}, expected the same shape")
    return finite(product, "a product of the operator")
