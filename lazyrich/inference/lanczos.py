"""The spectrum of a Gram matrix that is known by its products only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from lazyrich.amount import counted
from lazyrich.errors import KernelError
from lazyrich.inference.operator import Operator, columns_of, operator_of


@dataclass(frozen=True)
class Density:
    """The spectral density of an operator as Gaussian quadratures, one a random start.

    Attributes:
        nodes: (probes, steps) eigenvalues of the Lanczos matrices.
        weights: (probes, steps), each row sums to 1.
        size: N, the number of eigenvalues that the density spreads.

    Example:
        >>> from lazyrich.inference import Dense
        >>> k = torch.arange(4.0) + torch.diag(torch.arange(4.0)) + torch.arange(4.0)[:, None]
        >>> mean, error = density(Dense(k), probes=8).moment(1)
        >>> abs(mean - float(k.trace()) / 4) < 4 * error
        True
    """

    nodes: Tensor
    weights: Tensor
    size: int

    def moment(self, power: int) -> tuple[float, float]:
        """Of power p: tr K^p / N and its standard error over the starts; exact for each start while power < 2 steps."""
        each = (self.weights * self.nodes**power).sum(1)
        return float(each.mean()), float(each.std() / math.sqrt(len(each)))

    def trace(self) -> tuple[float, float]:
        """The trace and its standard error (Hutchinson 1990)."""
        mean, error = self.moment(1)
        return mean * self.size, error * self.size

    def below(self, values: Sequence[float] | Tensor) -> Tensor:
        """The part of the eigenvalues that is at most each of ``values``, with half of a node that is hit."""
        at = torch.as_tensor(values, dtype=torch.float64)
        return (self.weights[..., None] * (self.nodes[..., None] <= at)).sum(1).mean(0)

    def smoothed(self, values: Tensor, width: float) -> Tensor:
        """The density in ln(lambda) at ``values`` > 0, each node a Gaussian of ``width`` in ln(lambda)."""
        positive = self.nodes > 0
        apart = values.log()[:, None, None] - torch.where(positive, self.nodes, 1.0).log()
        bells = torch.exp(-0.5 * (apart / width) ** 2) / (width * math.sqrt(2 * math.pi))
        return (bells * self.weights * positive).sum(2).mean(1)

    def __str__(self) -> str:
        trace, error = self.trace()
        return f"{self.size} eigenvalues, trace {trace:.4g} ± {error:.1g}, largest about {float(self.nodes.max()):.4g}"


def top_eigenpairs(operator: Operator | Tensor, count: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues, (count,), descending, and their eigenvectors in columns, (N, count).

    Implicitly restarted Lanczos (ARPACK) on matrix products alone: about two to three products an eigenpair, where the spectrum
    falls fast.

    Args:
        operator: symmetric, of shape (N, N); ``Dense``, ``Streamed``, ``NtkOperator`` or your own, or a matrix.
        count: from 1 to N - 1.
        seed: of the first vector.

    Raises:
        KernelError: for a matrix that is not symmetric, a count that does not fit, or eigenvalues that do not converge, with how
            many did.

    Example:
        >>> from lazyrich.inference import Dense
        >>> values, vectors = top_eigenpairs(Dense(torch.diag(torch.arange(1.0, 51))), 2)
        >>> [round(v, 6) for v in values.tolist()]
        [50.0, 49.0]
    """
    operator = operator_of(operator, "gram")
    size = operator.shape[0]
    if size < 2:
        raise KernelError(
            f"got a matrix of shape {tuple(operator.shape)}, expected at least two rows; its one number is its eigenvalue"
        )
    if isinstance(count, bool) or not isinstance(count, Integral) or not 1 <= count < size:
        raise KernelError(
            f"got count={count!r}, expected a whole number from 1 to {size - 1} of {size} eigenvalues; spectrum(gram) gives all of "
            "a matrix"
        )
    product = LinearOperator((size, size), matvec=lambda v: _product(operator, v), dtype=np.float64)  # type: ignore[call-arg]
    start = np.random.default_rng(counted("seed", seed, 0, refusal=KernelError)).standard_normal(size)
    try:
        values, vectors = eigsh(product, k=count, which="LA", v0=start)
    except ArpackNoConvergence as error:
        raise KernelError(f"{len(error.eigenvalues)} of {count} eigenvalues converged; ask for fewer") from error
    except ArpackError as error:
        raise KernelError(f"got an operator on which Lanczos fails ({error}), expected one that is not zero") from error
    order = np.argsort(values)[::-1].copy()
    return torch.from_numpy(values[order]), torch.from_numpy(vectors[:, order])


