"""Data held in memory, cut into batches that depend on nothing but a seed and a step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torch import Tensor

from lazyrich.amount import counted
from lazyrich.errors import DataError


@dataclass(frozen=True, eq=False)
class ArrayData:
    """Samples x and targets y of equal length.

    Attributes:
        x: samples, (N, ...): numbers in floating point (float32 as ``load`` makes them), or int64 tokens.
        y: labels or tokens, int64 (N, ...), or numbers in floating point, (N, ...).
        name: what the data is called in reports.
        classes: number of classes; counted from the labels unless given, kept by ``subset``; None when y is numbers.

    Raises:
        DataError: if x is empty, not finite or of another dtype, the lengths differ, or a label is not in 0..classes-1.

    Example:
        >>> data = ArrayData(torch.randn(10, 3), torch.arange(10) % 2, "toy")
        >>> len(data), data.classes
        (10, 2)
    """

    x: Tensor
    y: Tensor
    name: str = "arrays"
    classes: int | None = None

    def __post_init__(self) -> None:
        _refuse_bad_tensors(self.x, self.y, self.name)
        if self.y.is_floating_point():
            if self.classes is not None:
                raise DataError(f"'{self.name}' has classes = {self.classes} but numbers as targets; leave classes out")
            return
        low, high = int(self.y.min()), int(self.y.max())
        classes = high + 1 if self.classes is None else counted("classes", self.classes, refusal=DataError)
        if low < 0:
            raise DataError(f"'{self.name}' has the label {low}; labels count from 0, renumber them")
        if high >= classes:
            raise DataError(f"'{self.name}' has the label {high}, expected labels below classes = {classes}; renumber them")
        object.__setattr__(self, "classes", classes)

    def __repr__(self) -> str:
        shape, of_targets = tuple(self.x.shape[1:]), tuple(self.y.shape[1:])
        what = "targets" if self.classes is None else f"labels of {self.classes} classes"
        return f"{self.name}: {len(self)} samples {shape}, {what}" + (f" {of_targets}" if of_targets else "")

    def __len__(self) -> int:
        return len(self.x)

    def subset(self, n: int, seed: int = 0) -> ArrayData:
        """N samples chosen by a seed, the same ones every time; the number of classes stays.

        Raises:
            DataError: if there are fewer than n.

        Example:
            >>> data = ArrayData(torch.arange(6.0), torch.arange(6))
            >>> few = data.subset(2)
            >>> len(few), few.classes
            (2, 6)
        """
        if not isinstance(n, Integral) or not 0 < n <= len(self):
            raise DataError(f"got n = {n!r}, expected between 1 and the {len(self)} samples of '{self.name}'")
        chosen = _permutation(len(self), seed)[:n].to(self.x.device)
        return replace(self, x=self.x[chosen], y=self.y[chosen])

    def only(self, classes: Sequence[int]) -> ArrayData:
        """The samples of some classes, whose labels count from 0 in the order given.

        Raises:
            DataError: for targets that are no classes, fewer than two classes, or one that has no samples.

        Example:
            >>> digits = ArrayData(torch.arange(6.0), torch.tensor([0, 3, 8, 8, 1, 3]), "toy").only([3, 8])
            >>> digits.x.tolist(), digits.y.tolist(), digits.classes
            ([1.0, 2.0, 3.0, 5.0], [0, 1, 1, 0], 2)
        """
        if self.y.is_floating_point() or self.y.dim() != 1:
            raise DataError(f"'{self.name}' has no classes to choose from, only numbers or rows as targets")
        classes = classes.tolist() if hasattr(classes, "tolist") else classes  # of a tensor or an array
        if not isinstance(classes, Sequence) or isinstance(classes, str) or not all(isinstance(c, Integral) for c in classes):
            raise DataError(f"got classes {classes!r}, expected two or more labels, such as [3, 8]")
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise DataError(f"got classes {', '.join(map(str, classes))}, expected two or more different ones")
        for label in classes:
            if not bool((self.y == label).any()):
                raise DataError(f"'{self.name}' has no sample of class {label}; its classes are 0 to {(self.classes or 1) - 1}")
        renamed = torch.full((self.classes or 0,), -1)
        renamed[list(classes)] = torch.arange(len(classes))
        y = renamed.to(self.y.device)[self.y]
        kept = y >= 0
        return replace(self, x=self.x[kept], y=y[kept], classes=len(classes), name=f"{self.name} {' '.join(map(str, classes))}")

    def batch(self, size: int, step: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The batch of a step: every epoch visits every sample once, in an order that seed and epoch alone decide.

        A batch that would run over the end of an epoch goes on into the next; one larger than the data is all of it.

        Args:
            size: samples in the batch, at least 1.
            step: which batch, from 0.
            seed: of the orders; no generator but its own is touched.

        Raises:
            DataError: if size or step is too small.

        Example:
            >>> data = ArrayData(torch.arange(6.0), torch.arange(6.0))
            >>> sorted(torch.cat([data.batch(2, step)[0] for step in range(3)]).tolist())
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        """
        if not isinstance(size, Integral) or not isinstance(step, Integral) or size < 1 or step < 0:
            raise DataError(f"got batch size {size!r} at step {step!r}, expected a size of at least 1 and steps from 0")
        size, n = min(size, len(self)), len(self)
        epoch, first = divmod(step * size, n)
        chosen = _permutation(n, seed, epoch)[first : first + size]
        if len(chosen) < size:
            chosen = torch.cat([chosen, _permutation(n, seed, epoch + 1)[: size - len(chosen)]])
        chosen = chosen.to(self.x.device)
        return self.x[chosen], self.y[chosen]

    def flatten(self) -> ArrayData:
        """The same samples as vectors, (N, d)."""
        return replace(self, x=_flat(self.x))

    def as_autoencoder(self) -> ArrayData:
        """The same samples with themselves, flattened to (N, d), as targets."""
        return replace(self, y=_flat(self.x), classes=None)

    def standardize(self) -> ArrayData:
        """Inputs with mean 0 and variance 1 over all entries, so that ||x||^2 is about d, as the theory assumes.

        Mean and variance are one number each, over samples and entries together.

        Raises:
            DataError: if x is tokens, or all its entries are equal.
        """
        if not self.x.is_floating_point():
            raise DataError(f"the inputs of '{self.name}' are {self.x.dtype} tokens, which have no scale; pass x.float()")
        spread = self.x.std(correction=0)
        if self.x.min() == self.x.max() or spread == 0:
            raise DataError(f"all inputs of '{self.name}' are equal; there is nothing to learn from them")
        return replace(self, x=(self.x - self.x.mean()) / spread)

    def fingerprint(self) -> str:
        """A short sha256 of the contents of x and y, their shapes and dtypes; the name does not enter.

        Example:
            >>> ArrayData(torch.zeros(2, 1), torch.tensor([0, 1])).fingerprint()
            'e5c5549782f088fc'
        """
        digest = hashlib.sha256()
        for tensor in (self.x, self.y):
            digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


