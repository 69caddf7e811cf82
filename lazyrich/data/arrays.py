"""Data held in memory, cut into batches that depend on nothing but a seed and a step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lazyrich.errors import DataError


@dataclass(frozen=True)
class ArrayData:
    """Samples x and targets y of equal length.

    Attributes:
        x: float32 samples, (N, ...).
        y: labels, int64 (N,), or numbers, float32 (N, ...).
        name: what the data is called in reports.

    Raises:
        DataError: if x is empty or not finite, or the lengths differ.

    Example:
        >>> data = ArrayData(torch.randn(10, 3), torch.arange(10) % 2, "toy")
        >>> len(data), data.classes
        (10, 2)
    """

    x: Tensor
    y: Tensor
    name: str = "arrays"

    def __post_init__(self) -> None:
        if self.x.dim() < 1 or len(self.x) == 0:
            raise DataError(f"'{self.name}' is empty: got inputs of shape {tuple(self.x.shape)}")
        if len(self.x) != len(self.y):
            raise DataError(f"'{self.name}' has {len(self.x)} inputs and {len(self.y)} targets; they must pair up")
        for what, values in (("inputs", self.x), ("targets", self.y)):
            if values.is_floating_point() and not torch.isfinite(values).all():
                raise DataError(f"the {what} of '{self.name}' hold NaN or infinity; clean them first")
        if not self.y.is_floating_point() and int(self.y.min()) < 0:
            raise DataError(f"'{self.name}' has the label {int(self.y.min())}; labels count from 0")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def classes(self) -> int | None:
        """Number of classes, or None when the targets are numbers."""
        return None if self.y.is_floating_point() else int(self.y.max()) + 1

    def subset(self, n: int, seed: int = 0) -> ArrayData:
        """N samples chosen by a seed, the same ones every time.

        Raises:
            DataError: if there are fewer than n.
        """
        if not 0 < n <= len(self):
            raise DataError(f"got n = {n}, expected between 1 and the {len(self)} samples of '{self.name}'")
        chosen = _permutation(len(self), seed)[:n]
        return replace(self, x=self.x[chosen], y=self.y[chosen])

    def batch(self, size: int, step: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The batch of a step: every epoch visits every sample once, in an order that seed and epoch alone decide.

        A batch that would run over the end of an epoch goes on into the next; one larger than the data is all of it.

        Example:
            >>> data = ArrayData(torch.arange(6.0), torch.arange(6.0))
            >>> sorted(torch.cat([data.batch(2, step)[0] for step in range(3)]).tolist())
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        """
        size, n = min(size, len(self)), len(self)
        first = step * size
        chosen = torch.cat([_permutation(n, seed, first // n), _permutation(n, seed, first // n + 1)])
        chosen = chosen[first % n : first % n + size]
        return self.x[chosen], self.y[chosen]

    def flatten(self) -> ArrayData:
        """The same samples as vectors, (N, d)."""
        return replace(self, x=self.x.flatten(1))

    def as_autoencoder(self) -> ArrayData:
        """The same samples with themselves, flattened, as targets."""
        return replace(self, y=self.x.flatten(1))

    def standardize(self) -> ArrayData:
        """Inputs with mean 0 and variance 1 over all entries, so that ||x||^2 is about d, as the theory assumes."""
        spread = self.x.std(correction=0)
        if spread == 0:
            raise DataError(f"all inputs of '{self.name}' are equal; there is nothing to learn from them")
        return replace(self, x=(self.x - self.x.mean()) / spread)

    def fingerprint(self) -> str:
        """A short hash of the contents."""
        digest = hashlib.sha256()
        for tensor in (self.x, self.y):
            digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def _permutation(n: int, seed: int, epoch: int = 0) -> Tensor:
    """An order of n samples; no generator but its own is touched."""
    mixed = int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:7], "little")
    return torch.randperm(n, generator=torch.Generator().manual_seed(mixed))