def density(operator: Operator | Tensor, probes: int = 10, steps: int = 50, seed: int = 0) -> Density:
    """The spectral density by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017, Algorithm 1).

    A random start z gives the Gaussian quadrature of z^T f(K) z / z^T z, whose mean over starts is tr f(K) / N; ``probes`` times
    ``steps`` products in all. The starts have entries +-1, and every Lanczos vector is made orthogonal to all before it.

    Args:
        operator: symmetric, of shape (N, N), or a symmetric matrix.
        probes: random starts; at least 2, from which errors follow.
        steps: nodes a start, at most N.
        seed: of the starts.

    Raises:
        KernelError: for a matrix that is not symmetric, fewer than two starts or one step, and products that are not finite.

    Example:
        >>> from lazyrich.inference import Dense
        >>> print(density(Dense(torch.diag(torch.tensor([1.0, 2.0, 2.0, 4.0])))))
        4 eigenvalues, trace 9 ± 0, largest about 4
    """
    if not all(isinstance(number, Integral) for number in (probes, steps)) or probes < 2 or steps < 1:
        raise KernelError(
            f"got probes={probes!r}, steps={steps!r}; expected whole numbers: at least 2 starts, which give errors, and 1 step"
        )
    operator, draw = operator_of(operator, "gram"), torch.Generator().manual_seed(counted("seed", seed, 0, refusal=KernelError))
    size = operator.shape[0]
    found = [_quadrature(operator, _signs(size, draw), min(steps, size)) for _ in range(probes)]
    longest = max(len(nodes) for nodes, _ in found)
    nodes, weights = (torch.stack([_padded(row[i], longest) for row in found]) for i in range(2))
    return Density(nodes, weights, size)


def _quadrature(operator: Operator, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights from the Lanczos matrix of one start; fewer than ``steps`` when the Krylov space is exhausted."""
    basis, alphas, betas = [start / start.norm()], [], []
    for step in range(steps):
        w = columns_of(operator, basis[-1][:, None])[:, 0].to(torch.float64)
        alphas.append(w @ basis[-1])
        known = torch.stack(basis)
        for _ in range(2):  # once is not enough in finite precision (Parlett: twice is)
            w = w - known.T @ (known @ w)
        beta = w.norm()
        if step == steps - 1 or float(beta) <= 1e-12 * float(max(abs(a) for a in alphas)):
            break
        betas.append(beta)
        basis.append(w / beta)
    matrix = torch.diag(torch.stack(alphas))
    if betas:
        side = torch.stack(betas)
        matrix = matrix + torch.diag(side, 1) + torch.diag(side, -1)
    nodes, vectors = torch.linalg.eigh(matrix)
    return nodes, vectors[0].square()


def _signs(size: int, draw: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (size,), generator=draw).double() * 2 - 1


def _padded(row: Tensor, length: int) -> Tensor:
    return torch.cat([row, row.new_zeros(length - len(row))])


def _product(operator: Operator, v: np.ndarray) -> np.ndarray:
    return columns_of(operator, torch.from_numpy(np.ascontiguousarray(v).reshape(-1, 1)))[:, 0].double().numpy()