def _refuse_bad_tensors(x: Tensor, y: Tensor, name: str) -> None:
    for what, values in (("inputs", x), ("targets", y)):
        if not isinstance(values, Tensor):
            raise DataError(
                f"the {what} of '{name}' are {type(values).__name__}, expected a tensor; load((x, y)) makes tensors of arrays"
            )
    if x.dim() < 1 or x.numel() == 0:
        raise DataError(f"'{name}' is empty: got inputs of shape {tuple(x.shape)}, expected (N, ...) with N at least 1")
    if y.dim() < 1 or y.numel() == 0:
        raise DataError(f"'{name}' has targets of shape {tuple(y.shape)}, expected ({len(x)}, ...), one for each input")
    if len(x) != len(y):
        raise DataError(f"'{name}' has {len(x)} inputs and {len(y)} targets; they must pair up")
    for what, values in (("inputs", x), ("targets", y)):
        if not values.is_floating_point() and values.dtype != torch.int64:
            raise DataError(
                f"the {what} of '{name}' are {values.dtype}, expected floating point or int64; "
                "convert them, or let load((x, y)) do it"
            )
        if values.is_floating_point() and not torch.isfinite(values).all():
            bad = int((~torch.isfinite(values)).sum())
            raise DataError(
                f"the {what} of '{name}' hold NaN or infinity in {bad} of {values.numel()} entries; clean them first"
            )


def _flat(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1)


def _permutation(n: int, seed: int, epoch: int = 0) -> Tensor:
    """An order of n samples; no generator but its own is touched."""
    mixed = int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:7], "little")
    return torch.randperm(n, generator=torch.Generator().manual_seed(mixed))
